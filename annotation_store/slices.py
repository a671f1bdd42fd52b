"""Whether a dataset's slices are named by voxel or, as an older set-up did, by the nanometres of their height.

Its record says so in `annotation_z`; where it does not, the points in the slices do.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from annotation_store.blocks import slice_digits
from annotation_store.model import GEOMETRY, Item, Items, parse_stored
from annotation_store.reader import AnnotationReader
from precomputed_server.errors import InvalidInput, NotFound, Unreadable
from precomputed_server.files import Tree, join
from precomputed_server.format.info import VolumeInfo
from precomputed_server.format.names import RECORD

VOXEL, NANOMETRE = "voxel", "nm"
_MEMBER = "annotation_z"


def recorded_naming(tree: Tree, dataset: str) -> str | None:
    """What the record of the dataset at `dataset` says: VOXEL, NANOMETRE or None."""
    try:
        record = json.loads(tree.read(join(dataset, RECORD)))
    except (OSError, ValueError, RecursionError, NotFound):
        return None
    naming = record.get(_MEMBER) if isinstance(record, dict) else None
    return naming if naming in (VOXEL, NANOMETRE) else None


def slice_naming(dataset: Path, info: VolumeInfo) -> str | None:
    """How the slices of a dataset are named; None where there are none and nobody has said so."""
    with contextlib.closing(Tree(dataset)) as tree:
        recorded = recorded_naming(tree, "")
        if recorded is not None:
            return recorded
        reader = AnnotationReader(tree)
        slices = list(_slices(reader, info))
    return naming_of(slices, info.scales[0].resolution_nm[2]) if slices else None


def naming_of(slices: Iterable[tuple[int, Items]], edge_nm: float) -> str:
    """NANOMETRE if more annotations lie in the slice of their nanometres than in that of their voxel, else VOXEL.

    `slices` are the digits of each slice with what it holds, `edge_nm` is the z edge of a voxel.
    """
    voxels = nanometres = 0
    for digits, items in slices:
        for item in items.values():
            height = height_of(item)
            if height is not None:
                voxels += math.floor(height) % 10_000 == digits
                nanometres += math.floor(height * edge_nm) % 10_000 == digits
    return VOXEL if voxels >= nanometres else NANOMETRE


def height_of(item: Item) -> float | None:
    """The z of an annotation's first coordinate; None for what an older program stored without one."""
    kind = item.get("type")
    for field in GEOMETRY.get(kind, ()) if isinstance(kind, str) else ():
        vectors = item.get(field) if field == "points" else [item.get(field)]
        first = vectors[0] if isinstance(vectors, list) and vectors else None
        if isinstance(first, list) and len(first) == 3 and isinstance(first[2], (int, float)):
            return first[2]
    return None


def _slices(reader: AnnotationReader, info: VolumeInfo) -> Iterator[tuple[int, Items]]:
    for directory in sorted(reader.blocks("", info.scales[0].bounds).existing):
        with contextlib.suppress(InvalidInput):
            for leaf in sorted(reader.leaves("", directory)):
                digits = slice_digits(leaf)
                if digits is not None:
                    with contextlib.suppress(NotFound, Unreadable):
                        items = parse_stored(reader.check(reader.locate("", directory, leaf)).data)
                        if items:
                            yield digits, items
