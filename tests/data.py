"""Small TIFF stacks and datasets built in code, so that no test needs a file that lies elsewhere.

Arrays are "(C, Z, Y, X)" unless a name says otherwise. Voxels are random over the whole range of their type: a voxel
that ends up in the wrong place, or that was rounded or clipped on the way, does not go unnoticed.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import DTypeLike, NDArray

from precomputed_server.format import tiff
from precomputed_server.format.geometry import Box, Vector
from precomputed_server.format.grid import cell_box, cells
from precomputed_server.format.info import Resolution, ScaleInfo, VolumeInfo
from precomputed_server.format.names import chunk_name, scale_key

Storage = Literal["plain", "gz", "br", "zstd", "tiff"]
"""How a chunk lies on disk: its bytes, or a sibling `NAME.gz`, `NAME.br`, `NAME.zstd`, `NAME.tiff`."""

RESOLUTION_NM: Resolution = (1800.0, 1800.0, 2000.0)


def volume(shape: Sequence[int], dtype: DTypeLike = "uint16", seed: int = 0) -> NDArray[Any]:
    """Random voxels of any `shape`: all values of an integer type, a normal distribution for a float type."""
    generator = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return generator.normal(0, 1000, tuple(shape)).astype(kind)
    limits = np.iinfo(kind)
    return generator.integers(limits.min, limits.max, tuple(shape), dtype=kind, endpoint=True)


def phantom_stack(
    directory: Path,
    shape: tuple[int, int, int] = (20, 70, 65),
    dtype: DTypeLike = "uint16",
    channels: int = 1,
    seed: int = 0,
    **tiff_options: Any,
) -> NDArray[Any]:
    """Write one TIFF a plane, `plane_0.tif` to `plane_{Z-1}.tif`, and return the voxels "(C, Z, Y, X)".

    `shape` is (Z, Y, X). The numbers have no leading zeros: only a natural sort finds the order of eleven planes and
    more. A plane of several channels is one page of as many interleaved samples. `tiff_options` go to
    `tifffile.imwrite` (resolution, compression, metadata …).
    """
    voxels = volume((channels, *shape), dtype, seed)
    directory.mkdir(parents=True, exist_ok=True)
    for z in range(shape[0]):
        write_plane(directory / f"plane_{z}.tif", voxels[:, z], **tiff_options)
    return voxels


def write_plane(path: Path, plane: NDArray[Any], **tiff_options: Any) -> None:
    """Write one page from "(C, Y, X)": samples are interleaved when there is more than one channel."""
    options: dict[str, Any] = {"photometric": "minisblack", "metadata": None, **tiff_options}
    if len(plane) == 1:
        tifffile.imwrite(path, plane[0], **options)
    else:
        tifffile.imwrite(path, np.moveaxis(plane, 0, -1), planarconfig="contig", **options)


def write_dataset(
    directory: Path,
    voxels: NDArray[Any],
    *,
    chunk_size: Vector = (64, 64, 64),
    levels: int = 1,
    storage: Storage = "plain",
    **members: Any,
) -> VolumeInfo:
    """Write `voxels` "(C, Z, Y, X)" as a precomputed volume with raw encoding and return its info.

    Level n holds every 2ⁿ-th voxel of each axis (a pyramid whose every voxel can be computed with a slice: see
    `level_of`). `members` may give `resolution_nm`, `voxel_offset` (full resolution, divisible by 2ⁿ) and
    `volume_type`.
    """
    offset: Vector = members.get("voxel_offset", (0, 0, 0))
    resolution: Resolution = members.get("resolution_nm", RESOLUTION_NM)
    scales = []
    for level in range(levels):
        factor = 1 << level
        array = level_of(voxels, level)
        scale = ScaleInfo(
            key=scale_key((factor, factor, factor)),
            size=(array.shape[3], array.shape[2], array.shape[1]),
            resolution_nm=(resolution[0] * factor, resolution[1] * factor, resolution[2] * factor),
            chunk_sizes=(chunk_size,),
            voxel_offset=(offset[0] // factor, offset[1] // factor, offset[2] // factor),
        )
        _write_scale(directory, scale, array, storage)
        scales.append(scale)
    info = VolumeInfo(voxels.dtype.name, len(voxels), tuple(scales), members.get("volume_type", "image"))
    (directory / "info").write_bytes(info.to_bytes())
    return info


def level_of(voxels: NDArray[Any], level: int) -> NDArray[Any]:
    """What `write_dataset` stores at `level`: every 2ⁿ-th voxel, so that each extent is ceil(n/2) of the one below."""
    step = 1 << level
    return voxels[:, ::step, ::step, ::step]


def chunk_bytes(voxels: NDArray[Any], box: Box, voxel_offset: Vector = (0, 0, 0)) -> bytes:
    """What a client gets for the chunk `box` of a scale whose voxels "(C, Z, Y, X)" begin at `voxel_offset`."""
    return _cut_out(voxels, box, voxel_offset).tobytes()


def stored(part: NDArray[Any], storage: Storage) -> tuple[str, bytes]:
    """The suffix of the file's name and the file's bytes for a chunk "(C, Z, Y, X)"."""
    body = part.tobytes()
    if storage == "gz":
        return ".gz", gzip.compress(body, 1)
    if storage == "br":
        return ".br", bytes(imagecodecs.brotli_encode(body, level=1))
    if storage == "zstd":
        return ".zstd", bytes(imagecodecs.zstd_encode(body, level=1))
    if storage == "tiff":
        stream = zlib.compress(body, 1)
        channels, depth, length, width = part.shape
        header = tiff.chunk_header((channels * depth, length, width), part.dtype, len(stream), tiff.DEFLATE)
        return ".tiff", header + stream
    return "", body


def write_annotations(
    dataset: Path,
    leaves: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    block: str = "x0y0z0",
    block_size: Vector | None = None,
) -> Path:
    """Write each leaf's annotations under `dataset`/annotations/`block` and return that directory.

    With `block_size` (voxels x, y, z) `block_info.csv` is written too.
    """
    directory = dataset / "annotations" / block
    directory.mkdir(parents=True, exist_ok=True)
    for leaf, items in leaves.items():
        (directory / f"{leaf}.json").write_text(json.dumps(list(items)))
    if block_size is not None:
        sizes = ",".join(str(length) for length in block_size)
        (dataset / "annotations" / "block_info.csv").write_text(f"sizeX,sizeY,sizeZ\n{sizes}\n")
    return directory


def point(identifier: int, x: float, y: float, z: float, **members: Any) -> dict[str, Any]:
    """A point annotation as the NeuroTrALE client sends it, with `identifier` as 40 hex characters."""
    return {
        "point": [x, y, z],
        "type": "point",
        "id": f"{identifier:040x}",
        "anntype": "neuron",
        "reviewed": False,
        "visited": False,
        **members,
    }


def _write_scale(directory: Path, scale: ScaleInfo, voxels: NDArray[Any], storage: Storage) -> None:
    folder = directory / scale.key
    folder.mkdir(parents=True, exist_ok=True)
    for cell in cells(scale):
        box = cell_box(scale, cell)
        suffix, content = stored(_cut_out(voxels, box, scale.voxel_offset), storage)
        (folder / f"{chunk_name(box)}{suffix}").write_bytes(content)


def _cut_out(voxels: NDArray[Any], box: Box, voxel_offset: Vector) -> NDArray[Any]:
    x, y, z = (
        slice(low - start, high - start) for low, high, start in zip(box.start, box.stop, voxel_offset, strict=True)
    )
    little = voxels.dtype.newbyteorder("<")
    return np.ascontiguousarray(voxels[:, z, y, x], dtype=little)
