"""Telling how far a conversion is: a bar on a terminal, a line a minute in a log, events for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TextIO

from converter.pyramid.journal import Done

_BAR_WIDTH = 30
_REFRESH_S = 0.1
_LINE_S = 60.0
_EVENT_S = 1.0

Clock = Callable[[], float]


@dataclass(frozen=True)
class Status:
    """How far a conversion is: chunks of all levels, bytes of source voxels, and the seconds since this run began.

    `kept_chunks` and `kept_bytes` of them were done by earlier runs.
    """

    chunks: int
    total_chunks: int
    bytes: int
    total_bytes: int
    seconds: float
    kept_chunks: int = 0
    kept_bytes: int = 0

    @property
    def is_done(self) -> bool:
        """Whether every chunk is stored."""
        return self.chunks >= self.total_chunks

    @property
    def percent(self) -> int:
        """The part of the chunks that is stored, rounded down."""
        return 100 * self.chunks // self.total_chunks

    @property
    def rate(self) -> float:
        """Bytes of source voxels a second in this run."""
        return (self.bytes - self.kept_bytes) / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at the pace of this run; None before the first task of it is done."""
        made = self.chunks - self.kept_chunks
        return self.seconds * (self.total_chunks - self.chunks) / made if made > 0 else None

    def __str__(self) -> str:
        """`37 %, 1.2 of 3.4 GB, 210 MB/s, 0:12 left`."""
        left = "" if self.seconds_left is None or self.is_done else f", {_clock_text(self.seconds_left)} left"
        unit, name = (1e9, "GB") if self.total_bytes >= 1e9 else (1e6, "MB")
        volume = f"{self.bytes / unit:.1f} of {self.total_bytes / unit:.1f} {name}"
        return f"{self.percent} %, {volume}, {self.rate / 1e6:.0f} MB/s{left}"


Progress = Callable[[Status], None]
"""Is told after each task how far the conversion is."""


class Counter:
    """Adds up what tasks did, and tells `progress`."""

    def __init__(self, total_chunks: int, total_bytes: int, progress: Progress | None) -> None:
        self._total_chunks, self._total_bytes = total_chunks, total_bytes
        self._progress = progress
        self._began = time.monotonic()
        self._chunks = self._bytes = self._kept_chunks = self._kept_bytes = 0

    def __call__(self, done: Done) -> None:
        """A task of this run is done."""
        self._chunks += done.chunks
        self._bytes += done.source_bytes
        if self._progress is not None:
            self._progress(self._status())

    def keep(self, done: Done) -> None:
        """A task was done by an earlier run."""
        self._kept_chunks += done.chunks
        self._kept_bytes += done.source_bytes
        self(done)

    def _status(self) -> Status:
        return Status(
            chunks=self._chunks,
            total_chunks=self._total_chunks,
            bytes=self._bytes,
            total_bytes=self._total_bytes,
            seconds=time.monotonic() - self._began,
            kept_chunks=self._kept_chunks,
            kept_bytes=self._kept_bytes,
        )


class Bar:
    """A line that is drawn again and again."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn = 0.0
        self._width = 0

    def __call__(self, status: Status) -> None:
        """Draw the bar, at most every tenth of a second."""
        now = time.monotonic()
        if not status.is_done and now - self._drawn < _REFRESH_S:
            return
        self._drawn = now
        filled = _BAR_WIDTH * status.chunks // status.total_chunks
        line = f"[{'#' * filled}{'-' * (_BAR_WIDTH - filled)}] {status}"
        self._stream.write(f"\r{line:<{self._width}}")
        self._width = len(line)
        self._stream.flush()

    def end(self) -> None:
        """Go to the next line, so that whatever is said next does not follow the bar."""
        if self._drawn:
            self._stream.write("\n")
            self._stream.flush()


class Lines:
    """A line a minute, and one at the end."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._said = clock()
        self._ended = False

    def __call__(self, status: Status) -> None:
        """Write a line when the last is a minute old."""
        now = self._clock()
        if self._ended or (now - self._said < _LINE_S and not status.is_done):
            return
        self._said, self._ended = now, status.is_done
        self._stream.write(f"{status}\n")
        self._stream.flush()


@dataclass
class Events:
    """Lines of JSON for programs, one an event: `began`, `progress` now and then, then `done` or `failed`.

    Each has the members time, job, dataset, layer, step, attempt, state, done, total (chunks) and message, as every
    event of this program that tells of a long job; `attempt` counts from 1, and `every_s` is the least time between two
    events of progress.
    """

    write: Callable[[str], object]
    job: str
    dataset: str
    clock: Clock = time.monotonic
    step: str = "convert"
    attempt: int = 1
    layer: str | None = None
    every_s: float = _EVENT_S
    _said: float = float("-inf")
    _last: Status | None = None

    def began(self, **members: Any) -> None:
        """The job begins."""
        self._tell("began", "", **members)

    def __call__(self, status: Status) -> None:
        """Say how far it is, if that has not just been said."""
        self._last, now = status, self.clock()
        if now - self._said >= self.every_s or status.is_done:
            self._said = now
            self._tell("progress", str(status))

    def done(self, message: str, **members: Any) -> None:
        """The job has ended well."""
        self._tell("done", message, **members)

    def skipped(self, message: str) -> None:
        """There is nothing to do."""
        self._tell("skipped", message)

    def failed(self, message: str, **members: Any) -> None:
        """The job has ended, and why."""
        self._tell("failed", message, **members)

    def _tell(self, state: str, message: str, **members: Any) -> None:
        status = self._last
        event = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "job": self.job,
            "dataset": self.dataset,
            "layer": self.layer,
            "step": self.step,
            "attempt": self.attempt,
            "state": state,
            "done": status.chunks if status else 0,
            "total": status.total_chunks if status else None,
            "message": message,
            **members,
        }
        self.write(json.dumps(event) + "\n")


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


def every(*sinks: Progress | None) -> Progress:
    """One that tells all of them."""
    present = [sink for sink in sinks if sink is not None]

    def tell(status: Status) -> None:
        for sink in present:
            sink(status)

    return tell


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
