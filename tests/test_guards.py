"""The guards of conftest.py are seen to fail: a guard that never fires proves nothing."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from blockbuster import BlockingError

from precomputed_server.files import Tree
from precomputed_server.format.grid import cell_box, cells
from precomputed_server.writing import replace_file
from tests import conftest
from tests.conftest import RunningServer, component
from tests.data import chunk_bytes, level_of, volume, write_dataset


async def test_a_write_of_our_code_on_the_event_loop_fails(tmp_path: Path) -> None:
    with pytest.raises(BlockingError):
        replace_file(tmp_path / "file", b"content")


async def test_a_read_of_our_code_on_the_event_loop_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    tree = Tree(tmp_path)
    with pytest.raises(BlockingError):
        tree.read("file")
    assert await asyncio.to_thread(tree.read, "file") == b"content"
    tree.close()


async def test_a_test_may_block_by_itself() -> None:
    time.sleep(0.001)


def test_an_absent_component_skips_here_and_fails_on_a_build_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(conftest.PROGRAMS, "absent", ("no-such-program",))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="absent is not installed"):
        component("absent")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="CI=true"):
        component("absent")


def shell(script: str, directory: Path) -> RunningServer:
    """A shell in the place of a server."""
    process = subprocess.Popen(["sh", "-c", script], start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as output:
        output.readline()  # it says something once it is ready
    (directory / "log").touch()
    return RunningServer(process, 0, directory / "log")


def test_a_server_that_leaves_a_process_behind_fails(tmp_path: Path) -> None:
    server = shell("sleep 60 >/dev/null & echo; wait", tmp_path)
    with pytest.raises(AssertionError, match="left processes behind"):
        server.stop()


def test_a_server_that_ignores_sigterm_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "STOPS_WITHIN_S", 0.2)
    server = shell("trap '' TERM; echo; sleep 60 & wait", tmp_path)
    with pytest.raises(AssertionError, match="did not end"):
        server.stop()
    assert server.process.returncode == -9


def test_a_server_that_ends_passes(tmp_path: Path) -> None:
    shell("echo; exec sleep 60", tmp_path).stop()


def test_the_datasets_of_the_tests_hold_their_voxels(tmp_path: Path) -> None:
    voxels = volume((2, 30, 41, 70), "int16")
    info = write_dataset(tmp_path, voxels, chunk_size=(32, 16, 8), levels=2, voxel_offset=(4, 2, 0))
    for level, scale in enumerate(info.scales):
        array = level_of(voxels, level)
        stored = np.zeros(array.shape, "<i2")
        for cell in cells(scale):
            box = cell_box(scale, cell)
            name = "_".join(f"{low}-{high}" for low, high in zip(box.start, box.stop, strict=True))
            content = (tmp_path / scale.key / name).read_bytes()
            assert content == chunk_bytes(array, box, scale.voxel_offset)
            x, y, z = (slice(a - o, b - o) for a, b, o in zip(box.start, box.stop, scale.voxel_offset, strict=True))
            width, length, depth = box.size
            stored[:, z, y, x] = np.frombuffer(content, "<i2").reshape(2, depth, length, width)
        assert np.array_equal(stored, array)
