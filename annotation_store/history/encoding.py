"""How an edit's content is written: as a delta, or whole where that is shorter or due."""

from __future__ import annotations

from typing import Any

import orjson

from annotation_store.history.delta import difference
from annotation_store.history.records import EditRecord, Members, Record, members_of

WHOLE_EVERY = 100
"""After so many deltas an annotation is written whole."""

Counts = dict[tuple[str, str], int]
"""How many deltas of an annotation, by leaf and id, a segment holds since it was last written whole."""


def encoded(record: Record, counts: Counts) -> Members:
    """The members of a record's line, for which `counts` are those of the lines before it."""
    members = members_of(record)
    if isinstance(record, EditRecord) and record.after is not None:
        name, members[name] = _content(record, counts.get((record.leaf, record.id), 0))
    return members


def count(members: Members, counts: Counts) -> None:
    """Bring `counts` past a line of an edit."""
    annotation = (members["leaf"], members["id"])
    if "change" in members:
        counts[annotation] = counts.get(annotation, 0) + 1
    else:
        counts.pop(annotation, None)


def _content(record: EditRecord, deltas: int) -> tuple[str, Any]:
    whole = orjson.dumps(record.after)
    if record.before is not None and record.after is not None and deltas < WHOLE_EVERY - 1:
        delta = difference(record.before, record.after)
        written = whole if delta is None else orjson.dumps(delta)
        if len(written) < len(whole):
            return "change", orjson.Fragment(written)
    return "after", orjson.Fragment(whole)
