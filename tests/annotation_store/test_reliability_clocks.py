"""Clocks that stand still or go back, of files and of the machine: no entity tag for two contents, no missed edit."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest

from annotation_store.blocks import BlockOf
from annotation_store.model import Item
from annotation_store.upkeep import verify_block
from precomputed_server.format.geometry import Vector
from tests.annotation_store.conftest import ROOMY, Client, Connect
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


@pytest.fixture
def extent() -> Vector:
    """These tests draw anywhere."""
    return ROOMY


def numbered(number: int, second: int = 0) -> list[Item]:
    """Annotations whose file has one size, whatever the numbers."""
    return [point(1, 1000 + number, 1, 1), point(2, 1000 + second, 1, 1)]


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
        change_outside(place.file(), written(numbered(number, number - 1)), mtime, way)
        if number % 2:
            late = await client.put(URL, json=some(1), headers={"If-Match": tag})
            assert late.status == 412, "what another tool wrote was replaced by a client that had not seen it"
        wanted = numbered(number, number)
        answer = await client.patch(f"{URL}?id={wanted[1]['id']}", json=wanted[1])
        assert (answer.status, answer.headers["Precomputed-Edit"]) == (200, "applied")
        assert place.stored() == by_id(wanted)
        version, tag = int(answer.headers["Precomputed-Version"]), answer.headers["ETag"]
        assert version == 1 + 2 * number, "what another tool wrote is no version"
        before = await client.get(f"{URL}?version={version - 1}")
        assert await before.read() == written(numbered(number, number - 1))
    check_log(place)


@pytest.mark.parametrize("way", WAYS)
def test_times_that_are_rounded_hide_no_change(
    editor: Editor, place: Place, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    """Two changes within one tick of a file system's clock look alike to whoever asks for its times only."""
    fstat, tick_ns = os.fstat, 40_000_000

    def rounded(descriptor: int) -> SimpleNamespace:
        found = fstat(descriptor)
        members = {name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
        for name in ("st_mtime_ns", "st_ctime_ns"):
            members[name] -= members[name] % tick_ns
        return SimpleNamespace(**members | {"st_ino": 1})

    editor.replace(numbered(0))
    location = editor.store.locate("brain", BLOCK, "fibers")
    monkeypatch.setattr(os, "fstat", rounded)
    deadline, number = time.monotonic() + 0.5, 0
    while time.monotonic() < deadline:
        number += 1
        change_outside(place.file(), written(numbered(number % 1000)), "as it comes", way)
        found = editor.store.load(location)
        assert found is not None
        assert found.data == written(numbered(number % 1000)), f"change {number} was not noticed"
    assert number > CHANGES


def times_of(place: Place) -> list[str]:
    """The times of the log's edits, in their order."""
    lines = [line for path in sorted(place.history.glob("log-*.jsonl")) for line in path.read_bytes().splitlines()]
    return [record["time"] for record in map(json.loads, lines) if "leaf" in record]


class Watched:
    """One annotator on a server whose clock is moved, who looks at the leaf after each edit."""

    def __init__(self, client: Annotator, wanted: dict[str, Item], tags: dict[str, bytes]) -> None:
        self.client = client
        self.wanted = wanted
        self.tags = tags

    def patch(self, item: Item, **headers: str) -> str:
        """Change one annotation; returns the version."""
        status, answered, body = self.client.ask("PATCH", f"{URL}?id={item['id']}", item, **headers)
        assert status == 200, body
        self.wanted[item["id"]] = item
        return answered["Precomputed-Version"]

    def look(self) -> None:
        """A reader sees what was acknowledged, under a tag of its own."""
        status, headers, body = self.client.ask("GET", URL)
        assert (status, by_id(json.loads(body))) == (200, self.wanted)
        assert self.tags.setdefault(headers["ETag"], body) == body

    def save(self, items: dict[str, Item]) -> str:
        """A page saves its copy; returns what became of it."""
        status, headers, body = self.client.ask("PUT", f"/~page{URL}", list(items.values()))
        assert status == 200, body
        self.wanted.clear()
        self.wanted.update(items)
        return headers["Precomputed-Edit"]


def edit_across(watched: Watched, shim: Shim, clock_s: int) -> None:
    """A key, a page and its saves on both sides of a step of the clock to `clock_s`."""
    item, key = point(900, abs(clock_s), 1, 1), {"Idempotency-Key": f"step-to-{clock_s}-{len(watched.tags)}"}
    first = watched.patch(item, **key)
    held = by_id(json.loads(watched.client.ask("GET", f"/~page{URL}")[2]))
    extra = by_id([point(901, 1, 1, 1)])
    assert watched.save(held | extra) == "applied"
    watched.look()
    shim.set("clock_seconds", clock_s)
    assert watched.patch(item, **key) == first, "a retry was made anew"
    for number in range(1, 20):
        watched.patch(point(number % 10, 1000 + number, len(watched.tags), 1))
        watched.look()
    held = dict(watched.wanted)
    assert watched.save({id: item for id, item in held.items() if id not in extra}) == "applied"
    watched.look()


def test_a_wall_clock_that_goes_back_an_hour(start_server: StartServer, place: Place, shim: Shim) -> None:
    """Twice, and the server is started anew in between."""
    wanted: dict[str, Item] = {}
    tags: dict[str, bytes] = {}
    for clock_s in (-HOUR_S, -2 * HOUR_S):
        server = start_server(place.root, workers=2)
        with Annotator(server.port) as client:
            edit_across(Watched(client, wanted, tags), shim, clock_s)
    times = times_of(place)
    assert times == sorted(times), "the log's time goes back"
    assert datetime.now(UTC) - datetime.fromisoformat(times[-1]) < timedelta(minutes=5)
    assert place.stored() == wanted
    check_log(place)
    editor = Editor(place)
    assert verify_block(editor.store, BlockOf(BLOCK, f"brain/annotations/{BLOCK}")) == []
    editor.close()
