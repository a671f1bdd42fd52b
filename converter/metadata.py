"""What a TIFF file says about itself beyond its pixels, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any
from xml.etree import ElementTree

INCH, CENTIMETRE = 2, 3
"""TIFF 6.0, ResolutionUnit; 1 is "none"."""


@dataclass(frozen=True)
class OmePixels:
    """The first `Pixels` element of an OME-XML: sizes by axis letter, the file order of the axes (fastest first).

    `physical_sizes` maps X, Y and Z to the text of the size and of its unit, where the file gives them.
    Source: https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html
    """

    order: str
    sizes: Mapping[str, int]
    physical_sizes: Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class Metadata:
    """Metadata of one file: ImageJ's and OME's where present, tifffile's own shape, and the resolution tags.

    `shape` and `axes` are those of the array that tifffile was given, `pixels_per_unit` is x, y.
    """

    imagej: Mapping[str, Any] = field(default_factory=dict)
    ome: OmePixels | None = None
    shape: tuple[int, ...] = ()
    axes: str = ""
    pixels_per_unit: tuple[Fraction | None, Fraction | None] = (None, None)
    resolution_unit: int = 1


def parse_ome(text: str) -> OmePixels | None:
    """Read OME-XML; None when it is not well-formed or describes no pixels."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None
    pixels = root.find(".//{*}Pixels")
    if pixels is None:
        return None
    sizes = {axis: int(pixels.get(f"Size{axis}", "1")) for axis in "XYZCT"}
    physical = {
        axis: (size, pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "XYZ"
        if (size := pixels.get(f"PhysicalSize{axis}")) is not None
    }
    return OmePixels(pixels.get("DimensionOrder", "XYZCT"), sizes, physical)
