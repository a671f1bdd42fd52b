"""How orders become commits: those of one block that arrive together are one write, in a thread of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from annotation_store.orders import Answer, Order
from annotation_store.store import AnnotationStore
from precomputed_server.errors import Busy
from precomputed_server.settings import Settings

Result = TypeVar("Result")
Told = Callable[[str], None]
"""Is called with a block's directory beneath the root when something was committed there, with "" when that may be
anywhere."""
Waiting = list[tuple[Order, asyncio.Future[Answer]]]

_GROUP_ORDERS = 256
_GROUP_BYTES = 32 << 20
"""How much is committed at once: what waits behind it is answered only afterwards."""


class Committer(Protocol):
    """Whoever carries out orders."""

    async def submit(self, order: Order) -> Answer:
        """Carry it out; the answer comes when it is on disk."""
        ...

    def watch(self, told: Told) -> None:
        """From now on tell of every block whose log may have grown."""
        ...

    async def close(self) -> None:
        """Finish what is under way and stop."""
        ...


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


class Gatherer:
    """Commits orders in threads: whoever comes while a commit of the block runs is part of the next one."""

    def __init__(self, store: AnnotationStore, settings: Settings, large: Callable[[Order], Awaitable[Answer]]) -> None:
        self._store = store
        self._settings = settings
        self._large = large
        self._threads = ThreadPoolExecutor(settings.write_threads, "commits")
        self._waiting: dict[str, Waiting] = {}
        self._tasks: set[asyncio.Future[Any]] = set()
        self._told: Told | None = None

    def watch(self, told: Told) -> None:
        """Tell of every commit, when its orders are answered."""
        self._told = told

    async def submit(self, order: Order) -> Answer:
        """Hand the order in, and wait for its end."""
        return await self.begin(order)

    def begin(self, order: Order) -> asyncio.Future[Answer]:
        """Hand the order in; its answer is the future's result. Large ones are carried out by `large`."""
        if order.size > self._settings.large_body or order.stored > self._settings.annotation_memory:
            ended_there = self._begun(asyncio.ensure_future(self._large(order)))
            ended_there.add_done_callback(lambda _: self._tell(order.directory))
            return ended_there
        ended: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(order.directory)
        if waiting is not None:
            waiting.append((order, ended))
        else:
            self._waiting[order.directory] = [(order, ended)]
            self._begun(asyncio.create_task(self._drain(order.directory)))
        return ended

    def _begun(self, task: asyncio.Future[Result]) -> asyncio.Future[Result]:
        """Keep what `close` has to wait for."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Finish the commits that are under way."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        await asyncio.to_thread(self._threads.shutdown)

    async def _drain(self, directory: str) -> None:
        group: Waiting = []
        try:
            while self._waiting[directory]:
                count = _fitting(self._waiting[directory])
                group, self._waiting[directory] = self._waiting[directory][:count], self._waiting[directory][count:]
                await self._commit(group)
        finally:  # cancelled: nobody is left waiting
            for _, ended in group + self._waiting.pop(directory):
                ended.cancel()

    async def _commit(self, group: Waiting) -> None:
        try:
            answers = await within(self._threads, self._store.commit, [order for order, _ in group])
        except Exception as error:  # a defect is that of one order, not of those who came with it or come after it
            if len(group) > 1:
                for order, ended in group:
                    await self._commit([(replace(order, repeated=True), ended)])
            elif not group[0][1].done():
                group[0][1].set_exception(error)
            return
        for (_, ended), answer in zip(group, answers, strict=True):
            if not ended.done():  # its client may have gone
                ended.set_result(answer)
        self._tell(group[0][0].directory)

    def _tell(self, directory: str) -> None:
        if self._told is not None:
            self._told(directory)


def _fitting(waiting: Waiting) -> int:
    """How many of those that wait are committed together, one at least."""
    size = 0
    for count, (order, _) in enumerate(waiting):
        size += order.size
        if count and (count >= _GROUP_ORDERS or size > _GROUP_BYTES):
            return count
    return len(waiting)


async def within(executor: Executor, function: Callable[..., Result], *given: object) -> Result:
    """Call `function` in a thread or process of `executor`."""
    return await asyncio.get_running_loop().run_in_executor(executor, function, *given)
