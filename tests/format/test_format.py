"""Names, grids, info and chunk TIFFs, against definitions written anew."""

from __future__ import annotations

import io
import itertools
import json
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from precomputed_server.errors import Unreadable
from precomputed_server.format.geometry import Box
from precomputed_server.format.grid import cell_box, cells, grid_shape, is_cell
from precomputed_server.format.info import DATA_TYPES, ScaleInfo, VolumeInfo, is_volume
from precomputed_server.format.names import chunk_name, parse_chunk_name
from precomputed_server.format.tiff import DEFLATE, HEADER_BYTES, chunk_header, parse_stream

lengths = st.integers(1, 200)
offsets = st.integers(-100, 100)
vectors = st.tuples(lengths, lengths, lengths)


def scale_of(size: tuple[int, int, int], chunk: tuple[int, int, int], offset: tuple[int, int, int]) -> ScaleInfo:
    """A scale of that grid."""
    return ScaleInfo("1_1_1", size, (1.0, 1.0, 1.0), (chunk,), offset)


@given(vectors, st.tuples(*[st.integers(20, 64)] * 3), st.tuples(offsets, offsets, offsets))
def test_the_cells_tile_the_volume(
    size: tuple[int, int, int], chunk: tuple[int, int, int], offset: tuple[int, int, int]
) -> None:
    scale = scale_of(size, chunk, offset)
    boxes = [cell_box(scale, cell) for cell in cells(scale)]
    for axis in range(3):
        sides = sorted({(box.start[axis], box.stop[axis]) for box in boxes})
        assert sides[0][0] == offset[axis]
        assert sides[-1][1] == offset[axis] + size[axis]
        assert all(first[1] == second[0] for first, second in itertools.pairwise(sides))
        assert all(stop - start == chunk[axis] for start, stop in sides[:-1])
    assert sum(box.voxels for box in boxes) == size[0] * size[1] * size[2]
    assert len(boxes) == int(np.prod(grid_shape(scale)))
    assert all(is_cell(scale, box) for box in boxes)


@given(vectors, st.tuples(*[st.integers(20, 64)] * 3), st.tuples(offsets, offsets, offsets), vectors)
def test_no_other_box_is_a_cell(
    size: tuple[int, int, int], chunk: tuple[int, int, int], start: tuple[int, int, int], extent: tuple[int, int, int]
) -> None:
    scale = scale_of(size, chunk, (0, 0, 0))
    box = Box(start, (start[0] + extent[0], start[1] + extent[1], start[2] + extent[2]))
    assert is_cell(scale, box) == (box in {cell_box(scale, cell) for cell in cells(scale)})


@given(st.tuples(offsets, offsets, offsets), vectors)
def test_chunk_names_are_read_back(start: tuple[int, int, int], extent: tuple[int, int, int]) -> None:
    box = Box(start, (start[0] + extent[0], start[1] + extent[1], start[2] + extent[2]))
    assert parse_chunk_name(chunk_name(box)) == box


@pytest.mark.parametrize(
    "name",
    ["", "0-64_0-64", "00-64_0-64_0-64", "0-064_0-64_0-64", "64-0_0-64_0-64", "0-0_0-64_0-64", "0-64_0-64_0-64\n",
     "+0-64_0-64_0-64", "0-64_0-64_0-64.tiff", "0 -64_0-64_0-64", "-0-64_0-64_0-64", "٠-64_0-64_0-64"],
)  # fmt: skip
def test_other_names_are_no_chunks(name: str) -> None:
    assert parse_chunk_name(name) is None


def info_members() -> dict[str, Any]:
    """A small `info`, with members that this program does not know."""
    scale = {
        "key": "1_1_1", "size": [10, 20, 30], "resolution": [162.5, 162.5, 2000], "voxel_offset": [1, -2, 3],
        "chunk_sizes": [[64, 64, 64]], "encoding": "raw", "hidden": True,
    }  # fmt: skip
    return {"type": "image", "data_type": "uint16", "num_channels": 2, "scales": [scale], "mesh": "mesh"}


def test_info_survives_a_round_trip_with_what_nobody_knows() -> None:
    members = info_members()
    assert VolumeInfo.from_json(members).to_json() == members
    assert json.loads(VolumeInfo.from_json(members).to_bytes()) == members


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("data_type", "float64", "data_type 'float64'"),
        ("num_channels", 0, "num_channels"),
        ("scales", [{}], "no key"),
        ("scales.size", [1, 2], "size of scale 1_1_1"),
        ("scales.size", [1, 2, 2.5], "size of scale 1_1_1"),
        ("scales.size", [1, 2, -1], "size of scale 1_1_1"),
        ("scales.resolution", [1, 1, 0], "resolution of scale 1_1_1"),
        ("scales.resolution", [1, 1, "x"], "resolution of scale 1_1_1"),
        ("scales.chunk_sizes", [], "chunk_sizes"),
        ("scales.chunk_sizes", [[0, 1, 1]], "chunk_sizes of scale 1_1_1"),
        ("scales.voxel_offset", [0, 0, True], "voxel_offset of scale 1_1_1"),
    ],
)
def test_a_wrong_member_of_info_is_named(place: str, value: object, sentence: str) -> None:
    members = info_members()
    first, _, second = place.partition(".")
    if second:
        members["scales"][0][second] = value
    else:
        members[first] = value
    with pytest.raises(Unreadable, match=sentence):
        VolumeInfo.from_json(members)


@pytest.mark.parametrize(
    "text", [b"", b"[1", b"[]", b'{"@type": "neuroglancer_legacy_mesh"}', b'{"scales": []}', b"\xff"]
)
def test_what_is_no_volume(text: bytes) -> None:
    with pytest.raises(Unreadable):
        VolumeInfo.from_bytes(text)


@pytest.mark.parametrize(
    ("members", "answer"),
    [
        ({"scales": [{}]}, True),
        ({"scales": [{}], "@type": "neuroglancer_multiscale_volume"}, True),
        ({"scales": [{}], "@type": "neuroglancer_annotations_v1"}, False),
        ({"scales": []}, False),
        ([], False),
    ],
)
def test_which_info_is_a_volume(members: object, answer: bool) -> None:
    assert is_volume(members) is answer


@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from(DATA_TYPES),
    st.integers(0, 2**32 - 1),
)
def test_a_chunk_tiff_is_read_by_tifffile_and_by_us(shape: tuple[int, int, int], dtype: str, seed: int) -> None:
    voxels = np.random.default_rng(seed).integers(0, 127, shape).astype(np.dtype(dtype).newbyteorder("<"))
    stream = zlib.compress(voxels.tobytes(), 1)
    file = chunk_header(shape, voxels.dtype, len(stream), DEFLATE) + stream
    read = tifffile.imread(io.BytesIO(file))
    assert (read.dtype, read.tobytes()) == (voxels.dtype, voxels.tobytes())
    assert read.shape == (shape[1:] if shape[0] == 1 else shape)
    found = parse_stream(file[:HEADER_BYTES], len(file))
    assert found is not None
    assert (found.shape, found.dtype, found.content_encoding) == (shape, voxels.dtype, "deflate")
    assert zlib.decompress(file[found.offset : found.offset + found.length]) == voxels.tobytes()


WRITTEN: list[tuple[dict[str, Any], bool]] = [
    ({"compression": "zlib"}, True),
    ({"compression": "zstd"}, True),
    ({"compression": "zlib", "rowsperstrip": 64}, True),
    ({"compression": "zlib", "rowsperstrip": 63}, False),
    ({"compression": "zlib", "predictor": True}, False),
    ({"compression": "zlib", "byteorder": ">"}, False),
    ({"compression": "zlib", "tile": (64, 64)}, True),
    ({"compression": "zlib", "tile": (32, 32)}, False),
    ({"compression": "lzw"}, False),
    ({}, False),
    ({"compression": "zlib", "bigtiff": True}, False),
]


@pytest.mark.parametrize(("options", "passes"), WRITTEN)
def test_only_one_plain_stream_is_passed_through(options: dict[str, Any], passes: bool) -> None:
    voxels = np.random.default_rng(0).integers(0, 4000, (64, 64)).astype("<u2")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, voxels, photometric="minisblack", **options)
    file = buffer.getvalue()
    assert (parse_stream(file[:HEADER_BYTES], len(file)) is not None) == passes


@given(st.binary(max_size=400), st.integers(0, 300))
def test_any_bytes_are_either_a_stream_inside_the_file_or_none(junk: bytes, place: int) -> None:
    stream = zlib.compress(bytes(8))
    file = bytearray(chunk_header((2, 2, 2), np.dtype("u1"), len(stream), DEFLATE) + stream)
    file[place : place + len(junk)] = junk
    found = parse_stream(bytes(file[:HEADER_BYTES]), len(file))
    if found is not None:
        assert 0 < found.offset + found.length <= len(file)
        assert min(found.shape) > 0
