"""A running Dask cluster for tests, and tasks that do odd things on it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from converter.pyramid.journal import Done
from precomputed_server.errors import SourceError
from tests.conftest import REPOSITORY, missing

_STARTS_WITHIN_S = 60


@dataclass(frozen=True)
class Running:
    """A scheduler with its workers in processes of their own; all of them end with `process`."""

    address: str
    workers: tuple[int, ...]
    process: subprocess.Popen[bytes]
    directory: Path
    added: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def kill(self) -> None:
        """SIGKILL the scheduler; its workers see that and end."""
        self.process.kill()
        self.process.wait()

    def connected(self) -> list[int]:
        """The process ids of the workers that take tasks now: those that were killed come back with others."""
        import distributed

        with distributed.Client(self.address, set_as_default=False) as client:
            return sorted(client.run(os.getpid, on_error="ignore").values())

    def add_workers(self, count: int, **variables: str) -> list[int]:
        """Start more workers, which nobody starts again, and wait until they are connected; returns their ids."""
        before = len(self.connected())
        command = [sys.executable, "-m", "distributed.cli.dask_worker", self.address, "--no-nanny", "--nthreads", "1"]
        command += ["--no-dashboard", "--local-directory", str(self.directory)]
        environment = {**_environment(), **variables}
        with (self.directory / "worker.log").open("ab") as log:
            for _ in range(count):
                started = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory, env=environment)
                self.added.append(started)
        wait_until(lambda: len(self.connected()) == before + count, "workers have come")
        return [worker.pid for worker in self.added[-count:]]

    def replace_workers(self, rounds: int) -> None:
        """Start two workers, kill them while they work, and so on; the last two stay."""
        for _ in range(rounds):
            pids = self.add_workers(2)
            time.sleep(0.5)
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not self.connected(), "they are gone")
        self.add_workers(2)

    def end(self) -> None:
        """Kill what runs, and wait for it."""
        left = _descendants(self.process.pid)
        self.process.kill()
        for worker in self.added:
            worker.kill()
            worker.wait()
        wait_until(lambda: not [pid for pid in left if _runs(pid)], "the cluster's processes have ended")


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


@contextmanager
def running(directory: Path, workers: int = 2, memory: str = "1GiB") -> Iterator[Running]:
    """A cluster whose working directory is `directory`, which tests do not run in."""
    needed()
    command = [sys.executable, "-m", "tests.converter.dask_cluster", str(workers), memory]
    log = (directory / "cluster.log").open("wb")
    with log, subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=directory, env=_environment()
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (directory / "cluster.log").read_text()
        members = json.loads(line)
        started = Running(members["address"], tuple(members["workers"]), process, directory)
        try:
            yield started
        finally:
            started.end()


def needed() -> None:
    """Skip the test where Dask is not installed; fail it when CI=true."""
    if find_spec("distributed") is None:
        missing("Dask (the extra hpc) is not installed")


def wait_until(condition: Callable[[], bool], what: str, within_s: float = _STARTS_WITHIN_S) -> None:
    """Wait for something that happens by itself."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Poison:
    """A task that kills its worker."""

    def run(self) -> Done:
        """Do that."""
        os.kill(os.getpid(), signal.SIGKILL)
        return Done()


@dataclass(frozen=True)
class Pause:
    """A task that takes a moment, or fails."""

    seconds: float
    fails: str = ""

    def run(self) -> Done:
        """Do that."""
        time.sleep(self.seconds)
        if self.fails:
            raise SourceError(self.fails)
        return Done()


def _descendants(pid: int) -> list[int]:
    below = _children(pid)
    return below + [further for child in below for further in _descendants(child)]


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return []


def _runs(pid: int) -> bool:
    """Whether a process exists and is not just waiting for somebody to ask how it ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
