"""Moving annotations to new voxels when a dataset is converted again with another voxel size.

Every coordinate is multiplied by old edge / new edge, so that an annotation stays where it is in the tissue. Slices
that are named by voxel get the leaf of their new slice; those named by nanometres keep theirs. What somebody edits
meanwhile is left alone.
"""

from __future__ import annotations

import json
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from annotation_store.blocks import ANNOTATIONS, HISTORY, slice_digits, slice_leaf
from annotation_store.edits import Edit
from annotation_store.model import GEOMETRY, Item, Items, parse_stored
from annotation_store.store import AnnotationStore, EditRequest, Outcome
from precomputed_server.files import Tree
from precomputed_server.format.info import VolumeInfo
from precomputed_server.writing import replace_file

AUTHOR = "convert"
_LOCK_TIMEOUT_S = 30.0

Ratio = tuple[float, float, float]
Leaves = dict[str, Items]


@dataclass(frozen=True)
class Transformed:
    """A leaf's annotations `before` are to become `after`; one that is neither has been edited since and stays."""

    before: Items
    after: Items

    def edits(self, stored: Items) -> list[Edit]:
        """Changes and removals of what is as it was, additions of what came from other leaves."""
        edits = []
        for id, item in stored.items():
            if id in self.before and item == self.before[id] and item != self.after.get(id):
                after = self.after.get(id)
                edits.append(Edit("delete", id) if after is None else Edit("change", id, after))
        arrived = self.after.keys() - self.before.keys() - stored.keys()
        return edits + [Edit("add", id, item) for id, item in self.after.items() if id in arrived]


def transform_annotations(dataset: Path, old: VolumeInfo, new: VolumeInfo, operation: str) -> None:
    """Move every annotation of `dataset` from the voxels of `old` to those of `new`.

    `operation` names this move: the plan is written down under it first, so that calling again after a crash finishes
    the same move, and after its end does nothing. Raises PrecomputedError, OSError.
    """
    ratio = _ratio(old, new)
    if ratio == (1.0, 1.0, 1.0):
        return
    tree = Tree(dataset)
    try:
        store = AnnotationStore(tree, _LOCK_TIMEOUT_S)
        os.close(tree.open_directory(f"{ANNOTATIONS}/{HISTORY}", create=True))
        plan_file = dataset / ANNOTATIONS / HISTORY / f"transform-{operation}.json"
        plan = _read_plan(plan_file)
        if plan is None:
            plan = _make_plan(store, old, ratio)
            replace_file(plan_file, json.dumps(plan).encode())
        _carry_out(store, plan, operation)
        replace_file(plan_file, b"{}")
    finally:
        tree.close()


def scaled(item: Item, ratio: Ratio) -> Item:
    """The annotation with its coordinates and radii, x, y, z in voxels, multiplied by `ratio`."""
    result = dict(item)
    for field in GEOMETRY.get(item.get("type", ""), ()):
        vectors = item[field]
        result[field] = (
            [_multiplied(vector, ratio) for vector in vectors] if field == "points" else _multiplied(vectors, ratio)
        )
    return result


def _ratio(old: VolumeInfo, new: VolumeInfo) -> Ratio:
    x, y, z = (
        before / after for before, after in zip(old.scales[0].resolution_nm, new.scales[0].resolution_nm, strict=True)
    )
    return x, y, z


def _make_plan(store: AnnotationStore, old: VolumeInfo, ratio: Ratio) -> dict[str, Any]:
    blocks = store.blocks("", old.scales[0].bounds)
    leaves = {
        directory: {leaf: _items(store, directory, leaf) for leaf in store.leaves("", directory)}
        for directory in sorted(blocks.existing)
    }
    by_voxel = _named_by_voxel(leaves, old.scales[0].resolution_nm[2])
    plan: dict[str, Any] = {"format": 1, "blocks": {}}
    for directory, before in leaves.items():
        after = _moved(before, ratio, by_voxel)
        plan["blocks"][directory] = {
            leaf: [list(before.get(leaf, {}).values()), list(after.get(leaf, {}).values())]
            for leaf in sorted(before.keys() | after.keys())
        }
    if blocks.size is not None:
        sizes = [math.ceil(size * Fraction(factor)) for size, factor in zip(blocks.size, ratio, strict=True)]
        plan["block_size"] = [max(1, size) for size in sizes]
    return plan


def _moved(before: Leaves, ratio: Ratio, by_voxel: bool) -> Leaves:
    after: defaultdict[str, Items] = defaultdict(dict)
    for leaf, items in before.items():
        for id, item in items.items():
            moved = scaled(item, ratio)
            height = next(_heights(moved), None)
            is_slice = by_voxel and slice_digits(leaf) is not None and height is not None
            after[slice_leaf(math.floor(height or 0)) if is_slice else leaf][id] = moved
    return after


def _carry_out(store: AnnotationStore, plan: Mapping[str, Any], operation: str) -> None:
    for directory, leaves in plan.get("blocks", {}).items():
        for leaf, (before, after) in leaves.items():
            change = Transformed(_by_id(before), _by_id(after))
            request = EditRequest(change, AUTHOR, f"transform-{operation}")
            ended = store.commit(store.locate("", directory, leaf), [request])[0]
            if not isinstance(ended, Outcome):
                raise ended
    if "block_size" in plan:
        store.write_block_info("", plan["block_size"])


def _named_by_voxel(leaves: Mapping[str, Leaves], edge_nm: float) -> bool:
    """Whether more slices are named by their voxel than by their nanometres: older set-ups did the latter."""
    voxels = nanometres = 0
    for block in leaves.values():
        for leaf, items in block.items():
            digits = slice_digits(leaf)
            for height in (next(_heights(item), None) for item in items.values() if digits is not None):
                if height is not None:
                    voxels += math.floor(height) % 10_000 == digits
                    nanometres += math.floor(height * edge_nm) % 10_000 == digits
    return voxels >= nanometres


def _heights(item: Item) -> Iterator[float]:
    """The z of each coordinate of an annotation."""
    for field in GEOMETRY.get(item.get("type", ""), ()):
        vectors = item[field] if field == "points" else [item[field]]
        yield from (vector[2] for vector in vectors if field != "radii")


def _items(store: AnnotationStore, directory: str, leaf: str) -> Items:
    snapshot = store.load(store.locate("", directory, leaf))
    return {} if snapshot is None else parse_stored(snapshot.data)


def _by_id(items: list[Item]) -> Items:
    return {item["id"]: item for item in items}


def _multiplied(vector: list[float], ratio: Ratio) -> list[float]:
    return [length * factor for length, factor in zip(vector, ratio, strict=True)]


def _read_plan(path: Path) -> dict[str, Any] | None:
    try:
        plan: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return plan
