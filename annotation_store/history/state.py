"""What one process remembers of a block's log between openings, learned group by group."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from annotation_store.history.encoding import Counts
from annotation_store.history.lines import FORMAT
from annotation_store.history.records import (
    CONTENT,
    EDITS,
    EXTERNAL,
    PARKED,
    RESOLVED,
    SEGMENT,
    EditRecord,
    FileChange,
    Members,
    ParkedRecord,
    Record,
    members_of,
    parked_of,
)
from annotation_store.history.requests import Done, Requests, done_of, gather
from annotation_store.model import Items

KEPT_OPERATIONS = 20_000
KEPT_KEYS = 100_000
"""How many requests are remembered by operation id, and by Idempotency-Key."""
CARRIED = 2_000
"""How many parked records a new segment's header takes over."""


@dataclass(frozen=True, slots=True)
class LeafTail:
    """What the log says of a leaf's newest version: hashes of the file before and after its group, and where that lies.

    `external` tells a group that says what another tool wrote: there is no write of ours that it could announce.
    `segment`, `start` and `stop` are the number of the segment and the group's bytes in it.
    """

    version: int
    before: str | None
    after: str | None
    external: bool
    time: str
    author: str
    session: str
    segment: int
    start: int
    stop: int

    def to_json(self) -> Members:
        """The members that a segment's header has for the leaf."""
        return {name: getattr(self, name) for name in _TAIL}

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> LeafTail:
        """The tail that a header tells of."""
        return cls(**{name: members[name] for name in _TAIL})


_TAIL = ("version", "before", "after", "external", "time", "author", "session", "segment", "start", "stop")


@dataclass
class LogState:
    """What was read of a log: up to where in which segment, how that ends, and what it says."""

    segment: int = -1
    inode: int = -1
    read: int = 0
    end: bytes = b""
    digest: str = ""
    time: str = ""
    edit_bytes: int = 0
    other_bytes: int = 0
    older_read: bool = False
    leaves: dict[str, LeafTail] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    counts: Counts = field(default_factory=dict)
    operations: OrderedDict[str, Done] = field(default_factory=OrderedDict)
    keys: OrderedDict[str, Done] = field(default_factory=OrderedDict)
    parked: dict[str, ParkedRecord] = field(default_factory=dict)
    newest: list[Members] = field(default_factory=list)
    begun: int = -1
    """Where in the segment `newest` begins, the group learned last; negative where that lies in an earlier one."""

    def forget(self) -> None:
        """Begin again; what time was told last stays, so that time does not go back."""
        time = self.time
        self.__init__()  # type: ignore[misc]  # every member as in a new one
        self.time = time

    def begin(self, segment: int, inode: int) -> None:
        """Go on with a segment of which nothing was read yet."""
        self.segment, self.inode, self.read, self.end = segment, inode, 0, b""
        self.edit_bytes = self.other_bytes = 0
        self.begun = -1
        self.touched.clear()
        self.counts.clear()

    def header(self, number: int, time: str) -> Members:
        """The first line of a new segment: what all those before say."""
        parked = list(self.parked.values())[-CARRIED:]
        return {
            "format": FORMAT,
            "operation": SEGMENT,
            "number": number,
            "time": time,
            "leaves": {leaf: tail.to_json() for leaf, tail in self.leaves.items()},
            "parked": [members_of(record) for record in parked],
        }

    def learn_header(self, members: Members) -> None:
        """What a segment's header says of all that came before, where nothing else was read of that."""
        self.time = max(self.time, members["time"])
        if not self.leaves:
            self.leaves = {leaf: LeafTail.from_json(tail) for leaf, tail in members["leaves"].items()}
        if not self.parked:
            self.parked = {record["parked"]: parked_of(record) for record in members["parked"]}

    def learn(self, group: Iterable[Members], files: Mapping[str, Any], start: int, stop: int) -> None:
        """What a group says that lies at these bytes of the segment."""
        newest: dict[str, Members] = {}
        requests: Requests = {}
        self.newest, self.begun = list(group), start
        for members in self.newest:
            operation = members["operation"]
            if operation in EDITS or operation == EXTERNAL:
                newest[members["leaf"]] = members
            elif operation == PARKED:
                self.parked[members["parked"]] = parked_of(members)
            elif operation == RESOLVED:
                self.parked.pop(members["parked"], None)
            self.time = max(self.time, members["time"])
            gather(members, requests)
        for leaf, members in newest.items():
            self._learn_leaf(leaf, members, files.get(leaf), start, stop)
        for (op, key), made in requests.items():
            self._learn_request(op, key, made)

    def _learn_leaf(self, leaf: str, members: Members, file: Mapping[str, Any] | None, start: int, stop: int) -> None:
        self.touched.add(leaf)
        if file is not None:
            self.leaves[leaf] = LeafTail(
                members["version"],
                file.get("before"),
                file["after"],
                members["operation"] == EXTERNAL,
                members["time"],
                members["author"],
                members["session"],
                self.segment,
                start,
                stop,
            )

    def _learn_request(self, op: str, key: str | None, made: list[Members]) -> None:
        done = done_of(made)
        if op:
            self.operations[op] = done
        if len(self.operations) > KEPT_OPERATIONS:
            self.operations.popitem(last=False)
        if key is not None:
            self.keys[key] = done
            if len(self.keys) > KEPT_KEYS:
                self.keys.popitem(last=False)

    def learn_older(self, requests: Requests) -> None:
        """Requests of an earlier segment, which come before all that is known."""
        for (op, key), made in reversed(requests.items()):
            done = done_of(made)
            if op and op not in self.operations and len(self.operations) < KEPT_OPERATIONS:
                self.operations[op] = done
                self.operations.move_to_end(op, last=False)
            if key is not None and key not in self.keys and len(self.keys) < KEPT_KEYS:
                self.keys[key] = done
                self.keys.move_to_end(key, last=False)


def contents_before(
    state: LogState, records: Sequence[Record], files: Mapping[str, FileChange], contents: Mapping[str, Items]
) -> list[Members]:
    """The lines of leaves before their first edit in a segment, so that it can be read without those before it."""
    if state.touched.issuperset(files):
        return []
    first = {record.leaf: record for record in reversed(records)}
    found = []
    for leaf in sorted(files.keys() - state.touched):
        tail = state.leaves.get(leaf)
        known = tail is not None and files[leaf].before is not None and leaf in contents
        if tail is not None and known and isinstance(first.get(leaf), EditRecord):
            members = {"operation": CONTENT, "leaf": leaf, "version": tail.version, "time": tail.time}
            members |= {"author": tail.author, "session": tail.session}
            found.append(members | {"items": list(contents[leaf].values())})
    return found
