"""Text files in pieces: lines out of bytes as they arrive, and small pieces gathered into larger ones. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from annotation_store.model import parse_object
from precomputed_server.errors import InvalidInput

PIECE = 1 << 17
"""Bytes that are written at a time."""
LONGEST_LINE = 64 << 20


def lines_of(pieces: Iterable[bytes]) -> Iterator[str]:
    """The lines of a UTF-8 text, each with its end, which is kept as it is; raises InvalidInput."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    rest: list[str] = []
    waiting = 0
    first = True
    for piece in pieces:
        text = _decoded(decoder, piece)
        if first and text:
            text, first = text.removeprefix("\ufeff"), False
        *whole, last = text.split("\n")
        for line in whole:
            yield "".join((*rest, line, "\n"))
            rest, waiting = [], 0
        rest.append(last)
        waiting += len(last)
        if waiting > LONGEST_LINE:
            raise InvalidInput(f"A line of the file has more than {LONGEST_LINE} characters; is it a text file?")
    rest.append(_decoded(decoder, b"", final=True))
    if text := "".join(rest):
        yield text


def _decoded(decoder: codecs.IncrementalDecoder, piece: bytes, *, final: bool = False) -> str:
    try:
        return decoder.decode(piece, final)
    except UnicodeDecodeError as error:
        raise InvalidInput("The file is not UTF-8 text; save it as UTF-8.") from error


def gathered(parts: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of about PIECE."""
    waiting: list[bytes] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part)
        if size >= PIECE:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)


def object_of(text: str, where: str) -> dict[str, Any]:
    """The JSON object of a text; raises InvalidInput that says where it stands."""
    try:
        return parse_object(text.encode(), "a JSON object")
    except InvalidInput as error:
        raise type(error)(f"{where}: {error}") from error


def placed_by(members: dict[str, Any], where: str) -> tuple[str | None, str | None]:
    """The block and the leaf that an object names; raises InvalidInput."""
    block, leaf = members.get("block"), members.get("leaf")
    if not isinstance(block, (str, type(None))) or not isinstance(leaf, (str, type(None))):
        raise InvalidInput(f"{where}: block and leaf are texts.")
    return block, leaf


def dumped(value: object) -> str:
    """A value as JSON without spaces."""
    return orjson.dumps(value).decode()
