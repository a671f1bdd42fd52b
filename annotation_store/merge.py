"""Comparing an annotation with what a whole-file client made of it without being told to.

On every save the NeuroTrALE client drops fields that it does not know, makes `length` a whole number, passes the
coordinates of points, lines, boxes and ellipsoids through float32 and leaves out what is empty. Two values say the
same when they are equal after that; what says the same keeps its stored value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from annotation_store.model import Item

_SINGLE_PRECISION = ("point", "pointA", "pointB", "center", "radii")
_EMPTY: Mapping[str, tuple[object, ...]] = {"description": ("", None), "segments": ([], [[]], None)}
_OPTIONAL = ("description", "segments", "length")
KNOWN = (*_SINGLE_PRECISION, *_OPTIONAL, "type", "id", "points", "anntype", "reviewed", "visited")
"""The fields that a whole-file client sends back; every other one survives its saves."""


def merged(stored: Item, sent: Item) -> Item:
    """`stored` brought to what the client `sent`.

    Fields that say the same keep the stored value, fields that the client does not know are kept, an optional one that
    it left out is removed.
    """
    result: Item = {}
    for field, value in stored.items():
        if field in sent:
            result[field] = value if same_value(field, value, sent[field]) else sent[field]
        elif field not in KNOWN or same_value(field, value, None):
            result[field] = value
    for field, value in sent.items():
        if field not in stored and not same_value(field, None, value):
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
    return _equal(stored, sent)


def _same_in_single_precision(stored: Any, sent: Any) -> bool:  # noqa: ANN401  # any JSON value
    if not isinstance(stored, list) or not isinstance(sent, list) or len(stored) != len(sent):
        return False
    try:
        with np.errstate(over="ignore"):
            first, second = np.asarray(stored, np.float32), np.asarray(sent, np.float32)
    except (TypeError, ValueError):
        return _equal(stored, sent)
    if not np.isfinite(first).all():  # no client can send what float32 does not hold
        return _equal(stored, sent)
    return bool(np.array_equal(first, second))


def _equal(stored: Any, sent: Any) -> bool:  # noqa: ANN401  # any JSON value
    """Equality of JSON values: 1 and 1.0 are the same number, as for JavaScript, and true is no number."""
    if stored != sent:
        return False
    if isinstance(stored, dict):
        return all(_equal(value, sent[key]) for key, value in stored.items())
    if isinstance(stored, list):
        return all(map(_equal, stored, sent))
    return isinstance(stored, bool) == isinstance(sent, bool)


def _truncated(length: Any) -> Any:  # noqa: ANN401  # any JSON value
    return int(length) if isinstance(length, (int, float)) and abs(length) < 2**63 else length
