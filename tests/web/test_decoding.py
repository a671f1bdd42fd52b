"""Chunks that a client cannot take as they lie: decoded once for all who ask, kept within bounds, never waited for."""

from __future__ import annotations

import asyncio
import errno
import gzip
import os
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import tifffile
from aiohttp.web import Application

from precomputed_server import settings
from precomputed_server.limits import memory_limit
from precomputed_server.readers.base import Chunk
from precomputed_server.web.app import create_app
from precomputed_server.web.state import State
from tests.data import volume, write_dataset
from tests.web.conftest import AiohttpClient, Client, ServerAsRun

CORNER = "1_1_1/0-64_0-64_0-20"
VOXELS = volume((1, 20, 64, 64))
REQUESTS_LIBRARY = {"User-Agent": "python-requests/2.32", "Accept-Encoding": "gzip, deflate, br"}


class Slow:
    """`Chunk.decode` that waits until it is let go, and how often it was called."""

    def __init__(self, decode: Callable[[Chunk, int], bytes]) -> None:
        self.calls = 0
        self.go_on = threading.Event()
        self._decode = decode

    def __call__(self, chunk: Chunk, limit: int) -> bytes:
        self.calls += 1
        assert self.go_on.wait(10)
        return self._decode(chunk, limit)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Slow:
    """Decoding that waits."""
    slow = Slow(Chunk.decode)
    monkeypatch.setattr(Chunk, "decode", lambda chunk, limit: slow(chunk, limit))
    return slow


@pytest.fixture
def brain(root: Path) -> Path:
    """A chunk in an old TIFF of a page a plane."""
    write_dataset(root / "brain", VOXELS)
    path = root / "brain" / CORNER
    path.unlink()
    tifffile.imwrite(path.with_name(path.name + ".tiff"), VOXELS[0], compression="zlib", photometric="minisblack")
    return root / "brain"


async def test_one_decode_serves_all_who_ask_at_once(brain: Path, client: Client, slow: Slow) -> None:
    asked = [asyncio.create_task(read(client, f"/brain/{CORNER}{suffix}")) for suffix in ("", ".tiff") * 8]
    await until(lambda: slow.calls > 0)
    await asyncio.sleep(0.1)
    slow.go_on.set()
    assert set(await asyncio.gather(*asked)) == {VOXELS.tobytes()}
    assert slow.calls == 1
    assert await read(client, f"/brain/{CORNER}") == VOXELS.tobytes()
    assert slow.calls == 1


async def test_a_client_that_goes_away_takes_nothing_from_those_who_wait(
    brain: Path, client: Client, slow: Slow
) -> None:
    first = asyncio.create_task(read(client, f"/brain/{CORNER}"))
    await until(lambda: slow.calls > 0)
    second = asyncio.create_task(read(client, f"/brain/{CORNER}"))
    await asyncio.sleep(0.05)
    first.cancel()
    await asyncio.sleep(0.05)
    for number in range(20):  # other files get the descriptors that were given back
        (brain / f"other{number}").write_bytes(b"other" * 1000)
        assert await read(client, f"/brain/other{number}") == b"other" * 1000
    slow.go_on.set()
    assert await second == VOXELS.tobytes()
    assert slow.calls == 1


async def test_a_chunk_that_is_written_again_is_decoded_again(brain: Path, client: Client) -> None:
    assert await read(client, f"/brain/{CORNER}") == VOXELS.tobytes()
    other = volume((1, 20, 64, 64), seed=1)
    tifffile.imwrite(brain / f"{CORNER}.tiff", other[0], compression="zlib", photometric="minisblack")
    assert await read(client, f"/brain/{CORNER}") == other.tobytes()


async def test_the_last_descriptor_may_be_taken_before_the_decoder_needs_one(
    brain: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(descriptor: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr("os.dup", none_left)
        answer = await client.get(f"/brain/{CORNER}", headers={"Accept-Encoding": "identity"})
        assert (answer.status, "Retry-After" in answer.headers) == (503, True)
    assert (await client.get(f"/brain/{CORNER}", headers={"Accept-Encoding": "identity"})).status == 200


async def test_more_than_may_wait_are_told_to_come_again(
    brain: Path, root: Path, aiohttp_client: AiohttpClient, slow: Slow, small_app: Application
) -> None:
    client = await aiohttp_client(ServerAsRun(small_app), auto_decompress=False)
    write_dataset(root / "two", VOXELS, storage="gz")
    waiting = asyncio.create_task(read(client, f"/brain/{CORNER}"))
    await until(lambda: slow.calls > 0)
    answer = await client.get(f"/two/{CORNER}", headers={"Accept-Encoding": "identity"})
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    slow.go_on.set()
    assert await waiting == VOXELS.tobytes()
    assert await read(client, f"/two/{CORNER}") == VOXELS.tobytes()


@pytest.fixture
def small_app(root: Path) -> Application:
    """An application that keeps no decoded chunk and lets one wait."""
    given = {"workers": 1, "state": str(root.parent / "state"), "chunk_memory": 0, "decodes_waiting": 1}
    return create_app(settings.load(root, given, environ={}))


async def test_without_memory_for_chunks_nothing_is_kept(
    brain: Path, aiohttp_client: AiohttpClient, slow: Slow, small_app: Application
) -> None:
    client = await aiohttp_client(ServerAsRun(small_app), auto_decompress=False)
    slow.go_on.set()
    for _ in range(3):
        assert await read(client, f"/brain/{CORNER}") == VOXELS.tobytes()
    assert slow.calls == 3


def test_workers_share_the_memory_and_leave_half_of_the_machines(root: Path) -> None:
    for asked, total in ((1 << 20, 1 << 20), (1 << 60, memory_limit() // 2)):
        given = {"workers": 4, "chunk_memory": asked, "state": str(root.parent / "state")}
        state = State(settings.load(root, given, environ={}), None)
        assert state.decoder.bound == total // 4
        state.close()


@pytest.mark.parametrize("headers", [{"Accept-Encoding": "gzip"}, REQUESTS_LIBRARY])
async def test_who_takes_gzip_and_not_deflate_gets_the_same_stream_as_gzip(
    root: Path, client: Client, slow: Slow, headers: dict[str, str]
) -> None:
    write_dataset(root / "brain", VOXELS, storage="tiff")
    slow.go_on.set()
    tags = set()
    for _ in range(2):
        answer = await client.get(f"/brain/{CORNER}", headers=headers)
        body = await answer.read()
        assert answer.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(body) == VOXELS.tobytes()
        assert len(body) < VOXELS.nbytes * 1.01
        tags.add(answer.headers["ETag"])
    assert slow.calls == 1  # to see that it is sound
    for accepted in ("deflate", "identity"):
        tags.add((await client.get(f"/brain/{CORNER}", headers={"Accept-Encoding": accepted})).headers["ETag"])
    assert len(tags) == 3
    again = await client.get(f"/brain/{CORNER}", headers=headers | {"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304


async def test_a_stream_with_something_behind_its_end_is_decoded(root: Path, client: Client) -> None:
    """As gzip, what is behind would be taken for its checksum."""
    write_dataset(root / "brain", VOXELS, storage="tiff")
    path = root / "brain" / f"{CORNER}.tiff"
    content = path.read_bytes()
    stream = content[content.index(zlib.compress(VOXELS.tobytes(), 1)) :]
    half = len(VOXELS.tobytes()) // 2
    two = zlib.compress(VOXELS.tobytes()[:half], 0) + zlib.compress(VOXELS.tobytes()[half:], 0)
    header = bytearray(content[: -len(stream)])
    at = header.index(len(stream).to_bytes(4, "little"))
    header[at : at + 4] = len(two).to_bytes(4, "little")
    path.write_bytes(bytes(header) + two)
    answer = await client.get(f"/brain/{CORNER}", headers={"Accept-Encoding": "gzip"})
    assert answer.status in (200, 500)
    if answer.status == 200:
        assert "Content-Encoding" not in answer.headers
        assert await answer.read() == VOXELS.tobytes()


async def read(client: Client, path: str) -> bytes:
    """The unencoded body of an answer, which must be 200."""
    answer = await client.get(path, headers={"Accept-Encoding": "identity"})
    assert answer.status == 200
    return await answer.read()


async def until(happened: Callable[[], bool]) -> None:
    """Wait for it, at most 10 s."""
    async with asyncio.timeout(10):
        while not happened():
            await asyncio.sleep(0.01)
