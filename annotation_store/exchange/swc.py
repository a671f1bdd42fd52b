"""SWC: fibres (linestrings and lines) as chains of nodes `n type x y z radius parent`, in micrometres unless told.

Comments carry what SWC has no place for: a header with what the file was made from and its unit, before the nodes of
each annotation its other fields, and at the end that the file is whole. Positions are exact decimal products of voxels
and voxel edge, so that they are read back as the same voxels. The radius is 0 where nobody measured one. A tree of
another program becomes one linestring for each section between branches.

Source: https://swc-specification.readthedocs.io/en/latest/swc.html
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from typing import Any

import orjson

from annotation_store.exchange.fields import PLACE, Fields, fields_of, id_of
from annotation_store.exchange.rows import MARK, Dialect, End, Export, Origin, Placed, Reading, Row
from annotation_store.exchange.selection import is_sound
from annotation_store.exchange.swc_numbers import NodeLines, Scale
from annotation_store.exchange.text import dumped, gathered, lines_of, object_of, placed_by
from annotation_store.model import Item, check_item
from precomputed_server.errors import InvalidAnnotation, InvalidInput

UM, VOXEL = "um", "voxel"
FIBRES = ("linestring", "line")
RADIUS, KIND, PARENT = "radius_um", "swc_type", "swc_parent"
"""Fields of an annotation that was read from SWC: a radius for each point, the node type, the section it goes on."""

_POINTS = frozenset(("points", "pointA", "pointB"))
_AT_ONCE = 4096
"""How many nodes are spelled at a time."""

_EXACT = Context(prec=120)
_NM_PER_UM = Decimal(1000)
_WHOLE = 2.0**53
_KINDS = 2**31
"""Node types are small numbers; what JSON cannot hold is none."""
_CIRCLE = "The parents of some nodes lead round in a circle; a root's parent is -1."
_HEADER, _OF_ONE, _END = f"# {MARK} ", "# annotation ", f"# end of {MARK}"

_NONE: Scale = (Decimal(1), Decimal(1), Decimal(1))


def _scale(edges_nm: tuple[float, float, float]) -> Scale:
    x, y, z = (_EXACT.divide(Decimal(repr(edge)), _NM_PER_UM) for edge in edges_nm)
    return x, y, z


def write_swc(export: Export) -> Iterator[bytes]:
    """The file, in pieces; in voxels where nobody knows how large they are."""
    return gathered(_parts(export))


def _parts(export: Export) -> Iterator[bytes]:
    in_um = export.unit == UM and export.edges_nm is not None
    scale = _scale(export.edges_nm) if in_um and export.edges_nm is not None else None
    unit = {"unit": UM, "voxel_um": [str(edge) for edge in scale]} if scale is not None else {"unit": VOXEL}
    yield f"{_HEADER}{dumped(export.origin.to_json() | unit)}\n".encode()
    yield f"# n type x y z radius parent; lengths in {'micrometres' if in_um else 'voxels'}\n".encode()
    number, count = 1, 0
    lines = NodeLines(_NONE if scale is None else scale)
    for batch in _batches(export.annotations):
        for placed, text in zip(batch, lines.texts([points_of(each.item) for each in batch], number), strict=True):
            if text is None or KIND in placed.item or RADIUS in placed.item:
                yield _nodes(placed, scale, number)
            else:
                yield _head(placed)
                yield text.translate(None, b"\0")
            number += len(points_of(placed.item))
            count += 1
    yield f"{_END}: {count}\n".encode()


def is_fibre(item: Item) -> bool:
    """Whether SWC has a place for an annotation of its type."""
    return item.get("type") in FIBRES


def _batches(annotations: Iterable[Placed]) -> Iterator[list[Placed]]:
    """The fibres, some at a time."""
    batch: list[Placed] = []
    nodes = 0
    for placed in annotations:
        if is_fibre(placed.item) and is_sound(placed.item):
            batch.append(placed)
            nodes += len(points_of(placed.item))
            if nodes >= _AT_ONCE:
                yield batch
                batch, nodes = [], 0
    if batch:
        yield batch


def points_of(item: Item) -> list[list[float]]:
    """The nodes of a fibre."""
    points: list[list[float]] = item["points"] if item["type"] == "linestring" else [item["pointA"], item["pointB"]]
    return points


def _head(placed: Placed) -> bytes:
    """The comment before the nodes of an annotation."""
    fields = {name: value for name, value in placed.item.items() if name not in _POINTS}
    head = {"block": placed.block, "leaf": placed.leaf, "fields": fields}
    return b"%b%b\n" % (_OF_ONE.encode(), orjson.dumps(head))


def _nodes(placed: Placed, scale: Scale | None, number: int) -> bytes:
    """The comment and the nodes of one annotation, of any numbers."""
    item = placed.item
    points = points_of(item)
    kind = item.get(KIND) if type(item.get(KIND)) is int else 0
    radii = item.get(RADIUS) if scale is not None else None
    lines = []
    parent = -1
    for at, point in enumerate(points):
        x, y, z = map(repr, point) if scale is None else map(_product, point, scale)
        radius = radii[at] if isinstance(radii, list) and len(radii) == len(points) else 0
        lines.append(f"{number} {kind} {x} {y} {z} {radius} {parent}\n")
        parent, number = number, number + 1
    return _head(placed) + "".join(lines).encode()


def _product(voxels: float, edge: Decimal) -> str:
    return str(_EXACT.multiply(Decimal(repr(voxels)), edge))


@dataclass(frozen=True)
class _Node:
    """One line; `position` in voxels, `radius` in the file's unit."""

    line: int
    kind: int
    position: list[float | int]
    radius: float
    parent: int


class _Fibres(Dialect):
    """SWC says nothing of annotations that are no fibres."""

    def shown(self, item: Item) -> Fields | None:
        return fields_of(item) if item.get("type") in FIBRES else None


def read_swc(pieces: Iterable[bytes], edges_nm: tuple[float, float, float] | None = None) -> Reading:
    """The file's rows; a file without our header is taken to be in µm, as the format says, of voxels of `edges_nm`.

    The first lines are read at once. Raises InvalidInput and its kin, naming the line.
    """
    numbered = ((number, line.strip()) for number, line in enumerate(lines_of(pieces), 1))
    first = next(numbered, (1, ""))
    if not first[1].startswith(_HEADER):
        if edges_nm is None:
            raise InvalidInput("The file is in µm, and the dataset does not say how large its voxels are.")
        return Reading(None, _rows(_chain(first, numbered), _scale(edges_nm), End()), _Fibres())
    header = object_of(first[1].removeprefix(_HEADER), "line 1")
    end, notes = End(is_met=False), list[str]()
    rows = _rows(numbered, _scale_of(header), end, notes)
    return Reading(Origin.from_json(header), rows, _Fibres(), notes=notes, end=end)


def _chain(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _scale_of(header: dict[str, Any]) -> Scale:
    if header.get("unit") == VOXEL:
        return _NONE
    try:
        x, y, z = (Decimal(edge) for edge in header["voxel_um"])
    except (KeyError, TypeError, ValueError, InvalidOperation) as error:
        raise InvalidInput("line 1: voxel_um must be the edges of a voxel as three texts of µm.") from error
    if not all(edge.is_finite() and edge > 0 for edge in (x, y, z)):
        raise InvalidInput("line 1: voxel_um must be above 0.")
    return x, y, z


def _rows(lines: Iterable[tuple[int, str]], scale: Scale, end: End, notes: list[str] | None = None) -> Iterator[Row]:
    """The annotations of the file: those with a comment of ours, and the sections of what has none.

    Where the end is missing, so may be nodes of the last annotation, which is left out.
    """
    nodes: dict[int, _Node] = {}
    head: tuple[int, str] | None = None
    for number, line in lines:
        if line.startswith(_OF_ONE):
            yield from _group(head, nodes, scale)
            head, nodes = (number, line.removeprefix(_OF_ONE)), {}
        elif line.startswith(_END):
            end.is_met = True
        elif line and not line.startswith("#"):
            index, node = _node(line, number, scale)
            if index in nodes:
                raise InvalidAnnotation(f"line {number}: there is a node {index} already.")
            nodes[index] = node
    if end.is_met or notes is None:
        yield from _group(head, nodes, scale)
    elif nodes:
        begun = head[0] if head is not None else next(iter(nodes.values())).line
        notes.append(f"The last annotation, of line {begun}, is left out, because it may not be there as a whole.")


def _node(line: str, number: int, scale: Scale) -> tuple[int, _Node]:
    cells = line.split()
    try:
        index, kind, parent = int(cells[0]), int(cells[1]), int(cells[6])
        position = [_voxels(cell, edge) for cell, edge in zip(cells[2:5], scale, strict=True)]
        radius = float(cells[5])
    except (ValueError, IndexError, ArithmeticError) as error:
        raise InvalidAnnotation(f"line {number} must be seven numbers: n type x y z radius parent.") from error
    if len(cells) != 7 or radius - radius != 0:
        raise InvalidAnnotation(f"line {number} must be seven numbers: n type x y z radius parent.")
    if index < 0 or parent == index:
        raise InvalidAnnotation(f"line {number}: a node's number is 0 or above, and its parent is another node or -1.")
    if abs(kind) >= _KINDS:
        raise InvalidAnnotation(f"line {number}: the type of a node must be below {_KINDS}.")
    return index, _Node(number, kind, position, radius, parent)


def _voxels(cell: str, edge: Decimal) -> float | int:
    voxels = _EXACT.divide(Decimal(cell), edge)
    if not voxels.is_finite() or voxels.adjusted() > 300:
        raise ValueError(cell)
    is_long = abs(voxels) >= _WHOLE and -(2**63) <= voxels < 2**64 and voxels == int(voxels)
    return int(voxels) if is_long else float(voxels)


def _group(head: tuple[int, str] | None, nodes: dict[int, _Node], scale: Scale) -> Iterator[Row]:
    if head is not None:
        yield _of_comment(head, nodes)
    elif nodes:
        yield from _sections(nodes, scale)


def _of_comment(head: tuple[int, str], nodes: dict[int, _Node]) -> Row:
    """An annotation whose comment says what it is; its nodes must still be one chain, in their order."""
    where = f"line {head[0]}"
    members = object_of(head[1], where)
    item = members.get("fields")
    if not isinstance(item, dict) or item.get("type") not in FIBRES:
        raise InvalidAnnotation(f"{where}: the comment must have the fields of a linestring or line.")
    before = -1
    for index, node in nodes.items():
        if node.parent != before:
            raise InvalidAnnotation(f"line {node.line}: an annotation is one chain of nodes; give a branch its own.")
        before = index
    points = [node.position for node in nodes.values()]
    if item["type"] == "linestring":
        item["points"] = points
    elif len(points) == 2:
        item["pointA"], item["pointB"] = points
    check_item(item, where)
    place = placed_by(members, where)
    return Row(where, item["id"], fields_of(item), *place)


def _sections(nodes: dict[int, _Node], scale: Scale) -> Iterator[Row]:
    """The unbranched sections of trees; each begins with the node that it branches off."""
    children: dict[int, list[int]] = {}
    for index, node in nodes.items():
        if node.parent != -1 and node.parent not in nodes:
            raise InvalidAnnotation(f"line {node.line}: there is no node {node.parent}; a root's parent is -1.")
        children.setdefault(node.parent, []).append(index)
    waiting: list[tuple[list[int], str | None]] = [([root], None) for root in reversed(children.get(-1, []))]
    met: set[int] = set()
    while waiting:
        path, parent = waiting.pop()
        if path[-1] in met:
            raise InvalidAnnotation(_CIRCLE)
        met.update(path)
        while len(below := children.get(path[-1], [])) == 1 and below[0] not in met:
            path.append(below[0])
            met.add(below[0])
        if len(path) > 1 or not below:  # a root that branches at once is no section
            row = _section([nodes[index] for index in path], parent, scale)
            yield row
            parent = row.id
        waiting += [([path[-1], child], parent) for child in reversed(below)]
    if len(met) < len(nodes):
        raise InvalidAnnotation(_CIRCLE)


def _section(nodes: list[_Node], parent: str | None, scale: Scale) -> Row:
    fields: Fields = {PLACE: ["linestring", [node.position for node in nodes]]}
    id = id_of(fields)
    fields[KIND] = nodes[-1].kind
    if scale is not _NONE and any(node.radius for node in nodes):
        fields[RADIUS] = [node.radius for node in nodes]
    if parent is not None:
        fields[PARENT] = parent
    return Row(f"line {nodes[0].line}", id, fields, knows=functools.partial(_knows, frozenset(fields)))


def _knows(names: frozenset[str], name: str) -> bool:
    return name in names
