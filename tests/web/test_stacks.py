"""Stacks that are served as they are, over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from aiohttp.web import Application

from converter.served.headers import Headers, read_headers
from converter.served.keeping import LevelKeeper
from precomputed_server import settings
from precomputed_server.stack_keeper import matching
from precomputed_server.web.app import create_app
from tests.conftest import StartServer
from tests.converter.served import MEMORY, published
from tests.converter.stacks import volume, write_planes
from tests.data import write_dataset
from tests.web.conftest import AiohttpClient, Client, ServerAsRun

CHUNK = "/mouse/1_1_1/0-64_0-64_0-5"


@pytest.fixture
async def voxels(root: Path) -> Any:  # noqa: ANN401
    """The voxels "(Z, Y, X)" of the stack `mouse`, of which nobody has made coarser levels."""
    made = volume(70, 66, 5)
    await asyncio.to_thread(lambda: published(write_planes(root / "mouse", made)))
    return made


async def test_info_is_made_of_the_planes(client: Client, voxels: Any) -> None:  # noqa: ANN401
    answer = await client.get("/mouse/info")
    info = await answer.json()
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-cache"
    assert [scale["key"] for scale in info["scales"]] == ["1_1_1"]
    assert (info["data_type"], info["scales"][0]["size"]) == ("uint16", [70, 66, 5])
    again = await client.get("/mouse/info", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304
    head = await client.head("/mouse/info")
    assert head.headers["Content-Length"] == answer.headers["Content-Length"]


async def test_chunks_are_cut_from_the_planes(client: Client, voxels: Any) -> None:  # noqa: ANN401
    expected = voxels[:, :64, :64].astype("<u2").tobytes()
    for _ in range(3):  # from the planes, then from memory
        answer = await client.get(CHUNK)
        assert (answer.status, await answer.read()) == (200, expected)
    assert answer.headers["Cache-Control"] == "max-age=60"
    part = await client.get(CHUNK, headers={"Range": "bytes=10-19"})
    assert (part.status, await part.read()) == (206, expected[10:20])
    unchanged = await client.get(CHUNK, headers={"If-None-Match": answer.headers["ETag"]})
    assert unchanged.status == 304
    assert (await client.get("/mouse/1_1_1/0-64_0-64_0-64")).status == 404


async def test_a_part_is_cut_out_of_the_planes(client: Client, voxels: Any) -> None:  # noqa: ANN401
    answer = await client.get("/mouse/1_1_1/cutout?box=10-70_5-66_1-4&format=raw")
    assert (answer.status, await answer.read()) == (200, voxels[1:4, 5:66, 10:70].astype("<u2").tobytes())


async def test_the_voxel_view_is_that_of_the_stack(client: Client, voxels: Any) -> None:  # noqa: ANN401
    answer = await client.get("/~amy.voxel/mouse/info")
    info = await answer.json()
    assert info["scales"][0]["resolution"] == [1, 1, 1]
    assert (await client.get(f"/~amy.voxel{CHUNK}")).status == 200


async def test_annotations_are_drawn_over_a_stack(client: Client, voxels: Any) -> None:  # noqa: ANN401
    url = "/~amy.voxel/mouse/annotations/x0y0z0/2.json"
    answer = await client.put(url, data=b"[]")
    assert answer.status in (200, 201, 204)
    assert (await client.get("/mouse/annotations/blocks")).status == 200


async def test_a_level_that_is_still_to_be_made_is_not_empty(
    client: Client,
    root: Path,
    app: Application,
    voxels: Any,  # noqa: ANN401
) -> None:
    assert (await client.get(CHUNK)).status == 200
    answer = await client.get("/mouse/2_2_2/0-35_0-33_0-3")
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    (directory,) = (root.parent / "state").glob("*/stacks")
    keeper = LevelKeeper(root, directory, 1 << 30, MEMORY)
    assert await asyncio.to_thread(keeper.turn, lambda: False)
    await asyncio.sleep(1.1)  # for which a stack is known
    info = await (await client.get("/mouse/info")).json()
    assert [scale["key"] for scale in info["scales"]] == ["1_1_1", "2_2_2"]
    assert (await client.get("/mouse/2_2_2/0-35_0-33_0-3")).status == 200
    assert len((await (await client.get("/mouse/statistics.json")).json())["channels"]) == 1


async def test_a_damaged_plane_is_an_error_without_a_path_of_the_host(client: Client, root: Path) -> None:
    def made() -> None:
        planes = published(write_planes(root / "mouse", volume(70, 66, 5)))
        (planes / "img_3.tif").write_bytes(b"II*\0")

    await asyncio.to_thread(made)
    answer = await client.get(CHUNK)
    body = await answer.text()
    assert answer.status == 500
    assert "mouse/img_3.tif" in body
    assert str(root.parent) not in body
    assert answer.headers["Access-Control-Allow-Origin"]


async def test_reading_the_headers_of_a_stack_takes_one_thread(
    client: Client,
    root: Path,
    voxels: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_dataset(root / "other", volume(64, 64, 8, "uint8")[None])
    begun, go_on = threading.Event(), threading.Event()

    def read_slowly(*given: Any) -> Headers:
        begun.set()
        assert go_on.wait(60)
        return read_headers(*given)

    monkeypatch.setattr("converter.served.stacks.read_headers", read_slowly)
    first = asyncio.create_task(client.get("/mouse/info"))
    try:
        assert await asyncio.to_thread(begun.wait, 10)
        chunks = [asyncio.create_task(client.get(CHUNK)) for _ in range(40)]
        await asyncio.sleep(0.2)
        began = time.monotonic()
        other = await client.get("/api/v1/datasets/other/thumbnail.png")
        assert (other.status, time.monotonic() - began < 5) == (200, True)
        refused = await asyncio.wait_for(asyncio.gather(*chunks), 20)
        assert {(answer.status, answer.headers.get("Retry-After")) for answer in refused} == {(503, "2")}
    finally:
        go_on.set()
    assert (await first).status == 200
    answer = await client.get(CHUNK)
    assert (answer.status, await answer.read()) == (200, voxels[:, :64, :64].astype("<u2").tobytes())


async def test_who_asks_for_a_small_stack_at_once_waits_for_its_headers(client: Client, voxels: Any) -> None:  # noqa: ANN401
    answers = await asyncio.gather(*(client.get("/mouse/info") for _ in range(3)))
    assert [answer.status for answer in answers] == [200] * 3


async def test_a_stack_is_shown_while_it_is_looked_at_again(
    client: Client,
    root: Path,
    voxels: Any,  # noqa: ANN401
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert (await client.get("/mouse/info")).status == 200
    begun, go_on = threading.Event(), threading.Event()

    def look_slowly(source: str) -> tuple[int, ...]:
        begun.set()
        assert go_on.wait(60)
        return (0, 0, 0)

    monkeypatch.setattr("converter.served.stacks._listing", look_slowly)
    await asyncio.sleep(1.1)
    first = asyncio.create_task(client.get("/mouse/info"))
    try:
        assert await asyncio.to_thread(begun.wait, 10)
        answers = await asyncio.wait_for(asyncio.gather(*(client.get(CHUNK) for _ in range(20))), 20)
        assert {answer.status for answer in answers} == {200}
    finally:
        go_on.set()
    assert (await first).status == 200


async def test_nothing_is_served_unasked(client: Client, root: Path) -> None:
    await asyncio.to_thread(write_planes, root / "raw", volume(70, 66, 5))
    assert (await client.get("/raw/info")).status == 404
    assert (await client.get("/raw/1_1_1/0-64_0-64_0-5")).status == 404


async def test_a_pattern_asks(root: Path, aiohttp_client: AiohttpClient) -> None:
    def made() -> None:
        for name in ("raw/mouse_1", "raw/other", "mouse_1"):
            write_planes(root / name, volume(70, 66, 5))
            tifffile.imwrite(
                root / name / "img_0.tif",
                np.zeros((66, 70), np.uint16),
                imagej=True,
                resolution=(2, 2),
                metadata={"unit": "um", "spacing": 2},
            )

    await asyncio.to_thread(made)
    given = {"workers": 1, "state": str(root.parent / "state"), "serve_stacks": "raw/mouse_*"}
    app = await asyncio.to_thread(create_app, settings.load(root, given, environ={}))
    client = await aiohttp_client(ServerAsRun(app))
    statuses = [(await client.get(f"/{name}/info")).status for name in ("raw/mouse_1", "raw/other", "mouse_1", "raw")]
    assert statuses == [200, 404, 404, 404]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("", (), ("", "a")),
        ("raw", ("raw",), ("", "raw/a", "a/raw")),
        ("raw/*", ("raw/a",), ("raw", "raw/a/b")),
        ("**", ("", "a", "a/b"), ()),
        ("a/**/planes", ("a/planes", "a/b/c/planes"), ("planes", "a/b")),
        ("m[0-9]*", ("m1", "m12"), ("m", "ma")),
    ],
)
def test_what_a_pattern_means(pattern: str, yes: tuple[str, ...], no: tuple[str, ...]) -> None:
    means = matching(pattern)
    assert [path for path in yes if not means(path)] == []
    assert [path for path in no if means(path)] == []


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return bytes(answer.read())


@pytest.mark.component
@pytest.mark.parametrize("edge", [256, pytest.param(2048, marks=pytest.mark.nightly)])
def test_a_server_shows_a_stack_at_once_and_makes_its_levels(
    tmp_path: Path, start_server: StartServer, edge: int
) -> None:
    """The first tile of 512 planes within 2 s, headers included, of files that are not in the page cache."""
    root, planes = tmp_path / "root", tmp_path / "root" / "mouse"
    made = volume(edge, edge, 512, "uint8" if edge == 256 else "uint16")
    published(write_planes(planes, made))
    for path in planes.glob("*.tif"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    server = start_server(root)
    began = time.monotonic()
    tile = _get(f"{server.url}/mouse/1_1_1/64-128_128-192_64-128")
    assert time.monotonic() - began < 2
    assert tile == made[64:128, 128:192, 64:128].tobytes()
    deadline = time.monotonic() + 300
    while len(json.loads(_get(f"{server.url}/mouse/info"))["scales"]) == 1:
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.2)
    catalog = json.loads(_get(f"{server.url}/api/v1/datasets"))
    assert [(each["path"], each["format"]) for each in catalog["datasets"]] == [("mouse", "stack")]


@pytest.mark.component
def test_a_server_that_ends_ends_its_builder(tmp_path: Path, start_server: StartServer) -> None:
    root = tmp_path / "root"
    published(write_planes(root / "mouse", volume(1024, 1024, 192), compression="zlib"))
    server = start_server(root)
    _get(f"{server.url}/mouse/info")
    state = server.log.with_name("state")
    deadline = time.monotonic() + 20
    while not list(state.glob("*/stacks/*/*/.precomputed/staging/*/2_2_2/*")):
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)
    server.stop()  # fails when a process is left
    assert not list(state.glob("*/stacks/*/*/info"))
