"""The `length` of an annotation whose points moved, in the unit in which it was given before.

Nothing in a file says whether a length counts voxels or is in nm, µm or mm, nor whether it was made whole. What fitted
the old points says both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from annotation_store.model import Item

Vector3 = tuple[float, float, float]

_TOLERANCE = 0.005
_LARGEST = 2.0**53
"""Of the length: what programs that measure differently may be apart."""
_NM_PER_UNIT = (1.0, 1e3, 1e6)


@dataclass(frozen=True)
class _Unit:
    """How a length is measured: `edges` are x, y, z of a voxel; a `closed` one leads back to the first point."""

    edges: Vector3
    closed: bool

    def of(self, points: list[list[float]]) -> float:
        return sum(
            math.dist([a * edge for a, edge in zip(first, self.edges, strict=True)],
                      [b * edge for b, edge in zip(second, self.edges, strict=True)])
            for first, second in pairwise([*points, *points[: int(self.closed)]])
        )  # fmt: skip


def length_after(before: Item, after: Item, voxel_nm: Vector3 | None = None) -> int | float | None:
    """The length of `after`, given as the length of `before` was for its points; `voxel_nm` is x, y, z of a voxel.

    None when `before` has no length, or one that fits its points in no unit. A whole length stays whole.
    """
    length, old, new = before.get("length"), _points(before), _points(after)
    if isinstance(length, bool) or not isinstance(length, (int, float)) or old is None or new is None:
        return None
    measured = [(unit, unit.of(old)) for unit in _units(before, voxel_nm)]
    # What fits well in a later unit is likelier than what only fits in an earlier one when its fraction is cut off.
    for fits in (_is_close, _is_whole_of):
        for unit, old_length in measured:
            if old_length > 0 and math.isfinite(old_length) and fits(length, old_length):
                return _spelled(unit.of(new), length, old_length)
    return None


def _units(item: Item, voxel_nm: Vector3 | None) -> Iterator[_Unit]:
    every = [(1.0, 1.0, 1.0)]
    if voxel_nm is not None:
        every += [(voxel_nm[0] / nm, voxel_nm[1] / nm, voxel_nm[2] / nm) for nm in _NM_PER_UNIT]
    for edges in every:
        if item["type"] == "polygon":
            yield _Unit(edges, closed=True)
        yield _Unit(edges, closed=False)


def _points(item: Item) -> list[list[float]] | None:
    """The points that a length leads along; None for what has no length or is no annotation."""
    kind = item.get("type")
    if kind in ("linestring", "polygon"):
        points = item.get("points")
    elif kind == "line":
        points = [item.get("pointA"), item.get("pointB")]
    else:
        return None
    return points if isinstance(points, list) and all(map(_is_point, points)) else None


def _is_point(point: object) -> bool:
    return isinstance(point, list) and len(point) == 3 and all(isinstance(number, (int, float)) for number in point)


def _is_close(length: float, measured: float) -> bool:
    return abs(length - measured) <= _TOLERANCE * measured


def _is_whole_of(length: float, measured: float) -> bool:
    return length in (math.trunc(measured), round(measured))


def _spelled(new: float, length: float, old: float) -> int | float:
    """`new`, made whole as `length` was of `old` when it is whole; a float that measures exactly is not cut."""
    if not math.isfinite(new) or abs(new) >= _LARGEST:
        return length
    if not float(length).is_integer() or (type(length) is float and math.isclose(length, old, rel_tol=1e-6)):
        return new
    whole = math.trunc(new) if length == math.trunc(old) else round(new)
    return whole if isinstance(length, int) else float(whole)
