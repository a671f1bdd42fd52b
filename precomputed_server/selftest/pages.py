"""Simulated pages of the NeuroTrALE client: they save whole files, ignore the answers, and never read again.

What such a page means by a save is the difference to what it held before. Every save passes its annotations through
the client's losses: fields that it does not know are dropped, coordinates are rounded to float32.
"""

from __future__ import annotations

import contextlib
import random
import struct
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import orjson

from precomputed_server.selftest.annotators import (
    ANNTYPES,
    CENTROIDS,
    FEWEST,
    FIBERS,
    MOST,
    SLICES,
    Desk,
    Values,
    new_id,
)
from precomputed_server.selftest.client import Answer, Connection, UnansweredError
from precomputed_server.selftest.history import Item, Items, Operation, Write

_CONNECTIONS = 3
_KIND = {"Content-Type": "text/plain;charset=UTF-8", "Origin": "http://neurotrale.example"}
_SINGLE_PRECISION = ("point", "pointA", "pointB", "center", "radii")
_KNOWN = (
    *("type", "id", *_SINGLE_PRECISION, "points", "anntype", "reviewed", "visited"),
    *("description", "segments", "length"),
)


class Page:
    """One open page. `shared`: others have the same key, so nobody can be sure what this page held."""

    def __init__(self, desk: Desk, number: int, seed: int, *, shared: bool) -> None:
        self.who = f"{'bare ' if shared else ''}page {number}"
        self._desk = desk
        self._shared = shared
        self._prefix = "" if shared else f"/~page{number}-{seed}.voxel"
        self._dice = random.Random(seed)
        self._values = Values(number, self.who, exact=False)
        agent = "Mozilla/5.0 (whole-file client)" if shared else f"Mozilla/5.0 (page {number})"
        self._connections = [Connection(desk.port_of(0 if shared else number), agent) for _ in range(_CONNECTIONS)]
        self._free = list(self._connections)
        self._taking = threading.Lock()
        self._pool = ThreadPoolExecutor(_CONNECTIONS, "page")
        self._held: dict[str, Items] = {}
        self._unsure: set[str] = set()
        """Leaves of which it is not known whether the server knows what this page holds."""
        self._slice = SLICES[0]
        self._open()

    def close(self) -> None:
        """Close the page."""
        self._pool.shutdown()
        for connection in self._connections:
            connection.close()

    def step(self) -> None:
        """Do one thing that a person does, or scroll, or load the page anew."""
        wish = self._dice.random()
        if wish < 0.04:
            self._open()
            return
        if wish < 0.14:
            self._scroll(self._dice.choice([leaf for leaf in SLICES if leaf != self._slice]))
            return
        leaf = self._dice.choice((FIBERS, CENTROIDS, self._slice))
        held = self._held[leaf]
        if not held or (wish < 0.4 and len(held) < MOST):
            self._add(leaf)
        elif wish < 0.5 and len(held) > FEWEST:
            self._delete(leaf, self._dice.choice(list(held)))
        elif wish < 0.7:
            self._drag(leaf, self._dice.choice(list(held)))
        elif wish < 0.8:
            item = self._dice.choice(list(held.values()))
            self._change(leaf, item["id"], {"reviewed": not item.get("reviewed", False)})
        else:
            self._change(leaf, self._dice.choice(list(held)), {"description": self._values.text()})

    def _open(self) -> None:
        self._held = {leaf: self._read(leaf) for leaf in (self._slice, FIBERS, CENTROIDS)}

    def _scroll(self, leaf: str) -> None:
        """Go to another slice: types that the new one has none of are wiped from the file of the old one."""
        old_leaf, old = self._slice, self._held.pop(self._slice)
        self._slice = leaf
        new = self._held[leaf] = self._read(leaf)
        replaced = {item["anntype"] for item in new.values()}
        left = old
        for anntype in dict.fromkeys(item["anntype"] for item in old.values()):
            if anntype not in replaced:
                replaced.add(anntype)
                left = {id: item for id, item in left.items() if item["anntype"] not in replaced}
                self._wipe(old_leaf, old, left)
        if not old:
            self._wipe(old_leaf, old, left)

    def _wipe(self, leaf: str, before: Items, left: Items) -> None:
        """Nobody means this: nothing may be removed. But without the new slice's GET the server cannot know that."""
        doubtful = self._shared or self._slice in self._unsure
        removes = tuple(id for id in before if id not in left) if doubtful else ()
        self._save(leaf, left, Operation(self.who, leaf, removes=removes, doubtful=doubtful))

    def _add(self, leaf: str) -> None:
        id = new_id(self._dice)
        item = {
            **self._values.geometry(leaf),
            "id": id,
            "anntype": self._dice.choice(ANNTYPES),
            "reviewed": False,
            "visited": False,
            "description": self._values.text(),
        }
        self._held[leaf] = {**self._held[leaf], id: item}
        sent = _round_trip(item)
        self._save(leaf, self._held[leaf], Operation(self.who, leaf, writes=(Write(id, sent, sent, whole=True),)))

    def _delete(self, leaf: str, id: str) -> None:
        self._held[leaf] = {other: item for other, item in self._held[leaf].items() if other != id}
        self._save(leaf, self._held[leaf], Operation(self.who, leaf, removes=(id,)))

    def _change(self, leaf: str, id: str, fields: Item) -> None:
        items, wish = self._changed(leaf, id, fields)
        self._save(leaf, items, wish)

    def _changed(self, leaf: str, id: str, fields: Item) -> tuple[Items, Operation]:
        item = {**self._held[leaf][id], **fields}
        self._held[leaf] = {**self._held[leaf], id: item}
        sent = _round_trip(item)
        write = Write(id, {name: sent[name] for name in fields}, sent)
        return self._held[leaf], Operation(self.who, leaf, writes=(write,))

    def _drag(self, leaf: str, id: str) -> None:
        """Drag a point: one save for each move of the pointer, none awaited, and one when it is let go."""
        saves = [
            self._changed(leaf, id, self._moved(leaf, self._held[leaf][id])) for _ in range(self._dice.randint(2, 5))
        ]
        list(self._pool.map(lambda save: self._save(leaf, *save), saves))
        items, wish = saves[-1]
        self._save(leaf, items, replace(wish, repeats=True))

    def _moved(self, leaf: str, item: Item) -> Item:
        if item["type"] == "point":
            return {"point": self._values.place(leaf)}
        points: Sequence[list[float]] = item["points"]
        place = self._dice.randrange(len(points))
        return {"points": [*points[:place], self._values.place(leaf), *points[place + 1 :]]}

    def _read(self, leaf: str) -> Items:
        """An answer that is no success is read as no annotations, as the client does it."""
        answer = self._asked_again(self._desk.url(leaf, self._prefix))
        if answer is None:
            self._unsure.add(leaf)
            return {}
        if answer.status == 200:
            self._unsure.discard(leaf)
            return {item["id"]: item for item in orjson.loads(answer.body)}
        if answer.status != 404:
            self._unsure.add(leaf)
            self._desk.complain_of(self.who, leaf, answer)
        return {}

    def _asked_again(self, url: str) -> Answer | None:
        """GET as a browser does it: once more, on a new connection, when the one that it had broke."""
        connection = self._taken()
        try:
            for _ in range(2):
                with contextlib.suppress(UnansweredError):
                    return connection.ask("GET", url, headers=_KIND)
        finally:
            self._free.append(connection)
        time.sleep(self._dice.uniform(0.02, 0.2))
        return None

    def _save(self, leaf: str, items: Items, wish: Operation) -> None:
        sent = {item["id"]: _round_trip(item) for item in _grouped(items)}
        held = sent if self._shared else {}
        doubtful = wish.doubtful or self._shared or leaf in self._unsure
        operation = replace(wish, page=True, doubtful=doubtful, held=held)
        connection = self._taken()
        try:
            with self._desk.history.invoked(operation) as attempt:
                body = orjson.dumps(list(sent.values()))
                self._unsure.add(leaf)
                answer = connection.ask("PUT", self._desk.url(leaf, self._prefix), body, _KIND)
                attempt.version, attempt.said = answer.version, answer.said
                if answer.status < 300:
                    attempt.result = "ok"
                    self._unsure.discard(leaf)
                else:
                    self._desk.complain_of(self.who, leaf, answer)
        except UnansweredError:
            time.sleep(self._dice.uniform(0.02, 0.2))
        finally:
            self._free.append(connection)

    def _taken(self) -> Connection:
        with self._taking:
            return self._free.pop()


def _grouped(items: Items) -> list[Item]:
    """In the order in which a save has them: grouped by the kind of annotation."""
    kinds = dict.fromkeys(item["anntype"] for item in items.values())
    return [item for kind in kinds for item in items.values() if item["anntype"] == kind]


def _round_trip(item: Item) -> Item:
    sent = {name: value for name, value in item.items() if name in _KNOWN}
    for name in _SINGLE_PRECISION:
        if name in sent:
            sent[name] = [struct.unpack("f", struct.pack("f", number))[0] for number in sent[name]]
    if "length" in sent:
        sent["length"] = int(sent["length"])
    return sent
