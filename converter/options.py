"""What a conversion is asked to do, and what it reports."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from converter.option_types import plain
from converter.output.destination import KEEP, TRANSFORM
from converter.pyramid.downsample import METHODS
from converter.pyramid.scales import PyramidOptions
from converter.pyramid.tasks import BLANK, FAIL, SKIP
from converter.stacks.source_options import SourceOptions, source_options_from_json
from converter.stacks.voxel_size import UNKNOWN, Edges, GivenEdges, VoxelSize, exact_edges
from converter.writers import Output
from precomputed_server.errors import InvalidInput
from precomputed_server.format.geometry import Vector
from precomputed_server.format.info import VolumeInfo
from precomputed_server.limits import memory_limit, usable_cpus

_MOST_MEMORY = 2 << 30
_ADDRESS = re.compile(r"(tcp|tls)://\S+:\d{1,5}")


@dataclass(frozen=True)
class ConvertOptions:
    """The options of a conversion; raises InvalidInput for values that none can have.

    `voxel_size` is x, y, z in micrometres, numbers or exact fractions; (None, None, 2) leaves x and y to
    the TIFF's metadata, then to `assumed_voxel_size`, then asked for. `levels` counts the full-resolution one, None
    goes on until a level fits one chunk; `downsample` None is automatic. `annotation_block` is x, y, z in voxels, None
    for the whole extent. `jobs` None is every CPU that this process may use. `source` is what is taken of the source
    and how it is seen (`source_options.source_options` reads texts). With `scheduler`, the address of a Dask scheduler,
    its workers do the work: `jobs` is for how many threads of theirs it is divided, None for those that are there, and
    `max_memory` is that of each worker.
    """

    voxel_size: GivenEdges = UNKNOWN
    assumed_voxel_size: GivenEdges = UNKNOWN
    levels: int | None = None
    downsample: Vector | None = None
    chunk_size: Vector = (64, 64, 64)
    format: str = "tiff"
    compress: str | None = None
    encoding: str = "raw"
    jpeg_quality: int = 90
    shard_size: int = 1024
    segmentation: bool = False
    downsample_method: str | None = None
    dtype: str | None = None
    jobs: int | None = None
    max_memory: int | None = None
    scheduler: str | None = None
    on_error: str = FAIL
    overwrite: bool = False
    annotations: str | None = None
    annotation_block: Vector | None = None
    source: SourceOptions = field(default_factory=SourceOptions)

    def __post_init__(self) -> None:
        self._make_plain()
        for edge in self.voxel_size:
            if edge is not None and edge <= 0:
                raise InvalidInput("The voxel size must be greater than zero in every axis, in µm.")
        if self.jobs is not None and self.jobs < 1:
            raise InvalidInput(f"{self.jobs} processes cannot do anything; use 1 or more.")
        if self.max_memory is not None and self.max_memory < 1:
            raise InvalidInput("--max-memory must be more than nothing, such as 2GiB.")
        if self.scheduler is not None and not _ADDRESS.fullmatch(self.scheduler):
            raise InvalidInput(f"--scheduler {self.scheduler} is no address such as tcp://node1:8786.")
        if self.annotation_block is not None and min(self.annotation_block) < 1:
            raise InvalidInput("--annotation-block must be at least 1 voxel in every axis.")
        _one_of("--annotations", self.annotations, (None, KEEP, TRANSFORM))
        _one_of("--downsample-method", self.downsample_method, (None, *METHODS))
        _one_of("--on-error", self.on_error, (FAIL, SKIP, BLANK))
        _ = self.output, self.pyramid  # check the rest

    def _make_plain(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, plain(each.name, getattr(self, each.name)))
        for name in ("voxel_size", "assumed_voxel_size"):
            object.__setattr__(self, name, exact_edges(getattr(self, name)))

    @property
    def pyramid(self) -> PyramidOptions:
        """The part that decides about levels."""
        return PyramidOptions(self.chunk_size, self.levels, self.downsample)

    @property
    def output(self) -> Output:
        """The part that decides how chunks are stored."""
        return Output(self.format, self.compress, self.encoding, self.jpeg_quality, self.shard_size)

    @property
    def method(self) -> str:
        """How a coarser level is made: labels keep the most frequent one, unless said otherwise."""
        return self.downsample_method or ("mode" if self.segmentation else "average")

    @property
    def memory(self) -> int:
        """How many bytes all processes may hold together: unless said, half of what there is, at most 2 GiB."""
        return self.max_memory or min(_MOST_MEMORY, memory_limit() // 2)

    @property
    def processes(self) -> int:
        """How many processes to use at most."""
        return self.jobs or usable_cpus()

    def to_json(self) -> dict[str, Any]:
        """What decides about the result, for the record of the conversion."""
        return {
            "voxel_size": [None if edge is None else str(edge) for edge in self.voxel_size],
            "levels": self.levels,
            "downsample": "auto" if self.downsample is None else list(self.downsample),
            "chunk_size": list(self.chunk_size),
            **self.output.to_json(),
            "segmentation": self.segmentation,
            "downsample_method": self.method,
            "dtype": self.dtype,
            "assumed_voxel_size": [None if edge is None else str(edge) for edge in self.assumed_voxel_size],
            "annotation_block": None if self.annotation_block is None else list(self.annotation_block),
            "source": self.source.to_json(),
        }


def options_from_json(members: Mapping[str, Any]) -> ConvertOptions:
    """The options of a conversion as its record has them: those that decide about the result."""
    step, block = members["downsample"], members["annotation_block"]
    return ConvertOptions(
        voxel_size=_edges(members["voxel_size"]),
        assumed_voxel_size=_edges(members["assumed_voxel_size"]),
        levels=members["levels"],
        downsample=None if step == "auto" else _vector(step),
        chunk_size=_vector(members["chunk_size"]),
        format=members["format"],
        compress=members["compress"],
        encoding=members["encoding"],
        jpeg_quality=members.get("jpeg_quality", Output.jpeg_quality),
        shard_size=members.get("shard_size", Output.shard_size),
        segmentation=members["segmentation"],
        downsample_method=members["downsample_method"],
        dtype=members["dtype"],
        annotation_block=None if block is None else _vector(block),
        source=source_options_from_json(members["source"]),
    )


def _edges(texts: Sequence[str | None]) -> Edges:
    x, y, z = (None if text is None else Fraction(text) for text in texts)
    return x, y, z


def _vector(numbers: Sequence[int]) -> Vector:
    x, y, z = numbers
    return x, y, z


def _one_of(name: str, value: str | None, choices: tuple[str | None, ...]) -> None:
    if value not in choices:
        listed = ", ".join(choice for choice in choices if choice is not None)
        raise InvalidInput(f"{name} {value} is not possible; use one of {listed}.")


@dataclass(frozen=True)
class LevelFigures:
    """What a level of a dataset holds: its size x, y, z in voxels, its chunks, and the bytes of these as stored."""

    key: str
    size: Vector
    chunks: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """The members of an event."""
        return {"key": self.key, "size": list(self.size), "chunks": self.chunks, "bytes": self.bytes}


@dataclass(frozen=True)
class Summary:
    """What a conversion did: its dataset, `info` and voxel size, and how much it wrote in how many seconds.

    `unreadable` says which planes were left out and why, `warnings` what a person should look at. `source_bytes` are
    those of the voxels that this run read, `peak_memory` those that all processes of this machine held at most, without
    the workers of the `cluster` at that address. `chunks`, `bytes` and `seconds` are 0 when all that was left to do was
    to finish an interrupted conversion; `levels` say what is there in any case.
    """

    destination: Path
    info: VolumeInfo
    voxel_size: VoxelSize
    chunks: int = 0
    bytes: int = 0
    seconds: float = 0.0
    unreadable: tuple[str, ...] = ()
    levels: tuple[LevelFigures, ...] = ()
    source_bytes: int = 0
    peak_memory: int = 0
    cluster: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def rate(self) -> float:
        """Bytes of source voxels a second."""
        return self.source_bytes / self.seconds if self.seconds > 0 else 0.0
