"""How much memory a conversion took, and how much it read: measured while it tells its progress."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import time
from pathlib import Path

from converter.pyramid.progress import Status

_LOOKS_EVERY_S = 0.5
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


class Meter:
    """Reads how much each process of this conversion has held at most, while it is told how far it is.

    `peak_memory` is the sum over the processes of this machine in bytes, an upper bound of what they held together;
    `source_bytes` are those of the voxels that this run read.
    """

    def __init__(self) -> None:
        self._others = {child.pid for child in multiprocessing.active_children()}
        self._peaks: dict[int, int] = {}
        self._looked = float("-inf")
        self.source_bytes = 0

    @property
    def peak_memory(self) -> int:
        """So far."""
        own = os.getpid()
        return sum({**self._peaks, own: _peak_of(own)}.values())

    def __call__(self, status: Status) -> None:
        """Look at the processes that there are."""
        self.source_bytes = status.bytes - status.kept_bytes
        now = time.monotonic()
        if now - self._looked < _LOOKS_EVERY_S and not status.is_done:
            return
        self._looked = now
        for child in multiprocessing.active_children():
            if child.pid is not None and child.pid not in self._others:
                self._peaks[child.pid] = max(_peak_of(child.pid), self._peaks.get(child.pid, 0))


def _peak_of(process: int) -> int:
    """The largest resident size that a process has had in bytes; 0 where nobody says."""
    with contextlib.suppress(OSError):
        match = _PEAK.search(Path(f"/proc/{process}/status").read_text())
        return int(match[1]) << 10 if match else 0
    return 0
