"""The page on which people look at annotations one after the other and confirm them."""

from __future__ import annotations

from urllib.parse import quote

import orjson
from aiohttp import web

from annotation_store.model import GEOMETRY
from precomputed_server.catalog.records import Dataset, describe
from precomputed_server.errors import NotFound
from precomputed_server.format.names import VIEWER_PATH
from precomputed_server.format.viewer_state import ViewerLayer, looking_closely, viewer_state
from precomputed_server.web.addresses import page_url
from precomputed_server.web.pages import page_of, way_home
from precomputed_server.web.state import STATE
from precomputed_server.web.targets import Target, tree_url

_MARKER = "to review"


async def get_review_page(request: web.Request, target: Target) -> web.StreamResponse:
    """The page of one dataset; its script asks for what it shows and sends what is confirmed."""
    state = request.app[STATE]
    path = target.parts["dataset"]
    volume = await state.near(state.volumes.at, path)
    if volume is None:
        raise NotFound(f"/{path} is not a dataset: it has no info file of a volume.")
    dataset = await state.far(describe, state.tree, volume)
    home, session = way_home(request), target.session
    place = tree_url(path)
    author = f"~{quote(session.name)}/" if session is not None else ""
    return await page_of(
        request,
        "review.html",
        title=dataset.title,
        home=home,
        datasets=f"{home}{author}",
        dataset=f"{home}{author}{page_url(path)}",
        annotations=f"{home}{author}{page_url(path).removesuffix('/')}/annotations",
        shapes=tuple(GEOMETRY),
        author="" if session is None else session.name,
        api=f"{home}{author}{place + '/' if place else ''}annotations/",
        here=f"datasets/{place}/review" if place else "datasets/review",
        viewer=f"{home}{VIEWER_PATH}" if state.viewer is not None else "",
        state=_state_of(dataset),
    )


def _state_of(dataset: Dataset) -> str:
    """The viewer's state as JSON; the script puts the URL of this server before the sources, which a proxy may move."""
    layer = ViewerLayer(dataset.title, tree_url(dataset.path), dataset.volume.info, dataset.contrast, dataset.channels)
    return orjson.dumps(looking_closely(viewer_state([layer]), _MARKER)).decode()
