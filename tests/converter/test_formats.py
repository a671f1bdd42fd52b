"""Every output format, read voxel by voxel by programs that are not ours."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import tifffile

from converter.writers import FORMATS, Output, Voxels, read_chunk, write_chunk, writer
from precomputed_server.errors import InvalidInput, Unreadable
from precomputed_server.format.geometry import Box, Vector
from precomputed_server.format.grid import cell_box
from precomputed_server.format.info import DATA_TYPES, VolumeInfo
from tests.converter.stacks import files_of
from tests.converter.written import (
    CHUNKS_PER_SHARD,
    Array,
    cloud_volume_reads,
    stored,
    tensorstore_reads,
    tensorstore_reads_zarr,
    within,
    write,
    writer_and_scale,
)
from tests.data import volume

LOSSLESS = [
    Output(name, compress, encoding)
    for name, known in FORMATS.items()
    for encoding in known.encodings
    for compress in known.compressions
    if encoding != "jpeg" and not (encoding == "png" and compress != "none")
]
HOLD = {"png": ("uint8", "uint16"), "compressed_segmentation": ("uint32", "uint64")}
EXTENTS = [((5, 9, 17), (0, 0, 0)), ((7, 8, 33), (3, 5, 7)), ((1, 1, 1), (0, 0, 0)), ((8, 16, 16), (0, 0, 0))]
"""Sizes z, y, x and offsets x, y, z, for chunks of 8 × 8 × 4 voxels."""


def named(output: Output) -> str:
    return f"{output.format}-{output.compression}-{output.encoding}"


def readings(output: Output, dataset: Path, voxels: Array, *, slow: bool) -> list[Array]:
    """What each program makes of a dataset that can read it as it lies on the disk; `slow` ones if wanted."""
    if output.format in ("zarr", "ngff"):
        return [tensorstore_reads_zarr(dataset / ("0" if output.format == "ngff" else "4_5_40")).reshape(voxels.shape)]
    if output.format == "tiff":
        return [assembled_by_tifffile(dataset, voxels.shape)]
    found = []
    if output.format == "sharded" or output.compression == "none":  # it does not look for NAME.gz: all zeros
        found.append(tensorstore_reads(dataset))
    # cloud-volume takes PNG by an extra of its own, mixes up the channels of images, crashes on several channels of
    # compressed_segmentation, and drops an axis of a single voxel.
    mixed_up = output.encoding == "png" or voxels[0].size == 1 or (output.encoding != "raw" and len(voxels) > 1)
    if not mixed_up and (slow or output.format != "sharded"):
        found.append(cloud_volume_reads(dataset))
    return found


def assembled_by_tifffile(dataset: Path, shape: tuple[int, ...]) -> Array:
    info = VolumeInfo.from_bytes((dataset / "info").read_bytes())
    (scale,) = info.scales
    voxels = np.empty(shape, info.dtype)
    for path in (dataset / scale.key).iterdir():
        (x0, x1), (y0, y1), (z0, z1) = ([int(end) for end in part.split("-")] for part in path.stem.split("_"))
        box = Box((x0, y0, z0), (x1, y1, z1))
        target = voxels[within(box, scale.voxel_offset)]
        target[...] = tifffile.imread(path).reshape(target.shape)
    return voxels.astype(info.dtype.newbyteorder("="))


@pytest.mark.parametrize("output", LOSSLESS, ids=named)
def test_what_is_written_is_what_others_read(output: Output, tmp_path: Path) -> None:
    for number, data_type in enumerate(HOLD.get(output.encoding, DATA_TYPES)):
        for channels, (size, offset) in product((1, 2, 3), EXTENTS if number == 0 else EXTENTS[:1]):
            dataset = tmp_path / f"{data_type}_{channels}_{size[2]}"
            voxels = volume((channels, *size), data_type, seed=number)
            made, info = write(dataset, voxels, output, offset=offset)
            for found in (stored(made, dataset, info), *readings(output, dataset, voxels, slow=number == 0)):
                assert found.dtype == voxels.dtype
                np.testing.assert_array_equal(found, voxels, f"{dataset.name} {made}")


@pytest.mark.parametrize("name", ["raw", "sharded"])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_differs_by_little_and_is_what_a_client_sees(name: str, channels: int, tmp_path: Path) -> None:
    z, y, x = np.mgrid[0:9, 0:20, 0:33]
    voxels = np.stack([120 + 100 * np.sin((x + 2 * y + 3 * z + 9 * c) / 12) for c in range(channels)]).astype(np.uint8)
    made, info = write(tmp_path / "made", voxels, Output(name, encoding="jpeg", jpeg_quality=95))
    assert made.lossy
    found = stored(made, tmp_path / "made", info)
    assert 0 < np.abs(found.astype(int) - voxels).max() <= 16
    assert np.abs(found.astype(int) - voxels).mean() < 2
    others = [tensorstore_reads(tmp_path / "made")]
    if channels == 1:  # cloud-volume takes the samples of three channels for planes
        others.append(cloud_volume_reads(tmp_path / "made"))
    for other in others:
        assert np.abs(other.astype(int) - found).max() <= 1  # decoders may round differently
    assert info.scales[0].to_json()["jpeg_quality"] == 95


@pytest.mark.parametrize("output", LOSSLESS, ids=named)
def test_bytes_depend_on_nothing_but_the_chunk(output: Output, tmp_path: Path) -> None:
    data_type = HOLD.get(output.encoding, ("int16",))[0]
    voxels = volume((2, 9, 17, 21), data_type)
    first, _ = write(tmp_path / "a", voxels, output)
    second, _ = write(tmp_path / "b", np.asfortranarray(voxels), output)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert pickle.loads(pickle.dumps(first)) == second


def test_shards_hold_neighbours_and_nothing_else_is_left(tmp_path: Path) -> None:
    write(tmp_path / "made", volume((1, 17, 40, 40), "uint8"), Output("sharded"))
    (scale,) = json.loads((tmp_path / "made" / "info").read_text())["scales"]
    chunks, names = 5 * 5 * 5, [path.name for path in (tmp_path / "made" / "4_5_40").iterdir()]
    assert chunks / CHUNKS_PER_SHARD <= len(names) <= chunks // 2
    assert scale["sharding"]["preshift_bits"] == 2
    digits = -(-scale["sharding"]["shard_bits"] // 4)
    assert {(len(name), name[digits:]) for name in names} == {(digits + 6, ".shard")}


@pytest.mark.parametrize("moment", ["while writing", "while removing", "before removing"])
def test_packing_that_was_interrupted_ends_the_same(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voxels = volume((1, 9, 17, 33), "uint16")
    write(tmp_path / "whole", voxels, Output("sharded"))

    def partly(directory: Path) -> None:
        if moment == "while removing":
            next(iter(sorted(directory.iterdir()))).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        place = "converter.writers.sharded."
        if moment == "while writing":
            patched.setattr(place + "shard_index", partly_written)
        else:
            patched.setattr(place + "shutil.rmtree", partly)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "made", voxels, Output("sharded"))
    made, scale = writer_and_scale(voxels, Output("sharded"))
    level = tmp_path / "made" / scale.key
    assert not list(level.glob(".*.tmp"))
    for number in made.packs(scale):
        made.pack(level, scale, number)
    assert files_of(tmp_path / "made") == {
        name: content for name, content in files_of(tmp_path / "whole").items() if name != "info"
    }


def partly_written(_: object) -> bytes:
    raise KeyboardInterrupt


def test_a_chunk_that_is_written_again_replaces_the_packed_one(tmp_path: Path) -> None:
    voxels = volume((1, 9, 17, 33), "uint16")
    made, info = write(tmp_path / "made", voxels, Output("sharded"))
    (scale,) = info.scales
    level, box = tmp_path / "made" / scale.key, cell_box(scale, (1, 1, 1))
    changed = voxels.copy()
    changed[within(box, (0, 0, 0))] = 7
    write_chunk(made, level, scale, box, changed[within(box, (0, 0, 0))])
    np.testing.assert_array_equal(read_chunk(made, level, scale, box, 1, info.dtype), 7)
    for number in made.packs(scale):
        made.pack(level, scale, number)
    np.testing.assert_array_equal(tensorstore_reads(tmp_path / "made"), changed)


def test_a_shard_is_not_made_while_a_chunk_is_missing(tmp_path: Path) -> None:
    voxels = volume((1, 9, 17, 33), "uint16")
    made, info = write(tmp_path / "made", voxels, Output("sharded"))
    (scale,) = info.scales
    level, box = tmp_path / "made" / scale.key, cell_box(scale, (0, 0, 0))
    shutil.rmtree(level)
    write_chunk(made, level, scale, box, voxels[within(box, (0, 0, 0))])
    with pytest.raises(Unreadable, match="cannot be read back"):
        made.pack(level, scale, 0)
    assert [path.name for path in level.iterdir()] == [".chunks"]


@pytest.mark.parametrize("output", [*LOSSLESS, Output("raw", encoding="jpeg")], ids=named)
def test_damaged_chunks_are_told_from_good_ones(output: Output, tmp_path: Path) -> None:
    data_type = HOLD.get(output.encoding, ("uint8",))[0]
    voxels = volume((1, 4, 8, 8), data_type)
    made, info = write(tmp_path / "made", voxels, output)
    (scale,) = info.scales
    box = scale.bounds
    good = made.stored(tmp_path / "made" / scale.key, scale, box)
    for bad in (b"", good[:-3], good[: len(good) // 2], b"not this"):
        with pytest.raises(Unreadable):
            made.decode(bad, box, 1, info.dtype)
    made.decode(good, box, 1, info.dtype)


def test_a_zarr_tree_tells_where_each_level_lies(tmp_path: Path) -> None:
    voxels = volume((2, 5, 9, 17), "uint16")
    write(tmp_path / "made", voxels, Output("zarr"), offset=(3, 5, 7))
    attributes = json.loads((tmp_path / "made" / ".zattrs").read_text())
    (image,) = attributes["multiscales"]
    assert [axis["name"] for axis in image["axes"]] == ["c", "z", "y", "x"]
    (level,) = image["datasets"]
    scale, translation = level["coordinateTransformations"]
    assert level["path"] == "4_5_40"
    assert scale["scale"] == [1, 0.04, 0.005, 0.004]
    np.testing.assert_allclose(translation["translation"], [0, 7 * 0.04, 5 * 0.005, 3 * 0.004])
    assert [channel["label"] for channel in attributes["omero"]["channels"]] == ["dye 0", "dye 1"]
    assert json.loads((tmp_path / "made" / ".zgroup").read_text()) == {"zarr_format": 2}
    array = json.loads((tmp_path / "made" / "4_5_40" / ".zarray").read_text())
    assert (array["shape"], array["chunks"]) == ([2, 5, 9, 17], [2, 4, 8, 8])
    assert (array["dimension_separator"], array["fill_value"]) == ("/", 0)
    assert (tmp_path / "made" / "4_5_40" / "0" / "1" / "1" / "2").is_file()


REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: Output("blockfs"), "blockfs is read but not written; --format sharded"),
    (lambda: Output("tif"), "cannot be written; use --format tiff, raw, sharded, zarr or ngff"),
    (lambda: Output("tiff", "gzip"), "not compressed by gzip; use --compress deflate or zstd"),
    (lambda: Output("tiff", encoding="png"), "has no encoding png; use --format raw or sharded"),
    (lambda: Output("zarr", encoding="jpeg"), "has no encoding jpeg; use --format raw or sharded"),
    (lambda: Output("raw", encoding="webp"), "has no encoding webp; use --encoding raw, jpeg"),
    (lambda: Output("sharded", "zstd"), "not compressed by zstd; use --compress gzip or none"),
    (lambda: Output("raw", "gzip", "jpeg"), "compressed already; leave --compress out"),
    (lambda: Output("raw", encoding="jpeg", jpeg_quality=0), "--jpeg-quality 0 is not from 1 to 100"),
    (lambda: Output("sharded", shard_size=0), "--shard-size 0"),
    (lambda: chosen("jpeg", "uint16", 1), "1 or 3 channels of uint8, not 1 of uint16; use --encoding raw"),
    (lambda: chosen("jpeg", "uint8", 2), "not 2 of uint8"),
    (lambda: chosen("jpeg", "uint8", 1, (64, 512, 128)), "up to 65535; use smaller chunks"),
    (lambda: chosen("png", "float32", 1), "not 1 of float32"),
    (lambda: chosen("png", "uint8", 5), "1 to 4 channels"),
    (lambda: chosen("compressed_segmentation", "int32", 1), "not int32; use --encoding raw"),
    (lambda: chosen("compressed_segmentation", "uint64", 1, (256, 256, 256)), "use smaller chunks"),
]


@pytest.mark.parametrize(("choice", "sentence"), REFUSED)
def test_what_cannot_be_written_is_refused_with_what_can(choice: Callable[[], object], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        choice()


def chosen(encoding: str, data_type: str, channels: int, chunk_size: Vector = (64, 64, 64)) -> object:
    return writer(Output("raw", encoding=encoding), Voxels(np.dtype(data_type), channels, chunk_size))
