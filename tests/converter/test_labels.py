"""Labels, called so or not, and data types that hold every value of the planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from converter import convert
from converter.cli import convert as convert_command
from converter.cli_inspect import inspect
from precomputed_server.errors import InvalidInput
from tests.converter import reference
from tests.converter.stacks import options, read_info, read_level, volume, write_planes
from tests.converter.written import tensorstore_reads

COMPACT = {"format": "raw", "encoding": "compressed_segmentation", "chunk_size": (8, 8, 8)}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "bool"])
def test_labels_of_few_bits_become_what_compressed_segmentation_holds(tmp_path: Path, dtype: str) -> None:
    voxels = volume(20, 18, 10, "uint16").astype(dtype) if dtype != "bool" else volume(20, 18, 10, "uint8") > 100
    source = str(write_planes(tmp_path / "planes", voxels))
    convert(source, tmp_path / "made", options(**COMPACT, segmentation=True, levels=2, downsample=(2, 2, 2)))
    assert read_info(tmp_path / "made")["data_type"] == "uint32"
    np.testing.assert_array_equal(tensorstore_reads(tmp_path / "made")[0], voxels)
    coarser = reference.mode(voxels.astype("uint32")[np.newaxis], (2, 2, 2))
    np.testing.assert_array_equal(tensorstore_reads(tmp_path / "made", 1), coarser)


def test_compressed_segmentation_of_what_nobody_called_labels_is_refused(tmp_path: Path) -> None:
    source = str(write_planes(tmp_path / "planes", volume(8, 8, 2, "uint32")))
    with pytest.raises(InvalidInput, match="is for labels; add --segmentation"):
        convert(source, tmp_path / "made", options(**COMPACT))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("source", "target"),
    [("uint8", "uint16"), ("uint8", "int16"), ("uint8", "float32"), ("uint16", "uint32"), ("uint16", "float32")]
    + [("uint16", "uint64"), ("uint32", "uint64"), ("int8", "int32"), ("int16", "float32"), ("bool", "uint32")],
)
def test_every_value_is_kept_in_a_type_that_holds_them_all(tmp_path: Path, source: str, target: str) -> None:
    voxels = volume(9, 8, 4, "uint8") > 100 if source == "bool" else volume(9, 8, 4, source)
    planes = str(write_planes(tmp_path / "planes", voxels))
    convert(planes, tmp_path / "made", options(dtype=target))
    found = read_level(tmp_path / "made", 0)[0]
    assert found.dtype == target
    np.testing.assert_array_equal(found, voxels)


@pytest.mark.parametrize(
    ("source", "target"), [("uint16", "int16"), ("uint32", "float32"), ("int8", "uint8"), ("uint32", "int32")]
)
def test_a_type_that_does_not_hold_all_values_is_refused(tmp_path: Path, source: str, target: str) -> None:
    planes = str(write_planes(tmp_path / "planes", volume(9, 8, 4, source)))
    with pytest.raises(InvalidInput, match=f"{source} planes cannot become {target}"):
        convert(planes, tmp_path / "made", options(dtype=target))


def test_what_looks_like_labels_is_warned_of(tmp_path: Path) -> None:
    source = str(write_planes(tmp_path / "planes", volume(80, 80, 4, "uint32")))
    always = ["--voxel-size", "1,1,1", "--jobs", "1", "--overwrite"]

    def said(*flags: str) -> str:
        return CliRunner().invoke(convert_command, [source, str(tmp_path / "made"), *always, *flags]).stderr

    sentence = "The voxels are uint32, as labels often are; if they are labels, use --segmentation"
    assert f"Warning: {sentence}" in said()
    assert "Warning" not in said("--segmentation")
    assert "Warning" not in said("--downsample-method", "average")
    assert sentence in CliRunner().invoke(inspect, [source]).stdout
