"""What the tests of the store share: edits in one line, and readings of its files that use none of its code."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from annotation_store.edits import DeleteOne, PutOne, ReplaceAll
from annotation_store.model import Item
from annotation_store.orders import Order, Outcome, Part, Save, Wish
from annotation_store.pages.journal import Journal
from annotation_store.store import AnnotationStore
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
    def history(self) -> Path:
        """The directory of the block's edit log."""
        return self.root / "brain" / "annotations" / ".history" / BLOCK

    @property
    def log(self) -> Path:
        """The newest segment of the block's edit log."""
        return max(self.history.glob("log-*.jsonl"), default=self.history / "log-000001.jsonl")

    @property
    def journal(self) -> Path:
        """What the pages of this host hold."""
        return self.root.parent / "pages"

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
        self.store = self._opened()

    def restart(self) -> None:
        """Open the store anew."""
        self.close()
        self.store = self._opened()

    def close(self) -> None:
        """Give what the store holds open back."""
        self.store.journal.close()
        self.store.tree.close()

    def _opened(self) -> AnnotationStore:
        return AnnotationStore(Tree(self.place.root), LOCK_TIMEOUT_S, Journal(self.place.journal))

    def ends(self, *wishes: Wish, leaf: str = "fibers", **members: Any) -> list[Outcome | PrecomputedError]:
        """Commit `wishes` as one group; `members` go to each order, `if_match` to its part."""
        if_match = members.pop("if_match", None)
        given = {"author": "somebody", "session": "page", "arrived": time.monotonic_ns(), **members}
        location = self.store.locate("brain", BLOCK, leaf)
        directory, leaf = location.directory, location.leaf
        orders = [
            Order(directory, (Part(leaf, "put", if_match=if_match, change=wish),), op=secrets.token_hex(16), **given)
            for wish in wishes
        ]
        return [answer if isinstance(answer, PrecomputedError) else answer[0] for answer in self.store.commit(orders)]

    def commit(self, wish: Wish, **members: Any) -> Outcome:
        """Commit one wish that must succeed."""
        ended = self.ends(wish, **members)[0]
        assert isinstance(ended, Outcome), ended
        return ended

    def put(self, item: Item, **members: Any) -> Outcome:
        """Add or change one annotation."""
        return self.commit(PutOne(item), **members)

    def delete(self, id: str, **members: Any) -> Outcome:
        """Delete one annotation."""
        return self.commit(DeleteOne(id), **members)

    def replace(self, items: Iterable[Item], **members: Any) -> Outcome:
        """Replace the whole leaf, exactly."""
        return self.commit(ReplaceAll(by_id(items)), **members)

    def save(self, items: Iterable[Item], **members: Any) -> Outcome:
        """Save the whole leaf as a page does."""
        return self.commit(Save(by_id(items)), **members)

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

    Every line's `digest` is its own hash and `previous` that of the line before, versions of a leaf only grow, each
    group begins at the hash where the one before ended, and its edits applied from the first on give the file.
    """
    replay = Replayed()
    previous = ""
    for segment in sorted(place.history.glob("log-*.jsonl")):
        lines = segment.read_bytes().split(b"\n")
        assert lines.pop() == b"", "the log ends in the middle of a line"
        for line in lines:
            body, _, rest = line.rpartition(b',"digest":"')
            record = json.loads(line)
            assert record["previous"] == previous, "the chain is broken"
            previous = hashlib.sha256(body).hexdigest()[:32]
            assert rest == previous.encode() + b'"}', "a line is not what it was"
            replay.take(record)
    for leaf, items in replay.leaves.items():
        _check_file(place.file(leaf), items, replay.hashes[leaf], raw=replay.raw[leaf])
    return replay.versions


class Replayed:
    """What the lines of a log that were taken say."""

    def __init__(self) -> None:
        self.leaves: dict[str, dict[str, Item]] = {}
        self.versions: dict[str, int] = {}
        self.hashes: dict[str, str | None] = {}
        self.raw: dict[str, bool] = {}

    def take(self, record: dict[str, Any]) -> None:
        """Take one line."""
        if record["operation"] == "segment":
            return
        leaf = record["leaf"]
        if record["operation"] == "content":
            assert self.leaves[leaf] == by_id(record["items"])
        elif record["operation"] in ("add", "change", "delete", "restore", "external"):
            _replay(self.leaves.setdefault(leaf, {}), record)
            self.raw[leaf] = "text" in record
            assert record["version"] >= self.versions.get(leaf, 0), "a version went back"
        elif record["operation"] == "order":
            self.leaves[leaf] = {id: self.leaves[leaf][id] for id in record["ids"]}
        for name, file in record.get("files", {}).items():
            if name in self.hashes:
                assert file["before"] == self.hashes[name], "a version begins where none ended"
            self.hashes[name] = file["after"]
        if record["operation"] not in ("content", "parked", "resolved", "noted"):
            self.versions[leaf] = record["version"]


def _replay(items: dict[str, Item], record: dict[str, Any]) -> None:
    if record["operation"] == "external":
        items.clear()
        items.update(by_id(json.loads(record["text"] or "[]")))
    elif "change" in record:
        items[record["id"]] = _changed(items[record["id"]], record["change"])
    elif "after" in record:
        assert (record["operation"] == "add") == (record["id"] not in items) or record["operation"] == "restore"
        items[record["id"]] = record["after"]
    else:
        del items[record["id"]]


def _changed(before: Item, change: dict[str, Any]) -> Item:
    """An annotation after the difference that a line holds."""
    after = {name: value for name, value in before.items() if name not in change.get("unset", ())}
    after |= change.get("set", {})
    for name, (start, removed, inserted) in change.get("splice", {}).items():
        after[name] = before[name][:start] + inserted + before[name][start + removed :]
    return after


def _check_file(path: Path, items: dict[str, Item], expected: str | None, *, raw: bool) -> None:
    content = path.read_bytes() if path.exists() else None
    assert (None if content is None else hashlib.sha256(content).hexdigest()) == expected, "the file is another one"
    if raw:
        assert by_id(json.loads(content or b"[]")) == items
    else:
        assert content == written(items.values()), "the log does not give the file"
