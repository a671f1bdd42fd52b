"""Reading a leaf that is rewritten all the time: whole versions, true entity tags, and never a stale one."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time
from dataclasses import dataclass, field

import pytest

from precomputed_server.format.geometry import Vector
from tests.annotation_store.conftest import ROOMY
from tests.annotation_store.support import Editor, Place, check_log, some, written
from tests.annotation_store.test_concurrency import URL, Annotator, together
from tests.conftest import StartServer
from tests.data import point

READERS = 2
ITEMS = 60
FEWEST_WRITES_PER_S = 100


@pytest.fixture
def extent() -> Vector:
    """These tests draw anywhere."""
    return ROOMY


class RawReader:
    """GETs on one connection with as little work as there can be, so that many of them fall into a moment."""

    def __init__(self, port: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._left = b""

    def get(self, url: str, tag: str | None = None) -> tuple[int, str, bytes]:
        """Status, entity tag without quotes, and body; `tag` is sent as If-None-Match."""
        condition = "" if tag is None else f'If-None-Match: "{tag}"\r\n'
        self._connection.sendall(f"GET {url} HTTP/1.1\r\nHost: x\r\n{condition}\r\n".encode())
        read = self._left
        while (end := read.find(b"\r\n\r\n")) < 0:
            read += self._more()
        head, status = read[:end], int(read[9:12])
        length = 0 if status == 304 else int(header(head, b"Content-Length"))
        while len(read) < end + 4 + length:
            read += self._more()
        self._left = read[end + 4 + length :]
        return status, header(head, b"ETag").decode().strip('"'), read[end + 4 : end + 4 + length]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _more(self) -> bytes:
        piece = self._connection.recv(1 << 16)
        assert piece, "the server closed the connection in the middle of an answer"
        return piece


def header(head: bytes, name: bytes) -> bytes:
    """The value of a header, empty without it."""
    return head.partition(b"\r\n" + name + b": ")[2].partition(b"\r\n")[0]


@dataclass
class Rewriting:
    """What one rewriter and several readers saw: `acknowledged[n]` is when version n was answered."""

    reads: int
    port: int
    bodies: dict[str, int] = field(default_factory=dict)
    acknowledged: list[float] = field(default_factory=lambda: [0.0])
    seconds: float = 0.0
    begun: float = field(default_factory=time.monotonic)
    unchanged: int = 0
    counted: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    seen: list[tuple[float, str]] = field(default_factory=list)

    def write(self) -> None:
        """Rewrite the leaf until all have read enough; each version is unlike every other one."""
        try:
            with Annotator(self.port) as client:
                while self.counted < self.reads and not self.over.is_set():
                    number = len(self.acknowledged)
                    item = point(0, number, 0.5, number % 7) | {"description": "x" * (number % 50)}
                    status, headers, _ = client.ask("PATCH", f"{URL}?id={item['id']}", item)
                    assert (status, headers["Precomputed-Version"]) == (200, str(number + 1))
                    self.bodies[headers["ETag"].strip('"')] = number + 1
                    self.acknowledged.append(time.monotonic())
        finally:
            self.seconds = time.monotonic() - self.begun
            self.over.set()

    def read(self, who: int) -> None:
        """Read until it is over, half of the times only what is not known yet; a failure ends it for all."""
        try:
            self._read(who)
        finally:
            self.over.set()

    def _read(self, who: int) -> None:
        reader, dice, known = RawReader(self.port), random.Random(who), ""
        seen: list[tuple[float, str]] = []
        while not self.over.is_set():
            if self.writer_lags():
                time.sleep(0.002)
            asked = known if known and dice.random() < 0.5 else None
            begun = time.monotonic()
            status, tag, body = reader.get(URL, asked)
            if status == 304:
                assert tag == asked, "304 for another version than the one that was asked for"
                self.unchanged += 1
            else:
                assert status == 200
                assert tag == hashlib.sha256(body).hexdigest()[:32], "the entity tag is not that of the body"
                assert tag != asked, "200 for what the client holds already"
                assert (body[:3], body[-4:]) == (b"[\n{", b"}\n]\n"), "torn"
                assert body.count(b"\n") == ITEMS + 2, "torn"
            known = tag
            seen.append((begun, tag))
            self.counted += 1
        reader.close()
        self.seen += seen

    def writer_lags(self) -> bool:
        """Whether readers should leave the rewriter more of a busy machine."""
        return len(self.acknowledged) < 1.5 * FEWEST_WRITES_PER_S * (time.monotonic() - self.begun)

    def stale(self) -> list[tuple[int, int]]:
        """Answers with an older version than one acknowledged before they were asked for: (version, newer one)."""
        wrong = []
        for begun, tag in self.seen:
            version = self.bodies.get(tag, len(self.acknowledged) + 1)  # the last may have been read unanswered
            if version < len(self.acknowledged) and self.acknowledged[version] < begun:
                wrong.append((version, sum(moment < begun for moment in self.acknowledged)))
        return wrong


@pytest.mark.parametrize("reads", [10_000, pytest.param(100_000, marks=pytest.mark.nightly)])
def test_gets_of_a_file_that_is_rewritten_all_the_time(start_server: StartServer, place: Place, reads: int) -> None:
    Editor(place).replace(some(ITEMS))
    server = start_server(place.root, workers=2)
    run = Rewriting(reads, server.port, {hashlib.sha256(written(some(ITEMS))).hexdigest()[:32]: 1})
    together(READERS + 1, lambda who: run.read(who) if who else run.write())
    writes = len(run.acknowledged) - 1
    said = f"{run.counted} GETs, {run.unchanged} of them 304, of {writes} versions in {run.seconds:.1f} s"
    print(said)  # noqa: T201
    assert run.counted >= reads
    assert writes / run.seconds >= FEWEST_WRITES_PER_S, said
    assert run.stale() == []
    assert run.unchanged > reads / 50, said
    assert len({tag for _, tag in run.seen}) > writes / 4, said
    assert len(set(run.bodies.values())) == writes + 1, "two versions have one entity tag"
    check_log(place)
