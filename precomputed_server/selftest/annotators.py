"""Simulated people and programs that edit one annotation at a time, and readers who check what they see."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from precomputed_server.selftest.checker import TORN
from precomputed_server.selftest.client import Answer, Connection, UnansweredError, etag_of
from precomputed_server.selftest.history import History, Item, Items, Operation, Read, Write

FIBERS, CENTROIDS = "fibers", "centroids"
SLICES = ("z-0003", "z-0004", "z-0005")
LEAVES = (FIBERS, CENTROIDS, *SLICES)
ANNTYPES = ("neuron", "glia", "vessel")

REFUSED = "refused"
"""An answer that says that a good request was a bad one, or that the server failed."""

FEWEST = 12
"""Annotations of a leaf below which nobody deletes one: a save that empties a leaf means something else."""

MOST = 60
"""Annotations of a leaf from which on nobody adds one."""

_RETRY_PAUSES_S = (0.02, 0.3)
_READING_PAUSES_S = (0.0, 0.01)
_DROP_PAUSES_S = (0.0, 0.03)
_GIVES_UP_AFTER_S = 60.0


@dataclass(frozen=True)
class Desk:
    """What all annotators of a run share: where the servers are, the notebook, when to stop."""

    ports: Sequence[int]
    dataset: str
    block: str
    history: History
    over: threading.Event
    drop_share: float = 0.0
    """The part of answers to single edits that is dropped, so that the request is repeated."""

    def port_of(self, number: int) -> int:
        """The port of the server that the annotator of that number uses."""
        return self.ports[number % len(self.ports)]

    def url(self, leaf: str, prefix: str = "") -> str:
        """The path of a leaf's file."""
        return f"{prefix}/{self.dataset}/annotations/{self.block}/{leaf}.json"

    def complain_of(self, who: str, leaf: str, answer: Answer) -> None:
        """Note an answer that no good request should get; 503 and 507 are allowed at any time."""
        if answer.status >= 400 and answer.status not in (503, 507):
            shown = answer.body[:200].decode(errors="replace")
            self.history.complain(REFUSED, leaf, f"{who} was answered {answer.status}: {shown}")


class Annotator(Protocol):
    """Somebody who does one thing after the other until the run is over."""

    who: str

    def step(self) -> None:
        """Do one thing."""
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class Values:
    """Values that nobody else gives and that are given once: every lost update shows."""

    def __init__(self, number: int, name: str, exact: bool) -> None:
        self._number = number
        self._name = name
        self._shift = 0.1 if exact else 0.0  # what float32 cannot hold must survive the saves of others
        self._count = 0

    def text(self) -> str:
        """A text."""
        self._count += 1
        return f"{self._name} {self._count}"

    def place(self, leaf: str) -> list[float]:
        """A position x, y, z in voxels."""
        self._count += 1
        depth = float(leaf[2:]) if leaf in SLICES else 7.0
        return [self._count * 0.25 + self._shift, float(self._number), depth + 0.5]

    def geometry(self, leaf: str) -> Item:
        """Type and coordinates of an annotation: a path in the leaf of fibres, a point elsewhere."""
        if leaf == FIBERS:
            return {"type": "linestring", "points": [self.place(leaf) for _ in range(6)]}
        return {"type": "point", "point": self.place(leaf)}


def new_id(dice: random.Random) -> str:
    """An id as the NeuroTrALE client makes them: 40 hexadecimal digits."""
    return f"{dice.getrandbits(160):040x}"


def first_item(leaf: str, values: Values, dice: random.Random) -> Item:
    """An annotation that lies there from the beginning."""
    return _item(new_id(dice), leaf, values, dice)


def _item(id: str, leaf: str, values: Values, dice: random.Random) -> Item:
    return {
        "id": id,
        **values.geometry(leaf),
        "anntype": dice.choice(ANNTYPES),
        "reviewed": dice.random() < 0.5,
        "visited": False,
        "description": values.text(),
        "note": values.text(),  # the whole-file client does not know this field and does not send it back
    }


class OneByOne:
    """A client that adds, replaces and deletes single annotations, and repeats a request until it is answered."""

    def __init__(self, desk: Desk, number: int, seed: int) -> None:
        self.who = f"editor {number}"
        self._desk = desk
        self._dice = random.Random(seed)
        self._values = Values(number, self.who, exact=True)
        self._connection = Connection(desk.port_of(number), self.who)
        self._known: dict[str, list[str]] = {leaf: [] for leaf in LEAVES}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def step(self) -> None:
        """Read, add, replace or delete."""
        leaf = self._dice.choice(LEAVES)
        known = self._known[leaf]
        if not known or self._dice.random() < 0.15:
            self._read(leaf)
            return
        wish = self._dice.random()
        if wish < 0.25 and len(known) < MOST:
            self.add(leaf)
        elif wish < 0.4 and len(known) > FEWEST:
            self._delete(leaf, known.pop(self._dice.randrange(len(known))))
        else:
            self._put(leaf, self._dice.choice(known))

    def add(self, leaf: str) -> None:
        """Add an annotation."""
        self._put(leaf, new_id(self._dice))

    def _read(self, leaf: str) -> None:
        try:
            answer = self._connection.ask("GET", self._desk.url(leaf))
        except UnansweredError:
            time.sleep(self._dice.uniform(*_RETRY_PAUSES_S))
            return
        if answer.status == 200:
            self._known[leaf] = [item["id"] for item in orjson.loads(answer.body)]

    def _put(self, leaf: str, id: str) -> None:
        item = _item(id, leaf, self._values, self._dice)
        if id not in self._known[leaf]:
            self._known[leaf].append(id)
        wish = Operation(self.who, leaf, writes=(Write(id, item, item, whole=True),))
        self._carry_out(wish, "PATCH", id, orjson.dumps(item))

    def _delete(self, leaf: str, id: str) -> None:
        self._carry_out(Operation(self.who, leaf, removes=(id,)), "DELETE", id, None)

    def _carry_out(self, wish: Operation, method: str, id: str, body: bytes | None) -> None:
        """Send the request until it is answered, always with the same key, so that it is carried out once."""
        headers = {
            "Idempotency-Key": str(uuid.UUID(int=self._dice.getrandbits(128))),
            "Content-Type": "application/json",
        }
        path = f"{self._desk.url(wish.leaf)}?id={id}"
        deadline = time.monotonic() + _GIVES_UP_AFTER_S
        with self._desk.history.invoked(wish) as attempt:
            repeated = False
            while time.monotonic() < deadline:
                answer = self._asked(method, path, body, headers)
                if answer is None or answer.status >= 500:
                    repeated = True
                    if answer is not None:
                        self._desk.complain_of(self.who, wish.leaf, answer)
                    time.sleep(self._dice.uniform(*_RETRY_PAUSES_S))
                    continue
                attempt.version = answer.version
                if answer.status < 300:
                    attempt.result = "ok"
                elif answer.status == 404 and method == "DELETE":
                    attempt.result = "info" if repeated else "fail"  # repeated: an earlier attempt may have deleted it
                else:
                    self._desk.complain_of(self.who, wish.leaf, answer)
                return

    def _asked(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer | None:
        if self._dice.random() < self._desk.drop_share:
            self._desk.history.dropped.append(path)
            self._connection.send_only(method, path, body, headers, self._dice.uniform(*_DROP_PAUSES_S))
            return None
        try:
            return self._connection.ask(method, path, body, headers)
        except UnansweredError:
            return None


class Reader:
    """A client that reads leaf after leaf and checks that it sees whole versions."""

    def __init__(self, desk: Desk, number: int, seed: int) -> None:
        self.who = f"reader {number}"
        self._desk = desk
        self._dice = random.Random(seed)
        self._connection = Connection(desk.port_of(number), self.who)
        self._seen: dict[str, frozenset[str]] = {leaf: frozenset() for leaf in LEAVES}

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def step(self) -> None:
        """Read one leaf, and leave the machine to those who edit for a moment."""
        self.read(self._dice.choice(LEAVES))
        time.sleep(self._dice.uniform(*_READING_PAUSES_S))

    def read(self, leaf: str) -> None:
        """Read that leaf."""
        invoked = time.monotonic_ns()
        try:
            answer = self._connection.ask("GET", self._desk.url(leaf))
        except UnansweredError:
            time.sleep(self._dice.uniform(*_RETRY_PAUSES_S))
            return
        ended = time.monotonic_ns()
        if answer.status not in (200, 404):
            self._desk.complain_of(self.who, leaf, answer)
            return
        items = self._items(leaf, answer)
        if items is None:
            return
        seen, now = self._seen[leaf], frozenset(items)
        self._seen[leaf] = now
        etag = answer.etag if answer.status == 200 else None
        self._desk.history.reads.append(Read(self.who, leaf, invoked, ended, etag, now - seen, seen - now))

    def _items(self, leaf: str, answer: Answer) -> Items | None:
        """What was answered, by id; None for what is no whole version."""
        if answer.status == 404:
            return {}
        reason = _why_torn(answer)
        if reason is not None:
            self._desk.history.complain(TORN, leaf, f"{self.who} was answered {reason}")
            return None
        return {item["id"]: item for item in orjson.loads(answer.body)}


def _why_torn(answer: Answer) -> str | None:
    if answer.etag != etag_of(answer.body):
        return f"{len(answer.body)} bytes with the entity tag {answer.etag!r}, which is not theirs"
    try:
        items: Any = orjson.loads(answer.body)
    except orjson.JSONDecodeError as error:
        return f"what is no JSON: {error}"
    if not isinstance(items, list) or len({item["id"] for item in items}) != len(items):
        return "what is no list of annotations with different ids"
    return None
