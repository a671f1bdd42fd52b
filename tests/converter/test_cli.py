"""The two commands as a person types them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result

from converter.cli import convert, precomputed_tif
from precomputed_server.errors import DestinationExists, InvalidInput, PrecomputedError
from tests.converter.stacks import files_of, read_info, read_level, read_record, volume, write_planes


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_planes(tmp_path / "planes", volume(40, 30, 12))


def _convert(*arguments: object) -> Result:
    return CliRunner().invoke(convert, [str(argument) for argument in arguments])


def _tif(*arguments: object) -> Result:
    return CliRunner().invoke(precomputed_tif, [str(argument) for argument in arguments])


def test_a_directory_a_glob_and_an_expanded_list_give_the_same(tmp_path: Path, source: Path) -> None:
    flags = ("--voxel-size", "1,1,1", "--chunk-size", "16,16,8")
    paths = sorted(str(path) for path in source.iterdir())
    for name, sources in {"a": [str(source)], "b": [f"{source}/img_*.tif"], "c": paths}.items():
        result = _convert(*sources, tmp_path / name, *flags)
        assert result.exit_code == 0, result.output
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b") == files_of(tmp_path / "c")
    np.testing.assert_array_equal(read_level(tmp_path / "a", 0)[0], volume(40, 30, 12))


def test_every_flag_arrives(tmp_path: Path) -> None:
    labels = (volume(40, 30, 12, "uint8") % 5).astype(np.int64)
    source = write_planes(tmp_path / "planes", labels)
    made = tmp_path / "made"
    flags = "--voxel-size 0.1,0.2,0.3 --levels 3 --downsample 2,2,1 --chunk-size 16,8,4 --format raw --segmentation"
    flags += " --dtype uint64 --jobs 1 --annotation-block 10,20,5"
    result = _convert(source, made, *flags.split())
    assert result.exit_code == 0, result.output
    info = read_info(made)
    assert [scale["key"] for scale in info["scales"]] == ["1_1_1", "2_2_1", "4_4_1"]
    assert info["scales"][0]["resolution"] == [100, 200, 300]
    assert info["scales"][0]["chunk_sizes"] == [[16, 8, 4]]
    assert (info["type"], info["data_type"]) == ("segmentation", "uint64")
    assert (made / "1_1_1" / "0-16_0-8_0-4").stat().st_size == 16 * 8 * 4 * 8
    assert (made / "annotations" / "block_info.csv").read_text() == "10,20,5\n"


def test_the_end_says_what_was_made_and_a_log_has_few_lines(tmp_path: Path, source: Path) -> None:
    result = _convert(source, tmp_path / "made", "--voxel-size", "1,1,1", "--chunk-size", "4,4,4")
    assert "chunks" in result.stdout
    assert "levels" in result.stdout
    lines = result.stderr.splitlines()
    assert 1 <= len(lines) <= 21
    assert lines[-1].startswith("100 %")


def test_the_record_says_where_the_voxel_size_came_from(tmp_path: Path) -> None:
    source = tmp_path / "stack.tif"
    tifffile.imwrite(source, volume(8, 8, 4), imagej=True, resolution=(4, 2), metadata={"unit": "um", "axes": "ZYX"})
    assert _convert(source, tmp_path / "made", "--voxel-size", ",,3").exit_code == 0
    record = read_record(tmp_path / "made", "dataset.json")
    assert record["voxel_size"] == {"micrometres": [0.25, 0.5, 3.0], "source": ["ImageJ", "ImageJ", "given"]}
    assert (record["format"], record["title"], len(record["id"])) == (1, "made", 32)


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ("", "voxel size of x, y, z is not known"),
        ("--voxel-size 0,1,1", "greater than zero"),
        ("--voxel-size 1,1,-2", "greater than zero"),
        ("--voxel-size 1,1,nan", "greater than zero"),
        ("--voxel-size 1,1", "is not X,Y,Z"),
        ("--voxel-size 1,1,1 --levels 0", "--levels 0"),
        ("--voxel-size 1,1,1 --jobs 0", "0 processes"),
        ("--voxel-size 1,1,1 --chunk-size 0,1,1", "chunk size 0,1,1"),
        ("--voxel-size 1,1,1 --downsample 4,4,4", "--downsample 4,4,4"),
        ("--voxel-size 1,1,1 --dtype uint8", "uint16 planes cannot become uint8"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(tmp_path: Path, source: Path, flags: str, error: str) -> None:
    result = _convert(source, tmp_path / "made", *flags.split())
    assert isinstance(result.exception, InvalidInput)
    assert error in str(result.exception)
    assert "\n" not in str(result.exception)
    assert str(result.exception).endswith(".")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("flags", ["--chunk-size 1,2", "--compress lzw", "--downsample x", "--annotations move", ""])
def test_misspelt_flags_exit_2(tmp_path: Path, flags: str) -> None:
    assert _convert(*([tmp_path, tmp_path / "made"] if flags else []), *flags.split()).exit_code == 2


def test_overwrite_and_annotations(tmp_path: Path, source: Path) -> None:
    made, calls = tmp_path / "made", []
    flags = ("--voxel-size", "1,1,1")
    assert _convert(source, made, *flags).exit_code == 0
    assert isinstance(_convert(source, made, *flags).exception, DestinationExists)
    (made / "annotations" / "x0y0z0").mkdir()
    (made / "annotations" / "x0y0z0" / "fibers.json").write_text("[]")
    changed = [str(source), str(made), "--voxel-size", "2,2,2", "--overwrite"]
    result = CliRunner().invoke(convert, changed)
    assert isinstance(result.exception, InvalidInput)
    result = CliRunner().invoke(convert, [*changed, "--annotations", "transform"], obj=lambda *call: calls.append(call))
    assert result.exit_code == 0, result.output
    assert len(calls) == 1


def test_help_lists_every_flag() -> None:
    text = _convert("--help").output
    for flag in (
        "voxel-size",
        "levels",
        "downsample",
        "chunk-size",
        "format",
        "compress",
        "encoding",
        "segmentation",
        "jobs",
        "dtype",
    ):
        assert f"--{flag}" in text
    assert "SOURCE... DEST" in text


def test_the_drop_in_takes_the_predecessors_flags(tmp_path: Path, source: Path) -> None:
    made = tmp_path / "made"
    flags = "--levels 2 --format tiff --chunk-size 16,16,8 --voxel-size 1,1,4 --n-cores 1 --log INFO --segmentation"
    result = _tif("--source", f"{source}/*.tif", "--dest", made, *flags.split())
    assert result.exit_code == 0, result.output
    info = read_info(made)
    assert [scale["key"] for scale in info["scales"]] == ["1_1_1", "2_2_2"]
    assert info["scales"][1]["resolution"] == [2000, 2000, 8000]
    assert info["type"] == "segmentation"


def test_the_drop_in_makes_four_levels_and_assumes_with_a_warning(tmp_path: Path, source: Path) -> None:
    made = tmp_path / "made"
    result = _tif("--source", f"{source}/*.tif", "--dest", made)
    assert result.exit_code == 0, result.output
    assert [scale["key"] for scale in read_info(made)["scales"]] == ["1_1_1", "2_2_2", "4_4_4", "8_8_8"]
    assert "x = 1.8 µm, y = 1.8 µm, z = 2 µm assumed" in result.stderr
    assert read_record(made, "dataset.json")["voxel_size"] == {
        "micrometres": [1.8, 1.8, 2.0],
        "source": ["assumed", "assumed", "assumed"],
    }


@pytest.mark.parametrize(("name", "other"), [("blockfs", "sharded"), ("nonsense", "tiff")])
def test_the_drop_in_refuses_other_formats_and_names_one(tmp_path: Path, source: Path, name: str, other: str) -> None:
    result = _tif("--source", f"{source}/*.tif", "--dest", tmp_path / "made", "--format", name)
    assert isinstance(result.exception, InvalidInput)
    assert f"--format {other}" in str(result.exception)


def test_the_drop_in_replaces_what_it_made_when_told_to(tmp_path: Path, source: Path) -> None:
    flags = ("--source", f"{source}/*.tif", "--dest", tmp_path / "made", "--voxel-size", "1,1,1")
    assert _tif(*flags).exit_code == 0
    assert isinstance(_tif(*flags, "--levels", 2).exception, DestinationExists)
    assert _tif(*flags, "--levels", 2, "--overwrite").exit_code == 0
    assert len(read_info(tmp_path / "made")["scales"]) == 2


def test_the_drop_in_refuses_a_log_level_that_is_none(tmp_path: Path, source: Path) -> None:
    result = _tif("--source", source, "--dest", tmp_path / "made", "--log", "LOUD")
    assert isinstance(result.exception, PrecomputedError)


def _typed(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run `precomputed convert` as a process of its own."""
    command = [sys.executable, "-c", "from precomputed_server.cli import run; run()", "convert"]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_exit_codes_and_errors_of_one_sentence(tmp_path: Path, source: Path) -> None:
    made = tmp_path / "made"
    asked = _typed(source, made)
    assert (asked.returncode, asked.stderr.count("\n")) == (2, 1)
    assert asked.stderr.startswith("Error: The voxel size of x, y, z is not known")
    assert _typed(source, made, "--voxel-size", "1,1,1").returncode == 0
    again = _typed(source, made, "--voxel-size", "1,1,1")
    assert (again.returncode, again.stderr.count("\n")) == (2, 1)
    (source / "img_5.tif").write_bytes((source / "img_5.tif").read_bytes()[:300])
    broken = _typed(source, tmp_path / "other", "--voxel-size", "1,1,1")
    assert broken.returncode == 1
    assert "img_5.tif" in broken.stderr
    assert broken.stderr.count("\n") == 1
    assert not (tmp_path / "other").exists()
