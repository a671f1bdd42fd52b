"""What people said with `precomputed describe` of a dataset whose stack is converted again: it stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from converter.output.destination import Destination, read_json
from converter.stacks.channels import Channel
from converter.stacks.view import View
from converter.stacks.voxel_size import CORRECTED, UNKNOWN, Edges
from precomputed_server.format.names import RECORD

_SEEN = {"crop", "flip", "transpose", "window", "time"}
"""Options of a source that change neither the voxels of the stack nor its channels."""


@dataclass(frozen=True)
class Corrected:
    """The edges of a voxel along the axes of the stack in µm, None where nobody corrected them; and its channels."""

    edges: Edges = UNKNOWN
    channels: tuple[Channel, ...] = ()

    def of(self, found: Sequence[Channel]) -> tuple[Channel, ...]:
        """The channels with the names and colours that people gave them, where there are as many as then."""
        if len(found) != len(self.channels):
            return tuple(found)
        pairs = zip(self.channels, found, strict=True)
        return tuple(Channel(said.name or own.name, said.color or own.color) for said, own in pairs)


def corrected(destination: Destination, request: Mapping[str, Any]) -> Corrected:
    """What counts for a conversion of that request into a dataset; nothing where it is of another stack."""
    record, made = read_json(destination.path / RECORD), read_json(destination.conversion)
    if record is None or made is None or _stack(made, {"channels"}) != _stack(request, {"channels"}):
        return Corrected()
    same = _stack(made) == _stack(request)
    return Corrected(corrected_edges(record, View(_order(made))), recorded_channels(record) if same else ())


def corrected_edges(record: Mapping[str, Any], view: View) -> Edges:
    """The edges of `record["voxel_size"]`, those of a dataset that shows a stack through `view`, that are corrected."""
    size = record.get("voxel_size") or {"micrometres": (), "source": ()}
    edges: list[Fraction | None] = [None, None, None]
    for axis, edge, source in zip(view.order, size["micrometres"], size["source"], strict=False):
        if source == CORRECTED:
            edges[axis] = Fraction(str(edge))
    return edges[0], edges[1], edges[2]


def recorded_channels(record: Mapping[str, Any]) -> tuple[Channel, ...]:
    """The channels as the record of a dataset lists them."""
    listed = record.get("channels")
    rows = listed if isinstance(listed, list) and all(isinstance(row, dict) for row in listed) else []
    return tuple(Channel(str(row.get("name") or ""), row.get("color")) for row in rows)


def _stack(request: Mapping[str, Any], besides: Set[str] = frozenset()) -> tuple[Any, ...]:
    """What tells one stack from another: its files, how they are understood, and which channels are taken of them."""
    asked = _source_options(request)
    return request.get("source"), {name: asked[name] for name in asked if name not in _SEEN | besides}


def _order(made: Mapping[str, Any]) -> tuple[int, int, int]:
    x, y, z = _source_options(made).get("transpose", View().order)
    return x, y, z


def _source_options(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was asked of the source; nothing where an older version of this program wrote the record."""
    options: Mapping[str, Any] = (request.get("options") or {}).get("source") or {}
    return options
