"""`precomputed inspect`: what was understood is told, and nothing is written."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result

from converter import convert
from converter.cli_inspect import inspect
from precomputed_server.errors import SourceError
from tests.converter.acquisitions import plane, voxels, write_pages
from tests.converter.stacks import SHARED_DATA, options, volume, write_planes

PATTERN = "img_{c}_t{t}_z{z}.tif"


def _inspected(*arguments: object) -> Result:
    result = CliRunner().invoke(inspect, [str(argument) for argument in arguments])
    assert isinstance(result.exception, SystemExit | None), result.exception
    return result


def _json(*arguments: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_inspected(*arguments, "--json").stdout)
    return found


def _rows(text: str) -> dict[str, str]:
    """The rows that a person reads, by their names."""
    return {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in text.splitlines()}


@pytest.fixture
def acquired(tmp_path: Path) -> Path:
    """Two channels of two time points of five planes, as single files."""
    for (index, c), t, z in itertools.product(enumerate(["DAPI", "GFP"]), [1, 2], range(1, 6)):
        write_pages(tmp_path / f"img_{c}_t{t}_z{z}.tif", [plane(t=t, c=index, z=z)], compression="zlib")
    return tmp_path


def test_a_person_reads_what_was_understood(acquired: Path) -> None:
    result = _inspected(acquired, "--pattern", PATTERN, "--voxel-size", ",,2")
    rows = _rows(result.stdout)
    assert rows["source"] == f"{acquired}: 20 files, 20 planes"
    assert rows["x, y"] == "8 × 6 pixels, uint16"
    assert rows["z"] == "5, from file names: 1–5"
    assert rows["t"] == "2, from file names: 1–2"
    assert rows["c"] == "2, from file names"
    assert (rows["channel 0"], rows["channel 1"]) == ("DAPI", "GFP")
    assert rows["stored"] == "deflate, 1 strip (20 planes)"
    assert rows["voxel size"] == "z = 2 µm (given)"
    assert rows["dataset"] == "8 × 6 × 5 voxels, uint16, 2 channels"
    assert "processes" in rows["takes about"] or "process" in rows["takes about"]
    needed = [line for line in result.stdout.splitlines() if line.startswith("needed")]
    assert len(needed) == 2
    assert "choose one with --time" in needed[0]
    assert "add --voxel-size X,Y," in needed[1]
    assert result.exit_code == 0


def test_a_program_reads_the_same(acquired: Path) -> None:
    before = sorted(acquired.iterdir())
    flags = (
        "--time",
        "2",
        "--channel",
        "GFP",
        "--crop",
        "2:7,,1:",
        "--flip",
        "z",
        "--dtype",
        "uint8",
        "--window",
        "0,9",
    )
    found = _json(acquired, "--pattern", PATTERN, "--voxel-size", "1,1,2", *flags)
    assert found["axes"]["z"] == {"length": 5, "from": "file names", "labels": [1, 2, 3, 4, 5]}
    assert found["axes"]["x"]["length"] == 8
    assert [channel["name"] for channel in found["channels"]] == ["DAPI", "GFP"]
    assert found["storage"] == {"deflate, 1 strip": 20}
    assert found["voxel_size"]["z"] == {"micrometres": 2.0, "from": "given"}
    dataset = {"size": [5, 6, 4], "voxel_offset": [2, 0, 1], "data_type": "uint8", "num_channels": 1}
    assert found["dataset"] == dataset
    assert found["estimate"]["raw_bytes"] == 5 * 6 * 4
    assert (found["problems"], found["needed"], found["missing"]) == ([], [], [])
    assert sorted(acquired.iterdir()) == before


def test_what_lacks_what_is_there_twice_and_what_is_damaged_is_told(acquired: Path) -> None:
    (acquired / "img_GFP_t1_z4.tif").unlink()
    write_pages(acquired / "img_GFP_t1_z05.tif", [plane()])
    (acquired / "img_DAPI_t1_z2.tif").write_bytes(b"II*\0")
    result = _inspected(acquired, "--pattern", PATTERN, "--time", "1", "--expect", "z=6,c=2", "--voxel-size", "1,1,1")
    rows = _rows(result.stdout)
    assert result.exit_code == 1
    assert rows["missing"] == "1 plane: t = 1 c = GFP z = 4"
    assert "img_GFP_t1_z05.tif and" in rows["twice"]
    assert "img_DAPI_t1_z2.tif is not a readable TIFF" in rows["unreadable"]
    assert "is not what --expect says: z is 5, not 6 (1 is missing before 1 or after 5); 1 plane lacks" in result.stdout
    found = _json(acquired, "--pattern", PATTERN, "--time", "1")
    assert found["missing"] == [{"p": 0, "t": 1, "c": "GFP", "z": 4}]
    assert found["missing_count"] == 1
    assert found["storage"] == {"deflate, 1 strip": 17, "uncompressed, in one piece": 1}
    assert len(found["duplicates"]) == 1
    assert len(found["unreadable"]) == 1


def test_the_estimate_is_near_to_what_is_written(tmp_path: Path) -> None:
    source = write_planes(tmp_path / "planes", volume(200, 150, 70) % 1000)
    estimated = _json(source, "--voxel-size", "1,1,1", "--jobs", "1")["estimate"]
    summary = convert(str(source), tmp_path / "made", options())
    assert estimated["deflated_bytes"] == pytest.approx(summary.bytes, rel=0.1)
    convert(str(source), tmp_path / "raw", options(format="raw"))
    stored = sum(path.stat().st_size for path in (tmp_path / "raw").glob("*_*_*/*"))
    assert estimated["raw_bytes"] == stored


def test_numbers_that_lack_without_a_pattern_are_a_note(tmp_path: Path) -> None:
    source = write_planes(tmp_path, volume(8, 8, 9))
    for z in (3, 5, 6):
        (tmp_path / f"img_{z}.tif").unlink()
    result = _inspected(source, "--voxel-size", "1,1,1")
    assert "note         The file names lack 3, 5–6; without --pattern" in result.stdout
    assert result.exit_code == 0


@pytest.mark.parametrize(("flags", "needed"), [
    ("--crop 0:9", "--crop keeps x from 0 up to 9"), ("--channel 7", "There is no channel 7"),
    ("--dtype uint8", "add --window LO,HI"), ("--window 1,2", "add --dtype uint8 or uint16"),
    ("--time 4", "There is no time point 4"),
])  # fmt: skip
def test_options_that_do_not_fit_are_told(tmp_path: Path, flags: str, needed: str) -> None:
    source = write_planes(tmp_path, volume(8, 8, 2))
    assert any(needed in sentence for sentence in _json(source, *flags.split())["needed"])


def test_planes_that_do_not_fit_together_are_a_problem(tmp_path: Path) -> None:
    source = write_planes(tmp_path, volume(8, 8, 3))
    tifffile.imwrite(tmp_path / "img_1.tif", np.zeros((8, 9), np.uint16))
    result = _inspected(source)
    assert result.exit_code == 1
    assert "img_1.tif is 9 × 8, but" in result.stdout


def test_without_a_readable_file_there_is_nothing_to_tell(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"")
    with pytest.raises(SourceError, match=r"a\.tif is not a readable TIFF"):
        CliRunner().invoke(inspect, [str(tmp_path)], catch_exceptions=False)


needs_shared = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"the shared data set {SHARED_DATA} is absent")


@needs_shared
@pytest.mark.parametrize(("name", "size", "channels", "storage", "known"), [
    ("banana", [384, 384, 25], 1, "uncompressed, in one piece", "xy"),
    ("cell_migration_48x130x130_uint16.tif", [130, 130, 48], 1, "uncompressed, in one piece", ""),
    ("hela_cells_3ch_uint16.tif", [672, 512, 1], 3, "uncompressed, in one piece", "xyz"),
    ("platynereis_labels_zyx_int32.tif", [256, 256, 103], 1, "deflate, strips of 64 rows", ""),
])  # fmt: skip
def test_real_stacks(name: str, size: list[int], channels: int, storage: str, known: str) -> None:
    found = _json(SHARED_DATA / name)
    assert found["dataset"]["size"] == size
    assert found["dataset"]["num_channels"] == channels == len(found["channels"])
    assert list(found["storage"]) == [storage]
    assert "".join(found["voxel_size"]) == known
    assert bool(found["needed"]) == (known != "xyz")
    assert found["problems"] == []


def _said(source: Path, *arguments: str) -> str:
    return CliRunner().invoke(inspect, [str(source), *arguments]).stdout


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (["img_GFP_t0_z1.tif", "img_GFP_t0_z2.tif", "img_RFP_t0_z1.tif", "img_RFP_t0_z2.tif"], "img_{c}_t0_z{z}.tif"),
        (["c1-T01-001.tif", "c1-T02-001.tif", "c2-T01-002.tif"], "c{c}-T{t}-{z}.tif"),
        (["a Slice1 ch00.ome.tif", "a Slice1 ch01.ome.tif", "a Slice2 ch00.ome.tif"], "a Slice{z} ch{c}.ome.tif"),
    ],
)
def test_a_pattern_is_suggested_where_names_tell_several_axes(tmp_path: Path, names: list[str], pattern: str) -> None:
    for name in names:
        write_pages(tmp_path / name, [plane()])
    sentence = f"The file names look like --pattern '{pattern}'; without it every file is another z."
    assert sentence in _said(tmp_path)
    given = _said(tmp_path, "--pattern", pattern)
    assert "look like" not in given
    assert "does not match" not in given


@pytest.mark.parametrize(
    "names",
    [
        ["img_1.tif", "img_2.tif"],
        ["a.tif", "b.tif"],
        ["x1_y1.tif", "x1_y2.tif", "x2_y1.tif"],
        ["run1_z1.tif", "z_2.tif"],
        ["img_z1_001.tif", "img_z2_002.tif"],
    ],
)
def test_no_pattern_is_suggested_where_nothing_is_plain(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        write_pages(tmp_path / name, [plane()])
    assert "look like" not in _said(tmp_path)


@pytest.mark.parametrize(("edges", "odd"), [("650,650,2000", "z = 2000"), ("1,1,1e-5", "z = 1e-05")])
def test_voxel_sizes_that_no_microscope_has_are_warned_of(tmp_path: Path, edges: str, odd: str) -> None:
    write_pages(tmp_path / "z.tif", [plane()])
    assert f"{odd} µm is below 0.1 nm or above 1 mm; --voxel-size is in µm" in _said(tmp_path, "--voxel-size", edges)
    assert "above 1 mm" not in _said(tmp_path, "--voxel-size", "0.0001,1000,1")


def test_numbers_that_are_no_brightness_are_noted_and_kept(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    tifffile.imwrite(tmp_path / "white.tif", pixels, photometric="miniswhite", metadata=None)
    assert "0 is white (MinIsWhite); values are taken as they are stored" in _said(tmp_path / "white.tif")
    table = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(tmp_path / "palette.tif", pixels, photometric="palette", colormap=table, metadata=None)
    assert "places in a table of colours; they are taken as numbers" in _said(tmp_path / "palette.tif")
    for name in ("white", "palette"):
        np.testing.assert_array_equal(voxels(tmp_path / f"{name}.tif")[0, 0], pixels)
