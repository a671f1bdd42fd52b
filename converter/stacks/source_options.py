"""What is taken of a source, and how it is turned into a dataset: the options on the source's side as values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from converter.stacks.acquisition import Choice
from converter.stacks.axes import Axes, parse_axes
from converter.stacks.pattern import FileNamePattern
from converter.stacks.view import View, parse_crop, parse_flipped, parse_order
from converter.stacks.window import Window, parse_window
from precomputed_server.errors import InvalidInput

T = TypeVar("T")
_EXPECTED = re.compile(r"([xyzctp])=([0-9]+)")


@dataclass(frozen=True)
class SourceOptions:
    """How files are understood (`pattern`, `axes`), what of them is taken (`choice`), and how it is seen.

    `window` maps values linearly to the whole of `--dtype uint8|uint16`. `expected` is how long axes have to be, by
    letter. `source_options` makes one of texts.
    """

    pattern: FileNamePattern | None = None
    axes: Axes | None = None
    choice: Choice = field(default_factory=Choice)
    view: View = field(default_factory=View)
    window: Window | None = None
    expected: tuple[tuple[str, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What decides about the result, without what is left at its default, for the record of a conversion."""
        members = {
            "pattern": None if self.pattern is None else self.pattern.text,
            "axes": None if self.axes is None else [list(dimension) for dimension in self.axes.dimensions],
            "channels": list(self.choice.channels) or None,
            "time": self.choice.time,
            "position": self.choice.position,
            "crop": None if self.view.crop == View().crop else [list(ends) for ends in self.view.crop],
            "flip": None if not any(self.view.flipped) else list(self.view.flipped),
            "transpose": None if self.view.order == View().order else list(self.view.order),
            "window": None if self.window is None else [self.window.low, self.window.high],
        }
        return {name: value for name, value in members.items() if value is not None}


def source_options(
    *, channel: Sequence[str] = (), time: str | None = None, position: str | None = None, **texts: str | None
) -> SourceOptions:
    """Options from what a person types: texts are pattern, axes, crop, flip, transpose, window and expect.

    Raises InvalidInput naming the option.
    """
    options = SourceOptions(choice=Choice(tuple(channel), time, position), view=_view(texts))
    if pattern := texts.get("pattern"):
        options = replace(options, pattern=FileNamePattern(pattern))
    if axes := texts.get("axes"):
        options = replace(options, axes=parse_axes(axes))
    if window := texts.get("window"):
        options = replace(options, window=parse_window(window))
    if expected := texts.get("expect"):
        options = replace(options, expected=parse_expected(expected))
    return options


def source_options_from_json(members: Mapping[str, Any]) -> SourceOptions:
    """The options as the record of a conversion has them."""
    pattern, axes, window = members.get("pattern"), members.get("axes"), members.get("window")
    view = View()
    return SourceOptions(
        pattern=None if pattern is None else FileNamePattern(pattern),
        axes=None if axes is None else Axes(tuple((letter, length) for letter, length in axes)),
        choice=Choice(tuple(members.get("channels", ())), members.get("time"), members.get("position")),
        view=View(
            order=_triple(members.get("transpose", view.order)),
            flipped=_triple(members.get("flip", view.flipped)),
            crop=_triple([(start, stop) for start, stop in members.get("crop", view.crop)]),
        ),
        window=None if window is None else Window(*window),
    )


def _triple(values: Sequence[T]) -> tuple[T, T, T]:
    x, y, z = values
    return x, y, z


def parse_expected(text: str) -> tuple[tuple[str, int], ...]:
    """Read `z=1200,c=2`: the lengths of axes among x, y, z, c, t and p; raises InvalidInput."""
    found = []
    for part in text.split(","):
        match = _EXPECTED.fullmatch(part.strip().lower())
        if match is None:
            raise InvalidInput(f"--expect {text} is not lengths of axes among x, y, z, c, t and p, such as z=1200,c=2.")
        found.append((match.group(1), int(match.group(2))))
    return tuple(found)


def _view(texts: dict[str, str | None]) -> View:
    view = View()
    if transpose := texts.get("transpose"):
        view = replace(view, order=parse_order(transpose))
    if flip := texts.get("flip"):
        view = replace(view, flipped=parse_flipped(flip))
    if crop := texts.get("crop"):
        view = replace(view, crop=parse_crop(crop))
    return view
