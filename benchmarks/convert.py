"""How long a conversion takes, as a multiple of `cp -r` and sync of the same stack, measured in alternating rounds.

Every round writes into a new directory and times each side up to the end of `sync -f`; the figure is the median of the
ratios of the rounds, because the time of `cp` alone varies severalfold on shared machines. What was written is removed
at the end (it takes 12 GB): ext4 spends a millisecond a file on passing over the inodes of files deleted just before.
"""

from __future__ import annotations

import argparse
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

PLANE = (1024, 1024)
PLANE_BYTES = 2 * PLANE[0] * PLANE[1]


def make_stack(directory: Path, planes: int, seed: int = 0) -> None:
    """Write `planes` TIFFs of uint16 "(1024, 1024)": smooth 12-bit content that moves with z, with Poisson noise."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[: PLANE[0], : PLANE[1]].astype(np.float32)
    directory.mkdir(parents=True)
    for z in range(planes):
        waves = np.sin(x / 97 + z / 31) + np.sin(y / 61 - z / 47) + np.sin((x + y) / 151)
        expected = 200 + 550 * (waves + 3)
        noisy = generator.poisson(expected).clip(0, 4095).astype(np.uint16)
        tifffile.imwrite(directory / f"img_{z}.tif", noisy, photometric="minisblack")


def timed(work: Callable[[Path], object], target: Path) -> float:
    """Seconds that `work` takes until what it writes at `target` is on disk."""
    subprocess.run(["sync", "-f", str(target.parent)], check=True)
    began = time.perf_counter()
    work(target)
    subprocess.run(["sync", "-f", str(target)], check=True)
    return time.perf_counter() - began


def copy(source: Path, target: Path) -> None:
    """`cp -r`."""
    subprocess.run(["cp", "-r", str(source), str(target)], check=True)


def convert(source: Path, chunk_format: str, target: Path) -> None:
    """`precomputed convert` as a person runs it, 4 levels."""
    command = [str(Path(sys.executable).with_name("precomputed")), "convert", str(source), str(target)]
    options = ["--voxel-size", "1,1,1", "--levels", "4", "--format", chunk_format]
    subprocess.run([*command, *options], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    """Print one line for each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mebibytes", type=int, default=1024, help="size of the stack (default: 1024)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=None, help="where to work (default: a temporary directory)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="convert-") as name:
        work = Path(name)
        source = work / "stack"
        make_stack(source, max(1, (arguments.mebibytes << 20) // PLANE_BYTES))
        for chunk_format in ("raw", "tiff"):
            pairs = []
            for number in range(arguments.rounds):
                copied = timed(partial(copy, source), work / f"copy-{chunk_format}-{number}")
                converted = timed(partial(convert, source, chunk_format), work / f"made-{chunk_format}-{number}")
                pairs.append((copied, converted))
            report(chunk_format, arguments.mebibytes, pairs)


def report(chunk_format: str, mebibytes: int, pairs: list[tuple[float, float]]) -> None:
    """One line: the median ratio, its range, and the median seconds of either side."""
    ratios = sorted(converted / copied for copied, converted in pairs)
    copied, converted = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(
        f"convert {chunk_format:4}: {statistics.median(ratios):.2f} × cp -r + sync "
        f"(from {ratios[0]:.2f} to {ratios[-1]:.2f}; {converted:.2f} s against {copied:.2f} s for {mebibytes} MiB)"
    )


if __name__ == "__main__":
    main()
