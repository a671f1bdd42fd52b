"""The pyramid: which levels there are, their sizes and resolutions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from precomputed_server.errors import InvalidInput
from precomputed_server.format.geometry import Box, Vector, ceil_divide, multiply
from precomputed_server.format.info import VOLUME_MARK, ScaleInfo, VolumeInfo
from precomputed_server.format.names import scale_key

MAXIMUM_LEVELS = 32
Edges = tuple[Fraction, Fraction, Fraction]


@dataclass(frozen=True)
class PyramidOptions:
    """How levels follow each other: `levels` counts the full-resolution one (None: until one chunk holds it all).

    `downsample` is the factor x, y, z of every step, each 1 or 2; None halves what keeps voxels near to cubes.
    """

    chunk_size: Vector = (64, 64, 64)
    levels: int | None = None
    downsample: Vector | None = None

    def __post_init__(self) -> None:
        if min(self.chunk_size) < 1:
            raise InvalidInput(f"The chunk size {_text(self.chunk_size)} must be at least 1 in every axis.")
        if self.levels is not None and not 1 <= self.levels <= MAXIMUM_LEVELS:
            raise InvalidInput(f"--levels {self.levels} is not from 1 to {MAXIMUM_LEVELS}.")
        if self.downsample is not None and not (set(self.downsample) <= {1, 2} and 2 in self.downsample):
            raise InvalidInput(
                f"--downsample {_text(self.downsample)} is neither auto nor 1 or 2 for each axis, with a 2."
            )


def factors(size: Vector, edges: Edges, options: PyramidOptions, offset: Vector = (0, 0, 0)) -> list[Vector]:
    """The factor x, y, z of each level from full resolution, finest first.

    `size` and `offset` are in voxels, `edges` are those of a voxel in any unit.
    """
    bounds = _bounds(size, offset)
    factor: Vector = (1, 1, 1)
    result = [factor]
    while len(result) < (options.levels or MAXIMUM_LEVELS):
        level = bounds.covered_by(factor).size
        if options.levels is None and _fits(level, options.chunk_size):
            break
        step = options.downsample or automatic_step(level, _scaled(edges, factor))
        coarser = multiply(factor, step)
        if step == (1, 1, 1) or (options.levels is None and bounds.covered_by(coarser).size == level):
            break
        factor = coarser
        result.append(factor)
    return result


def automatic_step(size: Vector, edges: Edges) -> Vector:
    """Halve each axis of more than one voxel whose edge is less than twice the smallest edge of such axes."""
    divisible = [edge for length, edge in zip(size, edges, strict=True) if length > 1]
    if not divisible:
        return 1, 1, 1
    limit = 2 * min(divisible)
    x, y, z = (2 if length > 1 and edge < limit else 1 for length, edge in zip(size, edges, strict=True))
    return x, y, z


@dataclass(frozen=True)
class Level:
    """One level: its scale, and the factor x, y, z from the level before it (1, 1, 1 for the first)."""

    scale: ScaleInfo
    step: Vector


def levels(size: Vector, edges_nm: Edges, options: PyramidOptions, offset: Vector = (0, 0, 0)) -> tuple[Level, ...]:
    """The levels of a volume of `size` voxels whose voxels have `edges_nm`, finest first.

    `offset` is the volume's `voxel_offset`. The levels lie on one grid, that of a volume that begins at voxel 0: voxel
    i of a level covers the voxels i · factor up to (i + 1) · factor, so its offset rounds down and its end up.
    """
    result: list[Level] = []
    previous: Vector = (1, 1, 1)
    for factor in factors(size, edges_nm, options, offset):
        covered = _bounds(size, offset).covered_by(factor)
        scale = ScaleInfo(
            key=scale_key(factor),
            size=covered.size,
            voxel_offset=covered.start,
            resolution_nm=_floats(_scaled(edges_nm, factor)),
            chunk_sizes=(options.chunk_size,),
        )
        result.append(Level(scale, ceil_divide(factor, previous)))
        previous = factor
    return tuple(result)


def volume_info(scales: tuple[ScaleInfo, ...], data_type: str, num_channels: int, volume_type: str) -> VolumeInfo:
    """The `info` of a volume."""
    return VolumeInfo(data_type, num_channels, scales, volume_type, {"@type": VOLUME_MARK})


def _bounds(size: Vector, offset: Vector) -> Box:
    return Box(offset, (offset[0] + size[0], offset[1] + size[1], offset[2] + size[2]))


def _fits(size: Vector, chunk_size: Vector) -> bool:
    return all(length <= limit for length, limit in zip(size, chunk_size, strict=True))


def _scaled(edges: Edges, factor: Vector) -> Edges:
    return edges[0] * factor[0], edges[1] * factor[1], edges[2] * factor[2]


def _floats(edges: Edges) -> tuple[float, float, float]:
    return float(edges[0]), float(edges[1]), float(edges[2])


def _text(vector: Vector) -> str:
    return ",".join(map(str, vector))
