"""Reading the pixels of planes that lie uncompressed and in one piece in their files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.stacks.plane import FileVersion, Plane
from precomputed_server.errors import SourceError, Unreadable
from precomputed_server.files import read_at

_NARROW = 4
"""A part of each row is read by itself when it is less than this part of the row."""


@dataclass(frozen=True)
class Part:
    """The rows of a plane from `start` up to `stop`, and the pixels of them from `left` up to `right`."""

    plane: Plane
    start: int
    stop: int
    left: int
    right: int

    @property
    def is_narrow(self) -> bool:
        """Whether reading whole rows would read much more."""
        return (self.right - self.left) * _NARROW < self.plane.shape[2]

    @property
    def read_bytes(self) -> int:
        """The most that reading the part holds at a time, its own pixels included."""
        samples = self.plane.file_samples
        columns = self.right - self.left if self.is_narrow else self.plane.shape[2]
        pieces = (1 if self.plane.interleaved or samples == 1 else 2) + (1 if self.is_narrow else 0)
        picked = 1 if self.plane.samples is not None else 0
        return (pieces + picked) * samples * (self.stop - self.start) * columns * self.plane.dtype.itemsize


def read_stored(path: str, parts: list[Part]) -> Iterator[NDArray[Any]]:
    """Read parts of planes of one file in turn: "(S, Y, X)" in the file's dtype; raises SourceError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise cannot_open(path, error) from error
    name = path
    try:
        for part in parts:
            name = part.plane.name
            check_unchanged(descriptor, part.plane)
            yield _stored_rows(descriptor, part)
            check_unchanged(descriptor, part.plane)
    except (OSError, Unreadable) as error:
        raise SourceError(f"{name} cannot be read ({str(error).rstrip('.')}); replace the file.") from error
    finally:
        os.close(descriptor)


def cannot_open(path: str, error: OSError) -> SourceError:
    """The error of a file that cannot be opened, with the remedy."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if isinstance(error, FileNotFoundError) and os.path.islink(path):
        return SourceError(f"{path} is a link to {os.readlink(path)}, which does not exist; copy what is missing.")
    if isinstance(error, FileNotFoundError):
        return SourceError(f"{path} does not exist any more; copy what is missing.")
    if isinstance(error, PermissionError):
        return SourceError(f"{path} cannot be read ({reason}); ask its owner for the right to read it.")
    return SourceError(f"{path} cannot be read ({reason}); replace the file.")


def version_of(descriptor: int) -> FileVersion:
    """The version of an open file."""
    status = os.fstat(descriptor)
    return FileVersion(status.st_size, status.st_mtime_ns)


def check_unchanged(descriptor: int, plane: Plane) -> None:
    """Raise SourceError when the file is not the one whose header was read."""
    if plane.version is None:
        return
    status = os.fstat(descriptor)
    now = FileVersion(status.st_size, status.st_mtime_ns)
    if plane.version != now or plane.version.inode not in (None, status.st_ino):
        raise SourceError(
            f"{plane.path} has changed since its header was read; wait until nothing writes it, then convert again."
        )


def _stored_rows(descriptor: int, part: Part) -> NDArray[Any]:
    plane, height = part.plane, part.stop - part.start
    samples, (_, rows, columns) = plane.file_samples, plane.shape
    narrow = part.is_narrow
    width = part.right - part.left if narrow else columns
    wanted = slice(None) if narrow else slice(part.left, part.right)
    if plane.interleaved:
        data = _piece(descriptor, part, 0)
        band = np.frombuffer(data, plane.dtype).reshape(height, width, samples)[:, wanted].transpose(2, 0, 1)
        return band if plane.samples is None else band[list(plane.samples)]
    pieces = [_piece(descriptor, part, sample * rows) for sample in plane.samples or range(samples)]
    band = np.frombuffer(pieces[0] if len(pieces) == 1 else b"".join(pieces), plane.dtype)
    return band.reshape(len(pieces), height, width)[:, :, wanted]


def _piece(descriptor: int, part: Part, above: int) -> bytes:
    """The stored bytes of the part, in a file that has `above` rows of other samples before the plane."""
    plane = part.plane
    origin = (plane.offset or 0) + (above + part.start) * plane.row_bytes
    if not part.is_narrow:
        return read_at(descriptor, origin, (part.stop - part.start) * plane.row_bytes)
    pixel = plane.row_bytes // plane.shape[2]
    length = (part.right - part.left) * pixel
    rows = range(part.stop - part.start)
    return b"".join(read_at(descriptor, origin + row * plane.row_bytes + part.left * pixel, length) for row in rows)
