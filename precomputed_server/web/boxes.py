"""Reading boxes of voxels that may be larger than memory: part by part, chunk by chunk, beside whoever looks at tiles.

A part is an array with the voxels of one box. The chunks that it touches are read by the threads for files and decoded
by the threads for decoding, one after the other; all boxes of a worker together hold no more memory than they may, and
leave half of the first threads and one of the others to tiles.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from precomputed_server.errors import Busy, PrecomputedError, Unreadable
from precomputed_server.format.geometry import Box, Vector
from precomputed_server.format.grid import cell_box, cells_overlapping
from precomputed_server.format.names import chunk_name
from precomputed_server.format.parts import CZYX, Part, parts
from precomputed_server.limits import memory_limit
from precomputed_server.readers.base import Chunk, Place, longest
from precomputed_server.readers.registry import fill_value, find_cell
from precomputed_server.readers.volumes import Volume
from precomputed_server.readers.voxels import voxels_of
from precomputed_server.settings import Settings
from precomputed_server.web.state import State

Array = NDArray[Any]

_SHARES = 4
"""How many boxes with parts of the largest size a worker reads at a time; of smaller ones it is more."""

_ENOUGH_BYTES = 8 << 20
"""Of one part, where layers of chunks are thinner than that."""

_LEAST_BYTES = 1 << 20
"""What each box is counted for at least: sending takes some memory too."""

_ATTEMPTS = 30
_PAUSE_S = 1.0


@dataclass(frozen=True)
class Wanted:
    """Voxels of a scale: `channels` are the numbers of those chosen, `order` their axes, slowest first, as CZYX."""

    volume: Volume
    place: Place
    box: Box
    channels: tuple[int, ...]
    order: str = CZYX

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the voxels: little-endian."""
        return self.place.info.dtype

    @property
    def array_bytes(self) -> int:
        """The length of the array in bytes."""
        return len(self.channels) * self.box.voxels * self.dtype.itemsize

    @property
    def whole(self) -> Part:
        """All of it as one part."""
        return Part((0, len(self.channels)), self.box)

    def shape(self, part: Part) -> tuple[int, ...]:
        """Of the array of a part, in the order of the axes."""
        lengths = dict(zip("XYZ", part.box.size, strict=True)) | {"C": part.channels[1] - part.channels[0]}
        return tuple(lengths[axis] for axis in self.order)


class Boxes:
    """What all boxes of one worker share: memory, and turns at reading files and at decoding."""

    def __init__(self, settings: Settings) -> None:
        self._left = min(settings.cutout_memory, memory_limit() // 4 // settings.workers)
        self.largest_part = max(self._left // _SHARES, 1)
        self.reads = asyncio.Semaphore(max(1, settings.file_threads // 2))
        self.turns = asyncio.Semaphore(max(1, settings.decode_threads - 1))

    @contextlib.contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Count the bytes as held; raises Busy where others hold too many."""
        counted = max(size, min(_LEAST_BYTES, self.largest_part))
        if counted > self._left:
            raise Busy("This server sends as many cut-outs as it has memory for (--cutout-memory); try again.", 5)
        self._left -= counted
        try:
            yield
        finally:
            self._left += counted

    def parts(self, wanted: Wanted) -> list[Part]:
        """The parts of a box; none is larger than a box's share of the memory."""
        itemsize = wanted.dtype.itemsize
        most = max(1, self.largest_part // itemsize)
        sizes = min(most, _ENOUGH_BYTES // itemsize), most
        return list(parts(wanted.place.scale, wanted.box, len(wanted.channels), wanted.order, sizes))


class BoxReader:
    """Reads the parts of one box for one request."""

    def __init__(self, state: State, boxes: Boxes, request: web.Request, wanted: Wanted) -> None:
        self._state, self._boxes, self._request, self._wanted = state, boxes, request, wanted
        self._fill: float | None = None
        self.patient = False
        """Whether what is too much at once is tried again here: nobody can be told any more to do that."""

    @property
    def name(self) -> str:
        """What is read, for the log."""
        return f"{self._wanted.place.source.name}, {chunk_name(self._wanted.box)}"

    async def read(self, part: Part) -> Array:
        """The voxels of a part, its axes in the order that is wanted; what is not stored has the fill value.

        Raises Unreadable naming the chunk, Busy when the dataset was changed since the request began,
        ConnectionResetError when the client went away.
        """
        wanted, inflate = self._wanted, self._state.decoder.inflate
        if self._fill is None:
            self._fill = await self._state.far(fill_value, wanted.place)
        voxels = await inflate(np.full, wanted.shape(part), self._fill, wanted.dtype)
        view = voxels.transpose([wanted.order.index(axis) for axis in CZYX])
        for cell in cells_overlapping(wanted.place.scale, part.box):
            if self._request.transport is None or self._request.transport.is_closing():
                raise ConnectionResetError("the client went away")
            await self._put(view, part, cell)
        volume = await self._state.far(self._state.volumes.at, wanted.volume.path)
        if volume is None or volume.fingerprint != wanted.volume.fingerprint:
            raise Busy("The dataset was changed while it was read; ask again.")
        return voxels

    async def _put(self, view: Array, part: Part, cell: Vector) -> None:
        """Decode a chunk and copy what the part has of it."""
        whole = cell_box(self._wanted.place.scale, cell)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._put_now(view, part, whole)
            except Busy:
                if not self.patient or attempt == _ATTEMPTS:
                    raise
                await asyncio.sleep(_PAUSE_S)
            except PrecomputedError as error:
                raise Unreadable(f"In the chunk {chunk_name(whole)}: {error}") from error
        return None

    async def _put_now(self, view: Array, part: Part, whole: Box) -> None:
        place, decoder = self._wanted.place, self._state.decoder
        async with self._boxes.reads:
            chunk = await self._state.far(_found, place, whole)
        if chunk is None:
            return
        channels = self._wanted.channels[slice(*part.channels)]
        with chunk.stored:
            async with self._boxes.turns:
                data = await decoder.passing(f"{place.source.name}/{chunk_name(whole)}", chunk)
                await decoder.inflate(_copy, data, place, (whole, part.box), channels, view)


def _found(place: Place, whole: Box) -> Chunk | None:
    """The chunk, open, or None; it was read once: nobody waits for a slow disk while others wait for their turn."""
    chunk = find_cell(place, whole)
    if chunk is not None and chunk.stored.length <= longest(place, whole):
        try:
            chunk.stored.read()
        except BaseException:
            chunk.stored.close()
            raise
    return chunk


def _copy(data: bytes, place: Place, boxes: tuple[Box, Box], channels: Sequence[int], view: Array) -> None:
    """Put the voxels of the first box, of which `data` is the chunk, where they lie in `view`, those of the second."""
    whole, wanted = boxes
    both = whole.clipped(wanted)
    found = voxels_of(data, place, whole)[both.within(whole)]
    into = view[both.within(wanted)]
    for number, channel in enumerate(channels):
        into[number] = found[channel]
