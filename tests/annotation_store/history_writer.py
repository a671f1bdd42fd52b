"""A block's log written as the store writes it, with the files that it speaks of kept in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from annotation_store.history.instants import instant_of
from annotation_store.history.log import BlockLog
from annotation_store.history.records import (
    EditRecord,
    ExternalRecord,
    FileChange,
    Head,
    NoteRecord,
    ParkedRecord,
    Record,
    ResolvedRecord,
)
from annotation_store.history.state import LogState
from annotation_store.model import Item, Items, parse_stored, serialize
from tests.data import point

START_S = 1_790_000_000.0
"""The clock when a test begins: 2026-09-21T13:33:20Z."""

Step = tuple[str, Item | str]
"""An edit: ("put", the annotation), ("restore", the annotation) or ("delete", its id)."""


def sha(data: bytes | None) -> str | None:
    """SHA-256 in hex."""
    return None if data is None else hashlib.sha256(data).hexdigest()


def some(count: int, first: int = 0) -> list[Item]:
    """That many points with different coordinates."""
    return [point(number, number + 0.5, 2 * number, 3.25) for number in range(first, first + count)]


class Writer:
    """One block: `files` are the bytes of its leaves, `past` every version of them, `now` the clock in seconds."""

    def __init__(self, directory: Path, segment_bytes: int = 16 << 20) -> None:
        self.directory = directory
        self.history = os.open(directory, os.O_RDONLY)
        self.segment_bytes = segment_bytes
        self.state = LogState()
        self.files: dict[str, bytes | None] = {}
        self.items: dict[str, Items] = {}
        self.stored: dict[str, Items] = {}
        self.versions: dict[str, int] = {}
        self.past: dict[str, dict[int, tuple[str, bytes]]] = {}
        self.now = START_S
        self.made = 0

    @contextmanager
    def log(self, *, repair: bool = True) -> Iterator[BlockLog]:
        """The log, refreshed."""
        with closing(BlockLog(self.history, self.state, self.segment_bytes, self.clock)) as log:
            log.refresh(repair=repair)
            yield log

    def head(self, log: BlockLog, session: str = "page", **members: Any) -> Head:
        """The head of a new request."""
        self.made += 1
        return Head(log.time(), f"author of {session}", session, **{"op": f"{self.made:016x}", **members})

    def edit(self, *steps: Step, leaf: str = "fibers", session: str = "page", **members: Any) -> int:
        """Commit one request of these edits; returns the version that it makes."""
        with self.log() as log:
            records = self.records(log, steps, leaf, session, **members)
            self.append(log, records)
        return self.versions[leaf]

    def records(
        self, log: BlockLog, steps: Sequence[Step], leaf: str = "fibers", session: str = "page", **members: Any
    ) -> list[Record]:
        """The records of one request; what they make is known from now on."""
        head, version = self.head(log, session, **members), self.versions.get(leaf, 0) + 1
        items = dict(self.items.get(leaf, {}))
        made: list[Record] = []
        for verb, what in steps:
            id = what if isinstance(what, str) else what["id"]
            before, after = items.get(id), None if isinstance(what, str) else what
            operation = ("add" if before is None else "change") if verb == "put" else verb
            made.append(EditRecord(leaf, version, head, operation, id, before, after))
            if after is None:
                items.pop(id, None)
            else:
                items[id] = after
        self.items[leaf], self.versions[leaf] = items, version
        self.past.setdefault(leaf, {})[version] = (head.time, serialize(items))
        return made

    def append(self, log: BlockLog, records: Sequence[Record]) -> None:
        """Commit records as one group."""
        changed = sorted({record.leaf for record in records if isinstance(record, EditRecord)})
        before = {leaf: self.files.get(leaf) for leaf in changed}
        after = {leaf: serialize(self.items[leaf]) for leaf in changed}
        files = {leaf: FileChange(sha(before[leaf]), sha(after[leaf])) for leaf in changed}
        log.append(records, files, {leaf: self.stored[leaf] for leaf in changed if leaf in self.stored})
        self.files |= after
        self.stored |= {leaf: self.items[leaf] for leaf in changed}

    def external(self, data: bytes | None, leaf: str = "fibers") -> int:
        """Another tool writes a leaf's file, and the log takes it up."""
        with self.log() as log:
            version = self.versions.get(leaf, 0) + 1
            text = None if data is None else data.decode()
            record = ExternalRecord(leaf, version, Head(log.time(), "external", ""), text)
            log.append([record], {leaf: FileChange(sha(self.files.get(leaf)), sha(data))}, {})
            self.versions[leaf], self.files[leaf] = version, data
            self.stored[leaf] = self.items[leaf] = {} if data is None else parse_stored(data)
            self.past.setdefault(leaf, {})[version] = (record.head.time, data or b"[]\n")
        return version

    def park(
        self, *remove: str, leaf: str = "fibers", missing: Sequence[str] = (), differing: Sequence[Item] = ()
    ) -> str:
        """Park the removal of these annotations; returns its id."""
        with self.log() as log:
            head = self.head(log)
            etag = (sha(self.files[leaf]) or "")[:32]
            record = ParkedRecord(
                leaf,
                self.versions[leaf],
                head,
                head.op,
                "several removed",
                remove,
                etag,
                remove,
                tuple(differing),
            )
            log.append([record], {}, {})
        return head.op

    def resolve(self, parked: str, how: str, leaf: str = "fibers") -> None:
        """Say what became of a parked removal."""
        with self.log() as log:
            log.append([ResolvedRecord(leaf, self.versions[leaf], self.head(log), parked, how)], {}, {})

    def note(self, key: str, leaf: str = "fibers") -> None:
        """A request with that key that changed nothing."""
        with self.log() as log:
            log.append([NoteRecord(leaf, self.versions.get(leaf, 0), self.head(log, key=key))], {}, {})

    def segments(self) -> list[Path]:
        """The log's files, oldest first."""
        return sorted(self.directory.glob("log-*.jsonl"))

    def clock(self) -> float:
        """The time in seconds."""
        return self.now

    def told(self) -> str:
        """The time as the log writes it."""
        return instant_of(self.now)
