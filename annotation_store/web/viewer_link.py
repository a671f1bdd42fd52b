"""The link that opens a dataset in Neuroglancer: its image, and the collections of annotations that it has now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiohttp import web

from annotation_store.views.collections import CONTOURS, CollectionName
from annotation_store.web.collections import COLLECTION_SERVICE
from precomputed_server.catalog.records import Dataset, describe
from precomputed_server.errors import MissingExtra, NotFound, PrecomputedError
from precomputed_server.format.names import COLLECTIONS, VIEWER_PATH
from precomputed_server.format.viewer_state import (
    COLOURS,
    AnnotationLayer,
    ViewerLayer,
    viewer_fragment,
    viewer_state,
)
from precomputed_server.readers.volumes import Volume
from precomputed_server.web.pages import source_of, way_home
from precomputed_server.web.respond import NO_CACHE
from precomputed_server.web.state import STATE, State
from precomputed_server.web.targets import Target

_COLOURS: Mapping[str, str] = {"fibers": COLOURS[2], "centroids": COLOURS[1], CONTOURS: COLOURS[3]}
_OTHER = COLOURS[0]


async def get_open(request: web.Request, target: Target) -> web.StreamResponse:
    """The way to the viewer, with the state that shows the dataset in the link."""
    state = request.app[STATE]
    if state.viewer is None:
        raise MissingExtra(
            "The viewer is not installed here; install it with pip install 'precomputed-server[viewer]'."
        )
    path = target.parts["dataset"]
    volume = await state.near(state.volumes.at, path)
    if volume is None:
        raise NotFound(f"/{path} is not a dataset: it has no info file of a volume.")
    dataset = await state.far(_described, state, volume)
    source = source_of(path, f"{request.scheme}://{request.host}")
    image = ViewerLayer(dataset.title, source, volume.info, dataset.contrast, dataset.channels)
    annotations = [layer_of(name, source) for name in await _names(request, volume)]
    fragment = viewer_fragment(viewer_state([image], annotations=annotations))
    headers = {"Location": f"{way_home(request)}{VIEWER_PATH}#{fragment}", "Cache-Control": NO_CACHE}
    return web.Response(status=302, headers=headers)


def layer_of(name: CollectionName, source: str) -> AnnotationLayer:
    """The layer of a collection of the dataset at the URL `source`."""
    return AnnotationLayer(str(name), f"{source}/{COLLECTIONS}/{name}", _COLOURS.get(name.kind, _OTHER))


async def _names(request: web.Request, volume: Volume) -> Sequence[CollectionName]:
    try:
        return (await request.app[COLLECTION_SERVICE].current(volume.path, volume.info)).names()
    except PrecomputedError:  # the image can be looked at all the same
        return ()


def _described(state: State, volume: Volume) -> Dataset:
    return describe(state.tree, volume)
