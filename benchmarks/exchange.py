"""How fast annotations are exported and imported, as multiples of reading and writing the same file as JSON.

The peer is `orjson.dumps(orjson.loads(file))` of the same leaf, in the same process: no program in Python can do less
and look at every annotation. An export reads the leaf from disk, finds its version in the log, and makes the file.
The figures are medians over alternating rounds. A plan is what an import does before it writes: one round.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from annotation_store.edits import ReplaceAll
from annotation_store.exchange.collect import Collection
from annotation_store.exchange.formats import FORMATS, WRITTEN
from annotation_store.exchange.importing import Importer, Wishes
from annotation_store.exchange.selection import Selection
from annotation_store.exchange.swc import UM
from annotation_store.orders import Order, Part
from annotation_store.store import AnnotationStore
from benchmarks.peers import Measured, alternated, described
from precomputed_server.files import Tree
from precomputed_server.format.geometry import Box

COUNT, NODES = 100_000, 8
TARGET = 100_000
"""Annotations a second that an export has to reach."""

SIZE = (16_384, 16_384, 2_048)
EDGES_NM = (1800.0, 1800.0, 2000.0)
BLOCK = "x0y0z0"
DIRECTORY = f"brain/annotations/{BLOCK}"


class Leaves:
    """A dataset with COUNT points in `centroids`, and as many fibres of NODES points in `fibers`."""

    def __init__(self, root: Path) -> None:
        (root / DIRECTORY).mkdir(parents=True)
        self._root = root
        self.store = AnnotationStore(Tree(root))
        chance = random.Random(1)

        def place() -> list[float]:
            return [round(chance.random() * length, 4) for length in SIZE]

        common = {"anntype": "neuron", "reviewed": False, "visited": True}
        points = [{"point": place(), "type": "point", **common} for _ in range(COUNT)]
        fibres = [{"points": [place() for _ in range(NODES)], "type": "linestring", **common} for _ in range(COUNT)]
        for leaf, drawn in (("centroids", points), ("fibers", fibres)):
            items = {f"{number:040x}": {**item, "id": f"{number:040x}"} for number, item in enumerate(drawn)}
            part = Part(leaf, "put", change=ReplaceAll(items))
            answer = self.store.commit([Order(DIRECTORY, (part,), "benchmark", "", f"made {leaf}")])[0]
            if not isinstance(answer, list):
                raise answer
        self.blocks = self.store.blocks("brain", Box((0, 0, 0), SIZE))

    def export(self, leaf: str, name: str) -> bytes:
        """A leaf in that format."""
        collection = Collection(self.store, "brain", self.blocks, Selection(leaves=(leaf,)))
        found = collection.found()
        write = FORMATS[name].write
        if write is None:
            sys.exit(f"{name} is not written.")
        return b"".join(write(collection.export(found, "brain", EDGES_NM, UM)))

    def plan(self, name: str, file: bytes) -> None:
        """The import of an unchanged export: SystemExit when it would change anything."""
        reading = FORMATS[name].read(iter([file]), EDGES_NM)
        plan = Importer(self.store, "brain", reading, Wishes(), EDGES_NM).plan(self.blocks, reading.rows)
        if plan.blocks or plan.unchanged != COUNT:
            sys.exit(f"The import of an unchanged {name} export would change something.")

    def peer(self, leaf: str) -> None:
        """Read and write the file as JSON."""
        orjson.dumps(orjson.loads((self._root / DIRECTORY / f"{leaf}.json").read_bytes()))


def timed(call: Callable[[], object]) -> Measured:
    """How many annotations a second a call handles."""
    start = time.perf_counter()
    call()
    elapsed = time.perf_counter() - start
    return Measured(COUNT, COUNT / elapsed, elapsed * 1000)


def measure(leaves: Leaves, leaf: str, name: str, rounds: int) -> None:
    """Export and import one leaf in one format; print a line each."""
    peer = partial(timed, partial(leaves.peer, leaf))
    calls: dict[str, Callable[[], Any]] = {
        "export": partial(leaves.export, leaf, name),
        "plan": partial(leaves.plan, name, leaves.export(leaf, name)),
    }
    for what, call in calls.items():
        measured = alternated(rounds if what == "export" else 1, partial(timed, call), peer)
        rate = statistics.median(ours.requests_per_second for ours, _ in measured)
        judged = f"; target ≥ {TARGET}/s {'reached' if rate >= TARGET else 'MISSED'}" if what == "export" else ""
        print(f"{what:6} {leaf:9} {name:7}: {described(measured, 'loads and dumps')}{judged}", flush=True)


def main() -> None:
    """Print what is measured, a line each; a missed target is said and is no error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=None, help="on the disk to be measured (default: temporary)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="exchange-") as directory:
        leaves = Leaves(Path(directory))
        for leaf in ("centroids", "fibers"):
            for name in WRITTEN:
                if (leaf, name) != ("centroids", "swc"):  # which holds fibres only
                    measure(leaves, leaf, name, arguments.rounds)


if __name__ == "__main__":
    main()
