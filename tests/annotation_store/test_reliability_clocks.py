"""Clocks that stand still or go back, of files and of the machine: no entity tag for two contents, no missed edit."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from pathlib import Path
from typing import Literal

import pytest

from annotation_store.model import Item
from annotation_store.upkeep import BlockOf, verify_block
from tests.annotation_store.conftest import Client, Connect
from tests.annotation_store.shim import Shim, shim, shim_library
from tests.annotation_store.support import BLOCK, Editor, Place, by_id, check_log, some, written
from tests.annotation_store.test_concurrency import URL, Annotator
from tests.conftest import StartServer
from tests.data import point

__all__ = ["shim", "shim_library"]

HOUR_S = 3600
CHANGES = 40
Mtime = Literal["equal", "an hour older", "an hour newer", "as it comes"]
Way = Literal["in place", "renamed"]
MTIMES: list[Mtime] = ["equal", "an hour older", "an hour newer", "as it comes"]
WAYS: list[Way] = ["in place", "renamed"]


def numbered(number: int) -> list[Item]:
    """Annotations whose file has one size, whatever the number."""
    return [point(1, 1000 + number, 1, 1), point(2, 1, 1, 1)]


def change_outside(path: Path, data: bytes, mtime: Mtime, way: Way) -> None:
    """Another tool writes the file, and gives it a time."""
    before = path.stat()
    if way == "in place":
        with path.open("r+b") as file:
            file.write(data)
    else:
        other = path.with_name("other")
        other.write_bytes(data)
        other.rename(path)
    assert path.stat().st_size == before.st_size
    offset_s = {"equal": 0, "an hour older": -HOUR_S, "an hour newer": HOUR_S}.get(mtime)
    if offset_s is not None:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + offset_s * 1_000_000_000))


async def seen(client: Client, known: str) -> tuple[bytes, str]:
    """What a reader is answered who knows a version; its tag is that of the body."""
    answer = await client.get(URL, headers={"If-None-Match": known})
    assert answer.status == 200, "a change was not noticed"
    body = await answer.read()
    tag = answer.headers["ETag"]
    assert tag == f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    return body, tag


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mtime", MTIMES)
async def test_a_change_of_the_same_size_is_seen_by_the_next_reader(
    connect: Connect, place: Place, mtime: Mtime, way: Way
) -> None:
    client, dice = await connect(), random.Random(3)
    tag = (await client.put(URL, json=numbered(0))).headers["ETag"]
    tags = {tag: written(numbered(0))}
    for number in range(1, CHANGES):
        if dice.random() < 0.1:  # so long that the file counts as settled and may be remembered
            time.sleep(0.11)
            assert (await client.get(URL, headers={"If-None-Match": tag})).status == 304
        change_outside(place.file(), written(numbered(number)), mtime, way)
        body, tag = await seen(client, tag)
        assert body == written(numbered(number))
        assert tags.setdefault(tag, body) == body
    assert len(tags) == CHANGES


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mtime", MTIMES)
async def test_a_change_of_the_same_size_is_a_version_for_the_next_edit(
    connect: Connect, place: Place, mtime: Mtime, way: Way
) -> None:
    client = await connect()
    tag = (await client.put(URL, json=numbered(0))).headers["ETag"]
    for number in range(1, CHANGES // 2):
        change_outside(place.file(), written(numbered(number)), mtime, way)
        if number % 2:
            late = await client.put(URL, json=some(1), headers={"If-Match": tag})
            assert late.status == 412, "the client's version was replaced without its knowing"
            tag = late.headers["ETag"]
        item = point(2, 1, number, 1)
        answer = await client.patch(f"{URL}?id={item['id']}", json=item)
        assert (answer.status, answer.headers["Precomputed-Edit"]) == (200, "applied")
        assert place.stored() == by_id([numbered(number)[0], item])
        versions = int(answer.headers["Precomputed-Version"])
        assert versions == 1 + 2 * number
        tag = answer.headers["ETag"]
        before = await client.get(f"{URL}?version={versions - 1}")
        assert json.loads(await before.read()) == numbered(number)
        await client.patch(f"{URL}?id={item['id']}", json=item)  # nothing new
        place.file().write_bytes(written(numbered(number)))  # of the next size again
        tag = (await client.get(URL)).headers["ETag"]
        place.file().write_bytes(written([numbered(number)[0], item]))
    check_log(place)


def times_of(place: Place) -> list[str]:
    """The times of the log's lines, in their order."""
    lines = [line for path in sorted(place.history.glob("log-*.jsonl")) for line in path.read_bytes().splitlines()]
    return [json.loads(line)["time"] for line in lines]


def test_a_wall_clock_that_goes_back_an_hour(start_server: StartServer, place: Place, shim: Shim) -> None:
    """The server is started anew while the clock is wrong, and the file is edited all the time."""
    tags: dict[str, bytes] = {}
    wanted: dict[str, Item] = {}
    number = 0
    for offset_s in (0, -HOUR_S):
        server = start_server(place.root, workers=2)
        with Annotator(server.port) as client:
            for later_s in (offset_s, offset_s - HOUR_S, offset_s + HOUR_S, offset_s):
                shim.set("clock_seconds", later_s)
                for _ in range(25):
                    number += 1
                    item = point(number % 10, 1000 + number, 1, 1)
                    assert client.patch(item) == 200
                    wanted[item["id"]] = item
                    status, headers, body = client.ask("GET", URL)
                    assert (status, by_id(json.loads(body))) == (200, wanted)
                    assert tags.setdefault(headers["ETag"], body) == body
                retry_after_the_clock_went(client, shim, later_s, number)
                wanted |= by_id([point(900, number, 1, 1)])
        shim.set("clock_seconds", offset_s - HOUR_S)
    assert len(tags) == number
    times = times_of(place)
    assert times == sorted(times), "the log's time goes back"
    assert place.stored() == wanted
    check_log(place)
    editor = Editor(place)
    assert verify_block(editor.store, BlockOf(BLOCK, f"brain/annotations/{BLOCK}")) == []
    editor.close()


def retry_after_the_clock_went(client: Annotator, shim: Shim, later_s: int, number: int) -> None:
    """A request and its retry an hour earlier by the wall clock are one edit, and a page's save is merged as ever."""
    item, key = point(900, number, 1, 1), {"Idempotency-Key": f"once-{number}"}
    url = f"{URL}?id={item['id']}"
    first = client.ask("PATCH", url, item, **key)
    shim.set("clock_seconds", later_s - HOUR_S)
    again = client.ask("PATCH", url, item, **key)
    assert (again[0], again[1]["Precomputed-Version"]) == (200, first[1]["Precomputed-Version"])
    page = f"/~page{URL}"
    held = json.loads(client.ask("GET", page)[2])
    shim.set("clock_seconds", later_s)
    extra = point(901, 1, 1, 1)
    assert client.ask("PUT", page, [*held, extra])[1]["Precomputed-Edit"] == "applied"
    shim.set("clock_seconds", later_s - HOUR_S)
    assert client.ask("PUT", page, held)[1]["Precomputed-Edit"] == "applied"
    shim.set("clock_seconds", later_s)
