"""How fast a dataset's progress is told, as multiples of a plain count of the same files measured in the same run.

100,000 annotations in one leaf, and in 200 leaves: the first time, unchanged, and after one edit. The peer reads every
file with orjson and counts what is there: what anybody's script would do. One connection, so one worker.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from benchmarks.peers import free_port, our_command, serving
from precomputed_server.format.info import ScaleInfo, VolumeInfo

COUNT = 100_000
LEAVES = (1, 200)
FIRST_S, UNCHANGED_S = 2.0, 0.05
ROUNDS = 20


def annotation(number: int) -> dict[str, Any]:
    """A contour of ten points in one of 200 slices, every third one looked at."""
    z = number % 200 + 0.5
    points = [[number % 4000 + step, number % 3000 - step, z] for step in range(10)]
    kind = ("neuron", "glia", "axon")[number % 3]
    flags = {"reviewed": number % 3 == 0, "visited": False}
    return {"points": points, "type": "polygon", "id": f"{number:040x}", "anntype": kind, **flags}


def write(root: Path, leaves: int) -> Path:
    """Write a dataset; returns the block's directory."""
    block = root / "brain" / "annotations" / "x0y0z0"
    block.mkdir(parents=True)
    scale = ScaleInfo("1_1_1", (4096, 4096, 200), (1800.0, 1800.0, 2000.0), ((64, 64, 64),))
    (root / "brain" / "info").write_bytes(VolumeInfo("uint16", 1, (scale,)).to_bytes())
    for leaf in range(leaves):
        listed = [annotation(number) for number in range(leaf, COUNT, leaves)]
        (block / f"z-{leaf:04d}.json").write_bytes(orjson.dumps(listed))
    return block


def plain_count(block: Path) -> float:
    """Seconds to read and count every file."""
    begun = time.perf_counter()
    slices: Counter[int] = Counter()
    for path in block.glob("*.json"):
        for item in orjson.loads(path.read_bytes()):
            slices[int(item["points"][0][2])] += item["visited"] or item["reviewed"]
    if len(slices) != 200:
        sys.exit("the files do not hold what was written.")
    return time.perf_counter() - begun


class Asking:
    """One connection to a server."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def timed(self, method: str, path: str, body: bytes | None = None) -> tuple[float, Any]:
        """Seconds until the whole answer is there, and what it says; SystemExit when that is no success."""
        begun = time.perf_counter()
        self._connection.request(method, f"/~bench/brain/annotations/{path}", body)
        answer = self._connection.getresponse()
        content = answer.read()
        seconds = time.perf_counter() - begun
        if answer.status != 200:
            sys.exit(f"{method} {path} was answered {answer.status}: {content[:200]!r}")
        return seconds, json.loads(content)


def measure(leaves: int, work: Path) -> None:
    """Print a line for each kind of request."""
    root, state, port = work / "root", work / "state", free_port()
    block = write(root, leaves)
    state.mkdir()
    peer = median(plain_count(block) for _ in range(3))
    environment = {"PRECOMPUTED_STATE": str(state)}
    with serving(our_command(root, port, 1), f"http://127.0.0.1:{port}/healthz", work / "log", environment):
        asking = Asking(port)
        first, told = asking.timed("GET", "progress")
        check(told, COUNT, 0)
        unchanged = [asking.timed("GET", "progress")[0] for _ in range(ROUNDS)]
        after = []
        for number in range(5):
            review = {"reviewed": True, "annotations": [named(number, leaves)]}
            asking.timed("POST", "review", orjson.dumps(review))
            seconds, told = asking.timed("GET", "progress")
            check(told, COUNT, number + 1)
            after.append(seconds)
    name = f"{COUNT} in {leaves} lea{'f' if leaves == 1 else 'ves'}"
    print(f"plain count of {name}: {peer:.3f} s")
    report(f"first progress of {name}", first, peer, FIRST_S)
    report(f"unchanged progress of {name}", median(unchanged), peer, UNCHANGED_S)
    report(f"progress of {name} after one edit", median(after), peer, FIRST_S)


def named(number: int, leaves: int) -> dict[str, Any]:
    """What names an annotation in a request."""
    return {"block": "x0y0z0", "leaf": f"z-{number % leaves:04d}", "ids": [annotation(number)["id"]]}


def check(told: dict[str, Any], total: int, reviewed: int) -> None:
    """SystemExit unless the counts are right."""
    if (told["total"], told["reviewed"], len(told["slices"])) != (total, reviewed, 200):
        sys.exit(f"the progress is wrong: {told['total']} annotations, {told['reviewed']} confirmed.")


def report(name: str, seconds: float, peer: float, target: float) -> None:
    """One line."""
    judged = "reached" if seconds <= target else "MISSED"
    print(
        f"{name:45}: {seconds:.3f} s, {seconds / peer:.2f} of a plain count; target: ≤ {target} s {judged}", flush=True
    )


def main() -> None:
    """Print what is measured; a missed target is said and is no error, a wrong answer is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to be measured (default: temporary)")
    arguments = parser.parse_args()
    for leaves in LEAVES:
        with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="progress-") as directory:
            measure(leaves, Path(directory))


if __name__ == "__main__":
    main()
