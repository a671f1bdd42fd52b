"""What a line of the log says, as values: edits, other tools' versions, parked removals and what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from annotation_store.model import Item

Members = dict[str, Any]
"""The members of a line without its place in the chain."""

EXTERNAL = "external"
PARKED = "parked"
RESOLVED = "resolved"
NOTED = "noted"
ORDER = "order"
CONTENT = "content"
SEGMENT = "segment"
COMPACTED = "compacted"
EDITS = frozenset(("add", "change", "delete", "restore"))
"""The operations that a line may name."""


@dataclass(frozen=True)
class Head:
    """When and by whom something was asked for.

    `op` tells the request from every other one; `key` and `request` are its Idempotency-Key and a digest of it. `holds`
    says, in the first record of a whole-file save, what its page holds since (see holds_of). `clock` is what the clock
    said where that was before `time`, which never goes back.
    """

    time: str
    author: str
    session: str
    op: str = ""
    key: str | None = None
    request: str | None = None
    holds: Members | None = None
    clock: str | None = None


def holds_of(base: str | None, nothing: bool, said: Members) -> Members:
    """What a page holds after its save, instead of `base`: the stored file after what is `said` of it.

    With `nothing`, what is said is counted from nothing, and with an origin among it, from that shadow.
    """
    members: Members = {} if base is None else {"base": base}
    return members | ({"nothing": True} if nothing else {}) | said


@dataclass(frozen=True)
class EditRecord:
    """One annotation added, changed, deleted or restored; what is written is the way from `before` to `after`."""

    leaf: str
    version: int
    head: Head
    operation: str
    id: str
    before: Item | None
    after: Item | None


@dataclass(frozen=True)
class ExternalRecord:
    """Another tool wrote the file: its whole `text`, None when the file was deleted."""

    leaf: str
    version: int
    head: Head
    text: str | None


@dataclass(frozen=True)
class ParkedRecord:
    """Removals that were not applied, and the body that asked for them.

    That body is the version of `etag`, which was the newest, without the ids `missing` and with `differing` put in.
    """

    leaf: str
    version: int
    head: Head
    parked: str
    reason: str
    remove: tuple[str, ...]
    etag: str | None
    missing: tuple[str, ...]
    differing: tuple[Item, ...]


@dataclass(frozen=True)
class ResolvedRecord:
    """What became of parked removals: `how` is applied or discarded."""

    leaf: str
    version: int
    head: Head
    parked: str
    how: str


@dataclass(frozen=True)
class NoteRecord:
    """A request with an Idempotency-Key was carried out and changed nothing."""

    leaf: str
    version: int
    head: Head


@dataclass(frozen=True)
class OrderRecord:
    """After the restorations of its group the annotations stand in the order of `ids`, as they did then."""

    leaf: str
    version: int
    head: Head
    ids: tuple[str, ...]


Record = EditRecord | ExternalRecord | ParkedRecord | ResolvedRecord | NoteRecord | OrderRecord


@dataclass(frozen=True)
class FileChange:
    """The SHA-256, in hex, of a leaf's file before and after a group; None where there is no file."""

    before: str | None
    after: str | None

    def to_json(self) -> Members:
        """The members that the last line of a group has for a leaf."""
        return {"before": self.before, "after": self.after}


def members_of(record: Record) -> Members:
    """The members of a record's line; those of an edit lack its content."""
    members = _head(record, _operation(record))
    if isinstance(record, EditRecord):
        members["id"] = record.id
    elif isinstance(record, ExternalRecord):
        members["text"] = record.text
    elif isinstance(record, ParkedRecord):
        members |= {
            "parked": record.parked,
            "reason": record.reason,
            "remove": record.remove,
            "etag": record.etag,
            "missing": record.missing,
            "differing": record.differing,
        }
    elif isinstance(record, OrderRecord):
        members["ids"] = record.ids
    elif isinstance(record, ResolvedRecord):
        members |= {"parked": record.parked, "how": record.how}
    return members


def head_of(members: Mapping[str, Any]) -> Head:
    """The head of a line."""
    return Head(
        members["time"],
        members["author"],
        members["session"],
        members.get("op", ""),
        members.get("key"),
        members.get("request"),
        members.get("holds"),
        members.get("clock"),
    )


def parked_of(members: Mapping[str, Any]) -> ParkedRecord:
    """The record of a line that parks removals."""
    return ParkedRecord(
        members["leaf"],
        members["version"],
        head_of(members),
        members["parked"],
        members["reason"],
        tuple(members["remove"]),
        members["etag"],
        tuple(members["missing"]),
        tuple(members["differing"]),
    )


def _operation(record: Record) -> str:
    return record.operation if isinstance(record, EditRecord) else _OPERATIONS[type(record)]


_OPERATIONS: Mapping[type[Record], str] = {
    ExternalRecord: EXTERNAL,
    ParkedRecord: PARKED,
    ResolvedRecord: RESOLVED,
    NoteRecord: NOTED,
    OrderRecord: ORDER,
}


def _head(record: Record, operation: str) -> Members:
    head = record.head
    members: Members = {
        "leaf": record.leaf,
        "version": record.version,
        "time": head.time,
        "author": head.author,
        "session": head.session,
        "operation": operation,
    }
    if head.op:
        members["op"] = head.op
    if head.key is not None:
        members["key"] = head.key
    if head.request is not None:
        members["request"] = head.request
    if head.holds is not None:
        members["holds"] = head.holds
    if head.clock is not None:
        members["clock"] = head.clock
    return members
