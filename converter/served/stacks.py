"""The stacks beneath a root that somebody asked to be served as they are, and what is known of each."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from converter.served.bands import Bands
from converter.served.cache import StackCache, first_kept, levels_bytes, levels_name
from converter.served.finest import Finest, FinestReader, without_root
from converter.served.flights import Flights
from converter.served.headers import Headers, read_headers
from converter.served.levels import LevelReader
from converter.served.record import Published, published
from converter.stacks.source import find_files
from precomputed_server.errors import Busy, InvalidInput, PrecomputedError, SourceError, Unreadable
from precomputed_server.files import Fingerprint, Tree, join, typed
from precomputed_server.format.info import VolumeInfo
from precomputed_server.format.names import RECORD, STATISTICS
from precomputed_server.readers.base import ChunkReader, Place
from precomputed_server.readers.source import Directory
from precomputed_server.readers.stored import open_stored
from precomputed_server.recent import Recent, Weighed

_LOOKED_S, _LISTED_S = 1.0, 30.0
"""For how long a stack is known without looking at its record and directory, and at each of its files."""

_REMEMBERED = 4096
_PLANES = 100_000
"""So many planes of all stacks are remembered, at less than a kilobyte each; in any case those of the newest stack."""
_LONGEST_RECORD = 16 << 20

Unasked = Callable[[str], bool]
"""Whether the stack in the directory of that path is to be served though it has no record."""


@dataclass(frozen=True)
class Keeping:
    """What a process keeps of stacks: `directory` for headers and levels (None: nowhere), and bounds in bytes.

    `memory` is that of rows of planes, `disk` that of the coarser levels of all stacks together. With `counts_use`,
    looking at a stack is using it.
    """

    directory: Path | None
    memory: int
    disk: int
    counts_use: bool = True


@dataclass(frozen=True)
class PublishedStack:
    """A stack in one state of its files and of its coarser levels, from `first` on; see `ServedStack`."""

    finest: Finest
    info: VolumeInfo
    fingerprint: Fingerprint
    levels: Directory | None = None

    @property
    def source_bytes(self) -> int:
        """Of all its files."""
        return sum(version.size for version in self.finest.conversion.origin.files.values() if version is not None)

    def reader(self, place: Place) -> ChunkReader:
        """The planes for full resolution, the levels that were made for the others."""
        if self.levels is None or place.scale.key == self.info.scales[0].key:
            return FinestReader(place, self.finest)
        source = replace(self.levels, name=f"{self.levels.name}/{place.scale.key}")
        return LevelReader(Place(source, place.info, place.scale, place.indices))

    def statistics(self) -> bytes | None:
        """What the conversion into coarser levels found."""
        if self.levels is None:
            return None
        with contextlib.suppress(OSError), self.levels.open(STATISTICS) as stored:
            return stored.read()
        return None

    def check_absent(self, key: str) -> None:
        """A level that is still to be made is no empty one."""
        if key in self.finest.conversion.keys:
            raise Busy(f"The level {key} of this stack is still to be made; try again later.", 2)


@dataclass(frozen=True)
class _Known:
    """A stack as it was found: `listing` is the state of what its record names, looked at well until `well_until`."""

    published: Published
    listing: tuple[int, ...]
    version: str
    well_until: float
    finest: Finest


class PublishedStacks:
    """The stacks of a tree; safe between threads."""

    def __init__(self, tree: Tree, root: Path, keeping: Keeping, unasked: Unasked = lambda path: False) -> None:
        self._tree, self._root = tree, os.path.realpath(root)
        self._keeping = keeping
        self._unasked = unasked
        self._bands = Bands(keeping.memory)
        self._kept_tree = None if keeping.directory is None else Tree(keeping.directory)
        self._records: Recent[str, tuple[Fingerprint, Published | None]] = Recent(_REMEMBERED)
        self._known: Weighed[str, _Known] = Weighed(_PLANES)
        self._now: Weighed[str, tuple[float, PublishedStack]] = Weighed(_PLANES)
        self._flights = Flights()

    def close(self) -> None:
        """Give the directory of the state back."""
        if self._kept_tree is not None:
            self._kept_tree.close()

    def forget(self) -> None:
        """Look at each stack again when it is asked for next."""
        self._now = Weighed(_PLANES)

    def at(self, path: str, *, cached: bool = False) -> PublishedStack | None:
        """The stack whose dataset is `path`; see `Stacks`."""
        while True:
            known = self._now.get(path)
            # While one thread looks again, the others have what was seen a moment ago.
            age_s = _LISTED_S if path in self._flights else 0.0
            if known is not None and time.monotonic() < known[0] + age_s and not known[1].finest.is_outdated:
                return known[1]
            if cached and path in self._flights:
                raise BlockingIOError(errno.EAGAIN, "another thread looks at the planes")
            self._flights.wait(path)
            record = self._record(path, cached=cached)
            if record is None:
                return None
            if cached:
                raise BlockingIOError(errno.EAGAIN, "the planes have to be looked at")
            if self._flights.begin(path):
                return self._looked_at(path, record, known[1] if known is not None else None)

    def _looked_at(self, path: str, record: Published, before: PublishedStack | None) -> PublishedStack:
        """Look at the stack in the flight that has begun."""
        try:
            stack = self._stack(path, record, before)
            self._now.put(path, (time.monotonic() + _LOOKED_S, stack), stack.finest.planes)
            return stack
        except (InvalidInput, SourceError) as error:
            reason = without_root(str(error), self._root)
            raise Unreadable(
                f"The planes cannot be served as they are; `precomputed describe` them: {reason}"
            ) from error
        except OSError as error:
            raise typed(error, "The stack") from error
        finally:
            self._flights.end(path)

    def _record(self, path: str, *, cached: bool) -> Published | None:
        """What asks for the stack to be served; None where nothing does."""
        try:
            stored = open_stored(self._tree, join(path, RECORD), cached=cached)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return self._of_pattern(path, cached=cached)
        with stored:
            known = self._records.get(path)
            if known is None or known[0] != stored.fingerprint:
                known = (
                    stored.fingerprint,
                    _parsed(stored.read(cached=cached) if stored.length < _LONGEST_RECORD else b""),
                )
                self._records.put(path, known)
        return known[1] or self._of_pattern(path, cached=cached)

    def _of_pattern(self, path: str, *, cached: bool) -> Published | None:
        if not self._unasked(path):
            return None
        if cached:
            raise BlockingIOError(errno.EAGAIN, "the directory has to be listed")
        with contextlib.suppress(OSError, PrecomputedError):
            if find_files([self._place(path, Published())]):
                return Published()
        return None

    def _place(self, path: str, record: Published) -> str:
        """The absolute path of the planes of a dataset; raises Unreadable when they do not lie beneath the root."""
        real = self._tree.real_path(path)
        source = os.path.normpath(os.path.join(real, record.source))
        if source.split("/")[0] == os.pardir or os.path.isabs(source):
            raise Unreadable(
                "Its planes do not lie beneath the directory that is served; move them, or describe again."
            )
        return os.path.normpath(os.path.join(self._root, self._tree.real_path("" if source == os.curdir else source)))

    def _stack(self, path: str, record: Published, before: PublishedStack | None) -> PublishedStack:
        """Look at the stack: at its files only now and then, or when one was found to have changed."""
        known = self._known.get(path)
        source = self._place(path, record)
        listing, now = _listing(source), time.monotonic()
        if (
            known is None
            or known.published != record
            or known.listing != listing
            or now >= known.well_until
            or known.finest.is_outdated
        ):
            version = _version(source, record)
            if known is None or known.published != record or known.version != version:
                finest = self._finest(path, record, source, version)
            else:
                finest, finest.is_outdated = known.finest, False
            known = _Known(record, listing, version, now + _LISTED_S, finest)
            self._known.put(path, known, finest.planes)
        return self._with_levels(path, known.finest, before)

    def _finest(self, path: str, record: Published, source: str, version: str) -> Finest:
        """Read the headers, or take those that another process has read of the same files."""
        cache = self._cache(path)
        headers: Headers | None = None if cache is None else cache.headers(record, version, self._root)
        if headers is None:
            headers = read_headers(source, record, version, self._tree, self._root)
            if cache is not None:
                with contextlib.suppress(OSError):  # each process reads them for itself then
                    cache.keep_headers(headers, record, self._root)
        return Finest(headers.conversion(record, source), self._tree, self._root, self._bands)

    def _with_levels(self, path: str, finest: Finest, before: PublishedStack | None) -> PublishedStack:
        conversion, cache = finest.conversion, self._cache(path)
        whole = conversion.info
        first = None if cache is None else first_kept(whole, self._keeping.disk)
        levels, info = None, replace(whole, scales=whole.scales[:1])
        if cache is not None and first is not None:
            name = levels_name(conversion, first)
            if self._keeping.counts_use:
                cache.note_use()
            if cache.has_levels(name) and self._kept_tree is not None:
                levels = Directory(self._kept_tree, f"{cache.key}/{name}")
                info = replace(whole, scales=(whole.scales[0], *whole.scales[first:]))
            elif self._keeping.counts_use:
                cache.want(path, name, levels_bytes(whole, first))
        fingerprint = _fingerprint(info, conversion.origin.source_version)
        if before is not None and before.finest is finest and before.fingerprint == fingerprint:
            return before
        return PublishedStack(finest, info, fingerprint, levels)

    def _cache(self, path: str) -> StackCache | None:
        return None if self._keeping.directory is None else StackCache.of(self._keeping.directory, path)


def _parsed(text: bytes) -> Published | None:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return published(record) if isinstance(record, dict) else None


def _listing(source: str) -> tuple[int, ...]:
    status = os.stat(source)
    return status.st_ino, status.st_mtime_ns, status.st_size


def _version(source: str, record: Published) -> str:
    """A digest of the files that a source has now, by their names, sizes, times and inodes."""
    pattern = record.options.source.pattern
    states: list[tuple[object, ...]] = []
    for path in find_files([source], pattern.depth if pattern else 0):
        with contextlib.suppress(OSError):
            status = os.stat(path)
            states.append((os.path.relpath(path, source), status.st_size, status.st_mtime_ns, status.st_ino))
            continue
        states.append((os.path.relpath(path, source),))
    return hashlib.sha256(repr(states).encode(errors="surrogateescape")).hexdigest()


def _fingerprint(info: VolumeInfo, version: str) -> Fingerprint:
    text = info.to_bytes()
    digest = hashlib.blake2b(text + version.encode(), digest_size=8).digest()
    return Fingerprint(int.from_bytes(digest, "little"), 0, len(text))
