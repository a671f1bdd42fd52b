"""What is taken of a source arrives in the dataset: channels, times, crops, turned axes, windows, layers."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
from click.testing import CliRunner, Result

from converter.cli import convert
from converter.event_log import EventLog
from converter.output.destination import Destination
from converter.split import channel_layers
from converter.stacks.channels import Channel
from precomputed_server.errors import DestinationExists, InvalidInput, SourceError
from tests.converter import reference
from tests.converter.acquisitions import block, plane, write_pages
from tests.converter.stacks import SHARED_DATA, Array, read_info, read_level, read_record, volume, write_planes

PATTERN = "img_{c}_t{t}_z{z}.tif"
FLAGS = "--voxel-size 1,1,1 --jobs 1"


def _converted(*arguments: object) -> Result:
    result = CliRunner().invoke(convert, [*map(str, arguments), *FLAGS.split()])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def _opened(dataset: Path, level: int) -> Any:  # noqa: ANN401
    """A level of raw chunks as tensorstore reads it, with the axes x, y, z, channel."""
    store = {"driver": "file", "path": f"{dataset}/"}
    return tensorstore.open({"driver": "neuroglancer_precomputed", "kvstore": store, "scale_index": level}).result()


CROPS = ["3:37,5:30,1:11", "1:40,1:30,1:12", "8:24,8:24,4:8", "7:8,,", ",29:,"]


@pytest.mark.parametrize("crop", CROPS)
def test_a_crop_lies_where_it_lay_in_the_whole(tmp_path: Path, crop: str) -> None:
    """Against tensorstore's own downsampling of the finest level, which keeps voxels where they are as well."""
    voxels = volume(40, 30, 12)
    source, made = write_planes(tmp_path / "planes", voxels), tmp_path / "made"
    _converted(source, made, "--crop", crop, "--chunk-size", "8,8,4", "--format", "raw", "--downsample", "2,2,2")
    ends = [part.split(":") if part else ["", ""] for part in crop.split(",")]
    low = [int(start or 0) for start, _ in ends]
    high = [int(stop or length) for (_, stop), length in zip(ends, (40, 30, 12), strict=True)]
    info = read_info(made)
    assert info["scales"][0]["voxel_offset"] == low
    finest = _opened(made, 0)
    (x0, y0, z0), (x1, y1, z1) = low, high
    np.testing.assert_array_equal(finest[..., 0].read().result(), voxels[z0:z1, y0:y1, x0:x1].T)
    for level, scale in enumerate(info["scales"]):
        factor = [round(edge / 1000) for edge in scale["resolution"]]
        ours = _opened(made, level)
        assert ours.domain == tensorstore.downsample(finest, [*factor, 1], "mean").domain
        if level > 0:
            peer = tensorstore.downsample(_opened(made, level - 1), [2, 2, 2, 1], "mean")
            np.testing.assert_array_equal(ours.read().result(), peer.read().result())


@pytest.mark.parametrize("on_error", ["skip", "blank"])
def test_a_plane_whose_file_is_cut_off_is_left_out_or_0(tmp_path: Path, on_error: str) -> None:
    voxels = volume(20, 14, 9)
    source, made = write_planes(tmp_path / "planes", voxels), tmp_path / "made"
    (source / "img_5.tif").write_bytes((source / "img_5.tif").read_bytes()[:100])
    flags = "--levels 1 --chunk-size 20,14,3 --on-error"
    result = _converted(source, made, *flags.split(), on_error)
    assert "img_5.tif is not a readable TIFF" in result.stderr
    expected = voxels.copy()
    expected[5] = 0
    if on_error == "skip":
        names = {path.name.removesuffix(".tiff") for path in (made / "1_1_1").iterdir()}
        assert names == {"0-20_0-14_0-3", "0-20_0-14_6-9"}
    else:
        np.testing.assert_array_equal(read_level(made, 0)[0], expected)


def test_annotations_of_a_crop_have_one_block(tmp_path: Path) -> None:
    source = write_planes(tmp_path / "planes", volume(40, 30, 12))
    _converted(source, tmp_path / "made", "--crop", "10:20,10:20,2:")
    assert (tmp_path / "made" / "annotations" / "block_info.csv").read_text() == "20,20,12\n"


def test_labels_of_a_crop_are_those_of_most_voxels_that_exist(tmp_path: Path) -> None:
    labels = volume(21, 17, 9, "uint8") % 3
    source, made = write_planes(tmp_path / "planes", labels), tmp_path / "made"
    flags = "--crop 1:,1:,1: --segmentation --levels 2 --downsample 2,2,2 --format raw"
    _converted(source, made, *flags.split())
    kept = labels[1:, 1:, 1:][np.newaxis]
    assert read_info(made)["scales"][1]["voxel_offset"] == [0, 0, 0]
    first = reference.mode(kept[:, :1, :1, :1], (2, 2, 2))
    opened = _opened(made, 1).read().result()
    assert opened[0, 0, 0, 0] == first[0, 0, 0, 0]
    inner = reference.mode(kept[:, 1:, 1:, 1:], (2, 2, 2))
    np.testing.assert_array_equal(opened[1:, 1:, 1:, 0].T, inner[0])


@pytest.mark.parametrize(("transpose", "flip"), list(itertools.product(["yxz", "zxy", None], ["z", "xy", None])))
def test_axes_are_transposed_and_turned_round(tmp_path: Path, transpose: str | None, flip: str | None) -> None:
    voxels = volume(20, 14, 9)
    source, made = write_planes(tmp_path / "planes", voxels, compression="zlib"), tmp_path / "made"
    flags = (["--transpose", transpose] if transpose else []) + (["--flip", flip] if flip else [])
    result = CliRunner().invoke(convert, [str(source), str(made), "--voxel-size", "1,2,3", *flags])
    assert result.exit_code == 0, result.output
    order = transpose or "xyz"
    seen = voxels.T.transpose([("xyz").index(letter) for letter in order])
    seen = np.flip(seen, tuple("xyz".index(letter) for letter in flip or ""))
    np.testing.assert_array_equal(read_level(made, 0)[0].T, seen)
    edges = {"x": 1000, "y": 2000, "z": 3000}
    assert read_info(made)["scales"][0]["resolution"] == [edges[letter] for letter in order]


def test_values_are_fitted_into_a_window(tmp_path: Path) -> None:
    voxels = volume(20, 14, 3)
    source, made = write_planes(tmp_path / "planes", voxels), tmp_path / "made"
    _converted(source, made, "--dtype", "uint8", "--window", "1000,50000")
    expected = np.rint(np.clip((voxels.astype(float) - 1000) / 49000 * 255, 0, 255)).astype(np.uint8)
    assert read_info(made)["data_type"] == "uint8"
    np.testing.assert_array_equal(read_level(made, 0)[0], expected)
    for flags in ("--window 1,2", "--window 1,2 --dtype int8", "--window 1,2 --dtype uint8 --segmentation"):
        with pytest.raises(InvalidInput, match="--window"):
            _converted(source, tmp_path / "other", *flags.split())


@pytest.fixture
def acquired(tmp_path: Path) -> Path:
    """Two channels of two time points of five planes, as single files."""
    for (index, c), t, z in itertools.product(enumerate(["DAPI", "GFP 488"]), [1, 2], range(1, 6)):
        write_pages(tmp_path / "raw" / f"img_{c}_t{t}_z{z}.tif", [plane(t=t, c=index, z=z)])
    return tmp_path / "raw"


EXPECTED: Array = block(t=[2], c=[0, 1], z=range(1, 6))[0, 0]


def test_channels_become_the_channels_of_one_volume(tmp_path: Path, acquired: Path) -> None:
    made = tmp_path / "made"
    _converted(acquired, made, "--pattern", PATTERN, "--time", "2", "--expect", "z=5,c=2,t=2")
    assert read_info(made)["num_channels"] == 2
    np.testing.assert_array_equal(read_level(made, 0), EXPECTED)
    assert read_record(made, "dataset.json")["channels"] == [
        {"name": "DAPI", "color": None},
        {"name": "GFP 488", "color": None},
    ]
    _converted(acquired, tmp_path / "one", "--pattern", PATTERN, "--time", "2", "--channel", "GFP 488")
    np.testing.assert_array_equal(read_level(tmp_path / "one", 0), EXPECTED[1:])


def test_nothing_is_written_of_a_source_that_is_not_complete(tmp_path: Path, acquired: Path) -> None:
    (acquired / "img_DAPI_t2_z4.tif").unlink()
    made = tmp_path / "made"
    with pytest.raises(SourceError, match="1 plane lacks: t = 2 c = DAPI z = 4"):
        _converted(acquired, made, "--pattern", PATTERN, "--time", "2", "--expect", "z=5,c=2")
    with pytest.raises(InvalidInput, match="choose one with --time"):
        _converted(acquired, made, "--pattern", PATTERN)
    assert not made.exists()


def test_channels_become_layers_of_one_dataset(tmp_path: Path, acquired: Path) -> None:
    made = tmp_path / "made"
    _converted(acquired, made, "--pattern", PATTERN, "--time", "2", "--split-channels")
    record = read_record(made, "dataset.json")
    assert [(layer["name"], layer["path"]) for layer in record["layers"]] == [("DAPI", "DAPI"), ("GFP 488", "GFP_488")]
    assert not (made / "info").exists()
    for layer, expected in zip(record["layers"], EXPECTED, strict=True):
        np.testing.assert_array_equal(read_level(made / layer["path"], 0), expected[np.newaxis])
    kept = {**record, "title": "mine", "tags": ["a"]}
    (made / ".precomputed" / "dataset.json").write_text(json.dumps(kept))
    one = ("--channel", "1", "--overwrite")
    _converted(acquired, made, "--pattern", PATTERN, "--time", "2", "--split-channels", *one)
    again = read_record(made, "dataset.json")
    assert (again["title"], again["id"], len(again["layers"])) == ("mine", record["id"], 1)
    _converted(acquired, tmp_path / "whole", "--pattern", PATTERN, "--time", "2")
    with pytest.raises(DestinationExists, match="is a volume"):
        _converted(acquired, tmp_path / "whole", "--pattern", PATTERN, "--time", "2", "--split-channels")


def test_the_same_command_converts_only_the_layers_that_are_not_finished(tmp_path: Path, acquired: Path) -> None:
    made, flags = tmp_path / "made", ("--pattern", PATTERN, "--time", "2", "--split-channels")
    _converted(acquired, made, *flags)
    kept = (made / "DAPI" / "info").stat().st_mtime_ns
    shutil.rmtree(made / "GFP_488")
    (made / ".precomputed" / "dataset.json").unlink()
    _converted(acquired, made, *flags)
    assert (made / "DAPI" / "info").stat().st_mtime_ns == kept
    assert len(read_record(made, "dataset.json")["layers"]) == 2
    np.testing.assert_array_equal(read_level(made / "GFP_488", 0), EXPECTED[1][np.newaxis])


def test_a_second_run_skips_every_layer_and_says_so(tmp_path: Path, acquired: Path) -> None:
    made, flags = tmp_path / "made", ("--pattern", PATTERN, "--time", "2", "--split-channels")
    _converted(acquired, made, *flags)
    before = {path: path.stat().st_mtime_ns for path in made.rglob("info")}
    record = read_record(made, "dataset.json")
    result = _converted(acquired, made, *flags)
    assert result.stdout == ""
    assert result.stderr.splitlines() == [f"{made}/{layer} was converted before" for layer in ("DAPI", "GFP_488")]
    said = [json.loads(line) for line in _converted(acquired, made, *flags, "--json").stdout.splitlines()]
    assert [(event["layer"], event["state"]) for event in said] == [
        (layer, state) for layer in ("DAPI", "GFP_488") for state in ("began", "skipped")
    ]
    assert {path: path.stat().st_mtime_ns for path in made.rglob("info")} == before
    assert read_record(made, "dataset.json") == record
    (acquired / "img_GFP 488_t2_z3.tif").touch()
    with pytest.raises(DestinationExists, match="DAPI is not empty"):
        _converted(acquired, made, *flags)


def test_events_name_the_layer(tmp_path: Path, acquired: Path) -> None:
    made, flags = tmp_path / "made", ("--pattern", PATTERN, "--time", "2", "--split-channels", "--json")
    said = [json.loads(line) for line in _converted(acquired, made, *flags).stdout.splitlines()]
    kept = [event for layer in ("DAPI", "GFP_488") for event in EventLog(Destination(made / layer).events).read()]
    for events in (said, kept):
        assert {(event["dataset"], event["layer"]) for event in events} == {(str(made), "DAPI"), (str(made), "GFP_488")}
        assert [event["layer"] for event in events if event["state"] == "done"] == ["DAPI", "GFP_488"]


def test_layers_have_directories_of_their_own() -> None:
    names = ["GFP", "gfp", "", "a/b", "../x", ".hidden", "annotations", "info", "µ", "GFP_2"]
    layers = channel_layers([(index, Channel(name)) for index, name in enumerate(names)])
    directories = [layer.directory for layer in layers]
    assert len({directory.lower() for directory in directories}) == len(names)
    assert directories[:6] == ["GFP", "gfp_2", "channel_2", "a_b", "x", "hidden"]
    assert not {"annotations", "info"} & set(directories)
    assert all(directory.isascii() and "/" not in directory for directory in directories)


@pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"the shared data set {SHARED_DATA} is absent")
def test_hela_channels_one_by_one(tmp_path: Path) -> None:
    source, made = SHARED_DATA / "hela_cells_3ch_uint16.tif", tmp_path / "made"
    _converted(source, tmp_path / "whole")
    _converted(source, made, "--split-channels")
    whole = read_level(tmp_path / "whole", 0)
    layers = read_record(made, "dataset.json")["layers"]
    assert [layer["path"] for layer in layers] == ["channel_0", "channel_1", "channel_2"]
    for channel, layer in zip(whole, layers, strict=True):
        np.testing.assert_array_equal(read_level(made / layer["path"], 0)[0], channel)
