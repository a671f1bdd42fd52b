"""Answers that can be given without waiting: what lies in memory and is sent as it lies."""

from __future__ import annotations

import time
from collections.abc import Mapping

from aiohttp.helpers import rfc822_formatted_time

from precomputed_server.errors import PrecomputedError
from precomputed_server.format.grid import is_cell
from precomputed_server.readers.base import Place
from precomputed_server.readers.chunks import parted
from precomputed_server.readers.registry import find_cell, place_of
from precomputed_server.readers.stored import IDENTITY, Stored, find_stored
from precomputed_server.web.respond import COMMON_HEADERS, requested_range
from precomputed_server.web.routes import CHUNK, TREE
from precomputed_server.web.send import AT_ONCE, Described, encoding_for
from precomputed_server.web.state import State
from precomputed_server.web.targets import parse_target

_SHARD = ".shard"
_REASONS = {200: "OK", 206: "Partial Content"}
_COMMON = "".join(f"{name}: {value}\r\n" for name, value in COMMON_HEADERS.items())
_LOOKED_AT_S = 0.1
Parts = tuple[bytes, bytes]
"""Head and body of an answer."""


def ready(state: State, raw_path: bytes, headers: Mapping[str, str]) -> Parts | None:
    """The answer to a GET of `raw_path`, a path of a request line, where nothing has to be waited for; else None.

    `headers` have lower-case names and none that makes the request conditional. Errors are None too: they are told by
    the long way.
    """
    try:
        target = parse_target(raw_path.partition(b"?")[0].decode("ascii"))
        if target.route is CHUNK:
            return _chunk(state, target.path, headers)
        if target.route is TREE and target.path.endswith(_SHARD) and not target.directory:
            return _shard(state, target.path, headers)
    except (PrecomputedError, OSError):  # a BlockingIOError among them: it is not in memory
        return None
    return None


def _chunk(state: State, path: str, headers: Mapping[str, str]) -> Parts | None:
    if not state.inline:
        return None
    directory, box = parted(path)
    place = None if box is None else _place(state, directory)
    if box is None or place is None or not is_cell(place.scale, box):
        return None
    chunk = find_cell(place, box, cached=True)
    if chunk is None:
        return None
    with chunk.stored as stored:
        if stored.encoding != IDENTITY and not _is_current(state, directory, place):
            return None
        described = Described.of_chunk(stored, state.settings.chunk_max_age)
        encoding = encoding_for(stored, headers)
        if encoding == IDENTITY != stored.encoding:
            body = state.decoder.recalled(path, chunk)
            return None if body is None else _in_memory(body, described, headers)
        if encoding == IDENTITY:
            return _part(stored, described, headers)
        sound = stored.decoded_bytes is None or state.decoder.known(path, chunk) is not None
        return _whole(stored, described) if sound and encoding == stored.encoding else None


def _place(state: State, directory: str) -> Place | None:
    """The scale in that directory, whose `info` was looked at within the last tenth of a second.

    A file that has not the length that this `info` says, the long way looks at again.
    """
    now = time.monotonic()
    remembered = state.places.get(directory)
    if remembered is not None and now < remembered[0]:
        return remembered[1]
    found = state.volumes.scale_at(directory, cached=True)
    place = None if found is None else place_of(state.tree, state.volumes, *found)
    if place is not None:
        state.places.put(directory, (now + _LOOKED_AT_S, place))
    return place


def _is_current(state: State, directory: str, place: Place) -> bool:
    """Whether `info` still says of the scale what it said; a decoder would believe it."""
    found = state.volumes.scale_at(directory, cached=True)
    return found is not None and found[0].info is place.info


def _shard(state: State, path: str, headers: Mapping[str, str]) -> Parts | None:
    stored = find_stored(state.tree, path, cached=True) if state.inline else None
    if stored is None:
        return None
    with stored:
        if stored.encoding != IDENTITY:
            return None
        return _part(stored, Described.of_file(stored, path, state.settings.chunk_max_age), headers)


def _part(stored: Stored, described: Described, headers: Mapping[str, str]) -> Parts | None:
    part = requested_range(headers, described.etag, stored.length) if "range" in headers else None
    if part is None:
        return _whole(stored, described)
    first, count = part
    if count > AT_ONCE:
        return None
    body = stored.read(first, count, cached=True)
    return _head(206, described.headers_of_part(part, stored.length), count), body


def _in_memory(body: bytes, described: Described, headers: Mapping[str, str]) -> Parts:
    part = requested_range(headers, described.etag, len(body)) if "range" in headers else None
    if part is None:
        return _head(200, described.headers(), len(body)), body
    first, count = part
    return _head(206, described.headers_of_part(part, len(body)), count), body[first : first + count]


def _whole(stored: Stored, described: Described) -> Parts | None:
    if stored.length > AT_ONCE:
        return None
    body = stored.read(cached=True)
    return _head(200, described.headers(stored.encoding), stored.length), body


def _head(status: int, headers: Mapping[str, str], length: int) -> bytes:
    own = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    date = rfc822_formatted_time()
    return (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\n{own}{_COMMON}Content-Length: {length}\r\nDate: {date}\r\n\r\n"
    ).encode("ascii")
