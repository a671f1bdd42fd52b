"""`precomputed doctor --url` through a real nginx: one that is set up well, and with each fault that is usual."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.catalog.trees import make_dataset
from tests.conftest import REPOSITORY, RunningServer, StartServer, component, free_port
from tests.doctor.examined import Doctor, Examined

pytestmark = [pytest.mark.component, pytest.mark.timeout(120)]

WELL = """
client_max_body_size 65m;
proxy_pass http://127.0.0.1:{port};
proxy_http_version 1.1;
proxy_set_header Host $http_host;
proxy_read_timeout 1h;
"""
"""As docs/doctor.md has it."""

HOLDING = WELL.replace("1.1", "1.0") + "proxy_ignore_headers X-Accel-Buffering;"

_CONFIGURATION = """
daemon off; master_process off; worker_processes 1; pid {place}/pid; error_log {place}/error;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {place}/body; proxy_temp_path {place}/proxy;
  fastcgi_temp_path {place}/f; uwsgi_temp_path {place}/u; scgi_temp_path {place}/s; gzip_types application/json;
  server {{ listen 127.0.0.1:{listen}; {before}
    location {location} {{ {rules} }} }}
}}
"""

Through = Callable[..., Examined]
"""`through(rules, before="", location="/", path="")`."""


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path) -> RunningServer:
    """A server of one dataset that its catalog knows."""
    make_dataset(tmp_path / "data" / "mouse" / "brain")
    server = start_server(tmp_path / "data", workers=1)
    until = time.monotonic() + 20
    while b'"total": 1' not in _datasets(server) and b'"total":1' not in _datasets(server):
        assert time.monotonic() < until, "the catalog is not made"
        time.sleep(0.1)
    return server


def _datasets(server: RunningServer) -> bytes:
    try:
        with urlopen(f"{server.url}/api/v1/datasets", timeout=5) as answer:
            return bytes(answer.read())
    except OSError:
        return b""


@pytest.fixture
def through(server: RunningServer, tmp_path: Path) -> Iterator[Through]:
    """Examine the server through an nginx with these rules."""
    program = component("nginx")
    running: list[subprocess.Popen[bytes]] = []

    def examine(rules: str, before: str = "", location: str = "/", path: str = "") -> Examined:
        listen = free_port()
        filled = _CONFIGURATION.format(
            place=tmp_path, listen=listen, before=before, location=location, rules=rules.format(port=server.port)
        )
        (tmp_path / "nginx.conf").write_text(filled)
        running.append(subprocess.Popen([program, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")]))
        url = f"http://127.0.0.1:{listen}{path}"
        _wait_for(listen)
        doctor = Doctor(tmp_path / "data", server.log.with_name("state"))
        return doctor.examine("--url", url)

    yield examine
    for process in running:
        process.terminate()
        process.wait(10)


def _wait_for(port: int) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
        except OSError as error:
            if "refused" not in str(error):
                return
            assert time.monotonic() < until, "nginx does not listen"
            time.sleep(0.05)
        else:
            return


def test_a_server_that_runs_and_a_proxy_that_is_set_up_well(
    through: Through, server: RunningServer, tmp_path: Path
) -> None:
    found = through(WELL)
    assert found.amiss() == {}
    assert found.level("proxy", "come back unchanged.") == "ok"
    assert found.level("catalog", "a running process keeps it up to date") == "ok"
    doctor = Doctor(tmp_path / "data", server.log.with_name("state"))
    done = doctor.run("--port", str(server.port))
    assert f"ok    port: Port {server.port} of 127.0.0.1 is answered by a server of this kind" in done.stdout


FAULTS = {
    "the size of saves": (WELL.replace("65m", "1m"), "", ("saves", "client_max_body_size"), "fail"),
    "the host": (WELL.replace("proxy_set_header Host $http_host;", ""), "", ("Links", "Host $http_host"), "fail"),
    "compression": (WELL, "gzip on; gzip_proxied any;", ("ETag", "weakened", "gzip off"), "warn"),
    "ranges": (WELL + "proxy_set_header Range '';", "", ("Ten bytes", "200, not 206"), "fail"),
    "origins": (WELL + "add_header Access-Control-Allow-Origin '*';", "", ("twice", "neither add"), "fail"),
    "no origins": (WELL + "proxy_hide_header Access-Control-Allow-Origin;", "", ("is missing",), "fail"),
    "slashes": (WELL, "rewrite ^(.+)/$ $1;", ("ends in a slash", "308"), "fail"),
    "held": (
        HOLDING,
        "",
        ("held back", "proxy_buffering off"),
        "warn",
    ),
    "%2F": (WELL, "if ($request_uri ~ %2F) { return 404; }", ("%2F", "AllowEncodedSlashes"), "warn"),
}


@pytest.mark.parametrize(("rules", "before", "words", "level"), FAULTS.values(), ids=list(FAULTS))
def test_what_a_proxy_spoils(through: Through, rules: str, before: str, words: tuple[str, ...], level: str) -> None:
    found = through(rules, before)
    assert found.level("proxy", *words) == level
    assert list(found.amiss()) == ["proxy"]
    assert len([1 for _, name, _ in found.findings if name == "proxy"]) == 1


def test_a_prefix_that_the_proxy_takes_away(through: Through) -> None:
    rules = WELL.replace("{port};", "{port}/;", 1)
    found = through(rules, location="/scans/", path="/scans")
    assert found.level("proxy", "Links say", "a name of its own instead of the path /scans") == "fail"


def test_the_documented_rules_are_those_that_are_tried() -> None:
    assert WELL.format(port=9000).strip() in (REPOSITORY / "docs" / "doctor.md").read_text()


def test_a_proxy_without_the_server_behind_it(through: Through) -> None:
    found = through(WELL.replace("{port}", str(free_port())))
    assert found.level("proxy", "the status 502", "Start it") == "fail"
