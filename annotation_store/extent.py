"""Whether an annotation lies in the volume that it is drawn over. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from annotation_store.edits import Edit
from annotation_store.exchange.fields import bounds, place_names
from annotation_store.model import Item, Items
from precomputed_server.errors import InvalidAnnotation
from precomputed_server.format.geometry import Vector

Extent = tuple[Vector, Vector]
"""The first voxel x, y, z of a volume, and the one behind its last."""


def check_inside(item: Item, extent: Extent, name: str) -> None:
    """Raise InvalidAnnotation where no part of an annotation lies in the volume; `name` is how the sentence calls it.

    A fibre may reach out of the volume, and what lies on its very border is in it.
    """
    low, high = bounds(item)
    start, stop = extent
    if not all(a <= to and b >= at for a, b, at, to in zip(low, high, start, stop, strict=True)):
        raise InvalidAnnotation(
            f"{name} ({item['id']}) lies outside the volume, which goes from {start} to {stop} voxels; coordinates"
            " are in voxels."
        )


def check_places(edits: Iterable[Edit], stored: Items, extent: Extent) -> None:
    """Raise InvalidAnnotation where an edit adds an annotation outside the volume, or moves one there."""
    for edit in edits:
        after, before = edit.after, stored.get(edit.id)
        if after is not None and (
            before is None or any(before.get(name) != after[name] for name in place_names(after))
        ):
            check_inside(after, extent, "the annotation")
