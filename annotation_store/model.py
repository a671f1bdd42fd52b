"""What an annotation is: the JSON objects of a leaf, read and checked.

A leaf (`fibers`, `centroids`, `z-0020`) is a JSON list of objects. Here it is a mapping from id to object in the order
of the file. Fields that this program does not know are kept as they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

import orjson

from precomputed_server.errors import InvalidAnnotation, InvalidJson, Unreadable

Item = dict[str, Any]
Items = dict[str, Item]

GEOMETRY: Mapping[str, tuple[str, ...]] = {
    "point": ("point",),
    "polygon": ("points",),
    "linestring": ("points",),
    "line": ("pointA", "pointB"),
    "axis_aligned_bounding_box": ("pointA", "pointB"),
    "ellipsoid": ("center", "radii"),
}
"""The fields that hold the coordinates of each annotation type, in voxels x, y, z."""

MAXIMUM_DEPTH = 32
"""How deep the fields of an annotation may be nested."""

LONGEST_ID = 200
_STORED_DEPTH = 200
"""How deep a stored item may be nested: past 250 levels orjson reads, but does not write."""

_NUMBERS = {float, int}
_SHALLOW, _NESTED = 3, {list, dict}
_LONG_RUN = b"0" * 19
_ONLY_DIGITS = bytes(ord("0") if chr(byte).isdigit() and byte < 128 else ord(" ") for byte in range(256))
_INTEGERS = range(-(2**63), 2**64)


def parse_items(body: bytes) -> Items:
    """Read and check a whole leaf.

    Raises InvalidJson when `body` is not JSON, InvalidAnnotation naming the item and the field that is wrong.
    """
    listed = _load(body)
    if not isinstance(listed, list):
        raise InvalidAnnotation(f"the body must be a list of annotations, not {_kind(listed)}.")
    return _by_id(listed, check_item)


def parse_item(body: bytes, id: str) -> Item:
    """Read and check one annotation that is to have this `id`, which its body may leave out.

    Raises as `parse_items` does.
    """
    item = parse_object(body)
    check_id(item.setdefault("id", id), "the annotation")
    if item["id"] != id:
        raise InvalidAnnotation(f"the body's id {item['id']!r} is not the id {id!r} of the request.")
    check_item(item, "the annotation")
    return item


def parse_object(body: bytes, wanted: str = "one annotation, an object") -> Item:
    """Read a JSON object; raises InvalidJson, InvalidAnnotation when it is another JSON value than is `wanted`."""
    item = _load(body)
    if not isinstance(item, dict):
        raise InvalidAnnotation(f"the body must be {wanted}, not {_kind(item)}.")
    return item


def parse_stored(data: bytes) -> Items:
    """Read a leaf as any tool may have left it: only ids and depth are checked; an empty file is an empty list.

    Raises Unreadable.
    """
    if not data:
        return {}
    try:
        listed = _load(data)
        if not isinstance(listed, list):
            raise InvalidAnnotation(f"it holds {_kind(listed)} instead of a list.")
        return _by_id(listed, _check_stored)
    except (InvalidJson, InvalidAnnotation) as error:
        raise Unreadable(f"the stored annotation file cannot be used: {error}") from error


def parse_stored_item(line: bytes) -> Item:
    """Read one annotation of a leaf, its line, and check it as `parse_stored` does; raises Unreadable."""
    try:
        item = parse_object(line)
        check_id(item.get("id"), "an annotation")
        if line.count(b"[") + line.count(b"{") > _STORED_DEPTH:
            check_depth(item, "an annotation", _STORED_DEPTH)
    except (InvalidJson, InvalidAnnotation) as error:
        raise Unreadable(f"the stored annotation file cannot be used: {error}") from error
    return item


def serialize(items: Items) -> bytes:
    """The bytes of a leaf's file: JSON with one annotation a line."""
    return joined(map(line_of, items.values()))


def line_of(item: Item) -> bytes:
    """The line of an annotation in the file."""
    return orjson.dumps(item)


def joined(lines: Iterable[bytes]) -> bytes:
    """The bytes of the file of these lines."""
    inside = b",\n".join(lines)
    return b"[\n" + inside + b"\n]\n" if inside else b"[]\n"


def check_id(id: object, name: str) -> None:
    """Raise InvalidAnnotation unless `id` can name an annotation; `name` says in the sentence whose id it is."""
    if not isinstance(id, str) or not 0 < len(id) <= LONGEST_ID:
        raise InvalidAnnotation(f"{name} needs an id, a text of 1 to {LONGEST_ID} characters.")


def check_item(item: Item, name: str) -> None:
    """Raise InvalidAnnotation unless `item` is an annotation of a known type; `name` is how the sentence calls it."""
    check_id(item.get("id"), name)
    name = f"{name} ({item['id']})"
    check_depth(item, name)
    kind = item.get("type")
    if not isinstance(kind, str) or kind not in GEOMETRY:
        raise InvalidAnnotation(f"{name}: type is {_shown(kind)}, not one of {', '.join(GEOMETRY)}.")
    for field in GEOMETRY[kind]:
        if field == "points":
            _check_points(item.get(field), name)
        else:
            _check_vector(item.get(field), f"{name}: {field}")
    for field in filter(item.__contains__, _OPTIONAL):
        fault = _OPTIONAL[field](item[field])
        if fault:
            raise InvalidAnnotation(f"{name}: {field} is {_shown(item[field])}, not {fault}.")


def _check_stored(item: Item, name: str) -> None:
    check_id(item.get("id"), name)
    check_depth(item, name, _STORED_DEPTH)


def _load(body: bytes) -> Any:  # noqa: ANN401  # any JSON value
    try:
        loaded = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"the body is not JSON: {error}.") from error
    # orjson reads an integer past 64 bits as a float; the digits would be lost without a word.
    if _may_have_long_integer(body):
        try:
            json.loads(body, parse_int=_checked_integer)
        except RecursionError as error:
            raise InvalidAnnotation(f"the body is nested deeper than {MAXIMUM_DEPTH} levels.") from error
    return loaded


def _may_have_long_integer(body: bytes) -> bool:
    # A regular expression over the whole takes 25 ms for a MiB, in which no other thread runs.
    digits = body.translate(_ONLY_DIGITS)
    start = digits.find(_LONG_RUN)
    while start >= 0:
        if start == 0 or body[start - 1] in b"[:,- \t\r\n":
            return True
        stop = digits.find(b" ", start)
        start = digits.find(_LONG_RUN, stop) if stop >= 0 else -1
    return False


def _checked_integer(text: str) -> int:
    if len(text) > 20 or int(text) not in _INTEGERS:
        raise InvalidAnnotation(f"the whole number {text[:24]} does not fit 64 bits; write it as a text.")
    return int(text)


def _by_id(listed: list[Any], check: Callable[[Item, str], None]) -> Items:
    items: Items = {}
    for number, item in enumerate(listed):
        if not isinstance(item, dict):
            raise InvalidAnnotation(f"item {number} must be an object, not {_kind(item)}.")
        check(item, f"item {number}")
        if item["id"] in items:
            raise InvalidAnnotation(f"item {number} has the id {item['id']!r} of an earlier item.")
        items[item["id"]] = item
    return items


def _check_points(points: object, name: str) -> None:
    if not isinstance(points, list) or not points:
        raise InvalidAnnotation(f"{name}: points must be a list of at least one [x, y, z].")
    if _are_vectors(points):
        return
    for number, point in enumerate(points):
        _check_vector(point, f"{name}: points[{number}]")


def _are_vectors(points: list[Any]) -> bool:
    """Whether all are three numbers, seen at the speed of C; what it is not sure of is looked at one by one."""
    if set(map(type, points)) != {list} or set(map(len, points)) != {3}:
        return False
    if not set(map(type, chain.from_iterable(points))) <= _NUMBERS:
        return False
    try:
        return all(map(math.isfinite, chain.from_iterable(points)))
    except OverflowError:  # a whole number past all doubles
        return False


def _check_vector(vector: object, name: str) -> None:
    if not isinstance(vector, list) or len(vector) != 3 or not all(_is_number(length) for length in vector):
        raise InvalidAnnotation(f"{name} is {_shown(vector)}, not [x, y, z] in voxels.")


_OPTIONAL: Mapping[str, Callable[[object], str]] = {
    "anntype": lambda value: "" if value is None or type(value) is str else "a text",
    "description": lambda value: "" if value is None or type(value) is str else "a text",
    "length": lambda value: "" if _is_number(value) else "a number",
    "reviewed": lambda value: "" if type(value) is bool else "true or false",
    "segments": lambda value: "" if type(value) is list else "a list",
    "visited": lambda value: "" if type(value) is bool else "true or false",
}
"""What each field that may be there must be, where it is not; all JSON values have these very types."""


def check_depth(item: Item, name: str, deepest: int = MAXIMUM_DEPTH) -> None:
    """Raise InvalidAnnotation for what could be read but not be written again."""
    if deepest >= _SHALLOW and all(_is_shallow(value) for value in item.values() if type(value) in _NESTED):
        return
    level: list[Any] = [item]
    for _ in range(deepest):
        level = [
            child
            for value in level
            for child in (value.values() if isinstance(value, dict) else value)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise InvalidAnnotation(f"{name} is nested deeper than {deepest} levels.")


def _is_shallow(value: Any) -> bool:  # noqa: ANN401  # any JSON value
    """Whether a field holds no more than lists of lists of plain values, as coordinates do; seen at the speed of C."""
    if type(value) is not list:
        return type(value) is not dict
    kinds = set(map(type, value))
    return not kinds & _NESTED or (kinds == {list} and not set(map(type, chain.from_iterable(value))) & _NESTED)


def _is_number(value: object) -> bool:
    return type(value) is float and math.isfinite(value) or type(value) is int


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _shown(value: object) -> str:
    return "missing" if value is None else json.dumps(value)[:60]
