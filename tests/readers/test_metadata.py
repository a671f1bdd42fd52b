"""Files that describe a layout and are wrong: a sentence, and never voxels of something else."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from precomputed_server.errors import Unreadable
from precomputed_server.files import Tree
from precomputed_server.format.blockfs import parse_directory
from precomputed_server.readers.chunks import read_box, scale_place
from precomputed_server.readers.volumes import Volumes
from tests.readers.layouts import KEY, LAYOUTS


def read(root: Path) -> None:
    tree = Tree(root)
    try:
        place = scale_place(tree, Volumes(tree), f"brain/{KEY}")
        read_box(place, place.scale.bounds)
    finally:
        tree.close()


@pytest.mark.parametrize(
    "members",
    [
        {"zarr_format": 3},
        {"filters": [{"id": "delta"}]},
        {"dtype": "<u4"},
        {"dtype": "<i2"},
        {"dtype": [["a", "<u2"]]},
        {"dtype": "O"},
        {"dtype": "<u2,<u2"},
        {"shape": [11, 37, 44]},
        {"shape": [11, 37]},
        {"shape": "11"},
        {"chunks": [8, 16]},
        {"chunks": [8, 16, 0]},
        {"chunks": [8, 16, 16.5]},
        {"chunks": [1, 8, 16, 16]},
        {"compressor": {"id": "unheard of"}},
        {"compressor": "zlib"},
        {"compressor": {"id": "gzip"}},
        {"order": "X"},
        {"dimension_separator": "//"},
        {"fill_value": "NaN"},
        {"fill_value": 70_000},
        {"fill_value": [1]},
        {"fill_value": "bad"},
    ],
)
def test_zarr(members: dict[str, Any], tmp_path: Path) -> None:
    LAYOUTS["zarr"].write(tmp_path / "brain", LAYOUTS["zarr"].phantom())
    read(tmp_path)
    path = tmp_path / "brain" / KEY / ".zarray"
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))
    with pytest.raises(Unreadable):
        read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"zarr_format": 2}'])
def test_zarr_of_no_sense(text: str, tmp_path: Path) -> None:
    LAYOUTS["zarr"].write(tmp_path / "brain", LAYOUTS["zarr"].phantom())
    (tmp_path / "brain" / KEY / ".zarray").write_text(text)
    with pytest.raises(Unreadable):
        read(tmp_path)


BLOCKS: dict[str, Any] = {
    **{f"{axis}{name}": 4 for axis in "XYZ" for name in ("BlockSize", "Extent", "Stride")},
    "DType": "uint16",
    "NOffsetBits": 10,
    "NSizeBits": 10,
    "BlockFilenames": ["C:\\data\\one.0", "/data/one.1"],
}
PREFIX = b"BlockFS\0" + struct.pack("<II", 10, 26)


def test_blocks_are_looked_for_beside_their_table() -> None:
    assert parse_directory(PREFIX, json.dumps(BLOCKS).encode()).file_names == ("one.0", "one.1")


@pytest.mark.parametrize(
    "members",
    [
        {"XBlockSize": 0},
        {"XBlockSize": 4.5},
        {"YExtent": -1},
        {"ZStride": -1},
        {"ZStride": True},
        {"NOffsetBits": 65},
        {"NSizeBits": 0},
        {"DType": "O"},
        {"DType": None},
        {"BlockFilenames": []},
        {"BlockFilenames": "one"},
        {"BlockFilenames": [None]},
        {"BlockFilenames": [".."]},
        {"BlockFilenames": ["/data/"]},
        {"BlockFilenames": ["/data/.precomputed"]},
        {"BlockFilenames": ["a\0b"]},
    ],
)
def test_block_fs(members: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        parse_directory(PREFIX, json.dumps({**BLOCKS, **members}).encode())


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"{}"])
def test_block_fs_of_no_sense(text: bytes) -> None:
    with pytest.raises(Unreadable):
        parse_directory(PREFIX, text)


@pytest.mark.parametrize("sharding", ["x", 1, [], {}, {"@type": "neuroglancer_uint64_sharded_v1", "hash": []}])
def test_shards(sharding: object, tmp_path: Path) -> None:
    LAYOUTS["sharded"].write(tmp_path / "brain", LAYOUTS["sharded"].phantom())
    path = tmp_path / "brain" / "info"
    info = json.loads(path.read_text())
    info["scales"][0]["sharding"] = sharding
    path.write_text(json.dumps(info))
    with pytest.raises(Unreadable):
        read(tmp_path)
