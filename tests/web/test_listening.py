"""Where a real server listens: IPv4, IPv6, any free port, sockets in the file system; and what it says of it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from precomputed_server.errors import InvalidInput
from precomputed_server.listening import give_back, listen, own_url, told
from precomputed_server.settings import load
from tests.conftest import STARTS_WITHIN_S, RunningServer

PROGRAM = str(Path(sys.executable).with_name("precomputed"))
Begin = Callable[..., RunningServer]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory whose name is short enough for a socket, with a root in it."""
    (tmp_path / "root").mkdir()
    return tmp_path


@pytest.fixture
def begin(place: Path) -> Iterator[Begin]:
    """`begin("--bind", "[::1]:0", PRECOMPUTED_WORKERS="1")`: a server, once it says that it serves."""
    servers: list[RunningServer] = []

    def begun(*arguments: str, **environ: str) -> RunningServer:
        log = place / f"output-{len(servers)}"
        command = [PROGRAM, "serve", str(place / "root"), "--state", str(place / "state"), *arguments]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PRECOMPUTED_WORKERS": "1", **environ},
            )
        servers.append(RunningServer(process, 0, log))
        deadline = time.monotonic() + STARTS_WITHIN_S
        while "Ctrl-C" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        return servers[-1]

    yield begun
    for server in servers:
        server.stop()


def addresses_of(server: RunningServer) -> list[str]:
    """The addresses that a server has printed."""
    return re.findall(r"^  (\S+)$", server.log.read_text(), re.MULTILINE)


def connected(address: str) -> http.client.HTTPConnection:
    """A connection to an address as it was printed."""
    if not address.startswith("unix:"):
        return http.client.HTTPConnection(address.removeprefix("http://").rstrip("/"), timeout=20)
    connection = http.client.HTTPConnection("localhost", timeout=20)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(20)
    connection.sock.connect(address.removeprefix("unix:"))
    return connection


def asked(address: str, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, bytes]:
    connection = connected(address)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.component
def test_every_address_is_listened_on_and_printed(begin: Begin, place: Path) -> None:
    path = place / "socket"
    server = begin("--bind", f"127.0.0.1:0, [::1]:0,unix:{path}")
    printed = addresses_of(server)
    patterns = (r"http://127\.0\.0\.1:[1-9]\d*/", r"http://\[::1\]:[1-9]\d*/", re.escape(f"unix:{path}"))
    assert len(printed) == len(patterns)
    for address, pattern in zip(printed, patterns, strict=True):
        assert re.fullmatch(pattern, address)
        assert asked(address, "/healthz") == (200, b"ok\n")


@pytest.mark.component
def test_annotations_are_saved_over_a_socket_that_is_the_users_own(begin: Begin, place: Path) -> None:
    (place / "root" / "brain" / "annotations").mkdir(parents=True)
    size = {"key": "1_1_1", "size": [64, 64, 64], "resolution": [1, 1, 1], "chunk_sizes": [[64, 64, 64]]}
    info = {"type": "image", "data_type": "uint8", "num_channels": 1}
    scale = {**size, "voxel_offset": [0, 0, 0], "encoding": "raw"}
    (place / "root" / "brain" / "info").write_text(json.dumps({**info, "scales": [scale]}))
    path = place / "socket"
    server = begin("--bind", f"unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    leaf = "/brain/annotations/x0y0z0/centroids.json"
    item = {"id": "a", "type": "point", "point": [1, 2, 3], "anntype": "cell", "reviewed": False, "visited": False}
    status, answer = asked(f"unix:{path}", leaf, "PUT", json.dumps([item]).encode())
    assert status == 200, answer
    status, answer = asked(f"unix:{path}", leaf)
    assert [each["point"] for each in json.loads(answer)] == [[1, 2, 3]]
    server.stop()
    assert not path.exists()


@pytest.mark.component
def test_the_socket_of_a_killed_server_is_replaced_and_that_of_a_living_one_is_not(begin: Begin, place: Path) -> None:
    path = place / "socket"
    killed = begin("--bind", f"unix:{path}")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.process.wait()
    assert path.is_socket()
    begin("--bind", f"unix:{path}")
    second = subprocess.run(
        [PROGRAM, "serve", str(place / "root"), "--bind", f"unix:{path}", "--state", str(place / "state")],
        capture_output=True,
        timeout=60,
        text=True,
    )
    assert second.returncode == 2
    assert f"Somebody listens on {path}; stop that server" in second.stderr
    assert asked(f"unix:{path}", "/healthz")[0] == 200


@pytest.mark.component
def test_a_socket_that_somebody_removed_does_not_keep_a_server_from_ending(begin: Begin, place: Path) -> None:
    path = place / "socket"
    server = begin("--bind", f"unix:{path}")
    path.unlink()
    server.stop()
    assert server.process.returncode == 0, server.log.read_text()


@pytest.mark.component
def test_the_file_the_environment_and_flags_of_a_server(begin: Begin, place: Path) -> None:
    (place / "settings.toml").write_text(f'bind = "unix:{place}/socket"\nsocket-mode = "0o660"\nlarge-body = "1MiB"\n')
    log = place / "log"
    variables = {
        "PRECOMPUTED_CONFIG": str(place / "settings.toml"),
        "PRECOMPUTED_LOGGING": str(log),
        "PRECOMPUTED_PORT": "tcp://10.0.0.1:9000",
    }
    server = begin(**variables)
    assert addresses_of(server) == [f"unix:{place}/socket"]
    assert stat.S_IMODE((place / "socket").stat().st_mode) == 0o660
    assert log.read_text().count("PRECOMPUTED_PORT (the link of a container service)") == 1
    assert "PRECOMPUTED_PORT" not in server.log.read_text()
    server.stop()
    (address,) = addresses_of(begin("--port", "0", **variables))
    assert address.startswith("http://127.0.0.1:")


@pytest.mark.component
def test_what_a_worker_logs_is_in_the_file_and_a_new_one_is_begun_when_it_was_moved(begin: Begin, place: Path) -> None:
    (place / "root" / "brain").mkdir()
    log = place / "log"
    server = begin("--bind", "127.0.0.1:0", "--log-file", str(log))
    (worker, *_) = _children(server.pid)
    log.rename(place / "log.1")
    os.kill(worker, signal.SIGKILL)  # gunicorn tells of that
    deadline = time.monotonic() + 20
    while not (log.exists() and "SIGKILL" in log.read_text()):
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)
    assert "SIGKILL" not in server.log.read_text()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_file_that_is_no_socket_is_left_alone(place: Path) -> None:
    path = place / "file"
    path.write_text("mine")
    with pytest.raises(InvalidInput, match="is there and no socket"):
        listen(load(given={"bind": f"unix:{path}"}, environ={}))
    assert path.read_text() == "mine"


def test_where_one_address_cannot_be_had_none_is_taken(place: Path) -> None:
    chosen = load(given={"bind": f"unix:{place}/socket,192.0.2.1:9000"}, environ={})
    with pytest.raises(InvalidInput, match=r"192\.0\.2\.1 is not an address of this machine"):
        listen(chosen)
    assert not (place / "socket").exists()


@pytest.mark.parametrize(
    ("bind", "sentence"),
    [
        ("9000", "'9000' is no address"),
        ("here", "'here' is no address"),
        ("::1:9000", "is no address; write HOST:PORT"),
        ("[::1]", "is no address"),
        ("127.0.0.1:65536", "is no address"),
        ("unix:", "'unix:' is no address"),
        ("127.0.0.1:1,", "'' is no address"),
        ("unix:/absent/socket", "/absent/socket cannot be listened on .No such file"),
        (f"unix:/tmp/{'long' * 40}", "cannot be listened on .*too long"),
    ],
)
def test_what_is_no_address(bind: str, sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        listen(load(given={"bind": bind}, environ={}))


def test_a_relative_socket_is_told_by_its_whole_path(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    chosen = load(given={"bind": "unix:socket"}, environ={})
    listeners = listen(chosen)
    assert told(chosen, listeners) == [f"unix:{place}/socket"]
    give_back(listeners[0])
    assert not (place / "socket").exists()


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({}, "http://127.0.0.1:9000/"),
        ({"host": "0.0.0.0", "port": 1}, "http://127.0.0.1:1/"),
        ({"host": "::", "port": 1}, "http://[::1]:1/"),
        ({"bind": "unix:/s,127.0.0.1:0,brain.example:80"}, "http://brain.example:80/"),
    ],
)
def test_where_this_machine_reaches_its_server(given: dict[str, object], url: str) -> None:
    assert own_url(load(given=given, environ={})) == url


def test_a_server_without_a_port_has_no_url() -> None:
    with pytest.raises(InvalidInput, match="name no TCP port"):
        own_url(load(given={"bind": "unix:/s"}, environ={}))
