"""A state of Neuroglancer, or a link with one: the annotations of its local layers in voxels of the dataset. Pure.

Source: https://github.com/google/neuroglancer/blob/master/src/layer/annotation/index.ts, src/coordinate_transform.ts
and src/ui/url_hash_binding.ts; older states have `voxelSize` or `navigation` instead of `dimensions`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from annotation_store.blocks import slice_digits
from annotation_store.exchange.fields import PLACE, id_of
from annotation_store.exchange.rows import Origin, Reading, Row
from annotation_store.exchange.selection import CONTOURS
from annotation_store.exchange.text import object_of
from annotation_store.exchange.viewer_items import PROPERTIES, VIEWER_GEOMETRY, ViewerDialect, segments_of
from annotation_store.exchange.viewer_units import Conversion, conversion_of, dimensions_of
from annotation_store.model import check_id
from precomputed_server.errors import InvalidAnnotation, InvalidInput, PrecomputedError

LOCAL = "local://annotations"
BASE = "// precomputed-annotations: "
"""How the line of a layer's shader begins that says what the layer was made from: the viewer keeps a shader as it is,
and no other member that is not its own."""

_KNOWN = frozenset((PLACE, "description", "segments"))
_REMOTE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_QUOTED = re.compile(r"'([^'\\]*(?:\\.[^'\\]*)*)('?)|\"[^\"\\]*(?:\\.[^\"\\]*)*(\"?)", re.DOTALL)
"""A text in either quotes; its end may be missing, so that whatever begins with a quote is looked at only once."""

_BEGINNING = 16


def state_text(text: str) -> str:
    """The JSON text of a pasted state or link; for a link to a saved state, that state's URL."""
    text = text.strip().removeprefix("\ufeff")
    if text.startswith("{"):
        return text
    fragment = unquote(_fragment(text))
    return fragment if not fragment.startswith("{'") else _with_double_quotes(fragment)


def _fragment(text: str) -> str:
    """What a link has after #!, still quoted; raises InvalidInput where that is neither a state nor a URL."""
    fragment = text.partition("#!")[2].strip().removeprefix("+")
    if not unquote(fragment[:_BEGINNING]).startswith("{") and _REMOTE.match(unquote(fragment)) is None:
        raise InvalidInput("This is neither a Neuroglancer state nor a link with one: a link has it after #!.")
    return fragment


def remote_state(text: str) -> str | None:
    """The URL of the saved state that a link names; None for a state or a link that carries it.

    A link's beginning tells: a state in it is not looked at. Raises InvalidInput, also for what is no URL.
    """
    if text.lstrip("\ufeff \t\r\n").startswith("{"):
        return None
    fragment = _fragment(text)
    if unquote(fragment[:_BEGINNING]).startswith("{"):
        return None
    url = unquote(fragment)
    try:
        urlsplit(url)
    except ValueError as error:
        raise InvalidInput(f"The link names {url[:100]!r}, which is no URL of a saved state.") from error
    return url


def _with_double_quotes(text: str) -> str:
    """JSON out of the spelling of old links: single quotes, and `_` for a comma outside of texts.

    What follows a quote that is never closed stays as it is: it is no JSON in either spelling.
    """
    parts: list[str] = []
    at = 0
    for match in _QUOTED.finditer(text):
        if not (match[2] or match[3]):
            return "".join((*parts, text[at:]))
        parts.append(re.sub("[_&]", ",", text[at : match.start()]))
        if match[1] is None:
            parts.append(match[0])
        else:
            parts.append('"' + match[1].replace("\\'", "'").replace('"', '\\"') + '"')
        at = match.end()
    return "".join((*parts, re.sub("[_&]", ",", text[at:])))


def read_viewer(pieces: Iterable[bytes], edges_nm: tuple[float, float, float] | None) -> Reading:
    """The annotations of every local layer of a state or link; raises InvalidInput and its kin.

    A link to a saved state must have been replaced by that state.
    """
    try:
        text = state_text(b"".join(pieces).decode())
    except UnicodeDecodeError as error:
        raise InvalidInput("The state is not UTF-8 text.") from error
    if not text.startswith("{"):
        raise InvalidInput("The link only names a saved state; give the state itself, from the viewer's {} button.")
    if edges_nm is None:
        raise InvalidInput("The dataset does not say how large its voxels are.")
    state = object_of(text, "the state")
    layers = state.get("layers")
    if isinstance(layers, dict):  # before 2018 they were an object by name
        layers = [{"name": name, **layer} for name, layer in layers.items() if isinstance(layer, dict)]
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise InvalidInput("The state has no list of layers.")
    local = [_layer(layer) for layer in layers if _is_local(layer)]
    notes = [f"The layer {_name(layer)!r} is not a local one: it is left out." for layer in layers if _is_other(layer)]
    if not local:
        raise InvalidInput("The state has no local annotation layer: there is nothing to import.")
    in_voxels = re.search(r"/~[A-Za-z0-9_-]{3,64}\.voxel/", text) is not None
    conversions = [_conversion(layer, state, edges_nm, in_voxels=in_voxels) for layer in local]
    origin = _origin(local, notes)
    return Reading(origin, _rows(local, conversions), ViewerDialect(), removes=origin is not None, notes=notes)


@dataclass(frozen=True)
class _Layer:
    """A local layer of a state: its members and what it says that it was made from."""

    name: str
    members: dict[str, Any]
    origin: Origin | None

    @property
    def leaf(self) -> str | None:
        """The leaf of what is new in it, where its name or its origin says one."""
        if self.name in ("fibers", "centroids", CONTOURS) or slice_digits(self.name) is not None:
            return self.name
        leaves = {leaf for _, leaf in self.origin.leaves} if self.origin is not None else set()
        return leaves.pop() if len(leaves) == 1 else None


def _sources(layer: dict[str, Any]) -> list[Any]:
    source = layer.get("source")
    return [each for each in (source if isinstance(source, list) else [source]) if each is not None]


def _url(source: object) -> object:
    return source.get("url") if isinstance(source, dict) else source


def _is_local(layer: dict[str, Any]) -> bool:
    if layer.get("type") == "pointAnnotation":
        return True
    sources = _sources(layer)
    if not sources:
        return layer.get("type") == "annotation"
    return layer.get("type") in ("annotation", "auto", None) and any(_url(source) == LOCAL for source in sources)


def _is_other(layer: dict[str, Any]) -> bool:
    return layer.get("type") == "annotation" and not _is_local(layer)


def _name(layer: dict[str, Any]) -> str:
    return str(layer.get("name", ""))[:100]


def _layer(layer: dict[str, Any]) -> _Layer:
    shader = layer.get("shader")
    origin = None
    for line in shader.splitlines() if isinstance(shader, str) else ():
        if line.startswith(BASE):
            origin = Origin.from_json(object_of(line.removeprefix(BASE), f"the shader of {_name(layer)!r}"))
    return _Layer(_name(layer), layer, origin)


def _conversion(
    layer: _Layer, state: dict[str, Any], edges_nm: tuple[float, float, float], *, in_voxels: bool
) -> Conversion:
    local = [source for source in _sources(layer.members) if _url(source) == LOCAL]
    transform = local[0].get("transform") if local and isinstance(local[0], dict) else None
    dimensions = dimensions_of(state, layer.members)
    try:
        return conversion_of(transform, dimensions, edges_nm, in_voxels=in_voxels)
    except PrecomputedError as error:
        raise type(error)(f"The layer {layer.name!r}: {error}") from error


def _origin(layers: list[_Layer], notes: list[str]) -> Origin | None:
    """What all layers together were made from; None where they do not belong together."""
    origins = [layer.origin for layer in layers if layer.origin is not None]
    if not origins:
        return None
    first = origins[0]
    links = {(each.dataset, each.made, each.selection) for each in origins}
    if len(links) > 1:
        notes.append("The layers come from different links: it cannot be known what was removed since.")
        return None
    leaves = {leaf: made for each in origins for leaf, made in each.leaves.items()}
    return Origin(first.dataset, first.made, leaves, first.selection, first.at)


def _rows(layers: list[_Layer], conversions: list[Conversion]) -> Iterator[Row]:
    for layer, conversion in zip(layers, conversions, strict=True):
        members = layer.members
        listed, points = members.get("annotations", []), members.get("points", [])
        if not isinstance(listed, list) or not isinstance(points, list):
            raise InvalidInput(f"The annotations of the layer {layer.name!r} must be a list.")
        specs = members.get("annotationProperties", [])
        if not isinstance(specs, list) or not all(isinstance(spec, dict) for spec in specs):
            raise InvalidInput(f"The annotationProperties of the layer {layer.name!r} must be a list of objects.")
        for number, annotation in enumerate([*listed, *({"type": "point", "point": point} for point in points)]):
            where = f"{layer.name!r}, annotation {number}"
            if not isinstance(annotation, dict):
                raise InvalidAnnotation(f"{where} must be an object.")
            yield _row(annotation, layer, specs, conversion, where)


def _row(
    annotation: dict[str, Any], layer: _Layer, specs: list[dict[str, Any]], conversion: Conversion, where: str
) -> Row:
    kind = str(annotation.get("type")).lower()
    if kind not in VIEWER_GEOMETRY:
        raise InvalidAnnotation(f"{where}: type is {kind[:40]!r}, not one of {', '.join(VIEWER_GEOMETRY)}.")
    if kind in ("axis_aligned_bounding_box", "ellipsoid") and not conversion.keeps_axes:
        raise InvalidAnnotation(f"{where}: a rotated {kind} cannot be kept; take the rotation off the layer.")
    place: list[Any] = [kind]
    for name in VIEWER_GEOMETRY[kind]:
        convert = conversion.all_converted if name == "points" else conversion.converted
        place.append(convert(annotation.get(name), f"{where}: {name}", vector=name == "radii"))
    fields: dict[str, Any] = {PLACE: place}
    if annotation.get("description"):
        fields["description"] = str(annotation["description"])
    segments = segments_of(annotation.get("segments"))
    if segments:
        fields["segments"] = segments
    if specs:
        fields[PROPERTIES] = _properties(annotation.get("props"), specs, where)
    id = annotation.get("id") or id_of(fields, layer.name)
    check_id(id, where)
    known = _KNOWN | ({PROPERTIES} if specs else frozenset())
    return Row(where, id, fields, None, layer.leaf, None, known.__contains__)


def _properties(props: object, specs: list[dict[str, Any]], where: str) -> dict[str, Any]:
    values = [spec.get("default", 0) for spec in specs] if props is None else props
    if not isinstance(values, list) or len(values) != len(specs):
        raise InvalidAnnotation(f"{where}: props must have a value for each of the annotationProperties.")
    return {str(spec.get("id")): json.loads(json.dumps(value)) for spec, value in zip(specs, values, strict=True)}
