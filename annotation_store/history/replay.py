"""A leaf's content while lines of the log are applied to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from annotation_store.digests import file_hash
from annotation_store.history.delta import patched
from annotation_store.history.lines import Group
from annotation_store.history.records import CONTENT, EDITS, EXTERNAL, ORDER, Members
from annotation_store.model import Item, Items, parse_stored, serialize
from precomputed_server.errors import Unreadable


class Replay:
    """One leaf: its `items`, which are changed in place, and `text`, the whole file where another tool wrote it."""

    def __init__(self, items: Items | None = None) -> None:
        self.items: Items = {} if items is None else dict(items)
        self.text: bytes | None = None
        self.exists = items is not None
        self._old_external = False

    def apply(self, members: Members) -> None:
        """Bring the content past a line of this leaf; raises Unreadable for a text that no leaf may have.

        A change of what is not known, because its line was damaged, is left out: the hash of the file tells.
        """
        operation = members["operation"]
        if operation == CONTENT:
            self._begin({item["id"]: item for item in members["items"]})
        elif operation == EXTERNAL:
            self._external(members)
        elif operation == ORDER:
            first = {id: self.items[id] for id in members["ids"] if id in self.items}
            self.items = first | self.items
        elif operation in EDITS:
            self.text, self.exists, self._old_external = None, True, False
            with contextlib.suppress(KeyError, TypeError, IndexError):
                after = edited(self.items.get(members["id"]), members)
                if after is None:
                    self.items.pop(members["id"], None)
                else:
                    self.items[members["id"]] = after

    def apply_all(self, groups: Iterable[Group], leaf: str) -> None:
        """Apply every line of `leaf` in `groups`."""
        for group in groups:
            for line in group.lines:
                if line.members["leaf"] == leaf:
                    self.apply(line.members)

    def _begin(self, items: Items) -> None:
        self.items, self.text, self.exists, self._old_external = items, None, True, False

    def _external(self, members: Members) -> None:
        if "items" in members:  # format 1 kept the annotations and not the text
            self._begin({item["id"]: item for item in members["items"]})
            self._old_external = True
            return
        text = members["text"]
        self._begin({} if text is None else parse_stored(text.encode()))
        self.text, self.exists = (None, False) if text is None else (text.encode(), True)

    def data(self) -> bytes | None:
        """The bytes of the leaf's file, None where there is none."""
        if not self.exists:
            return None
        return serialize(self.items) if self.text is None else self.text

    def gives(self, hash: str | None) -> bool:
        """Whether the file has that hash; of what format 1 says that another tool wrote nobody knows."""
        return self._old_external or file_hash(self.data()) == hash


def ids_of(members: Members) -> set[str]:
    """The ids of the annotations that a line tells of; none for a text that no leaf may have."""
    operation = members["operation"]
    if operation in EDITS:
        return {members["id"]}
    if operation == CONTENT or "items" in members:
        return {item["id"] for item in members["items"]}
    if operation == EXTERNAL and members["text"] is not None:
        with contextlib.suppress(Unreadable):
            return set(parse_stored(members["text"].encode()))
    return set()


def edited(before: Item | None, members: Members) -> Item | None:
    """The annotation after an edit's line, None when it is deleted; raises KeyError for a change of nothing."""
    if "change" in members:
        if before is None:
            raise KeyError(members["id"])
        return patched(before, members["change"])
    after: Item | None = members.get("after")
    return after
