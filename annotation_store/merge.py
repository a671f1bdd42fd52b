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
        return False
    if field in _SINGLE_PRECISION:
        return _same_in_single_precision(stored, sent)
    if field == "length":
        return bool(_truncated(stored) == _truncated(sent))
    return bool(stored == sent)


def _same_in_single_precision(stored: Any, sent: Any) -> bool:  # noqa: ANN401  # any JSON value
    if not isinstance(stored, list) or not isinstance(sent, list) or len(stored) != len(sent):
        return bool(stored == sent)
    try:
        with np.errstate(over="ignore"):
            return bool(np.array_equal(np.asarray(stored, np.float32), np.asarray(sent, np.float32)))
    except (TypeError, ValueError):
        return bool(stored == sent)


def _truncated(length: Any) -> Any:  # noqa: ANN401  # any JSON value
    return int(length) if isinstance(length, (int, float)) and abs(length) < 2**63 else length
