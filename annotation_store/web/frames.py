"""Messages between the serving processes of a host and its writer.

A message is two lengths (32 bit, big-endian), a JSON object, and the bodies that belong to it, over the socket in the
state directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import orjson

SOCKET = "writer"
NO_ORDER = -1
"""The number of messages that are neither an order nor its answer."""

_LENGTHS = struct.Struct(">II")


class Frames(asyncio.Protocol):
    """Messages over a stream."""

    def __init__(self, received: Callable[[Frames, dict[str, Any], bytes], None]) -> None:
        self._received = received
        self._buffer = bytearray()
        self._unsent: list[bytes] = []
        self.transport: asyncio.Transport | None = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _LENGTHS.size:
            header, body = _LENGTHS.unpack_from(self._buffer, start)
            begin = start + _LENGTHS.size
            if len(self._buffer) - begin < header + body:
                break
            start = begin + header + body
            members = orjson.loads(self._buffer[begin : begin + header])
            self._received(self, members, bytes(self._buffer[begin + header : start]))
        del self._buffer[:start]

    def send(self, message: bytes) -> None:
        """Send a message, together with what else is sent in this turn of the loop, unless the other end has gone."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self.flush)
        self._unsent.append(message)

    def flush(self) -> None:
        """Hand what is to be sent to the transport."""
        messages, self._unsent = self._unsent, []
        if messages and self.transport is not None and not self.transport.is_closing():
            self.transport.write(b"".join(messages))

    def close(self) -> None:
        """Send what is left, and close."""
        self.flush()
        if self.transport is not None:
            self.transport.close()


def message_of(members: dict[str, Any], bodies: list[bytes]) -> bytes:
    """The bytes of a message."""
    header = orjson.dumps(members)
    return b"".join([_LENGTHS.pack(len(header), sum(map(len, bodies))), header, *bodies])


@contextlib.contextmanager
def open_state(path: Path) -> Iterator[int]:
    """The open state directory; raises OSError."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield directory
    finally:
        os.close(directory)


def socket_path(directory: int) -> str:
    """The socket's path, short enough for the kernel however long that of the directory is."""
    return f"/proc/self/fd/{directory}/{SOCKET}"
