"""Whether an acquisition is all there: its lengths against those that a person knows, and what exactly is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from converter.stacks.acquisition import FILE_NAME, FILE_ORDER, Acquisition
from converter.stacks.pattern import suggested_pattern, varying_numbers
from converter.stacks.place import AXES, Label, abbreviated, missing_numbers
from precomputed_server.errors import SourceError


def check_expected(acquisition: Acquisition, expected: Sequence[tuple[str, int]]) -> None:
    """Raise SourceError saying which lengths differ from `expected`, by axis letter, and which planes are missing."""
    if not expected:
        return
    wrong = [
        _difference(acquisition, axis, length) for axis, length in expected if _length(acquisition, axis) != length
    ]
    missing = acquisition.all_missing()
    if missing:
        wrong.append(
            f"{len(missing)} plane{'s lack' if len(missing) > 1 else ' lacks'}: {acquisition.described(missing)}"
        )
    wrong += acquisition.unreadable
    if wrong:
        raise SourceError(f"{acquisition.name} is not what --expect says: {'; '.join(wrong).rstrip('.')}.")


def _length(acquisition: Acquisition, axis: str) -> int:
    if axis in AXES:
        return acquisition.length(axis)
    _, rows, columns = next(iter(acquisition.planes.values())).shape
    return columns if axis == "x" else rows


def _difference(acquisition: Acquisition, axis: str, expected: int) -> str:
    length = _length(acquisition, axis)
    said = f"{axis} is {length}, not {expected}"
    numbers = numbers_of(acquisition, axis)
    if length >= expected or numbers is None:
        return said
    lacking: list[Label] = list(missing_numbers(numbers))
    if len(lacking) > expected - length:
        return said
    rest = expected - length - len(lacking)
    are = "numbers {} are" if len(lacking) > 1 else "number {} is"
    between = f"{are.format(abbreviated(lacking))} missing" if lacking else ""
    more = f"{rest} {'more ' if lacking else ''}{'are' if rest > 1 else 'is'} missing"
    at_end = f"{more} before {min(numbers)} or after {max(numbers)}" if rest else ""
    return f"{said} ({' and '.join(filter(None, (between, at_end)))})"


def numbers_of(acquisition: Acquisition, axis: str) -> list[int] | None:
    """The numbers of file names that count an axis: those of the pattern, or for z the only ones that vary."""
    labels = acquisition.axes[axis].labels if axis in AXES else ()
    if axis in AXES and acquisition.axes[axis].origin == FILE_NAME:
        numbers = [label for label in labels if isinstance(label, int)]
        return numbers if len(numbers) == len(labels) else None
    if axis != "z" or any(len(acquisition.axes[other].labels) > 1 for other in "ptc"):
        return None
    paths = dict.fromkeys(plane.path for plane in acquisition.planes.values())
    return varying_numbers([os.path.basename(path) for path in paths]) if len(paths) == len(labels) else None


def _suggested(acquisition: Acquisition) -> str | None:
    paths = dict.fromkeys(plane.path for plane in acquisition.planes.values())
    alone = len({os.path.dirname(path) for path in paths}) == 1
    return suggested_pattern([os.path.basename(path) for path in paths]) if alone else None


def remarks(acquisition: Acquisition) -> Iterator[str]:
    """What a person should look at though it may be meant, in sentences."""
    if acquisition.axes["z"].origin == FILE_NAME:
        return
    if acquisition.axes["z"].origin.startswith(FILE_ORDER) and (pattern := _suggested(acquisition)):
        yield f"The file names look like --pattern {pattern!r}; without it every file is another z."
    numbers = numbers_of(acquisition, "z")
    if numbers and (gaps := missing_numbers(numbers)):
        yield (
            f"The file names lack {abbreviated(gaps)}; without --pattern the planes on either side become neighbours."
        )
    if numbers and len(set(numbers)) < len(numbers):
        yield "Several file names differ only in leading zeros; each of them is a plane."
