"""Clients that announce a body and do not send it cost nobody else anything."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp.web import Application

from precomputed_server import settings
from precomputed_server.web.app import create_app
from tests.data import point, volume, write_dataset
from tests.web.conftest import Client

LEAF = "/brain/annotations/x0y0z0/fibers.json"


@pytest.fixture
def app(root: Path) -> Application:
    """An application with memory for two bodies, which gives a body two seconds."""
    write_dataset(root / "brain", volume((1, 20, 64, 64)))
    given = {"workers": 1, "large_body": 1000, "large_waiting": 1, "body_memory": 1 << 17, "body_timeout": 2}
    return create_app(settings.load(root, {"state": str(root.parent / "state"), **given}, environ={}))


async def announce(client: Client) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A PUT that says that 5,000 bytes follow, and sends none."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(f"PUT {LEAF} HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n".encode())
    await writer.drain()
    return reader, writer


async def test_a_body_that_does_not_come_is_408(client: Client) -> None:
    reader, writer = await announce(client)
    answer = await asyncio.wait_for(reader.readuntil(b"}"), 10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"--body-timeout" in answer


async def test_an_announced_body_takes_no_place_from_one_that_comes(client: Client) -> None:
    idle = [await announce(client) for _ in range(5)]
    body = json.dumps([point(number, 1, 2, 3) for number in range(40)])
    assert len(body) > 5000
    assert (await client.put(LEAF, data=body)).status == 200
    for _, writer in idle:
        writer.close()


async def test_bodies_that_came_in_part_are_bounded_in_memory_and_what_has_no_place_is_kept(client: Client) -> None:
    begun = [await announce(client) for _ in range(2)]
    for _, writer in begun:
        writer.write(b"[")
        await writer.drain()
    body = json.dumps([point(number, 1, 2, 3) for number in range(40)])
    async with asyncio.timeout(1):
        while (answer := await client.put(LEAF, data=body)).status == 200:
            await asyncio.sleep(0.02)  # the first bytes of those that are slow have not been read yet
    assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
    kept = answer.headers["Precomputed-Edit"].removeprefix("refused; id=")
    assert await (await client.get(f"/brain/annotations/parked/{kept}")).text() == body
    for reader, writer in begun:
        assert (await asyncio.wait_for(reader.readuntil(b"}"), 10)).startswith(b"HTTP/1.1 408 ")
        writer.close()
    assert (await client.put(LEAF, data=body)).status == 200
