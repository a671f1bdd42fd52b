"""The peer of the benchmark of edits: sqlite3 that commits each edit as a transaction of one row.

It is made as fast as we know how: a connection and prepared statements for each thread, a table that is its own index,
and a lock in memory in front of SQLite's, whose waiting by sleeping is a little slower and leaves some threads out.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.editing import Fibre, stamp_of
from benchmarks.peers import CONNECTIONS, Measured

BUSY_S = 60


class Table:
    """A table of fibres, each with its number as stamp, which CONNECTIONS threads edit in rounds."""

    def __init__(self, file: Path, fibres: list[Fibre]) -> None:
        self._file, self._fibres = file, fibres
        self._stamps = list(range(len(fibres)))
        self._next = len(fibres)
        self._turn = threading.Lock()
        with self._connected() as connection:
            connection.execute("CREATE TABLE fibre (id TEXT PRIMARY KEY, item TEXT NOT NULL) WITHOUT ROWID")
            connection.execute("BEGIN")
            rows = ((fibre.id, fibre.stamped(number)) for number, fibre in enumerate(fibres))
            connection.executemany("INSERT INTO fibre VALUES (?, ?)", rows)
            connection.execute("COMMIT")

    def round(self, seconds: int) -> Measured:
        """Edit for that long; SystemExit when the table does not hold what was committed."""
        lasted: list[list[float]] = [[] for _ in range(CONNECTIONS)]
        began, ended = threading.Barrier(CONNECTIONS + 1), threading.Event()
        threads = [
            threading.Thread(target=self._edit, args=(index, began, ended, lasted[index]))
            for index in range(CONNECTIONS)
        ]
        for thread in threads:
            thread.start()
        began.wait()
        start = time.perf_counter()
        time.sleep(seconds)
        ended.set()
        for thread in threads:
            thread.join()
        elapsed = time.perf_counter() - start
        self._check()
        times = [each for of_thread in lasted for each in of_thread]
        self._next += CONNECTIONS * max(len(of_thread) for of_thread in lasted)
        return Measured(len(times), len(times) / elapsed, statistics.quantiles(times, n=100)[98] * 1000)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._file, isolation_level=None, timeout=BUSY_S)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            yield connection
        finally:
            connection.close()

    def _edit(self, index: int, began: threading.Barrier, ended: threading.Event, lasted: list[float]) -> None:
        numbers = range(index, len(self._fibres), CONNECTIONS)
        stamps, turn, clock = self._stamps, self._turn, time.perf_counter
        with self._connected() as connection:
            execute = connection.execute
            began.wait()
            while not ended.is_set():
                number = numbers[len(lasted) % len(numbers)]
                stamp = self._next + len(lasted) * CONNECTIONS + index
                fibre = self._fibres[number]
                row = (fibre.stamped(stamp), fibre.id)
                start = clock()
                with turn:
                    execute("BEGIN IMMEDIATE")
                    execute("UPDATE fibre SET item = ? WHERE id = ?", row)
                    execute("COMMIT")
                lasted.append(clock() - start)
                stamps[number] = stamp

    def _check(self) -> None:
        with self._connected() as connection:
            rows = connection.execute("SELECT item FROM fibre ORDER BY id").fetchall()
        if [stamp_of(json.loads(item)) for (item,) in rows] != self._stamps:
            sys.exit("The table does not hold what was committed last.")
