"""Edits of a leaf as values, and what a request wants as a pure function of what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from annotation_store.merge import merged
from annotation_store.model import Item, Items
from precomputed_server.errors import NotFound

Operation = Literal["add", "change", "delete"]


@dataclass(frozen=True)
class Edit:
    """One annotation added, changed or deleted; `after` is the whole annotation as it then is, None when deleted."""

    operation: Operation
    id: str
    after: Item | None = None


def apply(items: Mapping[str, Item], edits: Iterable[Edit]) -> Items:
    """The items after `edits`: a change keeps its place, what is added comes last."""
    result = dict(items)
    for edit in edits:
        if edit.after is None:
            result.pop(edit.id, None)
        else:
            result[edit.id] = edit.after
    return result


class Change(Protocol):
    """What a request wants of a leaf."""

    def edits(self, stored: Items) -> list[Edit]:
        """The edits that bring `stored` to what is wanted; none when it is so already; raises NotFound."""
        ...


@dataclass(frozen=True)
class ReplaceAll:
    """The whole leaf is to hold `items`.

    With `exact` (the client named the version that it read) every difference counts. Without it, the difference is
    taken through the round trip of a client that drops and rounds what it did not change (see merge.py).
    """

    items: Items
    exact: bool = False

    def edits(self, stored: Items) -> list[Edit]:
        """Deletions first, then changes and additions in the order of the body."""
        deleted = [Edit("delete", id) for id in stored if id not in self.items]
        return deleted + [edit for id, item in self.items.items() if (edit := self._edit(stored.get(id), id, item))]

    def _edit(self, stored: Item | None, id: str, sent: Item) -> Edit | None:
        if stored is None:
            return Edit("add", id, sent)
        after = sent if self.exact else merged(stored, sent)
        return None if _identical(after, stored) else Edit("change", id, after)


@dataclass(frozen=True)
class PutOne:
    """The annotation of `item`'s id is to be `item`, whether or not there is one yet."""

    item: Item

    def edits(self, stored: Items) -> list[Edit]:
        """One addition or change, or nothing."""
        id = self.item["id"]
        if id not in stored:
            return [Edit("add", id, self.item)]
        return [] if _identical(self.item, stored[id]) else [Edit("change", id, self.item)]


@dataclass(frozen=True)
class DeleteOne:
    """There is to be no annotation of this `id`."""

    id: str

    def edits(self, stored: Items) -> list[Edit]:
        """One deletion; raises NotFound when there is no such annotation."""
        if self.id not in stored:
            raise NotFound(f"There is no annotation with the id {self.id!r} in this file.")
        return [Edit("delete", self.id)]


def _identical(first: Any, second: Any) -> bool:  # noqa: ANN401  # any JSON value
    """Equality of JSON values in which 1, 1.0 and true are three different ones."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_identical(value, second[key]) for key, value in first.items())
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_identical, first, second))
    return type(first) is type(second) and bool(first == second)
