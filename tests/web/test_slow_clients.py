"""Clients that send or take a byte a second are let go, and others do not notice them."""

from __future__ import annotations

import contextlib
import http.client
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RunningServer, StartServer
from tests.data import volume, write_dataset

CORNER = "/brain/1_1_1/0-64_0-64_0-64"
EACH = 100
TIMEOUT_S = 2


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> RunningServer:
    """A server that is less patient than it usually is."""
    root = tmp_path / "root"
    write_dataset(root / "brain", volume((1, 64, 64, 64)))
    (root / "long").write_bytes(bytes(64 << 20))
    return start_server(root, "--client-timeout", str(TIMEOUT_S))


def opened(server: RunningServer, first: bytes) -> socket.socket:
    """A connection with a small window, over which that was sent."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(30)
    sock.connect(("127.0.0.1", server.port))
    sock.sendall(first)
    return sock


def test_slow_clients_are_dropped_and_others_do_not_notice(server: RunningServer) -> None:
    before = p99_s(server)
    heads = [opened(server, b"GET /healthz HTTP/1.1\r\nX-Slow: ") for _ in range(EACH)]
    takers = [opened(server, b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(EACH)]
    takers += [opened(server, f"GET {CORNER} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 8) for _ in range(EACH)]
    start = time.monotonic()
    with dripping(heads):
        during = p99_s(server)
        assert all(was_dropped(sock) for sock in heads)
        assert time.monotonic() - start < TIMEOUT_S + 5
    time.sleep(max(0, start + 3 * TIMEOUT_S - time.monotonic()))
    assert all(was_dropped(sock) for sock in takers)
    assert during <= max(2 * before, 0.1)


def test_a_client_that_is_slow_and_not_too_slow_gets_all(server: RunningServer) -> None:
    sock = opened(server, b"GET /long HTTP/1.1\r\nHost: x\r\nRange: bytes=0-999999\r\n\r\n")
    taken, start = 0, time.monotonic()
    while taken < 1_000_000:
        piece = sock.recv(1 << 14)
        assert piece
        taken += len(piece)
        time.sleep(max(0, start + taken / 100_000 - time.monotonic()))  # 100 kB/s
    sock.close()
    assert time.monotonic() - start > 4 * TIMEOUT_S


def test_a_connection_that_rests_is_kept(server: RunningServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for path in ("/healthz", CORNER, "/healthz"):
        connection.request("GET", path)
        assert connection.getresponse().read()
        kept = connection.sock
        time.sleep(TIMEOUT_S + 1)
        assert connection.sock is kept
    connection.close()


def p99_s(server: RunningServer) -> float:
    """Of the answers to a client that does nothing wrong."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    times = []
    for _ in range(200):
        start = time.perf_counter()
        connection.request("GET", CORNER)
        answer = connection.getresponse()
        assert (answer.status, len(answer.read())) == (200, 64**3 * 2)
        times.append(time.perf_counter() - start)
    connection.close()
    return statistics.quantiles(times, n=100)[98]


@contextlib.contextmanager
def dripping(socks: list[socket.socket]) -> Iterator[None]:
    """Send a byte over each twice a second."""
    ended = threading.Event()

    def drip() -> None:
        while not ended.wait(0.5):
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.send(b"a")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def was_dropped(sock: socket.socket) -> bool:
    """Whether the server has ended it; closes it."""
    with sock:
        try:
            while sock.recv(1 << 20):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True
