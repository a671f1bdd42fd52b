"""Annotations over HTTP: answers, statuses and headers of every method, and what bad input does not do."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from annotation_store.web import gatherer
from precomputed_server.errors import Busy
from tests.annotation_store.conftest import Client, Connect
from tests.annotation_store.support import Editor, Place, by_id, check_log, some, written
from tests.data import point

URL = "/brain/annotations/x0y0z0/fibers.json"
POINT = {"type": "point", "point": [1, 2, 3]}


def tree_of(root: Path) -> dict[str, bytes | None]:
    """Every path beneath `root` with its content."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


async def refused(client: Client, method: str, url: str, status: int, **given: Any) -> str:
    """Assert that a request is refused as a problem document that a page may read; returns its sentence."""
    answer = await client.request(method, url, **given)
    assert answer.status == status, await answer.text()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    document = await answer.json(content_type=None)
    assert document["status"] == status
    sentence = str(document["detail"])
    assert sentence.endswith(".")
    return sentence


async def test_a_leaf_is_put_read_edited_and_emptied(connect: Connect, place: Place) -> None:
    client = await connect()
    await refused(client, "GET", URL, 404)
    items = some(3)
    answer = await client.put(URL, data=json.dumps(items), headers={"Content-Type": "text/plain;charset=UTF-8"})
    assert answer.status == 200
    assert await answer.json() == {"filename": "brain/annotations/x0y0z0/fibers.json"}
    assert answer.headers["Precomputed-Version"] == "1"
    put_tag = answer.headers["ETag"]

    answer = await client.get(URL)
    assert (answer.status, answer.headers["ETag"]) == (200, put_tag)
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.content_type == "application/json"
    assert await answer.read() == written(items) == place.file().read_bytes()
    assert (await client.get(URL, headers={"If-None-Match": put_tag})).status == 304
    answer = await client.head(URL)
    assert (answer.status, answer.headers["ETag"], await answer.read()) == (200, put_tag, b"")
    assert int(answer.headers["Content-Length"]) == len(written(items))

    answer = await client.patch(f"{URL}?id=new", json=POINT)
    assert (answer.status, await answer.json(), answer.headers["Precomputed-Version"]) == (200, "new", "2")
    answer = await client.patch(f"{URL}?id=new", json=POINT | {"id": "new", "description": "changed"})
    assert (answer.status, await answer.json(), answer.headers["Precomputed-Version"]) == (200, "new", "3")
    assert place.stored()["new"] == {**POINT, "id": "new", "description": "changed"}
    answer = await client.delete(f"{URL}?id={items[0]['id']}")
    assert (answer.status, await answer.json(), answer.headers["Precomputed-Version"]) == (200, items[0]["id"], "4")
    assert answer.headers["ETag"] == (await client.get(URL)).headers["ETag"]
    await refused(client, "DELETE", f"{URL}?id={items[0]['id']}", 404)
    tag = answer.headers["ETag"]
    answer = await client.put(URL, json=[], headers={"If-Match": tag})
    assert (answer.status, answer.headers["Precomputed-Version"]) == (200, "5")
    assert answer.headers["Precomputed-Edit"] == "applied"
    assert place.file().read_bytes() == b"[]\n"
    assert check_log(place) == {"fibers": 5}


async def test_a_save_that_empties_a_leaf_unasked_is_parked(connect: Connect, place: Place) -> None:
    """What the client sends of a slice that it scrolls away from."""
    client = await connect()
    await client.put(URL, json=some(3))
    before = place.file().read_bytes()
    answer = await client.put(URL, json=[])
    assert (answer.status, answer.headers["Precomputed-Version"]) == (200, "1")
    assert answer.headers["Precomputed-Edit"].startswith("parked; id=")
    assert "ETag" not in answer.headers
    assert place.file().read_bytes() == before
    check_log(place)


async def test_what_does_nothing_says_so(connect: Connect, place: Place) -> None:
    client = await connect()
    before = tree_of(place.root)
    answer = await client.put(URL, json=[])
    assert (answer.status, answer.headers["Precomputed-Version"]) == (200, "0")
    assert "ETag" not in answer.headers
    assert (await client.put("/brain/annotations/b4,4,4/fibers.json", json=[])).status == 200
    answer = await client.delete(URL)
    assert (answer.status, await answer.read()) == (204, b"")
    await refused(client, "DELETE", f"{URL}?id=a", 404)
    assert "?id=" in await refused(client, "PATCH", URL, 400, json=POINT)
    assert tree_of(place.root) == before

    await client.put(URL, json=some(2))
    before = tree_of(place.root)
    assert (await client.delete(URL)).status == 204
    assert (await client.put(URL, json=some(2))).headers["Precomputed-Version"] == "1"
    assert (await client.patch(f"{URL}?id={some(1)[0]['id']}", json=some(1)[0])).headers["Precomputed-Version"] == "1"
    assert tree_of(place.root) == before


async def test_a_file_that_was_removed_keeps_counting(connect: Connect, place: Place) -> None:
    client = await connect()
    await client.put(URL, json=some(1))
    await client.put(URL, json=some(2))
    place.file().unlink()
    # That it was removed is a version of its own, by another tool.
    assert (await client.put(URL, json=[])).headers["Precomputed-Version"] == "3"
    assert not place.file().exists()
    answer = await client.put(URL, json=some(1, first=5))
    assert int(answer.headers["Precomputed-Version"]) == 4
    assert place.stored() == by_id(some(1, first=5))
    check_log(place)


async def test_a_file_that_was_removed_after_its_first_version_is_there_again(connect: Connect, place: Place) -> None:
    """Nothing tells it from one that a crash kept from being written: what was acknowledged counts."""
    client = await connect()
    await client.put(URL, json=some(2))
    place.file().unlink()
    answer = await client.patch(f"{URL}?id=new", json=POINT)
    assert (answer.status, answer.headers["Precomputed-Version"]) == (200, "2")
    assert place.stored() == by_id([*some(2), POINT | {"id": "new"}])
    check_log(place)


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"", 400, "not JSON"),
        (b"[NaN]", 400, "not JSON"),
        (b"[1e999]", 400, "not JSON"),
        (b'[{"id":"\\ud800"}]', 400, "not JSON"),
        (b"\xef\xbb\xbf[]", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"{}", 422, "must be a list"),
        (b"[1]", 422, "item 0 must be an object"),
        (b"[{}]", 422, "item 0 needs an id"),
        (b'[{"id":"a","type":"point"}]', 422, "item 0 (a): point is missing"),
        (b'[{"id":"a","type":"round","point":[1,2,3]}]', 422, "item 0 (a): type is"),
        (b'[{"id":"a","type":"point","point":[1,2,18446744073709551616]}]', 422, "18446744073709551616"),
        (b'[{"id":"a","type":"point","point":[1,2,3],"reviewed":1}]', 422, "item 0 (a): reviewed is 1"),
        (json.dumps([POINT | {"id": "a"}] * 2).encode(), 422, "item 1 has the id 'a'"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_refused_body_names_what_is_wrong(
    connect: Connect, place: Place, body: bytes, status: int, sentence: str
) -> None:
    client = await connect()
    assert sentence in await refused(client, "PUT", URL, status, data=body)
    assert not place.file().exists()


async def test_what_is_drawn_outside_the_volume_is_refused_but_in_a_whole_file(connect: Connect, place: Place) -> None:
    client = await connect()
    away = {"type": "point", "point": [1, 2, 600]}
    outside = "lies outside the volume, which goes from (0, 0, 0) to (10, 8, 6) voxels"
    merge = {"Content-Type": "application/merge-patch+json"}
    assert (await client.patch(f"{URL}?id=p", json=POINT)).status == 200
    assert outside in await refused(client, "PATCH", f"{URL}?id=a", 422, json=away)
    assert outside in await refused(client, "PATCH", f"{URL}?id=p", 422, json=away)
    assert outside in await refused(client, "PATCH", f"{URL}?id=p", 422, json={"point": [-1, 2, 3]}, headers=merge)
    assert outside in await refused(client, "POST", URL, 422, json=away)
    for operation in ("put", "change", "add"):
        edit = {"block": "x0y0z0", "leaf": "fibers", "operation": operation, "annotation": away}
        edit |= {} if operation == "add" else {"id": "p"}
        row = (await (await client.post("/brain/annotations/edits", json={"edits": [edit]})).json())["blocks"][0]
        assert (row["status"], outside in row["detail"]) == (422, True)
    assert place.stored() == {"p": {"id": "p", **POINT}}
    # On the border is inside, and what reaches out of the volume is kept as it was drawn.
    fibre = {"type": "linestring", "points": [[10, 8, 6], [30, 8, 6]]}
    assert (await client.patch(f"{URL}?id=f", json=fibre)).status == 200
    # A page's whole file is saved whatever it holds; what lies there may be edited, looked at and moved back.
    held = [*place.stored().values(), {"id": "away", **away}]
    assert (await client.put(URL, json=held)).status == 200
    assert (await client.patch(f"{URL}?id=away", json={**away, "reviewed": True})).status == 200
    assert (await client.patch(f"{URL}?id=away", json={"visited": True}, headers=merge)).status == 200
    assert place.stored()["away"] == {"id": "away", **away, "reviewed": True, "visited": True}
    assert (await client.patch(f"{URL}?id=away", json=POINT)).status == 200
    check_log(place)


async def test_the_session_of_a_nameless_edit_ends_with_no_blank(connect: Connect, place: Place) -> None:
    client = await connect()
    await client.patch(f"{URL}?id=a", json=POINT, headers={"User-Agent": "curl/8"})
    (entry,) = (await (await client.get(f"{URL.removesuffix('.json')}/history")).json())["entries"]
    assert (entry["author"], entry["session"]) == ("anonymous", "127.0.0.1 curl/8")


async def test_requests_that_are_refused_for_other_reasons(connect: Connect, place: Place) -> None:
    client = await connect(max_body=1000)
    await client.put(URL, json=some(1))
    before = tree_of(place.root)
    assert "'b'" in await refused(client, "PATCH", f"{URL}?id=a", 422, json=POINT | {"id": "b"})
    assert "id" in await refused(client, "PATCH", f"{URL}?id=", 422, json=POINT)
    merge_patch = {"Content-Type": "application/merge-patch+json"}
    assert "'a'" in await refused(client, "PATCH", f"{URL}?id=a", 404, data=b"{}", headers=merge_patch)
    await refused(client, "PATCH", f"{URL}?id={some(1)[0]['id']}", 422, data=b'{"point":null}', headers=merge_patch)
    assert "1000 bytes" in await refused(client, "PUT", URL, 413, data=b"[" + b" " * 1000)
    assert "1000 bytes" in await refused(client, "PUT", URL, 413, data=slowly(b"[" + b" " * 1000))
    assert (await client.put(URL, data=b"[" + b" " * 999)).status == 400  # as large as it may be, and not JSON
    await refused(client, "POST", URL, 400)
    await refused(client, "POST", URL, 409, json=some(1)[0])
    await refused(client, "POST", URL.replace("fibers.json", "fibers"), 405)
    await refused(client, "PUT", "/nowhere/annotations/x0y0z0/fibers.json", 404, json=some(1))
    assert tree_of(place.root) == before


async def slowly(body: bytes) -> Any:  # noqa: ANN401  # what aiohttp sends in chunks without a length
    for start in range(0, len(body), 300):
        yield body[start : start + 300]
        await asyncio.sleep(0)


async def test_if_match(connect: Connect, place: Place) -> None:
    client = await connect()
    url = f"{URL}?id=a"
    await refused(client, "PUT", URL, 412, json=some(1), headers={"If-Match": "*"})
    assert not place.file().exists()
    first = (await client.put(URL, json=some(1))).headers["ETag"]
    second = (await client.put(URL, json=some(2), headers={"If-Match": f'"x", {first}'})).headers["ETag"]
    for wrong in (first, '"x"', f"W/{second}", "nonsense"):
        answer = await client.put(URL, json=some(3), headers={"If-Match": wrong})
        assert (answer.status, answer.headers["ETag"]) == (412, second)
        await refused(client, "PATCH", url, 412, json=POINT, headers={"If-Match": wrong})
        await refused(client, "DELETE", f"{URL}?id={some(1)[0]['id']}", 412, headers={"If-Match": wrong})
    assert (await client.patch(url, json=POINT, headers={"If-Match": "*"})).status == 200
    assert len(place.stored()) == 3


async def test_an_empty_file_has_one_tag(connect: Connect, place: Place) -> None:
    """The data manager left files of no bytes: they are read as [] and can be edited by their tag."""
    place.file().write_bytes(b"")
    client = await connect()
    answer = await client.get(URL)
    assert await answer.read() == b"[]\n"
    answer = await client.put(URL, json=some(1), headers={"If-Match": answer.headers["ETag"]})
    assert answer.status == 200
    assert check_log(place) == {"fibers": 2}


async def test_a_damaged_file_without_a_log_is_500_and_stays(connect: Connect, place: Place) -> None:
    client = await connect()
    for damaged in (b"[{", b"{}", b"[NaN]", b"null", b'[{"point":[1,2,3]}]', b"[" * 3000):
        place.file().write_bytes(damaged)
        for method, given in (("GET", {}), ("PUT", {"json": some(1)}), ("PUT", {"json": []})):
            await refused(client, method, URL, 500, **given)
        await refused(client, "PATCH", f"{URL}?id=a", 500, json=POINT)
        await refused(client, "DELETE", f"{URL}?id=a", 500)
        assert place.file().read_bytes() == damaged
    assert (await client.put("/brain/annotations/x0y0z0/others.json", json=some(1))).status == 200


async def test_a_header_that_is_no_text_is_only_a_header(connect: Connect, place: Place) -> None:
    client = await connect()
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    body = json.dumps(some(1)).encode()
    head = f"PUT {URL} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\nUser-Agent: "
    writer.write(head.encode() + b"\xff\xfe\r\n\r\n" + body)
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()
    assert (await client.put(URL, json=some(2))).status == 200
    check_log(place)


async def test_malformed_files_are_refused_and_change_nothing(connect: Connect, place: Place) -> None:
    """1,000 bodies made by damaging a good one: none is a server error, and what is refused leaves the file alone."""
    client = await connect()
    await client.put(URL, json=some(4))
    dice = random.Random(12)
    statuses: dict[int, int] = {}
    for number in range(1000):
        before = place.file().read_bytes()
        answer = await client.put(URL, data=damaged(dice, number))
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        assert answer.status in (200, 400, 422), await answer.text()
        if answer.status != 200:
            assert place.file().read_bytes() == before
    assert statuses[400] > 100
    assert statuses[422] > 100
    check_log(place)


def damaged(dice: random.Random, number: int) -> bytes:
    """A body that is wrong, or nearly so, in one of many ways."""
    item: dict[str, Any] = point(number % 5, 1.5, 2.5, 3.5, description="text", segments=[["1"]], length=3)
    field = dice.choice([*item])
    wrong = dice.choice(WRONG)
    kind = number % 4
    if kind == 0:  # a field of another type
        return json.dumps([some(1, first=7)[0], {**item, field: wrong}]).encode()
    if kind == 1:  # text that no number or string may be, in the place of one
        return json.dumps([item]).replace("1.5", dice.choice(BAD_TEXTS)).encode("utf-8", "surrogatepass")
    body = bytearray(json.dumps([item, some(1, first=7)[0]]).encode())
    if kind == 2:  # cut short
        return bytes(body[: dice.randrange(len(body))])
    for _ in range(3):  # bytes changed
        body[dice.randrange(len(body))] = dice.randrange(256)
    return bytes(body)


WRONG: list[Any] = [None, [], {}, "", "x", 0, -1, 1.5, True, [1], [1, 2, 3], ["1", "2", "3"], [None] * 3, 2**64, 2**70]
BAD_TEXTS = ["NaN", "1e999", "-Infinity", '"\\ud800"', "\ufeff1", "01", "1.", "0x1", "9" * 400, "[" * 2000, "9" * 30]


async def test_a_name_with_a_link_to_elsewhere_stays_inside(connect: Connect, place: Place, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "fibers.json").write_bytes(written(some(1)))
    client = await connect()
    place.file("file").symlink_to(outside / "fibers.json")
    (place.block.parent / "b1,1,1").symlink_to(outside)
    (place.block.parent / "b2,2,2").symlink_to("../../../../outside")
    for url in (URL.replace("fibers", "file"), *(URL.replace("x0y0z0", name) for name in ("b1,1,1", "b2,2,2"))):
        await refused(client, "GET", url, 404)
        await refused(client, "PUT", url, 404, json=some(2))
        await refused(client, "PATCH", f"{url}?id=a", 404, json=POINT)
    assert [path.name for path in outside.iterdir()] == ["fibers.json"]
    assert (outside / "fibers.json").read_bytes() == written(some(1))


@pytest.mark.component
async def test_large_bodies_go_to_a_process_of_their_own(connect: Connect, place: Place) -> None:
    client = await connect(large_body=20_000, large_waiting=2, max_body=200_000)
    items = some(200)
    assert len(json.dumps(items)) > 20_000
    answers = await asyncio.gather(*(client.put(URL, json=items) for _ in range(6)))
    assert [answer.status for answer in answers] == [200] * 6, "how many wait is bounded by the memory for bodies"
    assert (await client.patch(f"{URL}?id=a", json=POINT)).status == 200
    assert len(await (await client.get(URL)).json()) == 201
    row = (await (await client.get("/brain/annotations/blocks")).json())["blocks"][0]["leaves"][0]
    assert row == {"leaf": "fibers", "count": 201, "version": 2}
    assert "item 0" in await refused(client, "PUT", URL, 422, data=json.dumps([{"a": "b" * 30_000}]))
    assert "200000 bytes" in await refused(client, "PUT", URL, 413, data=slowly(b"[" + b" " * 200_000))
    assert (await client.put(URL, data=slowly(json.dumps(items).encode()))).status == 200
    check_log(place)


def test_a_place_is_given_back_whatever_happens() -> None:
    places = gatherer.Places(1)
    for _ in range(2):
        with contextlib.suppress(ZeroDivisionError), places.one():
            with pytest.raises(Busy), places.one():
                pass
            raise ZeroDivisionError


async def test_a_defect_ends_one_group_and_no_leaf(
    connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody foresaw once left everybody after it waiting for ever."""
    client = await connect()
    with monkeypatch.context() as patch:
        patch.setattr("annotation_store.store.AnnotationStore.commit", defect)
        answers = await asyncio.gather(*(client.patch(f"{URL}?id=i{n}", json=POINT) for n in range(5)))
        assert [answer.status for answer in answers] == [500] * 5
    async with asyncio.timeout(5):
        assert (await client.patch(f"{URL}?id=a", json=POINT)).status == 200


def defect(*_: object) -> None:
    """What no code expects."""
    raise RuntimeError("a defect")


async def test_edits_that_arrive_together_are_one_commit(connect: Connect, place: Place) -> None:
    client = await connect()
    count = 200
    urls = [f"{URL}?id=i{number}" for number in range(count)]
    answers = await asyncio.gather(*(client.patch(url, json=POINT) for url in urls))
    assert {answer.status for answer in answers} == {200}
    assert list(sorted(place.stored())) == sorted(f"i{number}" for number in range(count))
    groups = place.log.read_bytes().count(b'"files":')
    assert groups < count / 2
    assert check_log(place) == {"fibers": count}
    versions = [int(answer.headers["Precomputed-Version"]) for answer in answers]
    assert sorted(versions) == list(range(1, count + 1))
    tags = [answer.headers["ETag"] for answer in answers if "ETag" in answer.headers]
    assert len(tags) == groups


async def test_readers_do_not_wait_behind_commits_that_wait(connect: Connect, place: Place) -> None:
    """Eight leaves of a block whose lock somebody holds fill every thread for commits."""
    client = await connect(lock_timeout=1)
    await client.put(URL, json=some(1))
    lock = place.log.with_name("lock")
    holder = await asyncio.create_subprocess_exec("flock", str(lock), "sleep", "30")
    try:
        while await asyncio.to_thread(is_free, lock):
            await asyncio.sleep(0.01)
        urls = [URL.replace("fibers", f"z-{number:04d}") for number in range(9)]
        edits = [asyncio.create_task(client.patch(f"{url}?id=a", json=POINT)) for url in urls]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(0.7):
            assert (await client.get(URL)).status == 200
        answers = await asyncio.gather(*edits)
        assert {answer.status for answer in answers} == {503}
        assert all("Retry-After" in answer.headers for answer in answers)
    finally:
        holder.kill()
        await holder.wait()


def is_free(lock: Path) -> bool:
    """Whether nobody holds a flock on the file."""
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_a_leaf_keeps_its_name_while_it_is_replaced(editor: Editor, place: Place) -> None:
    """The kernel calls a replaced file "… (deleted)"; an edit that met that moment was saved under such a name."""
    editor.replace(some(1))
    readlink = os.readlink
    calls = []

    def replaced_meanwhile(path: str) -> str:
        found = readlink(path)
        calls.append(found)
        return found + " (deleted)" if found.endswith(".json") and len(calls) < 4 else found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "readlink", replaced_meanwhile)
        editor.replace(some(2))
    assert len(place.stored()) == 2
    assert [path.name for path in place.block.iterdir()] == ["fibers.json"]


async def test_while_a_conversion_exchanges_levels_nobody_is_told_that_there_is_no_dataset(
    connect: Connect, place: Place
) -> None:
    """`info` is away for that moment: a page tries again instead of giving its save up."""
    client = await connect()
    info = place.root / "brain" / "info"
    swap = place.root / "brain" / ".precomputed" / "swap.json"
    swap.parent.mkdir(exist_ok=True)
    swap.write_text("{}")
    kept = info.read_bytes()
    info.unlink()
    for method in ("PUT", "GET"):
        answer = await client.request(method, URL, json=None if method == "GET" else some(1))
        assert answer.status == 503
        assert answer.headers["Retry-After"] == "2"
        assert "conversion" in (await answer.json(content_type=None))["detail"]
    swap.unlink()
    await refused(client, "PUT", URL, 404, json=some(1))
    info.write_bytes(kept)
    assert (await client.put(URL, json=some(1))).status == 200
