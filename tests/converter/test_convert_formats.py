"""Conversions into every format: the levels are the same, and one format takes the place of another."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from converter import convert
from converter.cli import precomputed_tif
from converter.pyramid.journal import Done
from converter.pyramid.target import Pack
from converter.writers.sharded import ShardedWriter
from precomputed_server.errors import DestinationExists, InvalidInput
from precomputed_server.format.info import ScaleInfo
from tests.converter.stacks import files_of, options, read_info, read_level, volume, write_planes
from tests.converter.written import cloud_volume_reads, tensorstore_reads, tensorstore_reads_zarr

CHUNK = (16, 16, 8)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_planes(tmp_path_factory.mktemp("planes"), volume(45, 34, 21, "uint32"))


@pytest.fixture(scope="module")
def reference(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pyramid as plain chunks."""
    made = tmp_path_factory.mktemp("reference") / "made"
    convert(str(source), made, options(chunk_size=CHUNK, format="raw"))
    return made


@pytest.mark.parametrize("encoding", ["raw", "compressed_segmentation"])
@pytest.mark.parametrize("jobs", [1, 3])
def test_sharded_levels(
    source: Path, reference: Path, tmp_path: Path, encoding: str, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.pyramid.build._TOO_LITTLE_FOR_PROCESSES", 0)
    made = tmp_path / "made"
    labels = encoding == "compressed_segmentation"
    averaged = {"segmentation": labels, "downsample_method": "average"}
    convert(str(source), made, options(chunk_size=CHUNK, format="sharded", encoding=encoding, jobs=jobs, **averaged))
    for level, scale in enumerate(read_info(made)["scales"]):
        expected = read_level(reference, level)
        np.testing.assert_array_equal(tensorstore_reads(made, level), expected)
        np.testing.assert_array_equal(cloud_volume_reads(made, level), expected)
        assert [path.suffix for path in (made / scale["key"]).iterdir()] == [".shard"]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_conversion_that_was_interrupted_while_packing_ends_the_same(
    source: Path, tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ShardedWriter, "described", _small_shards(ShardedWriter.described))
    wanted = options(chunk_size=CHUNK, format="sharded")
    convert(str(source), tmp_path / "whole" / "made", wanted)
    packed: list[int] = []

    def run(task: Pack) -> Done:
        if len(packed) == count:
            raise KeyboardInterrupt
        packed.append(task.number)
        return pack(task)

    pack = Pack.run
    with monkeypatch.context() as stopping:
        stopping.setattr(Pack, "run", run)
        with pytest.raises(KeyboardInterrupt):
            convert(str(source), tmp_path / "made", wanted)
    assert files_of(tmp_path / "made") == {}
    convert(str(source), tmp_path / "made", wanted)
    expected = files_of(tmp_path / "whole" / "made")
    assert files_of(tmp_path / "made").keys() == expected.keys()
    for name in expected:
        if name.endswith(".shard") or name == "info":
            assert files_of(tmp_path / "made")[name] == expected[name]
    assert len([name for name in expected if name.startswith("1_1_1/")]) > 4


Described = Callable[[ShardedWriter, ScaleInfo, int], ScaleInfo]


def _small_shards(described: Described) -> Described:
    return lambda writer, scale, level: described(replace(writer, shard_bytes=4 * writer.chunk_bytes), scale, level)


def test_chunks_of_planes_that_cannot_be_read_are_left_out_of_their_shards(tmp_path: Path) -> None:
    voxels = volume(20, 17, 9, "uint8") | 1
    planes = write_planes(tmp_path / "planes", voxels, compression="zlib")
    damaged = planes / "img_7.tif"
    damaged.write_bytes(damaged.read_bytes()[:-100] + bytes(100))
    wanted = options(chunk_size=(8, 8, 2), format="sharded", levels=1, on_error="skip")
    summary = convert(str(planes), tmp_path / "made", wanted)
    assert len(summary.unreadable) == 1
    found = tensorstore_reads(tmp_path / "made")[0]
    left_out = np.flatnonzero((found == 0).all(axis=(1, 2)))
    assert left_out.tolist() == [6, 7]
    there = [z for z in range(9) if z not in left_out]
    np.testing.assert_array_equal(found[there], voxels[there])


def test_zarr_levels_lie_where_info_and_ome_say(source: Path, reference: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    convert(str(source), made, options(chunk_size=CHUNK, format="zarr"))
    assert read_info(made) == read_info(reference)
    (image,) = json.loads((made / ".zattrs").read_text())["multiscales"]
    for level, dataset in enumerate(image["datasets"]):
        np.testing.assert_array_equal(tensorstore_reads_zarr(made / dataset["path"]), read_level(reference, level)[0])
    channel = json.loads((made / "statistics.json").read_text())["channels"][0]
    (shown,) = json.loads((made / ".zattrs").read_text())["omero"]["channels"]
    assert (shown["window"]["start"], shown["window"]["end"]) == (channel["p01"], channel["p998"])


def test_zarr_has_the_names_and_colours_that_the_source_has(tmp_path: Path) -> None:
    voxels = np.stack([volume(20, 17, 9, seed=channel) for channel in range(2)])
    names = {"Name": ["GFP", "DAPI"], "Color": [0x00FF00FF, 0x0000FFFF]}
    metadata = {"axes": "CZYX", "Channel": names}
    tifffile.imwrite(tmp_path / "two.ome.tif", voxels, ome=True, photometric="minisblack", metadata=metadata)
    convert(str(tmp_path / "two.ome.tif"), tmp_path / "made", options(format="zarr"))
    shown = json.loads((tmp_path / "made" / ".zattrs").read_text())["omero"]["channels"]
    assert [(channel["label"], channel["color"]) for channel in shown] == [("GFP", "00FF00"), ("DAPI", "0000FF")]


def test_labels_are_labels_in_zarr_too(source: Path, tmp_path: Path) -> None:
    convert(str(source), tmp_path / "made", options(format="zarr", segmentation=True))
    attributes = json.loads((tmp_path / "made" / ".zattrs").read_text())
    assert attributes["image-label"] == {"version": "0.4"}
    assert "omero" not in attributes


@pytest.mark.parametrize(("name", "first", "rank"), [("zarr", "1_1_1", 3), ("ngff", "0", 5)])
def test_the_drop_in_writes_the_predecessors_trees(name: str, first: str, rank: int, tmp_path: Path) -> None:
    voxels = volume(20, 17, 9)
    source = write_planes(tmp_path / "planes", voxels)
    flags = ["--source", f"{source}/*.tif", "--dest", f"{tmp_path}/made", "--format", name, "--levels", "2"]
    result = CliRunner().invoke(precomputed_tif, flags, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    array = tensorstore_reads_zarr(tmp_path / "made" / first)
    assert array.ndim == rank
    np.testing.assert_array_equal(array.reshape(voxels.shape), voxels)
    assert [scale["key"] for scale in read_info(tmp_path / "made")["scales"]][0] == first


def test_one_format_takes_the_place_of_another(source: Path, tmp_path: Path) -> None:
    for name in ("zarr", "sharded", "ngff", "tiff", "zarr", "raw"):
        convert(str(source), tmp_path / "made", options(chunk_size=CHUNK, format=name, overwrite=True))
        alone = tmp_path / name / "made"
        if not alone.exists():
            convert(str(source), alone, options(chunk_size=CHUNK, format=name))
        assert files_of(tmp_path / "made") == files_of(alone), name


def test_attributes_that_somebody_else_wrote_stay(source: Path, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / ".zattrs").write_text("{}")
    with pytest.raises(DestinationExists, match=r"\.zattrs was not written by this program"):
        convert(str(source), tmp_path / "made", options(format="zarr", overwrite=True))
    convert(str(source), tmp_path / "made", options(overwrite=True))
    assert (tmp_path / "made" / ".zattrs").read_text() == "{}"


def test_what_an_encoding_cannot_hold_is_said_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="1 or 3 channels of uint8, not 1 of uint32"):
        convert(str(source), tmp_path / "made", options(format="raw", encoding="jpeg"))
    assert not (tmp_path / "made").exists()


def test_the_same_stack_as_the_predecessor_wrote_it(shared_data: Path, tmp_path: Path) -> None:
    """Its zarr and ours are the same arrays, chunk files included."""
    convert(
        str(shared_data / "banana"),
        tmp_path / "made",
        options(format="zarr", levels=1, voxel_size=(None, None, options().voxel_size[2])),
    )
    old, new = shared_data / "legacy" / "banana_zarr" / "1_1_1", tmp_path / "made" / "1_1_1"
    np.testing.assert_array_equal(tensorstore_reads_zarr(new), tensorstore_reads_zarr(old))
    assert {path.relative_to(new) for path in new.rglob("*")} == {path.relative_to(old) for path in old.rglob("*")}
    assert json.loads((new / ".zarray").read_text()) == json.loads((old / ".zarray").read_text())
