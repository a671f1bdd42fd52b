"""Signals to a server while people edit: reload, stop, workers that hang, and a writer that hangs."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from annotation_store.model import Item
from precomputed_server.format.geometry import Vector
from tests.annotation_store.conftest import ROOMY
from tests.annotation_store.support import Editor, Place, check_log
from tests.annotation_store.test_concurrency import URL, Annotator, Torture, alive, children
from tests.conftest import STOPS_WITHIN_S, RunningServer, StartServer
from tests.data import point

ANNOTATORS = 6
HANGS_S = 3
"""The server's --timeout, where a process is to be replaced that hangs."""


@pytest.fixture
def extent() -> Vector:
    """These tests draw anywhere."""
    return ROOMY


def lock_of(server: RunningServer) -> Path:
    """The file whose lock makes a process the writer."""
    (lock,) = server.log.with_name("state").glob("*/writer.lock")
    return lock


def writer_of(server: RunningServer) -> int | None:
    """The process that holds the writer's lock, by /proc/locks."""
    inode = lock_of(server).stat().st_ino
    held = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    found = [int(words[4]) for words in held if words[1] == "FLOCK" and words[5].endswith(f":{inode}")]
    assert len(found) < 2
    return found[0] if found else None


def pool_of(server: RunningServer) -> tuple[set[int], set[int]]:
    """The processes of the pool: those that write or wait to, and those that serve; not the one with the catalog."""
    lock = str(lock_of(server))
    catalog = str(lock_of(server).with_name("catalog."))
    writing: set[int] = set()
    serving: set[int] = set()
    for pid in children(server.pid):
        with contextlib.suppress(OSError):
            opened = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
            if not any(path.startswith(catalog) for path in opened):
                (writing if lock in opened else serving).add(pid)
    return writing, serving


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"after {seconds:g} s: not {what}"
        time.sleep(0.02)


class Busy(Torture):
    """Annotators at work while something is done to the server; `moments` is when edits were acknowledged."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(server)
        self.moments: list[float] = []
        self.possible = [{} for _ in range(ANNOTATORS)]

    @contextlib.contextmanager
    def editing(self) -> Iterator[None]:
        """Have everybody edit for as long as the block runs."""
        with ThreadPoolExecutor(ANNOTATORS + 1) as pool:
            done = [pool.submit(self.annotate, who) for who in range(ANNOTATORS)]
            done.append(pool.submit(self.watch))
            try:
                self.wait_for_more(50)
                yield
            finally:
                self.over.set()
            for ended in done:
                ended.result()

    def watch(self) -> None:
        """Note when the number of acknowledged edits grows."""
        before = -1
        while not self.over.is_set():
            if self.acknowledged != before:
                before = self.acknowledged
                self.moments.append(time.monotonic())
            time.sleep(0.005)

    def wait_for_more(self, count: int) -> None:
        """Wait until that many more edits were acknowledged."""
        wanted = self.acknowledged + count
        wait_until(lambda: self.acknowledged >= wanted, 20, "edited")

    def longest_pause(self) -> float:
        """Seconds in which nobody's edit was acknowledged."""
        return max(later - earlier for earlier, later in pairwise(self.moments))

    def check(self, place: Place) -> None:
        """Nothing is lost, nothing torn, and the server's log tells of no defect."""
        last = point(1_000_000, 0, 0, 0)
        Editor(place).put(last)  # finishes what was interrupted
        stored = place.stored()
        assert stored.pop(last["id"]) == last
        assert self.lost(stored) == []
        check_log(place)
        assert place.left_behind() == []
        assert "Traceback" not in self.server.log.read_text(), self.server.log.read_text()


def reload(server: RunningServer, times: int = 1) -> None:
    """SIGHUP, and wait until the pool is a new one: one process that writes, and as many that serve as before."""
    old = set(children(server.pid))
    for _ in range(times):
        os.kill(server.pid, signal.SIGHUP)
        time.sleep(0.2)

    def is_new() -> bool:
        writing, serving = pool_of(server)
        return (len(writing), len(serving)) == (1, 2) and not old & (writing | serving)

    wait_until(is_new, 20 * times, "one new writer and two new workers")
    wait_until(lambda: writer_of(server) in pool_of(server)[0], 10, "that the writer holds the lock")


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_a_reload_brings_one_writer_and_as_many_workers(start_server: StartServer, place: Place, times: int) -> None:
    """The second signal comes while the first is being obeyed."""
    server = start_server(place.root, workers=2)
    busy = Busy(server)
    with busy.editing():
        reload(server, times)
        busy.wait_for_more(50)
    print(f"{busy.acknowledged} edits, {busy.longest_pause():.2f} s without one")  # noqa: T201
    assert busy.longest_pause() < 2
    busy.check(place)


def test_sigterm_ends_it_in_time_with_every_acknowledged_edit(start_server: StartServer, place: Place) -> None:
    server = start_server(place.root, workers=2)
    busy = Busy(server)
    with busy.editing():
        members = [server.pid, *children(server.pid)]
        begun = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        server.process.wait(STOPS_WITHIN_S)
        took = time.monotonic() - begun
        assert not [pid for pid in members if alive(pid)]
    print(f"{busy.acknowledged} edits, stopped within {took:.2f} s")  # noqa: T201
    assert server.process.returncode == 0
    busy.check(place)


def test_a_worker_that_hangs_is_replaced(start_server: StartServer, place: Place) -> None:
    server = start_server(place.root, "--timeout", str(HANGS_S), workers=2)
    busy = Busy(server)
    with busy.editing():
        hanging = min(pool_of(server)[1])
        os.kill(hanging, signal.SIGSTOP)
        wait_until(lambda: not alive(hanging), HANGS_S + 7, "the hanging worker is gone")
        wait_until(lambda: tuple(map(len, pool_of(server))) == (1, 2), 5, "one writer and two workers")
        busy.wait_for_more(50)
    busy.check(place)


class Adding:
    """Clients that create annotations without a key: each answer must stand for exactly one."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.over = threading.Event()
        self.made: dict[str, Item] = {}
        self.longest_s = 0.0

    def add(self, who: int) -> None:
        """Create one after the other; every request is answered."""
        number = 0
        with Annotator(self.port) as client:
            while not self.over.is_set():
                number += 1
                item = {"type": "point", "point": [who, number, 1]}
                begun = time.monotonic()
                status, _, body = client.ask("POST", URL, item)
                assert status == 201, body
                self.longest_s = max(self.longest_s, time.monotonic() - begun)
                self.made[json.loads(body)] = {**item, "id": json.loads(body)}

    @contextlib.contextmanager
    def adding(self) -> Iterator[None]:
        """Have everybody create for as long as the block runs."""
        with ThreadPoolExecutor(ANNOTATORS) as pool:
            done = [pool.submit(self.add, who) for who in range(ANNOTATORS)]
            try:
                time.sleep(0.3)
                yield
                time.sleep(0.3)
            finally:
                self.over.set()
            for ended in done:
                ended.result()

    def check(self, place: Place) -> None:
        """Every answer stands for one annotation and one version, and there is nothing else."""
        assert place.stored() == self.made
        assert check_log(place) == {"fibers": len(self.made)}


def test_edits_wait_for_a_writer_that_hangs_and_are_made_once(start_server: StartServer, place: Place) -> None:
    server = start_server(place.root, workers=2)
    adding = Adding(server.port)
    with adding.adding():
        writer = writer_of(server)
        assert writer is not None
        for _ in range(2):
            os.kill(writer, signal.SIGSTOP)
            time.sleep(0.1)
            before = len(adding.made)
            time.sleep(0.6)
            assert len(adding.made) == before, "somebody else wrote"
            with Annotator(server.port) as reader:
                assert reader.ask("GET", URL)[0] == 200
            os.kill(writer, signal.SIGCONT)
            time.sleep(0.2)
    assert adding.longest_s > 0.6
    assert writer_of(server) == writer
    adding.check(place)


def stop_between_commit_and_answer(writer: int, adding: Adding, place: Place) -> None:
    """SIGSTOP the writer when it has committed what it has not answered yet."""
    for _ in range(500):
        os.kill(writer, signal.SIGSTOP)
        time.sleep(0.03)  # what it had sent arrives
        if place.log.read_bytes().count(b'"operation":"add"') > len(adding.made):
            return
        os.kill(writer, signal.SIGCONT)
        time.sleep(random.random() / 200)
    raise AssertionError("the writer was never caught between a commit and its answer")


def test_a_writer_that_hangs_for_good_is_replaced_and_edits_are_made_once(
    start_server: StartServer, place: Place
) -> None:
    server = start_server(place.root, "--timeout", str(HANGS_S), workers=2)
    adding = Adding(server.port)
    with adding.adding():
        writer = writer_of(server)
        assert writer is not None
        stop_between_commit_and_answer(writer, adding, place)
        wait_until(lambda: writer_of(server) not in (None, writer), HANGS_S + 8, "another writer")
        before = len(adding.made)
        wait_until(lambda: len(adding.made) > before + 10, 5, "edited again")
    print(f"{len(adding.made)} annotations, the longest wait was {adding.longest_s:.2f} s")  # noqa: T201
    adding.check(place)
