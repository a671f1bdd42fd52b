"""Datasets that a conversion has finished, and ending one whose swap was interrupted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converter.event_log import EventLog, events_of
from converter.options import ConvertOptions, Summary
from converter.output.destination import Destination, locked, read_json
from converter.output.provenance import request
from converter.output.swap import TransformAnnotations, interrupted_swap, roll_forward
from converter.pyramid.results import level_figures, read_manifest
from converter.report import figures, headline
from converter.stacks.voxel_size import VoxelSize
from precomputed_server.format.info import VolumeInfo
from precomputed_server.format.names import MANIFEST


def finish_interrupted(destination: Destination, transform: TransformAnnotations | None) -> dict[str, Any] | None:
    """Carry out a swap that was interrupted; returns the request that it was for, None when there was no swap."""
    if not destination.swap.exists():
        return None
    with locked(destination):
        plan = interrupted_swap(destination)
        if plan is None:
            return None
        roll_forward(destination, plan, transform)
        made_for = recorded_request(destination)
        if plan.is_of_conversion:
            summary = finished_summary(destination)
            events = events_of(destination, made_for, EventLog(destination.events).append)
            events.done(headline(summary), **figures(summary))
    return made_for


def finished_summary(destination: Destination) -> Summary:
    """What there is to say of a dataset that an earlier run has finished."""
    record = read_json(destination.conversion) or {}
    info = VolumeInfo.from_bytes(destination.info.read_bytes())
    manifest = read_manifest(destination.path / MANIFEST, [scale.key for scale in info.scales])
    levels = () if manifest is None else level_figures(info.scales, manifest)
    return Summary(destination.path, info, VoxelSize.from_json(record["voxel_size"]), levels=levels)


def was_made_of(dataset: Path, source: str, options: ConvertOptions) -> bool:
    """Whether the dataset at `dataset` was converted from `source` with these `options`."""
    return recorded_request(Destination(dataset)) == request((source,), options)


def recorded_request(destination: Destination) -> dict[str, Any]:
    """The request that the dataset was made for."""
    record = read_json(destination.conversion) or {}
    return {name: record.get(name) for name in ("source", "options")}
