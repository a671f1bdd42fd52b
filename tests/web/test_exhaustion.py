"""Too few descriptors, and files that are replaced while they are read: nothing torn, nothing that stays broken."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import RunningServer, StartServer
from tests.data import volume, write_dataset

CORNER = "1_1_1/0-64_0-64_0-20"
CHUNK_BYTES = 64 * 64 * 20 * 2
DESCRIPTORS = 256


def test_without_descriptors_clients_wait_or_are_told_and_the_server_lives(
    start_server: StartServer, tmp_path: Path
) -> None:
    write_dataset(tmp_path / "brain", volume((1, 20, 64, 64)), storage="gz")
    server = start_server(tmp_path, "--open-files", str(DESCRIPTORS), workers=1)
    workers = children(server)
    with contextlib.ExitStack() as stack:
        connections = []
        for _ in range(DESCRIPTORS + 50):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            connections.append(connection)
        seen = [asked(connection) for connection in connections]
    assert set(seen) <= {200, 503, None}
    assert 503 in seen
    deadline = time.monotonic() + 10
    while status_of(server) != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert children(server) == workers
    assert "Traceback" not in server.log.read_text()


def asked(connection: socket.socket) -> int | None:
    """The status of a chunk, None when the connection is ended or not taken."""
    connection.settimeout(1)
    request = f"GET /brain/{CORNER} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: identity\r\n\r\n"
    try:
        connection.sendall(request.encode())
        answer = connection.recv(100)
    except OSError:
        return None
    if b" 503 " in answer:
        assert b"Retry-After" in answer + connection.recv(1000)
    return int(answer.split()[1]) if answer else None


def children(server: RunningServer) -> set[str]:
    """The processes of the pool."""
    return set(Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split())


def status_of(server: RunningServer) -> int:
    """Of the chunk, asked over a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with contextlib.closing(connection):
        try:
            connection.request("GET", f"/brain/{CORNER}")
            return connection.getresponse().status
        except OSError:
            return 0


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.nightly)])
def test_a_file_that_is_replaced_a_hundred_times_a_second_is_never_torn(
    start_server: StartServer, tmp_path: Path, count: int
) -> None:
    write_dataset(tmp_path / "root" / "brain", volume((1, 20, 64, 64)))
    path = tmp_path / "root" / "brain" / CORNER
    replace(path, 0)
    server = start_server(tmp_path / "root")
    ended = threading.Event()
    writer = threading.Thread(target=keep_replacing, args=(path, ended))
    writer.start()
    try:
        with ThreadPoolExecutor(4) as pool:
            seen = [pair for pairs in pool.map(ask_often, [server] * 4, [count // 4] * 4) for pair in pairs]
    finally:
        ended.set()
        writer.join()
    bodies: dict[str, int] = {}
    assert all(bodies.setdefault(tag, number) == number for tag, number in seen)
    assert len(bodies) > 10


def replace(path: Path, number: int) -> None:
    """Put a chunk in its place that says everywhere which it is."""
    new = path.with_name(".new")
    new.write_bytes(number.to_bytes(4, "little") * (CHUNK_BYTES // 4))
    os.replace(new, path)


def keep_replacing(path: Path, ended: threading.Event) -> None:
    """A hundred times a second."""
    number = 0
    while not ended.wait(0.01):
        number += 1
        replace(path, number)


def ask_often(server: RunningServer, count: int) -> list[tuple[str, int]]:
    """Entity tag and number of each answer, none of which is torn."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    seen = []
    for _ in range(count):
        connection.request("GET", f"/brain/{CORNER}")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200
        assert body == body[:4] * (CHUNK_BYTES // 4)
        seen.append((answer.headers["ETag"], int.from_bytes(body[:4], "little")))
    connection.close()
    return seen
