"""Lines of the log: chained by digests, and gathered to groups.

A line ends in `,"previous":"…","digest":"…"}`: the digest is that of the line up to there, `previous` that of the line
before. Format 1 had no digest of its own: `previous` was the SHA-256 of the whole line before.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from annotation_store.history.records import SEGMENT, Members
from precomputed_server.errors import Unreadable

FORMAT = 2
DIGITS = 32

_DIGEST = b',"digest":"'
_TAIL = len(_DIGEST) + DIGITS + len(b'"}')
OPENS_CONTENT = b'{"operation":"content"'
OPENS_COMPACTED = b'{"operation":"compacted"'
_IN_NO_GROUP = (b'{"format":%d,"operation":"segment"' % FORMAT, OPENS_COMPACTED)


@dataclass(slots=True)
class Line:
    """A sound line: its members, its own digest, the one that it gives as its predecessor's, and how long it is."""

    members: Members
    digest: str
    previous: str
    size: int


@dataclass(slots=True)
class Group:
    """The lines of one commit, with content lines before the first edits; `files` are the files that it changes."""

    lines: list[Line]
    start: int
    stop: int

    @property
    def files(self) -> Members:
        """By leaf, the SHA-256 of the file before and after."""
        files: Members = self.lines[-1].members["files"]
        return files

    @property
    def host(self) -> str:
        """The host that wrote it; logs of earlier versions do not say."""
        return str(self.lines[-1].members.get("host", "unknown"))


def sealed(members: Members, previous: str) -> tuple[bytes, str]:
    """The bytes of a line that follows the one whose digest is `previous`, and its own digest."""
    body = orjson.dumps(members)[:-1] + b',"previous":"' + previous.encode() + b'"'
    digest = hashlib.sha256(body).hexdigest()[:DIGITS]
    return body + _DIGEST + digest.encode() + b'"}\n', digest


def opened(raw: bytes) -> Line | None:
    """The line of these bytes (without its end), None when it is damaged."""
    body, seal = raw[:-_TAIL], raw[-_TAIL:]
    digest = hashlib.sha256(body).hexdigest()[:DIGITS]
    if seal != _DIGEST + digest.encode() + b'"}':
        return None
    try:
        members = orjson.loads(raw)
        previous = members.pop("previous")
        del members["digest"]
    except (orjson.JSONDecodeError, AttributeError, KeyError):
        return None
    return Line(members, digest, previous, len(raw) + 1)


def opened_old(raw: bytes) -> Line | None:
    """The line of format 1 of these bytes, with the members that it would have today; None when it is damaged."""
    try:
        members = orjson.loads(raw)
        needed = [members["leaf"], members["version"], members["operation"], members["time"]]
        needed += [item["id"] for item in members["items"]] if "items" in members else [members["id"]]
        if "file" in members:
            file = members.pop("file")
            members["files"] = {members["leaf"]: {"before": file["before"], "after": file["after"]}}
        previous = members.pop("previous")
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError, AttributeError):
        return None
    if not isinstance(needed[0], str) or not isinstance(needed[1], int):
        return None
    return Line(members, hashlib.sha256(raw).hexdigest()[:DIGITS], previous[:DIGITS], len(raw) + 1)


def whole_lines(data: bytes, start: int = 0) -> Iterator[tuple[bytes, int]]:
    """The lines of `data` from byte `start` that have an end, without it, and the byte after it."""
    while (end := data.find(b"\n", start)) >= 0:
        yield data[start:end], end + 1
        start = end + 1


def header_of(data: bytes) -> Line | None:
    """The header that begins a segment, None when it is damaged or not there.

    Raises Unreadable for a segment that a newer program wrote.
    """
    raw, _ = next(whole_lines(data), (b"", 0))
    try:
        members: Any = orjson.loads(raw)
        if members["format"] > FORMAT:
            raise Unreadable("the edit log was written by a newer version of this program; update this one.")
    except (orjson.JSONDecodeError, KeyError, TypeError, IndexError):
        return None
    line = opened(raw)
    return line if line is not None and line.members.get("operation") == SEGMENT else None


def are_chained(data: bytes) -> bool:
    """Whether these bytes are sound lines of which each follows the one before it."""
    previous = None
    for raw, _ in whole_lines(data):
        line = opened(raw)
        if line is None or previous not in (None, line.previous):
            return False
        previous = line.digest
    return True


def groups(
    data: bytes, start: int, offset: int = 0, *, old: bool = False, contents: bool | int = True
) -> Iterator[Group]:
    """The whole groups of a segment's bytes from `start`; positions are counted from `offset`.

    What comes after the last whole one is torn. A line before it that is damaged is passed over, because what follows
    it was committed and still counts. Without `contents`, content lines are passed over as well; where it is a number,
    those of more bytes are.
    """
    longest = sys.maxsize if contents is True else int(contents)
    read = opened_old if old else opened
    found: list[Line] = []
    begun = start
    for raw, stop in whole_lines(data, start):
        if raw.startswith(_IN_NO_GROUP):
            begun = stop
            continue
        if len(raw) > longest and raw.startswith(OPENS_CONTENT):
            continue
        line = read(raw)
        if line is None:
            continue
        found.append(line)
        if "files" in line.members:
            yield Group(found, begun + offset, stop + offset)
            found, begun = [], stop
