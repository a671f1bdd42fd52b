"""What is asked of the catalog's database and put into it. Opened after a fork, and used in one thread."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from precomputed_server.catalog.entries import VANISHED, Entry, KnownPlace
from precomputed_server.catalog.rows import row_of, shown
from precomputed_server.catalog.schema import opened, opened_for_looking, opened_for_reading

_TERM = re.compile(r"\w+")
_MOST_VALUES = 100
_MANY = 4
"""One of so many datasets is as quick to look up as all are to go through."""
_FACETS = ("state", "type", "data_type", "format")
SORTS = {
    "path": "path",
    "title": "title COLLATE NOCASE",
    "state": "state",
    "bytes": "COALESCE(bytes, -1)",
    "voxels": "COALESCE(voxels, -1)",
    "annotations": "COALESCE(annotations, -1)",
    "first_seen": "first_seen",
}
"""The orders of a search and what they sort by; each ends with the path."""


@dataclass(frozen=True)
class Query:
    """A search: `text` are beginnings of words of title, path, description and tags, all of which have to occur.

    `after` is the position behind which the page begins, as `Page.next` has it.
    """

    text: str = ""
    states: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    sort: str = "path"
    descending: bool = False
    limit: int = 100
    after: tuple[Any, str] | None = None


@dataclass(frozen=True)
class Page:
    """Datasets that were found, how many there are in all, how often each value occurs, and where the next begins."""

    datasets: list[dict[str, Any]]
    total: int
    facets: dict[str, dict[str, int]]
    next: tuple[Any, str] | None


class Catalog:
    """The datasets of one root."""

    def __init__(self, path: Path, *, writable: bool = False, once: bool = False) -> None:
        """Open the database; `writable` makes it, or makes it anew where it is damaged. Raises sqlite3.Error.

        With `once` it is as it is now, and nothing is left beside it.
        """
        reading = opened_for_looking if once else opened_for_reading
        self._connection = opened(path) if writable else reading(path)
        self._connection.row_factory = sqlite3.Row

    def close(self) -> None:
        """Give it back."""
        self._connection.close()

    def known(self) -> dict[str, KnownPlace]:
        """What is there by path, without what has vanished."""
        rows = self._connection.execute(
            "SELECT path, state, watched, signature FROM datasets JOIN details ON dataset = number"
            " WHERE vanished_at IS NULL"
        )
        return {
            path: KnownPlace(state, tuple(json.loads(watched)), signature) for path, state, watched, signature in rows
        }

    def store(self, entries: Iterable[Entry], gone: Iterable[str], now: datetime) -> None:
        """Put what was found into the catalog and mark what is not there any more, in one transaction.

        A dataset that lies elsewhere now, with the id of one that has vanished, keeps its row.
        """
        moment = now.astimezone(UTC).isoformat(timespec="seconds")
        with self._transaction() as connection:
            for path in gone:
                _vanish(connection, path, moment)
            for entry in entries:
                self._store(connection, entry, moment)

    def _store(self, connection: sqlite3.Connection, entry: Entry, moment: str) -> None:
        number = _row_for(connection, entry, moment)
        values = row_of(entry)
        if number is None:
            made = connection.execute(
                f"INSERT INTO datasets ({', '.join(values)}, first_seen) VALUES ({_marks(values)}, ?)",
                [*values.values(), moment],
            )
            number = made.lastrowid
        else:
            updates = ", ".join(f"{name} = ?" for name in values)
            connection.execute(
                f"UPDATE datasets SET {updates}, vanished_at = NULL WHERE number = ?", [*values.values(), number]
            )
        connection.execute(
            "INSERT OR REPLACE INTO details (dataset, layers, watched) VALUES (?, ?, ?)",
            [number, json.dumps([layer.to_json() for layer in entry.layers]), json.dumps(entry.watched)],
        )
        for table in ("layers", "tags"):
            connection.execute(f"DELETE FROM {table} WHERE dataset = ?", [number])
        connection.executemany(
            "INSERT INTO layers (dataset, number, name, path, state, format, bytes) VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (number, at, layer.name, layer.path, layer.state, layer.format, layer.bytes)
                for at, layer in enumerate(entry.layers)
            ],
        )
        tags = [(tag, number) for tag in dict.fromkeys(entry.tags)]
        connection.executemany("INSERT INTO tags (tag, dataset) VALUES (?, ?)", tags)

    def note_scan(self, now: datetime, seconds: float) -> None:
        """Keep when the tree was gone through last, and how long that took."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO scans (id, ended, seconds) VALUES (1, ?, ?)",
                [now.astimezone(UTC).isoformat(timespec="seconds"), seconds],
            )

    def last_scan(self) -> tuple[str, float] | None:
        """When the tree was gone through last and how many seconds it took; None before the first time."""
        row = self._connection.execute("SELECT ended, seconds FROM scans WHERE id = 1").fetchone()
        return None if row is None else (row[0], row[1])

    def get(self, path: str) -> dict[str, Any] | None:
        """What is known of the dataset at a path, or of the last one that lay there."""
        row = self._connection.execute(
            "SELECT number FROM datasets WHERE path = ? ORDER BY vanished_at IS NOT NULL, vanished_at DESC", [path]
        ).fetchone()
        return None if row is None else self._shown([row[0]])[0]

    def search(self, query: Query) -> Page:
        """A page of what matches."""
        self._match(query)
        facets = self._facets()
        total = sum(facets["state"].values())
        key = SORTS[query.sort]
        order = "DESC" if query.descending else "ASC"
        where, values = "WHERE number IN matched", list[Any]()
        if query.after is not None:
            where += f" AND ({key}, path) {'<' if query.descending else '>'} (?, ?)"
            values += query.after
        found = self._connection.execute(
            f"SELECT number, {key}, path FROM datasets {where} ORDER BY {key} {order}, path {order} LIMIT ?",
            [*values, query.limit + 1],
        ).fetchall()
        datasets = self._shown([row[0] for row in found[: query.limit]])
        last = found[query.limit - 1] if len(found) > query.limit else None
        return Page(datasets, total, facets, None if last is None else (last[1], last[2]))

    def _match(self, query: Query) -> None:
        """Keep aside, for the queries of a search, the numbers of the datasets that match."""
        run = self._connection.execute
        run("CREATE TEMP TABLE IF NOT EXISTS matched (number INTEGER PRIMARY KEY)")
        run("DELETE FROM matched")
        conditions, values = _conditions(query)
        terms = _TERM.findall(query.text)
        if not terms:
            run(f"INSERT INTO matched SELECT number FROM datasets WHERE {conditions}", values)
            return
        words = " AND ".join(f'"{term}"*' for term in terms)
        run("INSERT INTO matched SELECT rowid FROM datasets_fts WHERE datasets_fts MATCH ?", [words])
        # What does not meet the conditions is mostly little, and found in an index.
        run(
            f"DELETE FROM matched WHERE number IN (SELECT number FROM datasets WHERE ({conditions}) IS NOT TRUE)",
            values,
        )

    def _shown(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Datasets by their numbers, in the same order."""
        rows = self._connection.execute(
            f"SELECT * FROM datasets LEFT JOIN details ON dataset = number WHERE number IN ({_marks(numbers)})", numbers
        )
        found = {row["number"]: row for row in rows}
        seen = self.last_scan()
        return [shown(found[number], None if seen is None else seen[0]) for number in numbers]

    def _facets(self) -> dict[str, dict[str, int]]:
        """How often each value occurs among the datasets that match, the most frequent first."""
        columns = ", ".join(_FACETS)
        of_dataset = self._matching("datasets_facets", "number")
        of_tag = self._matching("sqlite_autoindex_tags_1", "dataset")
        found: dict[str, Counter[str]] = {name: Counter() for name in _FACETS}
        for *row, count in self._connection.execute(
            f"SELECT {columns}, COUNT(*) FROM datasets {of_dataset} GROUP BY {columns}"
        ):
            for name, value in zip(_FACETS, row, strict=True):
                found[name][value] += count
        tags = self._connection.execute(f"SELECT tag, COUNT(*) FROM tags {of_tag} GROUP BY tag")
        found["tags"] = Counter({tag: count for tag, count in tags})
        return {
            name: {value: count for value, count in counts.most_common(_MOST_VALUES) if value}
            for name, counts in found.items()
        }

    def _matching(self, index: str, number: str) -> str:
        """The condition that a row's dataset matches: each is looked up, or where they are many the index gone through.

        SQLite cannot know how many there are in a table of the moment.
        """
        matched, all_of_them = self._connection.execute(
            "SELECT (SELECT COUNT(*) FROM matched), (SELECT MAX(number) FROM datasets)"
        ).fetchone()
        if _MANY * matched < (all_of_them or 0):
            return f"WHERE {number} IN matched"
        return f"INDEXED BY {index} WHERE +{number} IN matched"

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """BEGIN IMMEDIATE: a transaction that begins by reading and then writes may be refused halfway."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


def _marks(values: Collection[object]) -> str:
    """A place for each value."""
    return ", ".join("?" * len(values))


def _vanish(connection: sqlite3.Connection, path: str, moment: str) -> None:
    connection.execute(
        "UPDATE datasets SET state = ?, reason = '', vanished_at = ? WHERE path = ? AND vanished_at IS NULL",
        [VANISHED, moment, path],
    )


def _row_for(connection: sqlite3.Connection, entry: Entry, moment: str) -> int | None:
    """The row that a dataset has already: at its path, or where one of its id, or without one, has vanished."""
    there = connection.execute(
        "SELECT number, id FROM datasets WHERE path = ? AND vanished_at IS NULL", [entry.path]
    ).fetchone()
    if there is not None:
        if there[1] in (None, entry.id):
            return int(there[0])
        _vanish(connection, entry.path, moment)
    before = connection.execute(
        "SELECT number FROM datasets WHERE vanished_at IS NOT NULL AND (id = ? OR (id IS NULL AND path = ?))"
        " ORDER BY id IS NULL, vanished_at DESC LIMIT 1",
        [entry.id, entry.path],
    ).fetchone()
    return None if before is None else int(before[0])


def _conditions(query: Query) -> tuple[str, list[Any]]:
    """What a search asks for besides its words."""
    conditions: list[str] = []
    values: list[Any] = []
    for name, wanted in (("state", query.states), ("type", query.types)):
        if wanted:
            conditions.append(f"{name} IN ({_marks(wanted)})")
            values += wanted
    for tag in query.tags:
        conditions.append("number IN (SELECT dataset FROM tags WHERE tag = ?)")
        values.append(tag)
    if not query.states:
        conditions.append("state != ?")
        values.append(VANISHED)
    return " AND ".join(conditions), values
