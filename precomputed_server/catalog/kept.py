"""Files in the state directory that can be made again: pictures of datasets, and what was measured of them."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from precomputed_server.writing import replace_file

_SWEEPS = 16
_LONGEST_KEPT_S = 24 * 3600.0
"""What was changed in place, and cannot be told from what was there before, is made again a day later."""


class KeptFiles:
    """Files by name, of at most `bound` bytes together with those of other processes; the oldest are removed.

    `sharers` processes use the directory. What the disk refuses is not kept.
    """

    def __init__(self, directory: Path, bound: int, sharers: int = 1) -> None:
        self._directory = directory
        self._bound = bound
        self._between_sweeps = bound // (_SWEEPS * sharers)
        self._written = self._between_sweeps  # other processes, or earlier ones, may have left the directory full

    def get(self, name: str) -> bytes | None:
        """The file, or None where it is not kept or has been for a day."""
        try:
            with (self._directory / name).open("rb") as file:
                if time.time() - os.fstat(file.fileno()).st_mtime > _LONGEST_KEPT_S:
                    return None
                return file.read()
        except OSError:
            return None

    def put(self, name: str, data: bytes) -> None:
        """Keep a file."""
        if len(data) > self._between_sweeps:
            return
        with contextlib.suppress(OSError):
            self._directory.mkdir(exist_ok=True)
            if self._written + len(data) > self._between_sweeps:
                self._sweep()
                self._written = 0
            self._written += len(data)
            replace_file(self._directory / name, data, durable=False)

    def _sweep(self) -> None:
        """Make room for what all who share the directory write until their next sweep."""
        with os.scandir(self._directory) as entries:
            found = sorted((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path) for entry in entries)
        room = self._bound - self._bound // _SWEEPS
        excess = sum(size for _, size, _ in found) - room
        for _, size, path in found:
            if excess <= 0:
                return
            os.unlink(path)
            excess -= size
