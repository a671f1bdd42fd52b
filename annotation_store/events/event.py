"""Events as values: what a line of a block's log says to somebody who watches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from annotation_store.events.contents import Contents
from annotation_store.events.identity import EventId, number_of
from annotation_store.history.instants import milliseconds_of
from annotation_store.history.records import EDITS, EXTERNAL, PARKED, RESOLVED, Members

EDIT = "edit"
LARGEST_ANNOTATION = 64 << 10
"""Bytes of JSON up to which an event holds the annotation itself."""

_KINDS = {**dict.fromkeys(EDITS, EDIT), EXTERNAL: EDIT, PARKED: PARKED, RESOLVED: RESOLVED}


@dataclass(frozen=True, slots=True)
class Event:
    """One event: `kind` is edit, parked or resolved, `data` a JSON object in one line.

    `time` is the moment of the log when it was there: the time of its line or of an earlier one, whichever is later.
    `annotation` is the id of the annotation, None where the event is about a whole leaf.
    """

    id: str
    kind: str
    block: str
    leaf: str
    time: str
    annotation: str | None
    data: bytes


def event_of(block: str, host: str, members: Members, contents: Contents, time: str) -> Event | None:
    """What a line says that the block's `contents` have just been brought past; None for a line that is no event."""
    operation, leaf = members["operation"], members["leaf"]
    if operation not in _KINDS:
        return None
    named = members.get("parked") if operation in (PARKED, RESOLVED) else members.get("id")
    number = number_of(block, leaf, members["version"], operation, named)
    id = str(EventId(milliseconds_of(members["time"]), host, number))
    told: dict[str, Any] = {"event": id, "block": block, "leaf": leaf}
    told |= {name: members.get(name, "") for name in ("version", "time", "author", "session", "operation")}
    if operation in EDITS:
        told |= {"id": named, **_after(block, members, contents)}
    elif operation == EXTERNAL:
        told |= {"id": None, "url": _version_url(block, members)}
    elif operation == PARKED:
        told |= {name: members[name] for name in ("parked", "reason", "remove")}
    else:
        told |= {name: members[name] for name in ("parked", "how")}
    annotation = named if operation in EDITS else None
    return Event(id, _KINDS[operation], block, leaf, time, annotation, orjson.dumps(told))


def _after(block: str, members: Members, contents: Contents) -> dict[str, Any]:
    """The annotation after an edit; a large one by reference, and by what differs where the whole is not at hand."""
    known = contents.knows(members)
    after = contents.annotation(members["leaf"], members["id"])
    if known and after is None:
        return {"after": None}
    written = orjson.dumps(after)
    if known and len(written) <= LARGEST_ANNOTATION:
        return {"after": orjson.Fragment(written)}
    by_reference: dict[str, Any] = {"url": _version_url(block, members)}
    if "change" in members and len(orjson.dumps(members["change"])) <= LARGEST_ANNOTATION:
        by_reference["change"] = members["change"]
    return by_reference


def _version_url(block: str, members: Members) -> str:
    """Where the leaf of that version can be read, relative to the stream's own address."""
    return f"{block}/{members['leaf']}.json?version={members['version']}"
