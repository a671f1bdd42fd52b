"""Cut-outs far larger than the memory for them: bounded, beside tiles, ended when nobody wants them, never torn."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest

from precomputed_server.format.geometry import Box
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.format.names import chunk_name
from tests.conftest import RunningServer, StartServer
from tests.data import volume, write_dataset

EDGE = 64
ACROSS = 4
LAYERS = 64
MEBIBYTE = 1 << 20
LAYER_BYTES = ACROSS * ACROSS * EDGE**3 * 2
WHOLE = f"box=0-{ACROSS * EDGE}_0-{ACROSS * EDGE}_0-{LAYERS * EDGE}"
CUTOUT_MEMORY = 4 * LAYER_BYTES
"""So that a part is a layer of chunks."""


@pytest.fixture
def chunk(tmp_path: Path) -> np.ndarray[Any, Any]:
    """The voxels of each of the 1,024 chunks of the dataset `brain`, which are one file, 512 MiB of voxels in all."""
    voxels = volume((1, EDGE, EDGE, EDGE)) & 0xFFF
    level = tmp_path / "root" / "brain" / "1_1_1"
    write_dataset(level.parent, voxels, storage="tiff")
    first = next(level.iterdir()).rename(tmp_path / "chunk.tiff")
    size = (ACROSS * EDGE, ACROSS * EDGE, LAYERS * EDGE)
    scale = ScaleInfo("1_1_1", size, (1800.0, 1800.0, 2000.0), ((EDGE, EDGE, EDGE),))
    (level.parent / "info").write_bytes(VolumeInfo("uint16", 1, (scale,)).to_bytes())
    for z in range(LAYERS):
        for y in range(ACROSS):
            for x in range(ACROSS):
                os.link(first, level / f"{name_of(x, y, z)}.tiff")
    one: np.ndarray[Any, Any] = voxels[0]
    return one


def name_of(x: int, y: int, z: int) -> str:
    """Of a chunk."""
    start = (x * EDGE, y * EDGE, z * EDGE)
    return chunk_name(Box(start, (start[0] + EDGE, start[1] + EDGE, start[2] + EDGE)))


@pytest.fixture
def server(start_server: StartServer, tmp_path: Path, chunk: np.ndarray[Any, Any]) -> RunningServer:
    """One worker with little memory for cut-outs and none for decoded chunks."""
    return start_server(tmp_path / "root", "--cutout-memory", str(CUTOUT_MEMORY), "--chunk-memory", "0", workers=1)


@contextlib.contextmanager
def asked(server: RunningServer, query: str = WHOLE) -> Iterator[http.client.HTTPResponse]:
    """The answer to a request for a cut-out, of which nothing is read yet."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    with contextlib.closing(connection):
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.request("GET", f"/brain/1_1_1/cutout?{query}")
        yield connection.getresponse()


def processes(server: RunningServer) -> list[int]:
    """Those of the pool, of which one serves."""
    return list(map(int, Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()))


def cpu_s(server: RunningServer) -> float:
    """What all of them have computed, in seconds."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split() for pid in processes(server)]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def peak_bytes(server: RunningServer) -> dict[int, int]:
    """The most memory that each of them had."""
    peaks = {}
    for pid in processes(server):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        peaks[pid] = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10
    return peaks


def growth_bytes(server: RunningServer, before: dict[int, int]) -> int:
    """How much more memory one of them had since."""
    return max(peak - before[pid] for pid, peak in peak_bytes(server).items())


def get(server: RunningServer, path: str) -> tuple[int, bytes]:
    """Status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Accept-Encoding": "identity"})
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_the_memory_is_bounded_and_the_voxels_are_right(server: RunningServer, chunk: np.ndarray[Any, Any]) -> None:
    for _ in range(20):
        assert get(server, f"/brain/1_1_1/{name_of(0, 0, 0)}")[1] == chunk.tobytes()
    before = peak_bytes(server)
    expected = np.tile(chunk, (1, ACROSS, ACROSS)).tobytes()
    with asked(server) as answer:
        assert int(answer.headers["Content-Length"]) == LAYERS * LAYER_BYTES
        for _ in range(LAYERS):
            assert answer.read(LAYER_BYTES) == expected
        assert answer.read() == b""
    assert LAYER_BYTES / 2 < growth_bytes(server, before) < CUTOUT_MEMORY


def test_two_slow_clients_get_all_and_tiles_do_not_wait(server: RunningServer, chunk: np.ndarray[Any, Any]) -> None:
    before = p99_s(server)
    expected = np.tile(chunk, (1, ACROSS, ACROSS)).tobytes()
    query = f"box=0-{ACROSS * EDGE}_0-{ACROSS * EDGE}_0-{4 * EDGE}"
    with asked(server, query) as first, asked(server, query) as second:
        heads = [answer.read(1000) for answer in (first, second)]
        during = p99_s(server)
        for head, answer in zip(heads, (first, second), strict=True):
            assert head + answer.read() == expected * 4
    assert during <= max(3 * before, 0.1)


def p99_s(server: RunningServer) -> float:
    """Of chunks that are decoded for each answer."""
    times = []
    for number in range(100):
        start = time.perf_counter()
        assert get(server, f"/brain/1_1_1/{name_of(number % 4, number // 4 % 4, number // 16)}")[0] == 200
        times.append(time.perf_counter() - start)
    return statistics.quantiles(times, n=100)[98]


def test_work_ends_when_the_client_goes_away_and_its_memory_is_given_back(server: RunningServer) -> None:
    for _ in range(6):  # more than there is memory for
        with asked(server) as answer:
            assert answer.status == 200
            answer.read(LAYER_BYTES)
        time.sleep(0.3)
    time.sleep(1)
    before = cpu_s(server)
    time.sleep(2)
    assert cpu_s(server) - before < 0.3
    assert get(server, f"/brain/1_1_1/cutout?box=0-{ACROSS * EDGE}_0-{ACROSS * EDGE}_0-{EDGE}")[0] == 200
    assert "Traceback" not in server.log.read_text()


def test_who_comes_when_the_memory_is_used_up_is_told(server: RunningServer) -> None:
    with contextlib.ExitStack() as stack:
        answers = [stack.enter_context(asked(server)) for _ in range(5)]
        assert [answer.status for answer in answers] == [200] * 4 + [503]
        assert answers[-1].headers["Retry-After"]


def test_who_takes_nothing_is_dropped_and_the_memory_is_given_back(
    start_server: StartServer, tmp_path: Path, chunk: np.ndarray[Any, Any]
) -> None:
    options = "--cutout-memory", str(CUTOUT_MEMORY), "--client-timeout", "1"
    server = start_server(tmp_path / "root", *options, workers=1)
    with contextlib.ExitStack() as stack:
        answers = [stack.enter_context(asked(server)) for _ in range(4)]
        assert [answer.status for answer in answers] == [200] * 4
        deadline = time.monotonic() + 20
        while get(server, f"/brain/1_1_1/cutout?box=0-{EDGE}_0-{EDGE}_0-{EDGE}")[0] != 200:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_png_counts_until_it_is_taken(start_server: StartServer, tmp_path: Path) -> None:
    plane = volume((1, 1, 2048, 2048))
    write_dataset(tmp_path / "root" / "brain", plane, chunk_size=(256, 256, 1))
    server = start_server(tmp_path / "root", "--cutout-memory", str(4 * plane.nbytes), workers=1)
    with contextlib.ExitStack() as stack:
        query = "box=0-2048_0-2048_0-1&format=png"
        answers = [stack.enter_context(asked(server, query)) for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 503]
        assert np.array_equal(imagecodecs.png_decode(answers[0].read()), plane[0, 0])


@pytest.mark.parametrize("format", ["raw", "tiff"])
def test_a_damaged_chunk_in_the_middle_breaks_the_answer_off(
    server: RunningServer, tmp_path: Path, format: str
) -> None:
    damaged = tmp_path / "root" / "brain" / "1_1_1" / f"{name_of(1, 2, 5)}.tiff"
    content = bytearray(damaged.read_bytes())
    damaged.unlink()
    content[-1000:-900] = bytes(100)
    damaged.write_bytes(content)
    with asked(server, f"{WHOLE}&format={format}") as answer:
        assert answer.status == 200
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            answer.read()
    log = server.log.read_text()
    assert f"brain/1_1_1, {WHOLE.removeprefix('box=')} was broken off: In the chunk {name_of(1, 2, 5)}" in log
    assert "Traceback" not in log
    assert get(server, f"/brain/1_1_1/{name_of(0, 0, 0)}")[0] == 200


def test_a_dataset_that_is_converted_again_meanwhile_breaks_the_answer_off(
    server: RunningServer, tmp_path: Path
) -> None:
    info = tmp_path / "root" / "brain" / "info"
    with asked(server) as answer:
        answer.read(LAYER_BYTES)
        new = info.with_name("new")
        new.write_bytes(info.read_bytes())
        os.replace(new, info)
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            answer.read()
    assert "The dataset was changed while it was read" in server.log.read_text()
