"""`precomputed` with one of its promises broken, for tests of the checker: `SABOTAGE=lock|answer|merge`.

Everything is broken when the module is read, so that processes which are begun anew are broken as well.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import precomputed_server.mounts
from precomputed_server.writing import exclusive_lock

if TYPE_CHECKING:
    from _typeshed import HasFileno

DROPPED_SHARE = 0.1


def without_locks() -> None:
    """Nobody excludes anybody any more; only the probe of the mount, which would refuse to begin, still can."""
    lock = fcntl.flock

    @contextlib.contextmanager
    def probe(*given: Any, **named: Any) -> Iterator[None]:
        fcntl.flock = lock
        try:
            with exclusive_lock(*given, **named):
                yield
        finally:
            fcntl.flock = always

    def always(descriptor: int | HasFileno, operation: int, /) -> None:
        return None

    fcntl.flock = always
    setattr(precomputed_server.mounts, "exclusive_lock", probe)  # noqa: B010  # mypy: not a name that it offers


def without_writing() -> None:
    """One edit in many is acknowledged and dropped."""
    from annotation_store.edits import Edit, PutOne
    from annotation_store.model import Items

    edits = PutOne.edits

    def dropped(self: PutOne, stored: Items) -> list[Edit]:
        return [] if random.random() < DROPPED_SHARE else edits(self, stored)

    setattr(PutOne, "edits", dropped)  # noqa: B010  # mypy: methods are not to be assigned


def without_merging() -> None:
    """A whole-file save replaces the file, as it did in the data manager."""
    from annotation_store import orders
    from annotation_store.edits import ReplaceAll
    from annotation_store.model import parse_items

    def replaced(part: orders.Part) -> orders.Wish:
        return ReplaceAll(parse_items(part.body))

    orders._WISHES = {**orders._WISHES, "put": replaced}


SABOTAGES = {"lock": without_locks, "answer": without_writing, "merge": without_merging}
SABOTAGES[os.environ["SABOTAGE"]]()

if __name__ == "__main__":
    from precomputed_server.cli import run

    run()
