"""What happens in one dataset as one worker knows it: read once, however many listen.

The edit logs are the truth. A word of the writer, or of a commit in this process, says in which block to look now; that
it may be lost costs nothing but time, because every few seconds all blocks are looked at anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor

from annotation_store.events.event import Event
from annotation_store.events.past import in_order
from annotation_store.events.watching import DatasetTail
from annotation_store.history.instants import instant_of
from annotation_store.reader import AnnotationReader
from annotation_store.web.gatherer import within

LOOK_S = 1.0
_LOOK_SHARE = 20
"""All blocks are looked at every second, and more seldom where that would take over a twentieth of the time."""
_KEPT_S = 60.0
"""What happened in the minute before somebody listens is read as well: those who come back find it here."""
_MOST_EVENTS, _MOST_BYTES = 50_000, 16 << 20
_AT_ONCE = 500
"""How many events are given out before those who listen have their turn."""


class Ring:
    """The newest events, numbered as they came; `covers` is the moment from which on none is missing."""

    def __init__(self, covers: str, most: int = _MOST_EVENTS, most_bytes: int = _MOST_BYTES) -> None:
        self.covers = covers
        self.first = 0
        self._most, self._most_bytes = most, most_bytes
        self._events: list[Event] = []
        self._bytes = 0

    @property
    def end(self) -> int:
        """The number of the event that comes next."""
        return self.first + len(self._events)

    def put(self, events: Sequence[Event]) -> None:
        """Take what happened, and let go of the oldest beyond the bounds."""
        self._events += events
        self._bytes += sum(len(event.data) for event in events)
        if len(self._events) <= self._most and self._bytes <= self._most_bytes:
            return
        gone = 0
        while len(self._events) - gone > self._most * 3 // 4 or self._bytes > self._most_bytes * 3 // 4:
            event = self._events[gone]
            self._bytes -= len(event.data)
            self.covers = max(self.covers, event.time + "\x7f")  # later than that moment, and before the next
            gone += 1
        del self._events[:gone]
        self.first += gone

    def lose(self, covers: str) -> None:
        """Let go of everything, of those who listen too: something before that moment never came here."""
        self.first = self.end + 1
        self._events, self._bytes = [], 0
        self.covers = max(self.covers, covers)

    def since(self, number: int) -> list[Event]:
        """The events from that number on; raises IndexError when some of them are gone."""
        if number < self.first:
            raise IndexError(number)
        return self._events[number - self.first :]


class Feed:
    """The events of one dataset; `failed` once it has ended by itself."""

    def __init__(self, store: AnnotationReader, dataset: str, threads: Executor) -> None:
        since = instant_of(time.time() - _KEPT_S)
        self.ring = Ring(since)
        self.ended = False
        self._store, self._dataset, self._threads = store, dataset, threads
        self._tail: DatasetTail | None = None
        self._since = since
        self._changed: dict[str, None] = {}
        self._look_now = False
        self._woken = asyncio.Event()
        self._listening: set[asyncio.Event] = set()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._end)

    async def ready(self) -> None:
        """Wait until all that happened since `ring.covers` is in the ring."""
        await asyncio.shield(self._ready)

    def changed(self, directory: str) -> None:
        """Somebody has edited the block at that directory, "" for any block."""
        if directory and self._tail is not None and not self._tail.is_of(directory):
            return
        if directory:
            self._changed[directory] = None
        else:
            self._look_now = True
        self._woken.set()

    def listen(self, news: asyncio.Event) -> Callable[[], None]:
        """Have `news` set whenever there is something new; call what is returned when nobody waits for it."""
        self._listening.add(news)
        return functools.partial(self._listening.discard, news)

    def cancel(self) -> None:
        """Stop, and let those who listen go."""
        self._task.cancel()

    async def close(self) -> None:
        """Stop, and wait until that is done."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def _end(self, task: asyncio.Task[None]) -> None:
        self.ended = True
        error = None if task.cancelled() else task.exception()
        if error is not None:
            asyncio.get_running_loop().call_exception_handler({"message": "a feed failed", "exception": error})
        if not self._ready.done():
            self._ready.set_result(None)
        self._tell()

    def _tell(self) -> None:
        for news in self._listening:
            news.set()

    async def _run(self) -> None:
        self._tail = await within(self._threads, DatasetTail, self._store, self._dataset, self._since)
        took = await self._look(self._tail)
        self._ready.set_result(None)
        loop = asyncio.get_running_loop()
        due = loop.time() + max(LOOK_S, took * _LOOK_SHARE)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._woken.wait()
            self._woken.clear()
            changed, self._changed = list(self._changed), {}
            if changed:
                await self._publish(await within(self._threads, _newest, self._tail.look_at, changed))
            if self._look_now or loop.time() >= due:
                self._look_now = False
                took = await self._look(self._tail)
                due = loop.time() + max(LOOK_S, took * _LOOK_SHARE)

    async def _look(self, tail: DatasetTail) -> float:
        """Look at all blocks; returns how many seconds that took."""
        begun = time.monotonic()
        found = await within(self._threads, _newest, tail.look)
        took = time.monotonic() - begun
        await self._publish(found)
        return took

    async def _publish(self, found: tuple[list[Event], str]) -> None:
        events, covers = found
        if covers:
            self.ring.lose(covers)
        for start in range(0, len(events), _AT_ONCE):
            self.ring.put(events[start : start + _AT_ONCE])
            self._tell()
            await asyncio.sleep(0)


def _newest(look: Callable[..., Iterable[Event]], *given: object) -> tuple[list[Event], str]:
    """What was found, as far as a ring has room for it, and from which moment on none is missing, "" if none is."""
    found: list[Event] = []
    held, covers = 0, ""
    for event in look(*given):
        found.append(event)
        held += len(event.data)
        if len(found) > 2 * _MOST_EVENTS or held > 2 * _MOST_BYTES:
            found, lost = _fitting(found)
            held, covers = sum(len(each.data) for each in found), max(covers, lost)
    found, lost = _fitting(found)
    return found, max(covers, lost)


def _fitting(found: list[Event]) -> tuple[list[Event], str]:
    """The newest events that a ring has room for, in order, and the moment after the last one that is left out."""
    found = in_order(found)
    held = itertools.accumulate(len(event.data) for event in reversed(found))
    count = sum(1 for _ in itertools.takewhile(lambda size: size <= _MOST_BYTES, itertools.islice(held, _MOST_EVENTS)))
    lost = found[: len(found) - count]
    return found[len(lost) :], lost[-1].time + "\x7f" if lost else ""
