"""What simulated annotators asked for and were told, as values, and the notebook in which they all write it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Item = dict[str, Any]
Items = dict[str, Item]

NEVER_ENDED = 2**63
"""`ended` of what was never answered: it may still happen at any later moment."""

BEFORE_ALL = -1
"""When what lay there from the beginning was written."""

Result = Literal["ok", "fail", "info"]
"""Done; surely not done; nobody knows (a timeout, a connection that broke, a server's error)."""


@dataclass(frozen=True)
class Write:
    """One annotation given new values.

    `fields` are those that the annotator meant; with `whole` every other one is to be gone. `sent` is the annotation
    as it went over the wire: what is stored when somebody has deleted it in between.
    """

    id: str
    fields: Mapping[str, Any]
    sent: Item
    whole: bool = False


@dataclass(frozen=True)
class Operation:
    """One request that edits: what was meant, from when to when (ns of one clock), and what was answered.

    `said` is the first word of Precomputed-Edit, "" without one; only `page` saves have it. `doubtful`: nobody could
    tell from outside what the page held, so in doubt its removals may stay undone. `held` is then the whole body.
    `repeats`: the page had sent the very same body before, so nothing needs to come of it.
    """

    who: str
    leaf: str
    writes: tuple[Write, ...] = ()
    removes: tuple[str, ...] = ()
    invoked: int = 0
    ended: int = NEVER_ENDED
    result: Result = "info"
    version: int | None = None
    said: str = ""
    page: bool = False
    doubtful: bool = False
    repeats: bool = False
    held: Mapping[str, Item] = field(default_factory=dict)

    @property
    def surely_written(self) -> bool:
        """Whether it was acknowledged that its writes were carried out."""
        return self.result == "ok" and not self.repeats

    @property
    def may_remove(self) -> bool:
        """Whether its removals may have been carried out."""
        return self.result != "fail" and self.said not in ("parked", "unchanged")

    @property
    def surely_removed(self) -> bool:
        """Whether it was acknowledged that its removals were carried out."""
        return self.result == "ok" and self.may_remove and not self.doubtful


@dataclass(frozen=True)
class Read:
    """One GET of a leaf: its entity tag (None: there is nothing), and the ids that came and went since the last one."""

    who: str
    leaf: str
    invoked: int
    ended: int
    etag: str | None
    appeared: frozenset[str] = frozenset()
    vanished: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Violation:
    """One broken promise."""

    kind: str
    leaf: str
    id: str
    sentence: str


@dataclass
class History:
    """The notebook of a run: annotators in many threads write into it."""

    operations: list[Operation] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    """What an annotator saw at once: answers that no server should give."""
    dropped: list[str] = field(default_factory=list)
    """The paths of requests whose answer was dropped on purpose."""

    def __post_init__(self) -> None:
        self._open: dict[int, Operation] = {}
        self._lock = threading.Lock()
        self._number = 0

    @contextlib.contextmanager
    def invoked(self, operation: Operation) -> Iterator[Attempt]:
        """Note that `operation` begins, and at the end of the block how it ended."""
        begun = replace(operation, invoked=time.monotonic_ns())
        with self._lock:
            self._number += 1
            number = self._number
            self._open[number] = begun
        attempt = Attempt()
        try:
            yield attempt
        finally:
            ended = NEVER_ENDED if attempt.result == "info" else time.monotonic_ns()
            done = replace(begun, ended=ended, result=attempt.result, version=attempt.version, said=attempt.said)
            with self._lock:
                del self._open[number]
                self.operations.append(done)

    def complain(self, kind: str, leaf: str, sentence: str, id: str = "") -> None:
        """Note an answer that breaks a promise by itself."""
        self.violations.append(Violation(kind, leaf, id, sentence))

    def acknowledged(self) -> list[int]:
        """The moments of the acknowledgements so far, in order."""
        with self._lock:
            return sorted(operation.ended for operation in self.operations if operation.result == "ok")

    def all_operations(self) -> list[Operation]:
        """Those that ended, and those that did not as ones of which nothing is known."""
        with self._lock:
            return [*self.operations, *self._open.values()]


@dataclass
class Attempt:
    """How an operation ends: set while it is under way."""

    result: Result = "info"
    version: int | None = None
    said: str = ""
