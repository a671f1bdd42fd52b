"""Inflating what lies compressed, never past a bound: a small file may stand for terabytes."""

from __future__ import annotations

from typing import Protocol

import imagecodecs
from isal import igzip_lib, isal_zlib

from precomputed_server.errors import TooLarge, Unreadable

_GZIP_WINDOW = 31
_ZLIB_WINDOW = 15


class _Inflater(Protocol):
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def inflate(encoding: str, data: bytes, limit: int) -> bytes:
    """Decode `data` of the HTTP content encoding gzip, deflate (zlib), br or zstd to at most `limit` bytes.

    Raises Unreadable for damaged data, TooLarge when there is more than `limit`.
    """
    if encoding in ("gzip", "deflate"):
        return _inflate_zlib(data, _GZIP_WINDOW if encoding == "gzip" else _ZLIB_WINDOW, limit)
    decode = {"br": imagecodecs.brotli_decode, "zstd": imagecodecs.zstd_decode}[encoding]
    try:
        return bytes(decode(data, out=limit))  # fails when the buffer of that size is too small
    except RuntimeError as error:
        raise Unreadable(f"the {encoding} stream is damaged or inflates to more than {limit} bytes.") from error


def _inflate_zlib(data: bytes, window: int, limit: int) -> bytes:
    inflater: _Inflater = isal_zlib.decompressobj(wbits=window)
    try:
        inflated = inflater.decompress(data, limit + 1)
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub declares an instance
        raise Unreadable("the compressed stream is damaged.") from error
    if len(inflated) > limit:
        raise TooLarge(f"it inflates to more than the {limit} bytes that are allowed.")
    if not inflater.eof:
        raise Unreadable("the compressed stream ends too early.")
    return inflated
