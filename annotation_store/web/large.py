"""The process of its own in which a worker has large annotation files parsed.

Parsing 64 MiB of JSON holds the interpreter for seconds, whatever thread does it. The block's lock, its log and the
journal of pages make it safe that this process commits beside the writer.
"""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import NoReturn, TypeVar

from annotation_store.blocks import Location
from annotation_store.committing.leaf import Snapshot
from annotation_store.orders import Answer, Order
from annotation_store.store import AnnotationStore
from annotation_store.views.leaf_rows import parsed_lines
from annotation_store.web.gatherer import Places, within
from precomputed_server.errors import Busy, PrecomputedError
from precomputed_server.local_state import usable_state
from precomputed_server.settings import Settings

Result = TypeVar("Result")

_PR_SET_PDEATHSIG = 1
_RING_AGAIN_S = 1.0
"""A signal may come where its exception goes unheard, as in a destructor."""


class _TooLong(Exception):
    """A call has taken longer than it may."""


class _Alarm(BaseException):
    """The signal that says so: it passes by whoever expects errors of files."""


class LargeProcess:
    """One process, begun when it is needed first, that ends with its worker."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: ProcessPoolExecutor | None = None
        self._starter = ThreadPoolExecutor(1, "large annotations")  # the process ends with the thread that began it
        self._calls = Places(settings.large_waiting)

    def close(self) -> None:
        """Stop it."""
        if self._process is not None:
            self._process.shutdown(cancel_futures=True)
        self._starter.shutdown()

    async def commit(self, order: Order) -> Answer:
        """Carry out an order in it, one after the other: how many may wait is bounded by the bodies in memory."""
        try:
            return await self._call(commit_large, order)
        except Busy as error:
            return error

    async def call(
        self, function: Callable[..., Result], *given: object, too_long: PrecomputedError | None = None
    ) -> Result:
        """Call a module-level `function` that only reads in it.

        Raises Busy when too many wait, and `too_long`, else Busy, for what takes longer than the setting allows.
        """
        with self._calls.one():
            try:
                return await self._call(_in_time, self._settings.large_timeout, function, *given)
            except _TooLong as error:
                sentence = "To read the annotation file took too long (setting --large-timeout); try again."
                raise too_long or Busy(sentence) from error

    async def _call(self, function: Callable[..., Result], *given: object) -> Result:
        process = await within(self._starter, self._started)
        try:
            return await within(process, function, *given)
        except BrokenProcessPool as error:
            if self._process is process:
                self._process = None
            raise Busy("The process for large annotation files ended; try again.") from error

    def _started(self) -> ProcessPoolExecutor:
        if self._process is None:
            self._process = ProcessPoolExecutor(
                1,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(os.getpid(), self._settings),
            )
            self._process.submit(os.getpid)  # the first call begins it: in this thread, not in the event loop's
        return self._process


_store: AnnotationStore
_open: Callable[[], AnnotationStore]


def _in_time(seconds: float, function: Callable[..., Result], *given: object) -> Result:
    """Call a function that may take so long; raises _TooLong, and then whatever was remembered is read anew."""
    global _store
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, _RING_AGAIN_S)
        try:
            return function(*given)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _Alarm:
        signal.setitimer(signal.ITIMER_REAL, 0)
        _store.journal.close()
        _store.tree.close()
        _store = _open()
        raise _TooLong from None


def _ring(*_: object) -> NoReturn:
    raise _Alarm


def _begin(parent: int, settings: Settings) -> None:
    """Open the tree, and see to it that this process ends with its worker, however that ends."""
    global _store, _open
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.umask(settings.umask)
    signal.signal(signal.SIGALRM, _ring)
    _open = functools.partial(_opened, settings)
    _store = _open()


def _opened(settings: Settings) -> AnnotationStore:
    return AnnotationStore.of(settings, usable_state(settings.state, settings.root))


def opened() -> AnnotationStore:
    """The store of the process for large files; only functions that are called there may ask."""
    return _store


def commit_large(order: Order) -> Answer:
    """`AnnotationStore.commit` of one order in the process for large files."""
    return _store.commit([order])[0]


def check_large(location: Location) -> Snapshot:
    """`AnnotationStore.check` in the process for large files."""
    return _store.check(location)


def count_large(location: Location) -> int:
    """`AnnotationStore.count` in the process for large files."""
    return _store.count(location)


def lines_large(location: Location) -> list[bytes]:
    """The annotations of a leaf, each as JSON, parsed in the process for large files."""
    return parsed_lines(_store.check(location).data)


def with_store(function: Callable[..., Result], *given: object) -> Result:
    """Call a module-level `function` with the store of the process for large files, and what else is given."""
    return function(_store, *given)
