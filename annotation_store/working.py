"""A leaf while a group of orders is made of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from annotation_store.edits import Edit
from annotation_store.leaf import Content, Lines, LockedLeaf
from annotation_store.memory import LeafMemory
from annotation_store.model import Items


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
