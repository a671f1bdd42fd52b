"""Writing every level of a pyramid: which stages there are, which of their tasks are still to do, and in what order."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path

from converter.pyramid.crew import Crew
from converter.pyramid.decoding import decode_bytes, decoded_slab
from converter.pyramid.journal import Done, Journal
from converter.pyramid.plan import (
    Plan,
    Pyramid,
    ReadBytes,
    Stage,
    plan_stage,
    read_box,
    smallest_task_bytes,
    task_box,
    task_bytes,
    task_cells,
    task_of,
)
from converter.pyramid.progress import Counter, Progress
from converter.pyramid.scratch import ScratchLevel
from converter.pyramid.target import Pack, Target
from converter.pyramid.tasks import FAIL, SKIP, BuildBlock, Task, Volume, VoxelSource
from converter.stacks.plane import PlanePlace
from converter.stacks.stack_source import StackSource
from precomputed_server.errors import InvalidInput
from precomputed_server.format.geometry import Box, Vector, ceil_divide, multiply
from precomputed_server.format.grid import grid_shape

_TOO_LITTLE_FOR_PROCESSES = 32 << 20
_SLAB_BYTES = 16 << 30


def make_plan(pyramid: Pyramid, source: StackSource, crew: Crew) -> Plan:
    """Divide the work so that each of the tasks side by side holds no more than `crew` has room for.

    Fewer processes than the crew's are used where each needs more than its share, but no fewer than half as long as
    decoding planes to a disk first can be done by more. Raises InvalidInput naming the memory that is needed when not
    even one process can do it.
    """
    wanted = _wanted(pyramid, crew)
    few = -(-wanted // 2)
    directly, through_scratch = partial(_plan, pyramid, source), partial(_plan_with_scratch, pyramid, source)
    choices = [
        *((directly, processes) for processes in range(wanted, few - 1, -1)),
        *((through_scratch, processes) for processes in range(wanted, 0, -1)),
        *((directly, processes) for processes in range(few - 1, 0, -1)),
    ]
    for choice, processes in choices:
        plan = choice(processes, crew.budget(processes))
        if plan is not None:
            return plan
    raise InvalidInput(f"{crew.too_little(_needed(pyramid, source))}.")


def fitted_plan(plan: Plan, pyramid: Pyramid, source: StackSource, crew: Crew) -> Plan:
    """The plan of an interrupted conversion with as many processes as there are now, and as have room for its tasks.

    Raises InvalidInput when not even one has.
    """
    first, *later = plan.stages
    reading = _row_bytes if plan.decodes_first else _reading(source)
    needed = max(task_bytes(pyramid, first, reading), *(task_bytes(pyramid, stage, _row_bytes) for stage in later), 0)
    if plan.decodes_first:
        needed = max(needed, decode_bytes(source))
    for processes in range(_wanted(pyramid, crew), 0, -1):
        if needed <= crew.budget(processes):
            return replace(plan, processes=processes)
    raise InvalidInput(f"{crew.too_little(needed)}, to go on with what was begun with more.")


@dataclass(frozen=True)
class Build:
    """A pyramid to write: `staging` holds the scales, the journal and what stages keep for each other.

    With `only`, cells by level, tasks of the first stage that make none of them are left out, if no cell of a later
    stage is wanted.
    """

    pyramid: Pyramid
    source: StackSource
    volume: Volume
    target: Target
    staging: Path
    plan: Plan
    crew: Crew
    on_error: str = FAIL
    only: Mapping[int, Set[Vector]] | None = None

    @property
    def journal(self) -> Journal:
        """Which tasks are done."""
        return Journal(self.staging / "journal")

    def run(self, progress: Progress | None) -> None:
        """Do every task that is still to do, and tell `progress` of each, those that were done before included."""
        report = Counter(
            sum(math.prod(grid_shape(scale)) for scale in self.pyramid.scales), self.pyramid.bytes(0), progress
        )
        self.journal.directory.mkdir(exist_ok=True)
        with self.crew.executor(self.plan.processes) as running:
            for number, stage in enumerate(self.plan.stages):
                (self.staging / f"level-{number + 1}").mkdir(exist_ok=True)
                for tasks in self._batches(number, stage, report):
                    running.run(tasks, report)
                if number == 0:
                    running.run(self._again(stage), lambda done: None)
                if number:
                    shutil.rmtree(self.staging / f"level-{number}")
            running.run(self._packing(), report)
        self.target.remove_torn()

    def forget(self, files: Set[str]) -> None:
        """Do again what was made of these files of the source: all of it, if a later stage has begun."""
        if not files or not self.journal.directory.exists():
            return
        first, *later = self.plan.stages
        if any(self.journal.find(stage.first, cell) for stage in later for cell in task_cells(self.pyramid, stage)):
            shutil.rmtree(self.journal.directory)
            return
        for cell in task_cells(self.pyramid, first):
            part = self.source.part(read_box(self.pyramid, first, cell).moved(self.source.bounds.start))
            if not files.isdisjoint(plane.path for pages in part.stack.planes for plane in pages):
                self.journal.forget(first.first, cell)

    def _batches(self, number: int, stage: Stage, report: Counter) -> Iterator[Iterable[Task]]:
        """The tasks that may run side by side: all of a stage, or first the planes of a slab and then its tasks."""
        source = self.source if number == 0 else self._scratch(number)
        remaining = self._remaining(stage, report)
        if number or not self.plan.decodes_first:
            yield (self._task(number, stage, cell, source) for cell in remaining)
            return
        directory = self.staging / "planes"
        for _, cells in groupby(remaining, key=lambda cell: cell[2]):
            slab = list(cells)
            directory.mkdir(exist_ok=True)
            planes = decoded_slab(self.source, self._slab(stage, slab), directory, tolerant=self.on_error != FAIL)
            yield chain.from_iterable(planes.tasks)
            stored = planes.source()
            yield [self._task(number, stage, cell, stored) for cell in slab]
            shutil.rmtree(directory)

    def _again(self, stage: Stage) -> Iterator[Task]:
        """The tasks that could read a part of a plane of which another part cannot be read: it counts as a whole."""
        if self.on_error == FAIL or self.plan.decodes_first:  # which decodes whole planes
            return
        lost: dict[PlanePlace, str] = {}
        known = {}
        for cell in self._wanted(stage):
            done = self.journal.find(stage.first, cell) or Done()
            lost |= done.lost
            known[cell] = done.known
        axis, source = self.source.plane_axis, self.source.without(lost)
        for cell, before in known.items():
            box = read_box(self.pyramid, stage, cell).moved(self.source.bounds.start)
            if any(box.start[axis] <= place < box.stop[axis] for place, _ in lost.keys() - set(before)):
                yield self._task(0, stage, cell, source)

    def _packing(self) -> Iterator[Task]:
        for level, scale in enumerate(self.target.scales):
            for number in self.target.writer.packs(scale):
                yield Pack(self.target, level, number, may_lack=self.on_error == SKIP or self.target.may_lack)

    def _wanted(self, stage: Stage) -> Iterator[Vector]:
        """The tasks of a stage that make something that is wanted."""
        if self.only is None:
            return task_cells(self.pyramid, stage)
        needed = [level for level, cells in self.only.items() if cells]
        if stage.first > max(needed, default=-1):
            return iter(())
        if max(needed) > stage.last:
            return task_cells(self.pyramid, stage)
        tasks = {
            task_of(self.pyramid, stage, level, cell)
            for level in needed
            for cell in self.only[level]
            if level >= stage.first
        }
        return iter(sorted(tasks, key=lambda cell: cell[::-1]))

    def _remaining(self, stage: Stage, report: Counter) -> Iterator[Vector]:
        for cell in self._wanted(stage):
            done = self.journal.find(stage.first, cell)
            if done is None:
                yield cell
            else:
                report.keep(done)

    def _slab(self, stage: Stage, cells: Sequence[Vector]) -> Box:
        """Everything that the tasks at `cells` read of the source."""
        boxes = [read_box(self.pyramid, stage, cell) for cell in cells]
        x, y, z = ((min(box.start[axis] for box in boxes), max(box.stop[axis] for box in boxes)) for axis in range(3))
        return Box((x[0], y[0], z[0]), (x[1], y[1], z[1])).moved(self.source.bounds.start)

    def _task(self, number: int, stage: Stage, cell: Vector, source: VoxelSource) -> Task:
        last = number + 1 == len(self.plan.stages)
        origin = self.source.bounds.start if number == 0 else (0, 0, 0)
        part = source.part(read_box(self.pyramid, stage, cell).moved(origin))
        return BuildBlock(
            pyramid=self.pyramid,
            stage=stage,
            cell=cell,
            source=part,
            volume=self.volume,
            target=self.target,
            journal=self.journal,
            next_level=None if last else self._scratch(number + 1),
            on_error=self.on_error,
            known=tuple(part.unreadable) if isinstance(part, StackSource) else (),
            origin=origin,
        )

    def _scratch(self, number: int) -> ScratchLevel:
        """What stage `number` is made from, for stages after the first."""
        below = self.plan.stages[number - 1]
        level = below.last + 1
        voxels = multiply(below.blocks[-1], self.pyramid.scales[below.last].chunk_sizes[0])
        return ScratchLevel(
            self.staging / f"level-{number}",
            self.pyramid.scales[level].size,
            ceil_divide(voxels, self.pyramid.steps[level]),
            self.volume.num_channels,
            self.volume.dtype,
        )


def _plan(pyramid: Pyramid, source: StackSource, processes: int, budget: int) -> Plan | None:
    """The plan where every task reads what it needs of the source."""
    grain = _grain_rows(source)
    if grain is None:
        return None
    first = plan_stage(pyramid, 0, budget, processes, _reading(source), grain)
    return _with_later_stages(pyramid, first, budget, processes)


def _plan_with_scratch(pyramid: Pyramid, source: StackSource, processes: int, budget: int) -> Plan | None:
    """The plan where planes are decoded to a disk first, as few of them at a time as its stage allows."""
    if source.grain == (1, 1, 1) or decode_bytes(source) > budget:
        return None
    first = plan_stage(pyramid, 0, budget, processes, _row_bytes)
    if first is None:
        return None
    while first.last > 0 and _slab_bytes(pyramid, first) > _SLAB_BYTES:
        first = plan_stage(_finest(pyramid, first.last), 0, budget, processes, _row_bytes) or first
    plan = _with_later_stages(pyramid, first, budget, processes)
    return None if plan is None else replace(plan, decodes_first=True)


def _grain_rows(source: StackSource) -> int | None:
    """The rows that a task should read together; None where planes of the stack do not lie across the dataset's z."""
    _, rows, depth = source.grain
    return rows if depth == 1 else None


def _reading(source: StackSource) -> ReadBytes:
    """What reading a box takes that is counted from the first voxel."""
    start = source.bounds.start
    return lambda box: source.read_bytes(box.moved(start))


def _finest(pyramid: Pyramid, levels: int) -> Pyramid:
    return replace(
        pyramid, scales=pyramid.scales[:levels], steps=pyramid.steps[:levels], phases=pyramid.phases[:levels]
    )


def _with_later_stages(pyramid: Pyramid, first: Stage | None, budget: int, processes: int) -> Plan | None:
    """The plan that begins with a stage; None when there is none, or one of the later ones needs more memory."""
    stages: list[Stage] = []
    stage = first
    while stage is not None:
        stages.append(stage)
        if stage.last + 1 == len(pyramid.scales):
            return Plan(tuple(stages), processes)
        stage = plan_stage(pyramid, stage.last + 1, budget, processes, _row_bytes)
    return None


def _row_bytes(box: Box) -> int:
    """What reading a piece takes: a part of one of its planes, whose voxels are not larger than 8 bytes."""
    return 8 * box.size[0] * box.size[1]


def _slab_bytes(pyramid: Pyramid, stage: Stage) -> int:
    """The bytes of the planes that the tasks side by side in one slab read."""
    box = task_box(pyramid, stage, (0, 0, 0))
    columns, rows, _ = pyramid.scales[0].size
    return columns * rows * box.size[2] * pyramid.voxel_bytes


def _wanted(pyramid: Pyramid, crew: Crew) -> int:
    """How many processes are worth their start."""
    return 1 if pyramid.bytes(0) < _TOO_LITTLE_FOR_PROCESSES else crew.jobs


def _needed(pyramid: Pyramid, source: StackSource) -> int:
    """The bytes that a task holds at least."""
    reading = smallest_task_bytes(pyramid, 0, _row_bytes if source.grain != (1, 1, 1) else _reading(source))
    return max(reading, decode_bytes(source) if source.grain != (1, 1, 1) else 0)
