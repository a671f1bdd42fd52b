"""What is put before pixels makes of them a TIFF that others read, with the size of a voxel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from precomputed_server.format.info import Resolution
from precomputed_server.format.tiff_stack import TiffStack
from tests.data import volume

RESOLUTION_NM: Resolution = (1800.0, 162.5, 2000.0)
ORIGIN = (10, 20, -3)


def written(path: Path, voxels: np.ndarray[Any, Any], resolution_nm: Resolution = RESOLUTION_NM) -> TiffStack:
    """Write voxels "(Z, C, Y, X)"."""
    z, c, y, x = voxels.shape
    stack = TiffStack((z, c, y, x), voxels.dtype, resolution_nm, ORIGIN)
    path.write_bytes(b"".join(stack.front()) + voxels.tobytes())
    assert path.stat().st_size == stack.file_bytes
    return stack


@pytest.mark.parametrize("data_type", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"])
@pytest.mark.parametrize(("shape", "axes"), [((5, 3, 7, 6), "ZCYX"), ((5, 1, 7, 6), "ZYX"), ((1, 2, 7, 6), "CYX")])
def test_tifffile_reads_the_stack(tmp_path: Path, data_type: str, shape: tuple[int, ...], axes: str) -> None:
    voxels = volume(shape, data_type)
    written(tmp_path / "stack.tiff", voxels)
    with tifffile.TiffFile(tmp_path / "stack.tiff") as file:
        assert file.is_imagej
        assert (len(file.pages), file.series[0].axes) == (shape[0] * shape[1], axes)
        assert np.array_equal(file.asarray(), voxels.squeeze())
        assert np.array_equal(np.stack([page.asarray() for page in file.pages]), voxels.reshape(-1, *shape[2:]))


def test_the_size_of_a_voxel_and_its_place(tmp_path: Path) -> None:
    written(tmp_path / "stack.tiff", volume((5, 3, 7, 6)))
    with tifffile.TiffFile(tmp_path / "stack.tiff") as file:
        assert file.imagej_metadata is not None
        assert (file.imagej_metadata["unit"], file.imagej_metadata["spacing"]) == ("um", 2.0)
        assert [file.imagej_metadata[f"{axis}origin"] for axis in "xyz"] == [-10, -20, 3]
        assert [file.imagej_metadata[name] for name in ("images", "channels", "slices")] == [15, 3, 5]
        across, down = (file.pages.first.tags[name].value for name in ("XResolution", "YResolution"))
        assert across[1] / across[0] == pytest.approx(1.8)
        assert down[1] / down[0] == pytest.approx(0.1625)


@pytest.mark.parametrize("edge", [1e-9, 4.0, 1000 / 3, 1e12, 1e300])
def test_any_size_of_a_voxel_can_be_told(tmp_path: Path, edge: float) -> None:
    written(tmp_path / "stack.tiff", volume((1, 1, 2, 2)), (edge, edge, edge))
    with tifffile.TiffFile(tmp_path / "stack.tiff") as file:
        numerator, denominator = file.pages.first.tags["XResolution"].value
        assert numerator > 0
        assert denominator > 0
        if 1 < edge < 1e9:
            assert 1000 * denominator / numerator == pytest.approx(edge)


def test_above_four_gibibytes_it_is_a_bigtiff(tmp_path: Path) -> None:
    planes, rows = 9000, 512
    stack = TiffStack((planes, 1, rows, rows), np.dtype("<u2"), RESOLUTION_NM, ORIGIN)
    front = b"".join(stack.front())
    assert stack.is_big
    last = volume((rows, rows))
    with (tmp_path / "stack.tiff").open("wb") as file:  # sparse
        file.write(front)
        file.seek(stack.file_bytes - last.nbytes)
        file.write(last.tobytes())
    assert stack.file_bytes == len(front) + planes * last.nbytes
    with tifffile.TiffFile(tmp_path / "stack.tiff") as read:
        assert read.is_bigtiff
        assert read.series[0].shape == (planes, rows, rows)
        assert np.array_equal(read.pages[planes - 1].asarray(), last)
        assert not read.pages[4999].asarray().any()
        assert read.pages.first.tags["XResolution"].value[1] / read.pages.first.tags["XResolution"].value[0] == 1.8


def test_just_below_it_is_not() -> None:
    assert not TiffStack((8188, 1, 512, 512), np.dtype("<u2"), RESOLUTION_NM, ORIGIN).is_big
