"""Moving annotations to new voxels when a dataset is converted again with another voxel size.

Every coordinate is multiplied by old edge / new edge, so that an annotation stays where it is in the tissue. Slices
that are named by voxel get the leaf of their new slice; those named by nanometres keep theirs. What somebody edits
meanwhile is left alone.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from annotation_store.blocks import HISTORY, Location, slice_digits, slice_leaf
from annotation_store.edits import Edit
from annotation_store.model import GEOMETRY, Item, Items, parse_stored
from annotation_store.orders import Order, Part
from annotation_store.slices import VOXEL, naming_of, recorded_naming
from annotation_store.store import AnnotationStore
from precomputed_server.files import Tree
from precomputed_server.format.info import VolumeInfo
from precomputed_server.format.names import ANNOTATIONS
from precomputed_server.writing import replace_file

AUTHOR = "convert"
_UNSCALED = (1.0, 1.0, 1.0)

Ratio = tuple[float, float, float]
Leaves = dict[str, Items]


@dataclass(frozen=True)
class Step:
    """The annotation `id` of a leaf is to become `wanted` if it is still `expected`; None: there is none."""

    id: str
    expected: Item | None
    wanted: Item | None


@dataclass(frozen=True)
class WhereUnchanged:
    """Takes the steps whose annotation is as expected; one that somebody has edited since stays as it is."""

    steps: Sequence[Step]

    def edits(self, stored: Items) -> list[Edit]:
        """One edit for each step that is taken."""
        return [_edit(step) for step in self.steps if stored.get(step.id) == step.expected]


@dataclass(frozen=True)
class Move:
    """An annotation's leaf, id and content before and after."""

    leaf: str
    item: Item
    new_leaf: str
    new_item: Item

    def is_still_there(self, leaves: Leaves) -> bool:
        """Whether nobody has edited or moved it."""
        return leaves[self.leaf].get(self.item["id"]) == self.item


def _edit(step: Step) -> Edit:
    if step.wanted is None:
        return Edit("delete", step.id)
    return Edit("add" if step.expected is None else "change", step.id, step.wanted)


def transform_annotations(dataset: Path, old: VolumeInfo, new: VolumeInfo, operation: str) -> None:
    """Move every annotation of `dataset` from the voxels of `old` to those of `new`.

    `operation` names this move: the plan is written down under it first, so that calling again after a crash finishes
    the same move, and after its end does nothing. Raises PrecomputedError, OSError.
    """
    ratio = _ratio(old, new)
    if ratio == _UNSCALED:
        return
    with contextlib.closing(Tree(dataset)) as tree:
        store = AnnotationStore(tree)
        os.close(tree.open_directory(f"{ANNOTATIONS}/{HISTORY}", create=True))
        plan_file = dataset / ANNOTATIONS / HISTORY / f"transform-{operation}.json"
        plan = _read_plan(plan_file)
        if plan is None:
            plan = _make_plan(store, old, ratio)
            replace_file(plan_file, json.dumps(plan).encode())
        _carry_out(store, plan, operation)
        replace_file(plan_file, b"{}")


def scaled(item: Item, ratio: Ratio) -> Item | None:
    """The annotation with its coordinates and radii, x, y, z in voxels, multiplied by `ratio`.

    None for what an older program stored without the coordinates of its type.
    """
    result = dict(item)
    try:
        for field in GEOMETRY[item["type"]]:
            vectors = item[field]
            result[field] = (
                [_multiplied(vector, ratio) for vector in vectors] if field == "points" else _multiplied(vectors, ratio)
            )
    except (KeyError, TypeError, ValueError):
        return None
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
    by_voxel = _named_by_voxel(store, leaves, old.scales[0].resolution_nm[2])
    plan: dict[str, Any] = {"format": 1, "blocks": {}}
    for directory, before in leaves.items():
        plan["blocks"][directory] = [
            [move.leaf, move.item, move.new_leaf, move.new_item] for move in _moves(before, ratio, by_voxel)
        ]
    if blocks.size is not None:
        sizes = [math.ceil(size * Fraction(factor)) for size, factor in zip(blocks.size, ratio, strict=True)]
        plan["block_size"] = [max(1, size) for size in sizes]
    return plan


def _moves(before: Leaves, ratio: Ratio, by_voxel: bool) -> Iterator[Move]:
    taken = defaultdict(set, {leaf: set(items) for leaf, items in before.items()})
    for leaf, items in before.items():
        for id, item in items.items():
            moved = scaled(item, ratio)
            if moved is None:
                continue
            height = next(_heights(moved), None)
            is_slice = by_voxel and slice_digits(leaf) is not None and height is not None
            new_leaf = slice_leaf(math.floor(height or 0)) if is_slice else leaf
            if new_leaf != leaf:
                if id in taken[new_leaf]:  # a copy on another slice
                    moved["id"] = f"{id[:100]}-{leaf}"
                taken[new_leaf].add(moved["id"])
            yield Move(leaf, item, new_leaf, moved)


def _carry_out(store: AnnotationStore, plan: Mapping[str, Any], operation: str) -> None:
    for directory, listed in plan.get("blocks", {}).items():
        moves = [Move(*members) for members in listed]
        _carry_out_block(functools.partial(_commit, store, operation, directory), moves)
    if "block_size" in plan:
        store.write_block_info("", plan["block_size"])


def _carry_out_block(commit: Callable[[str, list[Step]], Items], moves: list[Move]) -> None:
    """Change what stays in its leaf; what goes to another one is added there before it is taken from the old one."""
    stays = [move for move in moves if move.leaf == move.new_leaf]
    goes = [move for move in moves if move.leaf != move.new_leaf]
    for leaf, some in _by_leaf(stays, "leaf"):
        commit(leaf, [Step(move.item["id"], move.item, move.new_item) for move in some])
    now = {leaf: commit(leaf, []) for leaf, _ in _by_leaf(goes, "leaf")}
    goes = [move for move in goes if move.is_still_there(now)]
    for leaf, some in _by_leaf(goes, "new_leaf"):
        commit(leaf, [Step(move.new_item["id"], None, move.new_item) for move in some])
    for leaf, some in _by_leaf(goes, "leaf"):
        left = commit(leaf, [Step(move.item["id"], move.item, None) for move in some])
        for move in some:
            if move.item["id"] in left:  # edited just now: it is that one which counts
                commit(move.new_leaf, [Step(move.new_item["id"], move.new_item, None)])


def _by_leaf(moves: list[Move], name: str) -> list[tuple[str, list[Move]]]:
    found = defaultdict(list)
    for move in moves:
        found[getattr(move, name)].append(move)
    return sorted(found.items())


def _commit(store: AnnotationStore, operation: str, directory: str, leaf: str, steps: list[Step]) -> Items:
    """Take `steps` in a leaf; returns what it holds then."""
    location = store.locate("", directory, leaf)
    _change(store, location, WhereUnchanged(steps), f"transform-{operation}")
    snapshot = store.load(location)
    return {} if snapshot is None else parse_stored(snapshot.data)


def _change(store: AnnotationStore, location: Location, change: WhereUnchanged, session: str) -> None:
    part = Part(location.leaf, "patch", change=change)
    store.carry_out(Order(location.directory, (part,), AUTHOR, session, secrets.token_hex(16)))


def _named_by_voxel(store: AnnotationStore, leaves: Mapping[str, Leaves], edge_nm: float) -> bool:
    """Whether slices are named by their voxel: older set-ups named them by their nanometres."""
    named = [
        (digits, items)
        for block in leaves.values()
        for leaf, items in block.items()
        if (digits := slice_digits(leaf)) is not None
    ]
    return (recorded_naming(store.tree, "") or naming_of(named, edge_nm)) == VOXEL


def _heights(item: Item) -> Iterator[float]:
    """The z of each coordinate of an annotation."""
    for field in GEOMETRY.get(item.get("type", ""), ()):
        vectors = item[field] if field == "points" else [item[field]]
        yield from (vector[2] for vector in vectors if field != "radii")


def _items(store: AnnotationStore, directory: str, leaf: str) -> Items:
    location = store.locate("", directory, leaf)
    _change(store, location, WhereUnchanged(()), "")  # what a crash left half done is done
    return parse_stored(store.check(location).data)


def _multiplied(vector: list[float], ratio: Ratio) -> list[float]:
    return [length * factor for length, factor in zip(vector, ratio, strict=True)]


def _read_plan(path: Path) -> dict[str, Any] | None:
    try:
        plan: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return plan
