"""--max-memory is kept, whatever the extent of the stack and however its planes are stored."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from benchmarks.convert import peak_bytes

BOUND = 320 << 20
SHAPES = {
    "whole": (64, 1024, 1024),
    "deeper": (128, 1024, 1024),
    "higher": (32, 2048, 1024),
    "wider": (32, 1024, 2048),
    "large planes": (8, 4096, 4096),
}
"""Z, Y, X of stacks of 16 bits."""


def _stack(directory: Path, shape: tuple[int, int, int], compression: str | None) -> Path:
    depth, rows, columns = shape
    directory.mkdir()
    plane = np.random.default_rng(0).integers(0, 4096, (rows, columns), dtype=np.uint16)
    strip = rows if compression else None
    for z in range(depth):
        pixels = np.roll(plane, z)
        tifffile.imwrite(directory / f"img_{z}.tif", pixels, metadata=None, compression=compression, rowsperstrip=strip)
    return directory


def _peak(source: Path, made: Path) -> int:
    """The most resident memory of all processes of a conversion, each counted in full."""
    command = [sys.executable, "-c", "from converter.cli import convert; convert()", str(source), str(made)]
    resident, _ = peak_bytes([*command, "--voxel-size", "1,1,1", "--jobs", "2", "--max-memory", f"{BOUND}B"])
    return resident


@pytest.mark.parametrize(("compression", "names"), [(None, tuple(SHAPES)), ("zlib", ("whole", "large planes"))])
def test_memory_is_bounded_as_each_axis_grows(tmp_path: Path, compression: str | None, names: tuple[str, ...]) -> None:
    peaks = {}
    for name in names:
        source = _stack(tmp_path / name, SHAPES[name], compression)
        peaks[name] = _peak(source, tmp_path / f"made {name}")
    assert {name: peak >> 20 for name, peak in peaks.items() if peak > 1.1 * BOUND} == {}
    if "deeper" in peaks:
        assert 0.9 < peaks["deeper"] / peaks["whole"] < 1.1
