"""Wherever people look at annotations they see one version of them, the newest, whatever was done and by what way."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import ClientResponse

from annotation_store.model import Item
from annotation_store.review import is_confirmed, is_visited
from annotation_store.views.numbers import number_of
from tests.annotation_store.conftest import Client, Connect
from tests.annotation_store.precomputed import decoded, expected_points
from tests.annotation_store.test_events_http import listening
from tests.data import point
from tests.end_to_end.neurotrale import sent_by_client

DATASET = "/brain/annotations"
PLACE = f"{DATASET}/x0y0z0"
COLLECTIONS = {"fibers": "fibers-point", "z-0003": "contours-point"}
STEPS = 12


class Annotators:
    """People who edit the leaves of one block by all ways that there are."""

    def __init__(self, client: Client, seed: int) -> None:
        self.client = client
        self.dice = random.Random(seed)
        self.count = 0
        self.edits = 0

    async def edit(self) -> str:
        """Make one edit; returns the leaf that it is of."""
        ways: list[Callable[[str, list[Item]], Awaitable[ClientResponse | None]]] = [
            *(self.patch, self.change, self.delete, self.save, self.restore),
            *(self.import_table, self.confirm, self.several),
        ]
        leaf = self.dice.choice(sorted(COLLECTIONS))
        answer = await self.dice.choice(ways)(leaf, await self.stored(leaf))
        assert answer is None or answer.status in (200, 201), await answer.text()
        return leaf

    async def stored(self, leaf: str) -> list[Item]:
        """What the leaf holds."""
        answer = await self.client.get(f"{PLACE}/{leaf}.json")
        return await answer.json() if answer.status == 200 else []

    def drawn(self) -> Item:
        """A new annotation."""
        self.count += 1
        x, y = self.dice.uniform(0, 10), self.dice.uniform(0, 8)
        return point(self.count, x, y, 3.5, anntype=self.dice.choice(("neuron", "glia")), reviewed=bool(self.count % 2))

    async def patch(self, leaf: str, items: list[Item]) -> ClientResponse | None:
        item = {**self.drawn(), **({"id": items[0]["id"]} if items and self.dice.random() < 0.5 else {})}
        return await self.client.patch(f"{PLACE}/{leaf}.json?id={item['id']}", json=item)

    async def change(self, leaf: str, items: list[Item]) -> ClientResponse | None:
        if not items:
            return None
        url = f"{PLACE}/{leaf}.json?id={self.dice.choice(items)['id']}"
        headers = {"Content-Type": "application/merge-patch+json"}
        return await self.client.patch(url, data=json.dumps({"anntype": "changed"}), headers=headers)

    async def delete(self, leaf: str, items: list[Item]) -> ClientResponse | None:
        if not items:
            return None
        return await self.client.delete(f"{PLACE}/{leaf}.json?id={self.dice.choice(items)['id']}")

    async def save(self, leaf: str, items: list[Item]) -> ClientResponse | None:
        """A page that read the leaf draws, while somebody else does too: its save is merged."""
        page = f"/~page{self.count}{PLACE}/{leaf}.json"
        await self.client.get(page)
        await self.patch(leaf, [])
        return await self.client.put(page, json=sent_by_client([*items, self.drawn()]))

    async def restore(self, leaf: str, items: list[Item]) -> ClientResponse | None:
        history = await self.client.get(f"{PLACE}/{leaf}/history?limit=1")
        if history.status != 200:
            return None
        version = self.dice.randint(1, (await history.json())["version"])
        return await self.client.post(f"{PLACE}/{leaf}/restore", json={"version": version})

    async def import_table(self, leaf: str, items: list[Item]) -> ClientResponse | None:
        """An export of the leaf in which a position and a kind were edited by hand."""
        exported = await (await self.client.get(f"{DATASET}/export?format=jsonl&leaf={leaf}")).text()
        header, *lines, end = exported.splitlines()
        rows = [json.loads(line) for line in lines]
        if rows:
            rows[0]["annotation"] |= {"point": [1.25, 2.5, 3.75], "anntype": "by hand"}
        rows.append({"block": "x0y0z0", "leaf": leaf, "annotation": self.drawn()})
        body = "\n".join([header, *map(json.dumps, rows), end])
        return await self.client.post(f"/~importer{DATASET}/import?format=jsonl", data=body)

    async def confirm(self, leaf: str, items: list[Item]) -> ClientResponse | None:
        if not items:
            return None
        ids = [self.dice.choice(items)["id"]]
        body = {"reviewed": self.dice.random() < 0.8, "annotations": [{"block": "x0y0z0", "leaf": leaf, "ids": ids}]}
        return await self.client.post(f"/~reviewer{DATASET}/review", json=body)

    async def several(self, leaf: str, items: list[Item]) -> ClientResponse | None:
        edits = [
            {"block": "x0y0z0", "leaf": name, "operation": "put", "id": item["id"], "annotation": item}
            for name, item in ((name, self.drawn()) for name in COLLECTIONS)
        ]
        return await self.client.post(f"{DATASET}/edits", json={"edits": edits})


async def assert_one_version(people: Annotators) -> dict[str, int]:
    """Assert that all views say the same; returns the versions of the leaves."""
    client, versions = people.client, {}
    everything: list[Item] = []
    for leaf, collection in COLLECTIONS.items():
        items = await people.stored(leaf)
        everything += items
        header, *lines, _ = (await (await client.get(f"{DATASET}/export?format=jsonl&leaf={leaf}")).text()).splitlines()
        assert [json.loads(line)["annotation"] for line in lines] == items
        history = await client.get(f"{PLACE}/{leaf}/history?limit=1")
        version = (await history.json())["version"] if history.status == 200 else 0
        if version:
            versions[leaf] = version
        assert json.loads(header)["leaves"].get(f"x0y0z0/{leaf}", [0])[0] == version
        cell = await client.get(f"{DATASET}.precomputed/{collection}/spatial-0/0_0_0")
        shown = decoded("point", await cell.read()) if cell.status == 200 else []
        assert {one.id: (one.points, one.reviewed, one.visited) for one in shown} == {
            number_of(item["id"]): (expected_points(item), is_confirmed(item), is_visited(item)) for item in items
        }
    progress = await (await client.get(f"{DATASET}/progress")).json()
    reviewed, visited = (sum(map(told, everything)) for told in (is_confirmed, is_visited))
    assert [progress[name] for name in ("total", "reviewed", "visited")] == [len(everything), reviewed, visited]
    return versions


@pytest.mark.parametrize("seed", range(10))
async def test_an_edit_is_in_every_view_in_the_same_version(
    connect: Connect, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    client = await connect()
    people = Annotators(client, seed)
    async with listening(client) as events:
        versions: dict[str, int] = {}
        for _ in range(STEPS):
            await people.edit()
            versions = await assert_one_version(people)
        told: dict[str, int] = {}
        while told != versions:  # until the stream has told of the newest versions, or its patience ends
            heard = await events.next()
            told[heard.data["leaf"]] = heard.data["version"]
