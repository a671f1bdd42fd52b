"""Rows of the catalog's database: made of what a scan found, and shown as the interface has them. Pure."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any, TypedDict

from precomputed_server.catalog.entries import Entry, Layer, Scale, State
from precomputed_server.format.geometry import Vector


class Conversion(TypedDict):
    """How many chunks of a conversion are done, of how many in all; None where nobody knows."""

    done: int | None
    total: int | None


class CataloguedDataset(TypedDict):
    """A dataset, or a folder of planes; size, type and the like of one of several layers are those of the first.

    What `shown` makes, once it is JSON.
    """

    path: str
    id: str | None
    state: State
    reason: str
    title: str
    description: str
    tags: list[str]
    type: str
    data_type: str
    num_channels: int
    size: Vector | None
    voxel_size_nm: tuple[float, float, float] | None
    scales: list[Scale]
    format: str
    bytes: int | None
    layers: list[Layer]
    annotations: int | None
    progress: Conversion | None
    first_seen: str
    last_seen: str | None


def row_of(entry: Entry) -> dict[str, Any]:
    first = entry.layers[0] if entry.layers else None
    finest = first.scales[0] if first is not None and first.scales else None
    counted = [layer.bytes for layer in entry.layers]
    return {
        "path": entry.path,
        "id": entry.id,
        "state": entry.state,
        "reason": entry.reason,
        "title": entry.title,
        "description": entry.description,
        "tags": json.dumps(entry.tags),
        "type": first.type if first is not None else "",
        "data_type": first.data_type if first is not None else "",
        "format": first.format if first is not None else "",
        "bytes": None if None in counted else sum(each for each in counted if each is not None),
        "voxels": None if finest is None else finest.size[0] * finest.size[1] * finest.size[2],
        "annotations": entry.annotations,
        "done": entry.done,
        "total": entry.total,
        "signature": entry.signature,
    }


def shown(row: sqlite3.Row | Mapping[str, Any], seen: str | None) -> dict[str, Any]:
    """A dataset as the interface has it; `seen` is when the tree was gone through last.

    Size, type and the like of a dataset of several layers are those of the first.
    """
    layers = json.loads(row["layers"])
    first = layers[0] if layers else None
    scales = first["scales"] if first is not None else []
    return {
        "path": row["path"] or ".",
        "id": row["id"],
        "state": row["state"],
        "reason": row["reason"],
        "title": row["title"],
        "description": row["description"],
        "tags": json.loads(row["tags"]),
        "type": row["type"],
        "data_type": row["data_type"],
        "num_channels": first["num_channels"] if first is not None else 0,
        "size": scales[0]["size"] if scales else None,
        "voxel_size_nm": scales[0]["resolution_nm"] if scales else None,
        "scales": scales,
        "format": row["format"],
        "bytes": row["bytes"],
        "layers": layers,
        "annotations": row["annotations"],
        "progress": None
        if row["total"] is None or not layers and row["done"] is None
        else {"done": row["done"], "total": row["total"]},
        "first_seen": row["first_seen"],
        "last_seen": row["vanished_at"] or seen,
    }


def shown_now(entry: Entry) -> dict[str, Any]:
    """The same of a place that was looked at just now."""
    layers = json.dumps([layer.to_json() for layer in entry.layers])
    return shown({**row_of(entry), "layers": layers, "first_seen": None, "vanished_at": None}, None)
