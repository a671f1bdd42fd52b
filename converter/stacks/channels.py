"""What the channels of a stack are called and which colours they have, as far as the files say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converter.stacks.place import Label

_RGB = (("red", "#ff0000"), ("green", "#00ff00"), ("blue", "#0000ff"))


@dataclass(frozen=True)
class Channel:
    """One channel: its name, empty when nobody named it, and its colour as `#rrggbb`, None when nobody chose one."""

    name: str = ""
    color: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The element of a record's list of channels."""
        return {"name": self.name, "color": self.color}


def ome_color(text: str | None) -> str | None:
    """OME's signed 32-bit RGBA as `#rrggbb`; the opaque white that every writer puts there says nothing.

    Source: https://www.openmicroscopy.org/Schemas/Documentation/Generated/OME-2016-06/ome_xsd.html (Color)
    """
    try:
        value = int(text or "-1") & 0xFFFFFFFF
    except ValueError:
        return None
    return None if value == 0xFFFFFFFF else f"#{value >> 8:06x}"


def imagej_colors(metadata: Mapping[str, Any]) -> list[str | None]:
    """The brightest colour of each of ImageJ's look-up tables "(3, 256)"; grey says nothing."""
    colors: list[str | None] = []
    for table in metadata.get("LUTs", ()):
        red, green, blue = (int(row[-1]) for row in table)
        colors.append(None if red == green == blue else f"#{red:02x}{green:02x}{blue:02x}")
    return colors


def rgb_channels() -> list[Channel]:
    """The channels of pixels that are colours."""
    return [Channel(name, color) for name, color in _RGB]


def named_channels(pages: Sequence[tuple[Label, int]], inside: Sequence[Channel], samples: int) -> tuple[Channel, ...]:
    """The channels of pages, each told by what its file's name says and its place inside the file.

    `inside` describes the channels that a file has inside: `samples` for each of its pages.
    """
    alone = len({page for _, page in pages}) * samples == 1
    found = []
    for label, page in pages:
        for index in range(page * samples, (page + 1) * samples):
            known = inside[index] if index < len(inside) else Channel()
            if alone:
                found.append(Channel(str(label) or known.name, known.color if len(pages) == 1 else None))
            else:
                name = f"{label} {known.name or index}" if label != "" else known.name
                found.append(Channel(name, known.color))
    return tuple(found)
