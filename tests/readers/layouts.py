"""One phantom volume in every layout that is read, each written by a program that is not ours where there is one."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
import tensorstore
import tifffile
from cloudvolume import CloudVolume
from numpy.typing import NDArray

from converter.writers import Output
from precomputed_server.format.geometry import Box, Vector
from precomputed_server.format.grid import cell_box, cells, grid_shape
from precomputed_server.format.info import DATA_TYPES, ScaleInfo, VolumeInfo
from precomputed_server.format.names import chunk_name
from precomputed_server.format.sharding import Sharding
from tests.converter.written import write as convert
from tests.data import Storage, volume, write_dataset

Array = NDArray[Any]
ByteOrder = Literal["<", ">"]

KEY = "1_1_1"
CHUNK: Vector = (16, 16, 8)
OFFSET: Vector = (32, 16, 8)
SIZE: Vector = (43, 37, 11)
ABSENT: Vector = (1, 0, 0)
"""The cell that no layout stores."""

RESOLUTION_NM = (4.0, 4.0, 40.0)


@dataclass(frozen=True)
class Phantom:
    """Voxels "(C, Z, Y, X)" that begin at OFFSET; those of the cell ABSENT have the value `fill`."""

    voxels: Array
    encoding: str = "raw"
    fill: int = 0

    @property
    def info(self) -> VolumeInfo:
        """The volume, of one scale."""
        other = {"compressed_segmentation_block_size": [8, 8, 8]} if self.encoding != "raw" else {}
        scale = ScaleInfo(KEY, SIZE, RESOLUTION_NM, (CHUNK,), OFFSET, self.encoding, other)
        labels = self.encoding == "compressed_segmentation"
        kind = "segmentation" if labels else "image"
        return VolumeInfo(self.voxels.dtype.name, len(self.voxels), (scale,), kind)

    def part(self, box: Box) -> Array:
        """The voxels of `box`, those outside the volume `fill`."""
        x, y, z = box.size
        part = np.full((len(self.voxels), z, y, x), self.fill, self.info.dtype)
        inside = box.clipped(self.info.scales[0].bounds)
        part[inside.within(box)] = self.voxels[inside.within(self.info.scales[0].bounds)]
        return part


def phantom(data_type: str = "uint16", channels: int = 1, *, encoding: str = "raw", fill: int = 0) -> Phantom:
    """Random voxels, or a few labels where these are to be encoded."""
    x, y, z = SIZE
    voxels = volume((channels, z, y, x), data_type)
    if encoding == "compressed_segmentation":
        voxels = volume((5,), data_type, seed=3)[np.random.default_rng(4).integers(0, 5, voxels.shape)]
    made = Phantom(voxels, encoding, fill)
    scale = made.info.scales[0]
    voxels[cell_box(scale, ABSENT).within(scale.bounds)] = fill
    return made


@dataclass(frozen=True)
class Layout:
    """How a phantom is written into a directory, and what it may be."""

    write: Callable[[Path, Phantom], None]
    data_types: tuple[str, ...] = DATA_TYPES
    channels: int = 3
    encoding: str = "raw"
    fill: int = 0

    def phantom(self, data_type: str = "", channels: int = 1) -> Phantom:
        """A phantom that it holds; of `data_type`, else of uint16 if it may be."""
        kind = data_type or ("uint16" if "uint16" in self.data_types else self.data_types[-1])
        return phantom(kind, channels, encoding=self.encoding, fill=self.fill)


def _plain(directory: Path, made: Phantom, storage: Storage) -> None:
    write_dataset(directory, made.voxels, chunk_size=CHUNK, voxel_offset=OFFSET, storage=storage)
    (directory / "info").write_bytes(made.info.to_bytes())
    for path in (directory / KEY).glob(f"{chunk_name(cell_box(made.info.scales[0], ABSENT))}*"):
        path.unlink()


def _cloud_volume(directory: Path, made: Phantom, compress: str) -> None:
    directory.mkdir(parents=True)
    (directory / "info").write_bytes(made.info.to_bytes())
    options = {"compress": compress, "progress": False, "delete_black_uploads": True, "non_aligned_writes": True}
    CloudVolume(f"file://{directory}", **options)[:, :, :] = made.voxels.transpose(3, 2, 1, 0)


def _pages(directory: Path, made: Phantom, byteorder: ByteOrder, **options: Any) -> None:
    scale = made.info.scales[0]
    (directory / KEY).mkdir(parents=True)
    (directory / "info").write_bytes(made.info.to_bytes())
    for cell in set(cells(scale)) - {ABSENT}:
        box = cell_box(scale, cell)
        with tifffile.TiffWriter(directory / KEY / f"{chunk_name(box)}.tiff", byteorder=byteorder) as writer:
            for plane in made.part(box).reshape(-1, box.size[1], box.size[0]):
                writer.write(plane, contiguous=False, metadata=None, photometric="minisblack", **options)


def _block_fs(
    directory: Path, made: Phantom, block: Vector = CHUNK, files: int = 2, *, filled_up: bool = False
) -> None:
    """With file names of another machine; blocks at the volume's end end with it, unless they are `filled_up`."""
    scale = made.info.scales[0]
    level = directory / KEY
    level.mkdir(parents=True)
    (directory / "info").write_bytes(made.info.to_bytes())
    contents = [bytearray(b"\0" * 5) for _ in range(files)]
    grid = grid_shape(scale, block)
    table = bytearray()
    for number, cell in enumerate(cells(scale, block)):
        low = tuple(offset + place * step for offset, place, step in zip(OFFSET, cell, block, strict=True))
        whole = Box((low[0], low[1], low[2]), (low[0] + block[0], low[1] + block[1], low[2] + block[2]))
        content = contents[number % files]
        frame = (
            b""
            if cell == ABSENT and block == CHUNK
            else _blosc(made.part(whole if filled_up else whole.clipped(scale.bounds)))
        )
        table += (len(content) | len(frame) << 33).to_bytes(8, "little")[:7]
        content += frame
    sizes = zip("XYZ", block, SIZE, (1, grid[0], grid[0] * grid[1]), strict=True)
    members: dict[str, Any] = {"DType": made.voxels.dtype.name, "NOffsetBits": 33, "NSizeBits": 22}
    for axis, edge, extent, stride in sizes:
        members |= {f"{axis}BlockSize": edge, f"{axis}Extent": extent, f"{axis}Stride": stride}
    members["BlockFilenames"] = [f"/gone/precomputed.blockfs.{number}" for number in range(files)]
    text = json.dumps(members).encode()
    head = b"BlockFS\0" + struct.pack("<II", len(text), 16 + len(text)) + text
    (level / "precomputed.blockfs").write_bytes(head + table)
    for number, content in enumerate(contents):
        (level / f"precomputed.blockfs.{number}").write_bytes(content)


def _blosc(voxels: Array) -> bytes:
    typesize = voxels.dtype.itemsize
    return bytes(imagecodecs.blosc_encode(voxels.tobytes(), compressor="zstd", shuffle=2, typesize=typesize))


def _zarr(directory: Path, made: Phantom, *, axes: str = "", byteorder: ByteOrder = "<", **members: Any) -> None:
    """By tensorstore; `axes` are those before z, y, x, by default c where there are several channels."""
    (directory / KEY).mkdir(parents=True)
    before = axes or ("c" if len(made.voxels) > 1 else "")
    voxels = made.voxels.reshape(*([1] if before == "tc" else []), *([-1] if before else []), *made.voxels.shape[1:])
    x, y, z = CHUNK
    chunks = members.pop("chunks", (z, y, x))
    per_chunk = members.pop("channels", len(made.voxels))
    metadata = {
        "shape": voxels.shape,
        "chunks": [*([1] if before == "tc" else []), *([per_chunk] if before else []), *chunks],
        "dtype": voxels.dtype.newbyteorder(byteorder).str,
        "fill_value": made.fill,
        **members,
    }
    if metadata["dtype"].endswith("1"):
        metadata["dtype"] = "|" + metadata["dtype"][1:]
    spec = {"driver": "zarr", "kvstore": f"file://{directory / KEY}/", "metadata": metadata, "create": True}
    tensorstore.open(spec).result().write(voxels).result()
    (directory / "info").write_bytes(made.info.to_bytes())


def _zarr_lz4(directory: Path, made: Phantom) -> None:
    """tensorstore writes none: its chunks are compressed again."""
    _zarr(directory, made, compressor=None)
    described = directory / KEY / ".zarray"
    members = json.loads(described.read_text())
    described.write_text(json.dumps({**members, "compressor": {"id": "lz4", "acceleration": 1}}))
    for path in set((directory / KEY).iterdir()) - {described}:
        content = path.read_bytes()
        path.write_bytes(struct.pack("<I", len(content)) + imagecodecs.lz4_encode(content))


def _converted(directory: Path, made: Phantom, output: Output) -> None:
    """As our converter writes, under its own key."""
    _, info = convert(directory, made.voxels, output, CHUNK, OFFSET)
    (scale,) = info.scales
    (directory / scale.key).rename(directory / KEY)
    (directory / "info").write_bytes(replace(info, scales=(replace(scale, key=KEY),)).to_bytes())
    (directory / KEY).joinpath("0/0/1" if len(made.voxels) == 1 else "0/0/0/1").unlink()


def _sharded(directory: Path, made: Phantom, sharding: Sharding) -> None:
    (scale,) = made.info.scales
    labels = made.encoding == "compressed_segmentation"
    members = {
        "key": KEY,
        "size": SIZE,
        "voxel_offset": OFFSET,
        "resolution": RESOLUTION_NM,
        "chunk_size": CHUNK,
        "encoding": made.encoding,
        "sharding": sharding.to_json(),
        **({"compressed_segmentation_block_size": [8, 8, 8]} if labels else {}),
    }
    kind = {"data_type": made.voxels.dtype.name, "num_channels": len(made.voxels), "type": made.info.volume_type}
    spec = {
        "driver": "neuroglancer_precomputed",
        "kvstore": f"file://{directory}/",
        "multiscale_metadata": kind,
        "scale_metadata": members,
        "create": True,
    }
    tensorstore.open(spec).result().write(made.voxels.transpose(3, 2, 1, 0)).result()


_GZIPPED = Sharding(1, 1, 2, "murmurhash3_x86_128", "gzip", "gzip")
_ALL_IN_ONE = Sharding(0, 0, 0)
_BLOSC = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
_LABELS = ("uint32", "uint64")

LAYOUTS: Mapping[str, Layout] = {
    "plain": Layout(partial(_plain, storage="plain")),
    "gz": Layout(partial(_plain, storage="gz")),
    "br": Layout(partial(_plain, storage="br")),
    "zstd": Layout(partial(_plain, storage="zstd")),
    "tiff": Layout(partial(_plain, storage="tiff")),
    "cloud_volume_gz": Layout(partial(_cloud_volume, compress="gzip")),
    "cloud_volume_br": Layout(partial(_cloud_volume, compress="br")),
    "pages": Layout(partial(_pages, byteorder="<", compression="zlib")),
    "pages_plain": Layout(partial(_pages, byteorder="<", rowsperstrip=5)),
    "pages_strips_big_endian": Layout(partial(_pages, byteorder=">", compression="zlib", rowsperstrip=7)),
    "pages_differences": Layout(
        partial(_pages, byteorder="<", compression="zlib", predictor=2),
        data_types=("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64"),
    ),
    "pages_lzw_tiles": Layout(partial(_pages, byteorder="<", compression="lzw", tile=(16, 16))),
    "blockfs": Layout(_block_fs, channels=1),
    "blockfs_filled_up": Layout(partial(_block_fs, filled_up=True), channels=1),
    "blockfs_other_blocks": Layout(partial(_block_fs, block=(20, 8, 3), files=3), channels=1),
    "zarr": Layout(partial(_zarr, compressor=_BLOSC, dimension_separator="/")),
    "zarr_none": Layout(partial(_zarr, compressor=None, dimension_separator=".")),
    "zarr_zlib": Layout(partial(_zarr, compressor={"id": "zlib", "level": 1})),
    "zarr_gzip": Layout(partial(_zarr, compressor={"id": "gzip", "level": 1})),
    "zarr_zstd": Layout(partial(_zarr, compressor={"id": "zstd", "level": 1})),
    "zarr_bz2": Layout(partial(_zarr, compressor={"id": "bz2", "level": 1})),
    "zarr_lz4": Layout(_zarr_lz4),
    "zarr_big_endian": Layout(partial(_zarr, compressor=_BLOSC, byteorder=">")),
    "zarr_big_endian_zlib": Layout(partial(_zarr, compressor={"id": "zlib", "level": 1}, byteorder=">")),
    "zarr_fortran": Layout(partial(_zarr, compressor={"id": "zlib", "level": 1}, order="F")),
    "zarr_small_chunks": Layout(partial(_zarr, compressor=_BLOSC, chunks=(3, 7, 10))),
    "zarr_large_chunks": Layout(partial(_zarr, compressor=_BLOSC, chunks=(20, 64, 64))),
    "zarr_channel_by_channel": Layout(partial(_zarr, compressor=_BLOSC, channels=1)),
    "zarr_time": Layout(partial(_zarr, compressor=_BLOSC, axes="tc", dimension_separator="/")),
    "zarr_filled": Layout(partial(_zarr, compressor=_BLOSC), fill=7),
    "ome_zarr": Layout(partial(_converted, output=Output("zarr"))),
    "sharded": Layout(partial(_sharded, sharding=_ALL_IN_ONE)),
    "sharded_gzip": Layout(partial(_sharded, sharding=_GZIPPED)),
    "sharded_labels": Layout(
        partial(_sharded, sharding=_GZIPPED), data_types=_LABELS, encoding="compressed_segmentation"
    ),
}


def inflate(encoding: str, body: bytes) -> bytes:
    """What a client makes of a body of that Content-Encoding, without the project's code."""
    if encoding in ("gzip", "deflate"):
        return zlib.decompress(body, 47 if encoding == "gzip" else 15)
    decoders: dict[str, Callable[[bytes], Any]] = {"br": imagecodecs.brotli_decode, "zstd": imagecodecs.zstd_decode}
    return bytes(decoders[encoding](body)) if encoding in decoders else body
