"""Stock Neuroglancer as the editor: our link is opened, annotations are drawn, moved and deleted there by mouse and by
the viewer's own code, and its address is imported: exactly these edits are stored, and what others did is kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.data import point, volume, write_annotations, write_dataset
from tests.end_to_end.browser import Visit, panel_box, visit
from tests.end_to_end.conftest import Served

pytestmark = pytest.mark.component

NAME = "edited"
SIZE = (100, 80, 60)
FIBRE: dict[str, Any] = {
    "id": "fibre",
    "type": "linestring",
    "points": [[20.1, 20.5, 30.5], [40.1, 25, 30.5], [80.3, 60.6, 30.5]],
    "length": 74.2,
    "colour": "unknown to the viewer",
}
GONE = {"id": "gone", "type": "line", "pointA": [1, 2, 3], "pointB": [4, 5, 6]}
CONTOUR: dict[str, Any] = {
    "id": "contour",
    "type": "polygon",
    "points": [[10, 50, 30.5], [30, 50, 30.5], [20, 70.7, 30.5]],
}
CELL = point(1, 50.1, 40.7, 30.5, description="soma", segments=[["5"]], confidence=0.1)
BALL = {"id": "ball", "type": "ellipsoid", "center": [70, 20, 30.5], "radii": [5, 5, 5.5]}
BOX = {"id": "box", "type": "axis_aligned_bounding_box", "pointA": [60, 5, 20], "pointB": [70, 12.3, 40]}

EDIT = """() => {
    const of = name => viewer.layerManager.managedLayers.find(each => each.name === name).layer.localAnnotations;
    const fibers = of("fibers"), contours = of("contours");
    const moved = {...fibers.get("fibre")};
    moved.points = [...moved.points];
    moved.points[1] = new Float32Array([44.5, 28, 30.5]);
    fibers.update(fibers.getReference("fibre"), moved);
    fibers.delete(fibers.getReference("gone"));
    const ring = [[40, 50, 12.5], [50, 50, 12.5], [50, 60, 12.5], [40, 50, 12.5]].map(each => new Float32Array(each));
    contours.add({id: "", type: 4, points: ring, properties: [], relatedSegments: [[]]});
}"""
"""Moves a vertex, deletes a line and draws a contour, as the viewer's own tools do."""


def ask(method: str, url: str, body: bytes | None = None) -> Any:  # noqa: ANN401  # any JSON value
    """The JSON that the server answers."""
    with urllib.request.urlopen(urllib.request.Request(url, body, method=method), timeout=30) as answer:
        return json.load(answer)


def stored(served: Served, leaf: str) -> dict[str, Any]:
    """What a leaf holds."""
    items = ask("GET", f"{served.server.url}/{NAME}/annotations/x0y0z0/{leaf}.json")
    return {item["id"]: item for item in items}


@pytest.fixture
def dataset(served: Served) -> str:
    """The address of a dataset with annotations of every type."""
    directory = served.root / NAME
    write_dataset(directory, volume((1, *SIZE[::-1]), "uint8"))
    write_annotations(directory, {"fibers": [FIBRE, GONE], "centroids": [CELL, BALL, BOX], "z-0030": [CONTOUR]})
    return f"{served.server.url}/{NAME}"


def opened(viewer: Visit, served: Served) -> None:
    """Follow the link of the list of datasets, and wait until the annotations are there."""
    viewer.page.goto(f"{served.server.url}/index.html")
    viewer.page.locator("li.card", has_text=NAME).get_by_role("link", name="Annotate in Neuroglancer").click()
    viewer.page.wait_for_selector(".neuroglancer-rendered-data-panel >> nth=3")
    viewer.page.wait_for_function(
        """() => viewer.layerManager.managedLayers.length === 4
            && [...(viewer.layerManager.managedLayers[2].layer?.localAnnotations ?? [])].length === 3"""
    )


def address_of(viewer: Visit) -> str:
    """The viewer's address once it says what was drawn last."""
    expected = viewer.page.evaluate("() => JSON.stringify(viewer.state.toJSON().layers.map(x => x.annotations))")

    def said() -> Any:  # noqa: ANN401  # any JSON value
        return viewer.page.evaluate(
            """() => JSON.stringify(JSON.parse(decodeURIComponent(location.hash.slice(2))).layers
                .map(x => x.annotations))"""
        )

    assert viewer.until(said, lambda text: text == expected) == expected
    return viewer.page.url


def draw_point(viewer: Visit) -> None:
    """Draw a point with the mouse: the layer, its tool, and Ctrl with the first button in the first panel."""
    viewer.page.locator(".neuroglancer-layer-item", has_text="centroids").click(button="right")
    viewer.page.locator(".neuroglancer-annotation-toolbox [title='Annotate point']").click()
    left, top, width, height = panel_box(viewer.page)
    viewer.page.mouse.move(left + width // 2, top + height // 4)
    viewer.page.wait_for_timeout(300)
    viewer.page.keyboard.down("Control")
    viewer.page.mouse.down()
    viewer.page.mouse.up()
    viewer.page.keyboard.up("Control")


def test_edits_in_the_viewer_are_stored_and_no_others(served: Served, dataset: str) -> None:
    with visit(1200, 800) as viewer:
        opened(viewer, served)
        untouched = address_of(viewer)
        draw_point(viewer)
        viewer.page.evaluate(EDIT)
        edited = address_of(viewer)
        assert viewer.complaints == []
        assert viewer.hosts() == {"127.0.0.1"}
    nothing = ask("POST", f"{dataset}/annotations/import", untouched.encode())
    assert nothing["counts"] == {"added": 0, "changed": 0, "removed": 0, "conflicts": 0, "unchanged": 6}

    theirs = json.dumps({**CELL, "description": "somebody else was here"}).encode()
    ask("PATCH", f"{dataset}/annotations/x0y0z0/centroids.json?id={CELL['id']}", theirs)
    theirs = json.dumps({**FIBRE, "reviewed": True}).encode()
    ask("PATCH", f"{dataset}/annotations/x0y0z0/fibers.json?id=fibre", theirs)

    said = ask("POST", f"{dataset}/annotations/import?dry_run=1", edited.encode())
    assert said["counts"] == {"added": 2, "changed": 1, "removed": 1, "conflicts": 0, "unchanged": 4}
    done = ask("POST", f"{dataset}/annotations/import", edited.encode())
    assert {**done, "dry_run": True, "blocks": []} == {**said, "blocks": []}

    fibers, cells = stored(served, "fibers"), stored(served, "centroids")
    points = [FIBRE["points"][0], [44.5, 28, 30.5], FIBRE["points"][2]]
    assert fibers == {"fibre": {**FIBRE, "points": points, "reviewed": True, "length": fibers["fibre"]["length"]}}
    assert fibers["fibre"]["length"] == pytest.approx(73.95, abs=0.01), "the length is not that of the points"
    (drawn,) = cells.keys() - {CELL["id"], "ball", "box"}
    assert cells == {
        CELL["id"]: {**CELL, "description": "somebody else was here"},
        "ball": BALL,
        "box": BOX,
        drawn: {"id": drawn, "type": "point", "point": cells[drawn]["point"]},
    }
    assert cells[drawn]["point"][2] == pytest.approx(30.5, abs=1e-5), "the viewer's mouse hits it but for rounding"
    assert all(0 < at < edge for at, edge in zip(cells[drawn]["point"], SIZE, strict=True))
    assert stored(served, "z-0030") == {"contour": CONTOUR}
    (contour,) = stored(served, "z-0012").values()
    assert (contour["type"], contour["points"]) == ("polygon", [[40, 50, 12.5], [50, 50, 12.5], [50, 60, 12.5]])


def test_a_link_from_the_command_line_shows_a_part(served: Served, dataset: str) -> None:
    """Its query is the saved state's: the viewer asks for it as it is."""
    command = [str(Path(sys.executable).with_name("precomputed")), "annotations", "link", str(served.root / NAME)]
    command += ["--url", dataset, "--box", "0,45,0,45,0,60", "--leaf", "fibers"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    with visit(900, 600) as viewer:
        viewer.page.goto(printed)
        viewer.page.wait_for_selector(".neuroglancer-rendered-data-panel >> nth=3")
        layers = viewer.until(
            lambda: viewer.page.evaluate("() => viewer.state.toJSON().layers ?? []"), lambda found: len(found) > 1
        )
        assert viewer.complaints == []
    assert [layer["name"] for layer in layers] == [NAME, "fibers"]
    assert {each["id"] for each in layers[1]["annotations"]} == {"fibre", "gone"} & set(stored(served, "fibers"))
