"""A link that programs ask for, saved under a short address, shows the datasets in the real Neuroglancer."""

from __future__ import annotations

import json
from urllib.request import Request, urlopen

import numpy as np
import pytest
from numpy.typing import NDArray

from precomputed_server.format.viewer_state import COLOURS
from tests.data import write_dataset
from tests.end_to_end.browser import PANEL, panel_box
from tests.end_to_end.conftest import Served
from tests.end_to_end.test_neuroglancer import WINDOW, make_panel_even, place_of, watched

pytestmark = pytest.mark.component


def test_two_foreign_datasets_are_added_up_under_a_short_link(served: Served) -> None:
    """Nobody counted their voxels: the contrast is that of a sample, which here is all there is."""
    rows, columns = np.mgrid[:100, :120]
    planes = {"left one": 300 + 2 * rows + 3 * columns, "right": 5000 + 40 * rows - 11 * columns}
    expected = np.zeros((100, 120, 3))
    for number, (name, plane) in enumerate(planes.items()):
        (served.root / name).mkdir()
        voxels = np.broadcast_to(plane.astype(np.uint16), (1, 4, 100, 120)).copy()
        write_dataset(served.root / name, voxels, resolution_nm=(1000, 1000, 1000))
        low, high = np.quantile(plane, 0.01, method="nearest"), np.quantile(plane, 0.998, method="nearest")
        colour = [int(COLOURS[number][start : start + 2], 16) for start in (1, 3, 5)]
        expected += np.clip((plane - low) / (high - low), 0, 1)[..., None] * colour
    expected = np.clip(expected, 0, 255)
    url = served.server.url
    with urlopen(f"{url}/api/v1/link?dataset=left%20one&dataset=right", timeout=30) as answer:
        state = json.load(answer)["state"]
    quiet = dict.fromkeys(("showAxisLines", "showScaleBar", "showDefaultAnnotations"), False)
    state |= {"position": [60.0, 50.0, 2.5], "crossSectionScale": 1, "layout": "xy", **quiet}
    with urlopen(Request(f"{url}/states", json.dumps(state).encode()), timeout=30) as answer:
        short = json.load(answer)

    def differs(pixels: NDArray[np.uint8]) -> float:
        make_panel_even(viewer)
        left, top, width, height = panel_box(viewer.page)
        panel = pixels[top : top + height, left : left + width]
        return float(np.abs(place_of(panel, expected[..., 0]) - expected).max())

    with watched(*WINDOW) as viewer:
        viewer.page.goto(f"{url}/neuroglancer/v/1/#!{short}")
        viewer.page.wait_for_selector(PANEL)
        assert differs(viewer.settled(lambda pixels: differs(pixels) <= 2.5)) <= 2.5
        assert short in viewer.urls
