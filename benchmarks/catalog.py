"""How long the catalog of a large tree takes: to make, to go through again, to search, and to notice a new dataset.

python -m benchmarks.catalog [--datasets 20000]
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

from annotation_store.counting import AnnotationCounter
from benchmarks.peers import free_port, get, our_command, serving
from precomputed_server.catalog.database import Catalog, Query
from precomputed_server.catalog.indexer import Hints, Indexer, catalog_path, keep
from precomputed_server.catalog.watch import watching
from precomputed_server.files import Tree
from precomputed_server.readers.volumes import Volumes

_ORGANS = ("brain", "heart", "lung", "kidney", "retina", "cochlea", "spinal-cord", "liver")
_SCALES = ("1_1_1", "2_2_2", "4_4_4")
_PERIOD_S = 60


def make_tree(root: Path, count: int) -> None:
    """Write datasets of one chunk a scale, in folders of 100, with records and statistics."""
    chance = random.Random(1)
    for number in range(count):
        make_dataset(root / f"lab-{number // 1000}" / f"mouse-{number // 100}" / f"{number:05}", number, chance)


def make_dataset(directory: Path, number: int, chance: random.Random) -> None:
    """Write one, its `info` last."""
    scales = []
    for level, key in enumerate(_SCALES):
        (directory / key).mkdir(parents=True)
        edge = 256 >> level
        (directory / key / "0-64_0-64_0-64.tiff").write_bytes(b"0" * 100)
        members = {"key": key, "size": [edge] * 3, "resolution": [1000.0 * 2**level] * 3, "encoding": "raw"}
        scales.append({**members, "chunk_sizes": [[64, 64, 64]], "voxel_offset": [0, 0, 0]})
    (directory / ".precomputed").mkdir()
    organ = chance.choice(_ORGANS)
    record = {"format": 1, "id": f"{number:032x}", "title": f"{organ} {number}", "tags": [organ, f"batch{number % 50}"]}
    (directory / ".precomputed" / "dataset.json").write_text(json.dumps(record))
    (directory / "statistics.json").write_text('{"channels": [{"p01": 1, "p998": 200}]}')
    info = {"data_type": "uint16", "num_channels": 1, "type": "image", "scales": scales}
    (directory / "info").write_text(json.dumps(info))


def report(what: str, measured: float, target: float, unit: str) -> None:
    """One line."""
    print(f"catalog {what}: {measured:.3g} {unit}; target ≤ {target:g} {unit} "
          f"{'reached' if measured <= target else 'MISSED'}", flush=True)  # fmt: skip


def search_ms(path: Path, rounds: int = 300) -> float:
    """The 99th percentile of searches as people type them."""
    chance = random.Random(2)
    asked = [organ[:length] for organ in _ORGANS for length in (1, 3, 5)] + ["", "batch1", "mouse 7", "lab brain 123"]
    times = []
    with closing(Catalog(path)) as catalog:
        for _ in range(rounds):
            query = Query(chance.choice(asked), sort=chance.choice(("path", "title", "bytes")), limit=60)
            began = time.perf_counter()
            catalog.search(query)
            times.append(time.perf_counter() - began)
    return 1e3 * statistics.quantiles(times, n=100)[98]


def noticed_s(root: Path, path: Path, count: int, rounds: int = 5) -> float:
    """The longest time until a new dataset is listed while the tree is watched."""
    hints, tree = Hints(), Tree(root)
    keeper = threading.Thread(
        target=keep,
        args=(lambda: Indexer(tree, Volumes(tree), path), lambda: watching(root, hints), hints, 10 * _PERIOD_S),
    )
    keeper.start()
    try:
        time.sleep(max(2, count / 1000))  # until the tree is watched
        slowest = 0.0
        for number in range(rounds):
            place = f"lab-0/mouse-0/new-{number}"
            make_dataset(root / place, count + number, random.Random(3))
            began = time.monotonic()
            with closing(Catalog(path)) as catalog:
                while catalog.get(place) is None:
                    if time.monotonic() - began > 2 * _PERIOD_S:
                        sys.exit(f"{place} was never listed")
                    time.sleep(0.01)
            slowest = max(slowest, time.monotonic() - began)
        return slowest
    finally:
        hints.stop()
        keeper.join()
        tree.close()


def start_page(root: Path, state: Path) -> tuple[float, float]:
    """The median milliseconds until a server has sent its start page and a page of results, and the kilobytes of it."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    times, length = [], 0
    with serving(our_command(root, port, 2), f"{url}healthz", state / "log", {"PRECOMPUTED_STATE": str(state)}):
        time.sleep(5)  # until the tree has been gone through once more
        for number in range(20):
            began = time.perf_counter()
            page = get(url if number % 2 else f"{url}?q=brain", {})
            times.append(time.perf_counter() - began)
            length = max(length, len(page))
    return 1e3 * statistics.median(times), length / 1000


def main() -> None:
    """Make the tree, and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", type=int, default=20_000)
    count = parser.parse_args().datasets
    with tempfile.TemporaryDirectory(prefix="catalog-") as work:
        root, state = Path(work) / "data", Path(work) / "state"
        make_tree(root, count)
        path = catalog_path(state, root)
        time.sleep(2.5)  # until nothing can have been written within the same tick of the clock
        tree = Tree(root)
        with closing(Indexer(tree, Volumes(tree), path, AnnotationCounter(tree))) as indexer:
            report(f"first index of {count} datasets", indexer.scan().seconds, 60, "s")
            indexer.scan()
            before = resource.getrusage(resource.RUSAGE_SELF)
            rescans = [indexer.scan() for _ in range(3)]
            after = resource.getrusage(resource.RUSAGE_SELF)
            report("rescan with nothing changed", statistics.median(each.seconds for each in rescans), 3, "s")
            spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            report(f"share of a core, every {_PERIOD_S} s", 100 * spent / 3 / _PERIOD_S, 5, "%")
        tree.close()
        report("search, 99th percentile", search_ms(path), 50, "ms")
        took, length = start_page(root, state)
        report("start page", took, 100, "ms")
        report("start page", length, 200, "kB")
        report("new dataset listed", noticed_s(root, path, count), 2, "s")


if __name__ == "__main__":
    main()
