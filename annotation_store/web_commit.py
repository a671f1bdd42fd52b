"""How a worker commits edits: those of one leaf that arrive together as one write, large ones in another process.

Parsing 64 MiB of JSON holds the interpreter for seconds, whatever thread does it, so what is large is parsed and
committed by a process of its own; the block's lock makes that safe.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from annotation_store.blocks import Location
from annotation_store.edits import Change
from annotation_store.leaf import Snapshot
from annotation_store.store import AnnotationStore, EditRequest, Outcome
from precomputed_server.errors import Busy, PrecomputedError
from precomputed_server.files import Tree
from precomputed_server.settings import Settings

Result = TypeVar("Result")
MakeRequest = Callable[[], EditRequest]
Waiting = list[tuple[EditRequest, asyncio.Future[Outcome | PrecomputedError]]]

_PR_SET_PDEATHSIG = 1


class Places:
    """A bounded number of large things that may be under way at once."""

    def __init__(self, bound: int) -> None:
        self._free = bound

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Hold a place; raises Busy when none is free."""
        if self._free <= 0:
            raise Busy("Too many large annotation files are being handled; try again.", retry_after=5)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class Committer:
    """Commits edits for one worker, in its threads or in its one process for large leaves.

    `bodies` are the places for large bodies in memory.
    """

    def __init__(self, settings: Settings, store: AnnotationStore) -> None:
        self._settings = settings
        self._store = store
        self.bodies = Places(settings.large_waiting)
        # Who commits may wait for a lock; who reads must not wait for them.
        self._readers = ThreadPoolExecutor(settings.write_threads, "annotations")
        self._writers = ThreadPoolExecutor(settings.write_threads, "commits")
        self._waiting: dict[Location, Waiting] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._process: ProcessPoolExecutor | None = None
        self._starter = ThreadPoolExecutor(1, "large annotations")  # the process ends with the thread that began it
        self._calls = Places(settings.large_waiting)

    def close(self) -> None:
        """Finish what is under way and stop."""
        self._writers.shutdown()
        self._readers.shutdown()
        if self._process is not None:
            self._process.shutdown(cancel_futures=True)
        self._starter.shutdown()

    async def thread(self, function: Callable[..., Result], *given: object) -> Result:
        """Call `function`, which waits for no lock, in a thread for annotations."""
        return await _within(self._readers, function, *given)

    async def commit(self, location: Location, make: MakeRequest, size: int) -> Outcome:
        """Commit the edit that `make` reads from a body; `size` is the larger of body and stored file in bytes.

        `make` must be picklable. Raises the error that the edit ended with, Busy when too many large ones wait.
        """
        if size > self._settings.large_body:
            ended = await self.process(_commit_large, location, make)
        else:
            ended = await self._gathered(location, await self.thread(make))
        if isinstance(ended, PrecomputedError):
            raise ended
        return ended

    async def process(self, function: Callable[..., Result], *given: object) -> Result:
        """Call a module-level `function` in the process for large leaves; raises Busy when too many wait."""
        with self._calls.one():
            process = await _within(self._starter, self._started)
            try:
                return await _within(process, function, *given)
            except BrokenProcessPool as error:
                if self._process is process:
                    self._process = None
                raise Busy("The process for large annotation files ended; try again.") from error

    def _started(self) -> ProcessPoolExecutor:
        self._process = self._process or _start_process(self._settings)
        return self._process

    async def _gathered(self, location: Location, request: EditRequest) -> Outcome | PrecomputedError:
        """Hand the request in; whoever comes while a commit of the leaf runs is part of the next one."""
        ended: asyncio.Future[Outcome | PrecomputedError] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(location)
        if waiting is not None:
            waiting.append((request, ended))
        else:
            self._waiting[location] = [(request, ended)]
            task = asyncio.create_task(self._drain(location))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await ended

    async def _drain(self, location: Location) -> None:
        group: Waiting = []
        try:
            while self._waiting[location]:
                group, self._waiting[location] = self._waiting[location], []
                await self._commit_group(location, group)
        finally:  # cancelled: nobody is left waiting
            for _, ended in group + self._waiting.pop(location):
                ended.cancel()

    async def _commit_group(self, location: Location, group: Waiting) -> None:
        try:
            ends = await _within(self._writers, self._store.commit, location, [request for request, _ in group])
        except Exception as error:  # a defect is this group's, not that of those who come after it
            for _, ended in group:
                if not ended.done():
                    ended.set_exception(error)
            return
        for (_, ended), end in zip(group, ends, strict=True):
            if not ended.done():  # its client may have gone
                ended.set_result(end)


async def _within(executor: Executor, function: Callable[..., Result], *given: object) -> Result:
    return await asyncio.get_running_loop().run_in_executor(executor, function, *given)


def change_request(
    parse: Callable[[], Change], author: str, session: str, if_match: tuple[str, ...] | None
) -> EditRequest:
    """Read a body by `parse` and make the request of it; a module-level function so that it can be pickled."""
    return EditRequest(parse(), author, session, if_match)


_large_store: AnnotationStore


def _start_process(settings: Settings) -> ProcessPoolExecutor:
    process = ProcessPoolExecutor(
        1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_process,
        initargs=(os.getpid(), settings.root, settings.lock_timeout, settings.umask),
    )
    process.submit(os.getpid)  # the first call begins it: in this thread, not in the event loop's
    return process


def _begin_process(parent: int, root: Path, lock_timeout: float, umask: int) -> None:
    """Open the tree, and see to it that this process ends with its worker, however that ends."""
    global _large_store
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(umask)
    _large_store = AnnotationStore(Tree(root), lock_timeout)


def _commit_large(location: Location, make: MakeRequest) -> Outcome | PrecomputedError:
    try:
        request = make()
    except PrecomputedError as error:
        return error
    return _large_store.commit(location, [request])[0]


def check_large(location: Location) -> Snapshot:
    """`AnnotationStore.check` in the process for large leaves."""
    return _large_store.check(location)


def count_large(location: Location) -> int:
    """`AnnotationStore.count` in the process for large leaves."""
    return _large_store.count(location)
