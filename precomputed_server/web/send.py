"""Sending bytes: as they lie where the client can take them, decoded where it cannot, whole or in part."""

from __future__ import annotations

import logging
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from precomputed_server.errors import PrecomputedError, Unreadable
from precomputed_server.format.zarr import METADATA_NAMES
from precomputed_server.readers.base import Chunk
from precomputed_server.readers.compression import gzip_of_zlib, inflate
from precomputed_server.readers.stored import CODED, IDENTITY, Stored
from precomputed_server.web.respond import NO_CACHE, VARY, accepts, check_preconditions, quoted, requested_range
from precomputed_server.web.state import STATE

logger = logging.getLogger("precomputed_server")

AT_ONCE = 1 << 20
"""Bytes up to which a file is sent in one piece; a longer one is read and sent piece by piece."""

_APART = 1 << 16
"""Bytes from which head and body are handed over one after the other: joining them would copy the body."""

_BINARY = "application/octet-stream"
_TEXT_NAMES = dict.fromkeys(("info", "provenance", *METADATA_NAMES), "application/json")


@dataclass(frozen=True)
class Described:
    """What the headers of an answer say.

    `etag` is the strong entity tag, unquoted, of the unencoded bytes; a `sandboxed` page may be looked at, but its
    scripts do not run as ours.
    """

    etag: str
    content_type: str
    cache_control: str = NO_CACHE
    varies: bool = False
    sandboxed: bool = False

    @classmethod
    def of_chunk(cls, stored: Stored, max_age: int) -> Described:
        """The headers of a chunk, which may be kept for `max_age` seconds."""
        return cls(str(stored.fingerprint), _BINARY, f"max-age={max_age}", stored.encoding != IDENTITY)

    @classmethod
    def of_file(cls, stored: Stored, path: str, max_age: int) -> Described:
        """The headers of a stored file; a shard, which holds chunks, may be kept as they may."""
        cache_control = f"max-age={max_age}" if path.endswith(".shard") else NO_CACHE
        varies = stored.encoding != IDENTITY
        content_type = content_type_of(path.rpartition("/")[2])
        return cls(str(stored.fingerprint), content_type, cache_control, varies, sandboxed=True)

    def etag_of(self, encoding: str) -> str:
        """The tag, unquoted, of the representation in that content encoding."""
        return self.etag if encoding == IDENTITY else f"{self.etag}-{encoding}"

    def headers(self, encoding: str = IDENTITY) -> dict[str, str]:
        """The headers of the representation in that content encoding; each encoding has its own tag."""
        headers = {
            "ETag": quoted(self.etag_of(encoding)),
            "Content-Type": self.content_type,
            "Cache-Control": self.cache_control,
            "Accept-Ranges": "bytes",
        }
        if self.varies:
            headers["Vary"] = VARY
        if encoding != IDENTITY:
            headers["Content-Encoding"] = encoding
        if self.sandboxed:
            headers["Content-Security-Policy"] = "sandbox"
        return headers

    def headers_of_part(self, part: tuple[int, int], length: int) -> dict[str, str]:
        """The headers of a range (first byte and count) of the unencoded `length` bytes."""
        first, count = part
        return self.headers() | {"Content-Range": f"bytes {first}-{first + count - 1}/{length}"}


def content_type_of(name: str) -> str:
    """The media type that a file name stands for."""
    if name in _TEXT_NAMES:
        return _TEXT_NAMES[name]
    guessed, packed = mimetypes.guess_type(name)
    if guessed is None or packed is not None:
        return _BINARY
    return f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed


async def send_bytes(request: web.Request, body: bytes, described: Described) -> web.StreamResponse:
    """Answer with bytes that are in memory, or the part or 304 that the request asks for."""
    headers = described.headers()
    if check_preconditions(request, described.etag):
        return web.Response(status=304, headers=_of_unchanged(headers))
    part = requested_range(_asked(request), described.etag, len(body))
    if part is None:
        return web.Response(body=body, headers=headers)
    first, count = part
    return web.Response(
        status=206, body=body[first : first + count], headers=described.headers_of_part(part, len(body))
    )


def encoding_for(stored: Stored, headers: Mapping[str, str]) -> str:
    """The content encoding in which a client that sends `headers` (lower-case names) gets a stored file or chunk.

    A range is one of the decoded bytes. A deflate stream becomes a gzip file without being decoded for the answer.
    """
    if stored.encoding in (IDENTITY, CODED) or "range" in headers:
        return IDENTITY
    if accepts(headers, stored.encoding):
        return stored.encoding
    return "gzip" if stored.encoding == "deflate" and accepts(headers, "gzip") else IDENTITY


async def send_stored(request: web.Request, stored: Stored, described: Described) -> web.StreamResponse:
    """Answer with a stored file, encoded as it lies when the client accepts that."""
    if encoding_for(stored, _asked(request)) == stored.encoding:
        return await _send_as_it_lies(request, stored, described)
    if check_preconditions(request, described.etag):
        return web.Response(status=304, headers=_of_unchanged(described.headers()))
    state = request.app[STATE]
    body = await state.decoder.inflate(_inflated_file, stored, state.settings.max_decoded)
    return await send_bytes(request, body, described)


async def send_chunk(request: web.Request, path: str, chunk: Chunk, described: Described) -> web.StreamResponse:
    """Answer with the chunk of that path, encoded as it lies when the client accepts that and it is sound."""
    stored, decoder = chunk.stored, request.app[STATE].decoder
    encoding = encoding_for(stored, _asked(request))
    etag = described.etag_of(encoding)
    if check_preconditions(request, etag):
        return web.Response(status=304, headers=_of_unchanged(described.headers(encoding)))
    length = _length_without_decoding(stored, encoding)
    if request.method == "HEAD" and length is not None:
        return web.Response(headers=described.headers(encoding) | {"Content-Length": str(length)})
    if encoding == IDENTITY != stored.encoding:
        return await send_bytes(request, await decoder.decoded(path, chunk), described)
    if stored.decoded_bytes is None or encoding == IDENTITY:
        return await _send_as_it_lies(request, stored, described)
    checked = await decoder.checked(path, chunk)
    if encoding == stored.encoding:
        return await _send_as_it_lies(request, stored, described)
    stream = await request.app[STATE].near(_read, stored, 0, stored.length)
    try:
        body = gzip_of_zlib(bytes(stream), checked)
    except Unreadable:  # sound, but with something behind its end
        return await send_bytes(request, await decoder.decoded(path, chunk), described)
    return web.Response(body=body, headers=described.headers(encoding))


def _length_without_decoding(stored: Stored, encoding: str) -> int | None:
    """The length of a chunk in that content encoding, if it is sound; None where only decoding can tell it."""
    if encoding == stored.encoding:
        return stored.length
    return stored.decoded_bytes if encoding == IDENTITY else None


def _inflated_file(stored: Stored, limit: int) -> bytes:
    if stored.length > limit:
        raise Unreadable(f"The file has more than the {limit} bytes that this server decodes (--max-decoded).")
    return inflate(stored.encoding, bytes(stored.read()), limit)


async def _send_as_it_lies(request: web.Request, stored: Stored, described: Described) -> web.StreamResponse:
    headers = described.headers(stored.encoding)
    etag = described.etag_of(stored.encoding)
    if check_preconditions(request, etag):
        return web.Response(status=304, headers=_of_unchanged(headers))
    part = requested_range(_asked(request), etag, stored.length) if stored.encoding == IDENTITY else None
    first, count = part or (0, stored.length)
    if part is not None:
        headers = described.headers_of_part(part, stored.length)
    status = 200 if part is None else 206
    if request.method == "HEAD":
        return web.Response(status=status, headers={**headers, "Content-Length": str(count)})
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = count
    return await _stream(request, stored, (first, count), response)


async def _stream(
    request: web.Request, stored: Stored, part: tuple[int, int], response: web.StreamResponse
) -> web.StreamResponse:
    first, count = part
    state = request.app[STATE]
    # The first piece is read before the status line: a disk that fails at once is still a 500.
    piece = await state.near(_read, stored, first, min(count, AT_ONCE))
    writer = await response.prepare(request)
    if writer is not None and count > _APART:
        writer.send_headers()
    try:
        for start in range(first + AT_ONCE, first + count, AT_ONCE):
            await response.write(piece)
            piece = await state.near(_read, stored, start, min(AT_ONCE, first + count - start))
        await response.write_eof(piece)
    except PrecomputedError as error:
        # The status line is out: the only way left to say that the body is not whole is to end the connection.
        logger.error("a download was broken off: %s", error)
        if request.transport is not None:
            request.transport.abort()
    return response


def _read(stored: Stored, offset: int, length: int, *, cached: bool = False) -> bytes:
    return stored.read(offset, length, cached=cached)


def _of_unchanged(headers: dict[str, str]) -> dict[str, str]:
    """The headers that a 304 repeats (RFC 9110 §15.4.5)."""
    return {name: headers[name] for name in ("ETag", "Cache-Control", "Vary") if name in headers}


def _asked(request: web.Request) -> Mapping[str, str]:
    """The request's headers, without a range that is not asked of GET: it is defined for no other method (§14.2)."""
    if request.method == "GET" or "Range" not in request.headers:
        return request.headers
    headers = request.headers.copy()
    del headers["Range"]
    return headers
