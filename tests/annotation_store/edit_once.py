"""A program that makes one edit and says how it ended: what strace kills, or fails a call of.

`python -m tests.annotation_store.edit_once` reads lines `ROOT OPERATION` and forks for each: the fork has everything
imported, stops itself until a tracer is attached, and then does nothing but the edit. It answers `PID` when the fork
has stopped and the name of its end afterwards.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from annotation_store.blocks import Location
from annotation_store.edits import Change, DeleteOne, PutOne, ReplaceAll, RestoreTo
from annotation_store.orders import Order, Outcome, Part, Save, Wish
from annotation_store.pages.journal import Journal
from annotation_store.store import AnnotationStore
from precomputed_server.errors import PrecomputedError
from precomputed_server.files import Tree
from tests.annotation_store.support import BLOCK, by_id, some

JOURNAL = "pages"
"""Where beneath the root it is kept what pages hold."""

OPERATIONS: dict[str, Callable[[], Change | Save]] = {
    "add": lambda: PutOne(some(1, first=9)[0]),
    "change": lambda: PutOne(some(1)[0] | {"description": "changed"}),
    "delete": lambda: DeleteOne(some(1)[0]["id"]),
    "put": lambda: ReplaceAll(by_id(some(4, first=2))),
    "restore": lambda: RestoreTo(by_id(some(2, first=1))),
    "save": lambda: Save(by_id([some(1)[0] | {"description": "changed"}, some(2)[1], *some(1, first=9)])),
}


def main() -> None:
    """Serve the lines of the standard input."""
    for line in sys.stdin:
        root, operation = line.split()
        reading, writing = socket.socketpair()  # the calls that are counted are of files
        child = os.fork()
        if child == 0:
            reading.close()
            _edit(Path(root), operation, writing)
        writing.close()
        os.waitpid(child, os.WUNTRACED)
        print(child, flush=True)  # noqa: T201
        _, status = os.waitpid(child, 0)
        said = reading.recv(10_000).decode()
        reading.close()
        killed = os.WIFSIGNALED(status)
        print(json.dumps(["killed"] if killed else json.loads(said)), flush=True)  # noqa: T201


def _edit(root: Path, operation: str, writing: socket.socket) -> None:
    store = AnnotationStore(Tree(root), 5, Journal(root / JOURNAL))
    location = store.locate("brain", BLOCK, "fibers")
    wish, another = OPERATIONS[operation](), PutOne(some(1, first=20)[0])
    os.kill(os.getpid(), signal.SIGSTOP)
    ended = _commit(store, location, wish)
    again = _commit(store, location, another)
    names = [type(ended).__name__, type(again).__name__, isinstance(ended, Outcome)]
    writing.send(json.dumps(names).encode())
    os._exit(0)


def _commit(store: AnnotationStore, location: Location, wish: Wish) -> Outcome | PrecomputedError:
    part = Part(location.leaf, "put", change=wish)
    answer = store.commit([Order(location.directory, (part,), "somebody", "page", secrets.token_hex(16))])[0]
    return answer if isinstance(answer, PrecomputedError) else answer[0]


if __name__ == "__main__":
    main()
