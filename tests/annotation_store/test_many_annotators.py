"""Thirty-two people on one block at a time, each in another way: nothing is lost, and nobody undoes what others did."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from annotation_store.model import Item
from precomputed_server.format.geometry import Vector
from tests.annotation_store.conftest import ROOMY
from tests.annotation_store.support import Editor, Place, by_id, check_log
from tests.annotation_store.test_concurrency import URL, Annotator, together
from tests.conftest import RunningServer, StartServer

FIBRES = 500
ANNOTATORS = 32
PAGES = 6
"""How many of them have a page that saves the whole file."""

MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}


@pytest.fixture
def extent() -> Vector:
    """These tests draw anywhere."""
    return ROOMY


def fibre(number: int, **fields: Any) -> Item:
    """A fibre of five points."""
    points = [[number + 0.5, step * 2.0, 3.25] for step in range(5)]
    return {"id": f"{number:040x}", "type": "linestring", "points": points, "anntype": "axon", **fields}


class Tracer:
    """One annotator: has fibres of their own, and one field of every common one that nobody else touches.

    `own` is what must be there of theirs at the end; `given` are the fields of common fibres as they set them.
    """

    def __init__(self, who: int, client: Annotator) -> None:
        self.who = who
        self.client = client
        self.dice = random.Random(who)
        self.own: dict[str, Item] = {}
        self.given: dict[str, dict[str, Any]] = {}
        self.count = 0

    def edit(self, number: int) -> None:
        """Make one edit."""
        wish = self.dice.random()
        if not self.own or wish < 0.3:
            self.add(fibre(1000 * (self.who + 1) + self.count, description=f"by {self.who}"))
            self.count += 1
        elif wish < 0.45:
            self.delete(self.dice.choice(list(self.own)))
        elif wish < 0.6:
            self.change(self.dice.choice(list(self.own)), {"description": f"by {self.who}, edit {number}"})
        else:
            common, fields = self.common(), self.fields(number)
            self.mark(common, fields)
            self.given.setdefault(common, {}).update(fields)

    def common(self) -> str:
        """One of the common fibres."""
        return str(fibre(self.dice.randrange(FIBRES))["id"])

    def fields(self, number: int) -> dict[str, Any]:
        """A field of a common fibre that is this annotator's alone; one of them moves its points."""
        if self.who == PAGES:
            return {"points": [[number + 0.25, step * 3.0, 3.25] for step in range(4)]}
        return {f"of_{self.who}": number}

    def add(self, item: Item) -> None:
        self.own[item["id"]] = item
        self.send("PATCH", item["id"], item)

    def delete(self, id: str) -> None:
        del self.own[id]
        self.send("DELETE", id)

    def change(self, id: str, fields: Mapping[str, Any]) -> None:
        self.own[id] = {**self.own[id], **fields}
        self.send("PATCH", id, self.own[id])

    def mark(self, id: str, fields: Mapping[str, Any]) -> None:
        self.send("PATCH", id, fields, **MERGE_PATCH)

    def send(self, method: str, id: str, body: object = None, **headers: str) -> None:
        """Send one edit, which must be acknowledged."""
        status, _, answer = self.client.ask(method, f"{URL}?id={id}", body, **headers)
        assert status == 200, answer


class Page(Tracer):
    """An annotator whose page saves the whole file, and never looks at what others do."""

    FIELDS = ("description", "anntype", "segments")

    def __init__(self, who: int, client: Annotator) -> None:
        super().__init__(who, client)
        self.url = f"/~page-{who}{URL}"
        status, _, body = client.ask("GET", self.url)
        assert status == 200
        self.held = by_id(json.loads(body))

    def fields(self, number: int) -> dict[str, Any]:
        """The page's own field of a common fibre."""
        name = self.FIELDS[self.who % 3]
        return {name: [[f"{self.who}-{number}"]] if name == "segments" else f"{self.who}-{number}"}

    def common(self) -> str:
        """A page's fields are some that the client knows, and as there are few of them, it has half of the fibres."""
        return str(fibre(2 * self.dice.randrange(FIBRES // 2) + self.who // 3)["id"])

    def add(self, item: Item) -> None:
        self.own[item["id"]] = self.held[item["id"]] = item
        self.save()

    def delete(self, id: str) -> None:
        del self.own[id], self.held[id]
        self.save()

    def change(self, id: str, fields: Mapping[str, Any]) -> None:
        self.own[id] = self.held[id] = {**self.own[id], **fields}
        self.save()

    def mark(self, id: str, fields: Mapping[str, Any]) -> None:
        self.held[id] = {**self.held[id], **fields}
        self.save()

    def save(self) -> None:
        """Save all that the page holds."""
        connection = self.client.connection
        connection.request("PUT", self.url, orjson.dumps(list(self.held.values())))
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        assert answer.headers["Precomputed-Edit"] in ("applied", "merged")


def trace_together(server: RunningServer, each: int, of_a_page: int) -> list[Tracer]:
    """Let everybody make that many edits at once, which for a page are saves of the whole file."""
    tracers: list[Tracer] = []

    def trace(who: int) -> None:
        with Annotator(server.port) as client:
            tracer = (Page if who < PAGES else Tracer)(who, client)
            tracers.append(tracer)
            for number in range(of_a_page if who < PAGES else each):
                tracer.edit(number)

    together(ANNOTATORS, trace)
    return tracers


def undone(stored: Mapping[str, Item], tracers: list[Tracer]) -> list[str]:
    """What is not as its annotators left it: the ids, and the fields where there are some."""
    wanted = by_id(fibre(number) for number in range(FIBRES))
    for tracer in tracers:
        wanted.update(tracer.own)
        for id, fields in tracer.given.items():
            wanted[id] = wanted[id] | fields
    found = [id for id in {*wanted, *stored} if (id in wanted) != (id in stored)]
    both = wanted.keys() & stored.keys()
    fields_of = {id: {*wanted[id], *stored[id]} for id in both}
    wrong = [(id, name) for id in both for name in fields_of[id] if wanted[id].get(name) != stored[id].get(name)]
    return found + [f"{id} {name}" for id, name in wrong]


@pytest.mark.component
@pytest.mark.parametrize(("each", "of_a_page"), [(150, 50), pytest.param(500, 500, marks=pytest.mark.nightly)])
def test_nothing_is_lost_or_undone_on_a_block_of_five_hundred_fibres(
    start_server: StartServer, place: Place, each: int, of_a_page: int
) -> None:
    Editor(place).replace(fibre(number) for number in range(FIBRES))
    server = start_server(place.root, workers=4)
    begun = time.monotonic()
    tracers = trace_together(server, each, of_a_page)
    seconds = time.monotonic() - begun
    stored = place.stored()
    assert undone(stored, tracers) == []
    edits = (ANNOTATORS - PAGES) * each + PAGES * of_a_page
    assert check_log(place)["fibers"] == edits + 1
    assert place.left_behind() == []
    print(f"{ANNOTATORS} annotators made {edits} edits in {seconds:.1f} s")  # noqa: T201
    # The comparison sees one that is lost, one that nobody made, and a field that was undone.
    lost = next(iter(stored))
    assert undone({id: item for id, item in stored.items() if id != lost}, tracers) == [lost]
    assert undone({**stored, "nobody's": {"id": "nobody's"}}, tracers) == ["nobody's"]
    id, fields = next(iter(tracers[0].given.items()))
    name = next(iter(fields))
    assert undone({**stored, id: {**stored[id], name: "before"}}, tracers) == [f"{id} {name}"]
