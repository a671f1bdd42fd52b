"""Edits as they are made, over HTTP: what a client is sent, how it goes on, and what it is refused."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from aiohttp import ClientResponse, ClientSession, TCPConnector

from annotation_store.blocks import BlockOf
from annotation_store.edits import PutOne
from annotation_store.events import past
from annotation_store.history import log
from annotation_store.history.instants import instant_of
from annotation_store.model import serialize
from annotation_store.orders import Order, Part
from annotation_store.upkeep import compact_block
from annotation_store.web import events, feed, feeds
from tests.annotation_store.conftest import Client, Connect
from tests.annotation_store.support import Editor, Place, by_id, some

LEAF = "/brain/annotations/x0y0z0/fibers.json"
EVENTS = "/brain/annotations/events"
PATIENCE_S = 10
A, B, C = some(3)


@dataclass
class Heard:
    """One event as it came: its id, its type, and the object that it says."""

    id: str
    kind: str
    data: dict[str, Any]


class Listener:
    """A stream, read event by event."""

    def __init__(self, answer: ClientResponse) -> None:
        self.answer = answer
        self.last_id = ""
        self.comments = 0

    async def next(self) -> Heard:
        """The next event."""
        async with asyncio.timeout(PATIENCE_S):
            fields: dict[str, str] = {}
            while True:
                line = (await self.answer.content.readline()).decode()
                assert line, "the stream has ended"
                name, _, value = line.rstrip("\n").partition(": ")
                if name == ":":
                    self.comments += 1
                elif name:
                    fields[name] = value
                else:
                    self.last_id = fields.get("id", self.last_id)
                    if "data" in fields:
                        return Heard(fields["id"], fields.get("event", "message"), json.loads(fields["data"]))
                    fields = {}

    async def some(self, count: int) -> list[Heard]:
        """That many events."""
        return [await self.next() for _ in range(count)]

    async def silent(self, seconds: float = 0.3) -> None:
        """Assert that nothing comes."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(seconds):
                raise AssertionError(await self.next())


@asynccontextmanager
async def listening(client: Client, query: str = "", **headers: str) -> AsyncIterator[Listener]:
    """Listen to the dataset's edits."""
    answer = await client.get(EVENTS + query, headers={name.replace("_", "-"): each for name, each in headers.items()})
    try:
        assert answer.status == 200, await answer.text()
        yield Listener(answer)
    finally:
        answer.close()


async def written(editor: Editor, edit: Callable[[], object]) -> None:
    """Let another process than the server edit."""
    await asyncio.to_thread(edit)
    editor.close()


async def patch(client: Client, item: dict[str, Any], url: str = LEAF) -> int:
    """Put one annotation; returns the version."""
    answer = await client.patch(f"{url}?id={item['id']}", json=item)
    assert answer.status == 200, await answer.text()
    return int(answer.headers["Precomputed-Version"])


async def test_each_edit_is_told_with_what_the_annotation_is_afterwards(connect: Connect) -> None:
    client = await connect()
    async with listening(client) as listener:
        await patch(client, A, f"/~ann{LEAF}")
        await patch(client, {**A, "reviewed": True}, f"/~ben{LEAF}")
        await client.delete(f"{LEAF}?id={A['id']}")
        added, changed, deleted = await listener.some(3)
    assert added.kind == "message"
    assert {name: added.data[name] for name in ("block", "leaf", "version", "author", "operation", "id", "after")} == {
        "block": "x0y0z0",
        "leaf": "fibers",
        "version": 1,
        "author": "ann",
        "operation": "add",
        "id": A["id"],
        "after": A,
    }
    assert (changed.data["author"], changed.data["version"]) == ("ben", 2)
    assert changed.data["after"] == {**A, "reviewed": True}
    assert (deleted.data["operation"], deleted.data["after"]) == ("delete", None)
    assert [each.data["event"] for each in (added, changed, deleted)] == [each.id for each in (added, changed, deleted)]


async def test_a_change_of_what_was_there_before_is_told_whole(connect: Connect, editor: Editor) -> None:
    await written(editor, lambda: editor.replace(some(20)))
    client = await connect()
    async with listening(client) as listener:
        await patch(client, {**B, "anntype": "glia"})
        heard = await listener.next()
    assert heard.data["after"] == {**B, "anntype": "glia"}


async def test_the_answer_is_a_stream_that_nobody_keeps_or_holds_back(connect: Connect) -> None:
    client = await connect()
    async with listening(client, Accept_Encoding="gzip, deflate, br", Origin="http://elsewhere") as listener:
        headers = listener.answer.headers
        assert headers["Content-Type"] == "text/event-stream"
        assert (headers["Cache-Control"], headers["X-Accel-Buffering"]) == ("no-cache", "no")
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert "Content-Encoding" not in headers
    head = await client.head(EVENTS)
    assert (head.status, head.headers["Content-Type"], await head.read()) == (200, "text/event-stream", b"")
    options = await client.options(EVENTS, headers={"Access-Control-Request-Headers": "last-event-id"})
    assert (options.status, options.headers["Access-Control-Allow-Headers"]) == (204, "last-event-id")
    assert (await client.post(EVENTS)).status == 405


async def test_a_quiet_stream_says_that_it_lives(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    assert events.COMMENT_EVERY_S == 15.0
    monkeypatch.setattr(events, "COMMENT_EVERY_S", 0.1)
    client = await connect()
    async with listening(client, "?leaf=centroids") as listener:
        for number in range(4):
            await patch(client, {**A, "number": number})
            await asyncio.sleep(0.1)
        await listener.silent(0.1)
        assert listener.comments >= 3


async def test_only_what_is_asked_for_is_told(connect: Connect) -> None:
    client = await connect()
    async with (
        listening(client, "?block=x0y0z0&leaf=fibers") as fibers,
        listening(client, "?leaf=centroids&leaf=z-0003.json") as others,
    ):
        await patch(client, A, LEAF.replace("fibers", "centroids"))
        await patch(client, B)
        await patch(client, C, LEAF.replace("fibers", "z-0003"))
        assert [heard.data["leaf"] for heard in await others.some(2)] == ["centroids", "z-0003"]
        assert (await fibers.next()).data["id"] == B["id"]
        await fibers.silent()


async def test_a_client_that_comes_back_gets_all_since_five_seconds_before(connect: Connect, place: Place) -> None:
    client = await connect()
    async with listening(client) as listener:
        for number in range(10):
            await patch(client, {**A, "number": number})
        seen = await listener.some(10)
    for number in range(10, 15):
        await patch(client, {**A, "number": number})
    wanted = [*(heard.id for heard in seen)]
    for given in ({"query": f"?last_event_id={seen[4].id}"}, {"Last_Event_ID": seen[4].id}):
        async with listening(client, **given) as listener:
            again = await listener.some(15)
            await patch(client, {**A, "number": 15})
            assert (await listener.next()).data["after"]["number"] == 15
            await client.delete(f"{LEAF}?id={A['id']}")
            assert (await listener.next()).data["after"] is None
            await listener.silent(0.1)
        assert [heard.id for heard in again][:10] == wanted
        assert [heard.data["after"]["number"] for heard in again] == list(range(15))
        return


@pytest.mark.parametrize("age_s", [300, 50])  # from the logs, and from what is kept in memory
async def test_nothing_is_told_of_what_is_older_than_five_seconds_before_the_id(
    connect: Connect, editor: Editor, monkeypatch: pytest.MonkeyPatch, age_s: int
) -> None:
    begun = time.time() - age_s

    def twenty_seconds() -> None:
        for number in range(20):
            with monkeypatch.context() as then:
                clock = partial(float, begun + number)
                then.setattr(log.BlockLog.__init__, "__defaults__", (1 << 20, clock))
                editor.put({**A, "number": number})

    await written(editor, twenty_seconds)
    client = await connect()
    milliseconds = int((begun + 10) * 1000)
    async with listening(client, f"?last_event_id={milliseconds}-somewhere-1") as listener:
        numbers = [heard.data["after"]["number"] for heard in await listener.some(14)]
        if numbers[0] == 5:
            numbers.append((await listener.next()).data["after"]["number"])
        await listener.silent(0.1)
    assert numbers in (list(range(5, 20)), list(range(6, 20)))


async def test_a_client_to_which_nothing_was_sent_yet_knows_where_to_go_on(connect: Connect) -> None:
    client = await connect()
    async with listening(client) as listener:
        await listener.silent()
        assert listener.last_id
    await patch(client, A)
    async with listening(client, Last_Event_ID=listener.last_id) as listener:
        assert (await listener.next()).data["id"] == A["id"]


async def test_everything_since_an_instant(connect: Connect, editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_KEPT_S", 0.0)
    begun = instant_of(time.time() - 1)

    def edit() -> None:
        editor.replace(some(50))
        for number in range(30):
            editor.put({**A, "number": number})
        editor.replace([C], leaf="centroids")

    await written(editor, edit)
    await asyncio.sleep(0.05)
    client = await connect()
    async with listening(client, f"?since={begun}") as listener:
        heard = await listener.some(81)
        await patch(client, B, LEAF.replace("fibers", "centroids"))
        assert (await listener.next()).data["id"] == B["id"]
    assert len({each.id for each in heard}) == 81
    assert [each.data["after"]["number"] for each in heard[50:80]] == list(range(30))


async def test_a_long_past_is_sent_page_by_page(
    connect: Connect, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past.page, "__defaults__", ((), 10))
    monkeypatch.setattr(feed, "_KEPT_S", -1.0)
    begun = instant_of(time.time() - 1)

    def edit() -> None:
        editor.replace(some(25))  # of one instant
        for number in range(40):
            editor.put({**A, "number": number}, leaf=("fibers", "centroids")[number % 2])

    await written(editor, edit)
    client = await connect()
    async with listening(client, f"?since={begun}") as listener:
        heard = await listener.some(65)
        await listener.silent(0.1)
    assert len({each.id for each in heard}) == 65
    assert [each.data["time"] for each in heard] == sorted(each.data["time"] for each in heard)
    assert [each.data["after"]["number"] for each in heard[25:]] == list(range(40))


async def test_what_another_process_writes_is_seen_without_a_word(connect: Connect, editor: Editor) -> None:
    client = await connect()
    async with listening(client) as listener:
        await asyncio.to_thread(editor.put, A)
        heard = await listener.next()
        assert heard.data["id"] == A["id"]
        other = Place(editor.place.root).block.with_name("x1y0z0")
        await written(editor, lambda: edit_new_block(editor))
        assert other.is_dir()
        assert (await listener.next()).data["block"] == "x1y0z0"


def edit_new_block(editor: Editor) -> None:
    """Put an annotation into a block that did not exist."""
    part = Part("fibers", "put", change=PutOne(B))
    editor.store.carry_out(Order("brain/annotations/x1y0z0", (part,), "somebody", "page", "1" * 32))


async def test_a_file_that_another_tool_wrote_is_told_of_as_one_event(connect: Connect, place: Place) -> None:
    client = await connect()
    await patch(client, A)
    async with listening(client) as listener:
        await asyncio.to_thread(place.file().write_bytes, serialize(by_id([A, B])))
        await patch(client, C)
        external, added = await listener.some(2)
        assert (external.data["operation"], external.data["id"], external.data["version"]) == ("external", None, 2)
        assert (added.data["id"], added.data["version"]) == (C["id"], 3)
        answer = await client.get(f"/brain/annotations/{external.data['url']}")
        assert by_id(await answer.json()) == by_id([A, B])


async def test_what_is_parked_is_told_of_and_is_no_edit(connect: Connect) -> None:
    client = await connect()
    page = f"/~ann{LEAF}"
    assert (await client.put(page, json=[A, B, C])).status == 200
    async with listening(client) as listener:
        assert "parked" in (await client.put(page, json=[])).headers["Precomputed-Edit"]
        parked = await listener.next()
        assert (parked.kind, sorted(parked.data["remove"])) == ("parked", sorted(each["id"] for each in (A, B, C)))
        answer = await client.post(f"/brain/annotations/parked/{parked.data['parked']}/discard")
        assert answer.status == 200
        resolved = await listener.next()
        assert (resolved.kind, resolved.data["how"]) == ("resolved", "discarded")


async def test_a_large_annotation_is_told_of_by_reference(connect: Connect) -> None:
    client = await connect()
    large = {"id": "big", "type": "linestring", "points": [[float(each), 0.5, 1.5] for each in range(9000)]}
    async with listening(client) as listener:
        await patch(client, large)
        added = await listener.next()
        await patch(client, {**large, "reviewed": True})
        changed = await listener.next()
    assert "after" not in added.data
    stored = await (await client.get(f"/brain/annotations/{added.data['url']}")).json()
    assert stored == [large]
    assert (changed.data["url"], changed.data["change"]) == (
        "x0y0z0/fibers.json?version=2",
        {"set": {"reviewed": True}},
    )


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("?last_event_id=yesterday", 400),
        ("?last_event_id=99999999999999999-host-1", 400),
        ("?since=yesterday", 400),
        ("?since=2026-01-01T00:00:00", 200),
        ("?leaf=../fibers", 400),
        ("?block=a.b", 400),
        ("?block=x5000y0z0", 404),
        ("?block=x1y1z1", 200),
    ],
)
async def test_what_is_asked_for_is_checked(connect: Connect, query: str, status: int) -> None:
    client = await connect()
    async with client.get(EVENTS + query) as answer:
        assert answer.status == status


async def test_what_is_no_dataset_has_no_events(connect: Connect) -> None:
    client = await connect()
    assert (await client.get("/liver/annotations/events")).status == 404


async def test_a_client_that_takes_nothing_is_let_go_and_holds_nobody_up(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_STUCK_S", 0.2)
    monkeypatch.setattr(feeds, "_CHECK_S", 0.1)
    client = await connect()
    text = "x" * 60_000
    async with listening(client) as quick:
        reader, writer = await asyncio.open_connection(client.host, client.port, limit=1024)
        writer.write(f"GET {EVENTS} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        await reader.readline()
        for number in range(200):
            await patch(client, {**A, "text": text, "number": number})
            assert (await quick.next()).data["after"]["number"] == number
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            async with asyncio.timeout(PATIENCE_S):
                await reader.readexactly(200 * 60_000)
        writer.close()


async def test_too_many_streams_are_refused(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "MOST_STREAMS", 2)
    client = await connect()
    async with listening(client), listening(client):
        refused = await client.get(EVENTS)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")


async def test_one_address_does_not_take_all_streams(connect: Connect) -> None:
    client = await connect(streams_per_address=2)
    async with listening(client), listening(client):
        refused = await client.get(EVENTS)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        assert "--streams-per-address" in (await refused.json())["detail"]
        other = TCPConnector(local_addr=("127.0.0.2", 0))
        async with ClientSession(connector=other) as elsewhere, elsewhere.get(client.make_url(EVENTS)) as answer:
            assert answer.status == 200


async def test_a_past_that_is_not_kept_any_longer_is_gone(connect: Connect, editor: Editor) -> None:
    def edit() -> None:
        editor.replace(some(3))
        for number in range(5):
            editor.put({**A, "number": number})
        later = datetime.now(UTC) + timedelta(days=100)
        compact_block(editor.store, BlockOf("x0y0z0", "brain/annotations/x0y0z0"), 90, later)

    await written(editor, edit)
    client = await connect()
    answer = await client.get(f"{EVENTS}?since=2020-01-01T00:00:00Z")
    assert answer.status == 410, await answer.text()
    assert "read the annotations anew" in (await answer.json())["detail"]
