"""Who listens to what in one worker: a feed for each dataset that somebody listens to, and the streams that do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from annotation_store.reader import AnnotationReader
from annotation_store.web.feed import Feed
from annotation_store.web.gatherer import Told
from precomputed_server.errors import Busy

MOST_STREAMS = 1000
"""How many streams a worker has open at a time, else 503."""
_MOST_PAGES = 2
"""How many streams read a page of what is past at a time; the others wait."""
_STUCK_S = 30.0
"""For how long a client may take nothing before it is disconnected."""
_CHECK_S = 5.0
_LAST_WRITE_S = 1.0
"""How long a stream may take to end when the server stops."""


@dataclass(eq=False)
class Stream:
    """A client who listens; `writing_since` is the loop's time when a write was begun that is not done yet."""

    feed: Feed
    transport: asyncio.Transport | None
    address: str = ""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    writing_since: float | None = None

    def abort(self) -> None:
        """Disconnect it, whatever is still to be sent."""
        if self.transport is not None:
            self.transport.abort()


class Feeds:
    """The feeds of one worker; `watch` has commits told of from when somebody listens first.

    One address may have `most_of_one` streams at a time.
    """

    def __init__(self, store: AnnotationReader, watch: Callable[[Told], None], most_of_one: int) -> None:
        self.stopping = False
        self.reading = asyncio.Semaphore(_MOST_PAGES)
        self._store = store
        self._most_of_one = most_of_one
        self._watch: Callable[[Told], None] | None = watch
        self._threads = ThreadPoolExecutor(2, "events")
        self._feeds: dict[str, Feed] = {}
        self._streams: set[Stream] = set()
        self._checking: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def stream(
        self, dataset: str, transport: asyncio.Transport | None, address: str = ""
    ) -> AsyncIterator[Stream]:
        """Listen to a dataset; raises Busy when too many do, or too many from that address."""
        if sum(stream.address == address for stream in self._streams) >= self._most_of_one:
            raise Busy(
                "Too many clients of your address listen to this server (setting --streams-per-address); close some.",
                retry_after=5,
            )
        if len(self._streams) >= MOST_STREAMS or self.stopping:
            raise Busy("Too many clients listen to this server; try again.", retry_after=5)
        feed = self._feed_of(dataset)
        stream = Stream(feed, transport, address)
        self._streams.add(stream)
        leave = feed.listen(stream.news)
        self._check_later()
        try:
            await feed.ready()
            yield stream
        finally:
            leave()
            self._streams.discard(stream)
            if not any(other.feed is feed for other in self._streams):
                self._drop(dataset, feed)

    def stop(self) -> None:
        """Let the streams end: none is waited for."""
        self.stopping = True
        for stream in self._streams:
            stream.news.set()
        if self._streams:
            asyncio.get_running_loop().call_later(_LAST_WRITE_S, self._abort_all)

    async def close(self) -> None:
        """Stop the feeds."""
        if self._checking is not None:
            self._checking.cancel()
        for feed in self._feeds.values():
            await feed.close()
        await asyncio.to_thread(self._threads.shutdown)

    def _feed_of(self, dataset: str) -> Feed:
        if self._watch is not None:
            self._watch(self._changed)
            self._watch = None
        feed = self._feeds.get(dataset)
        if feed is None or feed.ended:
            feed = self._feeds[dataset] = Feed(self._store, dataset, self._threads)
        return feed

    def _drop(self, dataset: str, feed: Feed) -> None:
        """Nobody listens any more."""
        feed.cancel()
        if self._feeds.get(dataset) is feed:
            del self._feeds[dataset]

    def _changed(self, directory: str) -> None:
        for feed in self._feeds.values():
            feed.changed(directory)

    def _check_later(self) -> None:
        if self._checking is None:
            self._checking = asyncio.get_running_loop().call_later(_CHECK_S, self._check)

    def _check(self) -> None:
        """Disconnect whoever takes nothing."""
        self._checking = None
        now = asyncio.get_running_loop().time()
        for stream in self._streams:
            if stream.writing_since is not None and now - stream.writing_since > _STUCK_S:
                stream.abort()
        if self._streams:
            self._check_later()

    def _abort_all(self) -> None:
        for stream in self._streams:
            stream.abort()
