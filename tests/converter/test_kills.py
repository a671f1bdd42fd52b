"""kill -9 of a whole conversion, again and again: what it leaves is no dataset, and in the end an exact one."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL

import numpy as np
import pytest

from tests.converter.stacks import files_of, volume, write_planes


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.nightly)])
@pytest.mark.parametrize("storage", ["uncompressed", "deflated", "sharded"])
def test_a_conversion_killed_again_and_again_is_byte_identical(tmp_path: Path, storage: str, kills: int) -> None:
    """Runs are killed at any time and go on from each other; one that ends is compared, and begun anew."""
    compression = "zlib" if storage == "deflated" else None
    chunk_format = "sharded" if storage == "sharded" else "tiff"
    source = write_planes(tmp_path / "planes", volume(512, 512, 136), compression=compression)
    made, reference = tmp_path / "made", tmp_path / "reference" / "made"
    command = [sys.executable, "-c", "from converter.cli import convert; convert()", str(source)]
    flags = ["--voxel-size", "1,1,1", "--jobs", "2", "--levels", "4", "--chunk-size", "64,64,16"]
    flags += ["--format", chunk_format, "--max-memory", "300MiB"]
    began = time.monotonic()
    subprocess.run([*command, str(reference), *flags], check=True, stdout=DEVNULL, stderr=DEVNULL)
    whole = time.monotonic() - began
    chance, killed, ended = random.Random(5), 0, 0
    while killed < kills or not ended:
        run = [*command, str(made), *flags]
        process = subprocess.Popen(run, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True)
        if killed < kills:
            with suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0.2, 1) * whole)
        else:
            process.wait()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
            process.wait()
            _wait_for_group(process.pid)
        else:
            assert process.returncode == 0
        if (made / ".precomputed" / "swap.json").exists():
            continue
        if (made / "info").exists():
            _check_equal(made, reference)
            shutil.rmtree(made)
            ended += 1
        else:
            assert files_of(made) == {}


def _check_equal(made: Path, reference: Path) -> None:
    assert files_of(made) == files_of(reference)
    for manifest in (reference / ".precomputed" / "manifest").iterdir():
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
