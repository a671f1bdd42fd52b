"""Cut-outs: any box of voxels of a scale as one file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
from aiohttp import web
from numpy.typing import NDArray

from precomputed_server.catalog.records import describe
from precomputed_server.errors import InvalidInput, PrecomputedError, TooLarge
from precomputed_server.format.geometry import Box
from precomputed_server.format.info import ScaleInfo
from precomputed_server.format.names import chunk_name, parse_chunk_name
from precomputed_server.format.npy import npy_header
from precomputed_server.format.parts import CZYX, ZCYX, Part
from precomputed_server.format.tiff_stack import TiffStack
from precomputed_server.readers.registry import place_of
from precomputed_server.readers.volumes import Volume
from precomputed_server.web.boxes import Boxes, BoxReader, Wanted
from precomputed_server.web.respond import NO_CACHE, attachment, check_query
from precomputed_server.web.state import STATE, State
from precomputed_server.web.targets import Target
from precomputed_server.web.tiles import get_file

logger = logging.getLogger("precomputed_server")

BOXES = web.AppKey("boxes", Boxes)

_PIECE = 1 << 20
"""Bytes that are handed over at a time: a part is given back while the client takes the last of them."""

_PNG_MOST_PIXELS = 1_000_000
"""Along an edge, beyond which common readers of PNG refuse an image."""

_PNG_LEVEL = 1


@dataclass(frozen=True)
class _Format:
    """How the voxels are sent: `order` are the axes of the array, slowest first."""

    name: str
    content_type: str
    order: str


_RAW = _Format("raw", "application/octet-stream", CZYX)
_NPY = _Format("npy", "application/octet-stream", CZYX)
_TIFF = _Format("tiff", "image/tiff", ZCYX)
_PNG = _Format("png", "image/png", "ZYXC")
_FORMATS = {each.name: each for each in (_RAW, _NPY, _TIFF, _PNG)}


async def get_cutout(request: web.Request, target: Target) -> web.StreamResponse:
    """Answer with the box of voxels that the query names; a path that is not below a scale is that of a file.

    There is no entity tag: none could be told without looking at every chunk, so that a range, too, is answered with
    the whole.
    """
    state, boxes = request.app[STATE], request.app[BOXES]
    found = await state.near(state.volumes.scale_at, target.path.rpartition("/")[0])
    if found is None:
        return await get_file(request, target)
    format, wanted = await _read_query(request, state, *found)
    headers = _headers(format, wanted)
    front_bytes, front = _front(format, wanted)
    length = front_bytes + wanted.array_bytes
    if length > state.settings.max_cutout:
        raise _too_large(wanted, length, state.settings.max_cutout, "--max-cutout")
    if format is _PNG:
        _check_png(wanted, boxes.largest_part)
    else:
        headers["Content-Length"] = str(length)
    if request.method == "HEAD":
        return web.StreamResponse(headers=headers)
    reader = BoxReader(state, boxes, request, wanted)
    if format is _PNG:
        with boxes.holding(2 * wanted.array_bytes):  # as voxels, then as PNG, which may be as long
            return await _send_png(request, await reader.read(wanted.whole), headers)
    parts = boxes.parts(wanted)
    with boxes.holding(max(part.voxels for part in parts) * wanted.dtype.itemsize):
        return await _send(request, reader, (front, parts), web.StreamResponse(headers=headers))


async def _read_query(request: web.Request, state: State, volume: Volume, scale: ScaleInfo) -> tuple[_Format, Wanted]:
    """What is asked for; raises InvalidInput."""
    check_query(request, "box", "channel", "format")
    name = request.query.get("format", _RAW.name)
    format = _FORMATS.get(name)
    if format is None:
        raise InvalidInput(f"format={name[:20]} must be one of {', '.join(_FORMATS)}.")
    box = _read_box(request.query.getall("box", []), scale)
    given = request.query.getall("channel", [])
    channels = await state.far(_read_channels, state, volume, given)
    return format, Wanted(volume, place_of(state.tree, state.volumes, volume, scale), box, channels, format.order)


def _read_box(given: list[str], scale: ScaleInfo) -> Box:
    """The box of the query, which lies in the volume.

    What lies outside is not cut off: the array would be another than was asked for, and begin elsewhere.
    """
    box = parse_chunk_name(given[0]) if len(given) == 1 else None
    if box is None:
        raise InvalidInput(
            "Name one box in voxels of this scale, box=x0-x1_y0-y1_z0-z1, each end behind its beginning; "
            f"the whole scale is box={chunk_name(scale.bounds)}."
        )
    if box.clipped(scale.bounds) != box:
        raise InvalidInput(
            f"The box {chunk_name(box)} is not wholly in the volume, which is {chunk_name(scale.bounds)} at this scale."
        )
    return box


def _read_channels(state: State, volume: Volume, given: list[str]) -> tuple[int, ...]:
    """The numbers of the channels named; all when none is. A number below their count is one, all else is a name."""
    count = volume.info.num_channels
    if not given:
        return tuple(range(count))
    numbers = {str(number): number for number in range(count)}
    if not all(text in numbers for text in given):
        for number, channel in enumerate(describe(state.tree, volume).channels[:count]):
            numbers.setdefault(channel.name, number)
    for text in given:
        if text not in numbers or not text:
            known = ", ".join(name for name in numbers if name)
            raise InvalidInput(f"channel={text[:40]} is none of this dataset's: {known[:400]}.")
    return tuple(numbers[text] for text in given)


def _headers(format: _Format, wanted: Wanted) -> dict[str, str]:
    dataset = wanted.volume.path.rpartition("/")[2] or "dataset"
    name = "_".join((dataset, wanted.place.scale.key.replace("/", "_"), chunk_name(wanted.box)))
    headers = {
        "Content-Type": format.content_type,
        "Cache-Control": NO_CACHE,
        "Accept-Ranges": "none",
        "Cutout-Axes": ",".join(CZYX),
        "Cutout-Shape": ",".join(map(str, (len(wanted.channels), *wanted.box.size[::-1]))),
        "Cutout-Data-Type": wanted.dtype.str,
    }
    if format is not _PNG:  # which a browser shows
        headers["Content-Disposition"] = attachment(f"{name}.{format.name}")
    return headers


def _front(format: _Format, wanted: Wanted) -> tuple[int, Iterator[bytes]]:
    """What comes before the voxels: its length in bytes, and it itself in pieces; raises InvalidInput."""
    x, y, z = wanted.box.size
    channels = len(wanted.channels)
    if format is _NPY:
        header = npy_header((channels, z, y, x), wanted.dtype)
        return len(header), iter((header,))
    if format is _TIFF:
        if wanted.dtype.itemsize > 4:
            raise InvalidInput(
                f"Readers of TIFF know no voxels of {wanted.place.info.data_type}; use format=npy or raw."
            )
        stack = TiffStack((z, channels, y, x), wanted.dtype, wanted.place.scale.resolution_nm, wanted.box.start)
        return stack.file_bytes - wanted.array_bytes, stack.front()
    return 0, iter(())


def _too_large(wanted: Wanted, length: int, limit: int, setting: str) -> TooLarge:
    voxels = limit // (len(wanted.channels) * wanted.dtype.itemsize)
    return TooLarge(
        f"The cut-out would have {length} bytes, and this server gives at most {limit} ({setting}), "
        f"here {voxels} voxels; ask for a smaller box."
    )


def _check_png(wanted: Wanted, limit: int) -> None:
    """Raise InvalidInput for what no PNG holds, TooLarge for what is not made in memory."""
    x, y, z = wanted.box.size
    if z != 1:
        z0 = wanted.box.start[2]
        raise InvalidInput(f"A PNG holds one plane; ask for one voxel in z, such as {z0}-{z0 + 1}, or for format=tiff.")
    if len(wanted.channels) not in (1, 3):
        raise InvalidInput("A PNG holds one or three channels; choose them by channel=, or ask for format=tiff.")
    if wanted.place.info.data_type not in ("uint8", "uint16"):
        raise InvalidInput(f"A PNG holds no voxels of {wanted.place.info.data_type}; ask for format=tiff, npy or raw.")
    if max(x, y) > _PNG_MOST_PIXELS:
        raise InvalidInput(f"A PNG is at most {_PNG_MOST_PIXELS} pixels wide and high; ask for a smaller box.")
    if wanted.array_bytes > limit:
        raise _too_large(wanted, wanted.array_bytes, limit, "as PNG: a quarter of --cutout-memory")


async def _send_png(request: web.Request, voxels: NDArray[Any], headers: dict[str, str]) -> web.StreamResponse:
    """Send voxels "(1, Y, X, C)" as PNG, whole: its memory is counted until the client has taken it."""
    pixels = voxels[0] if voxels.shape[-1] == 3 else voxels[0, :, :, 0]
    async with request.app[BOXES].turns:
        # Not by the threads for decoding: it takes longer than a tile may wait.
        body = await request.app[STATE].far(_png_of, pixels)
    response = web.Response(body=body, headers=headers)
    await response.prepare(request)
    await response.write_eof()
    return response


def _png_of(pixels: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(pixels), level=_PNG_LEVEL))


async def _send(
    request: web.Request,
    reader: BoxReader,
    content: tuple[Iterator[bytes], Sequence[Part]],
    response: web.StreamResponse,
) -> web.StreamResponse:
    """Send what comes before the voxels, then these part by part."""
    front, parts = content
    # The first part is read before the status line: what fails at once is still told as it should be.
    voxels = await reader.read(parts[0])
    reader.patient = True
    await response.prepare(request)
    try:
        for piece in front:
            await response.write(piece)
        await _write(response, voxels)
        for part in parts[1:]:
            del voxels  # or there would be two parts in memory
            voxels = await reader.read(part)
            await _write(response, voxels)
        await response.write_eof()
    except PrecomputedError as error:
        # The status line is out: the only way left to say that the body is not whole is to end the connection.
        logger.error("a cut-out of %s was broken off: %s", reader.name, error)
        if request.transport is not None:
            request.transport.abort()
    return response


async def _write(response: web.StreamResponse, voxels: NDArray[Any]) -> None:
    """Send a part; what waits for the client is a copy of a piece of it, so that the part can be given back."""
    content = voxels.reshape(-1).view(np.uint8)
    for start in range(0, len(content), _PIECE):
        await response.write(content[start : start + _PIECE].tobytes())
