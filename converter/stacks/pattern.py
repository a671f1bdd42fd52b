"""File names that say which channel, time, position and z a file is: `img_{c}_t{t}_z{z}.tif`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from converter.stacks.place import AXES, Label
from precomputed_server.errors import InvalidInput, SourceError

_FIELD = re.compile(r"\{([^{}]*)\}|(\*)")
_SEPARATOR = re.compile(r"([-_. ]+)")
_NUMBERED = re.compile(r"([A-Za-z]*)[0-9]+")
_WORDS = {
    "z": ("", "z", "slice", "plane"),
    "t": ("t", "time", "tp", "frame"),
    "c": ("c", "ch", "chan", "channel", "w"),
    "p": ("p", "pos", "position", "xy", "tile", "scene", "series"),
}
"""What acquisition programs write before a number; one without a word is a slice."""
_EXAMPLE = "such as 'img_{c}_t{t}_z{z}.tif'"


@dataclass(frozen=True)
class FileNamePattern:
    """A pattern as it was typed: letters c, z, t and p in braces, `*` for anything, `/` between directories."""

    text: str

    def __post_init__(self) -> None:
        letters = [letter for letter, star in _FIELD.findall(self.text) if not star]
        if not letters or set(letters) - set(AXES):
            raise InvalidInput(f"--pattern {self.text} needs one or more of {{c}}, {{z}}, {{t}} and {{p}}, {_EXAMPLE}.")
        if re.search(r"[}*][{*]", self.text):
            raise InvalidInput(f"--pattern {self.text} has nothing between two parts that vary, {_EXAMPLE}.")
        if self.text.startswith("/") or ".." in self.text.split("/"):
            raise InvalidInput(f"--pattern {self.text} is beneath the source: give the directory itself as source.")

    @property
    def depth(self) -> int:
        """How many directories it names above the file."""
        return self.text.count("/")

    @property
    def axes(self) -> tuple[str, ...]:
        """The letters that occur, in the order of AXES."""
        return tuple(letter for letter in AXES if f"{{{letter}}}" in self.text)

    @property
    def expression(self) -> re.Pattern[str]:
        """What a path, from the uppermost directory of the pattern on, has to match."""
        result, position, seen = "", 0, set()
        for match in _FIELD.finditer(self.text):
            letter = match.group(1)
            result += re.escape(self.text[position : match.start()])
            field = f"(?P<{letter}>[^/]+?)" if letter else "[^/]*?"
            result += f"(?P={letter})" if letter in seen else field
            seen.add(letter)
            position = match.end()
        return re.compile(result + re.escape(self.text[position:]))

    def labels(self, path: str, expression: re.Pattern[str] | None = None) -> dict[str, Label] | None:
        """What the path says, by axis letter, digits as a number; None when it does not match."""
        tail = "/".join(path.split("/")[-1 - self.depth :])
        match = (expression or self.expression).fullmatch(tail)
        return None if match is None else {axis: label_of(text) for axis, text in match.groupdict().items()}


def label_of(text: str) -> Label:
    """Digits are a number, so that 007 is 7; all else is text."""
    return int(text) if text.isascii() and text.isdigit() else text


def labels_of_files(pattern: FileNamePattern, paths: Sequence[str]) -> list[dict[str, Label]]:
    """What each path says; raises SourceError naming those that do not match, and labels of two kinds along z or t."""
    expression = pattern.expression
    found = [pattern.labels(path, expression) for path in paths]
    odd = [path for path, labels in zip(paths, found, strict=True) if labels is None]
    if odd:
        more = f" and {len(odd) - 1} more do" if len(odd) > 1 else " does"
        raise SourceError(
            f"{odd[0]}{more} not match --pattern {pattern.text}; move what is no plane away, or give a glob without it."
        )
    labels = [entry for entry in found if entry is not None]
    for axis in ("z", "t"):
        _one_kind(axis, paths, labels)
    return labels


def _one_kind(axis: str, paths: Sequence[str], labels: Sequence[Mapping[str, Label]]) -> None:
    """Numbers and texts have no common order."""
    numbers = sum(isinstance(entry.get(axis), int) for entry in labels)
    if 0 < numbers < len(labels):
        rarer = int if 2 * numbers < len(labels) else str
        path, entry = next(pair for pair in zip(paths, labels, strict=True) if isinstance(pair[1][axis], rarer))
        kind = "a number, unlike the" if rarer is int else "no number, unlike the"
        raise SourceError(f"{path} has {axis} = {entry[axis]}, {kind} others; make the --pattern match numbers only.")


def suggested_pattern(names: Sequence[str]) -> str | None:
    """The pattern of file names that tell several axes, such as `img_GFP_t0_z003.tif`; None where none is plain.

    The parts between separators that vary are a number behind a letter or a word for an axis, or the text of a channel.
    """
    parts = [_SEPARATOR.split(name) for name in names]
    if len(parts) < 2 or any(character in name for name in names for character in "{}*"):
        return None
    if len({(len(part), *part[1::2]) for part in parts}) != 1:
        return None
    fields = [_suggested_field(column) for column in zip(*parts, strict=True)]
    letters = [letter for field in fields if field is not None for letter, star in _FIELD.findall(field) if not star]
    if None in fields or len(letters) < 2 or len(set(letters)) < len(letters):
        return None
    return "".join(field or "" for field in fields)


def _suggested_field(texts: Sequence[str]) -> str | None:
    """A part of names as a part of a pattern; None where it varies in a way that nobody knows."""
    if len(set(texts)) == 1:
        return texts[0]
    numbered = [_NUMBERED.fullmatch(text) for text in texts]
    words = {match.group(1) for match in numbered if match is not None}
    if None not in numbered and len(words) == 1:
        (word,) = words
        axis = next((axis for axis, known in _WORDS.items() if word.lower() in known), None)
        return None if axis is None else f"{word}{{{axis}}}"
    return "{c}" if all(text.isalnum() and not text[0].isdigit() for text in texts) else None


def varying_numbers(names: Sequence[str]) -> list[int] | None:
    """The numbers in which file names differ, when they differ in exactly one run of digits; else None."""
    parts = [re.split(r"([0-9]+)", name) for name in names]
    if len(parts) < 2 or len({(len(part), *part[::2]) for part in parts}) != 1:
        return None
    columns = list(zip(*(part[1::2] for part in parts), strict=True))
    varying = [column for column in columns if len(set(map(int, column))) > 1]
    return [int(digits) for digits in varying[0]] if len(varying) == 1 else None
