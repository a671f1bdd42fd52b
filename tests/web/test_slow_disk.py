"""Files that take seconds to read hold up nobody who asks for something else."""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import RunningServer, StartServer, missing
from tests.data import point, volume, write_annotations, write_dataset

CORNER = "1_1_1/0-64_0-64_0-20"
LEAF = "/brain/annotations/x0y0z0/fibers.json"
SLOW_S = 4
STORM = 64
"""Readers of slow files: more than the threads for files."""

VOXELS = volume((1, 20, 64, 64))


@pytest.fixture(scope="module")
def slow_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library; skips where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        missing("there is no C compiler (cc)")
    library = tmp_path_factory.mktemp("slow") / "slow_disk.so"
    source = Path(__file__).with_name("slow_disk.c")
    subprocess.run([str(compiler), "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.fixture
def server(
    start_server: StartServer, tmp_path: Path, slow_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> RunningServer:
    """One worker, for which the dataset `slow` is on a slow disk."""
    write_dataset(tmp_path / "brain", VOXELS)
    write_annotations(tmp_path / "brain", {"fibers": [point(1, 1, 2, 3)]})
    write_dataset(tmp_path / "files" / "brain", VOXELS)
    shutil.copytree(tmp_path / "files" / "brain" / "1_1_1", tmp_path / "slow" / "1_1_1")
    write_dataset(tmp_path / "packed", VOXELS, storage="gz")
    for number in range(4):
        write_dataset(tmp_path / f"packed{number}" / "slow", VOXELS, storage="gz")
    monkeypatch.setenv("LD_PRELOAD", str(slow_disk))
    monkeypatch.setenv("SLOW_SECONDS", str(SLOW_S))
    running = start_server(tmp_path, workers=1)
    monkeypatch.delenv("LD_PRELOAD")
    return running


def test_one_slow_file_does_not_hold_up_the_worker(server: RunningServer) -> None:
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(get, server, f"/slow/{CORNER}")
        time.sleep(0.2)
        times = [get(server, f"/brain/{CORNER}")[1] for _ in range(50)]
        assert not slow.done()
        status, seconds = slow.result()
    assert (status, seconds >= SLOW_S) == (200, True)
    assert max(times) < 0.5


def test_a_storm_on_slow_files_holds_up_neither_tiles_in_memory_nor_saves(server: RunningServer) -> None:
    patch(server, 0)  # the first has more to look up
    with ThreadPoolExecutor(STORM) as pool:
        storm = [pool.submit(get, server, f"/slow/{CORNER}") for _ in range(STORM)]
        time.sleep(0.5)
        tiles = [get(server, f"/brain/{CORNER}")[1] for _ in range(20)]
        saves = [patch(server, number) for number in range(10)]
        assert not any(slow.done() for slow in storm)
        assert all(slow.result()[0] == 200 for slow in storm)
    assert max(tiles) < 0.5
    assert max(saves) < 1


def test_slow_files_that_have_to_be_decoded_hold_up_no_other_decoding(server: RunningServer) -> None:
    with ThreadPoolExecutor(4) as pool:
        storm = [pool.submit(get, server, f"/packed{number}/slow/{CORNER}") for number in range(4)]
        time.sleep(SLOW_S + 0.5)  # `info` is slow as well
        assert get(server, f"/packed/{CORNER}")[1] < 0.5
        assert not any(slow.done() for slow in storm)
        assert all(slow.result()[0] == 200 for slow in storm)


def get(server: RunningServer, path: str) -> tuple[int, float]:
    """Status and seconds."""
    start = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, time.monotonic() - start


def patch(server: RunningServer, number: int) -> float:
    """Seconds that a save of an annotation takes."""
    start = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("PATCH", f"{LEAF}?id={1:040x}", json.dumps(point(1, number, 2, 3)))
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status == 200
    return time.monotonic() - start
