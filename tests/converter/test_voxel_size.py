"""The voxel size is read where it is complete, asked for where it is not, and never guessed."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from converter.stacks.metadata import Metadata
from converter.stacks.source import read_stack
from converter.stacks.voxel_size import VoxelSize, parse_edges, voxel_size
from precomputed_server.errors import InvalidInput

PLANE = np.zeros((5, 8, 8), np.uint16)
NOTHING = parse_edges(",,")


def _written(path: Path, **options: Any) -> Metadata:
    tifffile.imwrite(path / "stack.tif", options.pop("data", PLANE), **options)
    return read_stack(str(path / "stack.tif")).metadata


def _size(path: Path, given: str = ",,", **options: Any) -> VoxelSize:
    return voxel_size(_written(path, **options), parse_edges(given))


@pytest.mark.parametrize(
    ("unit", "micrometres"),
    [
        ("micron", 1),
        ("um", 1),
        ("\\u00B5m", 1),
        ("nm", Fraction(1, 1000)),
        ("mm", 1000),
        ("cm", 10_000),
    ],
)
def test_imagej_units(tmp_path: Path, unit: str, micrometres: Fraction) -> None:
    size = _size(
        tmp_path, imagej=True, resolution=((4, 1), (2, 1)), metadata={"unit": unit, "spacing": 0.3, "axes": "ZYX"}
    )
    assert size.micrometres == (
        Fraction(1, 4) * micrometres,
        Fraction(1, 2) * micrometres,
        Fraction(3, 10) * micrometres,
    )
    assert size.source == ("ImageJ",) * 3


def test_162_5_nm_is_kept_exactly(tmp_path: Path) -> None:
    size = _size(tmp_path, "0.1625,0.1625,0.3")
    assert size.nanometres == (Fraction(325, 2), Fraction(325, 2), Fraction(300))


def test_ome_physical_sizes_with_units(tmp_path: Path) -> None:
    metadata = {
        "axes": "ZYX",
        "PhysicalSizeX": 162.5,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 0.25,
        "PhysicalSizeYUnit": "µm",
        "PhysicalSizeZ": 0.002,
        "PhysicalSizeZUnit": "mm",
    }
    size = _size(tmp_path, ome=True, metadata=metadata)
    assert size.micrometres == (Fraction(13, 80), Fraction(1, 4), Fraction(2))
    assert size.source == ("OME",) * 3


def test_resolution_in_centimetres_gives_x_and_y_and_z_is_asked_for(tmp_path: Path) -> None:
    written: dict[str, Any] = {"resolution": (20_000, 10_000), "resolutionunit": "CENTIMETER", "metadata": None}
    with pytest.raises(InvalidInput, match=r"x = 0.5 µm .*y = 1 µm .*add --voxel-size ,,Z with Z in µm"):
        _size(tmp_path, **written)
    size = _size(tmp_path, ",,2", **written)
    assert size.micrometres == (Fraction(1, 2), Fraction(1), Fraction(2))
    assert size.source == ("resolution tag", "resolution tag", "given")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ({"resolution": (300, 300), "resolutionunit": "INCH", "metadata": None}, "300 pixels per inch"),
        ({"resolution": (300, 300), "resolutionunit": "NONE", "metadata": None}, "300 pixels per unknown unit"),
        ({"resolution": (1, 1), "resolutionunit": "CENTIMETER", "metadata": None}, "1 pixels per cm"),
        ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "pixel", "axes": "ZYX"}}, "2 pixels per pixel"),
        ({"imagej": True, "metadata": {"unit": "micron", "spacing": 2, "axes": "ZYX"}}, "z = 2 µm"),
        ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "inch", "axes": "ZYX"}}, "2 pixels per inch"),
    ],
)
def test_doubtful_resolutions_are_shown_but_asked_for(tmp_path: Path, written: dict[str, Any], shown: str) -> None:
    with pytest.raises(InvalidInput, match=shown) as caught:
        _size(tmp_path, **written)
    assert "add --voxel-size X,Y," in str(caught.value)


def test_what_is_given_wins_over_metadata(tmp_path: Path) -> None:
    written = {"imagej": True, "resolution": (4, 4), "metadata": {"unit": "um", "spacing": 3, "axes": "ZYX"}}
    size = _size(tmp_path, "7,,", **written)
    assert size.micrometres == (Fraction(7), Fraction(1, 4), Fraction(3))
    assert size.source == ("given", "ImageJ", "ImageJ")


def test_a_spacing_of_nothing_is_asked_for() -> None:
    metadata = Metadata(imagej={"unit": "um", "spacing": 0.0}, pixels_per_unit=(Fraction(2), Fraction(2)))
    with pytest.raises(InvalidInput, match="voxel size of z"):
        voxel_size(metadata, NOTHING)


@pytest.mark.parametrize("text", ["0,1,1", "1,-1,1", "nan,1,1", "inf,1,1", "1,1", "1,1,1,1", "a,b,c", "1;1;1"])
def test_impossible_voxel_sizes_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_edges(text)
