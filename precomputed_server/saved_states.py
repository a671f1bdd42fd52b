"""Viewer states that people share by a short link: files named after what is in them, which never change."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from pathlib import Path

from precomputed_server.errors import InvalidJson, NotFound, PrecomputedError, StorageFull, Unreadable, WritesRefused
from precomputed_server.files import Tree, join, typed
from precomputed_server.writing import atomic_write, exclusive_lock, remove_temporaries

DIRECTORY = ".precomputed/states"
"""Where they lie beneath the root, which all servers of it share."""

_ELSEWHERE = "states"
_ID = re.compile(r"[0-9a-f]{32}")
_REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOLCK, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.EXDEV}
"""Of a directory in which this program cannot keep anything, whatever it tries."""
_BLOCK = 4096
_LOCK, _LOCK_TIMEOUT_S = ".lock", 5.0


class SavedStates:
    """The states of one root, of at most `bound` bytes together; `shared` is a directory to keep them instead."""

    def __init__(self, root: Path, shared: Path | None, bound: int) -> None:
        self._base = shared or root
        self._directory = DIRECTORY if shared is None else _ELSEWHERE
        self._bound = bound
        self._counted: tuple[int, int] | None = None
        """When the directory was last changed, in nanoseconds, and how many bytes lay there then."""

    def put(self, body: bytes) -> tuple[str, bool]:
        """Keep a state, durable when this returns; its id, and whether it is new here.

        Raises InvalidJson for what is no JSON object, StorageFull, and WritesRefused with the remedy.
        """
        _check(body)
        id = id_of(body)
        try:
            self._base.mkdir(parents=True, exist_ok=True)
            tree = Tree(self._base)
            try:
                return id, self._put(tree, id, body)
            finally:
                tree.close()
        except OSError as error:
            raise _unsaved(error) from error

    def get(self, id: str) -> bytes:
        """The state of that id; raises NotFound, Unreadable."""
        if _ID.fullmatch(id) is None:
            raise NotFound("A saved state has an id of 32 digits, 0 to 9 and a to f.")
        if not self._base.is_dir():
            raise NotFound("This saved state does not exist.")
        try:
            tree = Tree(self._base)
            try:
                body = tree.read(join(self._directory, id))
            finally:
                tree.close()
        except OSError as error:
            raise typed(error, "This saved state") from error
        if id_of(body) != id:
            raise Unreadable("This saved state is damaged: its content is not what it was saved with.")
        return body

    def _put(self, tree: Tree, id: str, body: bytes) -> bool:
        directory = tree.open_directory(self._directory, create=True)
        try:
            with exclusive_lock(directory, _LOCK, _LOCK_TIMEOUT_S):
                if _content_of(tree, join(self._directory, id)) == body:
                    return False
                total = self._total(directory) + _on_disk(len(body))
                if total > self._bound:
                    raise StorageFull(
                        f"The saved states would take more than the {self._bound} bytes that they may "
                        "(setting --saved-states); the whole state is in the viewer's own, longer link."
                    )
                atomic_write(directory, id, body)
                self._counted = (os.fstat(directory).st_mtime_ns, total)
                return True
        finally:
            os.close(directory)

    def _total(self, directory: int) -> int:
        """The bytes of all that are there; they are counted again only when another server has saved one."""
        changed = os.fstat(directory).st_mtime_ns
        if self._counted is None or self._counted[0] != changed:
            remove_temporaries(directory)
            with os.scandir(directory) as entries:
                total = sum(_on_disk(entry.stat(follow_symlinks=False).st_size) for entry in entries)
            self._counted = (changed, total)
        return self._counted[1]


def id_of(body: bytes) -> str:
    """What a state is called: the beginning of the SHA-256 of its bytes."""
    return hashlib.sha256(body).hexdigest()[:32]


def _check(body: bytes) -> None:
    try:
        state = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidJson("A state is a JSON object; this is no JSON.") from error
    if not isinstance(state, dict):
        raise InvalidJson("A state is a JSON object, such as Neuroglancer shows at its {} button.")


def _content_of(tree: Tree, path: str) -> bytes | None:
    """What lies there; None for nothing, and for what cannot be read and is written again."""
    try:
        return tree.read(path)
    except OSError:
        return None


def _on_disk(size: int) -> int:
    """The bytes that a file takes: whole blocks, or a multitude of tiny states would be no bound."""
    return -(-size // _BLOCK) * _BLOCK


def _unsaved(error: OSError) -> PrecomputedError:
    if error.errno in _REFUSED:
        told = os.strerror(error.errno)
        return WritesRefused(f"States cannot be saved here ({told}); give the server a directory by --shared.")
    return typed(error, "The saved state", writing=True)
