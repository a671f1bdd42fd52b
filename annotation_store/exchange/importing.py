"""What an import would do: each annotation of a file merged into the leaf where it lies or belongs, as edits by block.

Nothing is written here. The edits are of the annotations as they were read: where somebody else was faster, the import
is planned anew.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from annotation_store.blocks import Blocks, slice_leaf
from annotation_store.exchange.fields import PLACE, first_position, slice_at
from annotation_store.exchange.merging import LOST, UNKNOWN, Base, Merge, Verdict
from annotation_store.exchange.plans import BlockPlan, Finding, Plan
from annotation_store.exchange.rows import CUT_SHORT, Dialect, Leaf, Made, Origin, Reading, Row
from annotation_store.exchange.selection import CONTOURS, is_sound
from annotation_store.exchange.stored import Stored
from annotation_store.extent import check_inside
from annotation_store.model import Item, Items, check_item
from annotation_store.reader import AnnotationReader
from precomputed_server.errors import InvalidAnnotation, InvalidInput, NotFound

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
        self._seen: dict[str, str] = {}
        self._touched: set[Leaf] = set()
        self._blocks: frozenset[str] | None = None

    def plan(self, blocks: Blocks, rows: Iterable[Row], *, last: bool = True) -> Plan:
        """What these rows would do; with the `last` of them come the removals. The same rows may be planned again.

        Raises InvalidInput and its kin for what cannot be imported, Unreadable, OSError.
        """
        work = _Work(Stored(self._reader, self._dataset, blocks), self._edges_nm)
        if self._blocks is None:  # those of the first part: what this import makes has lost nothing
            self._blocks = frozenset(blocks.existing)
        bases = _Bases(work.stored, self._origin, self._blocks)
        for row in rows:
            if self._seen.setdefault(row.id, row.where) != row.where:
                raise InvalidAnnotation(f"{row.where} has the id {row.id!r} of {self._seen[row.id]}.")
            self._take(row, work, bases)
        if last and not self._end.is_met:
            work.plan.notes.append(CUT_SHORT)
        elif last and self._removes:
            self._remove(work, bases)
        work.plan.notes += bases.notes + work.stored.notes
        return work.plan

    def _take(self, row: Row, work: _Work, bases: _Bases) -> None:
        named = (row.block, row.leaf) if row.block is not None and row.leaf is not None else None
        likely = named if named is not None and work.stored.exists(named) else None
        base, made_in = bases.of(row, likely)
        leaf = work.stored.find(row.id, likely or made_in)
        stored = None if leaf is None else work.stored.leaf(leaf).items[row.id]
        verdict = self._merge.verdict(row, base, stored)
        if leaf is None:
            leaf = made_in or likely
        if leaf is None and (verdict.after is not None or verdict.conflicts):
            if PLACE not in row.fields:
                raise InvalidAnnotation(
                    f"{row.where}: there is no annotation with the id {row.id!r} in this dataset, and without"
                    " coordinates none can be added."
                )
            leaf = work.place_of(verdict.after or self._dialect.new(row), row)
        if leaf is None:  # gone, and the file did not change it
            work.plan.unchanged += 1
            return
        self._touched.add(leaf)
        if verdict.after is not None:
            check_item(verdict.after, row.where)
        work.put(leaf, row.id, verdict, is_new=stored is None)

    def _remove(self, work: _Work, bases: _Bases) -> None:
        """Remove what the file was made from, or what its leaves hold, and what it has no more."""
        if self._origin is not None and self._origin.selection.authors:
            raise InvalidInput("What an export by author lacks cannot be removed; leave out the removals.")
        for leaf, items, is_base in bases.all(self._touched):
            stored = work.stored.leaf(leaf).items
            shown = {id: item for id, item in items.items() if self._is_shown(item)}
            missing = [id for id in shown if id not in self._seen and id in stored]
            kept = set() if self._asked or not is_base else _lost(self._dialect, shown, self._seen)
            for id in missing:
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


def _lost(dialect: Dialect, shown: Items, seen: Iterable[str]) -> set[str]:
    """The annotations of kinds of which a leaf had several and the file has none: nobody removes them one by one."""
    kinds: dict[str, set[str]] = {}
    for id, item in shown.items():
        fields = dialect.shown(item)
        kinds.setdefault(fields[PLACE][0] if fields else "", set()).add(id)
    known = set(seen)
    return {id for ids in kinds.values() if len(ids) > 2 and not ids & known for id in ids}


class _Bases:
    """What the annotations of a file were made from; a block that was not among `blocks` can have lost nothing."""

    def __init__(self, stored: Stored, origin: Origin | None, blocks: frozenset[str]) -> None:
        self._stored = stored
        self._blocks = blocks
        self._origin = origin
        self.notes: list[str] = []
        self._made: dict[str, tuple[Leaf, Item]] = {}
        self._leaves: dict[Leaf, Items] = {}
        for leaf, made in origin.leaves.items() if origin is not None else ():
            items = stored.base(leaf, made)
            if items is None:
                name = "/".join(leaf)[:100]
                self.notes.append(f"What {name} was when the file was made is not known any longer.")
                continue
            self._leaves[leaf] = items
            self._made |= {id: (leaf, item) for id, item in items.items()}

    def of(self, row: Row, likely: Leaf | None) -> tuple[Base, Leaf | None]:
        """What a row was made from, and of which leaf that is."""
        if row.id in self._made:
            leaf, item = self._made[row.id]
            return item, leaf
        if self._origin is not None:
            # Whatever is stored under an id that the file was not made from came afterwards.
            whole = all(leaf in self._leaves or leaf[0] not in self._blocks for leaf in self._origin.leaves)
            return (None if whole else LOST), None
        if likely is not None and row.version is not None:
            items = self._stored.base(likely, Made(row.version, None))
            if items is None:
                return (LOST if likely[0] in self._blocks else None), None
            return items.get(row.id), None
        return UNKNOWN, None

    def all(self, touched: set[Leaf]) -> Iterator[tuple[Leaf, Items, bool]]:
        """The leaves that may have lost something, what they held, and whether the file was made from that."""
        if self._origin is not None:
            yield from ((leaf, items, True) for leaf, items in self._leaves.items())
        else:
            yield from ((leaf, self._stored.leaf(leaf).items, False) for leaf in sorted(touched))


class _Work:
    """A plan in the making."""

    def __init__(self, stored: Stored, edges_nm: tuple[float, float, float]) -> None:
        self.stored = stored
        self.plan = Plan()
        self._edges_nm = edges_nm
        self._in_nm: bool | None = None

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
