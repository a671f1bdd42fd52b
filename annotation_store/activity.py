"""Who edited a dataset lately: the newest edits of all its files, and how many each author made on each day."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from annotation_store.history.instants import instant, seconds_of
from annotation_store.history.records import Members
from annotation_store.reader import AnnotationReader
from annotation_store.review import REVIEW

_MOST_LINES = 500_000
"""Edits of one dataset that are looked at for one answer: some seconds."""

REVIEWED = "review"
"""The operation of an edit that confirms an annotation, or withdraws that."""

_SAME_S = 10.0
"""Changes of one annotation by one person that are no further apart are one, as where it is dragged."""


@dataclass(frozen=True)
class Edit:
    """What somebody did to an annotation; `id` is None where another tool wrote the whole file.

    `first` is the first version of those that it took, `version` the last.
    """

    time: str
    block: str
    leaf: str
    version: int
    first: int
    author: str
    operation: str
    id: str | None


@dataclass(frozen=True)
class Activity:
    """The newest edits, newest first, and the edits of each day (UTC) and author; `is_cut` tells that some are not
    counted because there are too many.
    """

    edits: list[Edit]
    days: Counter[tuple[str, str]]
    is_cut: bool

    def to_json(self) -> dict[str, Any]:
        """As the interface has it."""
        days = sorted(self.days.items(), reverse=True)
        return {
            "edits": [asdict(edit) for edit in self.edits],
            "days": [{"day": day, "author": author, "edits": count} for (day, author), count in days],
            "cut": self.is_cut,
        }


def activity_of(store: AnnotationReader, dataset: str, since: datetime, limit: int) -> Activity:
    """What was done in a dataset since a moment, with the newest `limit` edits; raises OSError, Unreadable."""
    days: Counter[tuple[str, str]] = Counter()
    newest: list[tuple[str, int, Edit]] = []
    lines = _lines(store, dataset, since)
    for number, edit in enumerate(_joined(itertools.islice(lines, _MOST_LINES))):
        days[edit.time[:10], edit.author] += 1
        kept = (edit.time, number, edit)
        if len(newest) < limit:
            heapq.heappush(newest, kept)
        else:
            heapq.heappushpop(newest, kept)
    return Activity([edit for _, _, edit in sorted(newest, reverse=True)], days, next(lines, None) is not None)


def _lines(store: AnnotationReader, dataset: str, since: datetime) -> Iterator[tuple[str, Members]]:
    for block in store.logged_blocks(dataset):
        with store.versions(block.location("")) as versions:
            for members in versions.edits_since(instant(since)):
                yield block.name, members


def _joined(lines: Iterator[tuple[str, Members]]) -> Iterator[Edit]:
    """The edits of lines that are newest first within each file; what is done in one go is one of them."""
    last: dict[tuple[str, str, str | None], Edit] = {}
    for block, members in lines:
        leaf, version, id = members["leaf"], members["version"], members.get("id")
        later = last.get((block, leaf, id))
        if later is not None and _goes_on(members, later):
            last[block, leaf, id] = replace(later, first=version)
            continue
        if later is not None:
            yield later
        author, operation = members["author"], _operation(members)
        last[block, leaf, id] = Edit(members["time"], block, leaf, version, version, author, operation, id)
    yield from last.values()


def _operation(members: Members) -> str:
    """What an edit was; a change of who has confirmed an annotation is `review`."""
    change = members.get("change") or {}
    changed = {name for part in change.values() for name in part}
    return REVIEWED if members["operation"] == "change" and changed == {REVIEW} else str(members["operation"])


def _goes_on(members: Members, later: Edit) -> bool:
    """Whether an edit went on with the later one: one person changed one annotation, as in dragging it."""
    if (_operation(members), later.operation, members["author"]) != ("change", "change", later.author):
        return False
    return seconds_of(later.time) - seconds_of(members["time"]) < _SAME_S
