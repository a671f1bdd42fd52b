"""Telling a person how far a conversion is: a bar on a terminal, a few plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

_BAR_WIDTH = 40
_REFRESH_S = 0.1
_LINES_PERCENT = 5


class Progress(Protocol):
    """Is told after each task how many of the conversion's chunks are written."""

    def __call__(self, done: int, total: int) -> None:
        """`done` of `total` chunks are written."""


class Bar:
    """A line that is drawn again and again."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Draw the bar, at most every tenth of a second."""
        now = time.monotonic()
        if done < total and now - self._drawn < _REFRESH_S:
            return
        self._drawn = now
        filled = _BAR_WIDTH * done // total
        bar = "#" * filled + "-" * (_BAR_WIDTH - filled)
        self._stream.write(f"\r[{bar}] {100 * done // total:3d} %  {done}/{total} chunks")
        self._stream.flush()

    def end(self) -> None:
        """Go to the next line, so that whatever is said next does not follow the bar."""
        if self._drawn:
            self._stream.write("\n")
            self._stream.flush()


class Lines:
    """One line for every few percent."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._said = 0

    def __call__(self, done: int, total: int) -> None:
        """Write a line when enough has been done since the last."""
        percent = 100 * done // total
        if percent - self._said >= _LINES_PERCENT or (done == total and self._said < 100):
            self._said = percent
            self._stream.write(f"{percent} %: {done} of {total} chunks\n")
            self._stream.flush()


@contextmanager
def progress_on(stream: TextIO | None = None) -> Iterator[Progress]:
    """What suits the stream, by default standard error."""
    chosen = stream or sys.stderr
    if not chosen.isatty():
        yield Lines(chosen)
        return
    bar = Bar(chosen)
    try:
        yield bar
    finally:
        bar.end()
