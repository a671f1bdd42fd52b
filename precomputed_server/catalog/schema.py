"""The tables of the catalog's database and how it is opened: the only module that knows sqlite-utils."""

from __future__ import annotations

import sqlite3
from pathlib import Path

_VERSION = 1
"""Of the tables: a catalog of another version is made anew from the tree."""

_BUSY_S = 10.0
_AMENDING_S = 1.0
_DATASETS = {
    "number": int,
    "path": str,
    "id": str,
    "state": str,
    "reason": str,
    "title": str,
    "description": str,
    "tags": str,
    "type": str,
    "data_type": str,
    "format": str,
    "bytes": int,
    "voxels": int,
    "annotations": int,
    "done": int,
    "total": int,
    "signature": str,
    "first_seen": str,
    "vanished_at": str,
}
_DETAILS = {"dataset": int, "layers": str, "watched": str}
"""Apart, because they are long and a search does not look at them."""

_TAGS = {"dataset": int, "tag": str}
_LAYERS = {"dataset": int, "number": int, "name": str, "path": str, "state": str, "format": str, "bytes": int}
_SCANS = {"id": int, "ended": str, "seconds": float}


def opened(path: Path) -> sqlite3.Connection:
    """The database for its one writer: made where there is none, and made anew where it is damaged or of old."""
    try:
        connection = _connected(path)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == _VERSION and connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok":
            return connection
        connection.close()
    except sqlite3.DatabaseError:
        pass
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    connection = _connected(path)
    _make(connection)
    return connection


def opened_for_reading(path: Path) -> sqlite3.Connection:
    """The database as it is; raises sqlite3.Error where there is none or it is of another version."""
    return _opened_as_it_is(path, "ro", _BUSY_S)


def opened_for_looking(path: Path) -> sqlite3.Connection:
    """As `opened_for_reading`, once, and without leaving a file beside it, which SQLite does where no writer is."""
    there = path.with_name(f"{path.name}-wal").exists()
    return _opened_as_it_is(path, "ro" if there else "ro&immutable=1", _AMENDING_S)


def opened_for_amending(path: Path) -> sqlite3.Connection:
    """The database as it is, for one short change beside its writer; raises as `opened_for_reading`."""
    return _opened_as_it_is(path, "rw", _AMENDING_S)


def _opened_as_it_is(path: Path, mode: str, timeout_s: float) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None)
    try:
        connection.execute("PRAGMA temp_store = MEMORY")
        if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
            raise sqlite3.DatabaseError("the catalog was made by another version of this program")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _connected(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _make(connection: sqlite3.Connection) -> None:
    from sqlite_utils import Database  # here: it takes 0.3 s, and who reads a catalog needs none of it
    from sqlite_utils.db import Table

    database = Database(connection)
    datasets = Table(database, "datasets")
    datasets.create(_DATASETS, pk="number", not_null={"path", "state"})
    Table(database, "details").create(_DETAILS, pk="dataset")
    Table(database, "tags").create(_TAGS, pk=("tag", "dataset"))
    Table(database, "tags").create_index(["dataset"])
    Table(database, "layers").create(_LAYERS, pk=("dataset", "number"))
    Table(database, "scans").create(_SCANS, pk="id")
    # Of several that lay at a path only the last can still be there.
    connection.execute("CREATE UNIQUE INDEX datasets_there ON datasets (path) WHERE vanished_at IS NULL")
    datasets.create_index(["path"])
    datasets.create_index(["id"])
    # What every search counts is read from this index alone.
    datasets.create_index(["state", "type", "data_type", "format"], index_name="datasets_facets")
    texts = ["title", "path", "description", "tags"]
    datasets.enable_fts(texts, create_triggers=True, tokenize="unicode61 remove_diacritics 2")
    connection.execute(f"PRAGMA user_version = {_VERSION}")
