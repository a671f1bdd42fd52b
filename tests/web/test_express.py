"""The short way for chunks: the same answers as aiohttp's way, and never an answer to what is no request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestServer
from aiohttp.web import Application

from precomputed_server import settings
from precomputed_server.web import express, ready
from precomputed_server.web.app import create_app
from precomputed_server.web.state import STATE, State
from tests.data import Storage, volume, write_dataset
from tests.web.conftest import AiohttpClient, Client

CORNER = "1_1_1/0-64_0-64_0-20"
SHARD = np.random.default_rng(0).bytes(200_000)


@pytest.fixture
def root(root: Path) -> Path:
    """A dataset of each form of storage, and a shard."""
    storages: tuple[Storage, ...] = ("plain", "gz", "br", "zstd", "tiff")
    for storage in storages:
        write_dataset(root / storage, volume((1, 20, 64, 64)), storage=storage)
    (root / "damaged" / "1_1_1").mkdir(parents=True)
    (root / "damaged" / "info").write_bytes((root / "plain" / "info").read_bytes())
    (root / "damaged" / CORNER).write_bytes(b"short")
    (root / "0.shard").write_bytes(SHARD)
    return root


@pytest.fixture
def other_app(root: Path) -> Application:
    """The application again, for a server of aiohttp's own."""
    return create_app(settings.load(root, {"workers": 1, "state": str(root.parent / "other")}, environ={}))


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def answered_here(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The paths that the short way has answered."""
    found: list[bytes] = []
    real = ready.ready

    def noted(state: State, path: bytes, headers: Mapping[str, str]) -> tuple[bytes, bytes] | None:
        parts = real(state, path, headers)
        if parts is not None:
            found.append(path)
        return parts

    monkeypatch.setattr(express, "ready", noted)
    return found


@pytest.fixture
async def connection(client: Client) -> AsyncIterator[Connection]:
    """A connection that has had its first answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200 ")
    yield reader, writer
    writer.close()


SHORT = [f"/plain/{CORNER}", f"/plain/{CORNER}.tiff", f"/gz/{CORNER}", f"/tiff/{CORNER}", "/0.shard"]
PATHS = [
    *SHORT,
    f"/br/{CORNER}",
    f"/~anna/tiff/{CORNER}",
    f"/~anna.voxel/plain/{CORNER}",
    f"/pl%61in/{CORNER}?x=1",
    "/plain/1_1_1/0-64_0-64_0-21",
    f"/damaged/{CORNER}",
    f"/nothing/{CORNER}",
    "/1.shard",
    "/plain/info",
    "/plain/../plain/info",
]
HEADERS: list[dict[str, str]] = [
    {},
    {"Accept-Encoding": "gzip, deflate"},
    {"Accept-Encoding": "gzip, deflate", "User-Agent": "python-requests/2"},
    {"Accept-Encoding": "gzip;q=0, *"},
    {"Accept-Encoding": "gzip, deflate", "Range": "bytes=10-19"},
    {"Range": "bytes=-5"},
    {"Range": "bytes=900000-"},
    {"Range": "bytes=0-1,4-5"},
    {"If-None-Match": "*"},
    {"If-Match": '"other"'},
]


def undated(answer: ClientResponse) -> dict[str, str]:
    """The headers without the time."""
    return {name: value for name, value in answer.headers.items() if name != "Date"}


@pytest.mark.parametrize("headers", HEADERS)
async def test_both_ways_answer_the_same(
    client: Client, other_app: Application, aiohttp_client: AiohttpClient, headers: dict[str, str]
) -> None:
    other = await aiohttp_client(TestServer(other_app), auto_decompress=False)
    asked: Any = {"headers": headers, "skip_auto_headers": ["User-Agent"]}
    for path in PATHS:
        for _ in range(2):  # of what is compressed, the first answer checks the stream
            first, second = await client.get(path, **asked), await other.get(path, **asked)
            assert (path, first.status, undated(first)) == (path, second.status, undated(second))
            assert await first.read() == await second.read()
            assert "Date" in first.headers


async def test_what_lies_in_memory_goes_the_short_way(client: Client, answered_here: list[bytes]) -> None:
    for path in SHORT:
        for _ in range(3):  # the first looks it up and checks it
            await (await client.get(path, headers={"Accept-Encoding": "gzip, deflate"})).read()
        assert path.encode() in answered_here, path


async def test_a_head_that_comes_in_pieces_is_one_request(
    client: Client, connection: Connection, answered_here: list[bytes]
) -> None:
    reader, writer = connection
    writer.write(b"GET /healthz HTTP/1.1\r\nX-Y: ")
    await asyncio.sleep(0.05)
    writer.write(f"GET /plain/{CORNER} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await asyncio.sleep(0.2)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.endswith(b"ok\n")
    assert not answered_here


@pytest.mark.parametrize(
    "path", [f"/a b/../plain/{CORNER}", f"/plain/{CORNER}#x", f"/plän/{CORNER}", f"/plain/{CORNER}\t"]
)
async def test_a_request_line_that_is_spelled_loosely_goes_the_long_way(
    client: Client, connection: Connection, answered_here: list[bytes], path: str
) -> None:
    reader, writer = connection
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.")
    assert not answered_here


@pytest.mark.parametrize("framing", ["Content-Length: 400", "Transfer-Encoding: chunked", "content-length : 400"])
async def test_a_body_that_looks_like_a_request_is_none(
    client: Client,
    connection: Connection,
    answered_here: list[bytes],
    framing: str,
) -> None:
    reader, writer = connection
    writer.write(f"GET /plain/info HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n".encode())
    await asyncio.sleep(0.05)
    writer.write(f"GET /plain/{CORNER} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await asyncio.sleep(0.2)
    with contextlib.suppress(OSError):  # a head that is malformed has ended the connection
        writer.write_eof()
    await asyncio.wait_for(reader.read(), 10)
    assert not answered_here


async def test_requests_sent_before_the_answers_are_answered_in_order(
    client: Client, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = connection
    page = client.app[STATE].page

    async def slowly(*given: Any) -> object:
        await asyncio.sleep(0.2)
        return await page(*given)

    monkeypatch.setattr(client.app[STATE], "page", slowly)
    paths = ["/index.html", f"/plain/{CORNER}", "/plain/info", f"/plain/{CORNER}"]
    for path in paths:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await asyncio.sleep(0.02)  # each arrives by itself
    types = []
    for _ in paths:
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode().lower()
        lines = dict(line.split(": ", 1) for line in head.splitlines()[1:] if line)
        await reader.readexactly(int(lines["content-length"]))
        types.append(lines["content-type"].partition(";")[0])
    binary = "application/octet-stream"
    assert types == ["text/html", binary, "application/json", binary]


async def test_a_client_that_does_not_read_is_not_answered_without_end(
    root: Path,
    client: Client,
    connection: Connection,
    answered_here: list[bytes],
) -> None:
    write_dataset(root / "large", volume((1, 64, 64, 64), "uint16"))
    _, writer = connection
    for _ in range(100):
        writer.write(b"GET /large/1_1_1/0-64_0-64_0-64 HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(0.005)
    assert 0 < len(answered_here) < 30  # as many as the system's buffers take
