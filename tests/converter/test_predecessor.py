"""One test for each defect of precomputed-tif that the contract lists; the same command line where it matters."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from converter import convert
from converter.cli import precomputed_tif
from converter.pyramid.plan import plan_stage, pyramid_of, task_bytes
from converter.pyramid.scales import PyramidOptions, levels
from converter.stacks.voxel_size import parse_edges
from precomputed_server.errors import InvalidInput, SourceError
from precomputed_server.writing import replace_file
from tests.converter import reference
from tests.converter.stacks import chunk_names, options, read_info, read_level, read_record, volume, write_planes


def _run(source: Path, made: Path, *flags: str) -> None:
    arguments = ["--source", f"{source}/*.tif", "--dest", str(made), "--voxel-size", "1,1,1", *flags]
    result = CliRunner().invoke(precomputed_tif, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_predecessor_left_edge_chunks_of_coarser_levels_out(tmp_path: Path) -> None:
    """129³ in three levels: it wrote 29 of 36 chunks."""
    source = write_planes(tmp_path / "planes", volume(129, 129, 129, "uint8"))
    _run(source, tmp_path / "made", "--levels", "3")
    scales = read_info(tmp_path / "made")["scales"]
    promised = [f"{scale['key']}/{name}.tiff" for scale in scales for name in chunk_names(scale)]
    assert len(promised) == 27 + 8 + 1
    assert all((tmp_path / "made" / name).is_file() for name in promised)


def test_predecessor_made_floats_zero_from_the_second_level(tmp_path: Path) -> None:
    voxels = np.linspace(0.001, 0.999, 32 * 32 * 8, dtype=np.float32).reshape(8, 32, 32)
    _run(write_planes(tmp_path / "planes", voxels), tmp_path / "made", "--levels", "3")
    np.testing.assert_array_equal(read_level(tmp_path / "made", 1), reference.average(voxels[np.newaxis], (2, 2, 2)))
    assert read_level(tmp_path / "made", 2).min() > 0


def test_predecessor_truncated_averages(tmp_path: Path) -> None:
    """It made 101 of 101.5; halves go to the even neighbour here: 100.5 → 100, 101.5 → 102."""
    voxels = np.tile(np.array([100, 101, 101, 102, 101, 103, 100, 103], np.uint8), (2, 2, 1))
    _run(write_planes(tmp_path / "planes", voxels), tmp_path / "made", "--levels", "2")
    assert read_level(tmp_path / "made", 1).ravel().tolist() == [100, 102, 102, 102]


def test_predecessor_averaged_labels(tmp_path: Path) -> None:
    """It made 5 of the labels 1 and 9."""
    voxels = np.tile(np.array([[1, 9], [9, 9]], np.uint32), (2, 8, 8))
    _run(write_planes(tmp_path / "planes", voxels), tmp_path / "made", "--levels", "3", "--segmentation")
    for level in (1, 2):
        assert set(read_level(tmp_path / "made", level).ravel().tolist()) == {9}


def test_predecessor_misplaced_halves_of_odd_chunks(tmp_path: Path) -> None:
    voxels = volume(90, 80, 70)
    _run(write_planes(tmp_path / "planes", voxels), tmp_path / "made", "--levels", "3", "--chunk-size", "33,17,13")
    expected = voxels
    for level in range(3):
        np.testing.assert_array_equal(read_level(tmp_path / "made", level)[0], expected)
        expected = reference.fast_average(expected, (2, 2, 2))


def test_predecessor_rounded_162_5_nm_down(tmp_path: Path) -> None:
    source = write_planes(tmp_path / "planes", volume(8, 8, 4))
    _run(source, tmp_path / "made", "--voxel-size", "0.1625,0.1625,0.3")
    resolutions = [scale["resolution"] for scale in read_info(tmp_path / "made")["scales"]]
    assert resolutions == [[162.5, 162.5, 300], [325, 325, 600], [650, 650, 1200], [1300, 1300, 2400]]


def test_predecessor_failed_with_an_index_error_when_nothing_matched(tmp_path: Path) -> None:
    result = CliRunner().invoke(precomputed_tif, ["--source", f"{tmp_path}/*.tif", "--dest", str(tmp_path / "made")])
    assert isinstance(result.exception, InvalidInput)
    assert "No TIFF file matches" in str(result.exception)


def test_predecessor_sorted_img_10_before_img_2(tmp_path: Path) -> None:
    voxels = np.arange(12, dtype=np.uint8)[:, np.newaxis, np.newaxis] * np.ones((12, 4, 4), np.uint8)
    _run(write_planes(tmp_path / "planes", voxels), tmp_path / "made")
    assert read_level(tmp_path / "made", 0)[0, :, 0, 0].tolist() == list(range(12))


@pytest.mark.parametrize("odd", [np.zeros((8, 9), np.uint16), np.zeros((8, 8), np.uint8)])
def test_predecessor_checked_neither_shape_nor_data_type(tmp_path: Path, odd: np.ndarray) -> None:
    source = write_planes(tmp_path / "planes", volume(8, 8, 4))
    tifffile.imwrite(source / "img_2.tif", odd)
    with pytest.raises(SourceError, match=r"img_2.tif"):
        convert(str(source), tmp_path / "made", options())


def test_predecessor_wrote_info_before_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here whatever `info` names is in place when it appears."""
    made = tmp_path / "made"
    seen: list[tuple[str, int, bool]] = []

    def looking(path: Path, data: bytes) -> None:
        seen.append((path.name, len(list(made.glob("*_*_*/*.tiff"))), (made / "info").exists()))
        replace_file(path, data)

    monkeypatch.setattr("converter.output.swap.replace_file", looking)
    summary = convert(str(write_planes(tmp_path / "planes", volume(70, 8, 4))), made, options())
    assert seen[-1] == ("info", summary.chunks, False)


def test_predecessor_needed_51_gigabytes_for_large_planes() -> None:
    """64 planes of 20,000 × 20,000 are read in bands of rows, of which a task holds few."""
    made = levels((20_000, 20_000, 64), (parse_edges("1,1,1")), PyramidOptions(levels=2))  # type: ignore[arg-type]
    steps = tuple(level.step for level in made)
    pyramid = pyramid_of(tuple(level.scale for level in made), steps, 1, np.dtype(np.uint16))
    stage = plan_stage(pyramid, 0, 256 << 20, 2, lambda box: 0)
    assert stage is not None
    assert task_bytes(pyramid, stage, lambda box: 0) <= 256 << 20


def test_predecessor_guessed_the_voxel_size(tmp_path: Path) -> None:
    """The drop-in reads it where it is there, and says what it has assumed where it is not."""
    source, made = tmp_path / "stack.tif", tmp_path / "made"
    tifffile.imwrite(source, volume(8, 8, 4), imagej=True, resolution=(4, 4), metadata={"unit": "um", "axes": "ZYX"})
    result = CliRunner().invoke(precomputed_tif, ["--source", str(source), "--dest", str(made)], catch_exceptions=False)
    assert read_info(made)["scales"][0]["resolution"] == [250, 250, 2000]
    assert read_record(made, "dataset.json")["voxel_size"]["source"] == ["ImageJ", "ImageJ", "assumed"]
    assert "z = 2 µm assumed" in result.stderr
    with pytest.raises(InvalidInput, match="add --voxel-size ,,Z"):
        convert(str(source), tmp_path / "other", options(voxel_size=parse_edges(",,")))
    assert not os.path.exists(tmp_path / "other")
