"""Writing what people say of a dataset into its record, under the lock that conversions of it hold."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from precomputed_server.catalog.records import Record, read_record, shown_layers
from precomputed_server.errors import Busy, Conflict, NotPermitted, PrecomputedError, WritesRefused
from precomputed_server.files import Tree, join, typed
from precomputed_server.format.names import LOCK, PRIVATE, RECORD, SWAP
from precomputed_server.format.record import FORMAT, Words, with_words
from precomputed_server.readers.volumes import Volumes
from precomputed_server.writing import atomic_write, exclusive_lock

_LOCK, _RECORD, _SWAP = (name.rpartition("/")[2] for name in (LOCK, RECORD, SWAP))
_LOCK_TIMEOUT_S = 0.25
"""What another writer of words takes; a conversion holds the lock for hours."""
_NONE = "none"

Check = Callable[[str], None]
"""Raises PreconditionFailed unless the caller means the record of that version."""


def record_version(tree: Tree, path: str) -> str:
    """The entity tag, unquoted, of the record of the dataset at `path`."""
    try:
        return _version_of(tree.read(join(path, RECORD)))
    except OSError:
        return _NONE


def amend(tree: Tree, volumes: Volumes, path: str, words: Words, check: Check) -> tuple[Record, str]:
    """Replace the words of the dataset at `path`, durable when this returns; the record and its version.

    Members of the record that this program does not know stay as they are. Raises NotFound, Busy while a conversion
    writes into the dataset, Conflict where one was interrupted or the record is damaged, WritesRefused, StorageFull.
    """
    name = path.rpartition("/")[2] or "dataset"
    try:
        shown_layers(tree, volumes, path)
        with _locked(tree, path) as directory:
            if _exists(directory, _SWAP):
                raise Conflict("A change of this dataset was interrupted; end it with `precomputed describe` first.")
            stored = _stored(tree, path)
            check(_version_of(stored))
            record = with_words(_members(stored), words, name, uuid.uuid4().hex)
            text = json.dumps(record, indent=2).encode() + b"\n"
            if text != stored:
                atomic_write(directory, _RECORD, text)
    except OSError as error:
        raise _unwritten(error) from error
    return read_record(tree, path), _version_of(text)


@contextmanager
def _locked(tree: Tree, path: str) -> Iterator[int]:
    """Hold the dataset against conversions; yields its open private directory."""
    directory = tree.open_directory(join(path, PRIVATE), create=True)
    try:
        with exclusive_lock(directory, _LOCK, _LOCK_TIMEOUT_S):
            yield directory
    except Busy as error:
        raise Busy("A conversion is writing into this dataset; try again when it has ended.", 30) from error
    finally:
        os.close(directory)


def _stored(tree: Tree, path: str) -> bytes:
    try:
        return tree.read(join(path, RECORD))
    except FileNotFoundError:
        return b""


def _members(stored: bytes) -> dict[str, Any]:
    try:
        members = json.loads(stored or b"{}")
    except (ValueError, RecursionError) as error:
        raise Conflict("The dataset's record is damaged; mend or remove its .precomputed/dataset.json.") from error
    if not isinstance(members, dict) or members.get("format", FORMAT) != FORMAT:
        raise Conflict("The record of this dataset was written by a newer version of this program; use that version.")
    return members


def _version_of(stored: bytes) -> str:
    return hashlib.sha256(stored).hexdigest()[:32] if stored else _NONE


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _unwritten(error: OSError) -> PrecomputedError:
    found = typed(error, "The record of this dataset", writing=True)
    if error.errno == errno.EROFS:
        return WritesRefused("This dataset lies on a read-only file system; say it where it can be written.")
    if isinstance(found, NotPermitted):
        return NotPermitted("The server's user may not write into this dataset; give it the right to.")
    return found
