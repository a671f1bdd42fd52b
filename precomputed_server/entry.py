"""The entry points `precomputed` and `precomputed-tif`: they load the commands, which takes a moment, and call them.

This module imports next to nothing, and from its import on Ctrl-C ends the process: only programs import it.
"""

from __future__ import annotations

from collections.abc import Callable

from precomputed_server.interrupt import end_at_once

end_at_once()


def run() -> None:
    """The entry point `precomputed`."""
    from precomputed_server import cli

    _call(cli.run)


def run_precomputed_tif() -> None:
    """The entry point `precomputed-tif`."""
    from precomputed_server import cli

    _call(cli.run_precomputed_tif)


def _call(program: Callable[[], None]) -> None:
    try:
        program()
    finally:
        end_at_once()  # while the interpreter shuts down
