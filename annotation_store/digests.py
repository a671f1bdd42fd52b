"""What tells one content of a leaf's file from another: its SHA-256 and, begun with it, its entity tag."""

from __future__ import annotations

import hashlib

from annotation_store.model import serialize

_ETAG_DIGITS = 32


def file_hash(data: bytes | None) -> str | None:
    """The SHA-256 of a file's bytes in hex; None for a file that does not exist."""
    return None if data is None else hashlib.sha256(data).hexdigest()


def etag_of(data: bytes) -> str:
    """The strong entity tag of what readers see of a file's bytes: an empty file is an empty list."""
    return etag_of_hash(hashlib.sha256(data or serialize({})).hexdigest())


def etag_of_hash(hash: str) -> str:
    """The strong entity tag of a file that is not empty and has that hash."""
    return hash[:_ETAG_DIGITS]
