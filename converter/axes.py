"""Which z and which channel each page of a file is, as far as its metadata tells."""

from __future__ import annotations

import math
from dataclasses import dataclass

from converter.metadata import Metadata
from precomputed_server.errors import SourceError


@dataclass(frozen=True)
class Axes:
    """The axes that the pages of a file run through, slowest first, as letter and length: (("Z", 5), ("C", 2))."""

    dimensions: tuple[tuple[str, int], ...]

    def length(self, axis: str) -> int:
        """How many positions `axis` has; 1 when the pages do not run through it."""
        return math.prod(length for letter, length in self.dimensions if letter == axis)

    @property
    def pages(self) -> int:
        """How many pages there should be."""
        return math.prod(length for _, length in self.dimensions)


def page_grid(metadata: Metadata, pages: int, samples: int, path: str) -> list[list[int]]:
    """Arrange the page numbers of a file as `grid[z][channel]`.

    Without metadata about channels and times every page is one z. `samples` is the number of channels that one page
    holds by itself. Raises SourceError for time points and for counts that contradict the number of pages.
    """
    axes = _declared(metadata, samples)
    if axes is not None and any(length > 1 for letter, length in axes.dimensions if letter not in "ZCT"):
        raise SourceError(f"{path} has axes other than z and channel; save one stack (z, y, x) by itself.")
    if metadata.ome is not None and axes is not None and pages > axes.pages:
        raise SourceError(f"{path} holds {pages} pages and more than one image; save each image by itself.")
    if axes is None or (axes.length("T") == 1 and axes.length("C") == 1):
        return [[page] for page in range(pages)]
    if axes.length("T") > 1:
        raise SourceError(
            f"{path} holds {axes.length('T')} time points; save one time point by itself and convert that."
        )
    if axes.pages != pages:
        expected = " × ".join(f"{length} {letter.lower()}" for letter, length in axes.dimensions)
        raise SourceError(f"{path} declares {expected} but holds {pages} pages; save the channels as separate stacks.")
    return _ordered(axes)


def _ordered(axes: Axes) -> list[list[int]]:
    stride, strides = 1, {"Z": 0, "C": 0}
    for letter, length in reversed(axes.dimensions):
        if length > 1:
            strides[letter] = stride
        stride *= length
    return [
        [z * strides["Z"] + channel * strides["C"] for channel in range(axes.length("C"))]
        for z in range(axes.length("Z"))
    ]


def _declared(metadata: Metadata, samples: int) -> Axes | None:
    if metadata.ome is not None:
        slowest_first = metadata.ome.order.upper()[:1:-1]
        sizes = {**metadata.ome.sizes, "C": max(1, metadata.ome.sizes.get("C", 1) // samples)}
        return Axes(tuple((letter, sizes[letter]) for letter in slowest_first if letter in sizes))
    if metadata.imagej:
        return _imagej(metadata, samples)
    if metadata.shape:
        return _shaped(metadata, samples)
    return None


def _imagej(metadata: Metadata, samples: int) -> Axes:
    """ImageJ keeps channels fastest, then slices, then frames."""
    counts = {name: int(metadata.imagej.get(name, 1)) for name in ("channels", "slices", "frames")}
    channels = max(1, counts["channels"] // samples)
    return Axes((("T", counts["frames"]), ("Z", counts["slices"]), ("C", channels)))


def _shaped(metadata: Metadata, samples: int) -> Axes | None:
    """tifffile's own shape: its last axes are the page's; without letters only one leading axis can be told."""
    inside = 2 if samples == 1 else 3
    leading = metadata.shape[:-inside]
    letters = metadata.axes.upper()[: len(leading)] if len(metadata.axes) == len(metadata.shape) else ""
    letters = letters.replace("Q", "Z").replace("I", "Z").replace("S", "C")
    if letters:
        return Axes(tuple(zip(letters, leading, strict=True)))
    longer = [length for length in leading if length > 1]
    if len(longer) > 1:
        return Axes(tuple(("?", length) for length in longer))
    return None
