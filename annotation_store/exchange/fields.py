"""What two annotations say differently, field by field; type and coordinates are one field. Pure."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator
from typing import Any

import orjson

from annotation_store.merging.merge import equal
from annotation_store.model import GEOMETRY, Item

PLACE = "type"
"""Under this name stand type and coordinates together: `[type, coordinates…]` in the order of GEOMETRY."""

_DRAWN = 1e-3
"""Voxels by which a viewer that counts in single precision may miss a slice."""

Fields = dict[str, Any]
Point = tuple[float, float, float]


def fields_of(item: Item) -> Fields:
    """The fields of an annotation without its id."""
    names = place_names(item)
    fields = {name: value for name, value in item.items() if name != "id" and name not in names}
    fields[PLACE] = [item.get("type"), *(item.get(name) for name in geometry_names(item))]
    return fields


def geometry_names(item: Item) -> tuple[str, ...]:
    """The names of its coordinates; none for an unknown type."""
    kind = item.get("type")
    return GEOMETRY.get(kind, ()) if isinstance(kind, str) else ()


def place_names(item: Item) -> frozenset[str]:
    """The names of its type and coordinates."""
    return frozenset(("type", *geometry_names(item)))


def differing(first: Fields, second: Fields) -> list[str]:
    """The names of the fields in which they differ; 5 and 5.0 are the same number."""
    names = dict.fromkeys([*first, *second])
    return [name for name in names if not same(name, first, second)]


def same(name: str, first: Fields, second: Fields) -> bool:
    """Whether a field is the same in both, or absent from both."""
    if name not in first or name not in second:
        return name not in first and name not in second
    return equal(first[name], second[name])


def patched(stored: Item, fields: Fields, names: Collection[str]) -> Item:
    """`stored` with those fields as `fields` has them, or without them where it has none."""
    result = dict(stored)
    for name in names:
        if name == PLACE:
            kind, *coordinates = fields[PLACE]
            for old in set(geometry_names(stored)) - set(GEOMETRY[kind]):
                del result[old]
            result |= {"type": kind, **dict(zip(GEOMETRY[kind], coordinates, strict=True))}
        elif name in fields:
            result[name] = fields[name]
        else:
            result.pop(name, None)
    return result


def item_of(id: str, fields: Fields) -> Item:
    """A new annotation of that id."""
    return patched({"id": id}, fields, [PLACE, *(name for name in fields if name != PLACE)])


def positions(item: Item) -> Iterator[list[float]]:
    """The positions of an annotation; an ellipsoid's centre and what its radii reach."""
    names = geometry_names(item)
    if names == ("points",):
        yield from item["points"]
    elif names == ("center", "radii"):
        center, radii = item["center"], item["radii"]
        yield [at - radius for at, radius in zip(center, radii, strict=True)]
        yield [at + radius for at, radius in zip(center, radii, strict=True)]
    else:
        for name in names:
            yield item[name]


def bounds(item: Item) -> tuple[Point, Point]:
    """The lowest and highest x, y, z of an annotation."""
    xs, ys, zs = zip(*positions(item), strict=True)
    return (min(xs), min(ys), min(zs)), (max(xs), max(ys), max(zs))


def first_position(item: Item) -> Point:
    """Where it begins: what decides the block of a new one."""
    names = geometry_names(item)
    x, y, z = item["points"][0] if names == ("points",) else item[names[0]]
    return x, y, z


def slice_at(z: float) -> int:
    """The slice, in voxels, of a height; what a mouse has drawn at 30 may lie at 29.999998."""
    return math.floor(z + _DRAWN)


def in_one_slice(item: Item) -> bool:
    """Whether all of it lies in one slice."""
    return len({slice_at(position[2]) for position in positions(item)}) == 1


def id_of(fields: Fields, name: str = "") -> str:
    """An id for an annotation whose file gives it none: the same whenever the file is read."""
    return hashlib.sha256(orjson.dumps([name, fields[PLACE]])).hexdigest()[:40]
