"""The real Neuroglancer, served by us, shows exactly the voxels of the stack and asks nobody but us."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from annotation_store.slices import slice_naming
from converter import ConvertOptions, convert
from converter.describe import Corrections
from converter.describe import describe as correct
from converter.stacks.voxel_size import parse_edges
from precomputed_server import demo
from precomputed_server.catalog.records import describe
from precomputed_server.files import Tree
from precomputed_server.format.viewer_state import COLOURS, ViewerLayer, viewer_state
from precomputed_server.readers.volumes import Volumes
from tests.data import phantom_stack, write_plane
from tests.end_to_end.browser import Visit, open_viewer, panel_box, slice_state, visit
from tests.end_to_end.conftest import Served
from tests.end_to_end.test_voxels_over_http import banana

pytestmark = pytest.mark.component

WINDOW = (500, 560)


@contextlib.contextmanager
def watched(width: int, height: int) -> Iterator[Visit]:
    """A page that is to ask nobody but the server and to have nothing to complain about.

    Opened once the data is there: the browser's driver runs an event loop, on which our code must not block.
    """
    with visit(width, height) as seen:
        yield seen
        assert seen.hosts() == {"127.0.0.1"}
        assert seen.complaints == []
        assert "disconnected" not in seen.page.inner_text("body").lower()


def make_panel_even(viewer: Visit) -> None:
    """Give the panel even sides: then an integer position has its voxels' corners on the pixels' corners.

    How high the bar above it is depends on the fonts of the machine, and on what has been loaded of the page.
    """
    _, _, width, height = panel_box(viewer.page)
    window = viewer.page.viewport_size
    if window is not None and (width % 2 or height % 2):
        grown = {"width": window["width"] + width % 2, "height": window["height"] + height % 2}
        viewer.page.set_viewport_size({"width": grown["width"], "height": grown["height"]})


def test_a_slice_of_the_banana(shared_data: Path, served: Served) -> None:
    source = shared_data / "banana"
    convert(str(source), served.root / "banana", ConvertOptions(voxel_size=parse_edges(",,8800")))
    resolution_nm = [390_625.0, 390_625.0, 8_800_000.0]
    assert_slice_shown(served, "banana", resolution_nm, banana(source)[0, 8], 8)


@pytest.mark.parametrize(
    "storage", ["tiff", "tiff --compress zstd", "raw", "raw --compress zstd", "raw --encoding png", "sharded"]
)
def test_a_slice_made_in_code(storage: str, tmp_path: Path, served: Served) -> None:
    voxels = phantom_stack(tmp_path, (9, 131, 150), "uint16")
    name, *flags = storage.split()
    stored = {flag.removeprefix("--"): value for flag, value in zip(flags[::2], flags[1::2], strict=True)}
    options = ConvertOptions(voxel_size=parse_edges("0.5,0.5,2"), chunk_size=(64, 64, 4), format=name, **stored)  # type: ignore[arg-type]
    dataset = "_".join([name, *stored.values()])
    convert(str(tmp_path), served.root / dataset, options)
    assert_slice_shown(served, dataset, [500.0, 500.0, 2000.0], voxels[0, 5], 5)


def test_the_demo_from_the_list_of_datasets(tmp_path: Path, served: Served) -> None:
    demo.made_up(tmp_path, served.root, lambda _: None)
    with watched(1280, 800) as viewer:
        look_at_the_demo(viewer, served)


def look_at_the_demo(viewer: Visit, served: Served) -> None:
    """Follow the link of the list of datasets and wait until the first of the four panels shows coloured tissue."""
    viewer.page.goto(f"{served.server.url}/index.html")
    card = viewer.page.locator("li.card", has_text=re.compile(rf"\b{demo.TISSUE}\b", re.IGNORECASE))
    card.get_by_role("link", name="Open in Neuroglancer").click()
    viewer.page.wait_for_selector(".neuroglancer-rendered-data-panel >> nth=3")

    def shows_tissue(pixels: NDArray[np.uint8]) -> bool:
        left, top, width, height = panel_box(viewer.page)
        panel = pixels[top : top + height, left : left + width].astype(int)
        coloured = (panel.max(axis=2) - panel.min(axis=2)) > 60  # grey is tissue's ground, and no tissue
        return bool(coloured.mean() > 0.04)

    assert shows_tissue(viewer.settled(shows_tissue)), "the first of the four panels shows no tissue"


def assert_slice_shown(served: Served, dataset: str, resolution_nm: list[float], plane: NDArray[Any], z: int) -> None:
    """`plane` "(Y, X)" fills its place in the panel, pixel by pixel, and nothing is drawn around it."""
    height, width = plane.shape
    middle = [width // 2, height // 2, z + 0.5]
    expected = np.stack([plane >> 8, plane & 255, np.full_like(plane, 255)], axis=-1).astype(np.uint8)
    with watched(*WINDOW) as viewer:
        open_viewer(
            viewer,
            served.server.url,
            slice_state(f"{served.server.url}/{dataset}", resolution_nm, [*map(float, middle)]),
        )
        panel = viewer.until(
            lambda: shown_voxels(viewer), lambda panel: np.array_equal(place_of(panel, plane), expected)
        )
    assert (panel.shape[0] % 2, panel.shape[1] % 2) == (0, 0), "the window leaves a panel with odd sides"
    asked = "\n".join(url for url in viewer.urls if f"/{dataset}/" in url)
    np.testing.assert_array_equal(place_of(panel, plane), expected, f"after these requests:\n{asked}")
    place_of(panel, plane)[:] = 0
    panel[:70, -70:] = panel[:120, :70] = 0  # the controls in the upper corners
    assert not panel.any(), "voxels are drawn where there are none"


def shown_voxels(viewer: Visit) -> NDArray[np.uint8]:
    """The panel's pixels, black where there are no voxels; it may still move while the page is laid out."""
    make_panel_even(viewer)
    left, top, width, height = panel_box(viewer.page)
    panel = viewer.screenshot()[top : top + height, left : left + width].copy()
    panel[panel[..., 2] != 255] = 0  # neither background nor most controls
    return panel


def place_of(panel: NDArray[np.uint8], plane: NDArray[Any]) -> NDArray[np.uint8]:
    """The part of a panel in which a centred `plane` lies, a voxel a pixel."""
    y, x = (whole // 2 - part // 2 for whole, part in zip(panel.shape, plane.shape, strict=False))
    return panel[y : y + plane.shape[0], x : x + plane.shape[1]]


@pytest.mark.parametrize("described", [False, True])
@pytest.mark.parametrize("channels", [1, 2])
def test_our_link_shows_the_contrast_of_the_statistics_and_the_colours_of_the_record(
    channels: int, described: bool, tmp_path: Path, served: Served
) -> None:
    """The shader of the list's link, not one of this test: a dim image fills the range from black to full colour."""
    rows, columns = np.mgrid[:100, :120]
    stack, name = tmp_path / "dim", f"dim{channels}{described}"
    stack.mkdir()
    plane = (300 + 2 * rows + 3 * columns).astype(np.uint16)
    for z in range(4):
        write_plane(stack / f"{z}.tif", np.stack([plane + 7 * channel for channel in range(channels)]))
    convert(str(stack), served.root / name, ConvertOptions(voxel_size=parse_edges("1,1,1"), levels=1))
    colours = ["#ffffff"] if channels == 1 else list(COLOURS)
    if described:
        names, colours = ("float", "405 µm__x")[:channels], ["#ff8000", "#0040ff"][:channels]
        correct(served.root / name, Corrections(channel_names=names, colors=tuple(colours)), slice_naming)
    tree = Tree(served.root)
    volume = Volumes(tree).at(name)
    assert volume is not None
    dataset = describe(tree, volume)
    tree.close()
    assert dataset.contrast is not None
    source = f"{served.server.url}/{name}"
    layer = ViewerLayer(name, source, volume.info, dataset.contrast, dataset.channels)
    state = viewer_state([layer], "xy")
    quiet = dict.fromkeys(("showAxisLines", "showScaleBar", "showDefaultAnnotations"), False)
    state |= {"position": [60.0, 50.0, 2.5], "crossSectionScale": 1, **quiet}
    expected = np.zeros((*plane.shape, 3))
    for channel, (low, high) in enumerate(dataset.contrast):
        colour = colours[channel]
        part = np.clip((plane + 7.0 * channel - low) / (high - low), 0, 1)
        expected += part[..., None] * [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    expected = np.clip(expected, 0, 255)

    def differs(pixels: NDArray[np.uint8]) -> float:
        make_panel_even(viewer)  # what was photographed before differs still
        left, top, width, height = panel_box(viewer.page)
        panel = pixels[top : top + height, left : left + width]
        return float(np.abs(place_of(panel, plane) - expected).max())

    with watched(*WINDOW) as viewer:
        open_viewer(viewer, served.server.url, state)
        assert differs(viewer.settled(lambda pixels: differs(pixels) <= 1.5)) <= 1.5
