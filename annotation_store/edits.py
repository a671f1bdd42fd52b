"""Edits of a leaf as values, and what a request wants as a pure function of what is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from annotation_store.model import Item, Items, check_item, line_of
from precomputed_server.errors import Conflict, InvalidAnnotation, NotFound

Operation = Literal["add", "change", "delete", "restore"]

Overtaken = Literal["added", "changed", "removed"]
"""What was to become of an annotation that somebody else has edited meanwhile."""

_DIGEST_DIGITS = 16


@dataclass(frozen=True)
class Edit:
    """One annotation added, changed, deleted or restored; `after` is the whole of it as it then is, None when gone."""

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
    """The whole leaf is to be exactly `items`: the client named the version that it read."""

    items: Items

    def edits(self, stored: Items) -> list[Edit]:
        """Deletions first, then changes and additions in the order of the body."""
        deleted = [Edit("delete", id) for id in stored if id not in self.items]
        changed = (PutOne(item).edits(stored) for item in self.items.values())
        return deleted + [edit for edits in changed for edit in edits]


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
class AddOne:
    """There is to be a new annotation, `item`."""

    item: Item

    def edits(self, stored: Items) -> list[Edit]:
        """One addition; raises Conflict when there is an annotation of that id."""
        id = self.item["id"]
        if id in stored:
            raise Conflict(f"There is an annotation with the id {id!r} already; PATCH changes it.")
        return [Edit("add", id, self.item)]


@dataclass(frozen=True)
class ChangeFields:
    """The fields of one annotation are to be changed by a JSON merge patch (RFC 7396): null removes a field."""

    id: str
    patch: Item

    def edits(self, stored: Items) -> list[Edit]:
        """One change or nothing; raises NotFound, InvalidAnnotation when what comes out is none."""
        if self.id not in stored:
            raise NotFound(f"There is no annotation with the id {self.id!r} in this file.")
        after = merge_patched(stored[self.id], self.patch)
        if after.get("id") != self.id:
            raise InvalidAnnotation("A merge patch cannot change the id of an annotation.")
        check_item(after, "the annotation after the patch")
        return PutOne(after).edits(stored)


@dataclass(frozen=True)
class EditSeveral:
    """Several annotations are to be new, several others to be as given, and others gone.

    `seen` are, by id, the digests of what the others were when that was decided; where one is another by now, all is
    refused, or with `passes_over` what concerns that annotation.
    """

    added: Items
    changed: Items
    deleted: tuple[str, ...]
    seen: Mapping[str, str] = field(default_factory=dict)
    passes_over: bool = False

    def edits(self, stored: Items) -> list[Edit]:
        """All of them, or those that nobody has overtaken; raises Conflict."""
        overtaken = self.overtaken(stored)
        if overtaken and not self.passes_over:
            raise Conflict(f"Somebody else has edited {next(iter(overtaken))!r} meanwhile; try again.")
        edits = [Edit("delete", id) for id in self.deleted if id not in overtaken]
        for id, item in self.changed.items():
            edits += PutOne(item).edits(stored) if id not in overtaken else []
        return edits + [Edit("add", id, item) for id, item in self.added.items() if id not in overtaken]

    def overtaken(self, stored: Items) -> dict[str, Overtaken]:
        """What somebody else has edited meanwhile, and what was to become of it."""
        found: dict[str, Overtaken] = {id: "added" for id in self.added if id in stored}
        found |= {id: "changed" for id in self.changed if not self._is_as_seen(id, stored)}
        return found | {id: "removed" for id in self.deleted if not self._is_as_seen(id, stored)}

    def left_out(self, stored: Items, made: Iterable[str]) -> dict[str, Overtaken]:
        """What of it was overtaken when it was carried out, which edited the annotations `made`."""
        wanted = self.added | self.changed
        ended = {*made, *(id for id, item in wanted.items() if id in stored and _identical(item, stored[id]))}
        return {id: why for id, why in self.overtaken(stored).items() if id not in ended}

    def _is_as_seen(self, id: str, stored: Items) -> bool:
        return id in stored and self.seen.get(id) == digest_of(stored[id])


@dataclass(frozen=True)
class RestoreTo:
    """What an earlier version held is to be there again: all of `items`, or of them only the annotation `id`."""

    items: Items
    id: str | None = None

    def edits(self, stored: Items) -> list[Edit]:
        """A restoration for each annotation that differs; raises NotFound when `id` is in neither."""
        wanted = self.items
        if self.id is not None:
            if self.id not in stored and self.id not in self.items:
                raise NotFound(f"There is no annotation with the id {self.id!r}, neither now nor in that version.")
            wanted = {id: item for id, item in stored.items() if id != self.id}
            wanted |= {self.id: self.items[self.id]} if self.id in self.items else {}
        return [Edit("restore", edit.id, edit.after) for edit in ReplaceAll(wanted).edits(stored)]


@dataclass(frozen=True)
class DeleteOne:
    """There is to be no annotation of this `id`."""

    id: str

    def edits(self, stored: Items) -> list[Edit]:
        """One deletion; raises NotFound when there is no such annotation."""
        if self.id not in stored:
            raise NotFound(f"There is no annotation with the id {self.id!r} in this file.")
        return [Edit("delete", self.id)]


def digest_of(item: Item) -> str:
    """What tells one state of an annotation from another."""
    return hashlib.sha256(line_of(item)).hexdigest()[:_DIGEST_DIGITS]


def merge_patched(target: Item, patch: Item) -> Item:
    """`target` after a JSON merge patch (RFC 7396)."""
    result = dict(target)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            below = result.get(name)
            result[name] = merge_patched(below if isinstance(below, dict) else {}, value)
        else:
            result[name] = value
    return result


def _identical(first: Any, second: Any) -> bool:  # noqa: ANN401  # any JSON value
    """Equality of JSON values in which 1, 1.0 and true are three different ones."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_identical(value, second[key]) for key, value in first.items())
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_identical, first, second))
    return type(first) is type(second) and bool(first == second)
