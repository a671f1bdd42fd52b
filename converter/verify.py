"""Checking the chunks of a dataset against what its conversion wrote, or against its source, and mending them."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from converter.conversion import Conversion, prepare
from converter.options import ConvertOptions, options_from_json
from converter.output.corrections import Corrected, corrected_edges
from converter.output.destination import Destination, locked, read_json
from converter.pyramid.build import Build, make_plan
from converter.pyramid.crew import ThisMachine
from converter.pyramid.results import STORED, gather, write_manifest
from converter.pyramid.target import Mending
from converter.writers import Voxels, Writer, writer
from precomputed_server.errors import InvalidInput, NotFound, Unreadable
from precomputed_server.files import typed
from precomputed_server.format.geometry import Vector
from precomputed_server.format.grid import cell_box, cells, grid_shape
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.format.names import MANIFEST, chunk_name

_READERS = 4
_AT_ONCE = 4096
Manifest = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class Problem:
    """A chunk that is not as it should be: `what` is missing, truncated or altered."""

    key: str
    chunk: str
    what: str

    def __str__(self) -> str:
        """`1_1_1/0-64_0-64_0-64 is altered`."""
        return f"{self.key}/{self.chunk} is {self.what}"


@dataclass(frozen=True)
class Verification:
    """How many chunks were looked at, what was wrong with which, and whether these were mended."""

    chunks: int
    problems: tuple[Problem, ...]
    repaired: bool = False

    @property
    def is_sound(self) -> bool:
        """Whether every chunk is as it should be by now."""
        return self.repaired or not self.problems


@dataclass(frozen=True)
class _Dataset:
    """A dataset that this program converted, with all that its records say of it."""

    destination: Destination
    sources: tuple[str, ...]
    options: ConvertOptions
    info: VolumeInfo
    writer: Writer
    manifest: Manifest
    corrected: Corrected

    @property
    def scales(self) -> tuple[ScaleInfo, ...]:
        """The levels, finest first."""
        return self.info.scales

    def stored(self, scale: ScaleInfo, cell: Vector) -> bytes | None:
        """The bytes of a chunk as they lie; None where there is no chunk."""
        try:
            return self.writer.stored(self.destination.path / scale.key, scale, cell_box(scale, cell))
        except Unreadable:
            return None


def verify(
    dataset: Path, source: Sequence[str] | None = None, jobs: int | None = None, *, repair: bool = False
) -> Verification:
    """Check every chunk against the manifest; with `source` (empty: the one it was made of) derive each again from it.

    `repair` writes anew, from the source, the chunks that are wrong, and only those. Raises NotFound where there is no
    dataset, InvalidInput for one that this program did not convert, SourceError.
    """
    try:
        opened = _open(Destination(dataset))
        actual = tuple(_read_level(opened, scale) for scale in opened.scales)
        problems = _problems(opened, opened.manifest, actual)
        count = sum(level.size for level in actual)
        if source is None and not (repair and problems):
            return Verification(count, problems)
        with locked(opened.destination):
            conversion = _conversion(opened, tuple(source or ()), jobs)
            wanted = _derived(opened, conversion, {}) if source is not None else opened.manifest
            problems = _problems(opened, wanted, actual) if source is not None else problems
            if repair and problems:
                _mend(opened, conversion, _different(wanted, actual))
                return Verification(count, problems, repaired=True)
            return Verification(count, problems)
    except OSError as error:
        raise typed(error, str(error.filename or dataset), writing=repair) from error


def _open(destination: Destination) -> _Dataset:
    record = read_json(destination.conversion)
    if not destination.info.exists():
        raise NotFound(f"{destination.path} is not a dataset: it has no info.")
    if record is None or "options" not in record or not (destination.path / MANIFEST).is_dir():
        raise InvalidInput(
            f"{destination.path} has no manifest of its chunks; only what this program converted has one."
        )
    options = options_from_json(record["options"])
    info = VolumeInfo.from_bytes(destination.info.read_bytes())
    chosen = writer(options.output, Voxels(info.dtype, info.num_channels, options.chunk_size))
    manifest = tuple(_load(destination, scale) for scale in info.scales)
    known = Corrected(corrected_edges(record, options.source.view))
    return _Dataset(destination, tuple(record["source"]), options, info, chosen, manifest, known)


def _load(destination: Destination, scale: ScaleInfo) -> NDArray[Any]:
    path = destination.path / MANIFEST / f"{scale.key}.npy"
    try:
        entries: NDArray[Any] = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise Unreadable(
            f"The manifest {path} cannot be read; verify with --source instead, or convert again."
        ) from error
    if entries.dtype != STORED or entries.shape != grid_shape(scale)[::-1]:
        raise Unreadable(f"The manifest {path} is not that of scale {scale.key}; convert again.")
    return entries


def _read_level(dataset: _Dataset, scale: ScaleInfo) -> NDArray[Any]:
    """What is stored of each chunk, as the manifest would say it."""
    found = np.zeros(grid_shape(scale)[::-1], STORED)

    def look(cell: Vector) -> tuple[int, int]:
        stored = dataset.stored(scale, cell)
        return (0, 0) if stored is None else (len(stored), isal_zlib.crc32(stored))

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


def _problems(dataset: _Dataset, wanted: Manifest, actual: Manifest) -> tuple[Problem, ...]:
    """Every chunk that differs from what is wanted, level by level."""
    problems = []
    for level, places in _different(wanted, actual).items():
        scale = dataset.scales[level]
        for x, y, z in sorted(places, key=lambda cell: cell[::-1]):
            should, there = wanted[level][z, y, x], actual[level][z, y, x]
            what = "missing" if there["size"] == 0 else "truncated" if there["size"] < should["size"] else "altered"
            problems.append(Problem(scale.key, chunk_name(cell_box(scale, (x, y, z))), what))
    return tuple(problems)


def _different(wanted: Manifest, actual: Manifest) -> dict[int, frozenset[Vector]]:
    """The cells of each level that differ."""
    return {
        level: frozenset((int(x), int(y), int(z)) for z, y, x in zip(*np.nonzero(should != there), strict=True))
        for level, (should, there) in enumerate(zip(wanted, actual, strict=True))
    }


def _conversion(dataset: _Dataset, source: tuple[str, ...], jobs: int | None) -> Conversion:
    """The conversion that made the dataset; raises InvalidInput when it would make another one now."""
    conversion = prepare(source or dataset.sources, replace(dataset.options, jobs=jobs), dataset.corrected)
    finest = dataset.scales[0]
    if (conversion.scales[0].size, conversion.volume.dtype) != (finest.size, np.dtype(dataset.info.data_type)):
        raise InvalidInput(
            f"The source is not the one that {dataset.destination.path} was made of: it has "
            f"{_size(conversion.scales[0])} voxels of {conversion.volume.dtype} instead of {_size(finest)} of "
            f"{dataset.info.data_type}; name the right one with --source."
        )
    return conversion


def _mend(dataset: _Dataset, conversion: Conversion, wrong: Mapping[int, frozenset[Vector]]) -> None:
    """Write the wrong chunks anew, and into the manifest what they are now."""
    found = _derived(dataset, conversion, wrong)
    for level, places in wrong.items():
        for x, y, z in places:
            dataset.manifest[level][z, y, x] = found[level][z, y, x]
    write_manifest(dataset.destination.path / MANIFEST, [scale.key for scale in dataset.scales], dataset.manifest)


def _derived(dataset: _Dataset, conversion: Conversion, wrong: Mapping[int, frozenset[Vector]]) -> Manifest:
    """What the manifest says of chunks that are made again from the source: of all, or of those that are `wrong`.

    Those are written.
    """
    directory = dataset.destination.verifying / uuid.uuid4().hex
    target = Mending(dataset.destination.path, dataset.scales, dataset.writer, wrong)
    crew = ThisMachine(conversion.options.processes, conversion.options.memory)
    pyramid, source = conversion.pyramid, conversion.source
    plan = make_plan(pyramid, source, crew)
    build = Build(pyramid, source, conversion.volume, target, directory, plan, crew, only=wrong or None)
    shutil.rmtree(dataset.destination.verifying, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        build.run(None)
        return gather(build.journal, conversion.pyramid, conversion.volume).manifest
    finally:
        shutil.rmtree(dataset.destination.verifying, ignore_errors=True)


def _size(scale: ScaleInfo) -> str:
    return " × ".join(map(str, scale.size))
