"""Stacks made in code, and an independent way to read what a conversion wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from converter import ConvertOptions
from converter.stacks.voxel_size import parse_edges

Array = NDArray[Any]

SHARED_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
ONE_MICROMETRE = parse_edges("1,1,1")


def volume(x: int, y: int, z: int, dtype: str = "uint16", seed: int = 0) -> Array:
    """Random voxels "(Z, Y, X)" of the whole range of an integer type, or normal ones of a float type."""
    generator = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return generator.normal(0, 1000, (z, y, x)).astype(dtype)
    limits = np.iinfo(dtype)
    return generator.integers(limits.min, limits.max, (z, y, x), dtype=dtype, endpoint=True)


def write_planes(directory: Path, voxels: Array, **options: Any) -> Path:
    """Write voxels "(Z, Y, X)" as `img_0.tif` …, without leading zeros."""
    directory.mkdir(parents=True, exist_ok=True)
    for z, plane in enumerate(voxels):
        tifffile.imwrite(directory / f"img_{z}.tif", plane, metadata=None, **options)
    return directory


def options(**changes: Any) -> ConvertOptions:
    """Options with a voxel size of 1 µm in one process, unless said otherwise."""
    return ConvertOptions(**{"voxel_size": ONE_MICROMETRE, "jobs": 1, **changes})


def read_info(dataset: Path) -> Any:  # noqa: ANN401
    """The parsed `info`."""
    return json.loads((dataset / "info").read_text())


def read_record(dataset: Path, name: str) -> Any:  # noqa: ANN401
    """A parsed file of `.precomputed`."""
    return json.loads((dataset / ".precomputed" / name).read_text())


def read_statistics(dataset: Path) -> Any:  # noqa: ANN401
    """The parsed `statistics.json`."""
    return json.loads((dataset / "statistics.json").read_text())


def chunk_names(scale: Any) -> list[str]:  # noqa: ANN401
    """Every chunk name that a scale of `info` promises, by plain loops."""
    ranges = [
        [(low, min(low + chunk, length)) for low in range(0, length, chunk)]
        for length, chunk in zip(scale["size"], scale["chunk_sizes"][0], strict=True)
    ]
    return [f"{x0}-{x1}_{y0}-{y1}_{z0}-{z1}" for x0, x1 in ranges[0] for y0, y1 in ranges[1] for z0, z1 in ranges[2]]


def read_level(dataset: Path, level: int) -> Array:
    """A whole level "(C, Z, Y, X)", with tifffile or as raw bytes; fails when a promised chunk is absent."""
    info = read_info(dataset)
    scale, channels = info["scales"][level], info["num_channels"]
    x, y, z = scale["size"]
    dtype = np.dtype(info["data_type"])
    result = np.zeros((channels, z, y, x), dtype)
    for name in chunk_names(scale):
        (x0, x1), (y0, y1), (z0, z1) = ([int(end) for end in part.split("-")] for part in name.split("_"))
        raw = dataset / scale["key"] / name
        if raw.exists():
            stored = np.frombuffer(raw.read_bytes(), dtype.newbyteorder("<"))
        else:
            stored = tifffile.imread(f"{raw}.tiff")
            assert stored.dtype == dtype
            assert stored.size == channels * (z1 - z0) * (y1 - y0) * (x1 - x0)
        result[:, z0:z1, y0:y1, x0:x1] = stored.reshape(channels, z1 - z0, y1 - y0, x1 - x0)
    return result


def files_of(dataset: Path) -> dict[str, bytes]:
    """Every file that clients see, by relative path, without those that say when and by what they were made."""
    kept = (path for path in sorted(dataset.rglob("*")) if path.is_file() and ".precomputed" not in path.parts)
    paths = [path for path in kept if path.name not in ("provenance", "provenance.json")]
    return {str(path.relative_to(dataset)): path.read_bytes() for path in paths}
