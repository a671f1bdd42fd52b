"""Where the files of a scale come from: the seam behind which another store than a directory would lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from precomputed_server.errors import Unreadable
from precomputed_server.files import Tree
from precomputed_server.readers.stored import IDENTITY, Stored, open_stored


class Source(Protocol):
    """The files of one scale by their names."""

    @property
    def name(self) -> str:
        """What tells this scale from every other that is served."""

    def open(self, name: str, encoding: str = IDENTITY, *, cached: bool = False) -> Stored:
        """Open the file of that name, which may have several segments.

        Raises FileNotFoundError, Unreadable for what is no file, other OSErrors, BlockingIOError when `cached` and a
        disk would be waited for.
        """


@dataclass(frozen=True)
class Directory:
    """The directory of a scale beneath the root."""

    tree: Tree
    name: str

    def open(self, name: str, encoding: str = IDENTITY, *, cached: bool = False) -> Stored:
        """Open a file; as `Source.open`."""
        try:
            return open_stored(self.tree, f"{self.name}/{name}", encoding, cached=cached)
        except NotADirectoryError as error:
            raise FileNotFoundError(*error.args) from error
        except IsADirectoryError as error:
            raise Unreadable("where a file of this scale should be is a directory.") from error
