"""What the NeuroTrALE client 1.4.0 does on the wire when a person uses it, with all that it loses on the way.

It never reads again what it saved, ignores what a save is answered, and saves whole files.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tests.conftest import RunningServer
from tests.end_to_end.wire import Answer, Connection, ask

Item = dict[str, Any]
Point = tuple[float, float, float]

ORIGIN = "http://neurotrale.example"
FIBERS, CENTROIDS = "fibers", "centroids"
_SINGLE_PRECISION = ("point", "pointA", "pointB", "center", "radii")
_KNOWN = (
    *("type", "id", *_SINGLE_PRECISION, "points", "anntype", "reviewed", "visited"),
    *("description", "segments", "length"),
)


class NeuroTrale:
    """One open page on the dataset at `dataset`, a URL path; `sent` are its saves as (URL path, items), in order.

    `told` is what the page never looks at: each save as (URL path, items, the header that says what became of it).
    """

    def __init__(self, server: RunningServer, dataset: str) -> None:
        self._server = server
        self._dataset = dataset
        self._voxel_nm = 1.0
        self._ids = itertools.count(1)
        self.block = (0, 0, 0)
        self.z = 0.0
        self.held: dict[str, list[Item]] = {}
        self.sent: list[tuple[str, list[Item]]] = []
        self.told: list[tuple[str, list[Item], str]] = []
        self.statuses: list[int] = []

    @property
    def slice_leaf(self) -> str:
        """`z-NNNN`: the last four digits of the depth in nanometres."""
        return self._slice_leaf(self.z)

    def load(self, z: float) -> None:
        """Open the page at the voxel depth `z`."""
        info = self._get("info")
        self._voxel_nm = float(info["scales"][0]["resolution"][2])
        self.block, self.z = (0, 0, 0), z
        self._read_block()
        self._get("tree.json")

    def change_z(self, z: float) -> None:
        """Scroll to another slice: what the next one has no type of is taken from the file of the old one."""
        old_url, old = self._url(self.slice_leaf), self.held.pop(self.slice_leaf)
        self.z = z
        new = self._get_items(self.slice_leaf)
        replaced = {item["anntype"] for item in new}
        for anntype in _types(old):
            if anntype not in replaced:
                replaced.add(anntype)
                self._save(old_url, [item for item in old if item["anntype"] not in replaced])
        if not old:
            self._save(old_url, [])
        self.held[self.slice_leaf] = new

    def double_click(self, x: int, y: int) -> None:
        """Choose the block under the pointer: it is named by the voxel itself."""
        self.block = (x, y, math.floor(self.z))
        self._read_block()

    def add(self, leaf: str, item: Mapping[str, Any]) -> str:
        """Draw an annotation; returns the id that the client makes up."""
        identifier = f"{id(self):x}{next(self._ids):x}".rjust(40, "a")[-40:]
        self._change(leaf, [*self.held[leaf], {**item, "id": identifier, "reviewed": False, "visited": False}])
        return identifier

    def drag(self, leaf: str, identifier: str, way: Sequence[Point]) -> None:
        """Drag a point: one save for each move of the pointer, none awaited, and one when it is let go."""
        bodies = []
        for position in way:
            self.held[leaf] = [
                {**item, "point": list(position)} if item["id"] == identifier else item for item in self.held[leaf]
            ]
            bodies.append(sent_by_client(self.held[leaf]))
        with ThreadPoolExecutor(6) as connections:  # as many as a browser opens to one host
            list(connections.map(lambda items: self._save(self._url(leaf), items), bodies))
        self._save(self._url(leaf), bodies[-1])

    def delete(self, leaf: str, identifier: str) -> None:
        """Remove one annotation."""
        self._change(leaf, [item for item in self.held[leaf] if item["id"] != identifier])

    def ask(self, path: str) -> Answer:
        """What the person behind the page asks by hand."""
        return ask(self._server, "GET", path)

    def _change(self, leaf: str, items: list[Item]) -> None:
        self.held[leaf] = items
        self._save(self._url(leaf), items)

    def _read_block(self) -> None:
        self.held = {leaf: self._get_items(leaf) for leaf in (self.slice_leaf, FIBERS, CENTROIDS)}

    def _slice_leaf(self, z: float) -> str:
        return f"z-{math.floor(z * self._voxel_nm) % 10_000:04d}"

    def _url(self, leaf: str) -> str:
        x, y, z = self.block
        return f"{self._dataset}/annotations/x{x}y{y}z{z}/{leaf}.json"

    def _get(self, path: str) -> Any:  # noqa: ANN401  # any JSON value
        answer = self._noted(ask(self._server, "GET", f"{self._dataset}/{path}", Origin=ORIGIN))
        return answer.json() if answer.status == 200 else None

    def _get_items(self, leaf: str) -> list[Item]:
        """An answer that is no success is read as no annotations."""
        answer = self._noted(ask(self._server, "GET", self._url(leaf), Origin=ORIGIN))
        items: list[Item] = answer.json() if answer.status == 200 else []
        return items

    def _save(self, url: str, items: list[Item]) -> None:
        body = sent_by_client(items)
        self.sent.append((url, body))
        with Connection(self._server) as connection:
            asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "PUT"}
            allowed = self._noted(connection.request("OPTIONS", url, headers=asked))
            if "PUT" not in allowed.headers.get("access-control-allow-methods", ""):
                return  # the browser does not send it, and nobody is told
            kind = {"Origin": ORIGIN, "Content-Type": "text/plain;charset=UTF-8"}
            text = json.dumps(body, separators=(",", ":")).encode()
            answer = self._noted(connection.request("PUT", url, text, kind))
            self.told.append((url, body, answer.headers.get("precomputed-edit", "")))

    def _noted(self, answer: Answer) -> Answer:
        """A browser gives no answer to the page that does not allow its origin."""
        self.statuses.append(answer.status)
        assert answer.headers.get("access-control-allow-origin") == "*"
        return answer


def sent_by_client(items: Iterable[Item]) -> list[Item]:
    """What a save makes of annotations: grouped by type, rounded, and without what the client does not know."""
    listed = list(items)
    return [_round_trip(item) for anntype in _types(listed) for item in listed if item["anntype"] == anntype]


def _round_trip(item: Item) -> Item:
    kept = {name: value for name, value in item.items() if name in _KNOWN}
    for name in _SINGLE_PRECISION:
        if name in kept:
            kept[name] = [float(np.float32(number)) for number in kept[name]]
    if "length" in kept:
        kept["length"] = int(kept["length"])
    return kept


def _types(items: Iterable[Item]) -> list[str]:
    """The types in the order in which they come first."""
    return list(dict.fromkeys(item["anntype"] for item in items))
