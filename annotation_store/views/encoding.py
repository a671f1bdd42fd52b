"""The bytes of annotations in the precomputed format. Pure.

Everything is little-endian and a multiple of 4 bytes, so annotations are encoded as words. The properties lie in the
order in which `info` names them, widest first: readers that sort them by alignment and readers that do not agree. Only
the first of them is a uint32, because the Python reader of neuroglancer up to 2.41.2 puts one at a multiple of 3 bytes.

Source: https://github.com/google/neuroglancer/blob/master/src/datasource/precomputed/annotations.md
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from annotation_store.views.rows import Array, Ragged, Rows, spread

_PROPERTY_WORDS = 4
_NO_YES = {"enum_values": [0, 1], "enum_labels": ["no", "yes"]}


def properties(anntypes: Mapping[int, str], authors: Mapping[int, str]) -> list[dict[str, Any]]:
    """The `properties` of info; the mappings say what the numbers of their columns mean."""
    return [
        {"id": "time", "type": "uint32", "description": "Last edit, in seconds since 1970 (UTC); 0: not known"},
        {"id": "anntype", "type": "int32", "description": "Type of annotation", **_labels(anntypes)},
        {"id": "author", "type": "int32", "description": "Who edited it last", **_labels(authors)},
        {"id": "reviewed", "type": "uint8", "description": "Whether a person has confirmed it as it lies", **_NO_YES},
        {"id": "visited", "type": "uint8", "description": "Whether somebody has looked at it", **_NO_YES},
    ]


def _labels(labels: Mapping[int, str]) -> dict[str, Any]:
    return {"enum_values": list(labels), "enum_labels": list(labels.values())} if labels else {}


def encoded(type: str, rows: Rows, times: Array, authors: Array) -> Ragged:
    """The words of each annotation: how many points (a polyline only), the points, the properties."""
    counted = int(type == "polyline")
    counts = counted + 3 * rows.points.counts + _PROPERTY_WORDS
    words = np.zeros(int(counts.sum()), np.uint32)
    starts = np.cumsum(counts) - counts
    if counted:
        words[starts] = rows.points.counts
    coordinates = np.ascontiguousarray(rows.points.values, np.float32).reshape(-1).view(np.uint32)
    words[spread(starts + counted, 3 * rows.points.counts)] = coordinates
    for place, column in enumerate((times, rows.anntypes, authors, rows.flags)):
        words[starts + counts - _PROPERTY_WORDS + place] = column
    return Ragged(counts, words)


def many(words: Ragged, numbers: Array) -> bytes:
    """A list of annotations, as a cell and the annotations of an object have them."""
    count = np.array([len(numbers)], "<u8")
    return count.tobytes() + words.values.astype("<u4").tobytes() + numbers.astype("<u8").tobytes()


def one(words: Array, segments: Array) -> bytes:
    """One annotation of its own, with its objects."""
    count = np.array([len(segments)], "<u4")
    return words.astype("<u4").tobytes() + count.tobytes() + segments.astype("<u8").tobytes()
