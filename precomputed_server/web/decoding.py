"""Decoding for clients that cannot take a chunk as it lies: in few threads, once for all who wait, and remembered."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from precomputed_server.errors import Busy, Unreadable
from precomputed_server.files import Fingerprint, typed
from precomputed_server.format.geometry import Box
from precomputed_server.format.names import CHUNK_TIFF_SUFFIX
from precomputed_server.limits import memory_limit
from precomputed_server.readers.base import Chunk
from precomputed_server.readers.compression import Checked
from precomputed_server.readers.stored import Stored
from precomputed_server.recent import Recent, Weighed
from precomputed_server.settings import Settings

Result = TypeVar("Result")

_CHECKED_BYTES = 320
"""What it costs to remember that a chunk is sound."""
_AT_ONCE = 1 << 20
"""Bytes that are read on the event loop where they lie in memory."""

_ENTRY_BYTES = 500
"""What an entry of the cache costs besides its bytes."""


@dataclass(frozen=True)
class _Key:
    """One chunk in one state of its file, as one state of `info` describes it."""

    path: str
    fingerprint: Fingerprint
    offset: int
    box: Box
    array_bytes: int

    @classmethod
    def of(cls, path: str, chunk: Chunk) -> _Key:
        """The key of the chunk that `path` names, with or without `.tiff`."""
        stored = chunk.stored
        return cls(
            path.removesuffix(CHUNK_TIFF_SUFFIX), stored.fingerprint, stored.offset, chunk.box, chunk.array_bytes
        )


class Decoder:
    """The threads in which one worker decodes, and what it remembers of it.

    Its share of `chunk_memory` is what the server has divided by the workers; the server has at most half of the
    memory that there is.
    """

    def __init__(self, settings: Settings, reader: Callable[[Callable[..., None], Stored], Awaitable[None]]) -> None:
        """`reader` calls a function of a stored part here when that waits for nothing, else in a thread for files."""
        self._reader = reader
        self._limit = settings.max_decoded
        self._waiting = settings.decodes_waiting
        self.bound = min(settings.chunk_memory, memory_limit() // 2) // settings.workers
        self._kept: Weighed[_Key, bytes] = Weighed(self.bound)
        # By the hash of its key, which takes a tenth of the key: two of the same are met once in millions of years.
        self._checked: Recent[int, Checked] = Recent(settings.header_memory // settings.workers // 2 // _CHECKED_BYTES)
        self._flights: dict[_Key, asyncio.Future[tuple[bytes, Checked]]] = {}
        self._pool = ThreadPoolExecutor(settings.decode_threads, "decode")

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(cancel_futures=True)

    def recalled(self, path: str, chunk: Chunk) -> bytes | None:
        """The decoded chunk, when it is kept in this state."""
        return self._kept.get(_Key.of(path, chunk))

    def known(self, path: str, chunk: Chunk) -> Checked | None:
        """What this worker knows of the chunk, when it has decoded it in this state before."""
        return self._checked.get(hash(_Key.of(path, chunk)))

    async def decoded(self, path: str, chunk: Chunk) -> bytes:
        """The chunk's bytes in the scale's encoding, kept for the next who asks.

        Raises Unreadable, and Busy when too many chunks wait to be decoded.
        """
        key = _Key.of(path, chunk)
        body = self._kept.get(key)
        if body is None:
            body = (await self._flown(key, chunk))[0]
            if len(body) + _ENTRY_BYTES <= self.bound:
                self._kept.put(key, body, len(body) + _ENTRY_BYTES)
        return body

    async def passing(self, path: str, chunk: Chunk) -> bytes:
        """As `decoded`, but not kept: who reads many chunks once drives out none of those that are looked at."""
        key = _Key.of(path, chunk)
        kept = self._kept.get(key)
        return (await self._flown(key, chunk))[0] if kept is None else kept

    async def checked(self, path: str, chunk: Chunk) -> Checked:
        """Decode a chunk that is sent as it lies, once in each state, to see that it is sound; raises as `decoded`."""
        known = self.known(path, chunk)
        if known is not None:
            return known
        return (await self._flown(_Key.of(path, chunk), chunk))[1]

    async def inflate(self, function: Callable[..., Result], *given: object) -> Result:
        """Call `function` in one of the threads for decoding."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *given)

    async def _flown(self, key: _Key, chunk: Chunk) -> tuple[bytes, Checked]:
        """Decode, or wait for who does already; it goes on when the one who asked first goes away."""
        flight = self._flights.get(key)
        if flight is None:
            if len(self._flights) >= self._waiting:
                raise Busy("Too many chunks wait to be decoded; try again.", 1)
            # A descriptor of its own: the request's is closed when its client goes, and its number given to others.
            own = replace(chunk, stored=replace(chunk.stored, descriptor=_duplicate(chunk.stored.descriptor)))
            flight = asyncio.create_task(self._decode(own))
            self._flights[key] = flight
            flight.add_done_callback(functools.partial(self._landed, key, own))
        return await asyncio.shield(flight)

    async def _decode(self, chunk: Chunk) -> tuple[bytes, Checked]:
        # Read first, by the threads for files: a slow disk would hold up the few that decode.
        if chunk.stored.length <= self._limit:
            await self._reader(_read, chunk.stored)
        return await self.inflate(_decode, chunk, self._limit)

    def _landed(self, key: _Key, chunk: Chunk, flight: asyncio.Future[tuple[bytes, Checked]]) -> None:
        del self._flights[key]
        chunk.stored.close()
        if not flight.cancelled() and flight.exception() is None:
            self._checked.put(hash(key), flight.result()[1])


def _duplicate(descriptor: int) -> int:
    try:
        return os.dup(descriptor)
    except OSError as error:  # there may be none left
        raise typed(error, "The chunk") from error


def _read(stored: Stored, *, cached: bool = False) -> None:
    """Have the stored bytes in the page cache; of a chunk that lies in several files, the first's."""
    if cached and stored.length > _AT_ONCE:
        raise BlockingIOError(errno.EAGAIN, "to read it takes long")
    with contextlib.suppress(Unreadable):  # shorter than it should be: who decodes says so
        stored.read(cached=cached)


def _decode(chunk: Chunk, limit: int) -> tuple[bytes, Checked]:
    try:
        body = chunk.decode(limit)
    except OSError as error:
        raise typed(error, "The chunk") from error
    return body, Checked.of(body)
