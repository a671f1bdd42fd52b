"""kill -9 of a whole conversion, again and again: what it leaves is no dataset, and in the end an exact one."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from converter import convert
from tests.converter.stacks import files_of, options, volume, write_planes


@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("storage", ["uncompressed", "deflated", "sharded"])
def test_a_conversion_killed_again_and_again_is_byte_identical(tmp_path: Path, storage: str, kills: int) -> None:
    """Each run is killed a little later than the one before, so that all of its phases are hit."""
    compression = "zlib" if storage == "deflated" else None
    chunk_format = "sharded" if storage == "sharded" else "tiff"
    source = write_planes(tmp_path / "planes", volume(512, 256, 160), compression=compression)
    made = tmp_path / "made"
    wanted = {"chunk_size": (32, 32, 32), "levels": 4, "format": chunk_format}
    began = time.monotonic()
    convert(str(source), tmp_path / "reference" / "made", options(**wanted, jobs=2))
    whole = time.monotonic() - began
    command = [sys.executable, "-c", "from converter.cli import convert; convert()", str(source), str(made)]
    command += ["--voxel-size", "1,1,1", "--jobs", "2", "--levels", "4", "--chunk-size", "32,32,32"]
    command += ["--format", chunk_format, "--max-memory", "300MiB"]
    chance, killed = random.Random(5), 0
    for number in range(kills):
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(0.3 + whole * chance.uniform(0.3, 1) * (number + 1) / kills)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
            process.wait()
            _wait_for_group(process.pid)
        else:
            assert process.returncode == 0
            break
        if (made / "info").exists():
            break
        assert not (made / "1_1_1").exists() or (made / ".precomputed" / "swap.json").exists()
    assert killed
    if not (made / "info").exists() or (made / ".precomputed" / "swap.json").exists():
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert files_of(made) == files_of(tmp_path / "reference" / "made")
    for manifest in (tmp_path / "reference/made/.precomputed/manifest").iterdir():
        ours = np.load(made / ".precomputed" / "manifest" / manifest.name)
        np.testing.assert_array_equal(ours, np.load(manifest))
    assert not (made / ".precomputed" / "staging").exists()


def _wait_for_group(group: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
