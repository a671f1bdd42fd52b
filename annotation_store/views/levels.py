"""Which annotation belongs to which level of the spatial index. Pure.

A level takes a part of what the coarser ones left, 1 of 2ⁿ by a hash of the annotation's number: so one that is added
or moved changes the cells that it lies in, and no other annotation changes its level. How many halvings each level
takes follows from the counts, and is the level's name (`spatial-5-5-0`: of the third level, which takes all that is
left): a viewer that read `info` before others drew more still gets all annotations under the names that it knows.

Source: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/annotations.md#spatial-index
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from annotation_store.views.grid import MOST_CELLS, Grid
from annotation_store.views.rows import Array

CELL_LIMIT = 2048
"""How many annotations a cell may hold before its level leaves some of them to the next one."""

Halvings = tuple[int, ...]
"""How many halvings each level takes, up to the one that is meant; 0: all that is left."""

_NAME = re.compile(r"spatial((?:-(?:0|[1-9][0-9]?))+)")
_MOST_HALVINGS = 32
_GOLDEN = 0x9E3779B97F4A7C15
_WORD = (1 << 64) - 1


def level_name(halvings: Halvings) -> str:
    """The name of a level's directory."""
    return "spatial-" + "-".join(map(str, halvings))


def parse_level_name(name: str, grid: Grid) -> Halvings | None:
    """The level of that name, None when the grid cannot have it: only the last level may take all that is left."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    halvings = tuple(int(text) for text in match[1].split("-")[1:])
    if len(halvings) > len(grid.shapes) or max(halvings) > _MOST_HALVINGS or 0 in halvings[:-1]:
        return None
    return None if halvings[-1] and len(halvings) == len(grid.shapes) else halvings


@dataclass(frozen=True)
class Boxes:
    """Annotations in order: their numbers, and the corners "(N, 3)" of the boxes around them in voxels."""

    numbers: Array
    low: Array
    high: Array

    def take(self, rows: Array) -> Boxes:
        """These of them."""
        return Boxes(self.numbers[rows], self.low[rows], self.high[rows])


def _taken(boxes: Boxes, grid: Grid, level: int, halvings: int) -> Array:
    """Whether a level takes each of what the coarser ones left."""
    if halvings == 0:
        return np.ones(len(boxes.numbers), bool)
    _, spans = grid.spans(level + 1, boxes.low, boxes.high)
    too_large = spans.prod(axis=1) > MOST_CELLS
    drawn = mixed(boxes.numbers, level) >> np.uint64(64 - halvings) == 0
    taken: Array = too_large | drawn
    return taken


def mixed(words: Array, salt: int = 0) -> Array:
    """Words of 64 bits that look random and are another for every salt (the finalizer of splitmix64)."""
    words = words + np.uint64((salt + 1) * _GOLDEN & _WORD)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed_words: Array = words ^ (words >> np.uint64(31))
    return mixed_words


@dataclass(frozen=True)
class Level:
    """The cells of a level that hold something, by number, and the annotations "rows" in each, in their order."""

    cells: Array
    starts: Array
    rows: Array

    @property
    def most(self) -> int:
        """How many annotations the fullest cell holds."""
        return int(np.diff(self.starts, append=len(self.rows)).max(initial=0))

    def rows_of(self, cell: int) -> Array:
        """The annotations in a cell."""
        at = int(np.searchsorted(self.cells, cell))
        if at == len(self.cells) or self.cells[at] != cell:
            return self.rows[:0]
        stop = self.starts[at + 1] if at + 1 < len(self.cells) else len(self.rows)
        return self.rows[self.starts[at] : stop]


def levels_of(boxes: Boxes, grid: Grid, halvings: Halvings | None = None) -> dict[Halvings, Level]:
    """Each of these levels; without any, so many with so many halvings that no cell holds many more than CELL_LIMIT."""
    found: dict[Halvings, Level] = {}
    rows = np.arange(len(boxes.numbers))
    known: Halvings = ()
    while len(found) < (len(grid.shapes) if halvings is None else len(halvings)):
        level = len(known)
        cells, which = grid.pairs(level, boxes.low, boxes.high)
        order = np.argsort(cells, kind="stable")
        cells, which = cells[order], which[order]
        known = (*known, _wanted(cells, grid, level) if halvings is None else halvings[level])
        taken = _taken(boxes, grid, level, known[-1])
        inside = taken[which]
        found[known] = Level(*_runs(cells[inside]), rows[which[inside]])
        if known[-1] == 0:
            break
        boxes, rows = boxes.take(np.flatnonzero(~taken)), rows[~taken]
    return found


def _wanted(cells: Array, grid: Grid, level: int) -> int:
    """How many halvings a level needs with all of these cells, one for each annotation in it, in order."""
    _, starts = _runs(cells)
    most = int(np.diff(starts, append=len(cells)).max(initial=0))
    if most <= CELL_LIMIT or level == len(grid.shapes) - 1:
        return 0
    return min(_MOST_HALVINGS, int(np.ceil(np.log2(most / CELL_LIMIT))))


def _runs(ordered: Array) -> tuple[Array, Array]:
    """The different values of what is in order, and where each begins."""
    begins = np.ones(len(ordered), bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    starts = np.flatnonzero(begins)
    return ordered[starts], starts
