"""A library preloaded into a server that makes its files behave as on a network file system, or moves its clock."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import missing

_SOURCE = Path(__file__).with_name("shim.c")
_BYTES = 32
_FIELDS = {
    "renames_done_but_failed": ("i", 0),
    "stale_renames": ("i", 4),
    "stale_opens": ("i", 8),
    "old_attributes": ("i", 12),
    "no_locks": ("i", 16),
    "clock_seconds": ("q", 24),
}


class Shim:
    """The counters that every process of a server started from now on looks at; what they mean is said in shim.c."""

    def __init__(self, control: Path) -> None:
        control.write_bytes(bytes(_BYTES))
        with control.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _BYTES)

    def set(self, field: str, value: int) -> None:
        """Write a counter."""
        kind, offset = _FIELDS[field]
        struct.pack_into(kind, self._shared, offset, value)

    def left(self, field: str) -> int:
        """What is left of a counter."""
        kind, offset = _FIELDS[field]
        value: int = struct.unpack_from(kind, self._shared, offset)[0]
        return value

    def close(self) -> None:
        """Give the mapping back."""
        self._shared.close()


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library; skips where there is no C compiler, or where libraries cannot be preloaded."""
    compiler = shutil.which("cc")
    if compiler is None or not os.path.exists("/proc/self/fd"):
        missing("there is no C compiler (cc)")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    command = [str(compiler), "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        missing(f"the library cannot be compiled here: {done.stderr}")
    return library


@pytest.fixture
def shim(shim_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shim]:
    """Have servers that are started from now on preload the library; `fibers.json` beneath `data` is concerned."""
    control = tmp_path / "shim"
    found = Shim(control)
    monkeypatch.setenv("SHIM_CONTROL", str(control))
    monkeypatch.setenv("SHIM_NAME", "fibers.json")
    monkeypatch.setenv("SHIM_ROOT", str(tmp_path / "data"))
    monkeypatch.setenv("LD_PRELOAD", str(shim_library))
    yield found
    found.close()
