"""Asking the catalog from a server: opened when it is there, opened again when it was made anew."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from precomputed_server.catalog.amendment import amend
from precomputed_server.catalog.database import Catalog, Page, Query
from precomputed_server.catalog.indexer import catalog_path
from precomputed_server.errors import Busy

Result = TypeVar("Result")

_SOON_S = 2


class CatalogReader:
    """The catalog of a root as far as another process has made it; used in one thread."""

    def __init__(self, state: Path, root: Path) -> None:
        self._state = state
        self._root = root
        self._path: Path | None = None
        self._catalog: Catalog | None = None
        self._inode = 0

    def search(self, query: Query) -> Page:
        """A page of what matches; raises Busy where there is no catalog yet, InvalidInput where there cannot be one."""
        return self._asked(lambda catalog: catalog.search(query))

    def get(self, path: str) -> dict[str, Any] | None:
        """What is known of a dataset; raises as `search`."""
        return self._asked(lambda catalog: catalog.get(path))

    def amend(self, path: str, said: Mapping[str, Any]) -> None:
        """Let what people said of a dataset be found at once; where that cannot be, the next scan sees to it.

        Raises as `search`.
        """
        self._asked(lambda catalog: None)
        if self._path is not None:
            with contextlib.suppress(sqlite3.Error):
                amend(self._path, path, said)

    def is_whole(self) -> bool:
        """Whether the tree was gone through to its end since the catalog was made; raises as `search`."""
        return self._asked(lambda catalog: catalog.last_scan() is not None)

    def close(self) -> None:
        """Give the database back."""
        if self._catalog is not None:
            self._catalog.close()
            self._catalog = None

    def _asked(self, ask: Callable[[Catalog], Result]) -> Result:
        try:
            return ask(self._opened())
        except (sqlite3.Error, FileNotFoundError) as error:
            with contextlib.suppress(sqlite3.Error):
                self.close()
            self._catalog = None
            raise Busy("The catalog of datasets is being made; try again in a moment.", _SOON_S) from error

    def _opened(self) -> Catalog:
        self._path = self._path or catalog_path(self._state, self._root)
        inode = os.stat(self._path).st_ino
        if self._catalog is None or inode != self._inode:
            self.close()
            self._catalog, self._inode = Catalog(self._path), inode
        return self._catalog
