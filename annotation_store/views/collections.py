"""Which collections there are: one for each kind of leaf and type of geometry, because the format allows one type each.

Pure. A kind is what the leaves of many blocks have in common: `fibers`, `centroids`, the slices `z-NNNN` together as
`contours`, and every other leaf under its own name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from annotation_store.blocks import check_name, slice_digits
from precomputed_server.errors import InvalidInput

TYPES = ("point", "line", "polyline", "axis_aligned_bounding_box", "ellipsoid")
"""The geometries of the format; one that `info` names is written in capitals there."""

TYPE_OF: Mapping[str, str] = {
    "point": "point",
    "line": "line",
    "linestring": "polyline",
    "polygon": "polyline",
    "axis_aligned_bounding_box": "axis_aligned_bounding_box",
    "ellipsoid": "ellipsoid",
}
"""The geometry that shows an annotation of ours of that type; a polygon is a polyline that ends where it begins."""

CONTOURS = "contours"
KINDS = ("fibers", "centroids", CONTOURS)
"""The kinds that every dataset has, if only empty: what shows them may be opened before the first one is drawn."""


def kind_of(leaf: str) -> str:
    """The kind of a leaf."""
    return leaf if slice_digits(leaf) is None else CONTOURS


@dataclass(frozen=True, order=True)
class CollectionName:
    """The kind and the type of a collection; as a text `fibers-polyline`, the name of its directory."""

    kind: str
    type: str

    def __str__(self) -> str:
        return f"{self.kind}-{self.type}"

    @classmethod
    def parse(cls, text: str) -> CollectionName | None:
        """The name that is spelled so, None when no collection may have it."""
        kind, _, type = text.rpartition("-")
        try:
            check_name(kind, "leaf")
        except InvalidInput:
            return None
        return cls(kind, type) if type in TYPES and kind_of(kind) == kind else None
