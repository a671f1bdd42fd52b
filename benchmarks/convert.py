"""How long a conversion takes, as a multiple of a peer that does the same in turn: `cp -r`, and tensorstore by hand.

Every round writes to a new directory, everything else being synced, and is timed up to the end of `sync -f`. The
figure is the median of the ratios of the rounds, because the time of `cp` alone varies severalfold on shared machines.
What the rounds before wrote is emptied, not removed: ext4 looks through the inodes that were removed in the last
minutes each time that it makes a file, which belongs to the benchmark and not to a conversion.

    python -m benchmarks.convert            raw, tiff and a deflated stack, against cp; raw against tensorstore
    python -m benchmarks.convert memory     peak memory of all processes, as the stack becomes twice as deep
    python -m benchmarks.convert growth     CPU seconds a voxel for 1, 2 and 4 times the stack
"""

from __future__ import annotations

import argparse
import compileall
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import tifffile

import converter
import precomputed_server

PLANE = (1024, 1024)
PLANE_BYTES = 2 * PLANE[0] * PLANE[1]


def make_stack(directory: Path, planes: int, compression: str | None = None, seed: int = 0) -> None:
    """Write `planes` TIFFs of uint16 "(1024, 1024)": smooth 12-bit content that moves with z, with Poisson noise."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[: PLANE[0], : PLANE[1]].astype(np.float32)
    directory.mkdir(parents=True)
    for z in range(planes):
        waves = np.sin(x / 97 + z / 31) + np.sin(y / 61 - z / 47) + np.sin((x + y) / 151)
        expected = 200 + 550 * (waves + 3)
        noisy = generator.poisson(expected).clip(0, 4095).astype(np.uint16)
        tifffile.imwrite(directory / f"img_{z}.tif", noisy, photometric="minisblack", compression=compression)


def timed(work: Callable[[Path], object], target: Path) -> float:
    """Seconds that `work` takes until what it writes at `target`, which is new, is on disk; its files are emptied."""
    subprocess.run(["sync", "-f", str(target.parent)], check=True)
    began = time.perf_counter()
    work(target)
    subprocess.run(["sync", "-f", str(target)], check=True)
    taken = time.perf_counter() - began
    for path in target.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)
    return taken


def copy(source: Path, target: Path) -> None:
    """`cp -r`."""
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)


def tensorstore(source: Path, target: Path) -> None:
    """The same pyramid, raw, by tensorstore."""
    subprocess.run([sys.executable, "-m", "benchmarks.tensorstore_convert", str(source), str(target)], check=True)


def command(source: Path, chunk_format: str, target: Path) -> list[str]:
    """`precomputed convert` as a person runs it, 4 levels."""
    program = str(Path(sys.executable).with_name("precomputed"))
    options = ["--voxel-size", "1,1,1", "--levels", "4", "--format", chunk_format]
    return [program, "convert", str(source), str(target), *options]


def convert(source: Path, chunk_format: str, target: Path) -> None:
    """Run it."""
    subprocess.run(
        command(source, chunk_format, target), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def rates(work: Path, planes: int, rounds: int) -> None:
    """Every case against its peers."""
    plain, deflated = work / "plain", work / "deflated"
    make_stack(plain, planes)
    make_stack(deflated, planes, "zlib")
    cases: tuple[tuple[str, Path, Callable[[Path, Path], None], str, float], ...] = (
        ("raw", plain, copy, "cp -r + sync", 2.0),
        ("raw", plain, tensorstore, "tensorstore", 1.0),
        ("tiff", plain, copy, "cp -r + sync", 3.5),
        ("tiff", deflated, partial(_copy_of, plain), "cp -r + sync, from deflated planes", 4.0),
    )
    for case, (chunk_format, source, peer, name, target) in enumerate(cases):
        pairs = []
        for number in range(rounds):
            sides = [("peer", partial(peer, source)), ("ours", partial(convert, source, chunk_format))]
            taken = {
                side: timed(run, work / f"{case}-{number}-{side}")
                for side, run in (sides if number % 2 else reversed(sides))
            }
            pairs.append((taken["peer"], taken["ours"]))
        report(f"{chunk_format} against {name}", pairs, target)


def _copy_of(plain: Path, source: Path, target: Path) -> None:
    """Copy the plain planes, whatever the source is: the voxels that are converted."""
    copy(plain, target)


def report(name: str, pairs: list[tuple[float, float]], target: float) -> None:
    """One line: the median ratio, its range, and the median seconds of either side."""
    ratios = sorted(ours / peer for peer, ours in pairs)
    peer, ours = (statistics.median(times) for times in zip(*pairs, strict=True))
    middle = statistics.median(ratios)
    print(
        f"convert {name}: {middle:.2f} × "
        f"(from {ratios[0]:.2f} to {ratios[-1]:.2f}; {ours:.2f} s against {peer:.2f} s); "
        f"target ≤ {target} {'reached' if middle <= target else 'MISSED'}",
        flush=True,
    )


def memory(work: Path, planes: int) -> None:
    """Peak memory of all processes for the stack and one twice as deep, in resident and in proportional bytes."""
    peaks = []
    for depth in (planes, 2 * planes):
        source = work / f"planes-{depth}"
        make_stack(source, depth)
        peaks.append(peak_bytes(command(source, "tiff", work / f"made-{depth}")))
        shutil.rmtree(source)
    (resident, proportional), (twice, _) = peaks
    print(
        f"convert peak memory: {resident >> 20} MiB resident ({proportional >> 20} MiB without what processes share), "
        f"{twice / resident:.2f} × for twice the planes; targets ≤ 1024 MiB, from 0.9 to 1.1 "
        f"{'reached' if resident <= 1 << 30 and 0.9 <= twice / resident <= 1.1 else 'MISSED'}"
    )


def peak_bytes(arguments: list[str]) -> tuple[int, int]:
    """Run a command; the largest sum of the resident, and of the proportional, memory of it and its descendants."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    resident = proportional = 0
    while process.poll() is None:
        sums = [_memory(each) for each in _descendants(process.pid)]
        resident = max(resident, sum(rss for rss, _ in sums))
        proportional = max(proportional, sum(pss for _, pss in sums))
        time.sleep(0.01)
    if process.returncode:
        sys.exit(f"{arguments} failed with {process.returncode}")
    return resident, proportional


def _descendants(process: int) -> list[int]:
    try:
        below = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return [process]
    return [process, *(each for child in below for each in _descendants(int(child)))]


def _memory(process: int) -> tuple[int, int]:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines[1:]}
    return sizes.get("Rss", 0), sizes.get("Pss", 0)


def growth(work: Path, planes: int) -> None:
    """CPU seconds a voxel as the stack grows."""
    costs = []
    for depth in (planes, 2 * planes, 4 * planes):
        source = work / f"planes-{depth}"
        make_stack(source, depth)
        runs = [cpu_seconds(command(source, "tiff", work / "made")) for _ in range(3)]
        costs.append(statistics.median(runs) / (depth * PLANE_BYTES))
        shutil.rmtree(source)
    low, high = min(costs), max(costs)
    listed = ", ".join(f"{cost * 1e9:.2f}" for cost in costs)
    print(
        f"convert growth: {listed} CPU ns a byte for 1, 2 and 4 times the planes, {high / low - 1:.0%} apart; "
        f"target ≤ 15% {'reached' if high <= 1.15 * low else 'MISSED'}"
    )


def cpu_seconds(arguments: list[str]) -> float:
    """The CPU time of a command and all its descendants, whoever waited for them."""
    target = Path(arguments[3])
    shutil.rmtree(target, ignore_errors=True)
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen: dict[int, float] = {}
    while process.poll() is None:
        for each in _descendants(process.pid):
            seen[each] = max(seen.get(each, 0.0), _cpu(each))
        time.sleep(0.01)
    return sum(seen.values())


def _cpu(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Print one line for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=["rates", "memory", "growth", []], default=[])
    parser.add_argument("--mebibytes", type=int, default=1024, help="size of the stack (default: 1024)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=None, help="where to work (default: a temporary directory)")
    arguments = parser.parse_args()
    planes = max(1, (arguments.mebibytes << 20) // PLANE_BYTES)
    for package in (*converter.__path__, *precomputed_server.__path__):  # as `pip install` does
        compileall.compile_dir(package, quiet=2)
    wanted = arguments.what or ["rates", "memory", "growth"]
    for what in wanted:
        with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="convert-") as name:
            if what == "rates":
                rates(Path(name), planes, arguments.rounds)
            elif what == "memory":
                memory(Path(name), planes)
            else:
                growth(Path(name), planes)


if __name__ == "__main__":
    main()
