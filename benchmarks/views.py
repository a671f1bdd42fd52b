"""How soon Neuroglancer is shown an edit among very many annotations, in seconds and as a multiple of reading the file.

A dataset has COUNT fibres in one leaf. After each edit `info` and the first cells of the spatial index are asked for,
and asked for again when nothing has changed. The peer reads the same file and parses it with orjson, once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

import numpy as np
import orjson

from annotation_store.model import serialize
from benchmarks.peers import free_port, get, our_command, serving
from precomputed_server.format.info import ScaleInfo, VolumeInfo

COUNT, POINTS = 100_000, 5
SIZE = (20_000, 20_000, 3_000)
DATASET = "brain"
LEAF = f"{DATASET}/annotations/x0y0z0/fibers.json"
COLLECTION = f"{DATASET}/annotations.precomputed/fibers-polyline"
WORKERS = 2
TARGET_AFTER_EDIT_S = 2.0
TARGET_UNCHANGED_S = 0.05
FIRST_CELLS = 8
PAUSE_S = 0.3


def fibres(count: int) -> dict[str, dict[str, object]]:
    """That many fibres all over the volume, by id."""
    chance = np.random.default_rng(1)
    starts = chance.uniform(0, 1, (count, 1, 3)) * np.array(SIZE)
    points = (starts + chance.uniform(0, 100, (count, POINTS, 3))).round(2).tolist()
    return {
        f"{number:040x}": {
            "points": points[number],
            "type": "linestring",
            "id": f"{number:040x}",
            "anntype": "axon",
            "reviewed": False,
            "visited": False,
        }
        for number in range(count)
    }


def look(url: str) -> tuple[float, float]:
    """The seconds that `info` takes, and with the first cells of the first levels."""
    begun = time.perf_counter()
    info = json.loads(get(f"{url}/{COLLECTION}/info", {}))
    known = time.perf_counter() - begun
    cells = [f"{level['key']}/{x}_{y}_0" for level in info["spatial"] for x in (0, 1) for y in (0, 1)
             if x < level["grid_shape"][0] and y < level["grid_shape"][1]]  # fmt: skip
    for cell in cells[:FIRST_CELLS]:
        get(f"{url}/{COLLECTION}/{cell}", {})
    return known, time.perf_counter() - begun


def parse(path: Path) -> float:
    """The seconds that the peer takes."""
    begun = time.perf_counter()
    orjson.loads(path.read_bytes())
    return time.perf_counter() - begun


class Bystander(threading.Thread):
    """Asks for something small all the time; `waited` has how long each answer took, in seconds."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self.waited: list[float] = []
        self.stopped = threading.Event()
        self._url = url

    def run(self) -> None:
        while not self.stopped.wait(0.005):
            begun = time.perf_counter()
            get(f"{self._url}/healthz", {})
            self.waited.append(time.perf_counter() - begun)


def measure(work: Path, count: int, edits: int) -> None:
    """Print one line for each figure."""
    root, port = work / "root", free_port()
    leaf = root / LEAF
    leaf.parent.mkdir(parents=True)
    scale = ScaleInfo("1_1_1", SIZE, (1800.0, 1800.0, 2000.0), ((64, 64, 64),))
    (root / DATASET / "info").write_bytes(VolumeInfo("uint16", 1, (scale,)).to_bytes())
    items = fibres(count)
    leaf.write_bytes(serialize(items))
    url = f"http://127.0.0.1:{port}"
    (work / "state").mkdir()
    environment = {"PRECOMPUTED_STATE": str(work / "state")}
    with serving(our_command(root, port, WORKERS), f"{url}/healthz", work / "ours.log", environment):
        time.sleep(1)
        cold = [look(url)[1] for _ in range(2 * WORKERS)]
        bystander = Bystander(url)
        bystander.start()
        after, unchanged = [], []
        for number in range(edits):
            item = items[f"{number:040x}"] | {"points": [[number + 0.5, 1.0, 2.0], [5.0, 6.0, 7.0]]}
            request = urllib.request.Request(f"{url}/{LEAF}?id={number:040x}", orjson.dumps(item), method="PATCH")
            urllib.request.urlopen(request, timeout=60).close()
            after.append(look(url)[1])
            time.sleep(PAUSE_S)
            for _ in range(8 * WORKERS):  # until every worker has seen the edit
                look(url)
            unchanged += [look(url)[1] for _ in range(5)]
        bystander.stopped.set()
        bystander.join()
    peer = statistics.median(parse(leaf) for _ in range(5))
    size = leaf.stat().st_size / 1e6
    print(f"{count} fibres in one leaf of {size:.1f} MB; to read and parse it: {peer:.3f} s")
    report("first look of a worker", cold, peer, None)
    report("after an edit", after, peer, TARGET_AFTER_EDIT_S)
    report("unchanged", unchanged, peer, TARGET_UNCHANGED_S)
    waited = sorted(bystander.waited)
    print(f"{'others wait meanwhile':24}: median {waited[len(waited) // 2] * 1e3:.1f} ms, p99 "
          f"{waited[len(waited) * 99 // 100] * 1e3:.1f} ms, at most {waited[-1] * 1e3:.1f} ms")  # fmt: skip


def report(name: str, seconds: list[float], peer: float, target: float | None) -> None:
    """One line: the slowest and the median, the ratio to the peer, and whether the slowest reaches the target."""
    worst, middle = max(seconds), statistics.median(seconds)
    judged = "" if target is None else f"; target ≤ {target} s {'reached' if worst <= target else 'MISSED'}"
    print(f"{name:24}: {middle:.3f} s, at most {worst:.3f} s ({middle / peer:.2f} × the peer){judged}", flush=True)


def main() -> None:
    """Print what is measured; a missed target is said and is no error, a failed request is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help="fibres (default: 100,000)")
    parser.add_argument("--edits", type=int, default=10)
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to be measured (default: temporary)")
    arguments = parser.parse_args()
    if arguments.count < arguments.edits:
        sys.exit("There are fewer fibres than edits.")
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="views-") as directory:
        measure(Path(directory), arguments.count, arguments.edits)


if __name__ == "__main__":
    main()
