"""Who does the tasks of a conversion: processes of this machine, or the workers of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Protocol

from converter.options import ConvertOptions
from converter.pyramid.cluster import cluster
from converter.pyramid.executor import PROCESS_BYTES, Executor, begin_workers, executor


class Crew(Protocol):
    """What a conversion is planned for, and done by."""

    @property
    def jobs(self) -> int:
        """How many tasks may run side by side."""

    def budget(self, processes: int) -> int:
        """The bytes that a task may hold, beside what its process takes anyway, when so many run side by side."""

    def too_little(self, needed: int) -> str:
        """What is said when a task holds `needed` bytes and there is no room even for one: a sentence without its end.

        It names what --max-memory has to be at least.
        """

    def executor(self, processes: int) -> AbstractContextManager[Executor]:
        """Something that runs that many tasks side by side."""


@dataclass(frozen=True)
class ThisMachine:
    """At most `jobs` processes, this one included, that hold at most `memory` bytes together."""

    jobs: int
    memory: int

    def budget(self, processes: int) -> int:
        """An equal share; one process is this one, more are beside it."""
        others = processes if processes > 1 else 0
        return (self.memory - PROCESS_BYTES * (1 + others)) // processes

    def too_little(self, needed: int) -> str:
        """With the bytes that one process takes."""
        least = _mebibytes(PROCESS_BYTES + needed)
        return (
            f"--max-memory {_mebibytes(self.memory)}MiB is too little for planes and chunks of this size; "
            f"it takes {least}MiB at least"
        )

    def executor(self, processes: int) -> AbstractContextManager[Executor]:
        """A pool of processes, or this process alone."""
        return executor(processes)


@contextmanager
def crew_for(options: ConvertOptions) -> Iterator[Crew]:
    """Who converts with these options; raises PrecomputedError when a cluster cannot be reached."""
    if options.scheduler is None:
        if options.processes > 1:
            begin_workers()  # while this process reads headers
        yield ThisMachine(options.processes, options.memory)
        return
    with cluster(options.scheduler, options.jobs, options.max_memory) as workers:
        yield workers


def _mebibytes(number: int) -> int:
    return -(-number // (1 << 20))
