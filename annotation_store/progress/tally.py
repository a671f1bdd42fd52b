"""Counting annotations: of a leaf once, and of a dataset as the sum of its leaves. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from annotation_store.blocks import Blocks
from annotation_store.history.records import EXTERNAL
from annotation_store.model import GEOMETRY, Item, Items
from annotation_store.review import REVIEW, is_confirmed, is_visited, review_of

Drawn = Mapping[str, str | None]
"""Who drew each annotation of a leaf, by id: None where nobody knows any longer."""

_LARGEST = float(1 << 53)


class Kind(NamedTuple):
    """What annotations that are counted together have in common; None where they have no such thing.

    `slice` is the voxel z of the annotation itself, `author` who drew it.
    """

    slice: int | None
    author: str | None
    anntype: str | None
    type: str | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How many annotations there are, how many a person has confirmed, and how many somebody has looked at."""

    total: int = 0
    reviewed: int = 0
    visited: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.total + other.total, self.reviewed + other.reviewed, self.visited + other.visited)

    def to_json(self) -> dict[str, int]:
        """The members of a row."""
        return {"total": self.total, "reviewed": self.reviewed, "visited": self.visited}


NOTHING = Counts()


@dataclass(frozen=True)
class Tally:
    """The counts of a leaf by kind; of what is confirmed, how much by whom of whose, and when last."""

    counts: Mapping[Kind, Counts]
    confirmed: Mapping[tuple[str, str | None], int]
    newest: str = ""

    @property
    def sum(self) -> Counts:
        """The counts of the whole leaf."""
        return summed(self.counts.values())

    @property
    def weight(self) -> int:
        """About how many bytes it takes."""
        return 500 + 400 * len(self.counts) + 200 * len(self.confirmed)


@dataclass(frozen=True)
class Counted:
    """A leaf of a dataset and its tally; without one, `detail` says why it could not be counted."""

    block: str
    leaf: str
    tally: Tally | None
    detail: str = ""


def tally_of(items: Items, drawn: Drawn) -> Tally:
    """Count the annotations of a leaf, which `drawn` says who drew; what it does not name another tool wrote."""
    counts: dict[Kind, list[int]] = {}
    confirmed: Counter[tuple[str, str | None]] = Counter()
    newest = ""
    for id, item in items.items():
        kind = kind_of(item, drawn.get(id, EXTERNAL))
        row = counts.setdefault(kind, [0, 0, 0])
        row[0] += 1
        row[2] += is_visited(item)
        if REVIEW in item and is_confirmed(item):
            row[1] += 1
            review = review_of(item) or {}
            confirmed[review["author"], kind.author] += 1
            newest = max(newest, review["time"])
    return Tally({kind: Counts(*row) for kind, row in counts.items()}, dict(confirmed), newest)


def kind_of(item: Item, author: str | None) -> Kind:
    """The kind of an annotation that `author` drew."""
    return Kind(slice_of(item), author, _text(item.get("anntype")), _text(item.get("type")))


def place_of(item: Item) -> tuple[float, float, float] | None:
    """Where an annotation begins, in voxels x, y, z: its point, its first one, or its centre; None where it has none.

    What spans several slices is counted in that of this point, so that each annotation is counted once.
    """
    kind = item.get("type")
    fields = GEOMETRY.get(kind, ()) if isinstance(kind, str) else ()
    place = item.get(fields[0]) if fields else None
    if fields == ("points",):
        place = place[0] if isinstance(place, list) and place else None
    if not isinstance(place, list) or len(place) != 3:
        return None
    x, y, z = place
    return (x, y, z) if _is_length(x) and _is_length(y) and _is_length(z) else None


def slice_of(item: Item) -> int | None:
    """The slice in which an annotation is counted: the floor of the voxel z of where it begins."""
    place = place_of(item)
    return None if place is None else math.floor(place[2])


def summed(counts: Iterable[Counts]) -> Counts:
    """The sum of counts."""
    total = reviewed = visited = 0
    for each in counts:
        total, reviewed, visited = total + each.total, reviewed + each.reviewed, visited + each.visited
    return Counts(total, reviewed, visited)


def progress_of(leaves: Iterable[Counted], blocks: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """How far a dataset is; `blocks` has, by directory, what else the row of a block says."""
    leaves = list(leaves)
    tallies = [leaf.tally for leaf in leaves if leaf.tally is not None]
    whole = _merged(tallies)
    of_block: dict[str, list[dict[str, Any]]] = {block: [] for block in blocks}
    sums: dict[str, list[Counts]] = {block: [] for block in blocks}
    for leaf in leaves:
        if leaf.tally is not None and leaf.block in sums:
            sums[leaf.block].append(leaf.tally.sum)
            of_block[leaf.block].append({"leaf": leaf.leaf, **sums[leaf.block][-1].to_json()})
    return {
        **summed(whole.values()).to_json(),
        "blocks": [
            {**row, **summed(sums[block]).to_json(), "leaves": of_block[block]} for block, row in blocks.items()
        ],
        "slices": _rows(whole, "slice", lambda kind: kind.slice),
        "authors": _author_rows(whole, tallies),
        "types": _rows(whole, "anntype", lambda kind: kind.anntype),
        "unreadable": [
            {"block": leaf.block, "leaf": leaf.leaf, "detail": leaf.detail} for leaf in leaves if leaf.tally is None
        ],
    }


def rows_of_blocks(blocks: Blocks) -> dict[str, dict[str, Any]]:
    """What `progress_of` says of each block beside its counts: how it is named, and which voxels are its own."""
    return {directory: _row_of_block(blocks, directory) for directory in sorted(blocks.existing)}


def _row_of_block(blocks: Blocks, directory: str) -> dict[str, Any]:
    index, box = blocks.index(directory), blocks.box(directory)
    return {
        "block": blocks.name(directory),
        "directory": directory,
        "index": None if index is None else list(index),
        "start": list(box.start),
        "stop": list(box.stop),
    }


def _merged(tallies: Iterable[Tally]) -> dict[Kind, Counts]:
    found: dict[Kind, Counts] = {}
    for tally in tallies:
        for kind, counts in tally.counts.items():
            known = found.get(kind)
            found[kind] = counts if known is None else known + counts
    return found


def _grouped(counts: Mapping[Kind, Counts], by: Callable[[Kind], Hashable]) -> dict[Any, Counts]:
    found: dict[Hashable, list[Counts]] = {}
    for kind, each in counts.items():
        found.setdefault(by(kind), []).append(each)
    return {name: summed(rows) for name, rows in sorted(found.items(), key=lambda pair: _order(pair[0]))}


def _rows(counts: Mapping[Kind, Counts], name: str, by: Callable[[Kind], Hashable]) -> list[dict[str, Any]]:
    return [{name: value, **row.to_json()} for value, row in _grouped(counts, by).items()]


def _author_rows(counts: Mapping[Kind, Counts], tallies: Iterable[Tally]) -> list[dict[str, Any]]:
    """A row for whoever drew or confirmed something: counts of what they drew, and how much they confirmed."""
    confirmed: Counter[str] = Counter()
    own: Counter[str] = Counter()
    for tally in tallies:
        for (reviewer, author), count in tally.confirmed.items():
            confirmed[reviewer] += count
            own[reviewer] += count if reviewer == author else 0
    drew = _grouped(counts, lambda kind: kind.author)
    return [
        {
            "author": name,
            **drew.get(name, NOTHING).to_json(),
            "confirmed_by_them": confirmed[name],
            "confirmed_own": own[name],
        }
        for name in sorted({*drew, *confirmed}, key=_order)
    ]


def _order(value: Any) -> tuple[bool, Any]:  # noqa: ANN401  # a number or a text
    """Numbers and texts in their order, None last."""
    return value is None, value or 0 if value is None or isinstance(value, int) else value


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _is_length(value: object) -> bool:
    return (type(value) is float or type(value) is int) and -_LARGEST < value < _LARGEST
