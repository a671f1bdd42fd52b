"""An annotation as Neuroglancer's state has it: type, id, coordinates, description, segments and properties. Pure.

Neuroglancer has no polygons, a polygon of ours is a polyline that ends where it begins; it keeps coordinates in single
precision, and keeps nothing that it does not know. So what comes back is compared with what was shown, and what says
the same keeps its stored value.

Source: https://github.com/google/neuroglancer/blob/master/src/annotation/index.ts (polylines since version 2.41)
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

from annotation_store.blocks import slice_digits
from annotation_store.exchange.fields import PLACE, Fields, in_one_slice, item_of, patched, same
from annotation_store.exchange.rows import Dialect, Row
from annotation_store.exchange.selection import CONTOURS, is_sound
from annotation_store.model import GEOMETRY, Item

POLYLINE = "polyline"
PROPERTIES = "properties"
"""The field that holds the values of a layer's `annotationProperties` by their id."""

VIEWER_GEOMETRY: Mapping[str, tuple[str, ...]] = {
    POLYLINE: ("points",),
    **{kind: GEOMETRY[kind] for kind in ("point", "line", "axis_aligned_bounding_box", "ellipsoid")},
}
_SEGMENT = re.compile(r"[0-9]{1,20}")
_COLOUR = re.compile(r"#[0-9a-f]{6}([0-9a-f]{2})?")
_PROPERTY_ID = re.compile(r"[a-z][a-zA-Z0-9_]*")


class ViewerDialect(Dialect):
    """What Neuroglancer shows of an annotation: type, coordinates, description, segments, and numbers."""

    shows_one = True

    def apart(self, leaf: str) -> str:
        return layer_name(leaf)

    def shown(self, item: Item) -> Fields | None:
        if not is_sound(item):
            return None
        kind = item["type"]
        place = [kind, *(item[name] for name in GEOMETRY[kind])]
        if kind in ("polygon", "linestring"):
            points = item["points"]
            place = [POLYLINE, [*points, points[0]] if kind == "polygon" else points]
        if _single(place[1:]) is None or len(place[1]) < 2:
            return None
        fields: Fields = {PLACE: place}
        if item.get("description"):
            fields["description"] = item["description"]
        segments = segments_of(item.get("segments"))
        if segments:
            fields["segments"] = segments
        properties = _properties_of(item)
        return fields | ({PROPERTIES: properties} if properties else {})

    def same(self, name: str, first: Fields, second: Fields) -> bool:
        if name == PLACE and PLACE in first and PLACE in second:
            here, there = first[PLACE], second[PLACE]
            return here[0] == there[0] and _single(here[1:]) == _single(there[1:])
        if name == PROPERTIES:
            here, there = first.get(name, {}), second.get(name, {})
            return all(_same_value(here.get(id, 0), there.get(id, 0)) for id in here.keys() | there.keys())
        return same(name, first, second)

    def taken(self, stored: Item, row: Row, names: Iterable[str]) -> Item:
        fields = dict(row.fields)
        wanted = list(names)
        if PLACE in wanted:
            fields[PLACE] = _place_of(stored, row.fields[PLACE])
        if PROPERTIES in wanted:
            before = stored.get(PROPERTIES)
            before = before if isinstance(before, dict) else {}
            sent = fields.get(PROPERTIES, {})
            new = {id: value for id, value in sent.items() if not _same_value(value, before.get(id, 0))}
            fields[PROPERTIES] = before | new
        return patched(stored, fields, wanted)

    def new(self, row: Row) -> Item:
        kind, *coordinates = row.fields[PLACE]
        if kind == POLYLINE:
            kind, coordinates = _drawn(coordinates[0], row.leaf)
        return item_of(row.id, {**row.fields, PLACE: [kind, *coordinates]})


def layer_name(leaf: str) -> str:
    """The layer of a leaf."""
    return CONTOURS if slice_digits(leaf) is not None else leaf


def to_viewer(id: str, fields: Fields, relationships: int, properties: Iterable[str]) -> dict[str, Any]:
    """The annotation of a state, of a layer with so many relationships and the properties of these ids."""
    kind, *coordinates = fields[PLACE]
    annotation = {"type": kind, "id": id, **dict(zip(VIEWER_GEOMETRY[kind], coordinates, strict=True))}
    if "description" in fields:
        annotation["description"] = fields["description"]
    if "segments" in fields:
        listed = fields["segments"]
        annotation["segments"] = [*listed, *([[]] * (relationships - len(listed)))]
    values = fields.get(PROPERTIES, {})
    props = [values.get(property, 0) for property in properties]
    return annotation | ({"props": props} if props else {})


def segments_of(value: object) -> list[list[str]]:
    """Segments, a list for each relationship, without empty ones at the end; none where they are no such lists."""
    if not isinstance(value, list):
        return []
    lists = value if all(isinstance(each, list) for each in value) else [value]
    found = [[str(id) for id in each] for each in lists]
    if not all(_SEGMENT.fullmatch(id) and int(id) < 2**64 for each in found for id in each):
        return []
    while found and not found[-1]:
        found.pop()
    return found


def _properties_of(item: Item) -> dict[str, Any]:
    """The properties that a layer can have: numbers and colours."""
    values = item.get(PROPERTIES)
    if not isinstance(values, dict):
        return {}
    return {id: value for id, value in values.items() if _PROPERTY_ID.fullmatch(id) and property_type(value)}


def property_type(value: object) -> str | None:
    """The type of annotation property that holds a value; None where there is none."""
    if isinstance(value, str):
        match = _COLOUR.fullmatch(value)
        return None if match is None else "rgba" if match[1] else "rgb"
    if isinstance(value, bool) or not isinstance(value, (int, float)) or _single([[value]]) is None:
        return None
    if isinstance(value, int) and abs(value) > 2**24:
        return "uint32" if 0 < value < 2**32 else "int32" if -(2**31) <= value < 0 else None
    return "float32"


def _same_value(first: object, second: object) -> bool:
    if isinstance(first, (int, float)) and isinstance(second, (int, float)):
        return first == second or _single([[first]]) == _single([[second]])
    return str(first).replace("#000000", "0") == str(second).replace("#000000", "0")


def _single(coordinates: list[Any]) -> list[Any] | None:
    """The same coordinates in single precision; None where that cannot hold them."""
    try:
        flat = [array("f", each) if not isinstance(each[0], list) else [*map(_vector, each)] for each in coordinates]
    except (OverflowError, TypeError):
        return None
    return None if any(_is_infinite(each) for each in flat) else flat


def _vector(position: list[float]) -> array[float]:
    return array("f", position)


def _is_infinite(values: Any) -> bool:  # noqa: ANN401  # numbers, or lists of them
    return any(_is_infinite(each) if isinstance(each, array) else each - each != 0 for each in values)


def _place_of(stored: Item, sent: list[Any]) -> list[Any]:
    """Type and coordinates of a stored annotation that was moved; a position that was not keeps its stored value."""
    kind, *coordinates = sent
    if kind != POLYLINE:
        before = [stored.get(name) for name in GEOMETRY[kind]] if stored.get("type") == kind else []
        kept = {tuple(_vector(each)): each for each in before if isinstance(each, list)}
        return [kind, *(kept.get(tuple(_vector(each)), each) for each in coordinates)]
    points, old = coordinates[0], stored.get("points", [])
    known = {tuple(_vector(point)): point for point in old}
    if stored.get("type") == "polygon":
        points = _ring(points, old)
    exact = [known.get(tuple(_vector(point)), point) for point in points]
    return [stored["type"] if stored.get("type") in ("polygon", "linestring") else _drawn(points, None)[0], exact]


def _ring(points: list[Any], old: list[Any]) -> list[Any]:
    """The points of a polygon of which only one of the two vertices may have been moved that lie on each other."""
    if len(points) < 3:
        return points
    first, last = (tuple(_vector(points[at])) for at in (0, -1))
    if first == last:
        return points[:-1]
    if len(points) == len(old) + 1:
        where = tuple(_vector(old[0]))
        if last == where:
            return points[:-1]
        if first == where:
            return [points[-1], *points[1:-1]]
    return points


def _drawn(points: list[Any], layer: str | None) -> tuple[str, list[Any]]:
    """What a new polyline is: closed in one slice, or drawn in the layer of contours in one, a polygon."""
    flat = in_one_slice({"type": "linestring", "points": points})
    closed = len(points) > 3 and tuple(_vector(points[0])) == tuple(_vector(points[-1]))
    if flat and closed:
        return "polygon", [points[:-1]]
    return ("polygon" if flat and layer == CONTOURS and len(points) > 2 else "linestring"), [points]
