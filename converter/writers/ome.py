"""What OME-Zarr says of an image: its axes, where each level lies, and how to show its channels.

Source: https://ngff.openmicroscopy.org/0.4/
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from converter.writers.protocol import Channel
from precomputed_server.format.info import ScaleInfo, VolumeInfo

_VERSION = "0.4"
_AXES = {
    "t": {"name": "t", "type": "time"},
    "c": {"name": "c", "type": "channel"},
    **{axis: {"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"},
}
_COLOURS = ("FF0000", "00FF00", "0000FF", "FF00FF", "00FFFF", "FFFF00")
_NM_PER_UM = 1000


def image_attributes(info: VolumeInfo, axes: str, name: str, channels: Sequence[Channel]) -> dict[str, Any]:
    """The members of the group's `.zattrs`; `axes` are one letter each, slowest first."""
    labels = info.volume_type == "segmentation"
    finest = info.scales[0]
    multiscale = {
        "version": _VERSION,
        "name": name,
        "axes": [_AXES[axis] for axis in axes],
        "datasets": [
            {"path": scale.key, "coordinateTransformations": _transformations(scale, finest, axes)}
            for scale in info.scales
        ],
        "type": "mode" if labels else "mean",
    }
    if labels:
        return {"multiscales": [multiscale], "image-label": {"version": _VERSION}}
    shown = _shown_channels(info, channels)
    return {"multiscales": [multiscale], **({"omero": _omero(info, name, shown)} if shown else {})}


def image_name(attributes: object) -> str | None:
    """What such attributes call the image; None where they are damaged."""
    with suppress(KeyError, IndexError, TypeError):
        name = attributes["multiscales"][0]["name"]  # type: ignore[index]
        return name if isinstance(name, str) else None
    return None


def _transformations(scale: ScaleInfo, finest: ScaleInfo, axes: str) -> list[dict[str, Any]]:
    """Size of a voxel and centre of the first one in µm; the origin is the centre of voxel 0, 0, 0 of the finest."""
    edge = dict(zip("xyz", (nm / _NM_PER_UM for nm in scale.resolution_nm), strict=True))
    unit = dict(zip("xyz", (nm / _NM_PER_UM for nm in finest.resolution_nm), strict=True))
    offset = dict(zip("xyz", scale.voxel_offset, strict=True))
    first = {axis: offset[axis] * edge[axis] + (edge[axis] - unit[axis]) / 2 for axis in "xyz"}
    return [
        {"type": "scale", "scale": [edge.get(axis, 1.0) for axis in axes]},
        {"type": "translation", "translation": [first.get(axis, 0.0) for axis in axes]},
    ]


def _shown_channels(info: VolumeInfo, channels: Sequence[Channel]) -> list[dict[str, Any]]:
    """How each channel is to be shown; empty when that of one is not known."""
    named = channels or [Channel(f"Channel {number}") for number in range(info.num_channels)]
    described = [_channel(info, number, channel) for number, channel in enumerate(named)]
    known = [channel for channel in described if channel is not None]
    return known if len(known) == len(described) else []


def _channel(info: VolumeInfo, number: int, channel: Channel) -> dict[str, Any] | None:
    whole = channel.window
    if info.dtype.kind != "f":
        limits = np.iinfo(info.dtype)
        whole = limits.min, limits.max
    if whole is None:  # floats may have any range
        return None
    start, end = channel.window or whole
    colour = channel.color or ("FFFFFF" if info.num_channels == 1 else _COLOURS[number % len(_COLOURS)])
    return {
        "label": channel.name,
        "color": colour,
        "active": True,
        "coefficient": 1,
        "family": "linear",
        "inverted": False,
        "window": {"min": whole[0], "max": whole[1], "start": start, "end": end},
    }


def _omero(info: VolumeInfo, name: str, channels: list[dict[str, Any]]) -> dict[str, Any]:
    model = "greyscale" if len(channels) == 1 else "color"
    middle = info.scales[0].size[2] // 2
    return {
        "version": _VERSION,
        "name": name,
        "channels": channels,
        "rdefs": {"defaultT": 0, "defaultZ": middle, "model": model},
    }
