"""The layers of a Neuroglancer state that hold a dataset's annotations, for people to edit. Pure.

One local layer each for fibres, centroids, the contours of all slices, and every other leaf. What a layer was made from
stands in a comment of its shader, the one text that the viewer gives back as it was.

Source: https://github.com/google/neuroglancer/blob/master/src/layer/annotation/index.ts
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from annotation_store.exchange.fields import Fields
from annotation_store.exchange.rows import Made, Origin, Placed
from annotation_store.exchange.selection import CONTOURS, Selection
from annotation_store.exchange.text import dumped
from annotation_store.exchange.viewer_items import PROPERTIES, ViewerDialect, layer_name, property_type, to_viewer
from annotation_store.exchange.viewer_reading import BASE, LOCAL
from precomputed_server.errors import TooLarge

MOST = 20_000
"""How many annotations one state may have: the viewer keeps them in the page, and its link in the address."""
_ETAG_DIGITS = 8
_COLOURS = {"fibers": "#ffd23f", "centroids": "#ff4dd8", CONTOURS: "#3fd96b"}
_OTHER_COLOUR = "#00a0ff"
_SHADER = "void main() {\n  setColor(defaultColor());\n}\n"
_EXPLAINED = "// The next line says what this layer was made from, for its import: leave it as it is.\n"


@dataclass
class _Layer:
    """A layer in the making: its annotations by id, and the types of their properties."""

    shown: dict[str, Fields] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)

    def put(self, id: str, fields: Fields) -> None:
        """Take an annotation; a property whose values have several types keeps the one that is met first.

        Of annotations with one id, which several files may have, the viewer can have one.
        """
        if self.shown.setdefault(id, fields) is not fields:
            return
        for name, value in fields.get(PROPERTIES, {}).items():
            self.properties.setdefault(name, property_type(value) or "")

    def annotations(self) -> list[dict[str, Any]]:
        """The annotations of the layer."""
        relationships = self.relationships
        for fields in self.shown.values():
            values = fields.get(PROPERTIES, {})
            fields[PROPERTIES] = {
                name: values[name] if property_type(values.get(name)) == kind else _nothing(kind)
                for name, kind in self.properties.items()
            }
        return [to_viewer(id, fields, relationships, self.properties) for id, fields in self.shown.items()]

    @property
    def relationships(self) -> int:
        """How many lists of segments an annotation has."""
        return max((len(fields.get("segments", ())) for fields in self.shown.values()), default=1) or 1


def _nothing(kind: str) -> object:
    return {"rgb": "#000000", "rgba": "#00000000"}.get(kind, 0)


def annotation_layers(
    origin: Origin, annotations: Iterable[Placed], edges_nm: tuple[float, float, float]
) -> list[dict[str, Any]]:
    """The layers of these annotations, empty ones for what a person may want to begin; raises TooLarge."""
    layers = {name: _Layer() for name in _wanted(origin)}
    dialect = ViewerDialect()
    for number, placed in enumerate(annotations):
        if number >= MOST:
            raise TooLarge(f"There are more than {MOST} annotations; name a part: ?box=x0,x1,y0,y1,z0,z1.")
        fields = dialect.shown(placed.item)
        if fields is not None:
            layers.setdefault(layer_name(placed.leaf), _Layer()).put(placed.item["id"], fields)
    return [_members(name, layer, origin, edges_nm) for name, layer in layers.items()]


def _wanted(origin: Origin) -> list[str]:
    names = [*_COLOURS, *sorted({layer_name(leaf) for _, leaf in origin.leaves})]
    chosen: Selection = origin.selection
    return [name for name in dict.fromkeys(names) if not chosen.leaves or name in chosen.leaves]


def _members(name: str, layer: _Layer, origin: Origin, edges_nm: tuple[float, float, float]) -> dict[str, Any]:
    dimensions = {axis: [edge / 1e9, "m"] for axis, edge in zip("xyz", edges_nm, strict=True)}
    members: dict[str, Any] = {
        "type": "annotation",
        "name": name,
        "source": {"url": LOCAL, "transform": {"outputDimensions": dimensions}},
        "tab": "annotations",
        "annotationColor": _COLOURS.get(name, _OTHER_COLOUR),
        "shader": f"{_EXPLAINED}{BASE}{dumped(_base_of(name, origin).to_json())}\n{_SHADER}",
    }
    if layer.relationships > 1:
        names = [f"segments_{number}" for number in range(1, layer.relationships + 1)]
        members["annotationRelationships"] = names
    if layer.properties:
        members["annotationProperties"] = [{"id": id, "type": kind} for id, kind in layer.properties.items()]
    return members | {"annotations": layer.annotations()}


def _base_of(name: str, origin: Origin) -> Origin:
    """What one layer was made from."""
    leaves = {
        leaf: Made(made.version, None if made.etag is None else made.etag[:_ETAG_DIGITS])
        for leaf, made in origin.leaves.items()
        if layer_name(leaf[1]) == name
    }
    return Origin(origin.dataset, origin.made, leaves, origin.selection, origin.at)
