"""Ctrl-C while a command is loaded or over: the process ends with 130, as shells count it, and without a traceback.

A KeyboardInterrupt would leave modules half imported, and what they make of it is no sentence for a person.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

Handler = Callable[[int, FrameType | None], object]

EXIT_CODE = 128 + signal.SIGINT


def end_at_once() -> None:
    """From now on Ctrl-C ends the process there and then: there must be nothing to clear up.

    Not where it is ignored, as in a background job of a shell, or somebody handles it in a way of their own.
    """
    _exchange(signal.default_int_handler, _end)


def end_tidily() -> None:
    """From now on Ctrl-C raises KeyboardInterrupt again."""
    _exchange(_end, signal.default_int_handler)


@contextmanager
def loading() -> Iterator[None]:
    """Within it Ctrl-C ends the process there and then, behind it by KeyboardInterrupt, so that commands clear up."""
    end_at_once()
    try:
        yield
    finally:
        end_tidily()


def _exchange(before: Handler, after: Handler) -> None:
    if signal.getsignal(signal.SIGINT) is before:
        with suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, after)


def _end(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"Stopped.\n")
    os._exit(EXIT_CODE)
