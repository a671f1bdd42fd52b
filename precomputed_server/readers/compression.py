"""Inflating what lies compressed, never past a bound: a small file may stand for terabytes."""

from __future__ import annotations

import bz2
import struct
from dataclasses import dataclass
from typing import Protocol

import imagecodecs
from isal import igzip_lib, isal_zlib

from precomputed_server.errors import Unreadable

_BLOSC_HEADER = struct.Struct("<4B3I")
"""Source: https://github.com/Blosc/c-blosc/blob/main/README_CHUNK_FORMAT.rst: after four bytes the lengths of the
content, of a block of it, and of the whole."""
_WINDOWS = {"gzip": 31, "deflate": 15}


class _Inflater(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


def inflate(encoding: str, data: bytes, limit: int) -> bytes:
    """Decode `data` of the HTTP content encoding gzip, deflate (zlib), br or zstd to at most `limit` bytes.

    Raises Unreadable for damaged data and when there is more than `limit`.
    """
    if not data:
        raise Unreadable(f"the {encoding} stream is empty.")
    if encoding in _WINDOWS:
        return _inflate_zlib(encoding, data, limit)
    decode = {"br": imagecodecs.brotli_decode, "zstd": imagecodecs.zstd_decode}[encoding]
    try:
        return bytes(decode(data, out=limit))  # fails when the buffer of that size is too small
    except RuntimeError as error:
        raise Unreadable(f"the {encoding} stream is damaged or inflates to more than {limit} bytes.") from error


def _inflate_zlib(encoding: str, data: bytes, limit: int) -> bytes:
    pieces = []
    while data:  # a gzip file may have several members, one after the other
        piece, data = _inflate_member(encoding, data, limit)
        pieces.append(piece)
        limit -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _inflate_member(encoding: str, data: bytes, limit: int) -> tuple[bytes, bytes]:
    """Inflate the first member; returns it and what follows it."""
    inflater: _Inflater = isal_zlib.decompressobj(wbits=_WINDOWS[encoding])
    try:
        inflated = inflater.decompress(data, limit + 1)
    except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub declares an instance
        raise Unreadable(f"the {encoding} stream is damaged.") from error
    if len(inflated) > limit:
        raise Unreadable(f"the {encoding} stream inflates to more than the {limit} bytes that it may have.")
    if not inflater.eof:
        raise Unreadable(f"the {encoding} stream ends too early.")
    return inflated, inflater.unused_data


def unpack(codec: str, data: bytes, length: int) -> bytes:
    """Decode `data` of the codec blosc, lz4 or bz2, as arrays use them, to `length` bytes; raises Unreadable."""
    try:
        unpacked = {"blosc": _unblosc, "lz4": _unlz4, "bz2": _unbz2}[codec](data, length)
    except (RuntimeError, ValueError, OSError, EOFError, struct.error) as error:
        raise Unreadable(f"the {codec} stream is damaged.") from error
    if len(unpacked) != length:
        raise Unreadable(f"the {codec} stream does not hold the {length} bytes that it should.")
    return unpacked


def blosc_length(data: bytes) -> int:
    """How many bytes a blosc frame says that it holds; raises Unreadable when it is too short to say so."""
    if len(data) < _BLOSC_HEADER.size:
        raise Unreadable("the blosc stream is damaged.")
    return int(_BLOSC_HEADER.unpack_from(data)[4])


def _unblosc(data: bytes, length: int) -> bytes:
    # The library believes the header, so what that says is compared first.
    *_, content, _block, whole = _BLOSC_HEADER.unpack_from(data)
    if (content, whole) != (length, len(data)):
        raise ValueError("header")
    return bytes(imagecodecs.blosc_decode(data, numthreads=1))


def _unlz4(data: bytes, length: int) -> bytes:
    """Four bytes of length, then a block."""
    if int.from_bytes(data[:4], "little") != length:
        raise ValueError("header")
    return bytes(imagecodecs.lz4_decode(data[4:], out=length))


def _unbz2(data: bytes, length: int) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, length + 1)


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of bytes that were decoded without an error: length, CRC-32 (gzip's) and Adler-32 (zlib's)."""

    length: int
    crc32: int
    adler32: int

    @classmethod
    def of(cls, body: bytes) -> Checked:
        """Of these bytes."""
        return cls(len(body), isal_zlib.crc32(body), isal_zlib.adler32(body))


def gzip_of_zlib(stream: bytes, checked: Checked) -> bytes:
    """A gzip file of the same deflate data as a zlib stream whose decoded bytes are `checked`; nothing is decoded.

    Raises Unreadable for a stream that does not end with their checksum. Sources: RFC 1950, RFC 1952.
    """
    if stream[-4:] != struct.pack(">I", checked.adler32):
        raise Unreadable("behind the end of the deflate stream is something else.")
    end = struct.pack("<II", checked.crc32, checked.length & 0xFFFFFFFF)
    return b"".join((b"\x1f\x8b\x08\0\0\0\0\0\0\xff", memoryview(stream)[2:-4], end))
