"""The state of a Neuroglancer viewer that shows given layers: a pure function from values to JSON.

Source: https://github.com/google/neuroglancer/blob/master/python/neuroglancer/viewer_state.py
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from precomputed_server.format.info import VolumeInfo

_PANEL_PIXELS = (600, 340, 340)
"""What one of four panels has on a small screen: x lies across it, y and z down; the whole extent is fitted into it."""

_IMAGE, _SEGMENTATION = "image", "segmentation"
_ADDED = {"blend": "additive", "opacity": 1}
"""Of layers that are added up: by themselves they would be half as bright."""
_MARKER_COLOUR = "#ffff00"
COLOURS = ("#00a0ff", "#ff4dd8", "#ffd23f", "#3fd96b", "#ff5a3c", "#b18cff")


_COLOUR = re.compile("#[0-9a-fA-F]{6}")
_NOT_IN_IDENTIFIERS = re.compile("[^A-Za-z0-9]+")


@dataclass(frozen=True)
class ViewerChannel:
    """How a channel is to be shown: its name, empty when nobody gave one, and its colour as `#rrggbb` or None."""

    name: str = ""
    colour: str | None = None

    @classmethod
    def from_json(cls, members: object) -> ViewerChannel:
        """Read an element of a record's `channels`; what is no name or colour is left out."""
        name, colour = (members.get(key) for key in ("name", "color")) if isinstance(members, dict) else ("", None)
        is_colour = isinstance(colour, str) and _COLOUR.fullmatch(colour) is not None
        return cls(name if isinstance(name, str) else "", colour if is_colour else None)


@dataclass(frozen=True)
class ViewerLayer:
    """One layer: `source` is the URL of the dataset, `contrast` the range to show of each channel.

    `channels` are as many as the volume has, or fewer: the others have no name and no colour.
    """

    name: str
    source: str
    info: VolumeInfo
    contrast: tuple[tuple[float, float], ...] | None = None
    channels: tuple[ViewerChannel, ...] = ()


@dataclass(frozen=True)
class AnnotationLayer:
    """A layer of annotations: `source` is the URL of a precomputed collection."""

    name: str
    source: str
    colour: str


def viewer_state(
    layers: Sequence[ViewerLayer], layout: str = "4panel", annotations: Sequence[AnnotationLayer] = ()
) -> dict[str, Any]:
    """The viewer state that shows `layers` centred and fitted, in the voxels of the first layer's finest scale, and
    `annotations` over them.

    Several images are added up, those of one channel in a colour each. A name that several layers have is numbered.
    """
    scale = layers[0].info.scales[0]
    middle = [offset + length // 2 + 0.5 for offset, length in zip(scale.voxel_offset, scale.size, strict=True)]
    unit = min(scale.resolution_nm)
    extent = [length * edge / unit for length, edge in zip(scale.size, scale.resolution_nm, strict=True)]
    return {
        "dimensions": {
            axis: [edge / 1e9, "m"] for axis, edge in zip(("x", "y", "z"), scale.resolution_nm, strict=True)
        },
        "position": middle,
        "crossSectionScale": max(length / pixels for length, pixels in zip(extent, _PANEL_PIXELS, strict=True)),
        "projectionScale": max(extent) * 1.2,
        "layers": _distinct([*_added_up(layers), *map(_annotation_layer, annotations)]),
        "selectedLayer": {"layer": layers[0].name, "visible": False},
        "layout": layout,
    }


def looking_closely(state: dict[str, Any], marker: str) -> dict[str, Any]:
    """A state that shows places one by one: a voxel a pixel, with an empty local layer `marker` to mark the place in.

    Whoever opens it sets `position`, and the points of the first layer's `annotations`.
    """
    layer = {
        "type": "annotation",
        "name": marker,
        "source": {"url": "local://annotations", "transform": {"outputDimensions": state["dimensions"]}},
        "annotationColor": _MARKER_COLOUR,
        "annotations": [],
    }
    # First: behind an image the viewer now and then fails at a local layer, and drops the image (seen with 2.41.2).
    return {**state, "crossSectionScale": min(1.0, state["crossSectionScale"]), "layers": [layer, *state["layers"]]}


def viewer_fragment(state: dict[str, Any]) -> str:
    """The part of a viewer's URL after `#` that carries `state`."""
    return "!" + quote(json.dumps(state, separators=(",", ":")), safe="!*'(),:;@$/")


def _added_up(layers: Sequence[ViewerLayer]) -> list[dict[str, Any]]:
    """The layers, of which none hides another."""
    images = [layer for layer in layers if _kind(layer) == _IMAGE]
    if len(images) < 2:
        return [_layer(layer) for layer in layers]
    numbers = {id(layer): number for number, layer in enumerate(images)}
    return [
        _layer(_coloured(layer, numbers[id(layer)])) | _ADDED if id(layer) in numbers else _layer(layer)
        for layer in layers
    ]


def _coloured(layer: ViewerLayer, number: int) -> ViewerLayer:
    """The layer of a single channel with a colour, if it has none."""
    (first, *others) = _all_channels(layer)
    if others or first.colour is not None:
        return layer
    return replace(layer, channels=(replace(first, colour=COLOURS[number % len(COLOURS)]),))


def _distinct(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The layers with names of which the viewer can tell each from the others."""
    taken: set[str] = set()
    for layer in layers:
        name = layer["name"]
        names = itertools.chain([name], (f"{name} {number}" for number in itertools.count(2)))
        layer["name"] = next(each for each in names if each not in taken)
        taken.add(layer["name"])
    return layers


def _kind(layer: ViewerLayer) -> str:
    return _SEGMENTATION if layer.info.volume_type == _SEGMENTATION else _IMAGE


def _layer(layer: ViewerLayer) -> dict[str, Any]:
    kind = _kind(layer)
    described: dict[str, Any] = {"type": kind, "name": layer.name, "source": f"precomputed://{layer.source}"}
    if kind == _IMAGE:
        channels = _all_channels(layer)
        described["shader"] = _shader(channels)
        if layer.contrast is not None:
            described["shaderControls"] = {
                _control(number, channel): {"range": list(pair)}
                for number, (channel, pair) in enumerate(zip(channels, layer.contrast, strict=True))
            }
    return described


def _annotation_layer(layer: AnnotationLayer) -> dict[str, Any]:
    return {
        "type": "annotation",
        "name": layer.name,
        "source": f"precomputed://{layer.source}",
        "annotationColor": layer.colour,
        # A viewer leaves out of a crowd what would be closer than this, in pixels; its default is 8.
        "crossSectionAnnotationSpacing": 1,
        "projectionAnnotationSpacing": 1,
    }


def shown_colours(channels: Sequence[ViewerChannel], count: int) -> list[str | None]:
    """The colours in which `count` channels are shown, added up; None for a single one in shades of grey."""
    known = [*channels, *[ViewerChannel()] * count][:count]
    if count == 1:
        return [known[0].colour]
    return [channel.colour or COLOURS[number % len(COLOURS)] for number, channel in enumerate(known)]


def _all_channels(layer: ViewerLayer) -> list[ViewerChannel]:
    count = layer.info.num_channels
    return [*layer.channels, *[ViewerChannel()] * count][:count]


def _control(number: int, channel: ViewerChannel) -> str:
    """The name of a channel's control: an identifier of GLSL that is like the channel's name, and no word of GLSL."""
    name = _NOT_IN_IDENTIFIERS.sub("_", channel.name).strip("_")
    return f"{name}_{number}" if name[:1].isalpha() and not name.startswith("gl_") else f"channel{number}"


def _shader(channels: Sequence[ViewerChannel]) -> str:
    colours = shown_colours(channels, len(channels))
    if len(channels) == 1:  # a volume of one channel has no channel dimension that a control could name
        name = _control(0, channels[0])
        if colours[0] is None:
            return f"#uicontrol invlerp {name}\nvoid main() {{\n  emitGrayscale({name}());\n}}"
        shown = [f"#uicontrol invlerp {name}"]
    else:
        names = [_control(number, channel) for number, channel in enumerate(channels)]
        shown = [f"#uicontrol invlerp {name}(channel={number})" for number, name in enumerate(names)]
    shown += [_colour_control(number, colour) for number, colour in enumerate(colours) if colour is not None]
    summed = " + ".join(f"colour{number} * {_control(number, channel)}()" for number, channel in enumerate(channels))
    return "\n".join((*shown, "void main() {", f"  emitRGB({summed});", "}"))


def _colour_control(number: int, colour: str) -> str:
    return f'#uicontrol vec3 colour{number} color(default="{colour}")'
