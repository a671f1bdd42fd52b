"""Which coarser levels are made next, and which have to go: one process of a server does this for all its stacks."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from converter.served.cache import StackCache, levels_bytes
from converter.served.making import Job
from precomputed_server.errors import PrecomputedError
from precomputed_server.format.info import VolumeInfo
from precomputed_server.local_state import WANTED

_log = logging.getLogger("precomputed_server")

_LOOK_S = 0.2
_ENDS_WITHIN_S = 5.0
_GONE = ".gone-"
_FAILED_S, _KILLED_S = 600.0, 5.0
"""After what time it is tried again."""


@dataclass(frozen=True)
class Wanted:
    """Levels that somebody wants, of the dataset at that path."""

    cache: StackCache
    dataset: str
    levels: str

    @property
    def key(self) -> tuple[str, str]:
        """What tells them from all others."""
        return self.cache.key, self.levels


@dataclass
class LevelKeeper:
    """Makes what is wanted in `directory`, one after the other, the stack that was looked at last first.

    All levels that are kept take at most `bound` bytes; those of stacks that nobody has looked at for longest go. A
    builder holds at most `memory` bytes.
    """

    root: Path
    directory: Path
    bound: int
    memory: int
    _not_before: dict[tuple[str, str], float] = field(default_factory=dict)

    def turn(self, is_stopped: Callable[[], bool]) -> bool:
        """Make what is wanted most, if anything is; whether something was done."""
        for wanted in sorted(self.wanted(), key=lambda each: each.cache.last_used(), reverse=True):
            if time.monotonic() < self._not_before.get(wanted.key, 0) or not self._make_room(wanted):
                continue
            self._make(wanted, is_stopped)
            return True
        return False

    def wanted(self) -> Iterator[Wanted]:
        """What workers have asked for and is not made yet."""
        for path in self.directory.iterdir():
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                asked = json.loads((path / WANTED).read_bytes())
                cache = StackCache(self.directory, path.name)
                if cache.has_levels(asked["levels"]):
                    (path / WANTED).unlink()
                else:
                    yield Wanted(cache, str(asked["dataset"]), str(asked["levels"]))

    def _make(self, wanted: Wanted, is_stopped: Callable[[], bool]) -> None:
        job = Job(str(self.root), str(self.directory), wanted.dataset, wanted.levels, self.memory)
        builder = subprocess.Popen(
            [sys.executable, "-m", "converter.served.making"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert builder.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError):
                builder.stdin.write(job.to_line())
                builder.stdin.flush()
            while builder.poll() is None and not is_stopped():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    builder.wait(_LOOK_S)
        finally:
            said = _end(builder)
        if is_stopped():
            return
        with contextlib.suppress(OSError):
            (wanted.cache.path / WANTED).unlink()
        if builder.returncode:
            self._not_before[wanted.key] = time.monotonic() + (_FAILED_S if builder.returncode > 0 else _KILLED_S)
            reason = said if builder.returncode > 0 else "who made them was killed."
            _log.warning("the coarser levels of %s are not made: %s", wanted.dataset or "the root", reason)

    def _make_room(self, wanted: Wanted) -> bool:
        """Remove what is in the way of new levels; whether there is room for them then."""
        needed = self._needed(wanted)
        finished: list[tuple[float, int, Path]] = []
        for path in self.directory.iterdir():
            cache = StackCache(self.directory, path.name)
            for levels in path.iterdir() if path.is_dir() else ():
                if not levels.is_dir() or (path.name, levels.name) == wanted.key:
                    continue
                size = _bytes(levels)
                if size is None or path.name == wanted.cache.key:  # interrupted, or of an older state of the planes
                    remove(levels)
                else:
                    finished.append((cache.last_used(), size, levels))
        taken, mine = sum(size for _, size, _ in finished), wanted.cache.last_used()
        older = sorted((each for each in finished if each[0] < mine), reverse=True)
        while taken + needed > self.bound and older:
            _, size, levels = older.pop()
            remove(levels)
            taken -= size
        return taken + needed <= self.bound

    def _needed(self, wanted: Wanted) -> int:
        """What the levels take at most: what a server asks for fits into the bound by itself."""
        with contextlib.suppress(OSError, LookupError, TypeError, ValueError):
            return int(json.loads((wanted.cache.path / WANTED).read_bytes())["bytes"])
        return self.bound


def remove(levels: Path) -> None:
    """Remove levels, so that nobody sees a part of them as all."""
    gone = levels.with_name(f"{_GONE}{uuid.uuid4().hex}")
    with contextlib.suppress(OSError):
        os.rename(levels, gone)
        shutil.rmtree(gone, ignore_errors=True)


def _bytes(levels: Path) -> int | None:
    """The bytes of finished levels; None where they are not finished."""
    try:
        info = VolumeInfo.from_bytes((levels / "info").read_bytes())
        return levels_bytes(info, int(levels.name.rpartition("-")[2]))
    except (OSError, ValueError, PrecomputedError):
        return None


def _end(builder: subprocess.Popen[bytes]) -> str:
    """End a builder if it still runs; what it said."""
    if builder.poll() is None:
        builder.terminate()
    try:
        _, said = builder.communicate(timeout=_ENDS_WITHIN_S)
    except subprocess.TimeoutExpired:
        builder.kill()
        _, said = builder.communicate()
    return said.decode(errors="replace").strip()
