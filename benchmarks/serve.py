"""How fast chunks are served, as a multiple of nginx (or bare aiohttp) with the same bytes, in alternating rounds.

Both sides run 2 workers on this machine and are driven by wrk, one after the other, with requests for random chunks
that are in the page cache. The figure is the median of the ratios of the rounds: a rate alone says more about the
machine. Old multi-page TIFFs, which have to be decoded, are compared with `tifffile.imread` by CPU time as well.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import tifffile

from benchmarks import serve_data, serve_saves
from benchmarks.peers import (
    WRK_DONE,
    Rounds,
    alternated,
    described,
    drive,
    free_port,
    get,
    nginx_command,
    our_command,
    p99_ratio,
    ratio,
    serving,
)
from benchmarks.serve_data import Workload

WORKERS = 2
TARGET_P99 = 2.5
TARGET_OF_ALL_COLD = 2.0


@contextlib.contextmanager
def our_server(workload: Workload, work: Path) -> Iterator[str]:
    """Run our server; yields its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = our_command(workload.ours, port, WORKERS)
    with serving(command, f"{url}/healthz", work / "ours.log", {"PRECOMPUTED_STATE": str(work / "state")}):
        yield url


@contextlib.contextmanager
def nginx_server(workload: Workload, work: Path) -> Iterator[str]:
    """Run nginx, with `gzip_static always` where its files are compressed; yields its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    # Not by glob: our server is starting on the same files, and what it tries the disk with is gone in a moment.
    compressed = any(name.endswith(".gz") for _, _, names in os.walk(workload.nginx) for name in names)
    command = nginx_command(workload.nginx, port, work / "prefix", WORKERS, "always" if compressed else "off")
    with serving(command, url + workload.paths[0], work / "nginx.log"):
        yield url


@contextlib.contextmanager
def aiohttp_server(workload: Workload, work: Path) -> Iterator[str]:
    """Run the bare aiohttp server; yields its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "benchmarks.bare_aiohttp", str(workload.nginx), str(port), str(WORKERS)]
    with serving(command, url + workload.paths[0], work / "aiohttp.log"):
        yield url


PEERS = {"nginx": nginx_server, "aiohttp": aiohttp_server}


def compared(workload: Workload, peer: str, work: Path, arguments: argparse.Namespace) -> Rounds:
    """Drive our server and the peer in turn; SystemExit when they answer differently."""
    paths, script = work / "paths", work / "wrk.lua"
    paths.write_text("\n".join(workload.paths) + "\n")
    script.write_text(workload.script.replace("PATHS", str(paths)) + WRK_DONE)
    with our_server(workload, work) as ours, PEERS[peer](workload, work) as theirs:
        for path in workload.paths:  # fills the page cache and the server's
            if get(ours + path, workload.headers) != get(theirs + path, workload.headers):
                sys.exit(f"the two servers answer {path} differently.")
        sides = (partial(drive, script, url, workload.headers, arguments.seconds, "-t1") for url in (ours, theirs))
        return alternated(arguments.rounds, *sides)


def measure(name: str, workload: Workload, targets: dict[str, float], arguments: argparse.Namespace) -> None:
    """Compare with each peer of `targets` and print a line each; nginx's p99 counts too."""
    for peer, target in targets.items():
        with tempfile.TemporaryDirectory(prefix="serve-") as work:
            rounds = compared(workload, peer, Path(work), arguments)
        judged = {f"≥ {target}": ratio(rounds) >= target}
        if peer == "nginx":
            judged[f"p99 ≤ {TARGET_P99} × ({p99_ratio(rounds):.2f})"] = p99_ratio(rounds) <= TARGET_P99
        report(name, described(rounds, peer), judged)


def measure_cold(workload: Workload, arguments: argparse.Namespace) -> None:
    """Compare chunks for a CPU second of our server, none of which it has decoded before, with tifffile's."""
    files = sorted(workload.ours.rglob("*.tiff"))
    ratios, rates = [], []
    with tempfile.TemporaryDirectory(prefix="serve-") as name, our_server(workload, Path(name)) as url:
        for _ in range(arguments.rounds):
            for file in files:
                os.utime(file)  # to the server it is another file than before
            ours, theirs = _cold_rate(url, workload.paths), _imread_rate(files)
            ratios.append(ours / theirs)
            rates.append((ours, theirs))
    ours, theirs = (statistics.median(pair[side] for pair in rates) for side in (0, 1))
    reached = statistics.median(ratios) >= TARGET_OF_ALL_COLD
    figures = (
        f"{statistics.median(ratios):.3f} × tifffile.imread (from {min(ratios):.3f} to {max(ratios):.3f}; "
        f"{ours:.0f} against {theirs:.0f} for a CPU second)"
    )
    report("legacy cold", figures, {f"≥ {TARGET_OF_ALL_COLD}": reached})


def _cold_rate(url: str, paths: list[str]) -> float:
    """Chunks for a CPU second of the server, all of its processes counted."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    port = int(url.rpartition(":")[2])
    before = _cpu_seconds(port)
    for path in paths:
        connection.request("GET", path, headers={"Accept-Encoding": serve_data.ACCEPTED})
        answer = connection.getresponse()
        if answer.status != 200 or not answer.read():
            sys.exit(f"{path} was answered {answer.status}.")
    connection.close()
    return len(paths) / (_cpu_seconds(port) - before)


def _cpu_seconds(port: int) -> float:
    """The CPU time that the processes of the server on `port` have taken so far."""
    nanoseconds = 0
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"--port\0{port}\0".encode() in (process / "cmdline").read_bytes():
                for task in (process / "task").iterdir():
                    nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def _imread_rate(files: list[Path]) -> float:
    start = time.process_time()
    for file in files:
        tifffile.imread(file)
    return len(files) / (time.process_time() - start)


def report(name: str, figures: str, targets: dict[str, bool]) -> None:
    """One line: the figures, and each target with whether it is reached."""
    judged = ", ".join(f"{target} {'reached' if reached else 'MISSED'}" for target, reached in targets.items())
    print(f"serve {name:12}: {figures}; targets: {judged}", flush=True)


def _plain_512(work: Path, arguments: argparse.Namespace) -> None:
    measure("plain-512", serve_data.plain(work / "data", 64, "uint16", 6), {"nginx": 0.95}, arguments)


def _plain_32(work: Path, arguments: argparse.Namespace) -> None:
    workload = serve_data.plain(work / "data", 32, "uint8", 10)
    measure("plain-32", workload, {"nginx": 0.45, "aiohttp": 0.75}, arguments)


def _deflate(work: Path, arguments: argparse.Namespace) -> None:
    measure("deflate", serve_data.deflate(work / "data", 64, 6), {"nginx": 0.65}, arguments)


def _shards(work: Path, arguments: argparse.Namespace) -> None:
    measure("shards", serve_data.shards(work / "data"), {"nginx": 0.5}, arguments)


def _legacy_cold(work: Path, arguments: argparse.Namespace) -> None:
    measure_cold(serve_data.legacy(work / "data", 64, 4), arguments)


def _legacy_warm(work: Path, arguments: argparse.Namespace) -> None:
    measure("legacy-warm", serve_data.legacy(work / "data", 64, 4), {"nginx": 0.95}, arguments)


def _saves(work: Path, arguments: argparse.Namespace) -> None:
    workload = serve_data.plain(work / "data", 64, "uint16", 4)
    (work / "run").mkdir()
    with our_server(workload, work / "run") as url:
        figures, reached = serve_saves.measure(url, workload, work / "run", arguments)
    report("saves", figures, {f"≤ {serve_saves.TARGET_RATIO} × or ≤ {serve_saves.TARGET_MS} ms": reached})


CASES: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "plain-512": _plain_512,
    "plain-32": _plain_32,
    "deflate": _deflate,
    "shards": _shards,
    "legacy-cold": _legacy_cold,
    "legacy-warm": _legacy_warm,
    "saves": _saves,
}


def main() -> None:
    """Print what is measured; a missed target is said and is no error, a failed or a wrong answer is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", action="append", choices=CASES, help="may be given again (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="of each side of a round (default: 3)")
    arguments = parser.parse_args()
    for name in arguments.case or CASES:
        with tempfile.TemporaryDirectory(prefix="serve-data-") as work:
            CASES[name](Path(work), arguments)


if __name__ == "__main__":
    main()
