"""How long saves take while tiles keep both workers busy, as a multiple of what they take when nobody else asks."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.peers import WRK_DONE, drive
from benchmarks.serve_data import Workload

TARGET_RATIO, TARGET_MS = 3.0, 50.0
_LEAF = "/annotations/x0y0z0/fibers.json"


def measure(url: str, workload: Workload, work: Path, arguments: argparse.Namespace) -> tuple[str, bool]:
    """Save for `seconds` with and without tiles asked for, `rounds` times; the figures, and whether they suffice."""
    paths, script = work / "paths", work / "wrk.lua"
    paths.write_text("\n".join(workload.paths) + "\n")
    script.write_text(workload.script.replace("PATHS", str(paths)) + WRK_DONE)
    tiles = partial(drive, script, url, workload.headers, arguments.seconds + 1, "-t1")
    _save_for(url, 1.0)  # the first has more to look up
    rounds = []
    for _ in range(arguments.rounds):
        idle = _save_for(url, arguments.seconds)
        with _meanwhile(tiles):
            time.sleep(0.5)
            rounds.append((idle, _save_for(url, arguments.seconds)))
    idle, busy = (statistics.median(pair[side] for pair in rounds) for side in (0, 1))
    ratio = statistics.median(pair[1] / pair[0] for pair in rounds)
    figures = f"p99 {busy:.1f} ms while tiles are served, {idle:.1f} ms otherwise: {ratio:.2f} ×"
    return figures, ratio <= TARGET_RATIO or busy <= TARGET_MS


def _save_for(url: str, seconds: float) -> float:
    """Save one point after the other; the p99 in milliseconds."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    times: list[float] = []
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end or len(times) < 2:
        number += 1
        identifier = f"{number % 100:040x}"
        body = json.dumps({"id": identifier, "type": "point", "point": [number % 64, 1, 1], "anntype": "neuron"})
        start = time.perf_counter()
        connection.request("PATCH", f"{_LEAF}?id={identifier}", body)
        answer = connection.getresponse()
        told = answer.read()
        times.append((time.perf_counter() - start) * 1000)
        if answer.status != 200:
            sys.exit(f"a save was answered {answer.status}: {told.decode()}")
    connection.close()
    return statistics.quantiles(times, n=100)[98]


@contextlib.contextmanager
def _meanwhile(run: Callable[[], object]) -> Iterator[None]:
    """Run it in a thread while the block runs."""
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()
