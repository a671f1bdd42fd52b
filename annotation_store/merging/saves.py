"""What a whole-file save means: the difference to what its page holds, merged into what is stored. Pure.

What the page did not touch is no edit, however much others have changed meanwhile. What it touched is applied field by
field. Removals that may be an accident of the client are parked: kept for a person to decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from annotation_store.blocks import slice_digits
from annotation_store.edits import Edit
from annotation_store.merging.bases import choose
from annotation_store.merging.explanations import COORDINATES, Body, Explanation
from annotation_store.merging.lengths import Vector3, length_after
from annotation_store.merging.merge import KNOWN, changed_fields, taken
from annotation_store.merging.shadows import WHOLE, Decision, Page, Parking, Shadow
from annotation_store.model import Item, Items, check_item
from precomputed_server.errors import InvalidAnnotation

JUST_OPENED_S = 5.0
"""For how long after its first reading a page is not believed that it empties a leaf."""

_WHOLE = frozenset({WHOLE})
_PLACE = COORDINATES | {"type"}


def decide(sent: Items, stored: Items, page: Page, leaf: str, voxel_nm: Vector3 | None = None) -> Decision:
    """What it means that `page` saved the leaf of that name as `sent` while `stored` is there.

    `voxel_nm` is x, y, z of a voxel, for lengths. No annotation is changed in place.
    """
    body = Body(sent, stored)
    choice = choose(body, page)
    merge = _Merge(body, choice.explanation, page.later | choice.known, voxel_nm)
    merge.carry_out()
    parking = _parking(merge, page, leaf, choice.doubted)
    removed = [] if parking is not None else merge.removed
    touched = {**dict.fromkeys([*removed, *merge.gone], _WHOLE), **merge.touched}
    edits = [*(Edit("delete", id) for id in removed), *merge.edits]
    return Decision(edits, parking, choice.base, touched)


def holding(sent: Items, stored_after: Items) -> tuple[tuple[str, ...], tuple[Item, ...]]:
    """What a page holds that sent `sent`, counted from the version that is stored after its save.

    The ids that the page lacks, and its annotations that are not in that version or say something else there.
    """
    missing = tuple(id for id in stored_after if id not in sent)
    differing = tuple(
        item for id, item in sent.items() if id not in stored_after or changed_fields(stored_after[id], item)
    )
    return missing, differing


def materialised(shadow: Shadow, version: Items) -> Items:
    """The annotations of a shadow, given those of the stored version that it is counted from."""
    if not shadow.missing and not shadow.differing:
        return version
    missing = set(shadow.missing)
    held = {id: item for id, item in version.items() if id not in missing}
    held.update((item["id"], item) for item in shadow.differing)
    return held


@dataclass
class _Merge:
    """The edits of a save as they are found; `removed` are removals of what is stored, `gone` those of what is not.

    `stale` are the removals of annotations that somebody else has changed since the page read them.
    """

    body: Body
    made_from: Explanation
    later: frozenset[tuple[str, str]]
    voxel_nm: Vector3 | None
    edits: list[Edit] = field(default_factory=list)
    touched: dict[str, frozenset[str]] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)

    def carry_out(self) -> None:
        """Find every edit, changes and additions in the order of the body."""
        edited = {*self.made_from.changed, *self.made_from.added}
        for id in self.made_from.removed:
            if (id, WHOLE) not in self.later:
                self._remove(id)
        for id in (id for id in self.body.sent if id in edited):
            if (id, WHOLE) not in self.later:
                self._keep(id)

    def _remove(self, id: str) -> None:
        stored = self.body.stored.get(id)
        if stored is None:
            self.gone.append(id)
            return
        self.removed.append(id)
        # A length may differ: it is kept up to date here when the points move, and no page is told.
        if changed_fields(stored, self.made_from.candidate.items[id]) - {"length"}:
            self.stale.append(id)

    def _keep(self, id: str) -> None:
        """Add what the page drew, or what it changed although somebody else has removed it meanwhile."""
        sent, stored = self.body.sent[id], self.body.stored.get(id)
        if stored is None:
            self.edits.append(Edit("add", id, sent))
            self.touched[id] = _WHOLE
            return
        held = self.made_from.candidate.items.get(id)
        fields = self._fields(id, stored, sent, self.body.changed(id, stored if held is None else held))
        if not fields:
            return
        self.touched[id] = fields
        after = self._merged(stored, sent, fields)
        if after.keys() != stored.keys() or any(after[name] is not value for name, value in stored.items()):
            self.edits.append(Edit("change", id, after))

    def _fields(self, id: str, stored: Item, sent: Item, changed: frozenset[str]) -> frozenset[str]:
        """The fields to take from the body: those that the page changed and nobody has later.

        Type and coordinates are one field where one of them alone would make another shape of it.
        """
        fields = changed
        if "type" in changed or (changed & COORDINATES and stored.get("type") != sent["type"]):
            fields |= _PLACE & (stored.keys() | sent.keys())
        if not self.later:
            return fields
        late = frozenset(name for name in fields if (id, name) in self.later)
        if late & _PLACE and "type" in fields:
            late |= _PLACE
        if late & _PLACE:  # the length that the page gave is that of points which are not taken
            late |= {"length"}
        return fields - late

    def _merged(self, stored: Item, sent: Item, fields: frozenset[str]) -> Item:
        after = taken(stored, sent, fields)
        try:
            check_item(after, "the annotation")
        except InvalidAnnotation:  # somebody else's change and this one do not go together
            after = taken(stored, sent, fields | KNOWN)
        return self._measured(stored, sent, fields, after)

    def _measured(self, stored: Item, sent: Item, fields: frozenset[str], after: Item) -> Item:
        moved = any(after.get(name) is not stored.get(name) for name in COORDINATES)
        if not moved or "length" not in stored or ("length" in fields and "length" not in sent):
            return after
        length = length_after(stored, after, self.voxel_nm)
        return after if length is None else {**after, "length": length}


def _parking(merge: _Merge, page: Page, leaf: str, doubted: str | None) -> Parking | None:
    removed = tuple(merge.removed)
    if not removed:
        return Parking("doubt", (doubted,)) if doubted is not None and doubted in merge.body.stored else None
    reason = next(_reasons(merge, page, leaf), "doubt" if doubted is not None else None)
    return None if reason is None else Parking(reason, removed)


def _reasons(merge: _Merge, page: Page, leaf: str) -> Iterator[str]:
    """Why the removals may not be meant, the weightiest first."""
    if len(merge.removed) > 1:
        yield "several removed"
    if slice_digits(leaf) is not None and page.last_slice not in (None, leaf):
        yield "another slice"
    added = any(edit.operation == "add" for edit in merge.edits)
    just_opened = page.first_read is not None and page.now - page.first_read < JUST_OPENED_S and not page.has_saved
    if just_opened and len(merge.removed) == len(merge.body.stored) and not added:
        yield "just opened"
    if merge.stale:
        yield "changed since"
