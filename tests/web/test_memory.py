"""The memory of a worker stays where it is, however many chunks are asked for."""

from __future__ import annotations

import http.client
import itertools
from pathlib import Path

import pytest

from precomputed_server.format.geometry import Box
from precomputed_server.format.names import chunk_name
from tests.conftest import RunningServer, StartServer
from tests.data import Storage, volume, write_dataset

pytestmark = pytest.mark.component

EDGE = 32
SHAPE = (1, 6 * EDGE, 6 * EDGE, 6 * EDGE)
FORMS: tuple[Storage, ...] = ("plain", "gz", "zstd", "tiff")
REQUESTS = 20_000
FULL_AFTER = 300
"""Requests that fill the memory for chunks."""
CHUNK_MEMORY = 4 << 20
FLAT, LEAST_GROWTH = 1.05, 4 << 20
"""What an allocator takes at once is no growth."""


def test_a_worker_keeps_what_it_may_and_no_more(start_server: StartServer, tmp_path: Path) -> None:
    for form in FORMS:
        write_dataset(tmp_path / form, volume(SHAPE, "uint16"), chunk_size=(EDGE, EDGE, EDGE), storage=form)
    server = start_server(tmp_path, "--chunk-memory", str(CHUNK_MEMORY), workers=1)
    edges = range(0, 6 * EDGE, EDGE)
    boxes = [Box((x, y, z), (x + EDGE, y + EDGE, z + EDGE)) for x in edges for y in edges for z in edges]
    paths = [f"/{form}/1_1_1/{chunk_name(box)}" for box in boxes for form in FORMS]
    asked = itertools.cycle(paths)
    ask(server, [next(asked) for _ in range(FULL_AFTER)])
    early = resident(server)
    ask(server, [next(asked) for _ in range(REQUESTS)])
    late = resident(server)
    assert late <= max(FLAT * early, early + LEAST_GROWTH), f"{early} bytes grew to {late}"


def ask(server: RunningServer, paths: list[str]) -> None:
    """One after the other, as a client that takes nothing compressed does, and then one that does."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    for number, path in enumerate(paths):
        accepted = ("identity", "gzip, deflate")[number // 7 % 2]
        connection.request("GET", path, headers={"Accept-Encoding": accepted})
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, path
    connection.close()


def resident(server: RunningServer) -> int:
    """The bytes in memory of all processes of the pool, without pages of files."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    pages = [[int(number) for number in Path(f"/proc/{child}/statm").read_text().split()] for child in children]
    return sum((resident - shared) * 4096 for _, resident, shared, *_ in pages)
