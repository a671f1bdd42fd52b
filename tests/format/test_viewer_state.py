"""What a viewer's link says of channels: their names and colours, as valid controls of its shader."""

from __future__ import annotations

import re
from typing import Any

import pytest

from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.format.viewer_state import COLOURS, ViewerChannel, ViewerLayer, viewer_state


def layer(names: list[str], colours: list[str | None], count: int | None = None) -> dict[str, Any]:
    scale = ScaleInfo("1_1_1", (8, 8, 8), (1.0, 1.0, 1.0), ((8, 8, 8),))
    info = VolumeInfo("uint8", count or len(names), (scale,))
    channels = tuple(map(ViewerChannel, names, colours))
    contrast = tuple((0.0, float(number + 1)) for number in range(info.num_channels))
    state = viewer_state([ViewerLayer("brain", "http://host/brain", info, contrast, channels)])
    found: dict[str, Any] = state["layers"][0]
    return found


def controls(found: dict[str, Any]) -> list[str]:
    return re.findall(r"#uicontrol invlerp (\w+)", found["shader"])


def colours_of(found: dict[str, Any]) -> list[str]:
    return re.findall(r'color\(default="(#\w+)"\)', found["shader"])


def test_channels_have_the_names_and_colours_of_the_record() -> None:
    found = layer(["DAPI 405", "GFP"], ["#0000ff", None])
    assert controls(found) == ["DAPI_405_0", "GFP_1"] == list(found["shaderControls"])
    assert colours_of(found) == ["#0000ff", COLOURS[1]]
    assert found["shaderControls"]["GFP_1"] == {"range": [0.0, 2.0]}
    assert "colour0 * DAPI_405_0() + colour1 * GFP_1()" in found["shader"]


def test_channels_of_which_nobody_said_anything_are_numbered() -> None:
    assert controls(layer([], [], 3)) == ["channel0", "channel1", "channel2"]
    assert controls(layer(["", "GFP"], [None, None], 3)) == ["channel0", "GFP_1", "channel2"]
    assert colours_of(layer([], [], 1)) == []
    assert "emitGrayscale(channel0())" in layer([], [], 1)["shader"]


def test_one_channel_has_its_colour_too() -> None:
    found = layer(["GFP"], ["#00ff00"])
    assert controls(found) == ["GFP_0"]
    assert "emitRGB(colour0 * GFP_0())" in found["shader"]


@pytest.mark.parametrize("name", ["float", "gl_FragColor", "405 nm", "µ", "a;b\n}void main(){", "__x__", "GFP", "main"])
def test_any_name_gives_an_identifier_that_glsl_takes(name: str) -> None:
    first, second = controls(layer([name, name], [None, None]))
    for control in (first, second):
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*", control)
        assert re.search(r"\d$", control)
        assert not control.startswith("gl_")
    assert first != second


@pytest.mark.parametrize("members", [None, 3, "GFP", {"name": 3, "color": "red"}, {"color": '#00ff00"); x'}, {}])
def test_what_is_no_name_or_colour_is_left_out(members: object) -> None:
    assert ViewerChannel.from_json(members) == ViewerChannel()
