"""Reading boxes of a dataset from the planes of a stack, through a view, in bounded memory."""

from __future__ import annotations

import os
import pickle
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings

from converter.stacks.source import read_stack
from converter.stacks.source_options import source_options
from converter.stacks.stack_source import StackSource
from converter.stacks.view import View
from converter.stacks.window import Window, windowed
from precomputed_server.errors import SourceError
from precomputed_server.format.geometry import Box, Vector
from tests.converter.stacks import Array, volume, write_planes
from tests.converter.test_view import cut, seen, views

STORAGE: dict[str, dict[str, Any]] = {
    "as it is": {},
    "strips": {"compression": "zlib", "rowsperstrip": 2},
    "one strip": {"compression": "zstd", "rowsperstrip": 1 << 20},
    "tiles": {"tile": (16, 16), "compression": "lzw", "byteorder": ">"},
}


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("samples", ["pages", "contig", "separate"])
@given(case=views())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_box_of_any_view(
    tmp_path_factory: pytest.TempPathFactory, storage: str, samples: str, case: tuple[Vector, View, Box]
) -> None:
    size, view, box = case
    voxels = np.stack([volume(*size, seed=channel) for channel in range(1 if samples == "pages" else 2)])
    planes = tmp_path_factory.mktemp("planes")
    how = {"planarconfig": samples, **STORAGE[storage]} if samples != "pages" else STORAGE[storage]
    for z in range(size[2]):
        page = voxels[:, z].transpose(1, 2, 0) if samples == "contig" else voxels[:, z]
        page = page[0] if samples == "pages" else page
        tifffile.imwrite(planes / f"{z}.tif", page, photometric="minisblack", metadata=None, **how)
    source = StackSource(read_stack(str(planes)), view, np.dtype("uint16"))
    assert source.bounds == view.bounds(size)
    expected = cut(seen(voxels, view), box)
    made = source.read(box)
    np.testing.assert_array_equal(made, expected)
    assert made.flags.c_contiguous
    part: StackSource = pickle.loads(pickle.dumps(source.part(box)))
    np.testing.assert_array_equal(part.read(box), expected)
    assert len(part.stack.planes) == view.stack_box(box, size).size[2]
    assert part.bounds == source.bounds
    assert part.decoded_bytes(box) >= made.nbytes


@pytest.mark.parametrize("box", [Box((0, 0, 0), (512, 600, 3)), Box((300, 20, 1), (340, 500, 3))])
@pytest.mark.parametrize("dtype", ["uint16", "uint8", "float32"])
@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("samples", ["one", "contig", "separate"])
def test_reading_holds_no_more_than_it_says(tmp_path: Path, storage: str, samples: str, dtype: str, box: Box) -> None:
    voxels = volume(512, 600, 3, "uint8" if dtype == "uint8" else "uint16").astype("uint16")
    how = dict(STORAGE[storage])
    for z, plane in enumerate(voxels):
        page = {"one": plane, "contig": np.stack([plane] * 3, -1), "separate": np.stack([plane] * 3)}[samples]
        planar: dict[str, Any] = {} if samples == "one" else {"planarconfig": samples, "photometric": "rgb"}
        tifffile.imwrite(tmp_path / f"{z}.tif", page.astype(">u2"), metadata=None, **planar, **how)
    stack = read_stack(str(tmp_path))
    window = Window(0, 255) if dtype == "uint8" else None
    source = StackSource(stack, View(), np.dtype(dtype), window)
    source.read(box)  # what is loaded or kept once does not count
    tracemalloc.start()
    try:
        made = source.read(box)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    slack = 400_000  # tifffile's pages and tags
    assert peak - made.nbytes <= source.read_bytes(box) + slack
    np.testing.assert_array_equal(made[0], cut(voxels[np.newaxis], box)[0])


@pytest.mark.parametrize(("storage", "grain", "whole"), [
    ("as it is", (1, 1, 1), False), ("strips", (45, 2, 1), False),
    ("one strip", (45, 37, 1), True), ("tiles", (16, 16, 1), False),
])  # fmt: skip
def test_it_says_what_is_decoded_together(tmp_path: Path, storage: str, grain: Vector, whole: bool) -> None:
    stack = read_stack(str(write_planes(tmp_path, volume(45, 37, 3), **STORAGE[storage])))
    source = StackSource(stack, View(), np.dtype("uint16"))
    assert (source.grain, source.whole_planes) == (grain, whole)
    assert StackSource(stack, View(order=(2, 0, 1)), np.dtype("uint16")).grain == (1, grain[0], grain[1])
    rows = -(-1 // grain[1]) * grain[1]
    columns = -(-1 // grain[0]) * grain[0]
    assert source.decoded_bytes(Box((0, 0, 0), (1, 1, 3))) == 3 * 2 * rows * columns
    assert source.decoded_bytes(source.bounds) == 3 * 2 * 37 * 45


def test_pages_of_several_samples_follow_each_other(tmp_path: Path) -> None:
    voxels = np.stack([volume(20, 10, 3, seed=channel) for channel in range(4)])
    for z in range(3):
        for page in range(2):
            pixels = voxels[2 * page : 2 * page + 2, z]
            path = tmp_path / f"c{page}_z{z}.tif"
            tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="separate", metadata=None)
    stack = read_stack(str(tmp_path), source_options(pattern="c{c}_z{z}.tif"))
    source = StackSource(stack, View(), np.dtype("uint16"))
    np.testing.assert_array_equal(source.read(source.bounds), voxels)
    one = Box((3, 2, 2), (9, 7, 3))
    of_a_part = source.part(Box((0, 0, 1), (20, 10, 3))).part(one)
    np.testing.assert_array_equal(of_a_part.read(one), cut(voxels, one))


def test_a_window_is_applied_to_what_is_read(tmp_path: Path) -> None:
    voxels = volume(45, 37, 3, "float32")
    window = Window(-500, 1200)
    stack = read_stack(str(write_planes(tmp_path, voxels, byteorder=">")))
    source = StackSource(stack, View(), np.dtype("uint8"), window)
    expected: Array = windowed(voxels, window, np.dtype("uint8"))
    np.testing.assert_array_equal(source.read(source.bounds)[0], expected)
    assert len(np.unique(expected)) > 200


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("change", ["touched", "replaced", "longer"])
def test_a_file_that_changes_during_the_run_is_named(tmp_path: Path, storage: str, change: str) -> None:
    voxels = volume(45, 37, 3)
    stack = read_stack(str(write_planes(tmp_path, voxels, **STORAGE[storage])))
    odd = tmp_path / "img_1.tif"
    if change == "touched":
        os.utime(odd)
    elif change == "replaced":
        tifffile.imwrite(odd, voxels[0], metadata=None, **STORAGE[storage])
    else:
        odd.write_bytes(odd.read_bytes() + b"0")
    source = StackSource(stack, View(), np.dtype("uint16"))
    with pytest.raises(SourceError, match=r"img_1\.tif has changed since its header was read"):
        source.read(source.bounds)
    source.read(Box((0, 0, 2), (45, 37, 3)))
