"""How fast chunks are served, as a multiple of nginx with the same bytes, measured in alternating rounds.

Both run 2 workers on this machine and are driven by wrk, one after the other, with requests for random chunks that
are in the page cache. The figure is the median of the ratios of the rounds: a rate alone says more about the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from precomputed_server.format.grid import cell_box, cells
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.format.names import chunk_name
from precomputed_server.format.tiff import DEFLATE, chunk_header

CHUNK = (64, 64, 64)
CHUNKS_PER_AXIS = (6, 6, 6)
WORKERS = 2
CONNECTIONS = 32
WITHIN_S = 20
ACCEPTED = "gzip, deflate"
"""What a browser accepts on plain HTTP."""

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
    gzip_static on;
    default_type application/octet-stream;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""

WRK_SCRIPT = """
local paths = {}
for path in io.lines("PATHS") do paths[#paths + 1] = path end
math.randomseed(os.time())
request = function() return wrk.format("GET", paths[math.random(#paths)]) end
done = function(summary, latency, requests)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format('\\n{"requests": %d, "microseconds": %d, "failed": %d, "p99": %d}\\n',
        summary.requests, summary.duration, failed, latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Measured:
    """One round of wrk."""

    requests_per_second: float
    p99_ms: float


@dataclass(frozen=True)
class Workload:
    """One pair of directories that answer the same paths; `paths` are URL paths."""

    name: str
    ours: Path
    nginx: Path
    paths: list[str]
    headers: dict[str, str]


def make_workloads(directory: Path) -> list[Workload]:
    """Write both datasets: chunks as they are, and deflate TIFF chunks beside gzip files of the same streams."""
    ours, nginx = directory / "ours", directory / "nginx"
    size = tuple(edge * count for edge, count in zip(CHUNK, CHUNKS_PER_AXIS, strict=True))
    scale = ScaleInfo("1_1_1", (size[0], size[1], size[2]), (1800.0, 1800.0, 2000.0), (CHUNK,))
    info = VolumeInfo("uint16", 1, (scale,)).to_bytes()
    names = [chunk_name(cell_box(scale, cell)) for cell in cells(scale)]
    for folder in (ours / "plain", ours / "deflate", nginx / "deflate"):
        (folder / scale.key).mkdir(parents=True)
        (folder / "info").write_bytes(info)
    (nginx / "plain").symlink_to(ours / "plain")
    generator = np.random.default_rng(0)
    for name in names:
        body = generator.normal(400, 20, CHUNK).astype("<u2").tobytes()
        (ours / "plain" / scale.key / name).write_bytes(body)
        stream = zlib.compress(body, 1)
        header = chunk_header((CHUNK[2], CHUNK[1], CHUNK[0]), np.dtype("<u2"), len(stream), DEFLATE)
        (ours / "deflate" / scale.key / f"{name}.tiff").write_bytes(header + stream)
        (nginx / "deflate" / scale.key / f"{name}.gz").write_bytes(as_gzip(stream, body))
    return [
        Workload(
            f"{kind} chunks",
            ours,
            nginx,
            [f"/{kind}/{scale.key}/{name}" for name in names],
            {"Accept-Encoding": accepted},
        )
        for kind, accepted in (("plain", "identity"), ("deflate", ACCEPTED))
    ]


def as_gzip(stream: bytes, body: bytes) -> bytes:
    """Put the deflate data of a zlib stream into a gzip file (RFC 1950, RFC 1952)."""
    header = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    return header + stream[2:-4] + struct.pack("<II", zlib.crc32(body), len(body))


@contextlib.contextmanager
def serving(command: list[str], url: str, log: Path) -> Iterator[None]:
    """Run a server until the block ends; begins when `url` answers, raises SystemExit with its output otherwise."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
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


def get(url: str, headers: dict[str, str]) -> bytes:
    """The decoded body of an answer; raises OSError."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
        body: bytes = answer.read()
        encoding = answer.headers.get("Content-Encoding")
    return zlib.decompress(body, zlib.MAX_WBITS | 32) if encoding in ("gzip", "deflate") else body


def nginx_command(program: str, root: Path, port: int, prefix: Path) -> list[str]:
    """How nginx is started on `root`, with everything it writes beneath `prefix`."""
    prefix.mkdir()
    user = "user root;" if os.geteuid() == 0 else ""  # the directory is readable to us alone
    configuration = prefix / "nginx.conf"
    configuration.write_text(
        NGINX_CONFIGURATION.format(workers=WORKERS, prefix=prefix, user=user, port=port, root=root)
    )
    return [program, "-p", str(prefix), "-c", str(configuration)]


def our_command(root: Path, port: int) -> list[str]:
    """How our server is started on `root`."""
    program = str(Path(sys.executable).with_name("precomputed"))
    return [program, "serve", str(root), "--host", "127.0.0.1", "--port", str(port), "--workers", str(WORKERS)]


def drive(wrk: str, script: Path, url: str, headers: dict[str, str], seconds: int) -> Measured:
    """One round of wrk; SystemExit when a request fails, because a refusal is quick and says nothing."""
    command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(script)]
    command += [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    printed = subprocess.run([*command, url], check=True, capture_output=True, text=True, timeout=seconds + 30).stdout
    figures = json.loads(printed.splitlines()[-1])
    if figures["failed"] or not figures["requests"]:
        sys.exit(f"{figures['failed']} requests to {url} failed:\n{printed}")
    return Measured(figures["requests"] / figures["microseconds"] * 1e6, figures["p99"] / 1000)


def measure(workload: Workload, wrk: str, urls: tuple[str, str], work: Path, arguments: argparse.Namespace) -> None:
    """Drive both servers (`urls`: ours, nginx) in turn and print one line."""
    for path in workload.paths:  # fills the page cache, and shows that both answer the same
        if get(urls[0] + path, workload.headers) != get(urls[1] + path, workload.headers):
            sys.exit(f"the two servers answer {path} differently.")
    paths, script = work / "paths", work / "wrk.lua"
    paths.write_text("\n".join(workload.paths) + "\n")
    script.write_text(WRK_SCRIPT.replace("PATHS", str(paths)))
    rounds: list[tuple[Measured, Measured]] = []
    for number in range(arguments.rounds):
        order = (0, 1) if number % 2 else (1, 0)
        both = {at: drive(wrk, script, urls[at], workload.headers, arguments.seconds) for at in order}
        rounds.append((both[0], both[1]))
    report(workload.name, rounds)


def report(name: str, rounds: list[tuple[Measured, Measured]]) -> None:
    """One line: the median ratio, its range, and the median rate and p99 of either side."""
    ratios = sorted(ours.requests_per_second / nginx.requests_per_second for ours, nginx in rounds)
    rates = [statistics.median(pair[side].requests_per_second for pair in rounds) for side in (0, 1)]
    p99s = [statistics.median(pair[side].p99_ms for pair in rounds) for side in (0, 1)]
    print(
        f"serve {name:14}: {statistics.median(ratios):.2f} × nginx (from {ratios[0]:.2f} to {ratios[-1]:.2f}; "
        f"{rates[0]:.0f}/s against {rates[1]:.0f}/s, p99 {p99s[0]:.1f} ms against {p99s[1]:.1f} ms)",
        flush=True,
    )


def program(name: str) -> str:
    """The path of an outside program; SystemExit when it is absent."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    return path or sys.exit(f"{name} is not installed.")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def main() -> None:
    """Print one line for each workload."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each side of a round (default: 3)")
    arguments = parser.parse_args()
    nginx, wrk = program("nginx"), program("wrk")
    with tempfile.TemporaryDirectory(prefix="serve-") as name:
        work = Path(name)
        workloads = make_workloads(work)
        ports = free_port(), free_port()
        urls = f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}"
        ours = our_command(workloads[0].ours, ports[0])
        theirs = nginx_command(nginx, workloads[0].nginx, ports[1], work / "prefix")
        with (
            serving(ours, f"{urls[0]}/healthz", work / "ours.log"),
            serving(theirs, f"{urls[1]}/plain/info", work / "nginx.log"),
        ):
            for workload in workloads:
                measure(workload, wrk, urls, work, arguments)


if __name__ == "__main__":
    main()
