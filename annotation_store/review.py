"""Which annotations somebody has looked at, and which a person has confirmed. Pure.

The NeuroTrALE client sets `reviewed` at the first click, so its flag says no more than that somebody looked. What a
person confirms is a field of its own, `review`, that the client does not know and every save of it keeps. It says of
which geometry it was said: an annotation that was moved since is no longer confirmed.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

import orjson

from annotation_store.history.instants import instant
from annotation_store.model import GEOMETRY, Item

REVIEW = "review"
_DIGEST_DIGITS = 16


def is_visited(item: Item) -> bool:
    """Whether somebody has looked at it."""
    return item.get("visited") is True or item.get("reviewed") is True or is_confirmed(item)


def is_confirmed(item: Item) -> bool:
    """Whether a person has confirmed it as it lies there now."""
    review = item.get(REVIEW)
    return isinstance(review, dict) and review.get("geometry") == _geometry_digest(item)


def confirmed(item: Item, author: str, time: datetime) -> Item:
    """The annotation, confirmed by somebody: `"review": {"author", "time", "geometry"}`; itself if it is already."""
    if is_confirmed(item):
        return item
    return {**item, REVIEW: {"author": author, "time": instant(time), "geometry": _geometry_digest(item)}}


def withdrawn(item: Item) -> Item:
    """The annotation, confirmed by nobody."""
    return {name: value for name, value in item.items() if name != REVIEW}


def _geometry_digest(item: Item) -> str:
    """Digits of the SHA-256 of type and coordinates; 1 and 1.0 are the same place."""
    kind = item.get("type")
    fields = GEOMETRY.get(kind, ()) if isinstance(kind, str) else ()
    places = [kind, *(_as_floats(item.get(field)) for field in fields)]
    return hashlib.sha256(orjson.dumps(places)).hexdigest()[:_DIGEST_DIGITS]


def _as_floats(value: object) -> object:
    if isinstance(value, list):
        return [_as_floats(each) for each in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
