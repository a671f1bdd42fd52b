"""Files of the tree as they lie: the exact name, or a compressed sibling that stands for it."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from types import TracebackType

from precomputed_server.errors import NotFound
from precomputed_server.files import Fingerprint, Tree, read_at

IDENTITY = "identity"
CODED = "coded"
"""Not an HTTP content encoding: what the reader of its layout has to decode before anybody can take it."""

SIBLINGS = ((".gz", "gzip"), (".br", "br"), (".zstd", "zstd"))
"""Suffixes under which other writers leave `NAME` compressed, with the content encoding that they are."""


@dataclass(frozen=True)
class Stored:
    """A part of an open file and how it is encoded; a context manager that closes the file.

    `offset` and `length` are in bytes; `encoding` is an HTTP content encoding, IDENTITY or CODED; `decoded_bytes` is
    the length that decoding must give, None where nobody can know.
    """

    descriptor: int
    fingerprint: Fingerprint
    offset: int
    length: int
    encoding: str
    decoded_bytes: int | None = None

    def read(self, offset: int = 0, length: int | None = None, *, cached: bool = False) -> bytes:
        """The stored bytes from `offset` within the part; see `files.read_at` for `cached` and the errors."""
        wanted = self.length - offset if length is None else length
        return read_at(self.descriptor, self.offset + offset, wanted, cached=cached)

    def close(self) -> None:
        """Close the file."""
        os.close(self.descriptor)

    def __enter__(self) -> Stored:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_stored(tree: Tree, path: str, encoding: str = IDENTITY, *, cached: bool = False) -> Stored:
    """Open the regular file at `path`.

    Raises IsADirectoryError for a directory, NotFound for a FIFO or device, OSError as `Tree.open` does.
    """
    descriptor = tree.open(path, cached=cached)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a directory", path)
        if not stat.S_ISREG(status.st_mode):
            raise NotFound("That is neither a file nor a directory.")
        return Stored(descriptor, Fingerprint.of(status), 0, status.st_size, encoding)
    except BaseException:
        os.close(descriptor)
        raise


def find_stored(tree: Tree, path: str, *, cached: bool = False) -> Stored | None:
    """Open `path`, else the first of its compressed SIBLINGS, else None; raises as `open_stored` does."""
    for suffix, encoding in (("", IDENTITY), *SIBLINGS):
        try:
            return open_stored(tree, path + suffix, encoding, cached=cached)
        except FileNotFoundError:
            continue
    return None
