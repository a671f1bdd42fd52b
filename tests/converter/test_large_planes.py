"""Planes of 20,000 × 20,000 pixels within 2 GiB, however they are cut into strips."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from benchmarks.convert import peak_bytes
from tests.converter.stacks import read_info, read_statistics

pytestmark = [pytest.mark.component, pytest.mark.nightly]

EDGE, DEPTH, PATCH = 20_000, 64, 500
BOUND = 2 << 30


def _plane(marked: int) -> np.ndarray[Any, Any]:
    """A plane of one value, with a patch of noise on its diagonal."""
    plane = np.full((EDGE, EDGE), 20 + marked, np.uint8)
    at = 5000 * marked
    plane[at : at + PATCH, at : at + PATCH] = np.random.default_rng(marked).integers(0, 256, (PATCH, PATCH))
    return plane


@pytest.mark.parametrize(
    ("compression", "rows"), [("zlib", 128), ("lzw", 128), ("zlib", EDGE), ("lzw", EDGE)], ids=lambda value: f"{value}"
)
def test_large_planes_are_converted_within_2_gibibytes(tmp_path: Path, compression: str, rows: int) -> None:
    source = tmp_path / "planes"
    source.mkdir()
    for z in range(DEPTH):
        if z < 4:
            how: dict[str, Any] = {"compression": compression, "rowsperstrip": rows}
            tifffile.imwrite(source / f"img_{z}.tif", _plane(z), metadata=None, **how)
        else:
            os.link(source / f"img_{z % 4}.tif", source / f"img_{z}.tif")
    made = tmp_path / "made"
    command = [sys.executable, "-c", "from precomputed_server.cli import run; run()", "convert", str(source), str(made)]
    resident, proportional = peak_bytes([*command, "--voxel-size", "1,1,2", "--max-memory", "2GiB"])
    sys.stdout.write(f"{resident >> 20} MiB resident, {proportional >> 20} MiB without what processes share\n")
    assert resident <= 1.1 * BOUND
    assert proportional <= 1.1 * BOUND
    assert read_info(made)["scales"][0]["size"] == [EDGE, EDGE, DEPTH]
    channel = read_statistics(made)["channels"][0]
    assert (channel["min"], channel["max"]) == (0, 255)
    chunk = tifffile.imread(made / "1_1_1" / "4992-5056_4992-5056_0-64.tiff")
    expected = np.stack([_plane(z)[4992:5056, 4992:5056] for z in range(4)])
    np.testing.assert_array_equal(chunk, np.tile(expected, (16, 1, 1)))
