"""Dividing a pyramid into tasks that make a part of several levels in one go.

A *stage* makes some consecutive levels from the voxels of the first of them. A *block* is the cells of a level that a
task holds at once. A task makes one block of the stage's last level from the blocks below it, those from the ones below
them, and so on, depth first: it holds one block of each level at a time, whatever the size of the volume, reads each
voxel of its source once and reads none of the chunks that it stored. What the next level is made from is kept aside as
a *piece* (`scratch.py`), which is the source of the next stage.

Boxes are counted here from the first voxel of their level, without its voxel_offset.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from precomputed_server.format.geometry import Box, Vector, ceil_divide, multiply
from precomputed_server.format.grid import grid_shape
from precomputed_server.format.info import ScaleInfo

READ_BYTES = 24 << 20
"""A block of the first level becomes higher until it has as many bytes: fewer, longer reads of each plane."""
_TASK_BYTES = 1 << 30
_SMALL_BYTES = 64 << 20
_TASKS_PER_JOB = 3
_CHUNK_COPIES = 3

SINGLE: Vector = (1, 1, 1)

ReadBytes = Callable[[Box], int]
"""The bytes that reading a box takes beside the box's own."""


@dataclass(frozen=True)
class Pyramid:
    """The levels of a volume, finest first: `steps[n]` is the factor x, y, z from level n - 1 to level n.

    `voxel_bytes` counts every channel. Voxel v of level n is made of those of level n - 1 from v · step - `phases[n]`
    up to (v + 1) · step - `phases[n]` that exist: a phase is not 0 where the volume begins in the middle of a voxel of
    the coarser level, because it is a part of a larger one.
    """

    scales: tuple[ScaleInfo, ...]
    steps: tuple[Vector, ...]
    phases: tuple[Vector, ...]
    voxel_bytes: int

    def bytes(self, level: int, box: Box | None = None) -> int:
        """The bytes of the voxels of a level, or of a box of it."""
        size = self.scales[level].size if box is None else box.size
        return size[0] * size[1] * size[2] * self.voxel_bytes


@dataclass(frozen=True)
class Stage:
    """Levels from `first` on that are made together: `blocks[n]` is the block of level `first` + n in cells x, y, z."""

    first: int
    blocks: tuple[Vector, ...]

    @property
    def last(self) -> int:
        """The coarsest level of the stage."""
        return self.first + len(self.blocks) - 1

    def block(self, level: int) -> Vector:
        """The block of a level of the pyramid."""
        return self.blocks[level - self.first]

    def to_json(self) -> dict[str, Any]:
        """The members that the plan of a conversion keeps."""
        return {"first": self.first, "blocks": [list(block) for block in self.blocks]}

    @classmethod
    def from_json(cls, members: dict[str, Any]) -> Stage:
        """Read them back."""
        return cls(members["first"], tuple((x, y, z) for x, y, z in members["blocks"]))


@dataclass(frozen=True)
class Plan:
    """How a pyramid is made: its stages, in how many processes, and whether planes are first decoded to a disk."""

    stages: tuple[Stage, ...]
    processes: int
    decodes_first: bool = False

    def to_json(self) -> dict[str, Any]:
        """What an interrupted conversion leaves, so that the next one divides the work alike."""
        return {
            "stages": [stage.to_json() for stage in self.stages],
            "processes": self.processes,
            "decodes_first": self.decodes_first,
        }

    @classmethod
    def from_json(cls, members: dict[str, Any]) -> Plan:
        """Read it back."""
        stages = tuple(Stage.from_json(stage) for stage in members["stages"])
        return cls(stages, members["processes"], members["decodes_first"])


def block_box(scale: ScaleInfo, cell: Vector, block: Vector) -> Box:
    """The voxels of the block that begins at `cell`."""
    start = multiply(cell, scale.chunk_sizes[0])
    x, y, z = (low + length for low, length in zip(start, multiply(block, scale.chunk_sizes[0]), strict=True))
    return Box(start, (x, y, z)).clipped(Box((0, 0, 0), scale.size))


def task_cells(pyramid: Pyramid, stage: Stage) -> Iterator[Vector]:
    """The first cell of every task's block, in the stage's last level, x fastest."""
    x, y, z = (
        range(0, length, step)
        for length, step in zip(grid_shape(pyramid.scales[stage.last]), stage.blocks[-1], strict=True)
    )
    return ((i, j, k) for k, j, i in product(z, y, x))


def cells_below(pyramid: Pyramid, stage: Stage, level: int, cell: Vector) -> Iterator[Vector]:
    """The first cells of the blocks of level - 1 that the block at `cell` of `level` is made from, x fastest.

    Where it is only made from what lies before the first of them, that one is named, although the level has ended.
    """
    step = pyramid.steps[level]
    start = multiply(cell, step)
    ends = zip(start, multiply(stage.block(level), step), grid_shape(pyramid.scales[level - 1]), strict=True)
    stop = [min(low + length, limit) for low, length, limit in ends]
    x, y, z = (
        range(low, max(high, low + 1), length)
        for low, high, length in zip(start, stop, stage.block(level - 1), strict=True)
    )
    return ((i, j, k) for k, j, i in product(z, y, x))


def task_box(pyramid: Pyramid, stage: Stage, cell: Vector) -> Box:
    """The voxels of the stage's first level of which the task at `cell` is made, without what lies before them."""
    factor = SINGLE
    for step in pyramid.steps[stage.first + 1 : stage.last + 1]:
        factor = multiply(factor, step)
    box = block_box(pyramid.scales[stage.last], cell, stage.blocks[-1])
    return Box(
        _within(multiply(box.start, factor), pyramid, stage), _within(multiply(box.stop, factor), pyramid, stage)
    )


def _within(at: Vector, pyramid: Pyramid, stage: Stage) -> Vector:
    x, y, z = (min(place, length) for place, length in zip(at, pyramid.scales[stage.first].size, strict=True))
    return x, y, z


def read_box(pyramid: Pyramid, stage: Stage, cell: Vector) -> Box:
    """All that the task at `cell` reads: its box, and what lies before it in voxels of which coarser ones are made."""
    start = block_box(pyramid.scales[stage.last], cell, stage.blocks[-1]).start
    if stage.last + 1 < len(pyramid.scales):
        start = _before(start, pyramid.phases[stage.last + 1])
    for level in range(stage.last, stage.first, -1):
        start = _before(multiply(start, pyramid.steps[level]), pyramid.phases[level])
    return Box(start, task_box(pyramid, stage, cell).stop)


def _before(start: Vector, phase: Vector) -> Vector:
    x, y, z = (max(0, low - shift) for low, shift in zip(start, phase, strict=True))
    return x, y, z


def task_of(pyramid: Pyramid, stage: Stage, level: int, cell: Vector) -> Vector:
    """The first cell of the task that makes a cell of one of the stage's levels."""
    for step in pyramid.steps[level + 1 : stage.last + 1]:
        cell = cell[0] // step[0], cell[1] // step[1], cell[2] // step[2]
    x, y, z = (at // length * length for at, length in zip(cell, stage.blocks[-1], strict=True))
    return x, y, z


def task_bytes(pyramid: Pyramid, stage: Stage, read_bytes: ReadBytes) -> int:
    """The bytes that a task of the stage holds at most: a block of each level and what reading and storing takes."""
    boxes = [block_box(pyramid.scales[level], (0, 0, 0), stage.block(level)) for level in _levels(stage)]
    held = sum(pyramid.bytes(level, box) for level, box in zip(_levels(stage), boxes, strict=True))
    coarser = sum(pyramid.bytes(level, box) for level, box in zip(_levels(stage), boxes, strict=True)) // 4
    chunk = block_box(pyramid.scales[stage.first], (0, 0, 0), SINGLE)
    return held + coarser + read_bytes(boxes[0]) + _CHUNK_COPIES * pyramid.bytes(stage.first, chunk)


def plan_stage(
    pyramid: Pyramid, first: int, budget: int, jobs: int, read_bytes: ReadBytes, grain: int = 1
) -> Stage | None:
    """The stage that begins at level `first`, with as many levels as `budget` bytes a task and `jobs` tasks allow.

    Fewer than `grain` rows of the source cost as much as `grain`, so a block is not lower. None when not even a task of
    one level fits into the budget: one column of chunks wide, or as wide as the volume where a part of a row costs as
    much as all of it, because `grain` is more than 1.
    """
    for last in range(len(pyramid.scales) - 1, first, -1):
        stage = _stage(pyramid, first, _top(pyramid, first, last, grain), grain, last)
        if _is_worthwhile(pyramid, stage, jobs) and task_bytes(pyramid, stage, read_bytes) <= budget:
            return stage
    top = _top(pyramid, first, first, grain)
    while True:
        stage = Stage(first, (top,))
        if task_bytes(pyramid, stage, read_bytes) <= budget:
            return stage
        narrower = _aligned(pyramid, first, max(1, top[0] // 2))
        if grain > 1 or narrower >= top[0]:
            return None
        top = narrower, top[1], top[2]


def task_count(pyramid: Pyramid, stage: Stage) -> int:
    """How many tasks the stage has."""
    x, y, z = ceil_divide(grid_shape(pyramid.scales[stage.last]), stage.blocks[-1])
    return x * y * z


def smallest_task_bytes(pyramid: Pyramid, first: int, read_bytes: ReadBytes) -> int:
    """The bytes of the smallest task that can make level `first`."""
    _, y, z = _top(pyramid, first, first, grain=1)
    top = _aligned(pyramid, first, 1), y, z
    return task_bytes(pyramid, Stage(first, (top,)), read_bytes)


def made_part(pyramid: Pyramid, level: int, finer: Box) -> Box:
    """The voxels of `level` that are made from a box of the level below, which is all that exists of each of them."""
    size, step, phase = pyramid.scales[level - 1].size, pyramid.steps[level], pyramid.phases[level]
    low, high = [], []
    for start, stop, length, factor, shift in zip(finer.start, finer.stop, size, step, phase, strict=True):
        low.append(-(-(start + shift) // factor) if start else 0)
        high.append(-(-(stop + shift) // factor) if stop == length else (stop + shift) // factor)
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2]))


def used_part(pyramid: Pyramid, level: int, made: Box) -> Box:
    """The voxels of the level below that a box of `level` is made from."""
    step, phase = pyramid.steps[level], pyramid.phases[level]
    start, stop = (
        tuple(at * factor - shift for at, factor, shift in zip(end, step, phase, strict=True))
        for end in (made.start, made.stop)
    )
    whole = Box((0, 0, 0), pyramid.scales[level - 1].size)
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2])).clipped(whole)


def _levels(stage: Stage) -> range:
    return range(stage.first, stage.last + 1)


def _is_worthwhile(pyramid: Pyramid, stage: Stage, jobs: int) -> bool:
    """Whether the tasks keep every job busy, and each ends soon: an interrupted one is done again from its start."""
    if pyramid.bytes(stage.first) <= _SMALL_BYTES:
        return True
    box = task_box(pyramid, stage, (0, 0, 0))
    return task_count(pyramid, stage) >= _TASKS_PER_JOB * jobs and pyramid.bytes(stage.first, box) <= _TASK_BYTES


def _top(pyramid: Pyramid, first: int, last: int, grain: int) -> Vector:
    """The block of a stage's last level: a row of chunks over at least `grain` rows of the first, one chunk deep."""
    columns, rows, _ = grid_shape(pyramid.scales[last])
    _, y, z = _alignment(pyramid, last)
    for step in pyramid.steps[first + 1 : last + 1]:
        grain = -(-grain // step[1])
    wanted = -(-grain // (y * pyramid.scales[last].chunk_sizes[0][1])) * y
    return columns, min(wanted, -(-rows // y) * y), z


def _alignment(pyramid: Pyramid, last: int) -> Vector:
    """The cells x, y, z of which a block must be a multiple, so that it ends between two voxels of the next level."""
    if last + 1 == len(pyramid.scales):
        return SINGLE
    chunk = pyramid.scales[last].chunk_sizes[0]
    x, y, z = (step if length % step else 1 for length, step in zip(chunk, pyramid.steps[last + 1], strict=True))
    return x, y, z


def _aligned(pyramid: Pyramid, last: int, columns: int) -> int:
    unit = _alignment(pyramid, last)[0]
    return -(-columns // unit) * unit


def _stage(pyramid: Pyramid, first: int, top: Vector, grain: int, last: int) -> Stage:
    """The blocks below `top`: along x all that it is made from at once.

    Along z they follow each other, and along y where one would be large and higher than `grain` rows of the first
    level; not where the chunk size is odd, because a block would end in the middle of a voxel of the level above.
    """
    blocks = [top]
    for level in range(last, first, -1):
        above, step, scale = blocks[0], pyramid.steps[level], pyramid.scales[level - 1]
        together = multiply(above, step)
        _, odd_y, odd_z = (length % factor != 0 for length, factor in zip(scale.chunk_sizes[0], step, strict=True))
        depth = together[2] if odd_z else above[2]
        block = together[0], together[1], depth
        large = pyramid.bytes(level - 1, block_box(scale, (0, 0, 0), block)) > READ_BYTES
        if large and not odd_y and above[1] * scale.chunk_sizes[0][1] * _rows_of(pyramid, first, level - 1) >= grain:
            block = together[0], above[1], depth
        blocks.insert(0, block)
    return Stage(first, tuple(blocks))


def _rows_of(pyramid: Pyramid, first: int, level: int) -> int:
    """How many rows of level `first` make one of `level`."""
    return math.prod(step[1] for step in pyramid.steps[first + 1 : level + 1])


def pyramid_of(
    scales: tuple[ScaleInfo, ...], steps: tuple[Vector, ...], channels: int, dtype: np.dtype[Any]
) -> Pyramid:
    """The pyramid of scales that lie on one grid: its boxes are counted from each level's first voxel."""
    local = tuple(replace(scale, voxel_offset=(0, 0, 0)) for scale in scales)
    phases: list[Vector] = [(0, 0, 0)]
    for finer, coarser, step in zip(scales, scales[1:], steps[1:], strict=False):
        x, y, z = (
            low - high * factor
            for low, high, factor in zip(finer.voxel_offset, coarser.voxel_offset, step, strict=True)
        )
        phases.append((x, y, z))
    return Pyramid(local, steps, tuple(phases), channels * dtype.itemsize)
