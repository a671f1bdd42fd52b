"""Clients that follow a dataset's edits as a browser does: whatever happens to a stream, it is gone on with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import aiohttp
import orjson

EVENTS = "/brain/annotations/events"
_PAUSE_S = 0.05

Key = tuple[str, str, int, str]
"""Block, leaf, version and annotation: what tells an edit from every other one."""


class Follower:
    """One client: `seen` are the edits that it was told of and how, `times` when it was told of them first.

    `torn` counts the streams that ended.
    """

    def __init__(self, url: str, query: str = "") -> None:
        self.seen: dict[Key, bytes] = {}
        self.times: dict[Key, float] = {}
        self.differing: list[Key] = []
        self.doubles = self.torn = 0
        self.is_open = asyncio.Event()
        self._url = url + EVENTS + query
        self._last_id = ""

    async def follow(self, session: aiohttp.ClientSession) -> None:
        """Follow until cancelled."""
        while True:
            with suppress(aiohttp.ClientError, OSError):
                headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
                async with session.get(self._url, headers=headers) as answer:
                    if answer.status == 200:
                        await self._read(answer)
            self.torn += 1
            await asyncio.sleep(_PAUSE_S)

    async def _read(self, answer: aiohttp.ClientResponse) -> None:
        rest = b""
        async for data in answer.content.iter_any():
            *blocks, rest = (rest + data).split(b"\n\n")
            for block in blocks:
                self._take(block)

    def _take(self, block: bytes) -> None:
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
        self._last_id = fields.get(b"id", b"").decode() or self._last_id
        self.is_open.set()
        if b"data" not in fields or b"event" in fields:
            return
        told = orjson.loads(fields[b"data"])
        key = (told["block"], told["leaf"], told["version"], told["id"])
        if key in self.seen:
            self.doubles += 1
            if self.seen[key] != fields[b"data"]:
                self.differing.append(key)
            return
        self.seen[key] = fields[b"data"]
        self.times[key] = time.monotonic()


@asynccontextmanager
async def following(urls: list[str], query: str = "") -> AsyncIterator[list[Follower]]:
    """As many followers as there are URLs of servers, all of them connected."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=1 << 20) as session:
        followers = [Follower(url, query) for url in urls]
        tasks = [asyncio.create_task(follower.follow(session)) for follower in followers]
        try:
            async with asyncio.timeout(30):
                for follower in followers:
                    await follower.is_open.wait()
            yield followers
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until a condition holds; returns whether it does."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    return condition()
