"""Files of unknown length on their way to a client, who can always tell a whole one from one that was cut off."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from aiohttp import HttpVersion11, web

from annotation_store.web.gatherer import Places
from annotation_store.web.service import STORE

_SPOOLED = Places(4)
"""How many answers to HTTP/1.0 a worker writes to the disk at a time, else 503."""
_PIECE = 1 << 17


async def sent_in_pieces(request: web.Request, pieces: Iterator[bytes], headers: dict[str, str]) -> web.StreamResponse:
    """Send pieces as they are made; the application ends the connection where one after the first cannot be made.

    HTTP/1.0 has no chunks: an answer that ends with its connection looks whole wherever it ends. There the whole of it
    is made first, so that its length can be told.
    """
    service = request.app[STORE]
    if request.version >= HttpVersion11:
        piece = await service.export(next, pieces, b"")
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        while piece:
            await response.write(piece)
            piece = await service.export(next, pieces, b"")
        await response.write_eof()
        return response
    with _SPOOLED.one():
        file, size = await service.export(_spooled, pieces, service.state)
        try:
            response = web.StreamResponse(headers={**headers, "Content-Length": str(size)})
            await response.prepare(request)
            for offset in range(0, size, _PIECE):
                await response.write(await service.export(os.pread, file.fileno(), _PIECE, offset))
            await response.write_eof()
            return response
        finally:
            await service.export(file.close)


def _spooled(pieces: Iterator[bytes], directory: Path | None) -> tuple[BinaryIO, int]:
    """A file without a name that has all of the pieces, and its size."""
    file: BinaryIO = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115  # whoever sends it closes it
    try:
        file.writelines(pieces)
        file.flush()
        return file, file.tell()
    except BaseException:
        file.close()
        raise
