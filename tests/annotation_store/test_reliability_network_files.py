"""A root on a file system that behaves as NFS or Lustre may: nothing is lost, or edits are refused with the reason."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from annotation_store.blocks import BlockOf
from annotation_store.model import Item
from annotation_store.upkeep import verify_block
from precomputed_server.format.geometry import Vector
from tests.annotation_store.conftest import ROOMY, Connect
from tests.annotation_store.shim import Shim, shim, shim_library
from tests.annotation_store.support import BLOCK, Editor, Place, by_id, check_log, some
from tests.annotation_store.test_concurrency import URL, Annotator, together
from tests.conftest import StartServer
from tests.data import point

__all__ = ["shim", "shim_library"]

BLOCKS = "/brain/annotations/blocks"
FAILURES = 15
EACH = 40


@pytest.fixture
def extent() -> Vector:
    """These tests draw anywhere."""
    return ROOMY


def one(number: int) -> Item:
    """An annotation of its own."""
    return point(1000 + number, number, 1, 1)


def assert_no_findings(place: Place) -> None:
    """The log is whole and says what the files hold."""
    editor = Editor(place)
    assert verify_block(editor.store, BlockOf(BLOCK, f"brain/annotations/{BLOCK}")) == []
    editor.close()
    check_log(place)


def test_renames_and_handles_that_fail_lose_nothing(start_server: StartServer, place: Place, shim: Shim) -> None:
    server = start_server(place.root, workers=2)
    with Annotator(server.port) as client:
        rename_done_but_reported_as_failed(client, shim)
        assert place.stored() == by_id(map(one, range(FAILURES)))
        for first, field in ((1000, "stale_renames"), (2000, "stale_opens")):
            lose_a_handle(client, place, shim, field, first)
    assert place.left_behind() == []
    assert_no_findings(place)


def rename_done_but_reported_as_failed(client: Annotator, shim: Shim) -> None:
    """Edits are made and acknowledged all the same."""
    for number in range(FAILURES):
        shim.set("renames_done_but_failed", 1)
        assert client.patch(one(number)) == 200
        assert shim.left("renames_done_but_failed") == 0
        assert json.loads(client.ask("GET", URL)[2])[-1] == one(number)


def lose_a_handle(client: Annotator, place: Place, shim: Shim, field: str, first: int) -> None:
    """One request fails with ESTALE and says so; nothing of it is made, and the next one goes well."""
    acknowledged, failed = place.stored(), 0
    for number in range(first, first + FAILURES):
        shim.set(field, 1)
        status, headers, body = client.ask("PATCH", f"{URL}?id={one(number)['id']}", one(number))
        if status == 200:
            acknowledged |= by_id([one(number)])
        else:
            failed += 1
            assert (status, headers["Content-Type"]) == (503, "application/problem+json"), body
            assert (b"Stale" in body, str(place.root).encode() in body) == (True, False)
        shim.set(field, 1)
        status, _, body = client.ask("GET", URL)
        assert status in (200, 503), body
        assert status == 503 or by_id(json.loads(body)) == acknowledged
        shim.set(field, 0)
        assert place.stored() == acknowledged, "an edit that was refused was made, or one acknowledged was not"
        item = one(number + FAILURES)
        assert client.patch(item) == 200
        acknowledged |= by_id([item])
        assert by_id(json.loads(client.ask("GET", URL)[2])) == acknowledged
    print(f"{field}: {failed} of {FAILURES} edits were refused")  # noqa: T201
    assert failed > 0


class OutOfDate:
    """One annotator and readers, while what the kernel says of the file is what it was before."""

    def __init__(self, port: int, shim: Shim) -> None:
        self.port = port
        self.shim = shim
        self.over = threading.Event()
        self.acknowledged: dict[str, Item] = {}
        self.refused = 0
        self.answers: Counter[int] = Counter()

    def disturb(self) -> None:
        """Have one or two questions for attributes answered with old ones, again and again."""
        dice = random.Random(1)
        while not self.over.wait(0.003):
            self.shim.set("old_attributes", dice.randrange(1, 3))

    def edit(self) -> None:
        """Add, change and delete."""
        try:
            with Annotator(self.port) as client:
                for number in range(4 * EACH):
                    self.edit_once(client, number)
        finally:
            self.over.set()

    def edit_once(self, client: Annotator, number: int) -> None:
        """One edit, which may be refused."""
        item = one(number % 50) | {"description": "x" * (number % 37)}
        url, delete = f"{URL}?id={item['id']}", number % 5 == 4 and item["id"] in self.acknowledged
        status, _, body = client.ask("DELETE", url) if delete else client.ask("PATCH", url, item)
        if status != 200:
            assert status == 500, body
            self.refused += 1
        elif delete:
            del self.acknowledged[item["id"]]
        else:
            self.acknowledged[item["id"]] = item

    def read(self) -> None:
        """Whole versions or an error, but never nothing."""
        with Annotator(self.port) as client:
            while not self.over.is_set():
                status, headers, body = client.ask("GET", URL)
                self.answers[status] += 1
                assert status in (200, 500), body
                if status == 200:
                    assert headers["ETag"].strip('"') == hashlib.sha256(body).hexdigest()[:32]
                    json.loads(body)


def test_attributes_that_are_out_of_date(start_server: StartServer, place: Place, shim: Shim) -> None:
    """Of the size as well: a network file system would ask anew when a file is opened."""
    run = OutOfDate(start_server(place.root, workers=2).port, shim)
    with Annotator(run.port) as client:
        assert client.ask("PUT", URL, some(20))[0] == 200
        run.acknowledged = by_id(some(20))
        together(4, lambda who: [run.disturb, run.edit, run.read, run.read][who]())
        shim.set("old_attributes", 0)
        print(f"{run.refused} of {4 * EACH} edits refused, GETs answered {dict(run.answers)}")  # noqa: T201
        assert client.patch(one(999)) == 200
    assert place.stored() == run.acknowledged | by_id([one(999)])
    assert_no_findings(place)


async def test_what_nfs_leaves_of_deleted_files_is_no_annotation(connect: Connect, place: Place) -> None:
    client = await connect()
    assert (await client.put(URL, json=some(3))).status == 200
    leftovers = [place.block / ".nfs00000000012c0a9b00000001", place.history / ".nfs00000000012c0a9b00000002"]
    for leftover in leftovers:
        leftover.write_bytes(b"what is still open somewhere")
    assert (await client.patch(f"{URL}?id={one(1)['id']}", json=one(1))).status == 200
    listed = await (await client.get(BLOCKS)).json()
    assert [leaf["leaf"] for block in listed["blocks"] for leaf in block["leaves"]] == ["fibers"]
    again = await connect()  # a new process tidies up what its kind left
    assert (await again.patch(f"{URL}?id={one(2)['id']}", json=one(2))).status == 200
    assert (await again.get(URL)).status == 200
    assert all(leftover.exists() for leftover in leftovers)
    assert place.stored() == by_id([*some(3), one(1), one(2)])
    await asyncio.to_thread(assert_no_findings, place)


def kept_bodies(state: Path) -> int:
    """How many refused saves a server keeps."""
    return len(list(state.glob("*/refused/*.body.gz")))


def refused_for_want_of_locks(client: Annotator, method: str, url: str, body: object) -> None:
    """The edit is refused, and it is said why."""
    status, headers, answered = client.ask(method, url, body)
    assert (status, headers["Content-Type"]) == (503, "application/problem+json"), answered
    assert b"lock" in answered


def test_where_files_cannot_be_locked_edits_are_refused_with_the_reason(
    start_server: StartServer, place: Place, shim: Shim
) -> None:
    Editor(place).replace(some(3))
    shim.set("no_locks", 1)
    server = start_server(place.root, workers=2)
    before = place.file().read_bytes()
    with Annotator(server.port) as client:
        refused_for_want_of_locks(client, "PUT", URL, some(5))
        refused_for_want_of_locks(client, "PATCH", f"{URL}?id=a", {"type": "point", "point": [1, 2, 3]})
        refused_for_want_of_locks(client, "DELETE", f"{URL}?id={some(1)[0]['id']}", None)
        status, _, body = client.ask("GET", URL)
        assert (status, body) == (200, before)
    assert place.file().read_bytes() == before
    assert kept_bodies(server.log.with_name("state")) == 1
    check_log(place)


def test_locks_that_fail_later_refuse_edits_until_they_hold_again(
    start_server: StartServer, place: Place, shim: Shim
) -> None:
    server = start_server(place.root, workers=2)
    with Annotator(server.port) as client:
        assert client.ask("PUT", URL, some(3))[0] == 200
        shim.set("no_locks", 1)
        refused_for_want_of_locks(client, "PUT", URL, some(5))
        refused_for_want_of_locks(client, "PATCH", f"{URL}?id=a", {"type": "point", "point": [1, 2, 3]})
        refused_for_want_of_locks(client, "DELETE", f"{URL}?id={some(1)[0]['id']}", None)
        assert client.ask("GET", URL)[0] == 200
        assert kept_bodies(server.log.with_name("state")) == 1
        assert place.stored() == by_id(some(3))
        shim.set("no_locks", 0)
        assert client.patch(one(1)) == 200
    assert place.stored() == by_id([*some(3), one(1)])
    check_log(place)


@pytest.mark.parametrize("each", [EACH, pytest.param(40 * EACH, marks=pytest.mark.nightly)])
def test_two_servers_on_one_root_lose_nothing(start_server: StartServer, place: Place, each: int) -> None:
    """As from two hosts: each has a writer and a state directory of its own, and knows nothing of the other."""
    ports = [start_server(place.root, workers=2).port for _ in range(2)]
    annotators = 6
    states: list[dict[str, Item]] = [{} for _ in range(annotators)]
    versions: list[int] = []

    def annotate(who: int) -> None:
        mine, dice, sides = states[who], random.Random(who), [Annotator(port) for port in ports]
        for number in range(each):
            side, item = dice.choice(sides), point(who * 1000 + dice.randrange(15), who, number, 1)
            if dice.random() < 0.3 and mine:
                id = dice.choice(sorted(mine))
                status, headers, body = side.ask("DELETE", f"{URL}?id={id}")
                del mine[id]
            else:
                status, headers, body = side.ask("PATCH", f"{URL}?id={item['id']}", item)
                mine[item["id"]] = item
            assert status == 200, body
            versions.append(int(headers["Precomputed-Version"]))
            seen = by_id(json.loads(dice.choice(sides).ask("GET", URL)[2])) if number % 10 == 0 else None
            assert seen is None or {id for id in mine if seen.get(id) != mine[id]} == set(), "an edit is not seen"
        for side in sides:
            side.connection.close()

    together(annotators, annotate)
    assert place.stored() == {id: item for mine in states for id, item in mine.items()}
    assert sorted(versions) == list(range(1, annotators * each + 1)), "two edits have one version"
    assert check_log(place) == {"fibers": annotators * each}
    assert place.left_behind() == []
