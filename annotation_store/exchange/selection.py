"""Which annotations of a dataset are meant: by box, type, leaf, author, and whether a person confirmed them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from annotation_store.blocks import slice_digits
from annotation_store.exchange.fields import Point, bounds
from annotation_store.model import GEOMETRY, Item, check_item
from annotation_store.review import is_confirmed
from precomputed_server.errors import InvalidAnnotation, InvalidInput

CONTOURS = "contours"
"""What stands for every slice's leaf, z-NNNN, where leaves are chosen."""


@dataclass(frozen=True)
class Selection:
    """All annotations that are in each of these; an empty one says nothing.

    `box` is the lowest and highest x, y, z in voxels, the highest excluded: what overlaps it is meant.
    """

    box: tuple[Point, Point] | None = None
    types: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    authors: tuple[str, ...] = ()
    reviewed: bool = False

    def has_leaf(self, leaf: str) -> bool:
        """Whether annotations of that leaf can be meant."""
        return not self.leaves or leaf in self.leaves or (CONTOURS in self.leaves and slice_digits(leaf) is not None)

    @property
    def takes_all(self) -> bool:
        """Whether every annotation of a leaf is meant."""
        return self.box is None and not self.types and not self.authors and not self.reviewed

    def has(self, item: Item, author: str | None = None) -> bool:
        """Whether an annotation, last edited by `author`, is meant."""
        if self.types and item.get("type") not in self.types:
            return False
        if self.authors and author not in self.authors:
            return False
        if self.reviewed and not is_confirmed(item):
            return False
        return self.box is None or _overlaps(item, *self.box)

    def to_json(self) -> dict[str, Any]:
        """The members that choose something."""
        members: dict[str, Any] = {}
        if self.box is not None:
            members["box"] = [edge for pair in zip(*self.box, strict=True) for edge in pair]
        members |= {name: list(getattr(self, name)) for name in ("types", "leaves", "authors") if getattr(self, name)}
        return members | ({"reviewed": True} if self.reviewed else {})

    @classmethod
    def from_json(cls, members: Any) -> Selection:  # noqa: ANN401  # any JSON value
        """The selection of `to_json`; raises InvalidInput."""
        if not isinstance(members, Mapping):
            raise InvalidInput("What the file was chosen by must be an object.")
        lists = {name: members.get(name, []) for name in ("types", "leaves", "authors")}
        if not all(isinstance(each, list) and all(isinstance(text, str) for text in each) for each in lists.values()):
            raise InvalidInput("What the file was chosen by must have lists of texts.")
        box = members.get("box")
        return cls(
            None if box is None else _box(box, str(box)),
            reviewed=members.get("reviewed") is True,
            **{name: tuple(each) for name, each in lists.items()},
        )


def read_selection(
    box: str | None = None,
    types: tuple[str, ...] = (),
    leaves: tuple[str, ...] = (),
    authors: tuple[str, ...] = (),
    *,
    reviewed: bool = False,
) -> Selection:
    """What a person asks for; `box` is `x0,x1,y0,y1,z0,z1`; raises InvalidInput."""
    for kind in types:
        if kind not in GEOMETRY:
            raise InvalidInput(f"There is no annotation type {kind[:40]!r}; choose of {', '.join(GEOMETRY)}.")
    read = None if box is None else _box(box.split(","), box)
    return Selection(read, types, leaves, authors, reviewed)


def _box(edges: Any, text: str) -> tuple[Point, Point]:  # noqa: ANN401  # any JSON value
    try:
        x0, x1, y0, y1, z0, z1 = (float(edge) for edge in edges)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"The box {text[:60]!r} is not x0,x1,y0,y1,z0,z1 in voxels.") from error
    if not (x0 < x1 and y0 < y1 and z0 < z1):  # false for what is no number, too
        raise InvalidInput(f"The box {text[:60]!r} is empty: write x0,x1,y0,y1,z0,z1 with x0 < x1 and so on.")
    return (x0, y0, z0), (x1, y1, z1)


def _overlaps(item: Item, start: Point, stop: Point) -> bool:
    try:
        low, high = bounds(item)
    except (KeyError, TypeError, ValueError):  # another tool's: it lies nowhere
        return False
    return all(a < to and b >= at for a, b, at, to in zip(low, high, start, stop, strict=True))


def is_sound(item: Item) -> bool:
    """Whether it is an annotation that any format can show: other tools may have stored something else."""
    try:
        check_item(item, "the annotation")
    except InvalidAnnotation:
        return False
    return True
