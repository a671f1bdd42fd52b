"""Having planes served as they are: what a dataset's record then says, and when a directory is one of planes."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from converter.conversion import Conversion, prepare
from converter.describe import Corrections, Described, Naming, corrected
from converter.options import ConvertOptions
from converter.output.corrections import Corrected
from converter.output.destination import Destination, locked, read_json
from converter.output.provenance import dataset_record, json_text
from converter.served.record import FORMAT, STACK, Published, published
from converter.stacks.source import find_files
from converter.stacks.voxel_size import Edges
from precomputed_server.errors import DestinationExists, InvalidInput
from precomputed_server.files import typed
from precomputed_server.format.names import RECORD
from precomputed_server.writing import replace_file

_SUFFIXES = (".ome.tiff", ".ome.tif", ".tiff", ".tif", ".btf")


def is_stack(path: Path) -> bool:
    """Whether `path` is planes, published or not, rather than a dataset that has been converted: a file, or a directory
    of planes without `info`. Raises Unreadable for a damaged record.
    """
    if path.is_file():
        return True
    destination = Destination(path)
    if any(each.exists() for each in (destination.info, destination.conversion, destination.staging, destination.swap)):
        return False
    record = read_json(path / RECORD) or {}
    return STACK in record or (not record.get("layers") and _has_planes(path))


def dataset_of(source: Path) -> Path:
    """The directory that a stack becomes a dataset in: its own, of a file the one of its name beside it.

    A dataset is a directory in any case: its annotations, its record and its history lie in it.
    """
    if not source.is_file():
        return source
    name = source.name
    suffix = next((each for each in _SUFFIXES if name.lower().endswith(each) and len(name) > len(each)), None)
    if suffix is None:
        raise InvalidInput(f"{source} is not named as a TIFF file is; name a dataset's directory or a TIFF stack.")
    return source.with_name(name[: -len(suffix)])


def publish(
    source: Path, dataset: Path, asked: Corrections, naming: Naming, segmentation: bool | None = None
) -> Described:
    """Have the planes of `source` served as `dataset`, or correct what is said of one that already is.

    Only the record in `dataset` is written. `naming` is as that of `describe`. Raises InvalidInput, also for a voxel
    size that nobody knows, SourceError for planes that do not fit together or are missing, DestinationExists.
    """
    if asked.offset is not None:
        raise InvalidInput("A stack that is served as it is begins at voxel 0; convert it to give it an --offset.")
    destination = Destination(dataset)
    if destination.info.exists():
        raise DestinationExists(f"{dataset} has been converted already; choose another directory with --to.")
    try:
        dataset.mkdir(parents=True, exist_ok=True)
        with locked(destination):
            found = _described(source, dataset, asked, naming, segmentation)
            replace_file(dataset / RECORD, json_text(found.record).encode())
            return found
    except OSError as error:
        raise typed(error, str(error.filename or dataset), writing=True) from error


def _described(source: Path, dataset: Path, asked: Corrections, naming: Naming, segmentation: bool | None) -> Described:
    record = read_json(dataset / RECORD)
    known = None if record is None else published(record)
    if known is not None and source == dataset:
        source = dataset / known.source
    options = ConvertOptions(format=FORMAT) if known is None else known.options
    if segmentation is not None:
        options = replace(options, segmentation=segmentation)
    given = replace(options, voxel_size=_merged(options, asked.voxel_size))
    before = _prepared(source, options if known is not None else given)
    after = _prepared(source, given) if known is not None and given != options else before
    title = dataset.resolve().name
    # A first voxel size is given, a later one corrects it: annotations may know the one before.
    said = dataset_record(before.origin, title, before.channels, record) if known is None else dict(record or {})
    changes = asked if known is not None else replace(asked, voxel_size=None)
    described = corrected(Described(dataset, said, before.info), changes, naming)
    where = os.path.relpath(source.resolve(), dataset.resolve())
    members: dict[str, Any] = {**described.record, STACK: Published(where, given).to_record(after.info)}
    return Described(dataset, members, after.info)


def _prepared(source: Path, options: ConvertOptions) -> Conversion:
    return prepare((os.path.abspath(source),), options, Corrected())


def _merged(options: ConvertOptions, asked: Edges | None) -> Any:  # noqa: ANN401
    """The edges that were given, with those that are asked for now."""
    if asked is None:
        return options.voxel_size
    return tuple(old if new is None else new for old, new in zip(options.voxel_size, asked, strict=True))


def _has_planes(path: Path) -> bool:
    try:
        return bool(find_files([str(path)]))
    except InvalidInput:
        return False
