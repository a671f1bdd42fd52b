"""Which annotations somebody has looked at, and which a person has confirmed. Pure.

The NeuroTrALE client sets `reviewed` at the first click, so its flag says no more than that somebody looked. What a
person confirms is a field of its own, `review`, that the client does not know and every save of it keeps. It says of
which geometry it was said: an annotation that was moved since is no longer confirmed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import orjson

from annotation_store.edits import Edit
from annotation_store.history.instants import instant
from annotation_store.model import GEOMETRY, Item, Items

REVIEW = "review"
_DIGEST_DIGITS = 16

State = Literal["untouched", "visited", "moved", "reviewed"]
"""Nobody looked; somebody did; it was confirmed and then moved; it is confirmed as it lies there."""

Refusal = Literal["missing", "moved"]
"""Why an annotation is not confirmed: there is none of that id, or it lies elsewhere than where somebody saw it."""


@dataclass(frozen=True)
class Review:
    """Annotations are to be confirmed, or to be confirmed by nobody (`reviewed` is false).

    `seen` are their ids and, where the person who asks was told it, the digest of the geometry that was looked at.
    """

    seen: Mapping[str, str | None]
    reviewed: bool

    def edits(self, stored: Items, author: str, time: datetime) -> list[Edit]:
        """A change for each annotation that is not so already and is not refused."""
        refused = self.refused(stored)
        edits = []
        for id in self.seen:
            if id not in refused:
                after = confirmed(stored[id], author, time) if self.reviewed else withdrawn(stored[id])
                edits += [] if after is stored[id] else [Edit("change", id, after)]
        return edits

    def refused(self, stored: Items) -> dict[str, Refusal]:
        """The annotations that cannot be confirmed, and why."""
        refused: dict[str, Refusal] = {}
        for id, seen in self.seen.items():
            if id not in stored:
                refused[id] = "missing"
            elif self.reviewed and seen is not None and seen != geometry_digest(stored[id]):
                refused[id] = "moved"
        return refused


def state_of(item: Item) -> State:
    """How far the review of an annotation is."""
    if review_of(item) is not None:
        return "reviewed" if is_confirmed(item) else "moved"
    return "visited" if is_visited(item) else "untouched"


def is_visited(item: Item) -> bool:
    """Whether somebody has looked at it."""
    return item.get("visited") is True or item.get("reviewed") is True or review_of(item) is not None


def is_confirmed(item: Item) -> bool:
    """Whether a person has confirmed it as it lies there now."""
    review = review_of(item)
    return review is not None and review["geometry"] == geometry_digest(item)


def review_of(item: Item) -> dict[str, Any] | None:
    """What was confirmed of it, `{"author", "time", "geometry"}`, whether or not it was moved since."""
    review = item.get(REVIEW)
    if not isinstance(review, dict):
        return None
    return review if all(isinstance(review.get(name), str) for name in ("author", "time", "geometry")) else None


def confirmed(item: Item, author: str, time: datetime) -> Item:
    """The annotation, confirmed by somebody: `"review": {"author", "time", "geometry"}`; itself if it is already."""
    if is_confirmed(item):
        return item
    return {**item, REVIEW: {"author": author, "time": instant(time), "geometry": geometry_digest(item)}}


def withdrawn(item: Item) -> Item:
    """The annotation, confirmed by nobody; itself if it is so already."""
    if REVIEW not in item:
        return item
    return {name: value for name, value in item.items() if name != REVIEW}


def is_only_review(before: Item | None, after: Item | None) -> bool:
    """Whether a change did nothing but confirm an annotation, or withdraw that: it is no editing of what was drawn."""
    if before is None or after is None or before.get(REVIEW) == after.get(REVIEW):
        return False
    return withdrawn(before) == withdrawn(after)


def line_is_only_review(members: Mapping[str, Any]) -> bool:
    """The same of a line of the log.

    A line that has the whole annotation tells it by the moment: a confirmation has that of its line.
    """
    if members["operation"] != "change":
        return False
    change = members.get("change")
    if change is not None:
        return "splice" not in change and {*change.get("set", ()), *change.get("unset", ())} == {REVIEW}
    review = review_of(members["after"])
    return review is not None and review["time"] == members["time"]


def geometry_digest(item: Item) -> str:
    """Digits of the SHA-256 of type and coordinates; 1 and 1.0 are the same place."""
    kind = item.get("type")
    fields = GEOMETRY.get(kind, ()) if isinstance(kind, str) else ()
    places = [kind, *(_as_floats(item.get(field)) for field in fields)]
    return hashlib.sha256(orjson.dumps(places)).hexdigest()[:_DIGEST_DIGITS]


def _as_floats(value: object) -> object:
    if isinstance(value, list):
        return [_as_floats(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
