"""Whether a worker's memory stays flat: many requests for random chunks of many, in every form, over one server."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.peers import WRK_DONE, drive, free_port, our_command, serving
from benchmarks.serve_data import SCRIPT, deflate, legacy, plain

FLAT = 0.05
LEAST_GROWTH = 4 << 20
"""Bytes that are no growth: what an allocator takes at once."""

WORKERS = 2
ASKED_OFTEN = 4
"""Requests for a chunk, on the average, after which nearly each has been asked of every worker."""


def resident(port: int) -> dict[int, int]:
    """The bytes in memory of each process of the server on `port`, without pages that it shares with others."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"--port\0{port}\0".encode() in (process / "cmdline").read_bytes():
                pages = [int(number) for number in (process / "statm").read_text().split()]
                found[int(process.name)] = (pages[1] - pages[2]) * 4096
        except OSError:
            continue
    return found


def main() -> None:
    """Print the memory once what is kept of each chunk is known, and after all requests; exit 1 when it has grown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--per-axis", type=int, default=33, help="chunks along an axis, in each of three forms (33)")
    parser.add_argument("--memory", type=int, default=64 << 20, help="--chunk-memory of the server, in bytes")
    arguments = parser.parse_args()
    warm = ASKED_OFTEN * 3 * arguments.per_axis**3
    if arguments.requests <= warm:
        parser.error(f"--requests has to be more than {warm}, after which nothing grows any more")
    with tempfile.TemporaryDirectory(prefix="serve-memory-") as name:
        work = Path(name)
        data = work / "data"
        forms = {
            "plain": plain(data / "plain", 32, "uint8", arguments.per_axis),
            "deflate": deflate(data / "deflate", 32, arguments.per_axis),
            "legacy": legacy(data / "legacy", 32, arguments.per_axis),
        }
        below = {"plain": "plain", "deflate": "deflate/ours", "legacy": "legacy/ours"}
        (work / "paths").write_text("".join(f"/{below[form]}{path}\n" for form in forms for path in forms[form].paths))
        script = work / "wrk.lua"
        script.write_text(SCRIPT.replace("PATHS", str(work / "paths")) + WRK_DONE)
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        command = [*our_command(data, port, WORKERS), "--chunk-memory", str(arguments.memory)]
        with serving(command, f"{url}/healthz", work / "log", {"PRECOMPUTED_STATE": str(work / "state")}):
            grown = measure(script, url, port, arguments.requests, warm)
    sys.exit(1 if grown else 0)


def measure(script: Path, url: str, port: int, requests: int, warm: int) -> bool:
    """Ask, and print a line for each process; whether one has grown since `warm` requests."""
    asked = 0
    early: dict[int, int] = {}
    while asked < requests:
        asked += drive(script, url, {"Accept-Encoding": "gzip, deflate"}, 5, "-t1").requests
        if not early and asked >= warm:
            early = resident(port)
    late = resident(port)
    grown = False
    for process, before in early.items():
        growth = late[process] - before
        grew = growth > max(FLAT * before, LEAST_GROWTH)
        grown = grown or grew
        print(
            f"serve memory of process {process}: {before >> 20} MiB, {late[process] >> 20} MiB after {asked} requests; "
            f"target: ± {FLAT:.0%} {'MISSED' if grew else 'reached'}",
            flush=True,
        )
    return grown


if __name__ == "__main__":
    main()
