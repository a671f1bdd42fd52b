"""The `info` file of a volume: its data type, channels and scales.

Source: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/volume.md#info-json-file-specification
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

import numpy as np

from precomputed_server.errors import Unreadable
from precomputed_server.format.geometry import Box, Vector

DATA_TYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32")
VOLUME_MARK = "neuroglancer_multiscale_volume"

Resolution = tuple[float, float, float]
Members = Mapping[str, Any]


@dataclass(frozen=True)
class ScaleInfo:
    """One resolution of a volume.

    `size` and `voxel_offset` are in voxels of this scale, `resolution_nm` is the edge of one voxel in nanometres,
    all x, y, z; `other` keeps the members that this program does not know.
    """

    key: str
    size: Vector
    resolution_nm: Resolution
    chunk_sizes: tuple[Vector, ...]
    voxel_offset: Vector = (0, 0, 0)
    encoding: str = "raw"
    other: Members = field(default_factory=dict, hash=False)

    @property
    def bounds(self) -> Box:
        """The voxels that exist at this scale."""
        x, y, z = (start + length for start, length in zip(self.voxel_offset, self.size, strict=True))
        return Box(self.voxel_offset, (x, y, z))

    @classmethod
    def from_json(cls, members: Members) -> ScaleInfo:
        """Read one element of `scales`; raises Unreadable naming what is wrong."""
        known = {"key", "size", "resolution", "chunk_sizes", "voxel_offset", "encoding"}
        chunk_sizes = members.get("chunk_sizes")
        key = members.get("key")
        if not isinstance(key, str) or not key:
            raise Unreadable("a scale in info has no key.")
        if not isinstance(chunk_sizes, list) or not chunk_sizes:
            raise Unreadable(f"scale {key} in info has no chunk_sizes.")
        return cls(
            key=key,
            size=_vector(members.get("size"), f"size of scale {key}", minimum=0),
            resolution_nm=_resolution(members.get("resolution"), key),
            chunk_sizes=tuple(_vector(size, f"chunk_sizes of scale {key}", minimum=1) for size in chunk_sizes),
            voxel_offset=_vector(members.get("voxel_offset", [0, 0, 0]), f"voxel_offset of scale {key}"),
            encoding=str(members.get("encoding", "raw")),
            other={name: value for name, value in members.items() if name not in known},
        )

    def to_json(self) -> dict[str, Any]:
        """The element of `scales`, unknown members included."""
        return {
            "key": self.key,
            "size": list(self.size),
            "resolution": [_plain_number(edge) for edge in self.resolution_nm],
            "voxel_offset": list(self.voxel_offset),
            "chunk_sizes": [list(size) for size in self.chunk_sizes],
            "encoding": self.encoding,
            **self.other,
        }


@dataclass(frozen=True)
class VolumeInfo:
    """A volume: `volume_type` is image or segmentation, `data_type` one of DATA_TYPES, scales finest first."""

    data_type: str
    num_channels: int
    scales: tuple[ScaleInfo, ...]
    volume_type: str = "image"
    other: Members = field(default_factory=dict, hash=False)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The voxels' type as chunks store it: little-endian."""
        return np.dtype(self.data_type).newbyteorder("<")

    def array_bytes(self, box: Box) -> int:
        """The bytes of the voxels of `box`, all channels, as raw chunks hold them."""
        return self.num_channels * box.voxels * self.dtype.itemsize

    def scale(self, key: str) -> ScaleInfo | None:
        """The scale of that key, or None."""
        return next((scale for scale in self.scales if scale.key == key), None)

    def in_voxels(self) -> VolumeInfo:
        """The same volume with every resolution divided by the finest scale's z resolution.

        A client that names slices by nanometres then names them by voxel, because the finest z edge is 1.
        """
        unit = self.scales[0].resolution_nm[2]

        def divided(edge: Resolution) -> Resolution:
            return edge[0] / unit, edge[1] / unit, edge[2] / unit

        scales = tuple(replace(scale, resolution_nm=divided(scale.resolution_nm)) for scale in self.scales)
        return replace(self, scales=scales)

    @classmethod
    def from_json(cls, members: object) -> VolumeInfo:
        """Read `info`; raises Unreadable naming what is wrong."""
        if not is_volume(members):
            raise Unreadable("info is not that of a volume: it has no list of scales.")
        known = {"data_type", "num_channels", "scales", "type"}
        if members.get("data_type") not in DATA_TYPES:
            raise Unreadable(f"data_type {members.get('data_type')!r} in info is not one of {', '.join(DATA_TYPES)}.")
        channels = members.get("num_channels", 1)
        if not isinstance(channels, int) or channels < 1:
            raise Unreadable("num_channels in info is not a whole number from 1.")
        if not all(isinstance(scale, dict) for scale in members["scales"]):
            raise Unreadable("a scale in info is not an object.")
        return cls(
            data_type=members["data_type"],
            num_channels=channels,
            scales=tuple(ScaleInfo.from_json(scale) for scale in members["scales"]),
            volume_type=str(members.get("type", "image")),
            other={name: value for name, value in members.items() if name not in known},
        )

    @classmethod
    def from_bytes(cls, text: bytes) -> VolumeInfo:
        """Read the bytes of an `info` file; raises Unreadable."""
        try:
            members = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise Unreadable("info is not JSON.") from error
        return cls.from_json(members)

    def to_json(self) -> dict[str, Any]:
        """The members of `info`, unknown ones included."""
        return {
            "type": self.volume_type,
            "data_type": self.data_type,
            "num_channels": self.num_channels,
            "scales": [scale.to_json() for scale in self.scales],
            **self.other,
        }

    def to_bytes(self) -> bytes:
        """The bytes of an `info` file, indented for people."""
        return json.dumps(self.to_json(), indent=2).encode() + b"\n"


def is_volume(members: object) -> TypeGuard[dict[str, Any]]:
    """Whether parsed `info` describes a volume rather than a mesh, skeleton or annotation collection."""
    if not isinstance(members, dict):
        return False
    scales = members.get("scales")
    return isinstance(scales, list) and bool(scales) and members.get("@type", VOLUME_MARK) == VOLUME_MARK


def _vector(value: object, name: str, minimum: int | None = None) -> Vector:
    if not isinstance(value, list) or len(value) != 3:
        raise Unreadable(f"{name} in info is not a list of x, y, z.")
    whole = [int(number) for number in value if _is_number(number) and number == int(number)]
    if len(whole) != 3 or (minimum is not None and min(whole) < minimum):
        raise Unreadable(f"{name} in info is {value}, not three whole numbers{_from(minimum)}.")
    return whole[0], whole[1], whole[2]


def _from(minimum: int | None) -> str:
    return "" if minimum is None else f" from {minimum}"


def _resolution(value: object, key: str) -> Resolution:
    if not isinstance(value, list) or len(value) != 3 or not all(_is_number(edge) and edge > 0 for edge in value):
        raise Unreadable(f"resolution of scale {key} in info is not three positive numbers of nanometres.")
    return float(value[0]), float(value[1]), float(value[2])


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _plain_number(value: float) -> int | float:
    return int(value) if value == int(value) else value
