"""Boxes of scales whose chunks are encoded, against tensorstore's reading of the same files."""

from __future__ import annotations

import io
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from converter.writers import Output
from precomputed_server.errors import Unreadable
from precomputed_server.files import Tree
from precomputed_server.format.geometry import Box
from precomputed_server.format.images import ImageSize, jpeg_size, png_size
from precomputed_server.readers.base import Place
from precomputed_server.readers.chunks import read_box, scale_place
from precomputed_server.readers.volumes import Volumes
from tests.converter.written import tensorstore_reads, write
from tests.data import volume

ENCODED = [("png", "uint16", 1), ("png", "uint8", 3), ("jpeg", "uint8", 1), ("jpeg", "uint8", 3)]
CHUNK = (8, 8, 4)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    """An open tree."""
    opened = Tree(tmp_path)
    yield opened
    opened.close()


def place(tree: Tree) -> Place:
    return scale_place(tree, Volumes(tree), "brain/4_5_40")


@pytest.mark.parametrize(("encoding", "data_type", "channels"), ENCODED)
@pytest.mark.parametrize("layout", ["raw", "sharded"])
def test_images(layout: str, encoding: str, data_type: str, channels: int, tmp_path: Path, tree: Tree) -> None:
    voxels = volume((channels, 9, 20, 21), data_type)
    _, info = write(tmp_path / "brain", voxels, Output(layout, encoding=encoding), CHUNK, (5, 0, 3))
    found = read_box(place(tree), info.scales[0].bounds)
    if encoding == "png":
        np.testing.assert_array_equal(found, voxels)
    expected = tensorstore_reads(tmp_path / "brain").astype(int)
    assert np.abs(found - expected).max() <= (2 if encoding == "jpeg" else 0)


def an_image(width: int, height: int, mode: str, kind: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (width, height)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["png", "jpeg"])
@pytest.mark.parametrize(
    ("width", "height", "mode"), [(8, 33, "L"), (16_000, 16_000, "L"), (8, 32, "RGB")], ids=["rows", "bomb", "samples"]
)
def test_an_image_of_other_pixels_is_refused(
    kind: str, width: int, height: int, mode: str, tmp_path: Path, tree: Tree
) -> None:
    write(tmp_path / "brain", volume((1, 4, 8, 8), "uint8"), Output("raw", encoding=kind), CHUNK)
    (path,) = (tmp_path / "brain" / "4_5_40").iterdir()
    path.write_bytes(an_image(width, height, mode, kind))
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable):
            read_box(place(tree), Box((0, 0, 0), (1, 1, 1)))
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_an_image_may_be_of_any_width(kind: str, tmp_path: Path, tree: Tree) -> None:
    write(tmp_path / "brain", volume((1, 4, 8, 8), "uint8"), Output("raw", encoding=kind), CHUNK)
    (path,) = (tmp_path / "brain" / "4_5_40").iterdir()
    pixels = volume((16, 16), "uint8")
    path.write_bytes(imagecodecs.png_encode(pixels) if kind == "png" else imagecodecs.jpeg8_encode(pixels))
    decoded = np.asarray(Image.open(path)).reshape(1, 4, 8, 8)
    np.testing.assert_array_equal(read_box(place(tree), Box((0, 0, 0), (8, 8, 4))), decoded)


def test_an_encoding_that_is_not_decoded_says_so(tmp_path: Path, tree: Tree) -> None:
    write(tmp_path / "brain", volume((1, 4, 8, 8), "uint8"), Output("raw"), CHUNK)
    info = tmp_path / "brain" / "info"
    info.write_bytes(info.read_bytes().replace(b'"raw"', b'"compresso"'))
    with pytest.raises(Unreadable, match="compresso"):
        read_box(place(tree), Box((0, 0, 0), (8, 8, 4)))


@pytest.mark.parametrize("progressive", [False, True])
def test_sizes_are_read_from_the_head(progressive: bool) -> None:
    file = io.BytesIO()
    Image.new("RGB", (31, 17)).save(file, "jpeg", progressive=progressive, exif=b"Exif\0\0" + bytes(5000))
    assert jpeg_size(file.getvalue()) == ImageSize(31, 17)
    assert png_size(an_image(31, 17, "L", "png")) == ImageSize(31, 17)
    assert jpeg_size(an_image(31, 17, "L", "png")) is None
    assert png_size(file.getvalue()) is None
    for length in range(200):
        assert jpeg_size(file.getvalue()[:length]) is None
