"""What a page would have had to do for what it may hold to become the body of its save. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from annotation_store.merging.merge import changed_fields
from annotation_store.merging.shadows import WHOLE, Candidate
from annotation_store.model import GEOMETRY, Item, Items

COORDINATES = frozenset(field for fields in GEOMETRY.values() for field in fields)

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Explanation:
    """What a page that held the candidate did to it when it sent its body; `changed` are ids."""

    candidate: Candidate
    removed: list[str]
    changed: list[str]
    added: list[str]

    @property
    def edits(self) -> int:
        """How many annotations it changed or added."""
        return len(self.changed) + len(self.added)

    @property
    def only_removed(self) -> str | None:
        """The id of the annotation whose removal is all that happened."""
        return self.removed[0] if len(self.removed) == 1 and not self.edits else None

    @property
    def only_changes_one(self) -> bool:
        """Whether the change of one annotation is all that happened."""
        return len(self.changed) == 1 and not self.removed and not self.added


class Body:
    """What a page sent, beside what is stored; each pair of annotations is compared once.

    Shadows share the objects of the versions that they were read from: most comparisons are of identities. Others that
    were read say mostly what some object said that was compared before, and that two are equal is seen much faster than
    what tells them apart.
    """

    def __init__(self, sent: Items, stored: Items) -> None:
        self.sent = sent
        self.stored = stored
        self._compared: dict[int, frozenset[str]] = {}
        self._distinct: dict[str, list[Item]] = {}
        self._unchanged = {id: item for id, item in stored.items() if id in sent and not changed_fields(item, sent[id])}

    def changed(self, name: str, held: Item) -> frozenset[str]:
        """The fields in which the annotation of that id says something else in the body than in `held`."""
        if self._unchanged.get(name) is held:
            return _NONE
        fields = self._compared.get(id(held))
        if fields is None:
            fields = self._compared[id(held)] = self._compare(name, held)
        return fields

    def _compare(self, name: str, held: Item) -> frozenset[str]:
        if held == self._unchanged.get(name):
            return _NONE
        distinct = self._distinct.setdefault(name, [])
        for item in distinct:
            if item == held:
                return self._compared[id(item)]
        distinct.append(held)
        return changed_fields(held, self.sent[name])

    def removals(self, found: Explanation) -> int:
        """How many removals an explanation takes; one of what somebody else has removed already is none."""
        removed = found.removed
        return 0 if len(removed) == 1 and removed[0] not in self.stored else len(removed)

    def edits(self, found: Explanation) -> frozenset[tuple[str, str]]:
        """The changes and additions of an explanation as (id, field)."""
        changed = {(name, field) for name in found.changed for field in self.changed(name, found.candidate.items[name])}
        return frozenset(changed | {(name, WHOLE) for name in found.added})

    def explained_by(self, candidate: Candidate) -> Explanation:
        """What was done to the candidate for it to be the body."""
        unchanged, sent, compared = self._unchanged.get, self.sent, self._compared
        removed, changed = [], []
        for name, item in candidate.items.items():
            if unchanged(name) is not item:
                if name not in sent:
                    removed.append(name)
                elif compared.get(id(item), True) and self.changed(name, item):
                    changed.append(name)
        added = []
        if len(sent) > len(candidate.items) - len(removed):
            added = [name for name in sent if name not in candidate.items]
        return Explanation(candidate, removed, changed, added)


class Known:
    """What a body says that was said before: by what is stored, or by what a page of the key may hold."""

    def __init__(self, body: Body, explanations: Sequence[Explanation]) -> None:
        self._body = body
        self._items = [body.stored, *(found.candidate.items for found in explanations)]
        self._ids: dict[str, bool] = {}
        self._positions: dict[str, frozenset[str]] = {}

    def impossible(self, found: Explanation) -> int:
        """How many edits of the explanation no page can have made that held its candidate: it never saw what it says.

        An id has 40 random digits, and a position is hardly hit twice.
        """
        count = sum(self._is_known(name) for name in found.added)
        for name in found.changed:
            moved = self._body.changed(name, found.candidate.items[name]) & COORDINATES
            if moved:
                count += len(moved & self._known_positions(name))
        return count

    def edits(self, found: Explanation) -> frozenset[tuple[str, str]]:
        """The edits of the explanation, as (id, field), that say nothing new."""
        result = {(name, WHOLE) for name in found.added if self._is_known(name)}
        for name in found.changed:
            fields = self._body.changed(name, found.candidate.items[name])
            for other in self._others(name):
                result |= {(name, field) for field in fields - self._body.changed(name, other)}
        return frozenset(result)

    def _is_known(self, name: str) -> bool:
        if name not in self._ids:
            self._ids[name] = any(name in items for items in self._items)
        return self._ids[name]

    def _known_positions(self, name: str) -> frozenset[str]:
        """The coordinate fields of the body's annotation that say what somebody else's do."""
        if name not in self._positions:
            same = [(other.keys() & COORDINATES) - self._body.changed(name, other) for other in self._others(name)]
            self._positions[name] = frozenset().union(*same)
        return self._positions[name]

    def _others(self, name: str) -> Iterator[Item]:
        """What is known of an annotation, each object once."""
        return iter({id(items[name]): items[name] for items in self._items if name in items}.values())
