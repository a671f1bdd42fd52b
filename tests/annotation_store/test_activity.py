"""Who edited a dataset lately: the newest edits of all files, counts by day and author, and undoing one."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from annotation_store import activity
from annotation_store.activity import activity_of
from annotation_store.reader import AnnotationReader
from precomputed_server.files import Tree
from tests.annotation_store.conftest import Client, Connect
from tests.annotation_store.support import Place
from tests.data import point, write_annotations

HISTORY = "/brain/annotations/history"


async def draw(client: Client, author: str, leaf: str) -> str:
    """Add a point; returns its id."""
    sent = {name: value for name, value in point(0, 5, 5, 5).items() if name != "id"}
    answer = await client.post(f"/~{author}/brain/annotations/x0y0z0/{leaf}.json", json=sent)
    assert answer.status == 201, await answer.text()
    return str(await answer.json())


async def drag(client: Client, author: str, leaf: str, id: str, x: float) -> None:
    """Move a point."""
    url = f"/~{author}/brain/annotations/x0y0z0/{leaf}.json?id={id}"
    answer = await client.patch(url, json={**point(0, x, 5, 5), "id": id})
    assert answer.status == 200, await answer.text()


async def asked(client: Client, query: str = "") -> dict[str, Any]:
    """What the dataset's history says."""
    answer = await client.get(HISTORY + query)
    assert answer.status == 200, await answer.text()
    found: dict[str, Any] = await answer.json()
    return found


async def test_edits_of_all_files_are_listed_newest_first(connect: Connect) -> None:
    client = await connect()
    drawn = [(author, leaf) for author in ("alice", "bob") for leaf in ("fibers", "centroids", "z-0005")]
    ids = [await draw(client, author, leaf) for author, leaf in drawn]
    found = await asked(client)
    assert [edit["id"] for edit in found["edits"]] == ids[::-1]
    assert [(edit["author"], edit["leaf"]) for edit in found["edits"]] == drawn[::-1]
    assert {(edit["block"], edit["operation"]) for edit in found["edits"]} == {("x0y0z0", "add")}
    counted: Counter[str] = Counter()
    for row in found["days"]:
        counted[row["author"]] += row["edits"]
    assert counted == {"alice": 3, "bob": 3}
    assert found["cut"] is False
    short = await asked(client, "?limit=2")
    assert (short["edits"], short["days"]) == (found["edits"][:2], found["days"])


async def test_what_is_done_in_one_go_is_one_edit_and_is_undone_as_one(connect: Connect) -> None:
    client = await connect()
    id = await draw(client, "alice", "fibers")
    for x in (6, 7, 8):
        await drag(client, "alice", "fibers", id, x)
    await drag(client, "bob", "fibers", id, 9)
    newest, dragged, added = (await asked(client))["edits"]
    assert (newest["author"], newest["first"], newest["version"]) == ("bob", 5, 5)
    assert (dragged["author"], dragged["first"], dragged["version"]) == ("alice", 2, 4)
    assert (added["operation"], added["first"]) == ("add", 1)
    leaf = "/brain/annotations/x0y0z0/fibers"
    await client.post(f"{leaf}/restore", json={"version": dragged["first"] - 1, "id": id})
    assert (await (await client.get(f"{leaf}.json")).json())[0]["point"] == [5, 5, 5]
    assert (await asked(client))["edits"][0]["operation"] == "restore"


async def test_confirming_is_told_from_changing(connect: Connect) -> None:
    client = await connect()
    id = await draw(client, "alice", "fibers")
    for reviewed in (True, False):
        body = {"reviewed": reviewed, "ids": [id]}
        assert (await client.post("/~bob/brain/annotations/review", json=body)).status == 200
    assert [edit["operation"] for edit in (await asked(client))["edits"]] == ["review", "review", "add"]


async def test_only_what_is_young_enough_is_counted(
    connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await connect()
    for _ in range(3):
        await draw(client, "alice", "fibers")
    now = datetime.now(UTC)
    with closing(Tree(place.root)) as tree:
        store = AnnotationReader(tree)
        found = await asyncio.to_thread(activity_of, store, "brain", now + timedelta(minutes=1), 9)
        assert (found.edits, found.days) == ([], {})
        monkeypatch.setattr(activity, "_MOST_LINES", 2)
        found = await asyncio.to_thread(activity_of, store, "brain", now - timedelta(days=1), 9)
    assert (len(found.edits), found.is_cut) == (2, True)


async def test_of_too_many_edits_the_newest_of_all_blocks_are_counted(
    connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for block in ("x0y0z0", "x1y0z0", "x2y0z0"):
        write_annotations(place.root / "brain", {"centroids": []}, block=block, block_size=(4, 8, 6))
    client = await connect()
    sent = {"type": "point", "point": [5, 5, 5]}
    made = []
    for number in range(9):
        url = f"/~{'abc'[number // 3] * 3}/brain/annotations/x{4 * (number % 3)}y0z0/fibers.json"
        answer = await client.post(url, json=sent)
        assert answer.status == 201, await answer.text()
        made.append(await answer.json())
        await asyncio.sleep(0.002)  # the log tells milliseconds
    assert {edit["block"] for edit in (await asked(client))["edits"]} == {"x0y0z0", "x1y0z0", "x2y0z0"}
    since = datetime.now(UTC) - timedelta(days=1)
    for most in range(1, 10):
        monkeypatch.setattr(activity, "_MOST_LINES", most)
        with closing(Tree(place.root)) as tree:
            found = await asyncio.to_thread(activity_of, AnnotationReader(tree), "brain", since, 99)
        assert [edit.id for edit in found.edits] == made[::-1][:most]
        assert (sum(found.days.values()), found.is_cut) == (most, most < 9)


@pytest.mark.parametrize(("query", "status"), [("?limit=x", 400), ("?author=alice", 400), ("?days=-1", 400)])
async def test_a_question_that_is_none(connect: Connect, query: str, status: int) -> None:
    client = await connect()
    answer = await client.get(HISTORY + query)
    assert (answer.status, answer.content_type) == (status, "application/problem+json")


async def test_a_dataset_without_edits_has_none(connect: Connect) -> None:
    client = await connect()
    assert await asked(client) == {"edits": [], "days": [], "cut": False}
    assert (await client.get("/nobody/annotations/history")).status == 404
