"""What an imported annotation means: the difference to what its file was made from, merged into what is stored. Pure.

Field by field: what the file did not change is no edit; where both the file and somebody else changed a field since,
the stored value stays and the difference is a conflict, unless the file is to win.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from annotation_store.exchange.fields import Fields
from annotation_store.exchange.rows import Dialect, Row
from annotation_store.merging.lengths import Vector3, length_after
from annotation_store.merging.merge import equal
from annotation_store.model import Item

UNKNOWN: Literal["unknown"] = "unknown"
"""In place of the annotation that a row was made from: nobody knows whether there was one."""

LOST: Literal["lost"] = "lost"
"""The same of a row that was made from a version which is not kept any longer: others may have changed it since."""

_NOT_KNOWN = "what the file was made from is not known any longer"

Base = Item | None | Literal["unknown", "lost"]


@dataclass(frozen=True)
class Verdict:
    """What becomes of one annotation: it is to be `after` (None: it stays as it is stored).

    `fields` are those that change, `conflicts` those of the file that are not taken, for the reason `why`.
    """

    after: Item | None = None
    fields: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Merge:
    """How rows of one file are merged; with `prefers_file` the file wins every conflict."""

    dialect: Dialect
    prefers_file: bool = False
    voxel_nm: Vector3 | None = None

    def verdict(self, row: Row, base: Base, stored: Item | None) -> Verdict:
        """What a row means that was made from `base`, where `stored` is there now."""
        if stored is None:
            return self._where_gone(row, base)
        shown = self.dialect.shown(stored) or {}
        wanted = self._differing(row, row.fields, shown)
        if not wanted:
            return Verdict()
        if base == UNKNOWN:
            return self._changed(row, stored, wanted)
        if base is None or base == LOST:
            why = "somebody else, or an earlier import, has added it since"
            why = why if base is None else _NOT_KNOWN
            return self._decided(row, stored, wanted, set(wanted), why)
        held = self.dialect.shown(base) or {}
        changed = set(self._differing(row, row.fields, held))
        theirs = set(self._differing(row, shown, held))
        mine = [name for name in wanted if name in changed]
        return self._decided(row, stored, mine, theirs, "somebody else has changed it since")

    def removal(self, base: Base, stored: Item) -> Verdict | None:
        """Why an annotation that its file has no more is kept nevertheless; None: it is to be removed."""
        if base in (UNKNOWN, LOST) or self.prefers_file or equal(base, stored):
            return None
        return Verdict(conflicts=("removal",), why="somebody else has changed it since")

    def _where_gone(self, row: Row, base: Base) -> Verdict:
        if base == LOST and not self.prefers_file:  # changed in the file or not, and removed by somebody since
            return Verdict(conflicts=tuple(row.fields), why=_NOT_KNOWN)
        if base is None or base in (UNKNOWN, LOST):
            return Verdict(self.dialect.new(row), tuple(row.fields))
        held = self.dialect.shown(base) or {}
        changed = tuple(self._differing(row, row.fields, held))
        if not changed:
            return Verdict()
        if not self.prefers_file:
            return Verdict(conflicts=changed, why="somebody else has removed it since")
        return Verdict(self._measured(base, self.dialect.taken(base, row, changed), changed), changed)

    def _decided(self, row: Row, stored: Item, mine: Iterable[str], theirs: set[str], why: str) -> Verdict:
        names = list(mine)
        conflicts = () if self.prefers_file else tuple(name for name in names if name in theirs)
        found = self._changed(row, stored, [name for name in names if name not in conflicts])
        return Verdict(found.after, found.fields, conflicts, why if conflicts else "")

    def _changed(self, row: Row, stored: Item, names: Iterable[str]) -> Verdict:
        fields = tuple(names)
        if not fields:
            return Verdict()
        return Verdict(self._measured(stored, self.dialect.taken(stored, row, fields), fields), fields)

    def _measured(self, before: Item, after: Item, fields: Iterable[str]) -> Item:
        """An annotation that was moved, with its length measured anew where the file does not say it."""
        if "length" in fields or "length" not in after:
            return after
        length = length_after(before, after, self.voxel_nm)
        return after if length is None else {**after, "length": length}

    def _differing(self, row: Row, first: Fields, second: Fields) -> list[str]:
        names = dict.fromkeys([*first, *second])
        says = row.knows or (lambda name: True)
        return [name for name in names if says(name) and not self.dialect.same(name, first, second)]
