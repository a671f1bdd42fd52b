"""Leaves, and saves of pages, while a group of orders is made of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from annotation_store.committing.leaf import Content, Lines, LockedLeaf
from annotation_store.committing.memory import LeafMemory
from annotation_store.edits import Edit
from annotation_store.merging.saves import holding
from annotation_store.model import Items
from annotation_store.orders import Order, Outcome
from annotation_store.pages.origins import Holding, Origin, counted_from


@dataclass
class Working:
    """A leaf while a group is made: `items` is what it will hold, `leaf` what it holds."""

    leaf: LockedLeaf
    memory: LeafMemory
    items: Items
    lines: Lines
    version: int
    changed: bool = False

    def content(self) -> Content:
        """What the file will be."""
        return Content.of(self.items, self.lines)

    def etag(self) -> str | None:
        """The entity tag that the file would have now, None when there would be none."""
        return self.content().etag if self.changed else self.leaf.content.etag

    def apply(self, edits: Sequence[Edit]) -> None:
        """Make the edits: a change keeps its place, what is added comes last."""
        for edit in edits:
            if edit.after is None:
                self.items.pop(edit.id, None)
                self.lines.pop(edit.id, None)
            else:
                self.items[edit.id] = edit.after
                self.lines[edit.id] = None
        self.version += 1
        self.changed = True

    def reorder(self, ids: Iterable[str]) -> None:
        """Put the annotations, all of which `ids` names, into that order."""
        order = list(ids)
        self.items = {id: self.items[id] for id in order}
        self.lines = {id: self.lines[id] for id in order}

    def copied(self) -> Working:
        """The same, for going back to."""
        return replace(self, items=dict(self.items), lines=dict(self.lines))


@dataclass
class PageSave:
    """A save, and what its page holds since: `held` counted from what is stored, `noted` from `origin` if that is less.

    `records` are the numbers of its first record and of the one that parks removals; `is_stored` says that the file
    says what the body said.
    """

    order: Order
    path: str
    sent: Items
    base: str | None
    outcome: Outcome
    records: tuple[int | None, int | None]
    origin: Origin | None = None
    held: Holding = Holding()
    noted: Holding = Holding()
    is_stored: bool = False

    def hold(self, content: Content) -> None:
        """Take what is stored after the group; a page that holds little of it is described without it."""
        missing, differing = holding(self.sent, content.items)
        self.is_stored = not missing and not differing
        if len(missing) > len(self.sent):
            self.held = Holding(None, (), tuple(self.sent.values()))
        else:
            self.held = Holding(content.etag, missing, differing)
        self.noted = self.held
        if self.origin is not None and self.held.size > 1:
            counted = counted_from(self.origin, *holding(self.sent, self.origin.items))
            if counted.size < self.held.size:
                self.noted = counted
