"""What a whole-file save was made from: of all that its page may hold, what explains the body best. Pure.

A save says nothing of what it changed. It is compared with each candidate, and the one that takes the fewest removals
for it to be the page's next body is believed, because a wrong one undoes what somebody else has done. A key may be
shared by many pages, and then what a page holds may not be among the candidates at all. So a few rules come first, each
for a way in which the best explanation is known to mislead. They rest on what all whole-file clients do: a person makes
one edit a save, and each move of a drag is a save that does not wait for the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from annotation_store.merging.explanations import COORDINATES, Body, Explanation, Known
from annotation_store.merging.merge import changed_fields
from annotation_store.merging.shadows import Candidate, Page

RETRY_S = 60.0
"""For how long a body that a page held before may be a repetition of it, sent again by a browser or a proxy."""

OVERLAP_NS = 1_000_000_000
"""For how long a save may be under way while the same page sends the next one."""

_MOST_ALIKE = 4
_NOTHING = Candidate(None, 0.0, "stored", {})


@dataclass(frozen=True)
class Choice:
    """What the body is taken to be made from; `doubted` is an annotation that it may or may not have removed.

    `base` is the number of the candidate that the page no longer holds, None when there is none or nobody can know.
    `known` are edits of the explanation, as (id, field), that are none: the page only says what it has read.
    """

    explanation: Explanation
    base: str | None
    doubted: str | None = None
    known: frozenset[tuple[str, str]] = frozenset()


def choose(body: Body, page: Page) -> Choice:
    """What the body was made from: what takes the fewest removals, then the fewest changes; of equals the newer.

    A page that has aborted its reading holds nothing, whatever it was answered: a body of which no annotation is known
    was made from nothing, unless the newest that is known of the key is what it has saved.
    """
    candidates = _eligible(page)
    if not candidates or _is_news(body, candidates, page):
        held = next((candidate for candidate in candidates if page.prefixed or not candidate.items), None)
        return Choice(body.explained_by(_NOTHING), None if held is None else held.number)
    return _Choosing(body, page, [body.explained_by(candidate) for candidate in candidates]).choice()


class _Choosing:
    """The choice between explanations, newest first, of which there is at least one."""

    def __init__(self, body: Body, page: Page, explanations: Sequence[Explanation]) -> None:
        self.body = body
        self.page = page
        self.explanations = explanations
        self.known = Known(body, explanations)
        ranks = [(self.known.impossible(found), body.removals(found), found.edits) for found in explanations]
        best = min(ranks)
        self.likeliest = [found for found, rank in zip(explanations, ranks, strict=True) if rank == best]
        self.newest, self.chosen = explanations[0], self.likeliest[0]
        self.newest_is_possible = not ranks[0][0]
        self.base = _replaced(self.likeliest)

    def choice(self) -> Choice:
        rules = (self._read_elsewhere, self._one_edit, self._removal, self._end_of_drag, self._last_removal)
        found = (rule() for rule in rules)
        return next((choice for choice in found if choice is not None), Choice(self.chosen, self.base))

    def _read_elsewhere(self) -> Choice | None:
        """The newest stored version that explains the body by one addition or change, where the shadows take more.

        What others have set is then no edit of this page, which must have read it where this host was not told: from
        another server, or when the journal was full. So only what is newer than all that is known of the page counts.
        """
        if self.chosen.edits <= 1:
            return None
        newest = max((candidate.time for candidate in self.page.candidates), default=0.0)
        for candidate in self.page.stored_candidates:
            if candidate.time <= newest:
                break
            found = self.body.explained_by(candidate)
            if found.edits <= 1 and not found.removed:
                return Choice(found, None)
        return None

    def _one_edit(self) -> Choice | None:
        """What is left of several edits where nobody can be sure what the page held.

        What another page of the key, or what is stored, has said before is then no news of this one. Where there is no
        news at all, and one removal from another candidate is all that happened, it is in doubt.
        """
        chosen = self.chosen
        if not chosen.edits or self._is_sure():
            return None
        edits, known = self.body.edits(chosen), self.known.edits(chosen)
        removal = self._removal_only() if known == edits else None
        if removal is not None:
            return Choice(removal, None, removal.only_removed)
        if chosen.edits + len(chosen.removed) == 1 and (known == edits or not known):
            return None
        return Choice(chosen, None, chosen.removed[0] if chosen.removed else None, known)

    def _removal(self) -> Choice | None:
        """Where pages of one key hold different annotations, which of them removed its own cannot be known."""
        chosen, emptied = self.chosen, not self.body.sent
        if not self.body.removals(chosen):
            return None
        others = any(found.removed != chosen.removed for found in self.likeliest)
        others = others or (emptied and self.newest.removed != chosen.removed)
        # A page that could not read the leaf sends the same, and others than the one that is removed are there.
        others = others or (emptied and not self._is_sure() and len(self.body.stored) > 1)
        return Choice(chosen, self.base, chosen.removed[0] if others else None)

    def _end_of_drag(self) -> Choice | None:
        """That the key has held a body before is no reason to pass it over.

        A person who sets a flag anew sends true, false, true. And when a drag's saves overtook each other, its end says
        what one of them said that counts as an earlier one: nobody else can have read that position and have dragged
        it on within a moment.
        """
        chosen, newest = self.chosen, self.newest
        if chosen.edits:
            return None
        both_saved = self.page.prefixed and chosen.candidate.source == newest.candidate.source == "saved"
        if newest.only_changes_one and (both_saved or self.newest_is_possible):
            return Choice(newest, newest.candidate.number)
        for found in self.explanations[: self.explanations.index(chosen)]:
            if found.only_changes_one and _overlapped(chosen.candidate, found.candidate) and self._stands(found):
                removal = self._removal_only()
                if removal is not None:
                    return Choice(removal, None, removal.only_removed)
                return Choice(found, found.candidate.number)
        return None

    def _removal_only(self) -> Explanation | None:
        """The newest explanation that takes one removal of what is stored, and nothing else."""
        return next((found for found in self.explanations if found.only_removed in self.body.stored), None)

    def _stands(self, found: Explanation) -> bool:
        """Whether what is stored of the annotation that moved is where it was in the candidate."""
        (name,) = found.changed
        held, stored = found.candidate.items[name], self.body.stored.get(name)
        moved = self.body.changed(name, held) & COORDINATES
        return bool(moved) and stored is not None and not moved & changed_fields(held, stored)

    def _last_removal(self) -> Choice | None:
        """The newest candidate's only annotation that the body lacks may have been removed, or not.

        Edits of the other candidate would give fields the values that the newest holds as well: these are no news, and
        somebody else may have changed them since.
        """
        chosen, newest = self.chosen, self.newest
        if newest.only_removed is None or not self.body.removals(newest):
            return None
        if chosen.edits:
            return Choice(newest, None, newest.only_removed)
        repeats = chosen.candidate.source == "saved" or not self.page.prefixed
        if not repeats or self.page.now - chosen.candidate.time >= RETRY_S:
            # Nobody repeats what he sent so long ago, and no single page sends what it was just answered: a person
            # removed one annotation. Otherwise he could never remove it, because without it the leaf is what the page
            # held before.
            return Choice(newest, newest.candidate.number)
        return Choice(chosen, self.base, newest.only_removed)

    def _is_sure(self) -> bool:
        """Whether there is no doubt that the page held the chosen candidate."""
        return self.chosen is self.newest if self.page.prefixed else len(self.explanations) == 1


def _overlapped(first: Candidate, second: Candidate) -> bool:
    """Whether two saves may have been under way together."""
    if first.source != "saved" or second.source != "saved" or not first.arrived or not second.arrived:
        return False
    return 0 <= second.arrived - first.arrived < OVERLAP_NS


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
