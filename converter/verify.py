"""Checking the chunks of a dataset against what its conversion wrote, or against its source, and mending them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.beside import mend_file, mend_statistics, wrong_files
from converter.output.destination import Destination, layers_of, locked
from converter.output.finished import finish_interrupted
from converter.output.recorded import Manifest, Recorded, open_recorded
from converter.output.swap import TransformAnnotations
from converter.pyramid.results import STORED
from converter.pyramid.target import Stamp, stamp
from converter.remaking import Cells, conversion_of, remade
from converter.source_version import changed_files
from converter.verification import ALTERED, CHANGED, MISSING, TRUNCATED, UNASKED, Problem, Verification, together
from precomputed_server.errors import InvalidInput
from precomputed_server.files import typed
from precomputed_server.format.geometry import Vector
from precomputed_server.format.grid import cell_box, cells, grid_shape
from precomputed_server.format.info import ScaleInfo
from precomputed_server.format.names import STATISTICS, chunk_name

_READERS = 4
_AT_ONCE = 4096


def verify(
    dataset: Path,
    source: Sequence[str] | None = None,
    jobs: int | None = None,
    transform: TransformAnnotations | None = None,
    *,
    repair: bool = False,
) -> Verification:
    """Check every chunk against the manifest, and the files beside the chunks; of a dataset of layers, of each.

    With `source` (empty: the one it was made of) derive each chunk again from it. `repair` writes anew, from the
    source, the chunks that are wrong, where exactly that comes out which the manifest says; it writes nothing else, and
    never over a chunk that is as it was written. `transform` is for an interrupted conversion that has to be ended
    first. Raises NotFound where there is no dataset, InvalidInput for one that this program did not convert,
    SourceError.
    """
    try:
        destination = Destination(dataset)
        finish_interrupted(destination, transform)
        if layers := layers_of(destination):
            parts = [(name, verify(dataset / name, source, jobs, transform, repair=repair)) for name in layers]
            return together(parts)
        opened = open_recorded(destination)
        actual = tuple(_read_level(opened, scale) for scale in opened.scales)
        wrong = _different(opened.manifest, actual)
        files = wrong_files(opened)
        if source is None and not (repair and (files or any(wrong.values()))):
            beside = tuple(file.problem() for file in files)
            return Verification(_count(opened), beside + _problems(opened, actual, wrong))
        with locked(opened.destination):
            return _against_source(opened, actual, source, jobs, repair=repair)
    except OSError as error:
        raise typed(error, str(error.filename or dataset), writing=repair) from error


def _against_source(
    dataset: Recorded, actual: Manifest, source: Sequence[str] | None, jobs: int | None, *, repair: bool
) -> Verification:
    """What is wrong when chunks are made again: all with `source`, else the wrong ones."""
    wrong = _different(dataset.manifest, actual)
    if repair and any(wrong.values()) and any(level.dtype != STORED for level in dataset.manifest):
        raise InvalidInput(
            f"{dataset.destination.path} was converted by an older version of this program, which kept too little to "
            "repair it; convert again with --overwrite."
        )
    statistics = [file for file in wrong_files(dataset) if repair and file.name == STATISTICS]
    if source is None and not any(wrong.values()) and not statistics:
        return Verification(_count(dataset), _files(dataset, repair=repair))
    conversion = conversion_of(dataset, tuple(source or ()), jobs)
    only = wrong if source is None and not statistics else None
    found = remade(dataset, conversion, only, wrong if repair else {})
    other = _different(dataset.manifest, found.manifest)
    problems = tuple(file.problem(mended=True) for file in statistics if mend_statistics(dataset, found))
    problems += _files(dataset, repair=repair)
    problems += _problems(dataset, actual, wrong, other, repair=repair)
    if source is not None:
        intact = {level: cells - wrong[level] for level, cells in other.items()}
        problems += tuple(_problem(dataset, CHANGED, at, differs=True) for at in _ordered(intact))
    return Verification(_count(dataset), problems, tuple(changed_files(dataset.destination, conversion.origin.files)))


def _files(dataset: Recorded, *, repair: bool) -> tuple[Problem, ...]:
    """What is wrong beside the chunks; with `repair` what is known without the source is written."""
    return tuple(file.problem(mended=repair and mend_file(dataset, file)) for file in wrong_files(dataset))


def _count(dataset: Recorded) -> int:
    return sum(level.size for level in dataset.manifest)


def _read_level(dataset: Recorded, scale: ScaleInfo) -> NDArray[Any]:
    """What is stored of each chunk, as the manifest would say it."""
    found = np.zeros(grid_shape(scale)[::-1], STORED)

    def look(cell: Vector) -> Stamp:
        stored = dataset.stored(scale, cell)
        return (0, 0, 0) if stored is None else stamp((stored,))

    with ThreadPoolExecutor(_READERS) as pool:
        for part in _parts(cells(scale)):
            for (x, y, z), entry in zip(part, pool.map(look, part), strict=True):
                found[z, y, x] = entry
    return found


def _parts(every: Iterator[Vector]) -> Iterator[list[Vector]]:
    part: list[Vector] = []
    for cell in every:
        part.append(cell)
        if len(part) == _AT_ONCE:
            yield part
            part = []
    yield part


def _different(wanted: Manifest, actual: Manifest) -> Cells:
    """The cells of each level that differ."""
    return {
        level: frozenset((int(x), int(y), int(z)) for z, y, x in zip(*np.nonzero(_differ(should, there)), strict=True))
        for level, (should, there) in enumerate(zip(wanted, actual, strict=True))
    }


def _differ(wanted: NDArray[Any], actual: NDArray[Any]) -> NDArray[np.bool_]:
    """Where a level differs, by what `wanted` says: the manifest of an older version has one checksum."""
    differs: NDArray[np.bool_] = np.any([wanted[name] != actual[name] for name in wanted.dtype.names or ()], axis=0)
    return differs


def _problems(
    dataset: Recorded, actual: Manifest, wrong: Cells, other: Cells | None = None, *, repair: bool = False
) -> tuple[Problem, ...]:
    """Every chunk that is not as it was written, level by level; of those at `other` something else comes out now."""
    problems = []
    for level, (x, y, z) in _ordered(wrong):
        should, there = dataset.manifest[level][z, y, x]["size"], actual[level][z, y, x]["size"]
        what = _what(int(should), int(there))
        differs = other is not None and (x, y, z) in other[level]
        mended = other is not None and repair and not differs and what != UNASKED
        problems.append(_problem(dataset, what, (level, (x, y, z)), mended=mended, differs=differs))
    return tuple(problems)


def _what(should: int, there: int) -> str:
    if should == 0:
        return UNASKED
    return MISSING if there == 0 else TRUNCATED if there < should else ALTERED


def _ordered(places: Cells) -> Iterator[tuple[int, Vector]]:
    for level, cells_of_level in places.items():
        for cell in sorted(cells_of_level, key=lambda cell: cell[::-1]):
            yield level, cell


def _problem(
    dataset: Recorded, what: str, at: tuple[int, Vector], *, mended: bool = False, differs: bool = False
) -> Problem:
    level, cell = at
    scale = dataset.scales[level]
    return Problem(scale.key, chunk_name(cell_box(scale, cell)), what, mended, differs)
