"""Running tasks in worker processes."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_connection
from multiprocessing.context import ForkServerContext
from types import ModuleType
from typing import Protocol, TypeVar

from converter.pyramid.journal import Done
from converter.pyramid.stopping import SIGNALS, held_back
from precomputed_server.errors import PrecomputedError
from precomputed_server.forking import begin_forking

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
_KEPT = 1 << 30
PROCESS_BYTES = 90 << 20
"""What a process holds before it has any voxels: the interpreter, numpy and the codecs."""
WAITING_PER_JOB = 2
"""So many tasks are handed out for each that can run: the next is there when one has ended."""
_SIGNALS_COME_WITHIN_S = 0.2

_main_lock = threading.Lock()

Report = Callable[[Done], None]
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Work(Protocol[Result_co]):
    """Something that one worker does by itself, such as a task of a conversion or the whole of a small one."""

    def run(self) -> Result_co:
        """Do it."""


class Executor(Protocol):
    """Runs tasks that do not depend on each other."""

    def run(self, tasks: Iterable[Work[Result]], report: Callable[[Result], None]) -> None:
        """Run every task, in any order, and call `report` for each; raises what the first failing task raised."""


class InProcess:
    """Runs one task after the other in this process."""

    def run(self, tasks: Iterable[Work[Result]], report: Callable[[Result], None]) -> None:
        """Run every task in turn."""
        for task in tasks:
            report(task.run())


class ProcessPool:
    """Runs tasks in a pool of processes and keeps only a few of them waiting, however many there are."""

    def __init__(self, pool: ProcessPoolExecutor, jobs: int) -> None:
        self._pool = pool
        self._waiting = WAITING_PER_JOB * jobs

    def run(self, tasks: Iterable[Work[Result]], report: Callable[[Result], None]) -> None:
        """Run every task; raises BrokenProcessPool when a process was killed."""
        queue = iter(tasks)
        pending: set[Future[Result]] = set()
        while True:
            pending |= {self._submit(task) for task in islice(queue, self._waiting - len(pending))}
            if not pending:
                return
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                report(future.result())

    def _submit(self, task: Work[Result]) -> Future[Result]:
        with held_back(), _without_main():  # it may start a process
            return self._pool.submit(_run, task)


@contextmanager
def _without_main() -> Iterator[None]:
    """Start processes that do not run this process' script again, as they otherwise do to find what it defines.

    Nothing of ours is defined there, and a script without `if __name__ == "__main__":` would convert again in each.
    """
    with _main_lock:
        main = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main


@contextmanager
def executor(jobs: int) -> Iterator[Executor]:
    """Something that runs tasks in `jobs` processes; in this one when that is 1.

    When a task fails those that run are waited for, and what they did is recorded; what is no Exception, such as
    Ctrl-C, ends them at once. Raises PrecomputedError when a process was killed.
    """
    if jobs == 1:
        yield InProcess()
        return
    context = begin_workers()
    held_by_workers, lifeline = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_prepare_worker, initargs=(held_by_workers,))
    try:
        yield ProcessPool(pool, jobs)
    except BrokenProcessPool as error:
        time.sleep(_SIGNALS_COME_WITHIN_S)  # a SIGTERM for all of us is for this process too, which then says so
        raise PrecomputedError(
            "A worker process was killed, most often because memory ran out; run again with fewer --jobs."
        ) from error
    except Exception:
        raise
    except BaseException:
        lifeline.close()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        lifeline.close()
        held_by_workers.close()


def begin_workers() -> ForkServerContext:
    """Start what worker processes are forked from, unless that is done."""
    with held_back():
        return begin_forking()


def _run(task: Work[Result]) -> Result:
    return task.run()


def _prepare_worker(lifeline: Connection) -> None:
    """Leave Ctrl-C to the parent and end with it, however it ends, or when it lets go of the other end of `lifeline`.

    SIGTERM is not ignored: with it the pool ends its workers when one of them was killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    keep_freed_memory()
    threading.Thread(target=_exit_with_parent, args=(lifeline,), daemon=True).start()


def _exit_with_parent(lifeline: Connection) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_connection([parent.sentinel, lifeline])
        os._exit(1)


def keep_freed_memory() -> None:
    """Let malloc keep freed blocks up to 32 MiB instead of giving them back: to get them anew costs as much as filling
    them. Source: mallopt(3); a C library without it goes on as it is."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 32 << 20)
        mallopt(_TRIM_THRESHOLD, _KEPT)
