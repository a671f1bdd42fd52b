"""Every voxel of every level, converted and fetched chunk by chunk, equals numpy's own computation."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from converter import ConvertOptions, convert
from converter.stacks.voxel_size import parse_edges
from precomputed_server.format.geometry import Vector
from tests.conftest import RunningServer
from tests.data import volume, write_plane
from tests.end_to_end.conftest import Served
from tests.end_to_end.pyramid import fetch_level, pyramid
from tests.end_to_end.wire import Connection

pytestmark = pytest.mark.component

WAYS = [("", ""), ("", "deflate"), (".tiff", ""), (".tiff", "deflate")]
"""What is put behind a chunk's name, and the encoding that is accepted."""


@dataclass(frozen=True)
class Case:
    """A stack "(C, Z, Y, X)", how it is converted, and the levels that must come of it."""

    shape: tuple[int, int, int, int]
    dtype: str
    format: str
    chunk_size: Vector
    voxel_size_um: str
    keys: tuple[str, ...]
    labels: int = 0


CASES = {
    "deflate_odd_extents": Case((1, 21, 131, 70), "uint16", "tiff", (64, 64, 64), "1,1,2", ("1_1_1", "2_2_1", "4_4_2")),
    "raw_three_channels": Case((3, 17, 75, 70), "uint8", "raw", (32, 32, 16), "1,1,1", ("1_1_1", "2_2_2", "4_4_4")),
    "deflate_two_channels_odd_chunks": Case(
        (2, 33, 50, 66), "int16", "tiff", (33, 31, 7), "0.5,0.5,1.2", ("1_1_1", "2_2_1", "4_4_2", "8_8_4", "16_16_8")
    ),
    "deflate_float_with_holes": Case((1, 10, 65, 66), "float32", "tiff", (64, 64, 64), "1,1,1", ("1_1_1", "2_2_2")),
    "raw_labels": Case((1, 12, 40, 41), "uint64", "raw", (16, 16, 16), "1,1,1", ("1_1_1", "2_2_2", "4_4_4"), labels=4),
    "deflate_labels": Case((1, 9, 33, 35), "uint32", "tiff", (16, 16, 16), "1,1,1", ("1_1_1", "2_2_2", "4_4_4"), 3),
}


@pytest.mark.parametrize("name", CASES)
def test_a_stack_made_in_code(name: str, tmp_path: Path, served: Served) -> None:
    case = CASES[name]
    voxels = voxels_of(case)
    stack = tmp_path / "stack"
    stack.mkdir()
    for z in range(case.shape[1]):
        write_plane(stack / f"plane_{z}.tif", voxels[:, z])
    options = ConvertOptions(
        voxel_size=parse_edges(case.voxel_size_um),
        chunk_size=case.chunk_size,
        format=case.format,
        segmentation=case.labels > 0,
    )
    convert(str(stack), served.root / "lab" / name, options)
    info = check_every_voxel(served.server, f"/lab/{name}", pyramid(voxels, case.keys, labels=case.labels > 0))
    assert info["type"] == ("segmentation" if case.labels else "image")
    edges_nm = [1000 * float(edge) for edge in case.voxel_size_um.split(",")]
    assert_resolutions(info, edges_nm)


def test_the_banana_by_the_command_line(shared_data: Path, served: Served) -> None:
    source = shared_data / "banana"
    run_convert(source, served.root / "banana", "--voxel-size", ",,8800")
    levels = pyramid(banana(source), ["1_1_1", "2_2_1", "4_4_1", "8_8_1"])
    info = check_every_voxel(served.server, "/banana", levels)
    assert_resolutions(info, [390_625, 390_625, 8_800_000])


def test_a_real_segmentation(shared_data: Path, served: Served) -> None:
    source = shared_data / "platynereis_labels_zyx_int32.tif"
    run_convert(source, served.root / "labels", "--segmentation", "--voxel-size", "1,1,1")
    voxels = tifffile.imread(source)[np.newaxis]
    levels = pyramid(voxels, ["1_1_1", "2_2_2", "4_4_4"], labels=True)
    check_every_voxel(served.server, "/labels", levels, ways=[("", "deflate")])


def test_the_banana_as_the_predecessor_wrote_it(shared_data: Path, served: Served) -> None:
    shutil.copytree(shared_data / "legacy" / "banana_tiff", served.root / "legacy")
    with Connection(served.server) as connection:
        info = connection.get("/legacy/info").json()
        for suffix, encoding in WAYS:
            level = fetch_level(connection, "/legacy", info, "1_1_1", suffix=suffix, encoding=encoding)
            np.testing.assert_array_equal(level, banana(shared_data / "banana"))


def voxels_of(case: Case) -> NDArray[Any]:
    """Random voxels; a few labels, so that neighbours vote, or holes where there is a number for none of them."""
    voxels = volume(case.shape, case.dtype, seed=len(case.keys))
    if case.labels:
        choice = volume((case.labels,), case.dtype, seed=9)
        voxels = choice[np.random.default_rng(1).integers(0, case.labels, case.shape)]
    if voxels.dtype.kind == "f":
        voxels[np.random.default_rng(2).random(case.shape) < 0.4] = np.nan
        voxels[:, 2:5, 10:20, 30:40] = np.nan
    return voxels


def run_convert(source: Path, destination: Path, *options: str) -> None:
    """Run the command as a user does."""
    command = [str(Path(sys.executable).with_name("precomputed")), "convert", str(source), str(destination), *options]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def banana(directory: Path) -> NDArray[Any]:
    """The planes "(1, Z, Y, X)"; their numbers have leading zeros."""
    return np.stack([tifffile.imread(path) for path in sorted(directory.glob("*.tif"))])[np.newaxis]


def check_every_voxel(
    server: RunningServer,
    dataset: str,
    levels: dict[str, NDArray[Any]],
    ways: list[tuple[str, str]] = WAYS,
) -> dict[str, Any]:
    """Compare each served level with `levels` and return `info`."""
    with Connection(server) as connection:
        info: dict[str, Any] = connection.get(f"{dataset}/info").json()
        assert [scale["key"] for scale in info["scales"]] == list(levels)
        for key, expected in levels.items():
            for suffix, encoding in ways:
                level = fetch_level(connection, dataset, info, key, suffix=suffix, encoding=encoding)
                assert level.dtype == expected.dtype
                np.testing.assert_array_equal(level, expected, f"level {key}{suffix} {encoding}")
    return info


def assert_resolutions(info: dict[str, Any], edges_nm: list[float]) -> None:
    """The voxels of each level are the finest ones' edges times the factors in its key, exactly."""
    for scale in info["scales"]:
        factors = map(int, scale["key"].split("_"))
        assert scale["resolution"] == [edge * factor for edge, factor in zip(edges_nm, factors, strict=True)]
