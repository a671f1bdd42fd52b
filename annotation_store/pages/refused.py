"""Bodies of whole-file saves that were not applied and are in no log: invalid, too large, without rights, disk full.

Each lies compressed beside a small description, on this host, for this user alone. Their number is not bounded, their
bytes are: the oldest go first of whoever has most of them, so that one who floods does not push out what others sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import re
import secrets
import time
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from isal import isal_zlib

from precomputed_server.errors import NotFound, Unreadable
from precomputed_server.writing import TEMPORARY, write_all

_ID = re.compile(r"[0-9a-f]{16}")
_DESCRIPTION, _BODY = ".json", ".body.gz"
_FILE = re.compile(r"[0-9a-f]{16}(\.json(\.tmp)?|\.body\.gz)")
_OWNER_DIGITS = 4
"""So many digits of an id say whose save it is: to find out who has most, nothing has to be read."""
_SHARE = 2
"""One body takes at most this part of the room."""
_GZIP = 31
"""zlib's window bits for the gzip format."""
_PIECE = 1 << 20
_LEFT_S = 3600.0
"""A body that has had no description for so long was left by a crash."""

_log = logging.getLogger(__name__)


class RefusedSaves:
    """The refused saves in `directory`, at most `bound` bytes of them; without a directory nothing is kept.

    Safe between threads and processes.
    """

    def __init__(self, directory: Path | None, bound: int) -> None:
        self._directory = directory if bound > 0 else None
        self._bound = bound

    def keep(self, meta: Mapping[str, Any], body: bytes) -> str | None:
        """Keep a body and what is known of it; returns its id once it is durable, None when it cannot be kept."""
        writer = self.begin(meta)
        if writer is None:
            return None
        writer.write(body)
        return writer.finish()

    def begin(self, meta: Mapping[str, Any]) -> RefusedBody | None:
        """Begin to keep a body that arrives in pieces; None when it cannot be kept."""
        if self._directory is None:
            return None
        try:
            self._directory.mkdir(0o700, parents=True, exist_ok=True)
            return RefusedBody(self, self._directory, meta, max(1, self._bound // _SHARE))
        except OSError as error:
            _warn(error)
            return None

    def list(self, dataset: str) -> Sequence[dict[str, Any]]:
        """What is known of the refused saves of a dataset, newest first."""
        described = [self._described(id) for id, _, _ in reversed(self._kept())]
        return [meta for meta in described if meta is not None and meta.get("dataset") == dataset]

    def find(self, id: str, dataset: str) -> dict[str, Any] | None:
        """What is known of one refused save of a dataset, None when there is none of that id."""
        meta = self._described(id) if _ID.fullmatch(id) else None
        return meta if meta is not None and meta.get("dataset") == dataset else None

    def body(self, id: str, dataset: str) -> bytes:
        """The body of a refused save of a dataset; raises NotFound, Unreadable."""
        return b"".join(self.pieces(id, dataset))

    def pieces(self, id: str, dataset: str) -> Iterator[bytes]:
        """The body of a refused save of a dataset, piece by piece; raises NotFound, Unreadable."""
        if self._directory is None or self.find(id, dataset) is None:
            raise NotFound("There is no refused save of that id; it may have been applied or discarded.")
        try:
            with open(self._directory / f"{id}{_BODY}", "rb") as file:
                yield from _inflated(iter(lambda: file.read(_PIECE), b""))
        except FileNotFoundError as error:
            raise NotFound("The body of that refused save is no longer there.") from error
        except (OSError, EOFError, zlib.error) as error:
            raise Unreadable("the body of that refused save is damaged.") from error

    def discard(self, id: str) -> None:
        """Delete a refused save; nothing happens when there is none of that id."""
        if self._directory is not None and _ID.fullmatch(id):
            for ending in (_DESCRIPTION, _BODY):
                with contextlib.suppress(OSError):
                    os.unlink(self._directory / f"{id}{ending}")

    def make_room(self, needed: int, whose: str) -> None:
        """Delete the oldest of who has most until `needed` more bytes fit of whose ids begin with `whose`."""
        kept: dict[str, deque[tuple[str, int]]] = {}
        for id, size, _ in self._kept():
            kept.setdefault(id[:_OWNER_DIGITS], deque()).append((id, size))
        sizes = {owner: sum(size for _, size in ids) for owner, ids in kept.items()}
        sizes[whose] = sizes.get(whose, 0) + needed
        total = sum(sizes.values())
        while total > self._bound and kept:
            owner = max(kept, key=sizes.__getitem__)
            id, size = kept[owner].popleft()
            self.discard(id)
            total, sizes[owner] = total - size, sizes[owner] - size
            if not kept[owner]:
                del kept[owner]

    def _described(self, id: str) -> dict[str, Any] | None:
        if self._directory is None:
            return None
        try:
            found = orjson.loads((self._directory / f"{id}{_DESCRIPTION}").read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return None
        return found if isinstance(found, dict) else None

    def _kept(self) -> Sequence[tuple[str, int, int]]:
        """The id, size in bytes and time of each refused save, oldest first; what crashes left is deleted."""
        files = self._files()
        times = {name[:16]: status.st_mtime_ns for name, status in files if name.endswith(_DESCRIPTION)}
        sizes = dict.fromkeys(times, 0)
        for name, status in files:
            if name[:16] in sizes:
                sizes[name[:16]] += status.st_size
            elif time.time() - status.st_mtime > _LEFT_S and self._directory is not None:
                with contextlib.suppress(OSError):
                    os.unlink(self._directory / name)
        return sorted(((id, sizes[id], moment) for id, moment in times.items()), key=lambda kept: kept[2])

    def _files(self) -> Sequence[tuple[str, os.stat_result]]:
        """The files that are ours."""
        found = []
        with contextlib.suppress(OSError), os.scandir(self._directory or "") as entries:
            for entry in entries:
                if _FILE.fullmatch(entry.name):
                    with contextlib.suppress(OSError):
                        found.append((entry.name, entry.stat(follow_symlinks=False)))
        return found


class RefusedBody:
    """A body on its way to the disk; raises OSError when it cannot be begun.

    More than `bound` bytes of it are not kept: what is cut off is said in the description.
    """

    def __init__(self, saves: RefusedSaves, directory: Path, meta: Mapping[str, Any], bound: int) -> None:
        self._saves = saves
        self._directory = directory
        self._meta = meta
        self._bound = bound
        self._whose = _owner(meta)
        self._id = self._whose + secrets.token_hex(8)[_OWNER_DIGITS:]
        self._size = self._arrived = self._written = 0
        self._deflating = isal_zlib.compressobj(1, wbits=_GZIP)
        self._descriptor: int | None = self._create(_BODY)

    def write(self, piece: bytes) -> None:
        """Add a piece; what cannot be written makes `finish` return None."""
        self._arrived += len(piece)
        kept = memoryview(piece)[: self._bound - self._size]
        self._size += len(kept)
        with self._abandoned_on_failure():
            for start in range(0, len(kept), _PIECE):
                self._append(self._deflating.compress(kept[start : start + _PIECE]))

    def finish(self) -> str | None:
        """The id of the refused save, which is durable now; None when it cannot be kept."""
        with self._abandoned_on_failure():
            if self._descriptor is None:
                return None
            self._append(self._deflating.flush())
            os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
            self._describe()
            return self._id
        return None

    def _append(self, data: bytes) -> None:
        if self._descriptor is not None and data:
            self._written += len(data)
            write_all(self._descriptor, data)

    def _describe(self) -> None:
        complete = self._arrived == self._size
        meta = {**self._meta, "id": self._id, "size": self._arrived, "complete": complete}
        data = orjson.dumps(meta)
        self._saves.make_room(self._written + len(data), self._whose)
        descriptor = self._create(_DESCRIPTION + TEMPORARY)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path = self._directory / f"{self._id}{_DESCRIPTION}"
        os.rename(f"{path}{TEMPORARY}", path)
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _create(self, ending: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(self._directory / f"{self._id}{ending}", flags, 0o600)

    @contextlib.contextmanager
    def _abandoned_on_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _warn(error)
            self.abandon()

    def abandon(self) -> None:
        """Keep nothing of it: its end did not come."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        for ending in (_DESCRIPTION + TEMPORARY, _DESCRIPTION, _BODY):
            with contextlib.suppress(OSError):
                os.unlink(self._directory / f"{self._id}{ending}")


def _owner(meta: Mapping[str, Any]) -> str:
    """The digits of who sent a save: the session's prefix, or the address of a peer, whatever it calls itself."""
    whose = str(meta.get("session", "")).partition(" ")[0]
    return hashlib.sha256(whose.encode(errors="replace")).hexdigest()[:_OWNER_DIGITS]


def _inflated(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """What gzip's bytes hold, at most a few MiB at a time; raises EOFError when its end is missing."""
    inflating = zlib.decompressobj(wbits=_GZIP)
    for piece in pieces:
        data = inflating.decompress(piece, _PIECE)
        while data:
            yield data
            data = inflating.decompress(inflating.unconsumed_tail, _PIECE)
    if not inflating.eof:
        raise EOFError("the end is missing")


def _warn(error: OSError) -> None:
    _log.warning("The body of a refused save cannot be kept: %s.", error.strerror)
