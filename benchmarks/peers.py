"""What the benchmarks of the server share: our server, nginx and wrk as processes, and ratios of alternating rounds."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CONNECTIONS = 32
WITHIN_S = 20

NGINX_CONFIGURATION = """
daemon off;
worker_processes {workers};
pid {prefix}/pid;
error_log stderr warn;
{user}
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 10000000;
    gzip_static {gzip_static};
    default_type application/octet-stream;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""

WRK_DONE = """
done = function(summary, latency, requests)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format('\\n{"requests": %d, "microseconds": %d, "failed": %d, "p99": %d}\\n',
        summary.requests, summary.duration, failed, latency:percentile(99)))
end
"""
"""The end of a script for wrk: what `drive` reads."""


@dataclass(frozen=True)
class Measured:
    """One round of one side."""

    requests: int
    requests_per_second: float
    p99_ms: float


Rounds = list[tuple[Measured, Measured]]
"""What the rounds measured: ours, and the peer's."""


def alternated(count: int, ours: Callable[[], Measured], peers: Callable[[], Measured]) -> Rounds:
    """Measure both sides `count` times, each as often first as second."""
    sides = (ours, peers)
    rounds: Rounds = []
    for number in range(count):
        order = (0, 1) if number % 2 else (1, 0)
        both = {at: sides[at]() for at in order}
        rounds.append((both[0], both[1]))
    return rounds


def ratio(rounds: Rounds) -> float:
    """The median of the rounds' ratios of our rate to the peer's."""
    return statistics.median(_ratios(rounds))


def p99_ms(rounds: Rounds) -> float:
    """The median of our p99 in milliseconds."""
    return statistics.median(ours.p99_ms for ours, _ in rounds)


def p99_ratio(rounds: Rounds) -> float:
    """The median of the rounds' ratios of our p99 to the peer's."""
    return statistics.median(ours.p99_ms / peer.p99_ms for ours, peer in rounds)


def described(rounds: Rounds, peer: str) -> str:
    """The median ratio, its range, and the median rate and p99 of either side."""
    ratios = _ratios(rounds)
    rates = [statistics.median(pair[side].requests_per_second for pair in rounds) for side in (0, 1)]
    p99s = [statistics.median(pair[side].p99_ms for pair in rounds) for side in (0, 1)]
    return (
        f"{ratio(rounds):.3f} × {peer} (from {ratios[0]:.3f} to {ratios[-1]:.3f}; "
        f"{rates[0]:.0f}/s against {rates[1]:.0f}/s, p99 {p99s[0]:.1f} ms against {p99s[1]:.1f} ms)"
    )


def _ratios(rounds: Rounds) -> list[float]:
    return sorted(ours.requests_per_second / peer.requests_per_second for ours, peer in rounds)


@contextlib.contextmanager
def serving(command: list[str], url: str, log: Path, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """Run a server until the block ends; begins when `url` answers, raises SystemExit with its output otherwise.

    `environment` is added to that of this process.
    """
    variables = {**os.environ, **(environment or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env=variables
        )
    try:
        wait_for(process, url, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return when `url` answers 200; SystemExit after WITHIN_S or when the process ends."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            get(url, {})
        except OSError:
            time.sleep(0.05)
        else:
            return
    sys.exit(f"{url} did not answer:\n{log.read_text()}")


def get(url: str, headers: Mapping[str, str]) -> bytes:
    """The decoded body of an answer; raises OSError."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=5) as answer:
        body: bytes = answer.read()
        encoding = answer.headers.get("Content-Encoding")
    return zlib.decompress(body, zlib.MAX_WBITS | 32) if encoding in ("gzip", "deflate") else body


def nginx_command(root: Path, port: int, prefix: Path, workers: int, gzip_static: str = "on") -> list[str]:
    """How nginx is started on `root`, with everything it writes beneath `prefix`; `gzip_static`: on, off or always."""
    prefix.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""  # the directory is readable to us alone
    configuration = prefix / "nginx.conf"
    configuration.write_text(
        NGINX_CONFIGURATION.format(
            workers=workers, prefix=prefix, user=user, port=port, root=root, gzip_static=gzip_static
        )
    )
    return [program("nginx"), "-p", str(prefix), "-c", str(configuration)]


def our_command(root: Path, port: int, workers: int) -> list[str]:
    """How our server is started on `root`."""
    ours = str(Path(sys.executable).with_name("precomputed"))
    return [ours, "serve", str(root), "--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]


def drive(script: Path, url: str, headers: Mapping[str, str], seconds: int, *options: str) -> Measured:
    """One round of wrk, which takes more `options`; the script ends in WRK_DONE.

    SystemExit when a request fails, because a refusal is quick and says nothing.
    """
    command = [program("wrk"), f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(script), *options]
    command += [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    printed = subprocess.run([*command, url], check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    figures = json.loads(printed.splitlines()[-1])
    if figures["failed"] or not figures["requests"]:
        sys.exit(f"{figures['failed']} requests to {url} failed:\n{printed}")
    rate = figures["requests"] / figures["microseconds"] * 1e6
    return Measured(figures["requests"], rate, figures["p99"] / 1000)


def program(name: str) -> str:
    """The path of an outside program; SystemExit when it is absent."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return path or sys.exit(f"{name} is not installed.")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
