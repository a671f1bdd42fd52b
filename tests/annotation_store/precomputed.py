"""Readings of precomputed annotations by the letter of the format, with none of the code that encodes them.

Source: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/annotations.md
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from annotation_store.model import Item
from annotation_store.reader import AnnotationReader
from annotation_store.views.collection import Collection
from annotation_store.views.collections import CollectionName
from annotation_store.views.dataset import DatasetView
from precomputed_server.files import Tree
from precomputed_server.format.geometry import Box
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from tests.annotation_store.support import Place

RESOLUTION_NM = (1800.0, 1800.0, 2000.0)
ALL_CELLS = 600
POINTS = {"point": 1, "line": 2, "axis_aligned_bounding_box": 2, "ellipsoid": 2}


@dataclass(frozen=True)
class Decoded:
    """One annotation: its points, single precision, and the values of its properties."""

    id: int
    points: tuple[tuple[float, ...], ...]
    time: int
    anntype: int
    author: int
    reviewed: int
    visited: int


def decoded_one(type: str, data: bytes, id: int) -> tuple[Decoded, list[int]]:
    """An annotation of its own, and the objects that it names."""
    found, at = _decoded(type, data, 0, id)
    (count,) = struct.unpack_from("<I", data, at)
    assert len(data) == at + 4 + 8 * count
    return found, list(struct.unpack_from(f"<{count}Q", data, at + 4))


def decoded(type: str, data: bytes) -> list[Decoded]:
    """A list of annotations, as cells and objects have it."""
    (count,) = struct.unpack_from("<Q", data)
    ids = struct.unpack_from(f"<{count}Q", data, len(data) - 8 * count)
    found, at = [], 8
    for id in ids:
        one, at = _decoded(type, data, at, id)
        found.append(one)
    assert at + 8 * count == len(data), "there is more than the annotations"
    return found


def _decoded(type: str, data: bytes, at: int, id: int) -> tuple[Decoded, int]:
    count = POINTS.get(type, 0)
    if type == "polyline":
        (count,) = struct.unpack_from("<I", data, at)
        at += 4
    numbers = struct.unpack_from(f"<{3 * count}f", data, at)
    at += 12 * count
    points = tuple(numbers[place : place + 3] for place in range(0, 3 * count, 3))
    return Decoded(id, points, *struct.unpack_from("<IiiBBxx", data, at)), at + 16


def single(point: list[float]) -> tuple[float, ...]:
    """A point in single precision."""
    return tuple(float(np.float32(length)) for length in point)


def expected_points(item: Item) -> tuple[tuple[float, ...], ...]:
    """The points by which an annotation of ours is shown."""
    kind = item["type"]
    if kind == "point":
        return (single(item["point"]),)
    if kind == "ellipsoid":
        return single(item["center"]), single(item["radii"])
    if kind in ("line", "axis_aligned_bounding_box"):
        return single(item["pointA"]), single(item["pointB"])
    points = [*item["points"]]
    if len(points) == 1 or (kind == "polygon" and points[0] != points[-1]):
        points.append(points[0])
    return tuple(map(single, points))


def volume_of(size: tuple[int, int, int], offset: tuple[int, int, int] = (0, 0, 0)) -> VolumeInfo:
    """A volume of one scale, without voxels."""
    return VolumeInfo("uint8", 1, (ScaleInfo("1_1_1", size, RESOLUTION_NM, ((64, 64, 64),), offset),))


def view_of(place: Place, volume: VolumeInfo | None = None, memory: int = 1 << 24) -> DatasetView:
    """The view that a new process has of the dataset."""
    view = DatasetView(AnnotationReader(Tree(place.root)), "brain", volume or volume_of((1000, 800, 600)), memory)
    view.refresh()
    return view


def collection_of(view: DatasetView, name: str) -> Collection:
    """The collection of that name, which exists."""
    parsed = CollectionName.parse(name)
    assert parsed is not None
    found = view.collection(parsed)
    assert found is not None
    return found


def info_of(collection: Collection) -> dict[str, Any]:
    """The members of info."""
    members: dict[str, Any] = json.loads(answered(collection, "info"))
    return members


def answered(collection: Collection, path: str) -> bytes:
    """A file of a collection that there is."""
    found = collection.answer(path, RESOLUTION_NM)
    assert found is not None, path
    return found.data


def cells_of(collection: Collection, level: dict[str, Any]) -> Iterable[tuple[int, ...]]:
    """The cells of a level of info: all of them, or those that hold something where there are very many."""
    if np.prod(level["grid_shape"]) <= ALL_CELLS:
        return np.ndindex(*level["grid_shape"])
    halvings = tuple(int(text) for text in level["key"].split("-")[1:])
    return [cell for cell, _ in collection.filled_cells(halvings)]


def everything(collection: Collection, info: dict[str, Any] | None = None) -> dict[int, Decoded]:
    """All annotations by their number, read from all cells that `info` (its own, or an older one) speaks of.

    Each lies in cells of one level only, in each of them no more than once and as the same, and, if it is inside of the
    volume, in every cell of that level that its box reaches into.
    """
    info = info_of(collection) if info is None else info
    found: dict[int, Decoded] = {}
    for level in info["spatial"]:
        cells: dict[int, set[tuple[int, ...]]] = {}
        for cell in cells_of(collection, level):
            listed = decoded(collection.name.type, answered(collection, f"{level['key']}/{'_'.join(map(str, cell))}"))
            assert len({each.id for each in listed}) == len(listed), "a cell has an annotation twice"
            for each in listed:
                assert found.setdefault(each.id, each) == each, "two cells or levels differ"
                cells.setdefault(each.id, set()).add(cell)
        for id, reached in cells.items():
            missed = _reached_by(found[id], collection.name.type, level, info) - reached
            assert not missed, "a cell lacks an annotation that reaches into it"
    return found


def _reached_by(one: Decoded, type: str, level: dict[str, Any], info: dict[str, Any]) -> set[tuple[int, ...]]:
    points = np.array(one.points, np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    if type == "ellipsoid":
        low, high = points[0] - abs(points[1]), points[0] + abs(points[1])
    box = Box(tuple(info["lower_bound"]), tuple(info["upper_bound"]))
    most = np.array(level["grid_shape"]) - 1
    first, last = (np.clip((corner - box.start) // level["chunk_size"], 0, most).astype(int) for corner in (low, high))
    return {tuple(int(x) for x in first + step) for step in np.ndindex(*(last - first + 1))}
