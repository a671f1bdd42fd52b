"""Finding the planes of a stack, checking them, and reading their rows however they are stored."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from converter.stacks import reading
from converter.stacks.planes import TiffContent, read_content, read_rows
from converter.stacks.source import find_files, read_stack
from precomputed_server.errors import InvalidInput, SourceError
from tests.converter.stacks import Array, volume, write_planes


def _rows(path: Path, start: int, stop: int) -> Array:
    """The rows of every plane of a source, "(C, Z, Y, X)"."""
    stack = read_stack(str(path))
    return np.stack([np.concatenate(list(read_rows(pages, start, stop))) for pages in stack.planes], axis=1)


def test_directories_globs_and_lists_are_in_natural_order(tmp_path: Path) -> None:
    write_planes(tmp_path, volume(4, 4, 12))
    (tmp_path / ".img_3.tif").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    expected = [str(tmp_path / f"img_{z}.tif") for z in range(12)]
    assert find_files([str(tmp_path)]) == expected
    assert find_files([str(tmp_path / "*.tif")]) == expected
    assert find_files(sorted(expected)) == expected
    assert find_files([str(tmp_path / "img_1*.tif"), str(tmp_path / "img_1.tif")]) == [expected[1], *expected[10:]]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing", "does not exist"),
        ("*.tif", "No TIFF file matches"),
        ("absent.tif", "does not exist"),
        ("", "holds no"),
    ],
)
def test_no_match_is_said_in_one_sentence(tmp_path: Path, name: str, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        find_files([str(tmp_path / name)])
    with pytest.raises(InvalidInput, match="No source"):
        find_files([])


STORAGE: dict[str, dict[str, Any]] = {
    "one strip": {"rowsperstrip": 37},
    "strips": {"rowsperstrip": 5},
    "big-endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "tiles": {"tile": (16, 16)},
    "deflate strips": {"compression": "zlib", "rowsperstrip": 5, "predictor": True},
    "deflate, big-endian": {"compression": "zlib", "byteorder": ">"},
    "LZW": {"compression": "lzw", "rowsperstrip": 8},
    "zstd tiles": {"compression": "zstd", "tile": (16, 32)},
    "PackBits": {"compression": "packbits"},
}


@pytest.mark.parametrize("storage", STORAGE)
@pytest.mark.parametrize("pages", ["files", "multi-page"])
def test_rows_are_read_from_any_storage(tmp_path: Path, storage: str, pages: str) -> None:
    voxels = volume(45, 37, 3)
    if pages == "files":
        source = write_planes(tmp_path / "planes", voxels, photometric="minisblack", **STORAGE[storage])
    else:
        source = tmp_path / "stack.tif"
        tifffile.imwrite(source, voxels, photometric="minisblack", metadata=None, **STORAGE[storage])
    for start, stop in ((0, 37), (0, 1), (7, 23), (36, 37)):
        np.testing.assert_array_equal(_rows(source, start, stop)[0], voxels[:, start:stop])


@pytest.mark.parametrize("storage", ["one strip", "strips", "tiles", "deflate strips", "deflate, big-endian"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_samples_of_a_pixel_become_channels(tmp_path: Path, storage: str, planar: str) -> None:
    channels = volume(45, 37, 3, seed=2)
    source = tmp_path / "rgb.tif"
    data = channels.transpose(1, 2, 0) if planar == "contig" else channels
    tifffile.imwrite(source, data, photometric="rgb", planarconfig=planar, metadata=None, **STORAGE[storage])
    stack = read_stack(str(source))
    assert (stack.num_channels, stack.size) == (3, (45, 37, 1))
    np.testing.assert_array_equal(_rows(source, 7, 23)[:, 0], channels[:, 7:23])


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_channels_in_pages_are_told_from_z(tmp_path: Path, kind: str) -> None:
    voxels = np.stack([volume(8, 6, 5, seed=channel) for channel in range(2)])
    source = tmp_path / "stack.tif"
    if kind == "imagej":  # z outside, channels inside
        tifffile.imwrite(source, voxels.transpose(1, 0, 2, 3), imagej=True, metadata={"axes": "ZCYX"})
    else:
        tifffile.imwrite(source, voxels, ome=True, photometric="minisblack", metadata={"axes": "CZYX"})
    stack = read_stack(str(source))
    assert (stack.num_channels, stack.size) == (2, (8, 6, 5))
    np.testing.assert_array_equal(_rows(source, 0, 6), voxels)


def test_time_points_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "t.tif", np.zeros((4, 5, 8, 8), np.uint16), imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(InvalidInput, match=r"holds 4 time points \(0–3\); choose one with --time\.$"):
        read_stack(str(tmp_path / "t.tif"))


def test_four_axes_without_names_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "t.tif", np.zeros((4, 5, 8, 8), np.uint16), photometric="minisblack")
    with pytest.raises(SourceError, match=r"has axes \(4 × 5\) without known names; add --axes"):
        read_stack(str(tmp_path / "t.tif"))


def test_imagej_counts_that_contradict_the_pages_do_not_shorten_a_stack(tmp_path: Path) -> None:
    source = tmp_path / "stack.tif"
    description = "ImageJ=1.53c\nimages=6\nslices=2\n"
    voxels = volume(8, 8, 6)
    tifffile.imwrite(source, voxels, photometric="minisblack", metadata=None, description=description)
    assert read_stack(str(source)).size == (8, 8, 6)
    contradicting = "ImageJ=1.53c\nimages=6\nchannels=2\nslices=2\n"
    tifffile.imwrite(source, voxels, photometric="minisblack", metadata=None, description=contradicting)
    with pytest.raises(SourceError, match="declares 1 t × 2 z × 2 c but holds 6 pages"):
        read_stack(str(source))


def test_planes_behind_the_only_page_of_a_large_imagej_file_are_read(tmp_path: Path) -> None:
    source = tmp_path / "stack.tif"
    voxels = volume(16, 8, 5)
    description = "ImageJ=1.53c\nimages=5\nslices=5\n"
    tifffile.imwrite(source, voxels[0], byteorder=">", metadata=None, description=description)
    with source.open("ab") as file:
        file.write(voxels[1:].astype(">u2").tobytes())
    np.testing.assert_array_equal(_rows(source, 0, 8)[0], voxels)
    with source.open("r+b") as file:
        file.truncate(source.stat().st_size - 1)
    with pytest.raises(SourceError, match=r"stack.tif \(page 5\) is truncated"):
        read_stack(str(source))


def test_reduced_copies_are_no_planes(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "stack.tif") as writer:
        for _ in range(3):
            writer.write(np.zeros((16, 16), np.uint16), metadata=None)
            writer.write(np.zeros((4, 4), np.uint16), metadata=None, subfiletype=1)
    assert read_stack(str(tmp_path / "stack.tif")).size == (16, 16, 3)


def test_the_first_plane_of_another_shape_is_named(tmp_path: Path) -> None:
    write_planes(tmp_path, volume(8, 8, 12))
    tifffile.imwrite(tmp_path / "img_10.tif", np.zeros((8, 9), np.uint16))
    with pytest.raises(SourceError, match=r"img_10.tif is 9 × 8, but .*img_0.tif is 8 × 8"):
        read_stack(str(tmp_path))


def test_the_first_plane_of_another_data_type_is_named(tmp_path: Path) -> None:
    write_planes(tmp_path, volume(8, 8, 12))
    tifffile.imwrite(tmp_path / "img_3.tif", np.zeros((8, 8), np.uint8))
    with pytest.raises(SourceError, match=r"img_3.tif is uint8, but .*img_0.tif is uint16"):
        read_stack(str(tmp_path))


def test_both_byte_orders_fit_together(tmp_path: Path) -> None:
    voxels = volume(8, 8, 2)
    write_planes(tmp_path, voxels)
    tifffile.imwrite(tmp_path / "img_1.tif", voxels[1], byteorder=">")
    np.testing.assert_array_equal(_rows(tmp_path, 0, 8)[0], voxels)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kept", [0, 6, 30, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path: Path, compression: str | None, kept: float) -> None:
    write_planes(tmp_path, volume(64, 64, 3), compression=compression)
    odd = tmp_path / "img_1.tif"
    data = odd.read_bytes()
    odd.write_bytes(data[: int(kept * len(data)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(SourceError, match="img_1.tif"):
        _rows(tmp_path, 0, 64)


@pytest.mark.parametrize("bigtiff", [False, True])
def test_a_multi_page_file_cut_anywhere_is_never_a_shorter_stack(tmp_path: Path, bigtiff: bool) -> None:
    whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    with tifffile.TiffWriter(whole, bigtiff=bigtiff) as writer:
        for plane in volume(8, 8, 3, "uint8"):
            writer.write(plane, metadata=None, contiguous=False)
    data = whole.read_bytes()
    for length in range(len(data)):
        cut.write_bytes(data[:length])
        with pytest.raises(SourceError, match=r"cut.tif"):
            read_stack(str(cut))


def test_damage_within_a_compressed_plane_is_named(tmp_path: Path) -> None:
    write_planes(tmp_path, volume(64, 64, 3), compression="zlib")
    odd = tmp_path / "img_1.tif"
    with tifffile.TiffFile(odd) as tiff:
        offset = tiff.pages[0].dataoffsets[0]
    data = bytearray(odd.read_bytes())
    data[offset : offset + 200] = bytes(200)
    odd.write_bytes(data)
    with pytest.raises(SourceError, match="img_1.tif cannot be decoded"):
        _rows(tmp_path, 0, 64)


@pytest.mark.parametrize("content", [b"", b"not a TIFF", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\0"])
def test_what_is_no_tiff_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "img.tif").write_bytes(content)
    with pytest.raises(SourceError, match=r"img.tif is not a readable TIFF"):
        read_stack(str(tmp_path))


def test_a_chunk_of_ours_is_no_plane(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "v.tif", np.zeros((16, 16, 16), np.uint16), volumetric=True, tile=(16, 16, 16))
    with pytest.raises(SourceError, match="axes"):
        read_stack(str(tmp_path / "v.tif"))


@pytest.mark.parametrize("photometric", ["minisblack", "rgb"])
def test_jpeg_is_decoded_as_by_tifffile(tmp_path: Path, photometric: str) -> None:
    shape = (48, 64, 3) if photometric == "rgb" else (48, 64)
    data = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    source = tmp_path / "jpeg.tif"
    tifffile.imwrite(source, data, photometric=photometric, compression="jpeg", tile=(16, 16), metadata=None)
    expected = np.atleast_3d(tifffile.imread(source)).transpose(2, 0, 1)
    np.testing.assert_array_equal(_rows(source, 10, 40)[:, 0], expected[:, 10:40])


def test_a_plane_that_was_replaced_is_decoded_anew(tmp_path: Path) -> None:
    """Although its page was described before, for the bands above."""
    path = tmp_path / "plane.tif"
    for value, rows in ((1, 8), (2, 32)):
        voxels = np.full((64, 48), value, np.uint16)
        tifffile.imwrite(path, voxels, compression="zlib", rowsperstrip=rows)
        planes = read_stack((str(path),)).planes[0]
        for start in (0, 30):
            (band,) = read_rows(planes, start, start + 20)
            assert band.shape == (1, 20, 48)
            assert (band == value).all()


def test_headers_are_read_side_by_side_where_the_disk_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the files nevertheless."""
    paths = sorted(map(str, write_planes(tmp_path, volume(8, 8, 40)).iterdir()))
    known = read_content
    running, most = [0], [0]

    def slow(path: str, with_metadata: bool = True) -> TiffContent:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.02)
        running[0] -= 1
        return known(path, with_metadata)

    monkeypatch.setattr("converter.stacks.reading.read_content", slow)
    found = [content.planes[0].path for content in reading.read_each(paths) if isinstance(content, TiffContent)]
    assert found == paths
    assert most[0] > 1
