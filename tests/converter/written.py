"""Datasets written from arrays by a format's writer, and the readings of them by programs that are not ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
from cloudvolume import CloudVolume
from numpy.typing import NDArray

from converter.writers import Channel, Output, Voxels, Writer, read_chunk, write_chunk, writer
from converter.writers.sharded import ShardedWriter
from precomputed_server.format.geometry import Box, Vector
from precomputed_server.format.grid import cell_box, cells
from precomputed_server.format.info import ScaleInfo, VolumeInfo

Array = NDArray[Any]

CHUNKS_PER_SHARD = 4
"""So that small volumes have several shards."""


def writer_and_scale(
    voxels: Array, output: Output, chunk_size: Vector = (8, 8, 4), offset: Vector = (0, 0, 0)
) -> tuple[Writer, ScaleInfo]:
    """The writer of voxels "(C, Z, Y, X)" and their only level, whose voxels are 4 × 5 × 40 nm."""
    made = writer(output, Voxels(voxels.dtype, len(voxels), chunk_size))
    if isinstance(made, ShardedWriter):
        made = replace(made, shard_bytes=CHUNKS_PER_SHARD * made.chunk_bytes)
    _, z, y, x = voxels.shape
    return made, made.described(ScaleInfo("4_5_40", (x, y, z), (4, 5, 40), (chunk_size,), offset), 0)


def write(
    directory: Path, voxels: Array, output: Output, chunk_size: Vector = (8, 8, 4), offset: Vector = (0, 0, 0)
) -> tuple[Writer, VolumeInfo]:
    """Write voxels "(C, Z, Y, X)" as a dataset of one level."""
    made, scale = writer_and_scale(voxels, output, chunk_size, offset)
    labels = output.encoding == "compressed_segmentation"
    info = VolumeInfo(voxels.dtype.name, len(voxels), (scale,), "segmentation" if labels else "image")
    level = directory / scale.key
    level.mkdir(parents=True)
    for name, content in made.scale_files(info, scale).items():
        (level / name).write_bytes(content)
    for cell in cells(scale):
        box = cell_box(scale, cell)
        write_chunk(made, level, scale, box, voxels[within(box, offset)])
    for number in made.packs(scale):
        made.pack(level, scale, number)
    (directory / "info").write_bytes(info.to_bytes())
    names = [Channel(f"dye {number}") for number in range(len(voxels))]
    for name, text in made.dataset_files(info, "brain", names).items():
        (directory / name).write_text(text)
    return made, info


def stored(made: Writer, dataset: Path, info: VolumeInfo) -> Array:
    """The voxels "(C, Z, Y, X)" as the writer itself finds and decodes them."""
    (scale,) = info.scales
    x, y, z = scale.size
    voxels = np.empty((info.num_channels, z, y, x), info.dtype)
    for cell in cells(scale):
        box = cell_box(scale, cell)
        chunk = read_chunk(made, dataset / scale.key, scale, box, info.num_channels, info.dtype)
        voxels[within(box, scale.voxel_offset)] = chunk
    return voxels


def within(box: Box, offset: Vector) -> tuple[slice, slice, slice, slice]:
    """Where `box` lies in an array "(C, Z, Y, X)" that begins at `offset`."""
    x, y, z = (slice(low - o, high - o) for low, high, o in zip(box.start, box.stop, offset, strict=True))
    return slice(None), z, y, x


def tensorstore_reads(dataset: Path | str, level: int = 0) -> Array:
    """A level "(C, Z, Y, X)" as tensorstore's driver for precomputed volumes sees it; absent chunks are zeros."""
    store = dataset if isinstance(dataset, str) else f"file://{dataset}/"
    spec = {"driver": "neuroglancer_precomputed", "kvstore": store, "scale_index": level}
    return np.asarray(tensorstore.open(spec, open=True, read=True).result().read().result()).transpose(3, 2, 1, 0)


def tensorstore_reads_zarr(array: Path) -> Array:
    """An array as tensorstore's driver for zarr version 2 sees it."""
    spec = {"driver": "zarr", "kvstore": f"file://{array}/"}
    return np.asarray(tensorstore.open(spec, open=True, read=True).result().read().result())


def cloud_volume_reads(dataset: Path | str, level: int = 0) -> Array:
    """A level "(C, Z, Y, X)" as cloud-volume sees it; an absent chunk is an error."""
    place = dataset if isinstance(dataset, str) else f"file://{dataset}"
    volume = CloudVolume(f"precomputed://{place}", mip=level, progress=False, fill_missing=False)
    return np.asarray(volume[volume.bounds]).transpose(3, 2, 1, 0)
