"""Full resolution of a stack that is served as it is: each chunk is cut from the planes when it is asked for."""

from __future__ import annotations

import errno
import hashlib
import time
from dataclasses import dataclass

import numpy as np

from converter.conversion import Conversion
from converter.served.bands import Bands
from converter.served.headers import files_of, relative, state_of_file
from converter.stacks.plane import FileVersion
from precomputed_server.errors import Busy, SourceError, Unreadable
from precomputed_server.files import Fingerprint, Tree
from precomputed_server.format.geometry import Box
from precomputed_server.readers.base import Place, beyond
from precomputed_server.readers.stored import CODED, Stored
from precomputed_server.recent import Recent

_LOOKED_S = 1.0
"""For how long the files of a slab of planes count as those whose headers were read, without looking again."""

_AT_ONCE = 16
"""Files up to which those of a slab are looked at without leaving the event loop."""

_SLABS = 4096

Files = tuple[tuple[str, FileVersion], ...]


@dataclass(frozen=True)
class _Slab:
    """The files of planes that lie in the chunks of one slab, and what stands for their state together."""

    files: Files
    fingerprint: Fingerprint


class Finest:
    """The planes of a stack in one state of its files, as a conversion would see them.

    `root` is the path of the tree, `is_outdated` whether a file was found to have changed since.
    """

    def __init__(self, conversion: Conversion, tree: Tree, root: str, bands: Bands) -> None:
        self.conversion = conversion
        self.is_outdated = False
        self._tree, self._root = tree, root
        self._bands = bands
        self._slabs: Recent[tuple[int, int], tuple[float, _Slab]] = Recent(_SLABS)

    @property
    def planes(self) -> int:
        """How many planes it has."""
        return sum(map(len, self.conversion.source.stack.planes))

    def open(self, box: Box, *, cached: bool = False) -> Stored:
        """The first of the files that hold voxels of a chunk, with a fingerprint of them all; see `ChunkReader`."""
        slab = self._checked(box, cached=cached)
        path = relative(slab.files[0][0], self._root)
        descriptor = self._tree.open(path, cached=cached)
        source = self.conversion.source
        length = source.num_channels * box.voxels * source.dtype.itemsize
        return Stored(descriptor, slab.fingerprint, 0, 0, CODED, length)

    def read(self, place: Place, box: Box, limit: int) -> bytes:
        """The bytes of a chunk; raises Unreadable, and Busy when a plane has changed since its header was read."""
        if place.info.array_bytes(box) > limit:
            raise beyond(limit)
        try:
            voxels = self._bands.cut(self.conversion.origin.source_version, self.conversion.source, place.scale, box)
        except SourceError as error:
            self._check(self._slab(box).files)
            raise Unreadable(without_root(str(error), self._root)) from error
        return np.ascontiguousarray(voxels, place.info.dtype).tobytes()

    def _checked(self, box: Box, *, cached: bool) -> _Slab:
        """The slab of a chunk, whose files were looked at lately."""
        key, now = self._key(box), time.monotonic()
        known = self._slabs.get(key)
        if known is not None and now < known[0]:
            return known[1]
        if cached and (known is None or len(known[1].files) > _AT_ONCE):
            raise BlockingIOError(errno.EAGAIN, "many files have to be looked at")
        slab = self._slab(box) if known is None else known[1]
        self._check(slab.files, cached=cached)
        self._slabs.put(key, (now + _LOOKED_S, slab))
        return slab

    def _key(self, box: Box) -> tuple[int, int]:
        axis = self.conversion.source.plane_axis
        return box.start[axis], box.stop[axis]

    def _slab(self, box: Box) -> _Slab:
        stack = self.conversion.source.part(box).stack
        reason = next((plane.unreadable for pages in stack.planes for plane in pages if plane.unreadable), "")
        if reason:
            self.is_outdated = True  # it may have been replaced since
            raise Unreadable(without_root(reason, self._root))
        files = tuple((path, version) for path, version in files_of(stack) if version is not None)
        if not files:
            raise Unreadable("no file holds these planes.")
        return _Slab(files, _together(files))

    def _check(self, files: Files, *, cached: bool = False) -> None:
        """Raise Busy when a file is not the one any more whose header was read."""
        for path, version in files:
            try:
                now = state_of_file(self._tree, relative(path, self._root), cached=cached)
            except BlockingIOError:
                raise
            except OSError:
                now = FileVersion(-1, 0)
            if now != version or now.inode != version.inode:
                self.is_outdated = True
                raise Busy("A plane of this stack has changed; its header is read again. Try again in a moment.", 1)


@dataclass(frozen=True)
class FinestReader:
    """The chunks of full resolution."""

    place: Place
    finest: Finest
    fill_value: float = 0

    def stored(self, box: Box, *, cached: bool = False) -> Stored | None:
        """The files that the chunk is cut from; there always are some. See `ChunkReader`."""
        return self.finest.open(box, cached=cached)

    def decode(self, stored: Stored, box: Box, limit: int) -> bytes:
        """Read the planes; see `ChunkReader`."""
        return self.finest.read(self.place, box, limit)


def without_root(sentence: str, root: str) -> str:
    """A sentence that may go to a client: paths in it are those beneath the root."""
    return sentence.replace(f"{root.rstrip('/')}/", "")


def _together(files: Files) -> Fingerprint:
    """One that changes when any file does; the same in every process."""
    states = [(version.inode, version.size, version.mtime_ns) for _, version in files]
    digest = hashlib.blake2b(repr(states).encode(), digest_size=8).digest()
    newest = max(version.mtime_ns for _, version in files)
    return Fingerprint(int.from_bytes(digest, "little"), newest, sum(version.size for _, version in files))
