"""From the coordinates of a viewer's layer to voxels of the dataset. Pure.

A layer's source may have a transform: a matrix from its own dimensions to output dimensions, each `[scale, unit]`; the
matrix acts on lengths, its last column counts in output dimensions.

Source: https://github.com/google/neuroglancer/blob/master/src/coordinate_transform.ts and src/util/si_units.ts
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from precomputed_server.errors import InvalidAnnotation, InvalidInput

Vector3 = tuple[float, float, float]
Row4 = tuple[float, float, float, float]

_AXES = ("x", "y", "z")
_METRES = {"m": 0, "dm": -1, "cm": -2, "mm": -3, "µm": -6, "μm": -6, "um": -6, "nm": -9, "pm": -12}
"""The lengths among Neuroglancer's units that a dataset may have, as powers of ten."""

_SAME = 1e-9
"""Relative difference of lengths that are the same but for rounding."""


@dataclass(frozen=True)
class Conversion:
    """A matrix from a layer's coordinates to voxels, row by row with the offset last; None: they are voxels."""

    matrix: tuple[Row4, Row4, Row4] | None

    @property
    def keeps_axes(self) -> bool:
        """Whether a box along the axes stays one."""
        return self.matrix is None or all(sum(number != 0 for number in row[:3]) == 1 for row in self.matrix)

    def all_converted(self, value: object, name: str, *, vector: bool = False) -> list[list[float]]:
        """A list of positions in voxels; raises InvalidAnnotation."""
        if not isinstance(value, list) or not value or not all(isinstance(each, list) for each in value):
            raise InvalidAnnotation(f"{name} must be a list of positions, each of three numbers.")
        return [self.converted(each, f"{name}[{number}]", vector=vector) for number, each in enumerate(value)]

    def converted(self, value: object, name: str, *, vector: bool = False) -> list[float]:
        """A position in voxels; a `vector` has a length and no place. Raises InvalidAnnotation."""
        if not isinstance(value, list) or len(value) != 3 or not all(map(_is_number, value)):
            raise InvalidAnnotation(f"{name} must be three numbers.")
        if self.matrix is None:
            return value
        found = [_voxels(row, value, 0.0 if vector else 1.0) for row in self.matrix]
        if not all(map(math.isfinite, found)):
            raise InvalidAnnotation(f"{name} is too large once the layer's transform is applied; correct that.")
        return [abs(each) for each in found] if vector else found


def _voxels(row: Row4, position: list[float], offset: float) -> float:
    return row[0] * position[0] + row[1] * position[1] + row[2] * position[2] + row[3] * offset


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def dimensions_of(state: Mapping[str, Any], layer: Mapping[str, Any]) -> object:
    """The dimensions of a layer without a transform: those of the viewer; older states have `voxelSize` in nm."""
    sizes = [layer.get("voxelSize"), state.get("dimensions")]
    pose: Any = state.get("navigation")
    for name in ("pose", "position"):
        pose = pose.get(name) if isinstance(pose, dict) else None
    sizes.append(pose.get("voxelSize") if isinstance(pose, dict) else None)
    found = next((size for size in sizes if size is not None), None)
    if isinstance(found, list) and len(found) == 3:
        return {axis: [edge, "nm"] for axis, edge in zip(_AXES, found, strict=True)}
    return found


def conversion_of(transform: object, dimensions: object, edges_nm: Vector3, *, in_voxels: bool) -> Conversion:
    """How a layer's coordinates become voxels of `edges_nm`; `in_voxels`: the viewer saw the dataset's voxel view.

    Raises InvalidInput for what cannot be converted.
    """
    members = transform if isinstance(transform, dict) else {}
    output = _scales(members.get("outputDimensions", dimensions))
    given = members.get("inputDimensions")
    inputs = [output[axis] for axis in output] if given is None else list(_scales(given, named=False).values())
    linear, offset = _matrix(members.get("matrix"), inputs, list(output.values()))
    edges = {axis: edge * 1e-9 for axis, edge in zip(_AXES, edges_nm, strict=True)}
    if in_voxels:
        seen = {axis: edge / edges_nm[2] * 1e-9 for axis, edge in zip(_AXES, edges_nm, strict=True)}
        if all(_is_same(output[axis], seen[axis]) for axis in _AXES):
            edges = seen
    rows = {}
    for axis, row, shift in zip(output, linear, offset, strict=True):
        factor = _ratio(output[axis], edges[axis])
        rows[axis] = (row[0] * factor, row[1] * factor, row[2] * factor, shift * factor)
    matrix = rows["x"], rows["y"], rows["z"]
    identity = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 1.0, 0.0))
    return Conversion(None if matrix == identity else matrix)


def _scales(dimensions: object, *, named: bool = True) -> dict[str, float]:
    """The length of one unit of each dimension in metres, in their order."""
    if not isinstance(dimensions, dict) or len(dimensions) != 3:
        raise InvalidInput("its dimensions must be x, y and z, each as [length, unit]; take other ones off the layer.")
    if named and set(dimensions) != set(_AXES):
        raise InvalidInput(f"its dimensions are {', '.join(map(str, dimensions))[:60]}, and must be x, y and z.")
    return {str(axis): _length(scale, str(axis)) for axis, scale in dimensions.items()}


def _length(scale: object, axis: str) -> float:
    if not isinstance(scale, list) or len(scale) != 2 or not _is_number(scale[0]) or not scale[0] > 0:
        raise InvalidInput(f"the dimension {axis[:20]} must be [length, unit] with a length above 0.")
    exponent = _METRES.get(scale[1]) if isinstance(scale[1], str) else None
    if exponent is None:
        raise InvalidInput(f"the unit {str(scale[1])[:20]!r} of {axis[:20]} is no length; set it to m, µm or nm.")
    length = float(scale[0]) / 10.0**-exponent
    if not length > 0:
        raise InvalidInput(f"the dimension {axis[:20]} is too small; it must be above 0 m in double precision.")
    return length


def _matrix(given: object, inputs: list[float], output: list[float]) -> tuple[list[list[float]], list[float]]:
    """The linear part and the offset, from coordinates to coordinates."""
    if given is None:
        given = [[float(row == column) for column in range(3)] + [0.0] for row in range(3)]
    rows = given if isinstance(given, list) and len(given) == 3 else []
    if not rows or not all(isinstance(row, list) and len(row) == 4 and all(map(_is_number, row)) for row in rows):
        raise InvalidInput("the matrix of its transform must be three rows of four numbers.")
    linear = [
        [0.0 if row[at] == 0 else row[at] * _ratio(inputs[at], scale) for at in range(3)]
        for row, scale in zip(rows, output, strict=True)
    ]
    return linear, [float(row[3]) for row in rows]


def _ratio(first: float, second: float) -> float:
    """A quotient of lengths, whose last digits say only how metres were rounded."""
    return 1.0 if _is_same(first, second) else float(f"{first / second:.13g}")


def _is_same(first: float, second: float) -> bool:
    return abs(first - second) <= _SAME * max(abs(first), abs(second))
