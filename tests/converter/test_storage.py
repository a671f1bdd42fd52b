"""Every way in which TIFF keeps pixels: compressions, strips and tiles, byte orders, predictors, samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from converter.stacks.source import read_stack
from converter.stacks.stack_source import StackSource
from converter.stacks.view import View
from precomputed_server.errors import SourceError
from precomputed_server.format.geometry import Box
from tests.converter.stacks import Array, volume

LOSSLESS: dict[str, dict[str, Any]] = {
    "none": {},
    "LZW": {"compression": "lzw"},
    "LZW, predictor": {"compression": "lzw", "predictor": True},
    "deflate": {"compression": "zlib"},
    "deflate, predictor": {"compression": "zlib", "predictor": True},
    "zstd": {"compression": "zstd"},
    "zstd, predictor": {"compression": "zstd", "predictor": True},
    "PackBits": {"compression": "packbits"},
}
CUT: dict[str, dict[str, Any]] = {"1 strip": {}, "strips": {"rowsperstrip": 5}, "tiles": {"tile": (16, 32)}}
BOXES = [Box((0, 0, 0), (70, 37, 3)), Box((33, 7, 1), (41, 23, 3)), Box((69, 36, 2), (70, 37, 3))]


def _check(path: Path, expected: Array) -> None:
    """Boxes of a source against the voxels "(C, Z, Y, X)" that it has."""
    stack = read_stack(str(path))
    source = StackSource(stack, View(), stack.dtype)
    assert (source.num_channels, source.size) == (len(expected), (70, 37, 3))
    for box in BOXES:
        (x0, y0, z0), (x1, y1, z1) = box.start, box.stop
        np.testing.assert_array_equal(source.read(box), expected[:, z0:z1, y0:y1, x0:x1])


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("byte_order", "<>")
@pytest.mark.parametrize("cut", CUT)
@pytest.mark.parametrize("compression", LOSSLESS)
def test_planes_are_read_as_they_were_written(
    tmp_path: Path, compression: str, cut: str, byte_order: str, dtype: str
) -> None:
    voxels = volume(70, 37, 3, dtype)
    how: dict[str, Any] = {"byteorder": byte_order, "photometric": "minisblack", **LOSSLESS[compression], **CUT[cut]}
    tifffile.imwrite(tmp_path / "pages.tif", voxels, metadata=None, **how)
    (tmp_path / "files").mkdir()
    for z, plane in enumerate(voxels):
        tifffile.imwrite(tmp_path / "files" / f"{z}.tif", plane, metadata=None, bigtiff=z == 1, **how)
    _check(tmp_path / "pages.tif", voxels[np.newaxis])
    _check(tmp_path / "files", voxels[np.newaxis])
    storage = read_stack(str(tmp_path / "files")).planes[0][0].storage
    expected = compression.replace(", predictor", " with predictor").replace("none", "uncompressed")
    assert storage.startswith(expected)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("byte_order", "<>")
@pytest.mark.parametrize("cut", CUT)
@pytest.mark.parametrize("compression", LOSSLESS)
def test_colours_are_read_as_they_were_written(
    tmp_path: Path, compression: str, cut: str, byte_order: str, planar: str
) -> None:
    voxels = np.stack([volume(70, 37, 3, seed=sample) for sample in range(3)])
    how: dict[str, Any] = {"byteorder": byte_order, "photometric": "rgb", "planarconfig": planar, **CUT[cut]}
    for z in range(3):
        pixels = voxels[:, z].transpose(1, 2, 0) if planar == "contig" else voxels[:, z]
        tifffile.imwrite(tmp_path / f"{z}.tif", pixels, metadata=None, **how, **LOSSLESS[compression])
    _check(tmp_path, voxels)


@pytest.mark.parametrize("photometric", ["minisblack", "rgb", "ycbcr"])
@pytest.mark.parametrize("byte_order", "<>")
@pytest.mark.parametrize("cut", ["strips", "tiles"])
def test_jpeg_is_read_as_by_tifffile(tmp_path: Path, photometric: str, cut: str, byte_order: str) -> None:
    smooth = np.linspace(0, 255, 70 * 37 * 3).reshape(3, 37, 70).astype(np.uint8)
    expected = []
    how: dict[str, Any] = {"byteorder": byte_order, "photometric": photometric, "compression": "jpeg"}
    for z in range(3):
        pixels = smooth[z] if photometric == "minisblack" else np.stack([smooth[z], smooth[z] // 2, smooth[z]], -1)
        path = tmp_path / f"{z}.tif"
        cuts: dict[str, dict[str, Any]] = {"strips": {"rowsperstrip": 16}, "tiles": {"tile": (16, 32)}}
        tifffile.imwrite(path, pixels, metadata=None, **how, **cuts[cut])
        expected.append(np.atleast_3d(tifffile.imread(path)).transpose(2, 0, 1))
    _check(tmp_path, np.stack(expected, 1))
    assert read_stack(str(tmp_path)).planes[0][0].storage.startswith("JPEG")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_damaged_page_in_the_middle_is_named(tmp_path: Path, compression: str | None) -> None:
    source = tmp_path / "stack.tif"
    with tifffile.TiffWriter(source) as writer:
        for plane in volume(70, 37, 5):
            writer.write(plane, metadata=None, contiguous=False, compression=compression)
    stack = read_stack(str(source))
    with tifffile.TiffFile(source) as tiff:
        offset = tiff.pages[2].dataoffsets[0]
    data = bytearray(source.read_bytes())
    data[offset : offset + 100] = bytes(100)
    source.write_bytes(data)
    with pytest.raises(SourceError, match="has changed since its header was read"):
        StackSource(stack, View(), stack.dtype).read(Box((0, 0, 2), (70, 37, 3)))
    again = read_stack(str(source))
    damaged = StackSource(again, View(), again.dtype)
    damaged.read(Box((0, 0, 0), (70, 37, 2)))
    if compression:
        with pytest.raises(SourceError, match=r"stack\.tif \(page 3\) cannot be decoded"):
            damaged.read(Box((0, 0, 0), (70, 37, 5)))
