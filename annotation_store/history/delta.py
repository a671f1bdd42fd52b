"""What has to be written down of an annotation so that it can be made again from what it was before."""

from __future__ import annotations

from typing import Any

import orjson

from annotation_store.model import Item

Delta = dict[str, Any]
"""`set`: fields and their values, `unset`: fields, `splice`: for a list [start, how many go, [what comes]]."""

_PLAIN = (str, bool, int, type(None))
_SPLICED_FROM = 4
"""The shortest list of which only the changed part is written."""

_NOTHING = object()


def difference(before: Item, after: Item) -> Delta | None:
    """The delta that makes `after` of `before` to the byte, None when no delta does because fields change places."""
    unset = [field for field in before if field not in after]
    kept = [field for field in before if field in after] if unset else list(before)
    if list(after)[: len(kept)] != kept:
        return None
    changed: dict[str, Any] = {}
    spliced: dict[str, Any] = {}
    for field, value in after.items():
        old = before.get(field, _NOTHING)
        if old is value or same(old, value):
            continue
        splice = _splice(old, value)
        if splice is None:
            changed[field] = value
        else:
            spliced[field] = splice
    delta: Delta = {"set": changed} if changed else {}
    if unset:
        delta["unset"] = unset
    if spliced:
        delta["splice"] = spliced
    return delta


def patched(before: Item, delta: Delta) -> Item:
    """`before` after a delta: what it sets keeps its place, what is new comes last; `before` stays as it is.

    Raises KeyError for a delta that was made against something else.
    """
    after = dict(before)
    for field in delta.get("unset", ()):
        del after[field]
    for field, (start, removed, inserted) in delta.get("splice", {}).items():
        old = after[field]
        after[field] = [*old[:start], *inserted, *old[start + removed :]]
    after.update(delta.get("set", {}))
    return after


def same(first: Any, second: Any) -> bool:  # noqa: ANN401  # any JSON value
    """Whether two JSON values are written alike: 1, 1.0 and true are not, nor are two orders of fields."""
    if first is second:
        return True
    if type(first) is not type(second) or first != second:
        return False
    return isinstance(first, _PLAIN) or orjson.dumps(first) == orjson.dumps(second)


def _splice(old: Any, new: Any) -> list[Any] | None:  # noqa: ANN401  # any JSON value
    """The middle part in which two lists differ, None when the whole is to be written."""
    if not isinstance(old, list) or not isinstance(new, list) or len(new) < _SPLICED_FROM:
        return None
    start = _common(old, new, min(len(old), len(new)))
    rest = min(len(old), len(new)) - start
    end = _common(old[::-1], new[::-1], rest) if rest else 0
    inserted = new[start : len(new) - end]
    return None if len(inserted) == len(new) else [start, len(old) - start - end, inserted]


def _common(first: list[Any], second: list[Any], length: int) -> int:
    """How many of the first `length` values of two lists are written alike."""
    for place in range(length):
        one, other = first[place], second[place]
        if one is not other and one != other:
            length = place
            break
    if orjson.dumps(first[:length]) == orjson.dumps(second[:length]):
        return length
    return next(place for place in range(length) if not same(first[place], second[place]))
