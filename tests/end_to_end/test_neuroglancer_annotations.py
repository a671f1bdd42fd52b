"""The real Neuroglancer, opened by our link, shows annotations at their place and nothing elsewhere."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urljoin

import numpy as np
import pytest
from neuroglancer.read_precomputed_annotations import AnnotationReader
from numpy.typing import NDArray

from annotation_store.views.numbers import number_of
from tests.annotation_store.precomputed import single
from tests.data import point, write_annotations, write_dataset
from tests.end_to_end.browser import Visit, open_viewer, panel_box
from tests.end_to_end.conftest import Served
from tests.end_to_end.test_neuroglancer import WINDOW, make_panel_even, watched
from tests.end_to_end.wire import Connection

pytestmark = pytest.mark.component

OFFSET, SIZE = (10, 20, 5), (320, 260, 30)
Z = 15.5
CENTRE = (170, 150)
POINT = [100.5, 190.5, Z]
FIBRE = [[60.5, 60.5, Z], [260.5, 60.5, Z], [260.5, 110.5, Z]]
CONTOUR = [[180.5, 160.5, Z], [240.5, 160.5, Z], [240.5, 220.5, Z], [180.5, 220.5, Z]]
SQUARE = 12
"""Half of the edge, in voxels, of what is white in the image around the point."""

LAYERS = ("centroids-point", "contours-polyline", "fibers-polyline")
REACH = 4
"""How far, in pixels, the marker of a point or the width of a line reaches from where it is."""


def annotated(served: Served, name: str) -> None:
    """A black volume with a white square around the point of CENTROIDS, in all slices."""
    voxels = np.zeros((1, SIZE[2], SIZE[1], SIZE[0]), np.uint8)
    x, y = int(POINT[0]) - OFFSET[0], int(POINT[1]) - OFFSET[1]
    voxels[0, :, y - SQUARE : y + SQUARE + 1, x - SQUARE : x + SQUARE + 1] = 255
    write_dataset(served.root / name, voxels, voxel_offset=OFFSET)
    write_annotations(
        served.root / name,
        {
            "centroids": [point(1, *POINT)],
            "fibers": [{"id": "f", "type": "linestring", "points": FIBRE}],
            "z-0015": [{"id": "c", "type": "polygon", "points": CONTOUR}],
        },
    )


def patch(served: Served, name: str, item: dict[str, Any]) -> None:
    """Put an annotation among the centroids."""
    with Connection(served.server) as connection:
        assert connection.patch_json(f"/{name}/annotations/x0y0z0/centroids.json", item).status == 200


def state_of_link(served: Served, name: str, z: float) -> dict[str, Any]:
    """The state that the link of the start page opens, in one slice, a voxel a pixel, without what is drawn around."""
    with Connection(served.server) as connection:
        way = connection.request("GET", f"/neuroglancer/open/{name}").headers["location"]
    state: dict[str, Any] = json.loads(unquote(way.partition("#!")[2]))
    assert [layer["name"] for layer in state["layers"]] == [name, *LAYERS]
    quiet = dict.fromkeys(("showAxisLines", "showScaleBar", "showDefaultAnnotations"), False)
    return state | {"position": [*map(float, CENTRE), z], "crossSectionScale": 1, "layout": "xy", **quiet}


def colours(state: dict[str, Any]) -> dict[str, NDArray[np.int_]]:
    """The colour of each layer of annotations."""
    layers = {layer["name"]: layer["annotationColor"] for layer in state["layers"] if layer["type"] == "annotation"}
    return {name: np.array([int(text[at : at + 2], 16) for at in (1, 3, 5)]) for name, text in layers.items()}


def panel_of(viewer: Visit, is_right: Callable[[NDArray[np.int_]], bool]) -> NDArray[np.int_]:
    """The panel's pixels "(Y, X, 3)" once they are right and stay, without the controls in its upper corners."""

    def panel(pixels: NDArray[np.uint8]) -> NDArray[np.int_]:
        make_panel_even(viewer)
        left, top, width, height = panel_box(viewer.page)
        part = pixels[top : top + height, left : left + width].astype(int)
        part[:70, -70:] = part[:120, :70] = 128
        return part

    return panel(viewer.settled(lambda pixels: is_right(panel(pixels))))


def places(panel: NDArray[np.int_], colour: NDArray[np.int_]) -> NDArray[np.float64]:
    """Where in voxels x, y "(N, 2)" the middles of the pixels are that have about that colour."""
    y, x = np.nonzero(np.abs(panel - colour).max(axis=2) < 50)
    height, width = panel.shape[:2]
    return np.stack([x - width // 2 + CENTRE[0], y - height // 2 + CENTRE[1]], axis=1) + 0.5


def along(*corners: list[float]) -> NDArray[np.float64]:
    """Places x, y, one a voxel, on the way from corner to corner."""
    pieces = [
        np.linspace(one[:2], other[:2], int(np.abs(np.subtract(one, other)).max()) + 1)
        for one, other in zip(corners, corners[1:], strict=False)
    ]
    return np.concatenate(pieces)


def farthest(ones: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """How far the one of `ones` is from the nearest of `others` for which that is farthest."""
    return float(np.sqrt(((ones[:, None] - others[None]) ** 2).sum(axis=2)).min(axis=1).max())


def assert_drawn(found: NDArray[np.float64], wanted: NDArray[np.float64], name: str) -> None:
    """Pixels of the layer's colour are all along `wanted` and nowhere else."""
    assert len(found), f"nothing has the colour of {name}"
    assert farthest(found, wanted) <= REACH, f"{name} is drawn where nothing is"
    assert farthest(wanted, found) <= REACH, f"a part of {name} is missing"


def white_of(panel: NDArray[np.int_]) -> NDArray[np.float64]:
    """Where the image is white; below it the viewer may say what it is loading."""
    white = places(panel, np.array([255, 255, 255]))
    return white[white[:, 1] < OFFSET[1] + SIZE[1]]


def shows_image(panel: NDArray[np.int_]) -> bool:
    """Whether the image is in the picture."""
    return len(white_of(panel)) > 2 * SQUARE**2


def shows_all(state: dict[str, Any]) -> Callable[[NDArray[np.int_]], bool]:
    """Whether the image and all layers of annotations are in the picture."""
    wanted = colours(state).values()
    return lambda panel: shows_image(panel) and all(len(places(panel, colour)) > 5 for colour in wanted)


def test_a_fibre_a_point_and_a_contour_are_at_their_place(served: Served) -> None:
    annotated(served, "annotated")
    state = state_of_link(served, "annotated", Z)
    with watched(*WINDOW) as viewer:
        open_viewer(viewer, served.server.url, state)
        panel = panel_of(viewer, shows_all(state))
    found = {name: places(panel, colour) for name, colour in colours(state).items()}
    assert_drawn(found["fibers-polyline"], along(*FIBRE), "the fibre")
    assert_drawn(found["contours-polyline"], along(*CONTOUR, CONTOUR[0]), "the contour")
    assert_drawn(found["centroids-point"], along(POINT, POINT), "the point")
    white = white_of(panel)
    middle = (white.min(axis=0) + white.max(axis=0)) / 2
    assert np.abs(middle - found["centroids-point"].mean(axis=0)).max() <= 1, "the point does not lie over the image"


SLOW = "const now = Date.now; let late = 0; Date.now = () => now.call(Date) + (late += 500);"
"""A machine on which everything takes very long, as far as the viewer can tell."""


def test_a_slow_machine_shows_the_image_as_well(served: Served) -> None:
    """The viewer loses a layer when it takes long to begin; our page sees to it that it does not."""
    annotated(served, "slow")
    state = state_of_link(served, "slow", Z)
    with watched(*WINDOW) as viewer:
        viewer.page.add_init_script(SLOW)
        open_viewer(viewer, served.server.url, state)
        panel = panel_of(viewer, shows_all(state))
    assert shows_all(state)(panel)


def test_other_slices_do_not_show_them(served: Served) -> None:
    annotated(served, "other")
    state = state_of_link(served, "other", Z + 12)  # the viewer fades them out over 10 voxels
    with watched(*WINDOW) as viewer:
        open_viewer(viewer, served.server.url, state)
        cells = {f"{served.server.url}/other/annotations.precomputed/{name}/spatial-0/0_0_0" for name in LAYERS}
        assert cells <= set(viewer.until(lambda: viewer.urls, cells.issubset))
        viewer.page.wait_for_timeout(500)
        panel = panel_of(viewer, shows_image)
    assert {name: len(places(panel, colour)) for name, colour in colours(state).items()} == dict.fromkeys(LAYERS, 0)


def test_a_page_that_is_opened_again_shows_the_newest_version(served: Served) -> None:
    annotated(served, "edited")
    state = state_of_link(served, "edited", Z)
    colour = colours(state)["centroids-point"]
    moved = [POINT[0] + 40, POINT[1] - 60, Z]
    with watched(*WINDOW) as viewer:
        open_viewer(viewer, served.server.url, state)
        first = panel_of(viewer, shows_all(state))
        assert_drawn(places(first, colour), along(POINT, POINT), "the point")
    patch(served, "edited", point(1, *moved))
    with watched(*WINDOW) as viewer:
        open_viewer(viewer, served.server.url, state)
        second = panel_of(viewer, shows_all(state))
    assert_drawn(places(second, colour), along(moved, moved), "the point")


def test_neuroglancers_python_reader_reads_them_from_the_server(served: Served) -> None:
    """Of several workers, while annotations are added: each answer is whole and of its time."""
    annotated(served, "read")
    source = f"{served.server.url}/read/annotations.precomputed/"
    with urllib.request.urlopen(source, timeout=20) as answer:
        assert all(f"./{name}/" in answer.read().decode() for name in LAYERS[:1])
    wanted = {number_of(f"{1:040x}"): single(POINT)}
    for number in range(2, 12):
        place = [20.5 + number, 30.5, Z]
        patch(served, "read", point(number, *place))
        wanted[number_of(f"{number:040x}")] = single(place)
        reader = AnnotationReader(urljoin(source, "centroids-point/"))
        found = {int(one.id): tuple(map(float, one.point)) for one in reader.get_within_spatial_bounds()}
        assert found == wanted
        assert tuple(map(float, reader.by_id[number_of(f"{number:040x}")].point)) == single(place)
