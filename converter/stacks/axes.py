"""Which place each page of a file has, as far as its metadata or the caller tells."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from converter.stacks.metadata import Metadata
from converter.stacks.place import Place
from precomputed_server.errors import InvalidInput, SourceError

_LETTERS = "PTCZ"
_GIVEN = re.compile(r"([A-Za-z])(?:=([0-9]+))?")


@dataclass(frozen=True)
class Axes:
    """The axes that the pages of a file run through, slowest first, as letter and length: (("Z", 5), ("C", 2)).

    A length of 0 is not known; `origin` is who says so.
    """

    dimensions: tuple[tuple[str, int], ...]
    origin: str = "--axes"

    def length(self, axis: str) -> int:
        """How many positions `axis` has; 1 when the pages do not run through it."""
        return math.prod(length for letter, length in self.dimensions if letter == axis)

    @property
    def pages(self) -> int:
        """How many pages there should be."""
        return math.prod(length for _, length in self.dimensions)

    @property
    def text(self) -> str:
        """The axes and their lengths for a person."""
        return " × ".join(f"{length} {letter.lower()}".rstrip(" ?") for letter, length in self.dimensions)


def parse_axes(text: str) -> Axes:
    """Read `tzc` or `t,z=5,c=2`: the axes of the pages, slowest first; y, x and s, the page's own, may follow.

    Raises InvalidInput.
    """
    parts = text.split(",") if "," in text or "=" in text else list(text)
    dimensions = []
    for part in parts:
        match = _GIVEN.fullmatch(part.strip())
        if match is None or match.group(1).upper() not in (*_LETTERS, *"YXS"):
            raise InvalidInput(f"--axes {text} is not the axes of the pages, slowest first, such as zc or t,z=5,c=2.")
        letter, length = match.group(1).upper(), match.group(2)
        if letter in _LETTERS:
            dimensions.append((letter, int(length or 0)))
            if length is not None and int(length) < 1:
                raise InvalidInput(f"--axes {text} has an axis without any page.")
    letters = [letter for letter, _ in dimensions]
    if not letters or len(set(letters)) < len(letters):
        raise InvalidInput(f"--axes {text} needs each of p, t, c and z at most once, such as zc or t,z=5,c=2.")
    return Axes(tuple(dimensions))


@dataclass(frozen=True)
class Pages:
    """The place of each page of a file, in page order, how long each axis is, and who says so."""

    places: tuple[Place, ...]
    axes: Axes


def page_places(metadata: Metadata, pages: int, samples: int, path: str, given: Axes | None = None) -> Pages:
    """The place of each page of a file that is by itself.

    Without metadata about positions, channels and times every page is one z. `samples` is the number of channels that
    one page holds by itself. Raises SourceError for counts that contradict the number of pages.
    """
    declared = declared_axes(metadata, samples)
    axes = declared if given is None else _completed(given, declared, pages, path)
    if axes is not None and any(length > 1 for letter, length in axes.dimensions if letter not in _LETTERS):
        raise SourceError(
            f"{path} has axes ({axes.text}) without known names; add --axes with their letters, slowest first, "
            "such as --axes tz."
        )
    if axes is None or (given is None and all(axes.length(letter) == 1 for letter in "PTC")):
        return Pages(tuple(Place(z=page) for page in range(pages)), Axes((("Z", pages),), "pages"))
    if axes.pages != pages:
        remedy = "correct them." if given is not None else "say with --axes what the pages are."
        raise SourceError(f"{path} declares {axes.text} but holds {pages} pages; {remedy}")
    return Pages(_places(axes), axes)


def _places(axes: Axes) -> tuple[Place, ...]:
    places = []
    for page in range(axes.pages):
        at, rest = {}, page
        for letter, length in reversed(axes.dimensions):
            rest, at[letter.lower()] = divmod(rest, length)
        places.append(Place(**{axis: index for axis, index in at.items() if axis.upper() in _LETTERS}))
    return tuple(places)


def _completed(given: Axes, declared: Axes | None, pages: int, path: str) -> Axes:
    """The axes that were given, with the lengths that were left out."""
    unknown = [letter for letter, length in given.dimensions if length == 0]
    known = math.prod(length for _, length in given.dimensions if length)
    if len(unknown) == 1 and pages % known == 0:
        return Axes(tuple((letter, length or pages // known) for letter, length in given.dimensions))
    if not unknown:
        return given
    leading = [] if declared is None else [length for _, length in declared.dimensions if length > 1]
    if len(leading) == len(given.dimensions):
        lengths = zip(given.dimensions, leading, strict=True)
        return Axes(tuple((letter, own or length) for (letter, own), length in lengths))
    example = ",".join(letter.lower() + ("" if index == 0 else "=2") for index, letter in enumerate(unknown))
    raise SourceError(f"{path} has {pages} pages, which --axes does not divide; add lengths, such as --axes {example}.")


def declared_axes(metadata: Metadata, samples: int) -> Axes | None:
    """What ImageJ's counts or tifffile's shape say; OME has a place for every page (see `ome.ome_pages`)."""
    if metadata.imagej:
        return _imagej(metadata, samples)
    if metadata.shape:
        return _shaped(metadata, samples)
    return None


def _imagej(metadata: Metadata, samples: int) -> Axes:
    """ImageJ keeps channels fastest, then slices, then frames."""
    counts = {name: int(metadata.imagej.get(name, 1)) for name in ("channels", "slices", "frames")}
    channels = max(1, counts["channels"] // samples)
    return Axes((("T", counts["frames"]), ("Z", counts["slices"]), ("C", channels)), "ImageJ")


def _shaped(metadata: Metadata, samples: int) -> Axes | None:
    """tifffile's own shape: its last axes are the page's; without letters only one leading axis can be told."""
    inside = 2 if samples == 1 else 3
    leading = metadata.shape[:-inside]
    letters = metadata.axes.upper()[: len(leading)] if len(metadata.axes) == len(metadata.shape) else ""
    letters = letters.replace("Q", "Z").replace("I", "Z").replace("S", "C").replace("R", "P")
    if letters and len(set(letters)) == len(letters):
        return Axes(tuple(zip(letters, leading, strict=True)), "the file's shape")
    longer = [length for length in leading if length > 1]
    if len(longer) > 1:
        return Axes(tuple(("?", length) for length in longer), "the file's shape")
    return None
