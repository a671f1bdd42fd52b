"""What a TIFF file says about itself beyond its pixels, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from converter.stacks.ome import Ome

INCH, CENTIMETRE = 2, 3
"""TIFF 6.0, ResolutionUnit; 1 is "none"."""

_NO_BRIGHTNESS = {
    "MINISWHITE": "The TIFF says that 0 is white (MinIsWhite); values are taken as they are stored, so bright is dark.",
    "PALETTE": "The TIFF says that values are places in a table of colours; they are taken as numbers.",
}


@dataclass(frozen=True)
class Metadata:
    """Metadata of one file: ImageJ's and OME's where present, tifffile's own shape, and the resolution tags.

    `shape` and `axes` are those of the array that tifffile was given, `pixels_per_unit` is x, y; `rgb` says that the
    samples of a pixel are a colour, `photometric` what the first page's numbers mean, as TIFF 6.0 names it.
    """

    imagej: Mapping[str, Any] = field(default_factory=dict)
    ome: Ome | None = None
    shape: tuple[int, ...] = ()
    axes: str = ""
    pixels_per_unit: tuple[Fraction | None, Fraction | None] = (None, None)
    resolution_unit: int = 1
    rgb: bool = False
    photometric: str = ""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be said of numbers that are no brightness; they are taken as they are stored."""
        return tuple(sentence for name, sentence in _NO_BRIGHTNESS.items() if name == self.photometric)
