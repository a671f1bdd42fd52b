"""Converting a TIFF stack into a dataset: the whole of it, from the source to the finished destination."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from converter.conversion import Conversion, prepare
from converter.event_log import recorded
from converter.options import ConvertOptions, Summary
from converter.output.corrections import corrected
from converter.output.destination import (
    Destination,
    Existing,
    check_keys,
    existing_pyramid,
    has_annotations,
    locked,
    must_transform,
    not_written,
    own_files,
    read_json,
)
from converter.output.finished import finish_interrupted, finished_summary
from converter.output.foreign import check_levels
from converter.output.provenance import (
    cloud_volume_provenance,
    conversion_record,
    dataset_record,
    json_text,
    provenance,
    request,
)
from converter.output.staging import check_space, kept_if_worthwhile, note_files, staging_for
from converter.output.swap import SwapPlan, TransformAnnotations, begin_swap, roll_forward
from converter.pyramid.build import Build, fitted_plan, make_plan
from converter.pyramid.crew import Crew, crew_for
from converter.pyramid.progress import Progress
from converter.pyramid.results import Found, gather, level_figures, write_manifest
from converter.pyramid.target import Target, stamp
from converter.stacks.presence import check_there
from converter.writers import COMPRESSED_SEGMENTATION
from precomputed_server.errors import InvalidInput
from precomputed_server.format.geometry import Vector
from precomputed_server.format.info import VolumeInfo
from precomputed_server.format.names import (
    ANNOTATIONS,
    BLOCK_INFO,
    CLOUD_VOLUME_PROVENANCE,
    CONVERSION,
    MANIFEST,
    PROVENANCE,
    RECORD,
    STATISTICS,
)

_BLOCKS = f"{ANNOTATIONS}/{BLOCK_INFO}"


def convert(
    source: Sequence[str | Path] | str | Path,
    dest: Path | str,
    options: ConvertOptions,
    progress: Progress | None = None,
    transform_annotations: TransformAnnotations | None = None,
    layer: str | None = None,
) -> Summary:
    """Convert the TIFF planes of `source` (directories, globs, files) into a precomputed dataset at `dest`.

    The pyramid is built beside whatever `dest` holds and put in place at the end, `info` last. A conversion that was
    killed leaves no new dataset; the same one, begun again, goes on where it stood.

    `dest` may be the `layer` of that name of the dataset above it, which its events then tell.

    All processes together hold at most `options.max_memory` bytes, of a cluster each worker. The paths of a task are
    absolute: a worker need not have the same working directory.

    Raises InvalidInput, SourceError, DestinationExists, Busy, StorageFull and other PrecomputedErrors.
    """
    if options.encoding == COMPRESSED_SEGMENTATION and not options.segmentation:
        raise InvalidInput(
            "--encoding compressed_segmentation is for labels; add --segmentation, or use --encoding raw."
        )
    given = (source,) if isinstance(source, (str, Path)) else source
    sources = tuple(os.path.abspath(name) if str(name) else "" for name in given)
    destination = Destination(Path(dest).absolute(), layer)
    try:
        finished = finish_interrupted(destination, transform_annotations)
        if finished is not None and not options.overwrite and finished == request(sources, options):
            return finished_summary(destination)
        check_there(sources)
        existing_pyramid(destination, options.overwrite)
        with crew_for(options) as crew:
            conversion = prepare(sources, options, corrected(destination, request(sources, options)))
            with locked(destination):
                return recorded(
                    destination,
                    conversion.origin.request,
                    progress,
                    lambda told: _run(conversion, destination, crew, told, transform_annotations),
                )
    except OSError as error:
        raise not_written(destination, error) from error


def convert_prepared(conversion: Conversion, dest: Path, crew: Crew) -> Summary:
    """Carry out a conversion whose source has been read, into a directory of this program's own.

    One that was killed goes on where it stood. Raises as `convert`.
    """
    destination = Destination(dest.absolute())
    try:
        if finish_interrupted(destination, None) is not None:
            return finished_summary(destination)
        with locked(destination):
            return _run(conversion, destination, crew, None, None)
    except OSError as error:
        raise not_written(destination, error) from error


def _run(
    conversion: Conversion,
    destination: Destination,
    crew: Crew,
    progress: Progress | None,
    transform: TransformAnnotations | None,
) -> Summary:
    existing = existing_pyramid(destination, conversion.options.overwrite)
    check_levels(destination, existing)
    old_files = own_files(destination)
    check_keys(destination, existing, (*conversion.keys, *(set(conversion.file_names) - set(old_files))))
    info = _with_kept_members(conversion.info, existing)
    transforming = must_transform(destination, existing, info, conversion.options.annotations)
    if transforming and transform is None:
        raise InvalidInput("Annotations are moved by the command line; use `precomputed convert`.")
    blocks = _replaced_blocks(conversion, destination, existing)
    if not conversion.first_kept:
        check_space(destination, conversion.pyramid, conversion.writer, compressed=conversion.options.format != "raw")
    files = conversion.origin.files
    pyramid, stack = conversion.pyramid, conversion.source
    staged = staging_for(destination, conversion.identity, files, lambda: make_plan(pyramid, stack, crew))
    target = conversion.target(staged.directory)
    build = Build(
        pyramid,
        stack,
        conversion.volume,
        target,
        staged.directory,
        fitted_plan(staged.plan, pyramid, stack, crew),
        crew,
        conversion.options.on_error,
    )
    with kept_if_worthwhile(destination, staged):
        _begin_scales(conversion, target)
        build.forget({path for path, version in files.items() if staged.files[path] != version})
        note_files(staged, conversion.identity, files)
        build.run(progress)
        found = gather(build.journal, conversion.pyramid, conversion.volume)
        write_manifest(staged.directory / MANIFEST, conversion.keys, found.manifest)
    record, new_record = _record(conversion, destination)
    plan = SwapPlan(
        operation=staged.operation,
        new_scales=(*conversion.keys, MANIFEST),
        old_scales=(*existing.scales, MANIFEST),
        info=info,
        old_info=existing.info,
        transform=transforming,
        files={**_files(conversion, found, destination), **blocks, **record},
        new_files={**_new_files(conversion), **new_record},
        obsolete=tuple(name for name in old_files if name not in conversion.file_names),
    )
    check_levels(destination, existing)  # again: much may have been put there while this went on
    begin_swap(destination, plan)
    roll_forward(destination, plan, transform)
    seconds = time.time() - conversion.origin.began
    size, figures = conversion.origin.voxel_size, level_figures(conversion.scales, found.manifest)
    made = Summary(destination.path, info, size, found.chunks, found.bytes, seconds, found.unreadable, figures)
    return replace(made, cluster=conversion.options.scheduler, warnings=conversion.warnings)


def _begin_scales(conversion: Conversion, target: Target) -> None:
    """Make the directories of the scales, with what the format puts into them beside the chunks."""
    for scale in conversion.scales:
        directory = target.directory / scale.key
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in conversion.writer.scale_files(conversion.info, scale).items():
            (directory / name).write_bytes(content)


def _with_kept_members(info: VolumeInfo, existing: Existing) -> VolumeInfo:
    """The new info with the members of the old one that this program does not know, such as a mesh directory."""
    return info if existing.info is None else replace(info, other={**info.other, **existing.info.other})


def _files(conversion: Conversion, found: Found, destination: Destination) -> dict[str, str]:
    """The files that each conversion replaces."""
    origin = conversion.origin
    checked = {STATISTICS: found.statistics_text, PROVENANCE: provenance(origin, found.unreadable)}
    checksums = {name: list(stamp((text.encode(),))) for name, text in checked.items()}
    written = {"scales": conversion.keys, "files": conversion.file_names, "checksums": checksums}
    return {
        CONVERSION: conversion_record(origin, written, found.lost),
        **checked,
        CLOUD_VOLUME_PROVENANCE: cloud_volume_provenance(origin),
        **conversion.writer.dataset_files(
            conversion.info, _name(destination), found.shown_channels(conversion.channels)
        ),
    }


def _new_files(conversion: Conversion) -> dict[str, str]:
    """The files that are somebody's own as soon as they exist."""
    return {_BLOCKS: _block_info(conversion.options.annotation_block or conversion.source.bounds.stop)}


def _record(conversion: Conversion, destination: Destination) -> tuple[dict[str, str], dict[str, str]]:
    """The record as it has to be changed, if it has to be, and as it is where there is none yet."""
    known = read_json(destination.path / RECORD)
    record = dataset_record(conversion.origin, _name(destination), conversion.channels, known)
    if known is None:
        return {}, {RECORD: json_text(record)}
    return ({} if record == known else {RECORD: json_text(record)}), {}


def _name(destination: Destination) -> str:
    return destination.path.resolve().name


def _replaced_blocks(conversion: Conversion, destination: Destination, existing: Existing) -> dict[str, str]:
    """The block sizes, where a conversion left its own before and no annotation lies in such a block.

    Raises InvalidInput when --annotation-block differs from what annotations lie in.
    """
    asked = conversion.options.annotation_block
    path = destination.path / _BLOCKS
    old = path.read_text() if path.exists() else None
    new = _block_info(asked or conversion.source.bounds.stop)
    if old is None or old == new:
        return {}
    if has_annotations(destination):
        if asked is not None:
            raise InvalidInput(
                f"The annotations of {destination.path} lie in blocks of {old.strip()} voxels; leave "
                "--annotation-block out to keep them."
            )
        return {}
    ours = existing.info is not None and old == _block_info(existing.info.scales[0].bounds.stop)
    return {_BLOCKS: new} if ours or asked is not None else {}


def _block_info(size: Vector) -> str:
    return ",".join(map(str, size)) + "\n"
