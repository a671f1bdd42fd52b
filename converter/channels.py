"""What the channels of a stack are called and which colours they have, as far as the files say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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


def combined(named: Sequence[str], inside: Sequence[Channel]) -> tuple[Channel, ...]:
    """The channels of files of several names, each with the channels that a file has inside, in this order."""
    if not any(named):
        return tuple(inside)
    if len(inside) == 1:
        return tuple(Channel(name, inside[0].color if len(named) == 1 else None) for name in named)
    return tuple(
        Channel(f"{name} {channel.name or index}".strip(), channel.color)
        for name in named
        for index, channel in enumerate(inside)
    )
