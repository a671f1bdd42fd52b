"""Neuroglancer in headless Chromium, and its pixels read back as voxels."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from precomputed_server.format.viewer_state import viewer_fragment
from tests.conftest import component

FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
)
TIMEOUT_S = 30.0
STEP_MS = 100

GIVEN_UP = "net::ERR_ABORTED"
"""How the browser says that the page itself gave a request up, as the viewer does with chunks when a layer comes."""

SHADER = """
void main() {
  uint voxel = uint(toRaw(getDataValue(0)));
  emitRGB(vec3(float(voxel >> 8u) / 255.0, float(voxel & 255u) / 255.0, 1.0));
}
"""
"""Shows 16 bits exactly: red is the high byte, green the low one; blue says that there is a voxel at all."""

Value = TypeVar("Value")


@dataclass
class Visit:
    """A page and what happened while it was open: every URL that was asked for, and every complaint."""

    page: Page
    urls: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def hosts(self) -> set[str]:
        """The hosts that anything was asked of."""
        found = {urlsplit(url).hostname for url in self.urls if not url.startswith(("data:", "blob:"))}
        return {host or "" for host in found}

    def screenshot(self) -> NDArray[np.uint8]:
        """The window's pixels "(Y, X, 3)"."""
        return np.asarray(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB"))

    def until(self, look: Callable[[], Value], is_right: Callable[[Value], bool]) -> Value:
        """Look again and again until what is seen is right, or the time is over; what was seen last."""
        deadline = time.monotonic() + TIMEOUT_S
        while not is_right(seen := look()) and time.monotonic() < deadline:
            self.page.wait_for_timeout(STEP_MS)
        return seen

    def settled(self, is_right: Callable[[NDArray[np.uint8]], bool]) -> NDArray[np.uint8]:
        """The screenshot when it is right and the same twice."""
        before = [self.screenshot()]

        def is_settled(seen: NDArray[np.uint8]) -> bool:
            last, before[0] = before[0], seen
            return np.array_equal(last, seen) and is_right(seen)

        return self.until(self.screenshot, is_settled)


@contextlib.contextmanager
def visit(width: int, height: int) -> Iterator[Visit]:
    """An empty page of a browser of its own, `width` by `height` pixels."""
    chromium = component("chromium")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=chromium, args=FLAGS) as browser:
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(1000 * TIMEOUT_S)
        seen = Visit(page)
        page.on("request", lambda request: seen.urls.append(request.url))
        page.on("websocket", lambda socket: seen.urls.append(socket.url))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on(
            "requestfailed",
            lambda request: (
                seen.complaints.append(f"{request.url}: {request.failure}") if request.failure != GIVEN_UP else None
            ),
        )
        page.on("response", lambda answer: seen.complaints.append(answer.url) if answer.status >= 400 else None)
        page.on(
            "console",
            lambda message: (
                seen.complaints.append(f"{message.location.get('url')}: {message.text}")
                if message.type == "error"
                else None
            ),
        )
        yield seen


def slice_state(source: str, resolution_nm: list[float], position: list[float]) -> dict[str, Any]:
    """The viewer's state that shows one slice of `source`, a voxel a pixel, at `position` x, y, z in voxels."""
    return {
        "dimensions": {axis: [edge / 1e9, "m"] for axis, edge in zip("xyz", resolution_nm, strict=True)},
        "position": position,
        "crossSectionScale": 1,
        "layers": [{"type": "image", "name": "slice", "source": f"precomputed://{source}", "shader": SHADER}],
        "layout": "xy",
        "showAxisLines": False,
        "showScaleBar": False,
        "showDefaultAnnotations": False,
    }


def open_viewer(seen: Visit, server_url: str, state: dict[str, Any]) -> None:
    """Go to the viewer that the server carries, with `state` in the fragment, and wait for its panel."""
    seen.page.goto(f"{server_url}/neuroglancer/v/1/#{viewer_fragment(state)}")
    seen.page.wait_for_selector(PANEL)


PANEL = ".neuroglancer-rendered-data-panel"


def panel_box(page: Page) -> tuple[int, int, int, int]:
    """Left, top, width and height in pixels of what the first panel draws into."""
    left, top, width, height = page.locator(PANEL).first.evaluate(
        """element => {
            const outer = element.getBoundingClientRect();
            const corner = [outer.x + element.clientLeft, outer.y + element.clientTop];
            return [...corner, element.clientWidth, element.clientHeight];
        }"""
    )
    return int(left), int(top), int(width), int(height)
