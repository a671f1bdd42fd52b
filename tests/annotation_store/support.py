"""What the tests of the store share: edits in one line, and readings of its files that use none of its code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from annotation_store.edits import Change, DeleteOne, PutOne, ReplaceAll
from annotation_store.model import Item
from annotation_store.store import AnnotationStore, EditRequest, Outcome
from precomputed_server.errors import PrecomputedError
from precomputed_server.files import Tree
from tests.data import point

BLOCK = "x0y0z0"
LOCK_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Place:
    """A dataset `brain` beneath a root, with one block."""

    root: Path

    @property
    def block(self) -> Path:
        """The directory of the block."""
        return self.root / "brain" / "annotations" / BLOCK

    @property
    def log(self) -> Path:
        """The block's edit log."""
        return self.root / "brain" / "annotations" / ".history" / BLOCK / "log.jsonl"

    def file(self, leaf: str = "fibers") -> Path:
        """The file of a leaf."""
        return self.block / f"{leaf}.json"

    def stored(self, leaf: str = "fibers") -> dict[str, Item]:
        """What the file holds, by id; nothing where there is none."""
        path = self.file(leaf)
        return by_id(json.loads(path.read_bytes() or b"[]")) if path.exists() else {}

    def left_behind(self) -> list[str]:
        """Names of temporary files in the block."""
        return [name for name in os.listdir(self.block) if name.endswith(".tmp")]


class Editor:
    """An AnnotationStore and edits of its one block as short calls; `restart` is what a new process would open."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.restart()

    def restart(self) -> None:
        """Open the store anew."""
        self.store = AnnotationStore(Tree(self.place.root), LOCK_TIMEOUT_S)

    def ends(self, *changes: Change, leaf: str = "fibers", **members: Any) -> list[Outcome | PrecomputedError]:
        """Commit `changes` as one group; `members` go to each request."""
        given = {"author": "somebody", "session": "page", **members}
        location = self.store.locate("brain", BLOCK, leaf)
        return self.store.commit(location, [EditRequest(change, **given) for change in changes])

    def commit(self, change: Change, **members: Any) -> Outcome:
        """Commit one change that must succeed."""
        ended = self.ends(change, **members)[0]
        assert isinstance(ended, Outcome), ended
        return ended

    def put(self, item: Item, **members: Any) -> Outcome:
        """Add or change one annotation."""
        return self.commit(PutOne(item), **members)

    def delete(self, id: str, **members: Any) -> Outcome:
        """Delete one annotation."""
        return self.commit(DeleteOne(id), **members)

    def replace(self, items: Iterable[Item], *, exact: bool = False, **members: Any) -> Outcome:
        """Replace the whole leaf."""
        return self.commit(ReplaceAll(by_id(items), exact), **members)

    def version(self, leaf: str = "fibers") -> int:
        """The newest version that the log knows."""
        return self.store.version(self.store.locate("brain", BLOCK, leaf))

    def seen(self, leaf: str = "fibers") -> bytes:
        """What a reader is answered."""
        return self.store.check(self.store.locate("brain", BLOCK, leaf)).data


def by_id(items: Iterable[Item]) -> dict[str, Item]:
    """The items by their id."""
    return {item["id"]: item for item in items}


def some(count: int, first: int = 0) -> list[Item]:
    """That many points with different coordinates."""
    return [point(number, number + 0.5, 2 * number, 3.25) for number in range(first, first + count)]


def written(items: Iterable[Item]) -> bytes:
    """The bytes of the file that holds `items`, as the format says: one a line."""
    lines = ",\n".join(orjson.dumps(item).decode() for item in items)
    return f"[\n{lines}\n]\n".encode() if lines else b"[]\n"


def check_log(place: Place) -> dict[str, int]:
    """Assert that the log is whole and says what the files hold; returns the newest version of each leaf.

    Every line's `previous` is the hash of the line before, versions of a leaf only grow, each group begins at the hash
    where the one before ended, and its edits applied from the first on give the file byte for byte.
    """
    leaves: dict[str, dict[str, Item]] = {}
    versions: dict[str, int] = {}
    hashes: dict[str, str | None] = {}
    raw: dict[str, bool] = {}
    previous = ""
    lines = place.log.read_bytes().split(b"\n") if place.log.exists() else [b""]
    assert lines.pop() == b"", "the log ends in the middle of a line"
    for line in lines:
        record = json.loads(line)
        assert record["previous"] == previous, "the chain is broken"
        previous = hashlib.sha256(line).hexdigest()
        leaf = record["leaf"]
        items = leaves.setdefault(leaf, {})
        _replay(items, record)
        raw[leaf] = "items" in record
        assert record["version"] >= versions.get(leaf, 0), "a version went back"
        if "file" in record:
            assert record["version"] > versions.get(leaf, 0), "a version was used twice"
            versions[leaf] = record["version"]
            if leaf in hashes:
                assert record["file"]["before"] == hashes[leaf], "a version begins where none ended"
            hashes[leaf] = record["file"]["after"]
    for leaf, items in leaves.items():
        _check_file(place.file(leaf), items, hashes[leaf], raw=raw[leaf])
    return versions


def _replay(items: dict[str, Item], record: dict[str, Any]) -> None:
    if record["operation"] == "external":
        items.clear()
        items.update(by_id(record["items"]))
    elif record["operation"] == "delete":
        del items[record["id"]]
    else:
        assert (record["operation"] == "change") == (record["id"] in items)
        items[record["id"]] = record["after"]


def _check_file(path: Path, items: dict[str, Item], expected: str | None, *, raw: bool) -> None:
    content = path.read_bytes() if path.exists() else None
    assert (None if content is None else hashlib.sha256(content).hexdigest()) == expected, "the file is another one"
    if raw:
        assert by_id(json.loads(content or b"[]")) == items
    else:
        assert content == written(items.values()), "the log does not give the file"
