"""The pictures of the pages in docs/images, made of demo data in a real browser by `make screenshots`.

Not a test: what is seen changes with the browser and its fonts.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

from precomputed_server import demo, phantom
from tests.catalog.trees import make_dataset, write_record
from tests.conftest import launch, wait_until_healthy
from tests.data import write_dataset
from tests.end_to_end.browser import PANEL, visit
from tests.end_to_end.conftest import Served
from tests.end_to_end.wire import Connection

_WIDTH, _HEIGHT = 1280, 860
_SETTLES_MS = 3000


def main(directory: Path) -> None:
    """Make the pictures and put them into a directory."""
    with tempfile.TemporaryDirectory() as made:
        root = Path(made) / "data"
        _fill(Path(made), root)
        server = launch(root, (), 2, Path(made) / "log")
        try:
            wait_until_healthy(server)
            _annotate(Served(root, server))
            _take(server.url, directory)
        finally:
            server.stop()


def _fill(made: Path, root: Path) -> None:
    """Datasets as a laboratory may have them."""
    root.mkdir()
    demo.made_up(made / "stack", root, lambda _: None)
    write_record(root / demo.TISSUE, title="Tissue", description="Made up.", tags=["light-sheet", "demo"])
    planes = phantom.tissue().planes
    for name, part, title in (
        ("mouse 3/left", planes[:1, :, :320, :400], "Mouse 3, left hemisphere"),
        ("mouse 3/right", planes[1:2, :, 160:, 100:], "Mouse 3, right hemisphere"),
    ):
        write_dataset(root / name, np.ascontiguousarray(part), levels=2)
        write_record(root / name, title=title, tags=["light-sheet", "cleared"])
    cells = (planes[0] > np.percentile(planes[0], 98)) * (1 + np.arange(planes.shape[-1]) // 8)
    write_dataset(root / "mouse 3/cells", cells[np.newaxis].astype(np.uint32), volume_type="segmentation")
    write_record(root / "mouse 3/cells", title="Mouse 3, cells", tags=["labels"])
    shutil.rmtree(make_dataset(root / "mouse 4", title="Mouse 4") / "1_1_1")


def _annotate(served: Served) -> None:
    """Let two people confirm a part, and one save what looks like an accident."""
    place = f"{demo.TISSUE}/annotations"
    with Connection(served.server) as other:
        for author, last in (("alice", 30), ("bob", 45)):
            for number in range(8, last):
                body = b'{"reviewed": true, "where": {"slice": %d}}' % number
                other.request("POST", f"/~{author}/{place}/review", body)
        other.request("GET", f"/~carol/{place}/x0y0z0/z-0080.json")
        other.request("PUT", f"/~carol/{place}/x0y0z0/z-0080.json", b"[]")


def _take(url: str, directory: Path) -> None:
    with visit(_WIDTH, _HEIGHT) as seen:
        page = seen.page
        page.goto(url)
        expect(page.locator("li.card")).to_have_count(5)
        _keep(page, directory / "start.png")
        page.goto(f"{url}/datasets/{demo.TISSUE}")
        expect(page.locator("#preview")).to_be_visible()
        _keep(page, directory / "dataset.png")
        page.goto(f"{url}/~alice/datasets/{demo.TISSUE}/annotations")
        expect(page.locator("#edits tbody tr").first).to_be_visible()
        _keep(page, directory / "annotations.png")
        page.goto(f"{url}/~alice/datasets/{demo.TISSUE}/review")
        expect(page.locator("#annotations tbody tr button").first).to_be_visible()
        _keep(page, directory / "review.png")
        page.goto(f"{url}/neuroglancer/open/{demo.TISSUE}")
        page.wait_for_selector(PANEL)
        _keep(page, directory / "viewer.png")


def _keep(page: Page, path: Path) -> None:
    page.wait_for_timeout(_SETTLES_MS)
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
