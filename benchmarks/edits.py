"""How fast annotations are edited and read, as multiples of sqlite3 and nginx measured in alternating rounds.

An edit replaces one of a block's fibres by PATCH and is answered when it is durable. Its peer is sqlite3 that commits
the same edit as a transaction of one row, on the same disk, from as many threads as there are connections. Reading is
GET of a block that nobody edits; its peer is nginx with the same file. The figures are medians over the rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from benchmarks.committing import Table
from benchmarks.editing import DATASET, LEAF, Editing, Fibre
from benchmarks.peers import (
    WRK_DONE,
    alternated,
    described,
    drive,
    free_port,
    get,
    nginx_command,
    our_command,
    p99_ms,
    ratio,
    serving,
)
from precomputed_server.format.info import ScaleInfo, VolumeInfo

SMALL, LARGE = 500, 12_500
EDITING_WORKERS, READING_WORKERS = 4, 2
TARGETS = {SMALL: 0.4, LARGE: 0.1}
TARGET_OF_READING = 0.4
TARGET_P99_MS = 250
STARTED_S = 2
"""One worker answers before the others have begun: a round that begins then has that one alone."""

SIZE = (1 << 24, 4096, 64)
"""The volume in voxels: x has room for the stamps."""

READ_SCRIPT = f"""
request = function() return wrk.format("GET", "/{LEAF}") end
"""


@contextlib.contextmanager
def served(work: Path, fibres: list[Fibre], workers: int) -> Iterator[tuple[str, Path]]:
    """Run our server on a dataset whose one block holds `fibres`: its URL and its root."""
    root, port = work / "root", free_port()
    (root / DATASET).mkdir(parents=True)
    scale = ScaleInfo("1_1_1", SIZE, (1800.0, 1800.0, 2000.0), ((64, 64, 64),))
    (root / DATASET / "info").write_bytes(VolumeInfo("uint16", 1, (scale,)).to_bytes())
    state = work / "state"
    state.mkdir()
    url = f"http://127.0.0.1:{port}"
    environment = {"PRECOMPUTED_STATE": str(state)}  # what a server keeps beside its data is of this run alone
    command = our_command(root, port, workers)
    with serving(command, f"{url}/healthz", work / "ours.log", environment):
        body = f"[{','.join(fibre.stamped(number) for number, fibre in enumerate(fibres))}]"
        request = urllib.request.Request(f"{url}/{LEAF}", body.encode(), method="PUT")
        urllib.request.urlopen(request, timeout=60).close()
        time.sleep(STARTED_S)
        yield url, root


def measure_edits(count: int, work: Path, arguments: argparse.Namespace) -> None:
    """Edit a block of `count` fibres, and a table of as many rows; print one line."""
    fibres = [Fibre.numbered(number) for number in range(count)]
    table = Table(work / "table", fibres)
    with served(work, fibres, EDITING_WORKERS) as (url, root):
        editing = Editing(url, root, fibres, work)
        sides = partial(editing.round, arguments.seconds), partial(table.round, arguments.seconds)
        rounds = alternated(arguments.rounds, *sides)
    report(
        f"edit one of {count} fibres",
        described(rounds, "sqlite3"),
        {
            f"≥ {TARGETS[count]}": ratio(rounds) >= TARGETS[count],
            f"p99 ≤ {TARGET_P99_MS} ms": p99_ms(rounds) <= TARGET_P99_MS,
        },
    )


def measure_reads(work: Path, arguments: argparse.Namespace) -> None:
    """Read a block of SMALL fibres from our server and from nginx; print one line."""
    fibres = [Fibre.numbered(number) for number in range(SMALL)]
    with served(work, fibres, READING_WORKERS) as (url, root):
        port = free_port()
        nginx, script = f"http://127.0.0.1:{port}", work / "read.lua"
        script.write_text(READ_SCRIPT + WRK_DONE)
        command = nginx_command(root, port, work / "prefix", READING_WORKERS)
        with serving(command, f"{nginx}/{LEAF}", work / "nginx.log"):
            if get(f"{url}/{LEAF}", {}) != get(f"{nginx}/{LEAF}", {}):
                sys.exit("the two servers answer differently.")
            sides = (partial(drive, script, side, {}, arguments.seconds, "-t1") for side in (url, nginx))
            rounds = alternated(arguments.rounds, *sides)
    reached = ratio(rounds) >= TARGET_OF_READING
    report(f"read {SMALL} fibres", described(rounds, "nginx"), {f"≥ {TARGET_OF_READING}": reached})


def report(name: str, figures: str, targets: dict[str, bool]) -> None:
    """One line: the figures, and each target with whether it is reached."""
    judged = ", ".join(f"{target} {'reached' if reached else 'MISSED'}" for target, reached in targets.items())
    print(f"{name:24}: {figures}; targets: {judged}", flush=True)


MEASUREMENTS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "edits": partial(measure_edits, SMALL),
    "reads": measure_reads,
    "edits-large": partial(measure_edits, LARGE),
}


def main() -> None:
    """Print what is measured, a line each; a missed target is said and is no error, a failed request is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("only", nargs="*", help=f"of {', '.join(MEASUREMENTS)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each side of a round (default: 4)")
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to be measured (default: temporary)")
    arguments = parser.parse_args()
    for name in arguments.only or MEASUREMENTS:
        if name not in MEASUREMENTS:
            parser.error(f"{name} is none of {', '.join(MEASUREMENTS)}.")
    for name in arguments.only or MEASUREMENTS:
        with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="edits-") as directory:
            MEASUREMENTS[name](Path(directory), arguments)


if __name__ == "__main__":
    main()
