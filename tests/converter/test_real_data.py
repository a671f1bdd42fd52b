"""Real stacks: see ../shared/data/README.md."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from converter import convert
from converter.cli import convert as command
from converter.stacks.voxel_size import parse_edges
from precomputed_server.errors import InvalidInput
from tests.converter import reference
from tests.converter.stacks import SHARED_DATA, options, read_info, read_level, read_record

pytestmark = pytest.mark.skipif(not SHARED_DATA.is_dir(), reason=f"the shared data set {SHARED_DATA} is absent")


def test_banana_takes_x_and_y_from_imagej_and_asks_for_z(tmp_path: Path) -> None:
    made = tmp_path / "made"
    with pytest.raises(InvalidInput, match=r"x = 390.625 µm \(ImageJ\).*--voxel-size ,,Z"):
        convert(str(SHARED_DATA / "banana"), made, options(voxel_size=parse_edges(",,")))
    result = CliRunner().invoke(command, [str(SHARED_DATA / "banana"), str(made), "--voxel-size", ",,8800"])
    assert result.exit_code == 0, result.output
    info = read_info(made)
    assert [scale["key"] for scale in info["scales"]] == ["1_1_1", "2_2_1", "4_4_1", "8_8_1"]
    assert info["scales"][0]["resolution"] == [390_625, 390_625, 8_800_000]
    names = sorted((SHARED_DATA / "banana").glob("*.tif"))
    expected = np.stack([tifffile.imread(name) for name in names])
    for level in range(4):
        np.testing.assert_array_equal(read_level(made, level)[0], expected)
        expected = reference.fast_average(expected, (2, 2, 1))


def test_platynereis_labels_invent_none(tmp_path: Path) -> None:
    source = SHARED_DATA / "platynereis_labels_zyx_int32.tif"
    convert(str(source), tmp_path / "made", options(segmentation=True, chunk_size=(64, 64, 32), levels=3))
    labels = tifffile.imread(source)
    np.testing.assert_array_equal(read_level(tmp_path / "made", 0)[0], labels)
    for level in (1, 2):
        assert set(np.unique(read_level(tmp_path / "made", level))) <= set(np.unique(labels))
    corner = (slice(None), slice(20, 60), slice(100, 140), slice(100, 140))
    halved = tuple(slice((part.start or 0) // 2, part.stop // 2) for part in corner[1:])
    expected = reference.mode(labels[np.newaxis][corner], (2, 2, 2))
    np.testing.assert_array_equal(read_level(tmp_path / "made", 1)[0][halved], expected[0])


def test_cell_migration_has_no_voxel_size_and_is_asked_for_it(tmp_path: Path) -> None:
    source = SHARED_DATA / "cell_migration_48x130x130_uint16.tif"
    with pytest.raises(InvalidInput, match=r"add --voxel-size X,Y,Z"):
        convert(str(source), tmp_path / "made", options(voxel_size=parse_edges(",,")))
    convert(str(source), tmp_path / "made", options())
    np.testing.assert_array_equal(read_level(tmp_path / "made", 0)[0], tifffile.imread(source))


def test_hela_has_three_channels_and_its_own_voxel_size(tmp_path: Path) -> None:
    source, made = SHARED_DATA / "hela_cells_3ch_uint16.tif", tmp_path / "made"
    convert(str(source), made, options(voxel_size=parse_edges(",,")))
    info = read_info(made)
    assert info["num_channels"] == 3
    np.testing.assert_allclose(info["scales"][0]["resolution"], [1000 / 19.420064] * 3, rtol=1e-6)
    assert read_record(made, "dataset.json")["voxel_size"]["source"] == ["ImageJ"] * 3
    planes = tifffile.imread(source).transpose(2, 0, 1)[:, np.newaxis]
    np.testing.assert_array_equal(read_level(made, 0), planes)
