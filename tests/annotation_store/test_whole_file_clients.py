"""Eight people with NeuroTrALE on one dataset, with and without sessions: nobody loses what they drew or wrote."""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotation_store.digests import etag_of
from annotation_store.model import Item
from tests.annotation_store.support import Editor, Place, by_id, check_log
from tests.annotation_store.test_concurrency import together
from tests.conftest import RunningServer, StartServer
from tests.data import point, volume, write_annotations, write_dataset
from tests.end_to_end.neurotrale import CENTROIDS, FIBERS, NeuroTrale
from tests.end_to_end.wire import Connection, ask

PEOPLE = 8
COMMON = 24
"""Annotations of a leaf that all of them write to, each to a field of their own."""

DATASET = "/brain"
BLOCK = f"{DATASET}/annotations/x0y0z0"
DEPTHS = (5, 10, 6, 7)
"""At 2,000 nm the slices 5 and 10 share the leaf z-0000, 6 has z-2000 and 7, with nothing on it, z-4000."""


class Person(NeuroTrale):
    """Somebody at a page. What they drew, wrote and removed is noted as it has to be at the end.

    `alone`: no other page has the same key, so the server knows what this one holds.
    """

    def __init__(self, server: RunningServer, who: int, prefix: str, *, alone: bool) -> None:
        super().__init__(server, f"{prefix}{DATASET}")
        self.who = who
        self.alone = alone
        self.dice = random.Random(who)
        self.drawn: dict[str, dict[str, Item]] = {}
        self.removed: dict[str, set[str]] = {}
        self.wrote: dict[tuple[str, str], dict[str, Any]] = {}
        self.wipes: list[tuple[str, str]] = []
        self.count = 0

    def work(self, saves: int) -> None:
        """Do what people do until that many saves were sent."""
        self.load(self.dice.choice(DEPTHS))
        acts = [self.draw, self.remove, self.write, self.pull, self.scroll, self.lose_reading, self.reload]
        shares = [25, 8, 30, 10, 10, 4, 4]
        while len(self.sent) < saves:
            self.dice.choices(acts, shares)[0]()

    def draw(self) -> None:
        """Draw an annotation."""
        leaf = self.dice.choice((FIBERS, CENTROIDS, self.slice_leaf))
        self.count += 1
        place = [self.who + 0.5, self.count * 0.25, self.z + 0.5]
        item = {"type": "point", "anntype": self.dice.choice(("neuron", "glia")), "point": place}
        id = self.add(leaf, item)
        self.drawn.setdefault(leaf, {})[id] = self.held[leaf][-1]

    def remove(self) -> None:
        """Remove one of their own, never the last one of a leaf."""
        leaf = self.dice.choice((FIBERS, CENTROIDS))
        own = [item["id"] for item in self.held[leaf] if item["id"] in self.drawn.get(leaf, {})]
        if own and len(self.held[leaf]) > 1:
            id = self.dice.choice(own)
            del self.drawn[leaf][id]
            self.delete(leaf, id)
            if not self.told[-1][2].startswith("parked"):
                self.removed.setdefault(leaf, set()).add(id)

    def write(self) -> None:
        """Write a value that nobody else gives to their field of a common annotation."""
        leaf = self.dice.choice((FIBERS, CENTROIDS))
        name = self.dice.choice(("description", "segments"))
        id = self.mine(leaf, name)
        if id is not None:
            self.count += 1
            value: Any = f"{self.who}: {self.count}"
            fields = {name: [[value]] if name == "segments" else value}
            self.wrote.setdefault((leaf, id), {}).update(fields)
            self._change(leaf, [{**item, **fields} if item["id"] == id else item for item in self.held[leaf]])

    def pull(self) -> None:
        """Drag a common point: overlapping saves on several connections."""
        id = self.mine(CENTROIDS, "point")
        if id is not None:
            self.count += 10
            steps = self.dice.randint(2, 4)
            way = [(self.who + 0.1, self.count + step + 0.3, 6.5) for step in range(steps)]
            self.wrote.setdefault((CENTROIDS, id), {})["point"] = [float(np.float32(length)) for length in way[-1]]
            self.drag(CENTROIDS, id, way)

    def scroll(self) -> None:
        """Go to another slice: what that one has no type of is wiped from this one."""
        sent = len(self.told)
        self.change_z(self.dice.choice([depth for depth in DEPTHS if depth != self.z]))
        self.wipes += [(url, told) for url, _, told in self.told[sent:]]

    def lose_reading(self) -> None:
        """Read a leaf anew, without success: the page takes it for empty, and may save it like that."""
        leaf = self.dice.choice((FIBERS, CENTROIDS))
        if self.dice.random() < 0.5:
            self._get_items(leaf)  # answered, but the client had aborted it
        several = len(self.held[leaf]) > 1  # else a person might have removed the only one
        self.held[leaf] = []
        if several and self.dice.random() < 0.5:
            self._save(self._url(leaf), [])
            self.wipes.append((self._url(leaf), self.told[-1][2]))
        if self.dice.random() < 0.7:
            self.reload()

    def reload(self) -> None:
        """Load the page anew."""
        self.load(self.z)

    def mine(self, leaf: str, field: str) -> str | None:
        """One of the common annotations whose field of that name is theirs, if the page holds one."""
        shift = ("description", "segments", "point").index(field)
        held = {item["id"] for item in self.held[leaf]}
        own = [common(number)["id"] for number in range(COMMON) if (number + shift) % PEOPLE == self.who]
        return next((id for id in self.dice.sample(own, len(own)) if id in held), None)


def common(number: int) -> Item:
    """An annotation that lies there at first, with a field that the client does not know."""
    return point(number + 1, number + 0.25, 2, 6.25, note=f"kept {number}")


@pytest.fixture
def brain(tmp_path: Path) -> Place:
    """A dataset with 2,000 nm between slices and annotations in every leaf but one."""
    place = Place(tmp_path / "data")
    write_dataset(place.root / "brain", volume((1, 20, 30, 40), "uint8"), resolution_nm=(1800.0, 1800.0, 2000.0))
    (place.root / "brain" / "tree.json").write_text("[]")
    everywhere = [common(number) for number in range(COMMON)]
    slices = {
        "z-0000": [drawn_on(depth, number) for depth in (5, 10) for number in range(3)],
        "z-2000": [drawn_on(6, number) for number in range(2)],
    }
    write_annotations(place.root / "brain", {FIBERS: everywhere, CENTROIDS: everywhere, **slices})
    return place


def drawn_on(depth: int, number: int) -> Item:
    """An annotation in a slice."""
    return point(1000 * depth + number, 5.5, number, depth + 0.5, anntype="neuron" if number % 2 else "glia")


def work_together(server: RunningServer, prefixes: Sequence[str], saves: int) -> list[Person]:
    """Let everybody work at once; `prefixes` are those of their pages."""
    people = [
        Person(server, who, prefix, alone=bool(prefix) and prefixes.count(prefix) == 1)
        for who, prefix in enumerate(prefixes)
    ]
    together(len(people), lambda who: people[who].work(saves))
    return people


def lost(stored: dict[str, dict[str, Item]], people: Sequence[Person], first: dict[str, dict[str, Item]]) -> set[str]:
    """What was drawn, or lay there at first, and is not there although nobody removed it: leaf and id."""
    wanted = [(leaf, id) for leaf, items in first.items() for id in items]
    wanted += [(leaf, id) for person in people for leaf, items in person.drawn.items() for id in items]
    return {f"{leaf} {id}" for leaf, id in wanted if id not in stored.get(leaf, {})}


def clobbered(stored: dict[str, dict[str, Item]], people: Sequence[Person]) -> list[str]:
    """Fields that do not say what the only person said who ever gave them: leaf, id and field."""
    found = []
    for person in people:
        wanted: dict[tuple[str, str], dict[str, Any]] = dict(person.wrote)
        wanted |= {(leaf, id): item for leaf, items in person.drawn.items() for id, item in items.items()}
        for (leaf, id), fields in wanted.items():
            item: Item = stored[leaf].get(id, fields)
            found += [f"{leaf} {id} {name}" for name, value in fields.items() if item.get(name) != value]
    for leaf in (FIBERS, CENTROIDS):
        notes = {item["id"]: item["note"] for item in map(common, range(COMMON))}
        found += [f"{leaf} {id} note" for id, note in notes.items() if stored[leaf][id].get("note") != note]
    return found


def resurrected(stored: dict[str, dict[str, Item]], people: Sequence[Person]) -> list[str]:
    """What was removed by somebody of whose page the server could be sure, and is there all the same."""
    return [
        f"{leaf} {id}"
        for person in people
        if person.alone
        for leaf, ids in person.removed.items()
        for id in ids
        if id in stored[leaf]
    ]


def restorable(server: RunningServer, missing: set[str]) -> Iterator[str]:
    """Of what is missing, what an earlier version of its leaf gives back."""
    with Connection(server) as connection:
        for leaf in {text.partition(" ")[0] for text in missing}:
            version = int(connection.get(f"{BLOCK}/{leaf}/history?limit=1").json()["version"])
            for number in range(1, version + 1):
                answer = connection.get(f"{BLOCK}/{leaf}.json?version={number}")
                assert answer.status == 200
                yield from (f"{leaf} {item['id']}" for item in answer.json() if f"{leaf} {item['id']}" in missing)


def undone_by(server: RunningServer, wrong: str, people: Sequence[Person]) -> str | None:
    """The key of the page that gave a field another value after the one it should have; None: that is in no version."""
    leaf, id, name = wrong.split(" ")
    wanted = [fields[name] for person in people for fields in values_of(person, leaf, id) if name in fields]
    author = None
    for entry in ask(server, "GET", f"{BLOCK}/{leaf}/history?limit=1000&id={id}").json()["entries"]:
        if (entry["after"] or {}).get(name) in wanted:
            return author
        author = str(entry["author"])
    return None


def added_by(server: RunningServer, returned: str) -> str:
    """The key of the page that edited an annotation last."""
    leaf, id = returned.split(" ")
    entries = ask(server, "GET", f"{BLOCK}/{leaf}/history?limit=1&id={id}").json()["entries"]
    return str(entries[0]["author"])


def values_of(person: Person, leaf: str, id: str) -> Iterator[dict[str, Any]]:
    """What somebody gave the fields of an annotation last."""
    yield person.wrote.get((leaf, id), {})
    yield person.drawn.get(leaf, {}).get(id, {})


def stored_leaves(place: Place) -> dict[str, dict[str, Item]]:
    """Every leaf."""
    return {path.stem: by_id(json.loads(path.read_bytes())) for path in place.block.glob("*.json")}


def check_wipes(server: RunningServer, people: Sequence[Person]) -> int:
    """Assert that what a wipe would have removed is parked, unless it removed nothing; returns how many were."""
    parked = {row["id"] for row in ask(server, "GET", f"{DATASET}/annotations/parked").json()["parked"]}
    count = 0
    for person in people:
        for _, told in person.wipes:
            if told.startswith("parked; id="):
                assert told.removeprefix("parked; id=") in parked
                count += 1
    return count


SESSIONS = [f"/~person-{max(1, who)}" for who in range(PEOPLE)]
"""Two tabs of one session, and six sessions."""


@pytest.mark.component
@pytest.mark.parametrize("prefixes", [SESSIONS, [""] * PEOPLE], ids=["sessions", "bare"])
@pytest.mark.parametrize("saves", [200, pytest.param(2000, marks=pytest.mark.nightly)])
def test_nobody_loses_what_they_drew_or_wrote(
    start_server: StartServer, brain: Place, prefixes: list[str], saves: int
) -> None:
    server = start_server(brain.root, workers=4)
    first = stored_leaves(brain)
    begun = time.monotonic()
    people = work_together(server, prefixes, saves)
    seconds = time.monotonic() - begun
    stored = stored_leaves(brain)
    # What a page empties whose key others have as well may be taken for what another one of them removed.
    alone = [person for person in people if person.alone]
    assert lost(stored, alone, first if alone else {leaf: first[leaf] for leaf in (FIBERS, CENTROIDS)}) == set()
    missing = lost(stored, people, first)
    assert missing == set(restorable(server, missing))
    assert len(missing) <= sum(len(person.wipes) for person in people if not person.alone)
    assert {text: undone_by(server, text, people) for text in clobbered(stored, people)} == {}
    assert {text: added_by(server, text) for text in resurrected(stored, people)} == {}
    parked = check_wipes(server, people)
    assert parked > 0
    assert {status for person in people for status in person.statuses} <= {200, 204, 404}
    check_log(brain)
    sent = sum(len(person.sent) for person in people)
    print(f"{sent} saves in {seconds:.1f} s, {parked} wipes parked, {len(missing)} to be restored")  # noqa: T201


@pytest.mark.parametrize(
    ("key", "readings"),
    [
        ("alice", 1),
        ("alice", 2),
        ("127.0.0.1 Mozilla/5.0 -", 1),
        ("127.0.0.1 Mozilla/5.0 -", 2),
    ],
)
def test_a_drag_ends_where_it_ended_in_whatever_order_its_saves_come(
    place: Place, monkeypatch: pytest.MonkeyPatch, key: str, readings: int
) -> None:
    """Two saves that overlapped once left the last place of a drag unsaved: it was taken for one sent before."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)
    orders = list(itertools.permutations(range(4)))
    pairs = random.Random(0).sample(list(itertools.product(orders, orders)), 150)
    editor = Editor(place)
    for number, (arrived, committed) in enumerate(pairs):
        leaf = f"drag-{number}"
        items = [common(each) for each in range(3)]
        editor.replace(items, leaf=leaf)
        path = f"brain/annotations/x0y0z0/{leaf}.json"
        for reading in range(readings):
            editor.store.journal.note_read(key, path, etag_of(place.file(leaf).read_bytes()), reading)
        bodies = [[items[0] | {"point": [step + 0.5, 1, 1]}, *items[1:]] for step in range(4)]
        begun = time.monotonic_ns()
        for step in committed:
            editor.save(bodies[step], leaf=leaf, session=key, arrived=begun + arrived[step])
        editor.save(bodies[-1], leaf=leaf, session=key, arrived=begun + len(bodies))
        assert place.stored(leaf)[items[0]["id"]]["point"] == [3.5, 1, 1], (arrived, committed)
