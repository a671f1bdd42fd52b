"""Correcting what a dataset says of itself without converting it again: `info` and the record, together or not at all.

The voxels stay as they are. Annotations are in voxels and stay too, so that they move with the image when the size of a
voxel is corrected.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from converter.options import options_from_json
from converter.output.corrections import recorded_channels
from converter.output.destination import Destination, has_annotations, locked, read_info, read_json
from converter.output.finished import finish_interrupted
from converter.output.relocate import forget_begun, must_rename, shifted, stage_renamed
from converter.output.swap import SwapPlan, TransformAnnotations, begin_swap, interrupted_swap, roll_forward
from converter.pyramid.results import shown_channels
from converter.stacks.channels import Channel
from converter.stacks.voxel_size import AXES, CORRECTED, Edges
from converter.writers import Voxels, writer
from precomputed_server.errors import InvalidInput
from precomputed_server.files import typed
from precomputed_server.format.geometry import Vector
from precomputed_server.format.info import Resolution, ScaleInfo, VolumeInfo
from precomputed_server.format.names import ANNOTATIONS, BLOCK_INFO, RECORD, STATISTICS
from precomputed_server.format.record import Words, with_words
from precomputed_server.writing import replace_file

IN_VOXELS, IN_NANOMETRES = "voxel", "nm"
_NM = 1000
_ANNOTATION_Z = "annotation_z"

Naming = Callable[[Path, VolumeInfo], str | None]
"""How the slices that hold annotations are named: IN_VOXELS, IN_NANOMETRES, or None where there are none."""

Texts = tuple[str, ...]


@dataclass(frozen=True)
class Corrections:
    """What is to be said from now on; None leaves it as it is.

    `voxel_size` is x, y, z in µm, of which some may be None; `offset` is the voxel of the finest scale at which the
    volume begins. An empty text among `channel_names` and `colors` (`#rrggbb`) leaves that channel as it is; an empty
    title is the directory's name.
    """

    voxel_size: Edges | None = None
    offset: Vector | None = None
    channel_names: Texts | None = None
    colors: Texts | None = None
    title: str | None = None
    tags: Texts | None = None
    description: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is to be changed."""
        return self == Corrections()


@dataclass(frozen=True)
class Described:
    """What a dataset says of itself; `info` is None for a dataset of layers."""

    path: Path
    record: dict[str, Any]
    info: VolumeInfo | None

    @property
    def title(self) -> str:
        """As viewers show it."""
        return self.record.get("title") or self.path.resolve().name

    @property
    def channels(self) -> tuple[Channel, ...]:
        """A name and a colour for each channel, as far as somebody has said them."""
        return _channels(self.record, 0 if self.info is None else self.info.num_channels)

    def to_json(self) -> dict[str, Any]:
        """The record, with what `info` says."""
        if self.info is None:
            return {**self.record, "title": self.title}
        finest = self.info.scales[0]
        return {
            **self.record,
            "title": self.title,
            "channels": [channel.to_json() for channel in self.channels],
            "resolution_nm": list(finest.resolution_nm),
            "voxel_offset": list(finest.voxel_offset),
            "size": list(finest.size),
            "data_type": self.info.data_type,
        }


def described(dataset: Path) -> Described:
    """What the dataset says of itself, or will when what was interrupted is ended; raises NotFound, Unreadable."""
    destination = Destination(dataset)
    record, plan = read_json(dataset / RECORD), interrupted_swap(destination)
    if plan is not None:
        text = plan.files.get(RECORD)
        return Described(dataset, (record or {}) if text is None else json.loads(text), plan.info)
    if record is not None and not destination.info.exists() and not destination.conversion.exists():
        return Described(dataset, record, None)
    return Described(dataset, record or {}, read_info(destination))


def describe(
    dataset: Path, corrections: Corrections, naming: Naming, transform: TransformAnnotations | None = None
) -> Described:
    """Carry out corrections; a kill leaves all of them done, none, or a plan that the next command here carries out.

    `naming` tells how slices are named: it is written into the record before a z edge changes. `transform` is for an
    interrupted conversion that has to be ended first. Raises NotFound, InvalidInput, Busy and other PrecomputedErrors.
    """
    destination = Destination(dataset)
    try:
        described(dataset)
        finish_interrupted(destination, transform)
        with locked(destination):
            before = described(dataset)
            after = corrected(before, corrections, naming)
            _write(destination, before, after)
            return after
    except OSError as error:
        raise typed(error, str(error.filename or dataset), writing=True) from error


def corrected(before: Described, asked: Corrections, naming: Naming) -> Described:
    """What a dataset says of itself once it is corrected; nothing is written. Raises as `describe`."""
    words = Words(asked.title, asked.description, asked.tags)
    record = with_words(before.record, words, before.title, uuid.uuid4().hex)
    info = before.info
    if info is None:
        if replace(asked, title=None, tags=None, description=None) != Corrections():
            raise InvalidInput(f"{before.path} is a dataset of layers; describe each of them.")
        return replace(before, record=record)
    if asked.channel_names is not None or asked.colors is not None:
        record["channels"] = [channel.to_json() for channel in _renamed(before, asked)]
    if asked.voxel_size is not None:
        info = _resized(before, info, asked.voxel_size, naming, record)
    if asked.offset is not None and asked.offset != info.scales[0].voxel_offset:
        _check_offset(before.path, asked.offset)
        info, record["offset"] = shifted(info, asked.offset, before.record.get("offset"))
    return Described(before.path, record, info)


def _check_offset(dataset: Path, offset: Vector) -> None:
    if min(offset) < 0:
        raise InvalidInput("--offset must be 0 or more in every axis: blocks of annotations count from voxel 0.")
    if has_annotations(Destination(dataset)):
        raise InvalidInput(
            f"{dataset} has annotations; they are kept by voxel and would no longer lie on what they mark. The offset "
            "can be changed only where there are none."
        )


def _write(destination: Destination, before: Described, after: Described) -> None:
    """Replace the record, which is one step; where other files have to change with it, by a plan."""
    text = json.dumps(after.record, indent=2) + "\n"
    beside = _files_of_format(destination, after)
    if before.info is None or after.info is None or (before.info == after.info and not beside):
        replace_file(destination.path / RECORD, text.encode())
        return
    operation = f"describe-{uuid.uuid4().hex}"
    forget_begun(destination)
    renamed = must_rename(destination, before.info, after.info)
    stage_renamed(destination, operation, renamed, after.info)
    keys = tuple(scale.key for scale in renamed)
    plan = SwapPlan(
        operation=operation,
        new_scales=keys,
        old_scales=keys,
        info=after.info,
        old_info=before.info,
        files={RECORD: text, **beside, **_whole_block(destination, before.info, after.info)},
    )
    begin_swap(destination, plan)
    roll_forward(destination, plan, None)


def _whole_block(destination: Destination, before: VolumeInfo, after: VolumeInfo) -> dict[str, str]:
    """The block size that keeps one block over the whole volume, where there was one."""
    name = f"{ANNOTATIONS}/{BLOCK_INFO}"
    path = destination.path / name
    old, new = (",".join(map(str, info.scales[0].bounds.stop)) + "\n" for info in (before, after))
    return {name: new} if old != new and path.exists() and path.read_text() == old else {}


def _files_of_format(destination: Destination, after: Described) -> dict[str, str]:
    """What the format of our conversion says beside `info`: OME-Zarr has voxel size, place, names and colours."""
    made = read_json(destination.conversion) or {}
    if after.info is None or not made.get("files"):
        return {}
    options = options_from_json(made["options"])
    chosen = writer(options.output, Voxels(after.info.dtype, after.info.num_channels, options.chunk_size))
    statistics = read_json(destination.path / STATISTICS) or {"channels": []}
    shown = shown_channels(statistics["channels"], after.channels)
    return dict(chosen.dataset_files(after.info, after.path.resolve().name, shown))


def _resized(before: Described, info: VolumeInfo, edges: Edges, naming: Naming, record: dict[str, Any]) -> VolumeInfo:
    """The info with other edges; the record says where each came from, and how slices are named."""
    old = info.scales[0].resolution_nm
    wanted = [Fraction(nm) if edge is None else edge * _NM for edge, nm in zip(edges, old, strict=True)]
    resolutions = [_scaled(scale, info.scales[0], wanted) for scale in info.scales]
    if resolutions[0][2] != old[2]:
        named = naming(before.path, info)
        if named == IN_NANOMETRES:
            raise InvalidInput(
                f"The slices of {before.path} that hold annotations are named by nanometres at its present z, and "
                "would not be found with another; leave z as it is: --voxel-size X,Y,."
            )
        if named is not None:
            record[_ANNOTATION_Z] = named
    known = before.record.get("voxel_size", {}).get("source", ["info"] * len(AXES))
    record["voxel_size"] = {
        "micrometres": [float(nm / _NM) for nm in wanted],
        "source": [was if edge is None else CORRECTED for edge, was in zip(edges, known, strict=True)],
    }
    scales = [replace(scale, resolution_nm=nm) for scale, nm in zip(info.scales, resolutions, strict=True)]
    return replace(info, scales=tuple(scales))


def _scaled(scale: ScaleInfo, finest: ScaleInfo, edges_nm: Sequence[Fraction]) -> Resolution:
    """The resolution of a scale when the finest gets `edges_nm`: as many times as coarse as it was."""
    pairs = zip(scale.resolution_nm, finest.resolution_nm, strict=True)
    ratios = (Fraction(coarse) / Fraction(fine) for coarse, fine in pairs)
    x, y, z = (float(edge * ratio) for edge, ratio in zip(edges_nm, ratios, strict=True))
    return x, y, z


def _channels(record: dict[str, Any], count: int) -> tuple[Channel, ...]:
    known = recorded_channels(record)
    return tuple(known[number] if number < len(known) else Channel() for number in range(count))


def _renamed(before: Described, asked: Corrections) -> list[Channel]:
    channels = before.channels
    names, colors = (_one_each(texts, len(channels)) for texts in (asked.channel_names, asked.colors))
    return [
        Channel(name or channel.name, color or channel.color)
        for channel, name, color in zip(channels, names, colors, strict=True)
    ]


def _one_each(texts: Texts | None, count: int) -> Texts:
    if texts is not None and len(texts) != count:
        raise InvalidInput(f"There are {len(texts)} entries for {count} channels: {','.join(texts)}; give one each.")
    return texts or ("",) * count
