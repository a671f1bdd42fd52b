"""What the benchmark of serving asks for: the same bytes in the forms that either server sends fastest."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from precomputed_server.format.grid import cell_box, cells
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.format.names import chunk_name
from precomputed_server.format.tiff import DEFLATE, chunk_header

ACCEPTED = "gzip, deflate"
"""What a browser accepts on plain HTTP."""

RANGE_BYTES = 65_536
SHARD_RANGES = 1024
SHARDS = 2

SCRIPT = """
local paths = {}
for path in io.lines("PATHS") do paths[#paths + 1] = path end
math.randomseed(os.time())
request = function() return wrk.format("GET", paths[math.random(#paths)]) end
"""
RANGES_SCRIPT = """
local paths = {}
for path in io.lines("PATHS") do paths[#paths + 1] = path end
math.randomseed(os.time())
request = function()
    local first = math.random(0, COUNT - 1) * LENGTH
    local headers = { ["Accept-Encoding"] = "identity", Range = "bytes=" .. first .. "-" .. (first + LENGTH - 1) }
    return wrk.format("GET", paths[math.random(#paths)], headers)
end
"""


@dataclass(frozen=True)
class Workload:
    """URL paths that `ours` and `nginx`, two directories, answer with the same bytes; `script` is for wrk."""

    ours: Path
    nginx: Path
    paths: list[str]
    headers: dict[str, str] = field(default_factory=dict)
    script: str = SCRIPT


def plain(directory: Path, edge: int, dtype: str, per_axis: int) -> Workload:
    """Chunks of `edge`³ voxels as they are: one directory for both."""
    scale, info = _volume(edge, dtype, per_axis)
    folder = _folder(directory, scale, info)
    for name, voxels in _chunks(scale, dtype):
        (folder / name).write_bytes(voxels.tobytes())
    return Workload(directory, directory, _paths(scale), {"Accept-Encoding": "identity"})


def deflate(directory: Path, edge: int, per_axis: int) -> Workload:
    """TIFF chunks of one deflate stream each, of 200 to 330 KiB, and gzip files of the same streams for nginx."""
    scale, info = _volume(edge, "uint16", per_axis)
    ours, nginx = _folder(directory / "ours", scale, info), _folder(directory / "nginx", scale, info)
    for name, voxels in _chunks(scale, "uint16"):
        body = voxels.tobytes()
        stream = zlib.compress(body, 1)
        header = chunk_header(voxels.shape, voxels.dtype, len(stream), DEFLATE)
        (ours / f"{name}.tiff").write_bytes(header + stream)
        (nginx / f"{name}.gz").write_bytes(as_gzip(stream, body))
    return Workload(directory / "ours", directory / "nginx", _paths(scale), {"Accept-Encoding": ACCEPTED})


def legacy(directory: Path, edge: int, per_axis: int) -> Workload:
    """TIFF chunks of a deflated page for each plane, as NeuroTrALE has them, and their plain bytes for nginx."""
    scale, info = _volume(edge, "uint16", per_axis)
    ours, nginx = _folder(directory / "ours", scale, info), _folder(directory / "nginx", scale, info)
    for name, voxels in _chunks(scale, "uint16"):
        file = io.BytesIO()
        tifffile.imwrite(file, voxels, compression="zlib", photometric="minisblack")
        (ours / f"{name}.tiff").write_bytes(file.getvalue())
        (nginx / name).write_bytes(voxels.tobytes())
    return Workload(directory / "ours", directory / "nginx", _paths(scale), {"Accept-Encoding": ACCEPTED})


def shards(directory: Path) -> Workload:
    """Shard files that are read in ranges of RANGE_BYTES, as Neuroglancer reads chunks."""
    directory.mkdir()
    generator = np.random.default_rng(0)
    for number in range(SHARDS):
        (directory / f"{number}.shard").write_bytes(generator.bytes(RANGE_BYTES * SHARD_RANGES))
    script = RANGES_SCRIPT.replace("COUNT", str(SHARD_RANGES)).replace("LENGTH", str(RANGE_BYTES))
    paths = [f"/{number}.shard" for number in range(SHARDS)]
    return Workload(directory, directory, paths, {}, script)


def as_gzip(stream: bytes, body: bytes) -> bytes:
    """Put the deflate data of a zlib stream into a gzip file (RFC 1950, RFC 1952)."""
    header = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return header + stream[2:-4] + struct.pack("<II", zlib.crc32(body), len(body))


def _volume(edge: int, dtype: str, per_axis: int) -> tuple[ScaleInfo, VolumeInfo]:
    size = (edge * per_axis,) * 3
    scale = ScaleInfo("1_1_1", size, (1800.0, 1800.0, 2000.0), ((edge,) * 3,))
    return scale, VolumeInfo(dtype, 1, (scale,))


def _folder(directory: Path, scale: ScaleInfo, info: VolumeInfo) -> Path:
    (directory / scale.key).mkdir(parents=True)
    (directory / "info").write_bytes(info.to_bytes())
    return directory / scale.key


def _chunks(scale: ScaleInfo, dtype: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """Name and voxels "(Z, Y, X)" of each chunk: noise about a background, as a camera gives."""
    generator = np.random.default_rng(0)
    mean, deviation = (400, 20) if dtype == "uint16" else (100, 10)
    for cell in cells(scale):
        box = cell_box(scale, cell)
        yield chunk_name(box), generator.normal(mean, deviation, box.size[::-1]).astype(f"<{np.dtype(dtype).str[1:]}")


def _paths(scale: ScaleInfo) -> list[str]:
    return [f"/{scale.key}/{chunk_name(cell_box(scale, cell))}" for cell in cells(scale)]
