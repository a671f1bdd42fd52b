"""Where a page belongs in an acquisition: which position, time, channel and z it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import gcd
from typing import NamedTuple

AXES = {"p": "position", "t": "time point", "c": "channel", "z": "z"}
"""The axes that pages run through, slowest first, and what a person calls them."""

Label = int | str
"""A number or a text of a file name, or an index."""

_SHOWN_RANGES = 8


class Place(NamedTuple):
    """Indices, counted from 0."""

    p: int = 0
    t: int = 0
    c: int = 0
    z: int = 0


@dataclass(frozen=True)
class Axis:
    """The labels that occur along an axis, in order, and where they are from."""

    labels: tuple[Label, ...]
    origin: str

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def gaps(self) -> tuple[int, ...]:
        """Numbers that lack between the first and the last, where all labels are numbers of file names."""
        numbers = [label for label in self.labels if isinstance(label, int)]
        return missing_numbers(numbers) if len(numbers) == len(self.labels) else ()


def natural_key(name: str) -> tuple[list[str | int], str]:
    """A sort key that compares runs of digits as numbers; names that differ only in leading zeros stay ordered."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def label_key(label: Label) -> tuple[list[str | int], str]:
    """A sort key for labels of both kinds."""
    return natural_key(str(label))


def missing_numbers(numbers: Sequence[int]) -> tuple[int, ...]:
    """The numbers that lack between the smallest and the largest, which count in the largest step that fits all."""
    if len(numbers) < 3:
        # two numbers make any step regular
        return ()
    first, *_, last = ordered = sorted(set(numbers))
    step = reduce(gcd, (after - before for before, after in zip(ordered, ordered[1:], strict=False)), 0)
    found = set(ordered)
    if (last - first) // max(step, 1) > 100 * len(ordered):
        # times or serial numbers, not a count
        return ()
    return tuple(number for number in range(first, last, max(step, 1)) if number not in found)


def abbreviated(labels: Iterable[Label]) -> str:
    """A list for a person, with ranges of numbers: `3, 7–9, 12`."""
    ranges: list[list[Label]] = []
    for label in labels:
        if ranges and isinstance(label, int) and isinstance(ranges[-1][1], int) and label == ranges[-1][1] + 1:
            ranges[-1][1] = label
        else:
            ranges.append([label, label])
    shown = [str(low) if low == high else f"{low}–{high}" for low, high in ranges[:_SHOWN_RANGES]]
    more = len(ranges) - _SHOWN_RANGES
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
