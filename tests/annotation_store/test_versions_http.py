"""The time machine over HTTP: earlier versions, histories, restorations, and what happens twice only once."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from annotation_store.model import Item
from tests.annotation_store.conftest import Client, Connect
from tests.annotation_store.support import Place, by_id, check_log, some, written
from tests.data import point

LEAF = "/brain/annotations/x0y0z0/fibers"
URL = f"{LEAF}.json"
A, B, C = some(3)


async def replace(client: Client, items: list[Item]) -> str:
    """Make the leaf hold exactly `items`; returns its entity tag as the header writes it."""
    headers = {"If-Match": "*"} if (await client.get(URL)).status == 200 else {}
    answer = await client.put(URL, json=items, headers=headers)
    assert answer.status == 200, await answer.text()
    return answer.headers["ETag"]


async def test_every_version_can_be_read(connect: Connect) -> None:
    client = await connect()
    tags = [await replace(client, some(count)) for count in range(1, 6)]
    for number, tag in enumerate(tags, 1):
        answer = await client.get(f"{URL}?version={number}")
        assert (answer.status, answer.headers["ETag"]) == (200, tag)
        assert answer.headers["Precomputed-Version"] == str(number)
        assert await answer.read() == written(some(number))
        assert (await client.get(f"{URL}?version={number}", headers={"If-None-Match": tag})).status == 304


@pytest.mark.parametrize("how", ["delete", "restore"])
async def test_an_annotation_is_undone_only_as_it_was_seen(connect: Connect, place: Place, how: str) -> None:
    client = await connect()

    async def undo(seen: int) -> int:
        if how == "delete":
            return (await client.delete(f"{URL}?id={A['id']}&seen={seen}")).status
        return (await client.post(f"{LEAF}/restore", json={"version": 1, "id": A["id"], "seen": seen})).status

    await replace(client, [A])
    await replace(client, [{**A, "note": "mine"}])
    await replace(client, [{**A, "note": "theirs"}])
    stored = await (await client.get(URL)).read()
    assert await undo(2) == 412
    assert await (await client.get(URL)).read() == stored
    await replace(client, [{**A, "note": "theirs"}, B])  # another annotation is no matter
    file = place.block / "fibers.json"
    file.write_bytes(written([{**A, "note": "by another tool"}, B]))
    assert await undo(3) == 412
    file.write_bytes(written([{**A, "note": "theirs"}, B]))
    assert await undo(99) == 404
    assert await undo(3) == 200
    assert by_id(await (await client.get(URL)).json()).get(A["id"]) == (None if how == "delete" else A)
    check_log(place)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("version=6", 404),
        ("version=0", 404),
        ("version=x", 400),
        ("version=-1", 400),
        ("version=", 400),
        ("version=1&at=2026-01-01T00:00:00Z", 400),
        ("at=yesterday", 400),
        ("at=2001-01-01T00:00:00Z", 404),
        ("at=2001-01-01T00:00:00%2B01:00", 404),
    ],
)
async def test_a_version_that_is_none(connect: Connect, query: str, status: int) -> None:
    client = await connect()
    await replace(client, [A])
    answer = await client.get(f"{URL}?{query}")
    assert answer.status == status, await answer.text()
    assert answer.content_type == "application/problem+json"


async def test_an_instant_names_the_version_in_force(connect: Connect) -> None:
    client = await connect()
    await replace(client, [A])
    await replace(client, [A, B])
    entries = (await (await client.get(f"{LEAF}/history")).json())["entries"]
    first = next(entry["time"] for entry in entries if entry["version"] == 1)
    assert by_id(await (await client.get(f"{URL}?at={first}")).json()).keys() >= {A["id"]}
    answer = await client.get(f"{URL}?at=2999-01-01T00:00:00%2B02:00")
    assert (answer.headers["Precomputed-Version"], by_id(await answer.json())) == ("2", by_id([A, B]))


async def test_a_file_that_no_log_knows_is_version_1(connect: Connect, place: Place) -> None:
    client = await connect()
    place.file().write_text(json.dumps([A]))
    answer = await client.get(f"{URL}?version=1")
    assert (answer.status, await answer.json()) == (200, [A])
    assert answer.headers["ETag"] == (await client.get(URL)).headers["ETag"]
    assert (await client.get(f"{URL}?version=2")).status == 404
    assert (await client.get(f"{LEAF}/history")).status == 404


async def test_the_history_tells_who_changed_what(connect: Connect) -> None:
    client = await connect()
    await client.patch(f"/~alice{URL}?id=a", json=A | {"id": "a"})
    await client.patch(f"/~bob{URL}?id=a", json=B | {"id": "a"})
    await client.delete(f"/~bob{URL}?id=a")
    history = await (await client.get(f"{LEAF}/history")).json()
    assert (history["leaf"], history["version"], history["next"]) == ("fibers", 3, None)
    told = [
        (entry["version"], entry["author"], entry["operation"], entry["id"], entry["before"], entry["after"])
        for entry in history["entries"]
    ]
    first, second = A | {"id": "a"}, B | {"id": "a"}
    assert told == [
        (3, "bob", "delete", "a", second, None),
        (2, "bob", "change", "a", first, second),
        (1, "alice", "add", "a", None, first),
    ]
    only = await (await client.get(f"{LEAF}/history?author=alice")).json()
    assert [entry["version"] for entry in only["entries"]] == [1]
    page = await (await client.get(f"{LEAF}/history?limit=2")).json()
    assert [entry["version"] for entry in page["entries"]] == [3, 2]
    rest = await (await client.get(f"{LEAF}/history?limit=2&before={page['next']}")).json()
    assert ([entry["version"] for entry in rest["entries"]], rest["next"]) == ([1], None)
    assert (await client.get(f"{LEAF}/history?limit=some")).status == 400


@pytest.mark.parametrize("by", ["version", "at"])
async def test_a_leaf_is_restored_by_an_edit_like_any_other(connect: Connect, place: Place, by: str) -> None:
    client = await connect()
    await replace(client, [A, B])
    entries = (await (await client.get(f"{LEAF}/history")).json())["entries"]
    await replace(client, [B | {"description": "other"}, C])
    asked: dict[str, Any] = {"version": 1} if by == "version" else {"at": entries[0]["time"]}
    if by == "at":
        await asyncio.sleep(0.01)
        await replace(client, [C])
        asked["at"] = entries[0]["time"]
    answer = await client.post(f"/~carol{LEAF}/restore", json=asked)
    assert answer.status == 200, await answer.text()
    told = await answer.json()
    assert told["restored"] >= 2
    assert place.stored() == by_id([A, B])
    assert answer.headers["ETag"] == (await client.get(URL)).headers["ETag"]
    newest = (await (await client.get(f"{LEAF}/history")).json())["entries"][0]
    assert (newest["operation"], newest["author"], newest["version"]) == ("restore", "carol", told["version"])
    await client.post(f"{LEAF}/restore", json={"version": told["version"] - 1})
    assert C["id"] in place.stored()
    check_log(place)


async def test_a_restored_leaf_is_the_same_bytes(connect: Connect, place: Place) -> None:
    client = await connect()
    await replace(client, [A, B, C])
    before = place.file().read_bytes()
    await client.delete(f"{URL}?id={A['id']}")
    await client.patch(f"{URL}?id={C['id']}", json=C | {"description": "other"})
    await client.post(f"{LEAF}/restore", json={"version": 1})
    assert place.file().read_bytes() == before
    check_log(place)
    await client.delete(f"{URL}?id={B['id']}")
    assert await (await client.get(f"{URL}?version=4")).read() == before


async def test_one_annotation_is_restored(connect: Connect, place: Place) -> None:
    client = await connect()
    await replace(client, [A, B])
    await replace(client, [A | {"description": "other"}, C])
    answer = await client.post(f"{LEAF}/restore", json={"version": 1, "id": A["id"]})
    assert (answer.status, (await answer.json())["restored"]) == (200, 1)
    assert place.stored() == by_id([A, C])
    assert (await client.post(f"{LEAF}/restore", json={"version": 1, "id": "nobody's"})).status == 404


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"version": 1, "at": "2026-01-01T00:00:00Z"},
        {"version": "1"},
        {"version": True},
        {"at": 3},
        {"leaf": "x"},
        [],
    ],
)
async def test_a_restoration_that_says_nothing_is_refused(connect: Connect, asked: object) -> None:
    client = await connect()
    await replace(client, [A])
    assert (await client.post(f"{LEAF}/restore", json=asked)).status in (400, 422)
    assert (await client.get(f"{LEAF}/restore")).status == 405


async def test_a_restoration_honours_if_match(connect: Connect, place: Place) -> None:
    client = await connect()
    old = await replace(client, [A])
    await replace(client, [B])
    answer = await client.post(f"{LEAF}/restore", json={"version": 1}, headers={"If-Match": old})
    assert answer.status == 412
    assert place.stored() == by_id([B])


async def test_a_merge_patch_changes_fields(connect: Connect, place: Place) -> None:
    client = await connect()
    kind = {"Content-Type": "application/merge-patch+json"}
    await client.patch(f"{URL}?id=a", json=A | {"id": "a", "note": {"by": "x", "of": 1}})
    body = {"description": "seen", "anntype": None, "note": {"of": None, "to": 2}}
    answer = await client.patch(f"{URL}?id=a", data=json.dumps(body), headers=kind)
    assert (answer.status, await answer.json()) == (200, "a")
    kept = {name: value for name, value in A.items() if name != "anntype"}
    assert place.stored()["a"] == kept | {"id": "a", "description": "seen", "note": {"by": "x", "to": 2}}
    for wrong, status in (({"type": "circle"}, 422), ({"id": "b"}, 422), ({"point": None}, 422), ([1], 422)):
        answer = await client.patch(f"{URL}?id=a", data=json.dumps(wrong), headers=kind)
        assert answer.status == status, wrong
    assert (await client.patch(f"{URL}?id=b", data="{}", headers=kind)).status == 404
    deep = '{"n":' * 200 + "1" + "}" * 200
    assert (await client.patch(f"{URL}?id=a", data=deep, headers=kind)).status == 422
    check_log(place)


async def test_post_creates_under_an_id_of_the_server(connect: Connect, place: Place) -> None:
    client = await connect()
    body = {name: value for name, value in A.items() if name != "id"}
    ids = []
    for _ in range(2):
        answer = await client.post(URL, json=body)
        assert answer.status == 201
        ids.append(await answer.json())
    assert len(set(ids)) == 2
    assert all(len(id) == 40 for id in ids)
    assert place.stored() == {id: {**body, "id": id} for id in ids}
    assert await (await client.post(URL, json=B)).json() == B["id"]
    assert (await client.post(URL, json=B)).status == 409
    assert (await client.post(URL, json={"type": "point"})).status == 422


async def test_what_is_sent_twice_with_one_key_is_done_once(connect: Connect, place: Place) -> None:
    client = await connect()
    body = {name: value for name, value in A.items() if name != "id"}
    key = {"Idempotency-Key": "one"}
    first = await client.post(URL, json=body, headers=key)
    second = await client.post(URL, json=body, headers=key)
    assert (second.status, await second.json()) == (201, await first.json())
    assert second.headers["Precomputed-Version"] == "1"
    assert len(place.stored()) == 1
    assert (await client.post(URL, json=B, headers=key)).status == 422
    assert (await client.post(URL, json=B, headers={"Idempotency-Key": "with space"})).status == 400


async def test_a_late_retry_does_not_undo_what_others_did_since(connect: Connect, place: Place) -> None:
    """true, false, true: the first request changed nothing, and is sent again after somebody changed it."""
    client = await connect()
    await replace(client, [A])
    url, key = f"{URL}?id={A['id']}", {"Idempotency-Key": "same"}
    assert (await client.patch(url, json=A, headers=key)).headers["Precomputed-Edit"] == "unchanged"
    other = A | {"reviewed": True}
    await client.patch(url, json=other)
    await client.patch(url, json=A, headers=key)
    assert place.stored() == by_id([other])
    delete = {"Idempotency-Key": "gone"}
    assert (await client.delete(url, headers=delete)).status == 200
    await client.patch(url, json=other)
    assert (await client.delete(url, headers=delete)).status == 200
    assert place.stored() == by_id([other])
    check_log(place)


async def test_keys_outlive_the_process(connect: Connect, place: Place) -> None:
    key = {"Idempotency-Key": "one"}
    first = await (await (await connect()).post(URL, json=point(1, 1, 1, 1) | {"id": "a"}, headers=key)).json()
    again = await (await connect()).post(URL, json=point(1, 1, 1, 1) | {"id": "a"}, headers=key)
    assert (again.status, await again.json()) == (201, first)
    assert len(place.stored()) == 1


async def test_many_edits_of_a_block_happen_together_or_not_at_all(connect: Connect, place: Place) -> None:
    client = await connect()
    where = {"block": "x0y0z0"}
    edits = [
        where | {"leaf": "fibers", "operation": "put", "id": "a", "annotation": A | {"id": "a"}},
        where | {"leaf": "z-0003", "operation": "add", "annotation": {"type": "point", "point": [1, 2, 3]}},
        where | {"leaf": "fibers", "operation": "change", "id": "a", "annotation": {"description": "both"}},
    ]
    answer = await client.post("/brain/annotations/edits", json={"edits": edits})
    assert answer.status == 200, await answer.text()
    (row,) = (await answer.json())["blocks"]
    assert [edit["leaf"] for edit in row["edits"]] == ["fibers", "z-0003", "fibers"]
    assert place.stored()["a"]["description"] == "both"
    assert list(place.stored("z-0003")) == [row["edits"][1]["id"]]
    lines = place.log.read_bytes()
    assert lines.count(b'"files":') == 1, "one durable step"
    deletions = [where | {"leaf": "fibers", "operation": "delete", "id": id} for id in ("a", "nobody's")]
    answer = await client.post("/brain/annotations/edits", json={"edits": deletions})
    assert answer.status == 207
    assert (await answer.json())["blocks"][0]["status"] == 404
    assert "a" in place.stored()
    assert place.log.read_bytes() == lines
    check_log(place)


async def test_each_block_of_many_edits_is_answered(connect: Connect, place: Place) -> None:
    client = await connect()
    (place.block.parent / "b1,0,0").mkdir()
    tag = (await client.put(URL, json=[A])).headers["ETag"]
    edits = [
        {"block": "x0y0z0", "leaf": "fibers", "operation": "put", "annotation": B, "if_match": '"0000"'},
        {"block": "b1,0,0", "leaf": "fibers", "operation": "put", "annotation": B},
    ]
    answer = await client.post("/brain/annotations/edits", json={"edits": edits})
    rows = {row["block"]: row["status"] for row in (await answer.json())["blocks"]}
    assert (answer.status, rows) == (207, {"x0y0z0": 412, "b1,0,0": 200})
    edits[0]["if_match"] = tag
    assert (await client.post("/brain/annotations/edits", json={"edits": edits})).status == 200
    assert place.stored() == by_id([A, B])


@pytest.mark.parametrize(
    "edit",
    [
        3,
        {"leaf": "fibers", "operation": "put", "annotation": A},
        {"block": "x0y0z0", "leaf": "fibers", "operation": "drop", "id": "a"},
        {"block": "x0y0z0", "leaf": "fibers", "operation": "put", "id": "a"},
        {"block": "x0y0z0", "leaf": "fibers", "operation": "delete"},
        {"block": "x0y0z0", "leaf": "fibers", "operation": "delete", "id": "a", "why": 1},
        {"block": "x0y0z0", "leaf": "../fibers", "operation": "delete", "id": "a"},
    ],
)
async def test_many_edits_of_which_one_is_none_change_nothing(connect: Connect, place: Place, edit: object) -> None:
    client = await connect()
    good = {"block": "x0y0z0", "leaf": "fibers", "operation": "put", "annotation": A}
    answer = await client.post("/brain/annotations/edits", json={"edits": [good, edit]})
    assert answer.status in (400, 422), await answer.text()
    assert place.stored() == {}


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("annotations/edits", 'The body must be an object, {"edits": […]} with 1 to'),
        ("annotations/review", 'The body must be an object, {"reviewed": true or false} with one of'),
        ("annotations/x0y0z0/fibers/restore", 'The body must be an object, {"version": 12} or'),
    ],
)
async def test_a_body_of_another_kind_is_told_what_it_should_be(connect: Connect, path: str, sentence: str) -> None:
    client = await connect()
    answer = await client.post(f"/brain/{path}", json=[])
    told = (await answer.json())["detail"]
    assert (answer.status, told[: len(sentence)].lower()) == (422, sentence.lower())


async def test_many_edits_are_repeated_with_their_key(connect: Connect, place: Place) -> None:
    client = await connect()
    edits = [
        {"block": "x0y0z0", "leaf": "fibers", "operation": "add", "annotation": {"type": "point", "point": [1, 2, 3]}}
    ]
    key = {"Idempotency-Key": "many"}
    first = await (await client.post("/brain/annotations/edits", json={"edits": edits}, headers=key)).json()
    second = await (await client.post("/brain/annotations/edits", json={"edits": edits}, headers=key)).json()
    assert first["blocks"][0]["edits"][0]["id"] == second["blocks"][0]["edits"][0]["id"]
    assert len(place.stored()) == 1
