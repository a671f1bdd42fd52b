"""Whole-file saves over HTTP as pages make them: merged, parked, refused and kept, and what their session is told."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from annotation_store.model import Item
from tests.annotation_store.conftest import Client, Connect
from tests.annotation_store.support import Place, by_id, check_log, some
from tests.data import point

DATASET = "/brain"
BLOCK = f"{DATASET}/annotations/x0y0z0"
URL = f"{BLOCK}/fibers.json"
PARKED = f"{DATASET}/annotations/parked"
A, B, C, D = some(4)


class Page:
    """A page that saves whole files: it holds what it saved last, else what it was answered."""

    def __init__(self, client: Client, prefix: str = "", **headers: str) -> None:
        self.client = client
        self.prefix = prefix
        self.headers = headers

    async def read(self, leaf: str = "fibers") -> list[Item]:
        """Open a leaf; what cannot be read is nothing."""
        answer = await self.client.get(f"{self.prefix}{BLOCK}/{leaf}.json", headers=self.headers)
        return list(await answer.json()) if answer.status == 200 else []

    async def save(self, items: list[Item], leaf: str = "fibers") -> str:
        """Save a leaf; what became of it."""
        url = f"{self.prefix}{BLOCK}/{leaf}.json"
        answer = await self.client.put(url, data=json.dumps(items), headers=self.headers)
        return answer.headers["Precomputed-Edit"] if answer.status == 200 else str(answer.status)

    async def saves(self) -> list[dict[str, Any]]:
        """What its session is told of its saves."""
        answer = await self.client.get(f"{self.prefix}{DATASET}/annotations/saves", headers=self.headers)
        return list((await answer.json())["saves"])


async def parked(client: Client) -> list[dict[str, Any]]:
    """What waits in the dataset."""
    answer = await client.get(PARKED)
    assert answer.status == 200, await answer.text()
    return list((await answer.json())["parked"])


async def test_two_pages_keep_each_others_edits(connect: Connect, place: Place) -> None:
    client = await connect()
    await Page(client, "/~somebody").save([A, B])
    alice, bob = Page(client, "/~alice"), Page(client, "/~bob.voxel")
    assert await alice.read() == await bob.read() == [A, B]
    assert await alice.save([A, B, C]) == "applied"
    assert await bob.save([A | {"description": "bob's"}, B, D]) == "merged"
    assert await alice.save([A, C]) == "merged"
    assert place.stored() == by_id([A | {"description": "bob's"}, C, D])
    assert await alice.save([A, C]) == "unchanged"
    check_log(place)


async def test_two_fields_of_one_annotation(connect: Connect, place: Place) -> None:
    client = await connect()
    await Page(client, "/~somebody").save([A])
    alice, bob = Page(client, "/~alice"), Page(client, "/~bob")
    await alice.read()
    await bob.read()
    await alice.save([A | {"point": [7.5, 8.5, 9.5]}])
    assert await bob.save([A | {"reviewed": True}]) == "merged"
    assert place.stored()[A["id"]] == A | {"point": [7.5, 8.5, 9.5], "reviewed": True}


async def test_an_etag_is_told_only_of_what_the_body_said(connect: Connect) -> None:
    client = await connect()
    first = await client.put(f"/~alice{URL}", json=[A])
    assert first.headers["ETag"] == (await client.get(URL)).headers["ETag"]
    await client.patch(f"{URL}?id={B['id']}", json=B)
    second = await client.put(f"/~alice{URL}", json=[A, C])
    assert second.headers["Precomputed-Edit"] == "merged"
    assert "ETag" not in second.headers


async def test_a_page_that_was_answered_an_error_holds_nothing(connect: Connect, place: Place) -> None:
    client = await connect()
    page = Page(client, "/~alice")
    assert await page.read() == []
    await Page(client, "/~bob").save([A])
    assert await page.save([B]) == "merged"
    assert place.stored() == by_id([A, B])


async def test_bare_browsers_behind_one_proxy(connect: Connect, place: Place) -> None:
    """One address and one user agent for all of them."""
    client = await connect()
    pages = [Page(client) for _ in range(5)]
    for page in pages:
        await page.read()
    for number, page in enumerate(pages):
        await page.save([point(number + 10, 1, 1, 1)])
    assert len(place.stored()) == 5


async def test_several_removals_are_parked_and_can_be_applied(connect: Connect, place: Place) -> None:
    client = await connect()
    page = Page(client, "/~alice")
    await page.save([A, B, C])
    said = await page.save([A | {"description": "kept"}])
    assert said.startswith("parked; id=")
    assert place.stored() == by_id([A | {"description": "kept"}, B, C])
    (row,) = await parked(client)
    assert said == f"parked; id={row['id']}"
    assert (row["block"], row["leaf"], row["author"], row["remove"]) == (
        "x0y0z0",
        "fibers",
        "alice",
        [B["id"], C["id"]],
    )
    body = await client.get(f"{PARKED}/{row['id']}")
    assert await body.json() == [A | {"description": "kept"}]
    assert await page.save([A | {"description": "kept"}]) == "unchanged"
    answer = await client.post(f"/~bob{PARKED}/{row['id']}/apply")
    assert (answer.status, (await answer.json())["removed"]) == (200, 2)
    assert place.stored() == by_id([A | {"description": "kept"}])
    assert await parked(client) == []
    assert (await client.post(f"{PARKED}/{row['id']}/apply")).status == 404
    newest = (await (await client.get(f"{BLOCK}/fibers/history")).json())["entries"][0]
    assert (newest["author"], newest["operation"]) == ("bob", "delete")
    check_log(place)


async def test_what_is_parked_can_be_discarded(connect: Connect, place: Place) -> None:
    client = await connect()
    page = Page(client, "/~alice")
    await page.save([A, B, C])
    await page.save([])
    (row,) = await parked(client)
    assert (await client.post(f"{PARKED}/{row['id']}/discard")).status == 200
    assert await parked(client) == []
    assert place.stored() == by_id([A, B, C])
    assert (await client.post(f"{PARKED}/0123456789abcdef/discard")).status == 404
    assert (await client.get(f"{PARKED}/{row['id']}/apply")).status == 405


async def test_scrolling_away_wipes_nothing(connect: Connect, place: Place) -> None:
    client = await connect()
    page = Page(client, "/~alice")
    await page.save([A], "z-0020")
    await page.read("z-0020")
    await page.read("z-0021")
    assert (await page.save([], "z-0020")).startswith("parked")
    assert place.stored("z-0020") == by_id([A])
    assert [row["reason"] for row in await parked(client)] == ["another slice"]
    await page.read("z-0020")
    assert await page.save([], "z-0020") == "applied"
    assert place.stored("z-0020") == {}


async def test_scrolling_to_and_fro_parks_the_same_wipe_once(connect: Connect, place: Place) -> None:
    client = await connect()
    await Page(client, "/~bob").save([A, B], "z-0020")
    page = Page(client, "/~alice")
    for _ in range(4):
        await page.read("z-0020")
        await page.read("z-0021")
        await page.save([], "z-0020")
    assert len(await parked(client)) == 1
    assert place.stored("z-0020") == by_id([A, B])


@pytest.mark.parametrize(
    ("body", "status"), [(b"[{", 400), (b'[{"id":"a","type":"circle"}]', 422), (b"{}", 422), (b"[1e999]", 400)]
)
async def test_a_save_that_is_refused_is_kept(connect: Connect, place: Place, body: bytes, status: int) -> None:
    client = await connect()
    answer = await client.put(f"/~alice{URL}", data=body)
    assert answer.status == status
    kept = answer.headers["Precomputed-Edit"].removeprefix("refused; id=")
    (row,) = await parked(client)
    assert (row["id"], row["author"], row["leaf"], row["remove"], row["status"]) == (
        kept,
        "alice",
        "fibers",
        [],
        status,
    )
    assert await (await client.get(f"{PARKED}/{kept}")).read() == body
    (told,) = await Page(client, "/~alice").saves()
    assert (told["outcome"], told["kept"], told["leaf"]) == ("refused", kept, "fibers")
    assert (await client.post(f"{PARKED}/{kept}/apply")).status == status
    assert len(await parked(client)) == 1
    assert (await client.post(f"{PARKED}/{kept}/discard")).status == 200
    assert await parked(client) == []
    assert place.stored() == {}


async def test_a_save_that_is_too_large_is_kept_whole(connect: Connect) -> None:
    client = await connect(max_body=1000)
    body = json.dumps(some(30)).encode()
    answer = await client.put(f"/~alice{URL}", data=body)
    assert answer.status == 413
    kept = answer.headers["Precomputed-Edit"].removeprefix("refused; id=")
    assert await (await client.get(f"{PARKED}/{kept}")).read() == body


async def test_a_save_outside_the_volume_is_kept(connect: Connect, place: Place) -> None:
    client = await connect()
    (place.block.parent / "block_info.csv").write_text("10,8,6\n")
    answer = await client.put(f"{DATASET}/annotations/x9000y0z0/fibers.json", json=[A])
    assert answer.status == 404
    assert [row["block"] for row in await parked(client)] == ["x9000y0z0"]


async def test_a_save_with_an_old_if_match_is_kept(connect: Connect, place: Place) -> None:
    client = await connect()
    await client.put(URL, json=[A])
    answer = await client.put(URL, json=[B], headers={"If-Match": '"0"'})
    assert answer.status == 412
    (row,) = await parked(client)
    answer = await client.post(f"{PARKED}/{row['id']}/apply")
    assert answer.status == 200
    assert B["id"] in place.stored()
    assert await parked(client) == []


async def test_what_a_refused_save_removes_may_be_parked_anew_and_that_is_told(connect: Connect, place: Place) -> None:
    client = await connect()
    await client.put(URL, json=[A, B, some(3)[2]])
    await client.put(f"/~alice{URL}", json=[A | {"anntype": "glia"}], headers={"If-Match": '"0"'})
    (row,) = await parked(client)
    told = await (await client.post(f"/~bob{PARKED}/{row['id']}/apply")).json()
    (anew,) = await parked(client)
    assert told == {"id": row["id"], "leaf": "fibers", "parked": anew["id"]}
    assert (anew["author"], len(anew["remove"]), len(place.stored())) == ("bob", 2, 3)


async def test_what_is_no_dataset_keeps_nothing(connect: Connect) -> None:
    client = await connect()
    answer = await client.put("/nothing/annotations/x0y0z0/fibers.json", json=[A])
    assert answer.status == 404
    assert "Precomputed-Edit" not in answer.headers
    assert (await client.get("/nothing/annotations/parked")).status == 404


async def test_a_session_is_told_of_its_saves(connect: Connect) -> None:
    client = await connect()
    alice, bob = Page(client, "/~alice"), Page(client, "/~bob")
    await alice.save([A, B, C])
    await bob.read()
    await bob.save([A, B, C, D])
    await alice.save([A])
    await alice.save([A])
    told = [(row["outcome"], row["version"], row["block"], row["leaf"]) for row in await alice.saves()]
    assert told == [
        ("unchanged", 2, "x0y0z0", "fibers"),
        ("parked", 2, "x0y0z0", "fibers"),
        ("saved", 1, "x0y0z0", "fibers"),
    ]
    assert [row["outcome"] for row in await bob.saves()] == ["saved"]


async def test_what_was_just_added_by_mistake_can_be_removed(connect: Connect, place: Place) -> None:
    """The page has read the leaf twice before, as after a double-click elsewhere."""
    client = await connect()
    await Page(client, "/~bob").save([A, B])
    page = Page(client, "/~alice")
    await page.read()
    await page.read()
    assert await page.save([A, B, C]) == "applied"
    assert await page.save([A, B]) == "applied"
    assert place.stored() == by_id([A, B])


async def test_two_tabs_of_one_session_keep_each_others_additions(connect: Connect, place: Place) -> None:
    client = await connect()
    await Page(client, "/~bob").save([A])
    tabs = [Page(client, "/~alice"), Page(client, "/~alice")]
    for tab in tabs:
        await tab.read()
    await tabs[0].save([A, B])
    await tabs[1].save([A, C])
    assert place.stored() == by_id([A, B, C])


@pytest.mark.parametrize("prefix", ["", "/~alice"])
async def test_after_two_readings_that_failed_nothing_is_removed(connect: Connect, place: Place, prefix: str) -> None:
    """A reading that the client aborted was answered all the same."""
    client = await connect()
    await Page(client, "/~bob").save([A])
    page = Page(client, prefix)
    await page.read()
    await page.save([B])
    await page.read()
    await page.save([C])
    assert place.stored() == by_id([A, B, C])


async def test_overlapping_saves_of_a_page_apply_in_the_order_of_their_arrival(connect: Connect, place: Place) -> None:
    """The body of the first comes last."""
    client = await connect()
    page = Page(client, "/~alice")
    await page.save([A])
    await page.read()
    first, second = A | {"point": [1.5, 1, 1]}, A | {"point": [2.5, 1, 1]}
    body = json.dumps([first]).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(f"PUT /~alice{URL} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode())
    await writer.drain()
    await asyncio.sleep(0.2)
    assert await page.save([second]) == "applied"
    writer.write(body)
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.close()
    await writer.wait_closed()
    assert place.stored() == by_id([second])
    assert await page.save([second | {"reviewed": True}]) == "applied"
    assert place.stored() == by_id([second | {"reviewed": True}])


async def test_what_a_page_holds_outlives_the_process(connect: Connect, place: Place) -> None:
    client = await connect()
    await Page(client, "/~bob").save([A])
    await Page(client, "/~alice").read()
    await Page(client, "/~bob").save([A, B])
    again = await connect()
    assert await Page(again, "/~alice").save([A, C]) == "merged"
    assert place.stored() == by_id([A, B, C])


async def test_without_a_journal_a_save_is_compared_with_what_was_stored(
    connect: Connect, place: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    client = await connect()
    await Page(client, "/~alice").save([A])
    await Page(client, "/~alice").read()
    await Page(client, "/~bob").save([A, B])
    other = await connect(state=str(tmp_path_factory.mktemp("another")))
    assert await Page(other, "/~alice").save([A, C]) == "merged"
    assert place.stored() == by_id([A, B, C])
