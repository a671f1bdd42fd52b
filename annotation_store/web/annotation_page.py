"""The page of a dataset's annotations: how far they are, who edits, undo, and what waits to be applied or discarded."""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web

from precomputed_server.catalog.records import describe
from precomputed_server.errors import NotFound
from precomputed_server.web.addresses import page_url
from precomputed_server.web.pages import page_of, way_home
from precomputed_server.web.state import STATE
from precomputed_server.web.targets import Target, tree_url


async def get_annotation_page(request: web.Request, target: Target) -> web.StreamResponse:
    """The page; its script asks for what it shows."""
    state = request.app[STATE]
    path = target.parts["dataset"]
    volume = await state.near(state.volumes.at, path)
    if volume is None:
        raise NotFound(f"/{path} is not a dataset: it has no info file of a volume.")
    dataset = await state.far(describe, state.tree, volume)
    home, place, session = way_home(request), tree_url(path), target.session
    base = home if session is None else f"{home}~{quote(session.name)}/"
    return await page_of(
        request,
        "annotations.html",
        title=dataset.title,
        home=home,
        datasets=base,
        dataset=f"{base}{page_url(path)}",
        review=f"{base}datasets/{place}/review" if place else f"{base}datasets/review",
        here=f"datasets/{place}/annotations" if place else "datasets/annotations",
        api=f"{base}{place + '/' if place else ''}annotations/",
        author="" if session is None else session.name,
    )
