"""GeoJSON (RFC 7946): a FeatureCollection with one Feature a line; coordinates are x, y, z in voxels, no longitudes.

A point is a Point, a linestring or line a LineString, a polygon a Polygon of one ring, a bounding box the MultiPoint of
its two corners, an ellipsoid the Point of its centre with `radii` among the properties. The property `type` says which
of them it is; all other fields are properties too. Block and leaf are members of the Feature.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from annotation_store.exchange.fields import fields_of, geometry_names, id_of
from annotation_store.exchange.rows import MARK, Dialect, Export, Origin, Placed, Reading, Row
from annotation_store.exchange.selection import is_sound
from annotation_store.exchange.text import gathered, lines_of, object_of, placed_by
from annotation_store.model import GEOMETRY, Item, check_item
from precomputed_server.errors import InvalidAnnotation, InvalidInput

_KINDS: Mapping[str, str] = {"Point": "point", "LineString": "linestring", "Polygon": "polygon"}
"""What a geometry is where no property says it."""

Positions = list[Any]

_POINTS = b'"points":'
_POSITION = rb"\[[-+.0-9eE]+,[-+.0-9eE]+,[-+.0-9eE]+\]"
_COORDINATES = re.compile(rb"\[%b(?:,%b)*\](?=[,}])" % (_POSITION, _POSITION))
"""Points as they are stored. In a text, no quote stands without a backslash: what begins them is no part of one."""


def write_geojson(export: Export) -> Iterator[bytes]:
    """The file, in pieces."""
    return gathered(_parts(export))


def _parts(export: Export) -> Iterator[bytes]:
    header = orjson.dumps({"type": "FeatureCollection", MARK: export.origin.to_json(), "features": []})
    yield header.removesuffix(b"]}") + b"\n"
    between = b""
    for feature in _features(export):
        if feature is not None:
            yield between + feature
            between = b",\n"
    yield b"\n]}\n"


def _features(export: Export) -> Iterator[bytes | None]:
    """Each annotation's Feature, None where it has no place."""
    if export.lines is None:
        for placed in export.annotations:
            yield orjson.dumps(_feature(placed)) if is_sound(placed.item) else None
        return
    for some in export.lines:
        for line in some.lines:
            yield _feature_of(line, some.block, some.leaf)


def _feature_of(line: bytes, block: str, leaf: str) -> bytes | None:
    """The Feature of a stored line, with many coordinates as they stand there: to read them takes the time."""
    begin = line.find(_POINTS)
    match = None if begin < 0 else _COORDINATES.match(line, begin + len(_POINTS))
    if match is not None:
        item = orjson.loads(b"%b[[0,0,0]]%b" % (line[: match.start()], line[match.end() :]))
        # The points of a field in a field are not those of the annotation.
        if item.get("points") == [[0, 0, 0]] and item.get("type") in ("linestring", "polygon"):
            if not is_sound(item):
                return None
            del item["points"]
            return orjson.dumps(_with(item, block, leaf, _geometry_of(match[0], is_ring=item["type"] == "polygon")))
    placed = Placed(block, leaf, orjson.loads(line), None)
    return orjson.dumps(_feature(placed)) if is_sound(placed.item) else None


def _geometry_of(points: bytes, *, is_ring: bool) -> dict[str, Any]:
    """The geometry of points as JSON."""
    count = points.count(b"[") - 1
    if is_ring and count > 2:
        first = points[1 : points.index(b"]") + 1]
        return {"type": "Polygon", "coordinates": orjson.Fragment(b"[%b,%b]]" % (points[:-1], first))}
    return {"type": "LineString" if count > 1 else "MultiPoint", "coordinates": orjson.Fragment(points)}


def _feature(placed: Placed) -> dict[str, Any]:
    properties = dict(placed.item)
    geometry = _geometry(properties)
    return _with(properties, placed.block, placed.leaf, geometry)


def _with(properties: Item, block: str, leaf: str, geometry: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "type": "Feature",
        "id": properties.pop("id"),
        "block": block,
        "leaf": leaf,
        "geometry": geometry,
        "properties": properties,
    }


def _geometry(properties: Item) -> dict[str, Any] | None:
    """The geometry of an annotation, whose coordinates leave its properties; None for what has none."""
    kind, names = properties.get("type"), geometry_names(properties)
    if not names or any(type(properties.get(name)) is not list for name in names):
        return None
    first = properties.pop(names[0])
    if names[0] != "points":
        if len(names) == 1 or kind == "ellipsoid":
            return {"type": "Point", "coordinates": first}
        both = [first, properties.pop(names[1])]
        return {"type": "LineString" if kind == "line" else "MultiPoint", "coordinates": both}
    if kind == "polygon" and len(first) > 2:
        return {"type": "Polygon", "coordinates": [[*first, first[0]]]}
    return {"type": "LineString" if len(first) > 1 else "MultiPoint", "coordinates": first}


def read_geojson(pieces: Iterable[bytes]) -> Reading:
    """The file's rows; one written here is read line by line, any other one whole. Raises InvalidInput and its kin."""
    lines = lines_of(pieces)
    first = next(lines, "")
    if first.rstrip().endswith('"features":['):
        header = object_of(first.rstrip() + "]}", "line 1")
        return Reading(_origin(header), _lines(lines), Dialect())
    collection = object_of("".join(itertools.chain([first], lines)), "the file")
    if collection.get("type") == "Feature":
        collection = {"type": "FeatureCollection", "features": [collection]}
    features = collection.get("features")
    if collection.get("type") != "FeatureCollection" or not isinstance(features, list):
        raise InvalidInput("The file must be a GeoJSON FeatureCollection.")
    rows = (_row(feature, f"feature {number}") for number, feature in enumerate(features))
    return Reading(_origin(collection), rows, Dialect())


def _origin(members: dict[str, Any]) -> Origin | None:
    return Origin.from_json(members[MARK]) if MARK in members else None


def _lines(lines: Iterator[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 2):
        text = line.strip()
        if text == "]}":
            return
        if text:
            yield _row(object_of(text.removesuffix(","), f"line {number}"), f"line {number}")
    raise InvalidInput("The file is cut short: its last line is not ]}.")


def _row(feature: Any, where: str) -> Row:  # noqa: ANN401  # any JSON value
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise InvalidInput(f"{where} is no GeoJSON Feature.")
    properties, geometry = feature.get("properties"), feature.get("geometry")
    if not isinstance(properties, (dict, type(None))) or not isinstance(geometry, (dict, type(None))):
        raise InvalidInput(f"{where}: properties and geometry must be objects.")
    item: Item = {"id": "new", **(properties or {})}
    if geometry is not None:
        _take_geometry(item, geometry, where)
    id = feature.get("id")
    item["id"] = str(id) if type(id) is int else "new" if id is None else id
    check_item(item, where)
    fields = fields_of(item)
    place = placed_by(feature, where)
    return Row(where, id_of(fields) if id is None else item["id"], fields, *place)


def _take_geometry(item: Item, geometry: dict[str, Any], where: str) -> None:
    """Put the coordinates of a geometry where the annotation's type has them."""
    form = geometry.get("type")
    kind = item.setdefault("type", _KINDS.get(form) if isinstance(form, str) else None)
    if not isinstance(kind, str) or kind not in GEOMETRY:
        raise InvalidAnnotation(
            f"{where}: {str(kind or form)[:40]!r} cannot be an annotation; split it into Points, LineStrings or"
            f" Polygons, and let the property type be one of {', '.join(GEOMETRY)}."
        )
    positions = _positions(form, geometry.get("coordinates"), where)
    names = GEOMETRY[kind]
    if names == ("points",):
        item["points"] = positions
        return
    wanted = 1 if kind == "ellipsoid" else len(names)
    if len(positions) != wanted:
        raise InvalidAnnotation(f"{where}: a {kind} has {wanted} positions, not {len(positions)}.")
    item |= dict(zip(names, positions, strict=False))


def _positions(form: object, coordinates: object, where: str) -> Positions:
    if form == "Point":
        return [coordinates]
    if form == "Polygon":
        if not isinstance(coordinates, list) or len(coordinates) != 1 or not isinstance(coordinates[0], list):
            raise InvalidAnnotation(f"{where}: a Polygon must have one ring; make holes polygons of their own.")
        ring: Positions = coordinates[0]
        return ring[:-1] if len(ring) > 1 and ring[0] == ring[-1] else ring
    if form not in ("LineString", "MultiPoint") or not isinstance(coordinates, list):
        raise InvalidAnnotation(f"{where}: the geometry {str(form)[:40]!r} is not understood; split it.")
    return coordinates
