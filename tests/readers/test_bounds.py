"""What declares more than its scale allows is refused before it is decoded, in every layout."""

from __future__ import annotations

import functools
import gzip
import json
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

from precomputed_server.errors import Unreadable
from precomputed_server.files import Tree
from precomputed_server.format.geometry import Box
from precomputed_server.format.names import chunk_name
from precomputed_server.readers.chunks import find_chunk
from precomputed_server.readers.volumes import Volumes
from tests.readers.layouts import KEY, LAYOUTS, OFFSET, SIZE

LIMIT = 256 << 20
SPARE_BYTES = 64 << 20
SECONDS = 2.0
BOMB = bytes(300 << 20)
FIRST = Box(OFFSET, (OFFSET[0] + 16, OFFSET[1] + 16, OFFSET[2] + 8))
NAME = chunk_name(FIRST)

Plant = Callable[[Path], object]


@functools.cache
def zlib_bomb() -> bytes:
    """BOMB as zlib has it."""
    return zlib.compress(BOMB, 9)


@functools.cache
def gzip_bomb() -> bytes:
    """BOMB as gzip has it."""
    return gzip.compress(BOMB, 9)


def read_chunk(root: Path, name: str = NAME) -> bytes:
    """A chunk's bytes."""
    tree = Tree(root)
    try:
        found = find_chunk(tree, Volumes(tree), f"brain/{KEY}/{name}")
        assert found is not None
        with found.stored:
            return found.decode(LIMIT)
    finally:
        tree.close()


@contextmanager
def bounded(declared: int) -> Iterator[None]:
    """Fail when what is done inside takes more memory than 3 × `declared` + 64 MiB, or more than two seconds."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        yield
        took, (_, peak) = time.monotonic() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 3 * declared + SPARE_BYTES, f"{peak >> 20} MiB"
    assert took <= SECONDS


def changed_json(path: Path, **members: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


def changed_table(path: Path, entry: bytes) -> None:
    """Replace the first entry of a BlockFS table."""
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 12)
    content[start : start + len(entry)] = entry
    path.write_bytes(content)


def changed_bytes(path: Path, at: int, value: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(value)] = value
    path.write_bytes(content)


def blosc_of(content: int, level: Path, name: str, at: int) -> None:
    """Let the header of a blosc frame declare `content` bytes."""
    changed_bytes(level / name, at + 4, struct.pack("<I", content))


def wide_page(path: Path, **tags: int) -> None:
    """Let tags of a page declare other numbers: `width`, `rows` and so on by their TIFF names."""
    with tifffile.TiffFile(path, mode="r+") as file:
        page = file.pages[0]
        assert isinstance(page, tifffile.TiffPage)
        for name, value in tags.items():
            page.tags[name].overwrite(value)


def pages_of_bombs(level: Path) -> None:
    """Every strip inflates to far more than a plane."""
    packed = zlib_bomb()
    path = level / f"{NAME}.tiff"
    with tifffile.TiffFile(path) as file:
        places = [page.tags["StripOffsets"].valueoffset for page in file.pages]  # type: ignore[union-attr]
        counts = [page.tags["StripByteCounts"].valueoffset for page in file.pages]  # type: ignore[union-attr]
    offset = path.stat().st_size
    content = bytearray(path.read_bytes() + packed)
    for place, count in zip(places, counts, strict=True):
        content[place : place + 4] = struct.pack("<I", offset)
        content[count : count + 4] = struct.pack("<I", len(packed))
    path.write_bytes(content)


def cyclic_pages(level: Path) -> None:
    path = level / f"{NAME}.tiff"
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    changed_bytes(path, start + 2 + 12 * count, struct.pack("<I", start))


def jpeg_page(level: Path) -> None:
    tifffile.imwrite(level / f"{NAME}.tiff", np.zeros((16, 16), np.uint8), compression="jpeg")


def large_chunks(level: Path) -> None:
    (level / "0.0.0").write_bytes(zlib_bomb())
    changed_json(level / ".zarray", chunks=[1 << 12] * 3)


def long_index(level: Path) -> None:
    """A file with a hole, of which the index is to be two gigabytes."""
    path = level / "0.shard"
    changed_bytes(path, 0, struct.pack("<QQ", 0, 2 << 30))
    with path.open("r+b") as file:
        file.truncate(3 << 30)


def gzip_index(level: Path) -> None:
    """Of a scale of so many chunks that their index might be long, an index that inflates to far more."""
    info = json.loads((level.parent / "info").read_text())
    info["scales"][0]["size"] = [160_000, 160_000, 8]
    (level.parent / "info").write_text(json.dumps(info))
    packed = gzip_bomb()
    for shard in range(4):
        (level / f"{shard}.shard").write_bytes(2 * struct.pack("<QQ", 0, len(packed)) + packed)


def listed_outside(level: Path) -> None:
    path = level / "0.shard"
    start, end = struct.unpack_from("<QQ", path.read_bytes())
    count = (end - start) // 24
    changed_bytes(path, 16 + start + 8 * count, struct.pack("<Q", 1 << 40))


def many_minishards(level: Path) -> None:
    info = json.loads((level.parent / "info").read_text())
    info["scales"][0]["sharding"]["minishard_bits"] = 40
    (level.parent / "info").write_text(json.dumps(info))


BOMBS: dict[str, tuple[str, Plant]] = {
    "gz": ("gz", lambda level: (level / f"{NAME}.gz").write_bytes(gzip_bomb())),
    "br": ("br", lambda level: (level / f"{NAME}.br").write_bytes(imagecodecs.brotli_encode(BOMB, level=1))),
    "zstd": ("zstd", lambda level: (level / f"{NAME}.zstd").write_bytes(imagecodecs.zstd_encode(BOMB))),
    "a huge gz": ("gz", lambda level: sparse(level / f"{NAME}.gz")),
    "a huge TIFF": ("pages", lambda level: sparse(level / f"{NAME}.tiff")),
    "pages": ("pages", pages_of_bombs),
    "pages without end": ("pages", cyclic_pages),
    "a wide page": ("pages", lambda level: wide_page(level / f"{NAME}.tiff", ImageWidth=1 << 20)),
    "a long page": ("pages", lambda level: wide_page(level / f"{NAME}.tiff", ImageLength=1 << 31)),
    "no rows in a strip": ("pages", lambda level: wide_page(level / f"{NAME}.tiff", RowsPerStrip=0)),
    "large tiles": (
        "pages_lzw_tiles",
        lambda level: wide_page(level / f"{NAME}.tiff", TileWidth=1 << 15, TileLength=1 << 15),
    ),
    "an image in a page": ("pages", jpeg_page),
    "blockfs: a frame": ("blockfs", lambda level: blosc_of(2 << 30, level, "precomputed.blockfs.0", 5)),
    "blockfs: outside": ("blockfs", lambda level: changed_table(level / "precomputed.blockfs", b"\xff" * 7)),
    "blockfs: metadata": (
        "blockfs",
        lambda level: changed_bytes(level / "precomputed.blockfs", 8, struct.pack("<I", (1 << 32) - 1)),
    ),
    "blockfs: no table": (
        "blockfs",
        lambda level: changed_bytes(level / "precomputed.blockfs", 12, struct.pack("<I", (1 << 32) - 1)),
    ),
    "zarr: a frame": ("zarr", lambda level: blosc_of(2 << 30, level, "0/0/0", 0)),
    "zarr: a stream": ("zarr_zlib", lambda level: (level / "0.0.0").write_bytes(zlib_bomb())),
    "zarr: lz4": ("zarr_lz4", lambda level: changed_bytes(level / "0.0.0", 0, struct.pack("<I", (1 << 31) - 1))),
    "zarr: chunks": ("zarr", lambda level: changed_json(level / ".zarray", chunks=[1 << 40] * 3)),
    "zarr: a stream of large chunks": ("zarr_zlib", large_chunks),
    "zarr: metadata": ("zarr", lambda level: sparse(level / ".zarray")),
    "shard: a long index": ("sharded", long_index),
    "shard: an index that inflates": ("sharded_gzip", gzip_index),
    "shard: outside": ("sharded", listed_outside),
    "shard: many minishards": ("sharded", many_minishards),
}


def sparse(path: Path) -> None:
    """Make the file longer than it may be, but not than a server decodes, by a hole."""
    with path.open("r+b") as file:
        file.truncate(200 << 20)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_within_the_bounds(bomb: str, tmp_path: Path) -> None:
    layout, plant = BOMBS[bomb]
    made = LAYOUTS[layout].phantom("uint8" if "image" in bomb else "")
    LAYOUTS[layout].write(tmp_path / "brain", made)
    assert read_chunk(tmp_path) == made.part(FIRST).tobytes()
    plant(tmp_path / "brain" / KEY)
    with bounded(made.part(FIRST).nbytes), pytest.raises(Unreadable):
        read_chunk(tmp_path)


def test_a_chunk_of_thousands_of_stored_ones_is_refused(tmp_path: Path) -> None:
    LAYOUTS["zarr_none"].write(tmp_path / "brain", LAYOUTS["zarr_none"].phantom())
    changed_json(tmp_path / "brain" / KEY / ".zarray", chunks=[1, 1, 1])
    info = json.loads((tmp_path / "brain" / "info").read_text())
    info["scales"][0]["chunk_sizes"] = [SIZE]
    (tmp_path / "brain" / "info").write_text(json.dumps(info))
    name = chunk_name(Box(OFFSET, (OFFSET[0] + SIZE[0], OFFSET[1] + SIZE[1], OFFSET[2] + SIZE[2])))
    with pytest.raises(Unreadable, match="put together"):
        read_chunk(tmp_path, name)


TIFFS = ["tiff", "pages", "pages_plain", "pages_strips_big_endian", "pages_lzw_tiles"]


def mutations(sound: bytes, seed: int) -> Iterator[bytes]:
    """Truncations, flipped bits, zeroed and maximal words."""
    generator = np.random.default_rng(seed)
    header = len(sound) if seed % 2 else min(len(sound), 600)
    for number in range(75):
        yield sound[: int(generator.integers(len(sound)))]
        for value in (None, b"\0\0\0\0", b"\xff\xff\xff\xff"):
            broken = bytearray(sound)
            for at in generator.integers(0, header - 4, 1 + number % 4):
                broken[at : at + 4] = value or bytes([broken[at] ^ 1 << number % 8]) + sound[at + 1 : at + 4]
            yield bytes(broken)


@pytest.mark.parametrize("layout", TIFFS)
def test_fifteen_hundred_malformed_tiffs(layout: str, tmp_path: Path) -> None:
    made = LAYOUTS[layout].phantom()
    LAYOUTS[layout].write(tmp_path / "brain", made)
    path = tmp_path / "brain" / KEY / f"{NAME}.tiff"
    sound, expected = path.read_bytes(), made.part(FIRST).nbytes
    with bounded_each(expected) as check:
        for mutated in mutations(sound, TIFFS.index(layout)):
            path.write_bytes(mutated)
            check.begin()
            with suppress(Unreadable):
                assert len(read_chunk(tmp_path)) == expected
            check.end()
    assert check.count == 300


class Check:
    """Memory and time of one attempt after the other."""

    def __init__(self, declared: int) -> None:
        self.declared, self.count, self._began = declared, 0, 0.0

    def begin(self) -> None:
        """An attempt begins."""
        tracemalloc.reset_peak()
        self._began = time.monotonic()

    def end(self) -> None:
        """It is over."""
        self.count += 1
        assert time.monotonic() - self._began <= SECONDS
        assert tracemalloc.get_traced_memory()[1] <= 3 * self.declared + SPARE_BYTES


@contextmanager
def bounded_each(declared: int) -> Iterator[Check]:
    """Trace memory while many attempts are made."""
    tracemalloc.start()
    try:
        yield Check(declared)
    finally:
        tracemalloc.stop()
