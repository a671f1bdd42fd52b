"""Comparing an annotation with what a whole-file client made of it without being told to.

On every save the NeuroTrALE client drops fields that it does not know, makes `length` a whole number, passes the
coordinates of points, lines, boxes and ellipsoids through float32 and leaves out what is empty. Two values say the
same when they are equal after that; what says the same keeps its stored value.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Mapping
from typing import Any

from annotation_store.model import Item

_SINGLE_PRECISION = ("point", "pointA", "pointB", "center", "radii")
_EMPTY: Mapping[str, tuple[object, ...]] = {"description": ("", None), "segments": ([], [[]], None)}
_NOTHING: frozenset[str] = frozenset()
_OPTIONAL = ("description", "segments", "length")
KNOWN = frozenset((*_SINGLE_PRECISION, *_OPTIONAL, "type", "id", "points", "anntype", "reviewed", "visited"))
"""The fields that a whole-file client sends back; every other one survives its saves."""


def merged(stored: Item, sent: Item) -> Item:
    """`stored` brought to what the client `sent`.

    Fields that say the same keep the stored value, fields that the client does not know are kept, an optional one that
    it left out is removed.
    """
    return taken(stored, sent, changed_fields(stored, sent))


def changed_fields(held: Item, sent: Item) -> frozenset[str]:
    """The fields that a page which held an annotation as `held` changed, if it `sent` it as it is there."""
    if held is sent:
        return _NOTHING
    found = []
    for field, value in held.items():
        if field in sent:
            other = sent[field]
            if value is not other and not same_value(field, value, other):
                found.append(field)
        elif field in KNOWN and not same_value(field, value, None):
            found.append(field)
    found += [field for field in sent if field not in held and not same_value(field, None, sent[field])]
    return frozenset(found) if found else _NOTHING


def taken(stored: Item, sent: Item, fields: Collection[str]) -> Item:
    """`stored` with those `fields` as in `sent`, or without them where `sent` has none; all keep their place."""
    result: Item = {}
    for field, value in stored.items():
        if field not in fields:
            result[field] = value
        elif field in sent:
            result[field] = value if same_value(field, value, sent[field]) else sent[field]
    for field, value in sent.items():
        if field in fields and field not in stored:
            result[field] = value
    return result


def same_value(field: str, stored: Any, sent: Any) -> bool:  # noqa: ANN401  # any JSON value
    """Whether one known field says the same before and after the client's round trip; None means absent."""
    if field in _EMPTY and stored in _EMPTY[field] and sent in _EMPTY[field]:
        return True
    if stored is None or sent is None:
        return stored is sent
    if field in _SINGLE_PRECISION:
        return _same_in_single_precision(stored, sent)
    if field == "length":
        return bool(_truncated(stored) == _truncated(sent))
    if field == "points":
        return bool(stored == sent)
    return equal(stored, sent)


def _same_in_single_precision(stored: Any, sent: Any) -> bool:  # noqa: ANN401  # any JSON value
    if not isinstance(stored, list) or not isinstance(sent, list) or len(stored) != len(sent):
        return False
    if stored == sent:
        return True
    try:
        first, second = array("f", stored), array("f", sent)
    except (TypeError, OverflowError):
        return equal(stored, sent)
    if not all(map(math.isfinite, first)):  # no client can send what float32 does not hold
        return equal(stored, sent)
    return first == second


def equal(stored: Any, sent: Any) -> bool:  # noqa: ANN401  # any JSON value
    """Equality of JSON values: 1 and 1.0 are the same number, as for JavaScript, and true is no number."""
    if stored != sent:
        return False
    if isinstance(stored, dict):
        return all(equal(value, sent[key]) for key, value in stored.items())
    if isinstance(stored, list):
        return all(map(equal, stored, sent))
    return isinstance(stored, bool) == isinstance(sent, bool)


def _truncated(length: Any) -> Any:  # noqa: ANN401  # any JSON value
    return int(length) if isinstance(length, (int, float)) and abs(length) < 2**63 else length
