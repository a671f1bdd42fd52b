"""The segments of a path from outside, each decoded once: pure."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from precomputed_server.errors import InvalidPath

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def segment_of(text: str) -> str:
    """Decode one segment; raises InvalidPath for what could mean another path or end a line of a log."""
    try:
        segment = unquote_to_bytes(text).decode() if "%" in text else text
    except UnicodeError as error:
        raise InvalidPath("The path is not UTF-8.") from error
    return checked(segment)


def checked(segment: str) -> str:
    """A segment as it is; raises InvalidPath as `segment_of` does."""
    try:
        segment.encode()
    except UnicodeError as error:
        raise InvalidPath("The path is not UTF-8.") from error
    if segment in (".", "..") or "/" in segment or "\\" in segment:
        raise InvalidPath("The path has a segment that is a dot, two dots or holds a slash.")
    if _CONTROL.search(segment):
        raise InvalidPath("The path has control characters.")
    return segment
