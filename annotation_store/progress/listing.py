"""Lists of annotations as a reviewer works through them: which are meant, and what a row says of one. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from annotation_store.history.records import EXTERNAL
from annotation_store.model import Item, Items
from annotation_store.progress.tally import Drawn, Kind, Tally, kind_of, place_of
from annotation_store.review import geometry_digest, review_of, state_of

_REMEMBERED = 4
Which = Literal["unreviewed", "reviewed", "decided", "all"]
"""Not confirmed, confirmed, confirmed whether or not it was moved since, and all of them."""


@dataclass(frozen=True)
class Wanted:
    """Which annotations are meant; `kind` has the fields that matter, so that None can be asked for too.

    `since` is a moment: what was confirmed since then is meant as well, so that a list keeps what one just confirmed.
    """

    kind: frozenset[tuple[str, int | str | None]] = frozenset()
    which: Which = "all"
    since: str | None = None
    ids: frozenset[str] | None = None

    def has_kind(self, kind: Kind) -> bool:
        """Whether annotations of this kind are meant."""
        return all(getattr(kind, name) == value for name, value in self.kind)

    def count(self, tally: Tally) -> int:
        """How many annotations of a leaf are meant, at most for `decided`, whatever `since` adds and ids they have."""
        found = [counts for kind, counts in tally.counts.items() if self.has_kind(kind)]
        total, reviewed = sum(each.total for each in found), sum(each.reviewed for each in found)
        return {"reviewed": reviewed, "unreviewed": total - reviewed}.get(self.which, total)

    def may_be_in(self, tally: Tally) -> bool:
        """Whether there is one to be found in a leaf."""
        return self.count(tally) > 0 or (self.since is not None and tally.newest >= self.since)

    def has(self, item: Item, kind: Kind) -> bool:
        """Whether an annotation is meant."""
        if (self.ids is not None and item["id"] not in self.ids) or not self.has_kind(kind):
            return False
        return self.which == "all" or self._has_state(item)

    def _has_state(self, item: Item) -> bool:
        if self.which == "decided":
            return review_of(item) is not None
        is_reviewed = state_of(item) == "reviewed"
        if self.which == "reviewed" or not is_reviewed:
            return is_reviewed == (self.which == "reviewed")
        review = review_of(item)
        return self.since is not None and review is not None and review["time"] >= self.since


@dataclass(frozen=True)
class After:
    """Where a list goes on in a leaf: behind the last of these ids that is there, else at its beginning.

    Several, because the last one may be gone: then something is told twice rather than left out.
    """

    ids: tuple[str, ...] = ()

    def behind(self, id: str) -> After:
        """The place behind the annotation that comes next."""
        return After((*self.ids[1 - _REMEMBERED :], id))


def rows_of(
    items: Items, drawn: Drawn, wanted: Wanted, after: After, limit: int
) -> tuple[list[dict[str, Any]], After | None]:
    """At most `limit` rows of the annotations of a leaf that are meant, in its order, and where more begin, if any."""
    found: list[dict[str, Any]] = []
    for id, item in _from(items, after):
        kind = kind_of(item, drawn.get(id, EXTERNAL))
        if wanted.has(item, kind):
            if len(found) >= limit:
                return found, after
            found.append(row_of(item, kind))
            after = after.behind(id)
    return found, None


def _from(items: Items, after: After) -> Iterator[tuple[str, Item]]:
    last = next((id for id in reversed(after.ids) if id in items), None)
    listed = iter(items.items())
    if last is not None:
        next(id for id, _ in listed if id == last)
    return listed


def row_of(item: Item, kind: Kind) -> dict[str, Any]:
    """What a list says of an annotation.

    `geometry` is to be sent back when it is confirmed, so that nothing is confirmed that was moved in between.
    """
    review, place = review_of(item), place_of(item)
    return {
        "id": item["id"],
        **kind._asdict(),
        "position": None if place is None else list(place),
        "description": item.get("description") or "",
        "state": state_of(item),
        "review": None if review is None else {"author": review["author"], "time": review["time"]},
        "geometry": geometry_digest(item),
    }
