"""A viewer drops what it no longer needs all the time: that is no error, and none is logged."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.conftest import StartServer
from tests.end_to_end.wire import TIMEOUT_S, ask

pytestmark = pytest.mark.component


def test_a_download_that_is_dropped_is_not_logged_as_an_error(tmp_path: Path, start_server: StartServer) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(256 << 20)
    server = start_server(tmp_path, workers=1)
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as connection:
            connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
    assert ask(server, "HEAD", "/large").headers["content-length"] == str(256 << 20)
    server.stop()  # waits for every handler
    log = server.log.read_text()
    assert "Traceback" not in log
    assert "rror" not in log
