"""What an import would do: each annotation of a file merged into the leaf where it lies or belongs, as edits by block.

Nothing is written here. The edits are of the annotations as they were read: where somebody else was faster, the import
is planned anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from annotation_store.blocks import Blocks, slice_leaf
from annotation_store.exchange.bases import Bases, Seen
from annotation_store.exchange.fields import PLACE, first_position, slice_at
from annotation_store.exchange.merging import LOST, UNKNOWN, Merge, Verdict
from annotation_store.exchange.plans import BlockPlan, Finding, Plan
from annotation_store.exchange.rows import CUT_SHORT, Dialect, Leaf, Made, Reading, Row
from annotation_store.exchange.selection import CONTOURS, is_sound
from annotation_store.exchange.stored import Stored
from annotation_store.extent import check_inside
from annotation_store.model import Item, Items, check_item
from annotation_store.reader import AnnotationReader
from precomputed_server.errors import Conflict, InvalidAnnotation, InvalidInput, NotFound

FIBERS, CENTROIDS = "fibers", "centroids"


@dataclass(frozen=True)
class Wishes:
    """What a person asks of an import.

    `removes`: what the file lacks is to be removed (None: where the file says it was made for that); `prefers_file`:
    the file wins where somebody else has changed the same.
    """

    removes: bool | None = None
    prefers_file: bool = False


class Importer:
    """Plans the import of one file, all at once or part by part; knows which annotations the file has."""

    def __init__(
        self, reader: AnnotationReader, dataset: str, reading: Reading, wishes: Wishes, edges_nm: tuple[float, ...]
    ) -> None:
        self._reader = reader
        self._dataset = dataset
        self._origin = reading.origin
        self._end = reading.end
        self._dialect = reading.dialect
        self._edges_nm = (edges_nm[0], edges_nm[1], edges_nm[2])
        self._merge = Merge(reading.dialect, wishes.prefers_file, self._edges_nm)
        self._asked = wishes.removes is True
        self._removes = reading.removes if wishes.removes is None else wishes.removes
        self._seen = Seen(reading.dialect)
        self._touched: set[Leaf] = set()
        self._blocks: frozenset[str] | None = None

    def plan(self, blocks: Blocks, rows: Iterable[Row], *, last: bool = True) -> Plan:
        """What these rows would do; with the `last` of them come the removals. The same rows may be planned again.

        Raises InvalidInput and its kin for what cannot be imported, Unreadable, OSError.
        """
        work = _Work(Stored(self._reader, self._dataset, blocks), self._edges_nm)
        if self._blocks is None:  # those of the first part: what this import makes has lost nothing
            self._blocks = frozenset(blocks.existing)
        bases = Bases(work.stored, self._origin, self._blocks, self._is_shown)
        placed = [(row, self._seen.put(row, work.stored)) for row in rows]
        if self._origin is None:
            versions = ((likely, row.version) for row, likely in placed if likely is not None)
            work.stored.prepare({(leaf, Made(version, None)) for leaf, version in versions if version is not None})
        for row, likely in placed:
            self._take(row, likely, work, bases)
        if last and not self._end.is_met:
            work.plan.notes.append(CUT_SHORT)
        elif last and self._removes:
            self._remove(work, bases)
        work.plan.notes += bases.notes + work.stored.notes
        return work.plan

    def _take(self, row: Row, likely: Leaf | None, work: _Work, bases: Bases) -> None:
        base, made_in = bases.of(row, likely, self._seen)
        leaf = self._where(row, likely or made_in, work.stored, bases)
        stored = None if leaf is None else work.stored.leaf(leaf).items[row.id]
        if base == LOST and stored is None and not bases.was_there(row, likely):
            base = None  # it is new in the file
        verdict = self._merge.verdict(row, base, stored)
        if stored is None and verdict.after is not None:
            _check_not_damaged(row, work.stored)
        if leaf is None:
            leaf = made_in or likely
        if leaf is None and (verdict.after is not None or verdict.conflicts):
            leaf = self._new_place(row, verdict, work)
        if leaf is None:  # gone, and the file did not change it
            work.plan.unchanged += 1
            return
        self._touched.add(leaf)
        self._seen.take(row.id, *(work.stored.file(each) for each in (leaf, made_in) if each is not None))
        if verdict.after is not None:
            check_item(verdict.after, row.where)
            if work.has(leaf, row.id):
                raise InvalidAnnotation(
                    f"{row.where} has the id {row.id!r} of another one of {leaf[1]}; give it a new one."
                )
        work.put(leaf, row.id, verdict, is_new=stored is None)

    def _new_place(self, row: Row, verdict: Verdict, work: _Work) -> Leaf:
        """The leaf in which a new annotation belongs."""
        if PLACE not in row.fields:
            raise InvalidAnnotation(
                f"{row.where}: there is no annotation with the id {row.id!r} in this dataset, and without"
                " coordinates none can be added."
            )
        return work.place_of(verdict.after or self._dialect.new(row), row)

    def _where(self, row: Row, likely: Leaf | None, stored: Stored, bases: Bases) -> Leaf | None:
        """The leaf in which a row's annotation lies, and not another one of the same id."""
        if likely is not None and row.id in stored.leaf(likely).items:
            return likely
        found = [
            leaf
            for leaf in stored.find(row.id)
            if not self._seen.is_of_another(row, leaf, stored) and not (likely and bases.has(leaf, row.id))
        ]
        return next((leaf for leaf in found if self._dialect.apart(leaf[1]) == row.leaf), next(iter(found), None))

    def _remove(self, work: _Work, bases: Bases) -> None:
        """Remove what the file was made from, or what its leaves hold, and what it has no more."""
        if self._origin is not None and self._origin.selection.authors:
            raise InvalidInput("What an export by author lacks cannot be removed; leave out the removals.")
        for leaf, items, is_base in bases.all(self._touched):
            stored = work.stored.leaf(leaf).items
            file = work.stored.file(leaf)
            shown = {id: item for id, item in items.items() if self._is_shown(item)}
            shown = {id: item for id, item in shown.items() if not bases.is_hidden(leaf, id, self._dialect)}
            seen = {id for id in shown if self._seen.covers(leaf, file, id)}
            kept = set() if self._asked or not is_base else _lost(self._dialect, shown, seen)
            for id in shown:
                if id in seen or id not in stored:
                    continue
                why = self._merge.removal(shown[id] if is_base else UNKNOWN, stored[id])
                if why is None and id in kept:
                    sentence = "the whole kind is missing, which looks like a viewer that cannot show it"
                    why = Verdict(conflicts=("removal",), why=sentence)
                work.put(leaf, id, why)

    def _is_shown(self, item: Item) -> bool:
        """Whether the file, if it was made from it, had the annotation."""
        if not is_sound(item) or self._dialect.shown(item) is None:
            return False
        return self._origin is None or self._origin.selection.has(item)


def _check_not_damaged(row: Row, stored: Stored) -> None:
    """Raise Conflict for a new annotation whose id stands in a file that cannot be read: it would be there twice."""
    damaged = stored.damaged_with(row.id)
    if damaged is not None:
        raise Conflict(
            f"{row.where}: an annotation with the id {row.id!r} lies in {'/'.join(damaged)}, which cannot be read; put"
            " that file right (precomputed annotations verify says what is wrong), or leave the annotation out."
        )


def _lost(dialect: Dialect, shown: Items, seen: set[str]) -> set[str]:
    """The annotations of kinds of which a leaf had several and the file has none: nobody removes them one by one."""
    kinds: dict[str, set[str]] = {}
    for id, item in shown.items():
        fields = dialect.shown(item)
        kinds.setdefault(fields[PLACE][0] if fields else "", set()).add(id)
    return {id for ids in kinds.values() if len(ids) > 2 and not ids & seen for id in ids}


class _Work:
    """A plan in the making."""

    def __init__(self, stored: Stored, edges_nm: tuple[float, float, float]) -> None:
        self.stored = stored
        self.plan = Plan()
        self._edges_nm = edges_nm
        self._in_nm: bool | None = None

    def has(self, leaf: Leaf, id: str) -> bool:
        """Whether an annotation of a leaf is edited already."""
        place = self.stored.leaf(leaf).location
        block = self.plan.blocks.get(place.directory)
        edits = None if block is None else block.leaves.get(place.leaf)
        return edits is not None and (id in edits.added or id in edits.changed)

    def put(self, leaf: Leaf, id: str, verdict: Verdict | None, *, is_new: bool = False) -> None:
        """Note what becomes of an annotation of a leaf; None: it is removed."""
        if verdict is not None and verdict.after is None and not verdict.conflicts:
            self.plan.unchanged += 1
            return
        place = self.stored.leaf(leaf)
        name = place.location.leaf
        block = self.plan.blocks.setdefault(place.location.directory, BlockPlan(leaf[0]))
        if verdict is not None and verdict.conflicts:
            block.note(Finding("conflict", id, *leaf, verdict.conflicts, verdict.why))
            if verdict.after is None:
                return
        block.size = max(block.size, place.size)
        if not is_new:
            block.remember(name, id, place.items[id])
        if verdict is None:
            block.edits(name).deleted.append(id)
            block.note(Finding("removed", id, *leaf))
        elif verdict.after is not None:
            edits = block.edits(name)
            (edits.added if is_new else edits.changed)[id] = verdict.after
            block.note(Finding("added" if is_new else "changed", id, *leaf, verdict.fields))

    def place_of(self, item: Item, row: Row) -> Leaf:
        """Where a new annotation belongs: the block of its first position, the leaf of its kind."""
        check_item(item, row.where)
        blocks = self.stored.blocks
        box = blocks.bounds
        check_inside(item, (box.start, box.stop), row.where)
        first = (math.floor(at) for at in first_position(item))
        x, y, z = (min(max(at, a), b - 1) for at, a, b in zip(first, box.start, box.stop, strict=True))
        try:
            return blocks.at((x, y, z)), row.leaf if row.leaf not in (None, CONTOURS) else self._leaf_of(item)
        except NotFound as error:
            raise InvalidAnnotation(f"{row.where} ({row.id}): {error}") from error

    def _leaf_of(self, item: Item) -> str:
        if item["type"] != "polygon":
            return FIBERS if item["type"] in ("linestring", "line") else CENTROIDS
        if self._in_nm is None:
            self._in_nm = self.stored.slices_in_nm(self._edges_nm[2])
        z = first_position(item)[2]
        return slice_leaf(math.floor(z * self._edges_nm[2]) if self._in_nm else slice_at(z))
