"""The events of a dataset's conversions, kept beside it: what tells the catalog of a conversion that is under way.

Each line of `DS/.precomputed/events.jsonl` is an event as `progress.Events` writes it. A reader passes over a line that
is no JSON: a kill may have torn it. When the file has grown to half a MiB it becomes `events.1.jsonl`, in the place of
the one before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converter.options import Summary
from converter.output.destination import Destination
from converter.pyramid.memory import Meter
from converter.pyramid.progress import Events, Progress, every
from converter.report import figures, headline
from precomputed_server.errors import PrecomputedError

_MOST_BYTES = 512 << 10
_EVERY_S = 10.0
_STOPPED = "Stopped; what is done is kept: the same command goes on from there."


@dataclass(frozen=True)
class EventLog:
    """The newest events of a dataset, in the file `path` and the one before it."""

    path: Path

    def append(self, line: str) -> None:
        """Add a line that ends in a newline; a disk that takes no more is no reason to end a conversion."""
        with contextlib.suppress(OSError):
            if self.path.exists() and self.path.stat().st_size + len(line) > _MOST_BYTES:
                os.replace(self.path, self._before)
            with self.path.open("ab+") as file:
                file.write((b"" if self._ends_whole() else b"\n") + line.encode())

    def read(self) -> Iterator[dict[str, Any]]:
        """Every event that is kept, oldest first."""
        for path in (self._before, self.path):
            lines = path.read_bytes().splitlines() if path.exists() else []
            for line in lines:
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if isinstance(event, dict):
                        yield event

    @property
    def _before(self) -> Path:
        return self.path.with_suffix(f".1{self.path.suffix}")

    def _ends_whole(self) -> bool:
        with self.path.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read() == b"\n"


def job_of(destination: Destination, request: Mapping[str, Any]) -> str:
    """The name of the conversion of that request into that destination: the same when it is begun again."""
    asked = json.dumps([os.path.abspath(destination.path), request], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def events_of(
    destination: Destination, request: Mapping[str, Any], write: Callable[[str], object], every_s: float = 1.0
) -> Events:
    """Events of a conversion that begins now, with the number of its attempt since it was done last."""
    job, attempt = job_of(destination, request), 1
    for event in EventLog(destination.events).read():
        if event.get("job") == job:
            attempt = {"began": attempt + 1, "done": 1}.get(str(event.get("state")), attempt)
    path = os.path.abspath(destination.path if destination.layer is None else destination.path.parent)
    return Events(write, job, path, layer=destination.layer, attempt=attempt, every_s=every_s)


def recorded(
    destination: Destination,
    request: Mapping[str, Any],
    progress: Progress | None,
    run: Callable[[Progress], Summary],
) -> Summary:
    """Call `run`, which converts and tells its progress, and keep its events; adds to its summary what was measured.

    The caller holds the destination's lock.
    """
    events = events_of(destination, request, EventLog(destination.events).append, _EVERY_S)
    meter = Meter()
    with told(events):
        summary = run(every(progress, events, meter))
        summary = replace(summary, source_bytes=meter.source_bytes, peak_memory=meter.peak_memory)
        events.done(headline(summary), **figures(summary))
    return summary


@contextlib.contextmanager
def told(events: Events) -> Iterator[None]:
    """Say that a job begins and, should it, that it failed and why; who calls says that it is done."""
    events.began()
    try:
        yield
    except BaseException as error:
        events.failed(_sentence(error))
        raise


def _sentence(error: BaseException) -> str:
    if isinstance(error, PrecomputedError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.filename or 'input or output'}: {error.strerror or error}."
    return f"This program failed: {error!r}." if isinstance(error, Exception) else _STOPPED
