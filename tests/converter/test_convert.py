"""Whole conversions: every level of every kind of stack equals an independent computation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from converter import convert
from converter.pyramid.progress import Status
from converter.stacks.voxel_size import parse_edges
from precomputed_server.errors import InvalidInput, PrecomputedError, SourceError
from precomputed_server.format.tiff import HEADER_BYTES, parse_stream
from tests.converter import reference
from tests.converter.stacks import (
    chunk_names,
    files_of,
    options,
    read_info,
    read_level,
    read_statistics,
    volume,
    write_planes,
)

EXTENTS = [(1, 1, 1), (1, 130, 3), (31, 63, 64), (65, 33, 129), (129, 129, 129), (128, 64, 5)]


@pytest.mark.parametrize("chunk", [32, 63, 64])
@pytest.mark.parametrize("extent", EXTENTS)
def test_every_promised_chunk_of_every_level_is_right(tmp_path: Path, extent: tuple[int, int, int], chunk: int) -> None:
    voxels = volume(*extent)
    source = write_planes(tmp_path / "planes", voxels)
    chunk_format = "raw" if chunk == 63 else "tiff"
    convert(
        str(source),
        tmp_path / "made",
        options(levels=3, downsample=(2, 2, 2), chunk_size=(chunk,) * 3, format=chunk_format),
    )
    expected = voxels
    for level in range(3):
        np.testing.assert_array_equal(read_level(tmp_path / "made", level)[0], expected)
        expected = reference.fast_average(expected, (2, 2, 2))
    promised = sum(len(chunk_names(scale)) for scale in read_info(tmp_path / "made")["scales"])
    suffix = "" if chunk_format == "raw" else ".tiff"
    assert len(list((tmp_path / "made").glob(f"*_*_*/*-*{suffix}"))) == promised


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32"])
@pytest.mark.parametrize("chunk_format", ["raw", "tiff"])
def test_every_data_type(tmp_path: Path, dtype: str, chunk_format: str) -> None:
    voxels = volume(20, 11, 9, dtype)
    convert(
        str(write_planes(tmp_path / "planes", voxels)),
        tmp_path / "made",
        options(chunk_size=(8, 7, 6), levels=3, downsample=(2, 2, 2), format=chunk_format),
    )
    expected = voxels[np.newaxis]
    for level in range(3):
        np.testing.assert_array_equal(read_level(tmp_path / "made", level), expected)
        expected = reference.average(expected, (2, 2, 2))
    assert read_info(tmp_path / "made")["data_type"] == dtype


def test_anisotropic_voxels_are_halved_where_they_are_fine(tmp_path: Path) -> None:
    voxels = volume(40, 40, 10)
    made = tmp_path / "made"
    convert(
        str(write_planes(tmp_path / "planes", voxels)),
        made,
        options(chunk_size=(8, 8, 8), voxel_size=parse_edges("0.1625,0.1625,0.5")),
    )
    info = read_info(made)
    assert [scale["key"] for scale in info["scales"]] == ["1_1_1", "2_2_1", "4_4_2", "8_8_4"]
    assert [scale["resolution"] for scale in info["scales"]][:2] == [[162.5, 162.5, 500], [325, 325, 500]]
    assert info["scales"][2]["size"] == [10, 10, 5]
    first = reference.fast_average(voxels, (2, 2, 1))
    np.testing.assert_array_equal(read_level(made, 1)[0], first)
    np.testing.assert_array_equal(read_level(made, 2)[0], reference.fast_average(first, (2, 2, 2)))


def test_labels_of_64_bits_keep_the_most_frequent_and_invent_none(tmp_path: Path) -> None:
    labels = volume(33, 20, 9, "uint64") % 3 + np.uint64(2**63)
    made = tmp_path / "made"
    convert(str(write_planes(tmp_path / "planes", labels)), made, options(chunk_size=(8, 8, 8), segmentation=True))
    expected = labels[np.newaxis]
    for level in range(3):
        np.testing.assert_array_equal(read_level(made, level), expected)
        expected = reference.mode(expected, (2, 2, 2))
    assert read_info(made)["type"] == "segmentation"
    assert read_statistics(made) == {"format": 1, "channels": [], "labels": 3}


def test_nan_is_left_out_of_averages(tmp_path: Path) -> None:
    voxels = volume(16, 16, 4, "float32")
    voxels[voxels > 500] = np.nan
    voxels[:, :4, :4] = np.nan
    made = tmp_path / "made"
    convert(str(write_planes(tmp_path / "planes", voxels)), made, options(levels=2, chunk_size=(8, 8, 8)))
    np.testing.assert_array_equal(read_level(made, 1), reference.average(voxels[np.newaxis], (2, 2, 2)))
    assert np.isnan(read_level(made, 1)[0, :, :2, :2]).all()


@pytest.mark.parametrize("chunk_format", ["raw", "tiff"])
def test_channels_are_the_slowest_axis_of_a_chunk(tmp_path: Path, chunk_format: str) -> None:
    channels = np.stack([volume(20, 10, 5, seed=channel) for channel in range(3)])
    for z in range(5):
        tifffile.imwrite(tmp_path / f"img_{z}.tif", channels[:, z].transpose(1, 2, 0), photometric="rgb", metadata=None)
    made = tmp_path / "made"
    convert(str(tmp_path), made, options(chunk_size=(8, 8, 4), format=chunk_format, levels=2))
    assert read_info(made)["num_channels"] == 3
    np.testing.assert_array_equal(read_level(made, 0), channels)
    np.testing.assert_array_equal(read_level(made, 1), reference.average(channels, (2, 2, 2)))
    statistics = read_statistics(made)["channels"]
    assert [channel["max"] for channel in statistics] == channels.max(axis=(1, 2, 3)).tolist()


@pytest.mark.parametrize("layout", ["one file", "file a plane"])
def test_channels_in_pages(tmp_path: Path, layout: str) -> None:
    channels = np.stack([volume(20, 10, 5, seed=channel) for channel in range(2)])
    if layout == "one file":
        tifffile.imwrite(tmp_path / "all.tif", channels.swapaxes(0, 1), imagej=True, metadata={"axes": "ZCYX"})
    else:
        for z in range(5):
            tifffile.imwrite(tmp_path / f"img_{z}.tif", channels[:, z], imagej=True, metadata={"axes": "CYX"})
    convert(str(tmp_path), tmp_path / "made", options(chunk_size=(8, 8, 4), levels=2))
    np.testing.assert_array_equal(read_level(tmp_path / "made", 0), channels)
    np.testing.assert_array_equal(read_level(tmp_path / "made", 1), reference.average(channels, (2, 2, 2)))


def test_a_tiff_chunk_is_one_zlib_stream_that_can_be_sent_as_it_lies(tmp_path: Path) -> None:
    made = tmp_path / "made"
    convert(str(write_planes(tmp_path / "planes", volume(30, 20, 7))), made, options())
    stored = (made / "1_1_1" / "0-30_0-20_0-7.tiff").read_bytes()
    stream = parse_stream(stored[:HEADER_BYTES], len(stored))
    assert stream is not None
    assert (stream.shape, stream.content_encoding) == ((7, 20, 30), "deflate")
    head = stored[stream.offset : stream.offset + 2]
    assert (head[0] & 0x0F, int.from_bytes(head) % 31) == (8, 0)  # RFC 1950: deflate, and the header's check


@pytest.mark.parametrize("storage", [{}, {"compression": "zlib"}, {"compression": "zlib", "rowsperstrip": 4}])
def test_processes_make_the_same_files_as_one(
    tmp_path: Path, storage: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.pyramid.build._TOO_LITTLE_FOR_PROCESSES", 0)
    monkeypatch.setattr("converter.pyramid.plan._SMALL_BYTES", 0)
    monkeypatch.setattr("converter.pyramid.plan.READ_BYTES", 4096)
    source = write_planes(tmp_path / "planes", volume(70, 65, 20), **storage)
    for jobs in (1, 3):
        convert(str(source), tmp_path / str(jobs) / "made", options(chunk_size=(16, 16, 16), jobs=jobs))
    assert files_of(tmp_path / "1") == files_of(tmp_path / "3")


def test_a_killed_worker_ends_in_one_sentence_and_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.pyramid.build._TOO_LITTLE_FOR_PROCESSES", 0)
    monkeypatch.setattr("converter.pyramid.build.BuildBlock", lambda **_: _Suicide())
    source = write_planes(tmp_path / "planes", volume(8, 8, 2))
    with pytest.raises(PrecomputedError, match="worker process was killed.*--jobs"):
        convert(str(source), tmp_path / "made", options(jobs=2))
    assert files_of(tmp_path / "made") == {}
    monkeypatch.undo()
    convert(str(source), tmp_path / "made", options())
    np.testing.assert_array_equal(read_level(tmp_path / "made", 0)[0], volume(8, 8, 2))


class _Suicide:
    def run(self) -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)


def test_a_damaged_plane_in_the_middle_leaves_no_dataset(tmp_path: Path) -> None:
    source = write_planes(tmp_path / "planes", volume(64, 64, 9), compression="zlib")
    odd = source / "img_4.tif"
    with tifffile.TiffFile(odd) as tiff:
        offset = tiff.pages[0].dataoffsets[0]
    data = bytearray(odd.read_bytes())
    data[offset + 20 : offset + 400] = bytes(380)
    odd.write_bytes(data)
    with pytest.raises(SourceError, match=r"img_4.tif cannot be decoded"):
        convert(str(source), tmp_path / "made", options())
    assert files_of(tmp_path / "made") == {}


REFUSED = {"float64": "float32", "float16": "float32", "int64": "int32", "bool": "uint8"}


@pytest.mark.parametrize("dtype", REFUSED)
def test_data_types_that_no_dataset_holds_are_refused_with_the_one_that_converts(tmp_path: Path, dtype: str) -> None:
    voxels = (volume(9, 8, 3, "uint8") % 2).astype(dtype)
    source = str(write_planes(tmp_path / "planes", voxels))
    with pytest.raises(InvalidInput, match=f"The planes are {dtype}.*--dtype {REFUSED[dtype]}"):
        convert(source, tmp_path / "made", options())
    assert not (tmp_path / "made").exists()
    convert(source, tmp_path / "made", options(dtype=REFUSED[dtype]))
    np.testing.assert_array_equal(read_level(tmp_path / "made", 0)[0], voxels.astype(REFUSED[dtype]))


def test_values_that_the_data_type_cannot_hold_are_refused_naming_the_plane(tmp_path: Path) -> None:
    voxels = np.zeros((3, 8, 8), np.int64)
    voxels[1, 2, 3] = 70_000
    source = str(write_planes(tmp_path / "planes", voxels))
    with pytest.raises(InvalidInput, match=r"img_1.tif has values from 0 to 70000, which uint16 cannot hold"):
        convert(source, tmp_path / "made", options(dtype="uint16"))
    convert(source, tmp_path / "made", options(dtype="uint32"))
    far = np.full((1, 8, 8), 1e300)
    with pytest.raises(InvalidInput, match=r"img_0.tif has values beyond .*float32 cannot hold"):
        convert(str(write_planes(tmp_path / "far", far)), tmp_path / "other", options(dtype="float32"))


def test_other_conversions_are_refused(tmp_path: Path) -> None:
    source = str(write_planes(tmp_path / "planes", volume(8, 8, 2)))
    with pytest.raises(InvalidInput, match="uint16 planes cannot become uint8"):
        convert(source, tmp_path / "made", options(dtype="uint8"))
    complex_planes = write_planes(tmp_path / "complex", np.zeros((2, 8, 8), np.complex64))
    with pytest.raises(InvalidInput, match="complex64"):
        convert(str(complex_planes), tmp_path / "made", options())
    floats = str(write_planes(tmp_path / "floats", volume(8, 8, 2, "float32")))
    with pytest.raises(InvalidInput, match="whole numbers"):
        convert(floats, tmp_path / "made", options(segmentation=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"jobs": 0},
        {"jobs": -2},
        {"chunk_size": (0, 64, 64)},
        {"levels": 0},
        {"format": "blockfs"},
        {"format": "zarr", "encoding": "png"},
        {"annotations": "move"},
        {"annotation_block": (0, 1, 1)},
        {"voxel_size": (-1, 1, 1)},
    ],
)
def test_impossible_options_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        options(**changes)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32"])
def test_statistics_are_those_of_every_voxel(tmp_path: Path, dtype: str) -> None:
    voxels = volume(64, 70, 9, dtype)
    if dtype == "float32":
        voxels[3, :10] = np.nan
        voxels[4, 0, 0] = np.inf
    convert(
        str(write_planes(tmp_path / "planes", voxels)), tmp_path / "made", options(levels=2, chunk_size=(16, 16, 8))
    )
    finite = np.sort(voxels[np.isfinite(voxels)])
    (channel,) = read_statistics(tmp_path / "made")["channels"]
    assert (channel["min"], channel["max"]) == (finite[0].item(), finite[-1].item())
    for name, percent in (("p01", 0.01), ("p998", 0.998)):
        exact = finite[round(percent * (finite.size - 1))]
        tolerance = 0 if np.dtype(dtype).itemsize <= 2 else abs(exact) / 128
        assert abs(channel[name] - float(exact)) <= tolerance
    assert sum(channel["counts"]) == finite.size
    assert len(channel["edges"]) == len(channel["counts"]) + 1
    if np.dtype(dtype).itemsize <= 2:
        expected, _ = np.histogram(voxels, channel["edges"])
        assert channel["counts"] == expected.tolist()


def test_progress_counts_every_chunk(tmp_path: Path) -> None:
    seen: list[Status] = []
    source = write_planes(tmp_path / "planes", volume(70, 65, 20))
    summary = convert(str(source), tmp_path / "made", options(chunk_size=(16, 16, 16)), seen.append)
    assert (seen[-1].chunks, seen[-1].total_chunks) == (summary.chunks, summary.chunks)
    assert seen[-1].bytes == seen[-1].total_bytes == 70 * 65 * 20 * 2
    assert summary.bytes == sum(len(data) for name, data in files_of(tmp_path / "made").items() if ".tiff" in name)


def test_a_stack_of_one_plane_without_spacing_is_asked_for_z(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "one.tif", volume(8, 8, 1)[0], resolution=(10_000, 10_000), resolutionunit=3)
    with pytest.raises(InvalidInput, match="voxel size of z"):
        convert(str(tmp_path), tmp_path / "made", options(voxel_size=parse_edges(",,")))
