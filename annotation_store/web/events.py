"""Edits as they are made, over HTTP: Server-Sent Events (HTML standard, section 9.2).

At least once: a client whose stream broke goes on by the id of the last event that it got, and gets some of them twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from aiohttp import web

from annotation_store.blocks import check_name
from annotation_store.events.event import EDIT, Event
from annotation_store.events.identity import EventId
from annotation_store.events.past import Past, page
from annotation_store.history.instants import instant
from annotation_store.web.feeds import Stream
from annotation_store.web.service import STORE, AnnotationService
from annotation_store.web.versions import instant_of_query
from precomputed_server.errors import PrecomputedError
from precomputed_server.local_state import this_host
from precomputed_server.web.respond import NO_CACHE
from precomputed_server.web.targets import Target

COMMENT_EVERY_S = 15.0
_RETRY_MS = 1000
_AT_ONCE = 64 << 10
"""How many bytes are written before the client has to have taken them."""
_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": NO_CACHE,
    "X-Accel-Buffering": "no",  # nginx would hold events back
}


@dataclass(frozen=True)
class _Begin:
    """What is sent first: events, up to which number of the ring they go, and whether the logs hold no more."""

    events: Sequence[Event]
    number: int
    whole: bool = True


async def get_events(request: web.Request, target: Target) -> web.StreamResponse:
    """Every edit of a dataset from now on, or from what the client knows; ends when the server stops."""
    service = request.app[STORE]
    past, from_now = await _asked(request, target, service)
    if request.method == "HEAD":
        return web.Response(headers=_HEADERS)
    async with service.feeds.stream(past.dataset, request.transport, request.remote or "") as stream:
        begin = _Begin((), stream.feed.ring.end) if from_now else await _begin(service, stream, past)
        answer = _Answer(request, stream, past)
        try:
            await answer.open(from_now)
            await answer.send_past(service, begin)
            await answer.follow(service)
        except (IndexError, PrecomputedError):  # too slow, or not kept any longer: the client is told when it returns
            pass
        return answer.response


async def _asked(request: web.Request, target: Target, service: AnnotationService) -> tuple[Past, bool]:
    """What a request asks for, and whether only for what happens from now on; raises NotFound, InvalidInput."""
    dataset = target.parts["dataset"]
    blocks = await service.blocks(dataset)
    leaves = frozenset(name.removesuffix(".json") for name in request.query.getall("leaf", ()))
    for leaf in leaves:
        check_name(leaf, "leaf")
    named = frozenset(blocks.directory(name) for name in request.query.getall("block", ()))
    known = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
    since = ""
    if known:
        since = EventId.parse(known).resumed_from(time.time())
    elif "since" in request.query:
        since = instant(instant_of_query(request.query["since"]))
    return Past(dataset, since, named, leaves), not since


async def _begin(service: AnnotationService, stream: Stream, past: Past) -> _Begin:
    """What has happened since the client left, from memory where that goes back so far; raises Gone."""
    ring = stream.feed.ring
    if past.since >= ring.covers:
        return _Begin([event for event in ring.since(ring.first) if event.time >= past.since], ring.end)
    number = ring.end
    events, whole = await _page(service, past)
    return _Begin(events, number, whole)


class _Answer:
    """The stream as it is written to one client."""

    def __init__(self, request: web.Request, stream: Stream, past: Past) -> None:
        self.response = web.StreamResponse(headers=_HEADERS)
        self._request = request
        self._stream = stream
        self._past = past
        self._number = 0
        self._written_at = 0.0

    async def open(self, from_now: bool) -> None:
        """Say that the stream is there, and to whom nothing was sent yet, from where on to resume it."""
        await self.response.prepare(self._request)
        now = EventId(int(time.time() * 1000), this_host(), 0)
        await self._write(f"retry: {_RETRY_MS}\n{f'id: {now}' if from_now else ':'}\n\n".encode())

    async def send_past(self, service: AnnotationService, begin: _Begin) -> None:
        """Send what has happened, page after page."""
        while True:
            self._number = begin.number
            await self._send(begin.events)
            if begin.whole or service.feeds.stopping:
                return
            last = begin.events[-1].time
            sent = {event.id for event in begin.events if event.time == last}
            number = self._stream.feed.ring.end
            past = replace(self._past, since=last)
            events, whole = await _page(service, past, sent)
            begin = _Begin(events, number, whole)

    async def follow(self, service: AnnotationService) -> None:
        """Send what happens; raises IndexError when the client is too slow."""
        feed, news = self._stream.feed, self._stream.news
        while not (feed.ended or service.feeds.stopping):
            news.clear()
            events = feed.ring.since(self._number)
            self._number += len(events)
            await self._send(events)
            try:
                async with asyncio.timeout_at(self._written_at + COMMENT_EVERY_S):
                    await news.wait()
            except TimeoutError:
                await self._write(b":\n\n")

    async def _send(self, events: Sequence[Event]) -> None:
        for frames in _together(_frame(event) for event in events if self._past.wants(event)):
            await self._write(frames)

    async def _write(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        self._stream.writing_since = self._written_at = loop.time()
        await self.response.write(data)
        self._stream.writing_since = None


def _together(frames: Iterator[bytes]) -> Iterator[bytes]:
    """Frames in writes of about _AT_ONCE bytes, made as they are sent."""
    held: list[bytes] = []
    size = 0
    for frame in frames:
        held.append(frame)
        size += len(frame)
        if size >= _AT_ONCE:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


async def _page(service: AnnotationService, past: Past, sent: Collection[str] = ()) -> tuple[list[Event], bool]:
    """A page of the logs; only a few are read at a time."""
    async with service.feeds.reading:
        return await service.call(page, service.store, past, sent)


def _frame(event: Event) -> bytes:
    """An event as the wire has it; one that is no edit has a type, so that `onmessage` is called with edits only."""
    kind = b"" if event.kind == EDIT else b"event: " + event.kind.encode() + b"\n"
    return b"id: " + event.id.encode() + b"\n" + kind + b"data: " + event.data + b"\n\n"
