"""The state of a Neuroglancer viewer that shows given layers: a pure function from values to JSON.

Source: https://github.com/google/neuroglancer/blob/master/python/neuroglancer/viewer_state.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from precomputed_server.format.info import VolumeInfo

_PANEL_PIXELS = (600, 340, 340)
"""What one of four panels has on a small screen: x lies across it, y and z down; the whole extent is fitted into it."""

_MARKER_COLOUR = "#ffff00"
COLOURS = ("#00a0ff", "#ff4dd8", "#ffd23f", "#3fd96b", "#ff5a3c", "#b18cff")


@dataclass(frozen=True)
class ViewerLayer:
    """One layer: `source` is the URL of the dataset, `contrast` the range to show of each channel."""

    name: str
    source: str
    info: VolumeInfo
    contrast: tuple[tuple[float, float], ...] | None = None


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
        "layers": [*map(_layer, layers), *map(_annotation_layer, annotations)],
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


def _layer(layer: ViewerLayer) -> dict[str, Any]:
    kind = "segmentation" if layer.info.volume_type == "segmentation" else "image"
    described: dict[str, Any] = {"type": kind, "name": layer.name, "source": f"precomputed://{layer.source}"}
    if kind == "image":
        described["shader"] = _shader(layer.info.num_channels)
        if layer.contrast is not None:
            described["shaderControls"] = {
                _control(channel): {"range": list(pair)} for channel, pair in enumerate(layer.contrast)
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


def _control(channel: int) -> str:
    return f"channel{channel}"


def _shader(channels: int) -> str:
    if channels == 1:  # a volume of one channel has no channel dimension that a control could name
        name = _control(0)
        return f"#uicontrol invlerp {name}\nvoid main() {{\n  emitGrayscale({name}());\n}}"
    controls = [f"#uicontrol invlerp {_control(channel)}(channel={channel})" for channel in range(channels)]
    for channel in range(channels):
        colour = COLOURS[channel % len(COLOURS)]
        controls.append(f'#uicontrol vec3 colour{channel} color(default="{colour}")')
    summed = " + ".join(f"colour{channel} * {_control(channel)}()" for channel in range(channels))
    return "\n".join((*controls, "void main() {", f"  emitRGB({summed});", "}"))
