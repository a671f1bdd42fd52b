"""`precomputed` in a process of its own, and what is left of it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.conftest import REPOSITORY

PRECOMPUTED = "from precomputed_server.cli import run; run()"


def start(directory: Path, *arguments: str, program: str = PRECOMPUTED) -> subprocess.Popen[str]:
    """Start a program in a directory and in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def running_in(session: int) -> list[str]:
    """The command lines of the processes of a session that have not ended."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append((place / "cmdline").read_text())
    return found


def sentences(said: str) -> list[str]:
    """The lines of standard error without those of the progress."""
    return [line for line in said.splitlines() if " %, " not in line]
