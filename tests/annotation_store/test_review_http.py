"""Confirming annotations over HTTP: what is confirmed, what is refused, and what undoes it."""

from __future__ import annotations

import json
import threading
from typing import Any
from urllib.parse import urljoin

import pytest

from annotation_store.history.log import BlockLog
from annotation_store.model import Item, parse_object
from annotation_store.review import is_confirmed, is_only_review
from annotation_store.web import review
from tests.annotation_store.conftest import Client, Connect
from tests.annotation_store.support import Place, by_id, check_log, some
from tests.data import point, volume, write_dataset
from tests.end_to_end.neurotrale import sent_by_client

DATASET = "/brain/annotations"
BLOCK = "x0y0z0"
FIBERS = f"{DATASET}/{BLOCK}/fibers.json"
REVIEW = f"{DATASET}/review"
A, B, C, D = some(4)
IDS = [item["id"] for item in (A, B, C, D)]


async def drawn(client: Client, *items: Item, leaf: str = "fibers", author: str = "drawer") -> None:
    """Somebody draws annotations."""
    answer = await client.put(f"/~{author}{DATASET}/{BLOCK}/{leaf}.json", json=list(items))
    assert answer.status == 200, await answer.text()


async def asked(client: Client, body: object, status: int = 200, author: str = "alice", **given: Any) -> Any:  # noqa: ANN401
    """What a request to confirm, or to withdraw that, is answered."""
    answer = await client.post(f"/~{author}{REVIEW}", json=body, **given)
    assert answer.status == status, await answer.text()
    return await answer.json(content_type=None)


async def confirm(client: Client, *ids: str, leaf: str = "fibers", author: str = "alice") -> Any:  # noqa: ANN401
    """Somebody confirms annotations of a leaf."""
    return await asked(client, {"reviewed": True, "annotations": [entry(*ids, leaf=leaf)]}, author=author)


def entry(*ids: str, leaf: str = "fibers", **members: object) -> dict[str, object]:
    """What names annotations of a leaf."""
    return {"block": BLOCK, "leaf": leaf, "ids": list(ids), **members}


async def listed(client: Client, query: str = "") -> list[dict[str, Any]]:
    """The rows of the list of annotations."""
    answer = await client.get(f"{REVIEW}{query}")
    assert answer.status == 200, await answer.text()
    rows: list[dict[str, Any]] = (await answer.json())["annotations"]
    return rows


async def counts(client: Client) -> tuple[int, int, int]:
    """Total, reviewed and visited of the dataset."""
    progress = await (await client.get(f"{DATASET}/progress")).json()
    return progress["total"], progress["reviewed"], progress["visited"]


def confirmed_ids(place: Place, leaf: str = "fibers") -> list[str]:
    """The annotations of a leaf that are confirmed as they lie there."""
    return [id for id, item in place.stored(leaf).items() if is_confirmed(item)]


async def test_confirming_and_withdrawing(connect: Connect, place: Place) -> None:
    client = await connect()
    await drawn(client, A, B, C)
    told = await confirm(client, IDS[0], IDS[2])
    ((block,), missing) = told["blocks"], told["missing"]
    (edit,) = block["edits"]
    assert (block["block"], block["status"], missing) == (BLOCK, 200, [])
    assert (edit["leaf"], edit["changed"], edit["version"], edit["refused"]) == ("fibers", 2, 2, [])
    assert edit["etag"] == (await client.get(FIBERS)).headers["ETag"].strip('"')
    assert confirmed_ids(place) == [IDS[0], IDS[2]]
    review = place.stored()[IDS[0]]["review"]
    assert review["author"] == "alice"
    entries = (await (await client.get(f"{DATASET}/{BLOCK}/fibers/history?limit=2")).json())["entries"]
    made = [entry for entry in entries if entry["version"] == 2]
    assert [(entry["operation"], entry["author"], entry["time"]) for entry in made] == [
        ("change", "alice", review["time"])
    ] * 2
    assert all(is_only_review(entry["before"], entry["after"]) for entry in made)
    await asked(client, {"reviewed": False, "annotations": [entry(*IDS[:3])]}, author="bob")
    assert place.stored() == by_id([A, B, C])
    assert check_log(place) == {"fibers": 3}


async def test_what_is_confirmed_already_keeps_its_reviewer(connect: Connect, place: Place) -> None:
    client = await connect()
    await drawn(client, A)
    await confirm(client, IDS[0])
    before = place.file().read_bytes()
    (block,) = (await confirm(client, IDS[0], author="bob"))["blocks"]
    assert (block["edits"][0]["changed"], block["edits"][0]["version"]) == (0, 2)
    assert place.file().read_bytes() == before


async def test_without_a_session_nobody_in_particular_confirmed_it(connect: Connect, place: Place) -> None:
    client = await connect()
    await drawn(client, A)
    assert (await client.post(REVIEW, json={"reviewed": True, "ids": [IDS[0]]})).status == 200
    assert place.stored()[IDS[0]]["review"]["author"] == "anonymous"


async def test_the_clients_own_flag_counts_as_looking(connect: Connect) -> None:
    client = await connect()
    await drawn(client, A | {"reviewed": True}, B | {"visited": True}, C)
    assert await counts(client) == (3, 0, 2)
    await confirm(client, IDS[2])
    assert await counts(client) == (3, 1, 3)


async def test_a_save_of_the_client_keeps_the_review_and_a_move_undoes_it(connect: Connect, place: Place) -> None:
    client = await connect()
    await drawn(client, A, B)
    held = await (await client.get(f"/~page{FIBERS}")).json()
    await confirm(client, *IDS[:2])
    moved = [item | {"point": [7.5, 8.5, 9.5]} if item["id"] == IDS[1] else item for item in held]
    saved = await client.put(f"/~page{FIBERS}", json=sent_by_client([*moved, C]))
    assert saved.headers["Precomputed-Edit"] == "applied"
    assert list(place.stored()) == IDS[:3]
    assert confirmed_ids(place) == [IDS[0]]
    assert await counts(client) == (3, 1, 2)
    (row,) = [row for row in await listed(client) if row["id"] == IDS[1]]
    assert (row["state"], row["review"]["author"]) == ("moved", "alice")
    # Back where it was when it was confirmed.
    await client.put(f"/~page{FIBERS}", json=sent_by_client([*held, C]))
    assert confirmed_ids(place) == IDS[:2]
    await confirm(client, IDS[2], author="bob")
    assert [row["review"]["author"] for row in await listed(client, "?state=reviewed")] == ["alice", "alice", "bob"]


async def test_a_restoration_brings_the_older_review_back(connect: Connect, place: Place) -> None:
    client = await connect()
    await drawn(client, A, B)
    await confirm(client, IDS[0])
    reviewed = place.stored()
    await asked(client, {"reviewed": False, "annotations": [entry(IDS[0])]})
    await confirm(client, IDS[1], author="bob")
    answer = await client.post(f"{DATASET}/{BLOCK}/fibers/restore", json={"version": 2})
    assert (answer.status, (await answer.json())["restored"]) == (200, 2)
    assert place.stored() == reviewed
    assert await counts(client) == (2, 1, 1)


async def test_what_was_moved_since_it_was_looked_at_is_refused_and_the_rest_is_confirmed(
    connect: Connect, place: Place
) -> None:
    client = await connect()
    await drawn(client, A, B, C)
    seen = {row["id"]: row["geometry"] for row in await listed(client)}
    await client.patch(f"/~bob{FIBERS}?id={IDS[1]}", json=B | {"point": [5, 6, 2]})
    await client.patch(f"/~bob{FIBERS}?id={IDS[0]}", json=A | {"description": "bob's words move nothing"})
    await client.delete(f"/~bob{FIBERS}?id={IDS[2]}")
    told = await asked(client, {"reviewed": True, "annotations": [entry() | {"ids": seen}]}, 207)
    (edit,) = told["blocks"][0]["edits"]
    assert (edit["changed"], [(row["id"], row["reason"]) for row in edit["refused"]]) == (
        1,
        [(IDS[1], "moved"), (IDS[2], "missing")],
    )
    assert all(row["detail"].endswith(".") for row in edit["refused"])
    assert confirmed_ids(place) == [IDS[0]]


async def test_an_old_version_of_the_leaf_refuses_the_whole_block(connect: Connect, place: Place) -> None:
    client = await connect()
    await drawn(client, A)
    await drawn(client, B, leaf="z-0003")
    tag = (await client.get(FIBERS)).headers["ETag"]
    await client.patch(f"/~bob{FIBERS}?id={IDS[2]}", json=C)
    body = {"reviewed": True, "annotations": [entry(IDS[0], if_match=tag), entry(IDS[1], leaf="z-0003")]}
    told = await asked(client, body, 207)
    assert told["blocks"][0]["status"] == 412
    assert confirmed_ids(place) == confirmed_ids(place, "z-0003") == []
    body["annotations"] = [entry(IDS[0], if_match=(await client.get(FIBERS)).headers["ETag"])]
    await asked(client, body)
    assert confirmed_ids(place) == [IDS[0]]


async def test_if_match_names_the_progress_that_was_looked_at(connect: Connect, place: Place) -> None:
    client = await connect()
    await drawn(client, A)
    tag = (await client.get(f"{DATASET}/progress")).headers["ETag"]
    await drawn(client, A, B)
    everything = {"reviewed": True, "where": {"leaf": "fibers"}}
    await asked(client, everything, 412, headers={"If-Match": tag})
    assert confirmed_ids(place) == []
    await asked(client, everything, headers={"If-Match": (await client.get(f"{DATASET}/progress")).headers["ETag"]})
    assert confirmed_ids(place) == IDS[:2]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"slice": 20}, [0, 3]),
        ({"slice": "20"}, [0, 3]),
        ({"leaf": "z-0003"}, [2, 3]),
        ({"block": BLOCK}, [0, 1, 2, 3]),
        ({"author": "bob"}, [2, 3]),
        ({"anntype": "glia"}, [1]),
        ({"anntype": ""}, [3]),
        ({"type": "point", "slice": 3, "author": "drawer"}, [1]),
        ({"slice": 99}, []),
    ],
)
async def test_confirming_by_what_they_are(
    connect: Connect, place: Place, where: dict[str, object], expected: list[int]
) -> None:
    client = await connect()
    at = [A | {"point": [1, 1, 20.9]}, B | {"point": [1, 1, 3], "anntype": "glia"}]
    await drawn(client, *at)
    bobs = [C | {"point": [1, 1, 3.5]}, {name: value for name, value in D.items() if name != "anntype"}]
    bobs[1]["point"] = [2, 2, 20]
    await drawn(client, *bobs, leaf="z-0003", author="bob")
    await asked(client, {"reviewed": True, "where": where})
    assert {*confirmed_ids(place), *confirmed_ids(place, "z-0003")} == {IDS[number] for number in expected}
    query = "&".join(f"{name}={value}" for name, value in where.items())
    assert {row["id"] for row in await listed(client, f"?state=all&{query}")} == {IDS[number] for number in expected}
    assert await listed(client, f"?{query}") == []
    await asked(client, {"reviewed": False, "where": where})
    assert confirmed_ids(place) == confirmed_ids(place, "z-0003") == []


async def test_ids_are_found_in_whatever_leaf_they_are(connect: Connect, place: Place) -> None:
    client = await connect()
    await drawn(client, A, B)
    await drawn(client, C, leaf="z-0003")
    told = await asked(client, {"reviewed": True, "ids": [IDS[0], IDS[2], IDS[3]]}, 207)
    assert told["missing"] == [IDS[3]]
    assert (confirmed_ids(place), confirmed_ids(place, "z-0003")) == ([IDS[0]], [IDS[2]])
    told = await asked(client, {"reviewed": True, "ids": {IDS[1]: "0123456789abcdef"}}, 207)
    assert told["blocks"][0]["edits"][0]["refused"][0]["reason"] == "moved"


async def test_a_leaf_that_cannot_be_read_is_told(connect: Connect, place: Place) -> None:
    client = await connect()
    await drawn(client, A)
    place.file("odd").write_text("[{")
    told = await asked(client, {"reviewed": True, "where": {"block": BLOCK}}, 207)
    assert [(row["block"], row["leaf"]) for row in told["unreadable"]] == [(BLOCK, "odd")]
    assert confirmed_ids(place) == [IDS[0]]


async def test_blocks_are_named_by_a_voxel_as_everywhere(connect: Connect, place: Place) -> None:
    (place.block.parent / "block_info.csv").write_text("4,4,6\n")
    client = await connect()
    for voxel, item in (("x0y0z0", A), ("x5y4z0", B)):
        await client.put(f"{DATASET}/{voxel}/fibers.json", json=[item])
    rows = await listed(client)
    assert [row["block"] for row in rows] == ["x0y0z0", "x4y4z0"]
    blocks = (await (await client.get(f"{DATASET}/progress")).json())["blocks"]
    assert [(row["block"], row["directory"], row["total"]) for row in blocks] == [
        ("x0y0z0", "x0y0z0", 1),
        ("x4y4z0", "x1y1z0", 1),
    ]
    body = {"block": rows[1]["block"], "leaf": "fibers", "ids": {rows[1]["id"]: rows[1]["geometry"]}}
    await asked(client, {"reviewed": True, "annotations": [body]})
    assert [row["id"] for row in await listed(client)] == [IDS[0]]
    assert [row["id"] for row in await listed(client, "?state=all&block=x7y7z5")] == [IDS[1]]


async def test_a_list_goes_on_where_it_ended(connect: Connect) -> None:
    client = await connect()
    items = some(25)
    await drawn(client, *items[:12])
    await drawn(client, *items[12:20], leaf="z-0003")
    await drawn(client, *items[20:], leaf="z-0004")
    found: list[str] = []
    cursor = ""
    parts = 0
    while True:
        part = await (await client.get(f"{REVIEW}?limit=7{cursor}")).json()
        assert part["matching"] == 25 - len(found)
        ids = [row["id"] for row in part["annotations"]]
        found += ids
        parts += 1
        # Whoever confirms what he was shown goes on behind it.
        if ids:
            await asked(client, {"reviewed": True, "ids": ids})
        if part["next"] is None:
            break
        cursor = f"&cursor={part['next']}"
    assert found == [item["id"] for item in items]
    assert parts == 4


async def test_a_list_goes_on_behind_what_is_gone_or_new(connect: Connect) -> None:
    client = await connect()
    items = some(6)
    await drawn(client, *items)
    first = await (await client.get(f"{REVIEW}?limit=3&state=all")).json()
    await client.delete(f"{FIBERS}?id={items[0]['id']}")
    await drawn(client, some(9)[8])
    second = await (await client.get(f"{REVIEW}?limit=9&state=all&cursor={first['next']}")).json()
    found = [row["id"] for part in (first, second) for row in part["annotations"]]
    assert found == [item["id"] for item in (*items, some(9)[8])]
    await client.delete(f"{FIBERS}?id={items[2]['id']}")  # where the list went on: nothing is left out
    third = await (await client.get(f"{REVIEW}?limit=9&state=all&cursor={first['next']}")).json()
    assert {item["id"] for item in items[4:]} <= {row["id"] for row in third["annotations"]}


async def test_a_list_keeps_what_was_confirmed_since(connect: Connect) -> None:
    client = await connect()
    await drawn(client, A, B, C)
    await confirm(client, IDS[0])
    begun = (await (await client.get(REVIEW)).json())["time"]
    await confirm(client, IDS[1], author="bob")
    part = await (await client.get(f"{REVIEW}?since={begun}")).json()
    assert [(row["id"], row["state"]) for row in part["annotations"]] == [(IDS[1], "reviewed"), (IDS[2], "untouched")]
    assert part["matching"] == 1


async def test_a_request_that_is_sent_again_is_answered_as_the_first_time(connect: Connect, place: Place) -> None:
    client = await connect()
    await drawn(client, A)
    key = {"Idempotency-Key": "once"}
    body = {"reviewed": True, "annotations": [entry(IDS[0])]}
    first = await asked(client, body, headers=key)
    await asked(client, {"reviewed": False, "annotations": [entry(IDS[0])]})
    again = await asked(client, body, headers=key)
    assert again["blocks"][0]["edits"][0]["version"] == first["blocks"][0]["edits"][0]["version"] == 2
    assert confirmed_ids(place) == []


async def test_what_was_refused_is_told_again(connect: Connect, place: Place) -> None:
    client = await connect()
    await drawn(client, A)
    key = {"Idempotency-Key": "once"}
    body = {"reviewed": True, "annotations": [entry(*IDS[:2])]}
    first = await asked(client, body, 207, headers=key)
    again = await asked(client, body, 207, headers=key)
    assert first["blocks"][0]["edits"][0]["refused"] == again["blocks"][0]["edits"][0]["refused"] != []


async def test_withdrawing_by_what_they_are_takes_what_was_moved_as_well(connect: Connect, place: Place) -> None:
    client = await connect()
    await drawn(client, A, B, C)
    await confirm(client, *IDS[:2])
    await client.patch(f"{FIBERS}?id={IDS[0]}", json={**place.stored()[IDS[0]], "point": [4, 4, 4]})
    told = await asked(client, {"reviewed": False, "where": {"leaf": "fibers"}})
    assert told["blocks"][0]["edits"][0]["changed"] == 2
    assert not any("review" in item for item in place.stored().values())


async def test_what_cannot_be_written_is_told_of_its_block(
    connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await connect()
    await drawn(client, A)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(BlockLog, "append", full)
    told = await asked(client, {"reviewed": True, "ids": [IDS[0]]}, 207)
    assert told["blocks"][0]["status"] == 507
    assert confirmed_ids(place) == []


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ([], 422, "an object"),
        ({}, 400, '"reviewed": true or false'),
        ({"reviewed": "yes", "ids": ["a"]}, 400, '"reviewed": true or false'),
        ({"reviewed": True}, 400, "one of"),
        ({"reviewed": True, "ids": ["a"], "where": {}}, 400, "one of"),
        ({"reviewed": True, "ids": []}, 400, "list of ids"),
        ({"reviewed": True, "where": {"slice": "9" * 5000}}, 400, "number of a slice"),
        ({"reviewed": True, "ids": [7]}, 422, "needs an id"),
        ({"reviewed": True, "ids": {"a": 7}}, 400, "list of ids"),
        ({"reviewed": True, "annotations": []}, 400, '"annotations" is a list'),
        ({"reviewed": True, "annotations": [{"block": BLOCK}]}, 400, "Entry 0 needs"),
        ({"reviewed": True, "annotations": [{"page": BLOCK}]}, 400, "Entry 0 must"),
        ({"reviewed": True, "annotations": [entry("a") | {"if_match": 7}]}, 400, "if_match"),
        ({"reviewed": True, "annotations": [entry("a") | {"leaf": "a/b"}]}, 400, "leaf name"),
        ({"reviewed": True, "where": {}}, 400, '"where"'),
        ({"reviewed": True, "where": {"colour": "red"}}, 400, '"where"'),
        ({"reviewed": True, "where": {"slice": 1.5}}, 422, "slice is"),
        ({"reviewed": True, "where": {"slice": "x"}}, 400, "slice is"),
        ({"reviewed": True, "where": {"block": "x9999y0z0"}}, 404, "outside the volume"),
        ({"reviewed": True, "where": {"leaf": "z-0099"}}, 404, "no annotations in z-0099"),
        ({"reviewed": True, "annotations": [entry(*map(str, range(10_001)))]}, 413, "10000"),
    ],
)
async def test_what_cannot_be_meant_is_refused(
    connect: Connect, place: Place, body: object, status: int, sentence: str
) -> None:
    (place.block.parent / "block_info.csv").write_text("100,80,60\n")
    client = await connect()
    await drawn(client, A)
    problem = await asked(client, body, status)
    assert sentence in problem["detail"]
    assert confirmed_ids(place) == []


async def test_more_than_a_request_may_confirm(connect: Connect, place: Place) -> None:
    place.file().write_text(json.dumps(some(10_001)))
    client = await connect()
    problem = await asked(client, {"reviewed": True, "where": {"leaf": "fibers"}}, 413)
    assert "choose fewer" in problem["detail"]
    await asked(client, {"reviewed": True, "where": {"slice": 3, "author": "external"}}, 413)
    assert confirmed_ids(place) == []


@pytest.mark.parametrize(
    "query",
    [
        "state=some",
        "limit=0",
        "limit=x",
        f"limit={'9' * 5000}",
        "cursor=x",
        "cursor=W10=",
        "cursor=WzEsMl0=",
        "slice=1.5",
        f"slice={'9' * 5000}",
        "since=x",
    ],
)
async def test_a_list_that_cannot_be_meant_is_refused(connect: Connect, query: str) -> None:
    client = await connect()
    answer = await client.get(f"{REVIEW}?{query}")
    assert answer.status == 400
    assert (await answer.json(content_type=None))["detail"].endswith(".")


async def test_a_leaf_that_does_not_exist_is_told(connect: Connect, place: Place) -> None:
    client = await connect()
    told = await asked(client, {"reviewed": True, "annotations": [entry(IDS[0])]}, 207)
    assert told["blocks"][0]["status"] == 404
    assert not place.history.exists()
    assert (await client.post("/nothing/annotations/review", json={"reviewed": True, "ids": ["a"]})).status == 404


async def test_every_session_and_dataset_has_a_page(connect: Connect, place: Place) -> None:
    write_dataset(place.root / "lab" / "api", volume((1, 6, 8, 10), "uint8"))
    write_dataset(place.root / "api", volume((1, 6, 8, 10), "uint8"))
    client = await connect()
    for path in (
        "/datasets/brain/review",
        "/~alice/datasets/brain/review",
        "/~alice.voxel//datasets//lab/api/review",
        "/datasets/api/review",
        "/datasets/~/api/review",
    ):
        answer = await client.get(path)
        assert answer.status == 200, path
        page = await answer.text()
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
        api = page.partition('data-api="')[2].partition('"')[0]
        assert (await client.get(urljoin(path, f"{api}progress"))).status == 200
        style = page.partition('stylesheet" href="')[2].partition('"')[0]
        assert (await client.get(urljoin(path, style))).status == 200
    for path in ("/datasets/nothing/review", "/datasets/review", "/datasets/brain/other"):
        assert (await client.get(path)).status == 404


async def test_a_hostile_title_is_text(connect: Connect, place: Place) -> None:
    hostile = "\"'><script>alert(1)</script>"
    write_dataset(place.root / hostile.replace("/", ""), volume((1, 6, 8, 10), "uint8"))
    client = await connect()
    page = await (await client.get("/datasets/%22'%3E%3Cscript%3Ealert(1)%3Cscript%3E/review")).text()
    assert "<script>alert" not in page


async def test_a_point_that_moved_by_less_than_single_precision_stays_confirmed(connect: Connect, place: Place) -> None:
    client = await connect()
    item = point(9, 102.1, 7.3, 3.3)
    await drawn(client, item)
    await confirm(client, item["id"])
    held = await (await client.get(f"/~page{FIBERS}")).json()
    await client.put(f"/~page{FIBERS}", json=sent_by_client([*held, A]))
    assert confirmed_ids(place) == [item["id"]]
    assert len(place.stored()) == 2


async def test_a_long_request_is_looked_at_beside_the_loop_and_counted_first(
    connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 80,000 entries not one is made."""
    threads: list[threading.Thread] = []

    def noted(body: bytes, *given: Any) -> dict[str, Any]:
        threads.append(threading.current_thread())
        return parse_object(body, *given)

    monkeypatch.setattr(review, "parse_object", noted)
    monkeypatch.setattr(review, "_entry_of", None)
    monkeypatch.setattr(review, "check_id", None)
    client = await connect()
    entry = {"block": "x0y0z0", "leaf": "fibers", "ids": ["a"]}
    for asked in ({"annotations": [entry] * 10_001}, {"ids": ["a"] * 10_001}):
        answer = await client.post("/brain/annotations/review", json={"reviewed": True, **asked})
        assert answer.status == 413, await answer.text()
    assert threading.main_thread() not in threads
    assert len(threads) == 2
