"""Who edited a dataset lately: the newest edits of all its files, and how many each author made on each day."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from annotation_store.history.instants import instant, seconds_of
from annotation_store.history.records import Members
from annotation_store.reader import AnnotationReader
from annotation_store.review import REVIEW

_MOST_LINES = 500_000
"""Edits of one dataset that are counted for one answer: some seconds."""

REVIEWED = "review"
"""The operation of an edit that confirms an annotation, or withdraws that."""

_SAME_S = 10.0
"""Changes of one annotation by one person that are no further apart are one, as where it is dragged."""


@dataclass(frozen=True, slots=True)
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
    made, is_cut = _newest(store, dataset, since)
    for number, edit in enumerate(_joined(made)):
        days[edit.time[:10], edit.author] += 1
        kept = (edit.time, number, edit)
        if len(newest) < limit:
            heapq.heappush(newest, kept)
        else:
            heapq.heappushpop(newest, kept)
    return Activity([edit for _, _, edit in sorted(newest, reverse=True)], days, is_cut)


def _newest(store: AnnotationReader, dataset: str, since: datetime) -> tuple[list[Edit], bool]:
    """The newest lines of all blocks, newest first within each file, and whether there are more.

    One log is open at a time; each is read as far back as its lines are among the newest of those read before it.
    """
    found: list[tuple[str, int, Edit]] = []  # the oldest first, once there are as many as are taken
    is_cut, number = False, 0
    for block in store.logged_blocks(dataset):
        with store.versions(block.location("")) as versions:
            for members in versions.edits_since(instant(since)):
                number -= 1
                line = (members["time"], number, _edit(block.name, members))
                if len(found) < _MOST_LINES:
                    found.append(line)
                    if len(found) == _MOST_LINES:
                        heapq.heapify(found)
                    continue
                is_cut = True
                if heapq.heappushpop(found, line) is line:
                    break
    found.sort(key=lambda line: -line[1])
    return [edit for _, _, edit in found], is_cut


def _edit(block: str, members: Members) -> Edit:
    version = members["version"]
    author, operation = members["author"], _operation(members)
    return Edit(members["time"], block, members["leaf"], version, version, author, operation, members.get("id"))


def _joined(lines: Iterable[Edit]) -> Iterator[Edit]:
    """The edits of lines that are newest first within each file; what is done in one go is one of them."""
    last: dict[tuple[str, str, str | None], Edit] = {}
    for edit in lines:
        key = edit.block, edit.leaf, edit.id
        later = last.get(key)
        if later is not None and _goes_on(edit, later):
            last[key] = replace(later, first=edit.version)
            continue
        if later is not None:
            yield later
        last[key] = edit
    yield from last.values()


def _operation(members: Members) -> str:
    """What an edit was; a change of who has confirmed an annotation is `review`."""
    change = members.get("change") or {}
    changed = {name for part in change.values() for name in part}
    return REVIEWED if members["operation"] == "change" and changed == {REVIEW} else str(members["operation"])


def _goes_on(edit: Edit, later: Edit) -> bool:
    """Whether an edit went on with the later one: one person changed one annotation, as in dragging it."""
    if (edit.operation, later.operation, edit.author) != ("change", "change", later.author):
        return False
    return seconds_of(later.time) - seconds_of(edit.time) < _SAME_S
