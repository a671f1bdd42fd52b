"""What a check found: a level, a name and a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warn", "fail"]
OK: Level = "ok"
WARN: Level = "warn"
"""It works, with less than there could be, or not for long."""
FAIL: Level = "fail"
"""Serving, annotating or a dataset does not work until somebody mends it."""

_NAMED = 3


@dataclass(frozen=True)
class Finding:
    """The outcome of the check `name`; `sentence` says what is so, and the remedy where it is not well."""

    level: Level
    name: str
    sentence: str

    @property
    def line(self) -> str:
        """As it is printed."""
        return f"{self.level:<4}  {self.name}: {' '.join(self.sentence.split())}"

    def to_json(self) -> dict[str, Any]:
        """As `--json` has it."""
        return asdict(self)


def some(names: Iterable[str]) -> str:
    """The first few of many names, and how many more there are."""
    listed = list(names)
    more = len(listed) - _NAMED
    return ", ".join(listed[:_NAMED]) + (f" and {more} more" if more > 0 else "")
