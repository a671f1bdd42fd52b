"""What a whole-file save was made from: of all that its page may hold, what explains the body best. Pure.

A save says nothing of what it changed. It is compared with each candidate, and the one that takes the fewest removals
for it to be the page's next body is believed, because a wrong one undoes what somebody else has done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from annotation_store.merging.merge import changed_fields
from annotation_store.merging.shadows import Candidate, Page
from annotation_store.model import GEOMETRY, Item, Items

RETRY_S = 60.0
"""For how long a body that a page held before may be a repetition of it, sent again by a browser or a proxy."""

_MOST_ALIKE = 4

COORDINATES = frozenset(field for fields in GEOMETRY.values() for field in fields)

_NONE: frozenset[str] = frozenset()
_NOTHING = Candidate(None, 0.0, "stored", {})


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

    Shadows share the objects of the versions that they were read from: most comparisons are of identities.
    """

    def __init__(self, sent: Items, stored: Items) -> None:
        self.sent = sent
        self.stored = stored
        self._compared: dict[int, frozenset[str]] = {}
        self._unchanged = {id: item for id, item in stored.items() if id in sent and not changed_fields(item, sent[id])}

    def changed(self, name: str, held: Item) -> frozenset[str]:
        """The fields in which the annotation of that id says something else in the body than in `held`."""
        if self._unchanged.get(name) is held:
            return _NONE
        fields = self._compared.get(id(held))
        if fields is None:
            fields = self._compared[id(held)] = changed_fields(held, self.sent[name])
        return fields

    def removals(self, found: Explanation) -> int:
        """How many removals an explanation takes; one of what somebody else has removed already is none."""
        removed = found.removed
        return 0 if len(removed) == 1 and removed[0] not in self.stored else len(removed)

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


@dataclass(frozen=True)
class Choice:
    """What the body is taken to be made from; `doubted` is an annotation that it may or may not have removed.

    `base` is the number of the candidate that the page no longer holds, None when there is none or nobody can know.
    """

    explanation: Explanation
    base: str | None
    doubted: str | None = None


def choose(body: Body, page: Page) -> Choice:
    """What the body was made from: what takes the fewest removals, then the fewest changes; of equals the newer.

    A page that has aborted its reading holds nothing, whatever it was answered: a body of which no annotation is known
    was made from nothing, unless the newest that is known of the key is what it has saved.
    """
    candidates = _eligible(page)
    if not candidates or _is_news(body, candidates, page):
        held = next((candidate for candidate in candidates if page.prefixed or not candidate.items), None)
        return Choice(body.explained_by(_NOTHING), None if held is None else held.number)
    explanations = [body.explained_by(candidate) for candidate in candidates]
    impossible = _Impossible(body, explanations)
    ranks = [(impossible.edits(found), body.removals(found), found.edits) for found in explanations]
    best = min(ranks)
    likeliest = [found for found, rank in zip(explanations, ranks, strict=True) if rank == best]
    newest, chosen = explanations[0], likeliest[0]
    if len(chosen.changed) + len(chosen.added) > 1:
        stored = _stored_explanation(body, page)
        if stored is not None:
            return Choice(stored, None)
    base = _replaced(likeliest)
    if best[1]:
        # Pages of one key that hold different annotations: which of them removed its own cannot be known.
        others = any(found.removed != chosen.removed for found in likeliest)
        others = others or (not body.sent and newest.removed != chosen.removed)
        return Choice(chosen, base, chosen.removed[0] if others else None)
    both_saved = page.prefixed and chosen.candidate.source == newest.candidate.source == "saved"
    if not chosen.edits and newest.only_changes_one and (both_saved or not ranks[0][0]):
        # True, false, true: that the key has held a body before is no reason to pass it over. Nor is it when a drag's
        # saves overtook each other and its end, the last to come, says what an earlier one said.
        return Choice(newest, newest.candidate.number)
    if newest.only_removed is None or not body.removals(newest):
        return Choice(chosen, base)
    repeats = chosen.candidate.source == "saved" or not page.prefixed
    if not chosen.edits and (not repeats or page.now - chosen.candidate.time >= RETRY_S):
        # Nobody repeats what he sent so long ago, and no single page sends what it was just answered: a person removed
        # one annotation. Otherwise he could never remove it, because without it the leaf is what the page held before.
        return Choice(newest, newest.candidate.number)
    return _in_doubt(chosen, newest, base)


def _in_doubt(chosen: Explanation, newest: Explanation, base: str | None) -> Choice:
    """The newest candidate's only annotation that the body lacks may have been removed, or not: nothing else happened.

    Edits of the other candidate would give fields the values that the newest holds as well: these are no news, and
    somebody else may have changed them since.
    """
    return Choice(newest, None, newest.only_removed) if chosen.edits else Choice(chosen, base, newest.only_removed)


def _stored_explanation(body: Body, page: Page) -> Explanation | None:
    """The newest stored version that explains the body by one addition or change, where the page's shadows take more.

    A person makes one edit a save: what others have set is then no edit of this page, which must have read it where
    this host was not told: from another server, or when the journal was full. So only what is newer than all that is
    known of the page counts.
    """
    newest = max((candidate.time for candidate in page.candidates), default=0.0)
    for candidate in page.stored_candidates:
        if candidate.time <= newest:
            break
        found = body.explained_by(candidate)
        if found.edits <= 1 and not found.removed:
            return found
    return None


def _replaced(likeliest: Sequence[Explanation]) -> str | None:
    """The number of the candidate whose place the body takes, given the equally likely ones, newest first.

    Where they differ, taking away the wrong one would turn what its page still holds into edits that nobody made: all
    of them stay, and of those that were saved only the oldest goes once there are many.
    """
    chosen = likeliest[0]
    if all(_holds_the_same(chosen, found) for found in likeliest[1:]):
        return chosen.candidate.number
    saved = [found.candidate for found in likeliest if found.candidate.source == "saved"]
    return saved[-1].number if len(saved) > _MOST_ALIKE else None


def _holds_the_same(first: Explanation, second: Explanation) -> bool:
    """Whether two candidates hold the same, if each explains the body."""
    if (first.removed, first.changed, first.added) != (second.removed, second.changed, second.added):
        return False
    one, other = first.candidate.items, second.candidate.items
    return all(not changed_fields(one[name], other[name]) for name in [*first.changed, *first.removed])


def _eligible(page: Page) -> Sequence[Candidate]:
    """What the page may have held when it sent the save, newest first.

    A save that arrived later than this one is not what this one was made from, and what was replaced by one that
    arrived earlier is held no longer.
    """
    held = [
        candidate
        for candidate in page.candidates
        if (candidate.replaced_at is None or page.arrived < candidate.replaced_at)
        and (candidate.arrived == 0 or candidate.arrived <= page.arrived)
    ]
    return held or page.stored_candidates


def _is_news(body: Body, candidates: Sequence[Candidate], page: Page) -> bool:
    if not body.sent or candidates[0].source == "saved":
        return False
    return not any(name in held for held in [body.stored, *(each.items for each in candidates)] for name in body.sent)


class _Impossible:
    """Which edits no page can have made that held a candidate: it would have had to know what it never saw.

    An id has 40 random digits, and a position is hardly hit twice.
    """

    def __init__(self, body: Body, explanations: Sequence[Explanation]) -> None:
        self._body = body
        self._items = [body.stored, *(found.candidate.items for found in explanations)]
        self._known: dict[str, bool] = {}
        self._positions: dict[str, frozenset[str]] = {}

    def edits(self, found: Explanation) -> int:
        """How many edits of the explanation are impossible."""
        count = sum(self._is_known(name) for name in found.added)
        for name in found.changed:
            moved = self._body.changed(name, found.candidate.items[name]) & COORDINATES
            if moved:
                count += len(moved & self._known_positions(name))
        return count

    def _is_known(self, name: str) -> bool:
        if name not in self._known:
            self._known[name] = any(name in items for items in self._items)
        return self._known[name]

    def _known_positions(self, name: str) -> frozenset[str]:
        """The coordinate fields of the body's annotation that say what somebody else's do."""
        if name not in self._positions:
            others = {id(items[name]): items[name] for items in self._items if name in items}
            same = [(other.keys() & COORDINATES) - self._body.changed(name, other) for other in others.values()]
            self._positions[name] = frozenset().union(*same)
        return self._positions[name]
