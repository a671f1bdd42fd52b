"""Links that open datasets in Neuroglancer: their image, and the collections of annotations that they have now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web

from annotation_store.views.collections import CONTOURS, CollectionName
from annotation_store.web.collections import COLLECTION_SERVICE
from precomputed_server.catalog.records import Dataset, shown_layers
from precomputed_server.errors import InvalidInput, MissingExtra, PrecomputedError
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
from precomputed_server.web.pictures import PICTURES
from precomputed_server.web.respond import NO_CACHE, check_query, json_answer, origin_of
from precomputed_server.web.state import STATE
from precomputed_server.web.targets import Target, dataset_path
from precomputed_server.web.viewer_place import viewer_place

_COLOURS: Mapping[str, str] = {"fibers": COLOURS[2], "centroids": COLOURS[1], CONTOURS: COLOURS[3]}
_OTHER = COLOURS[0]
_MOST_DATASETS = 100


async def get_open(request: web.Request, target: Target) -> web.StreamResponse:
    """The way to the viewer, with the state that shows the dataset in the link."""
    viewer = viewer_place(request)
    if viewer.url is None:
        raise MissingExtra(f"The viewer is not installed here, and no other can be used: {viewer.reason}")
    fragment = viewer_fragment(await _state(request, [target.parts["dataset"]]))
    # Our own one is named from here: a proxy may have it under a prefix.
    place = viewer.url if request.app[STATE].viewer is None else f"{way_home(request)}{VIEWER_PATH}"
    return web.Response(status=302, headers={"Location": f"{place}#{fragment}", "Cache-Control": NO_CACHE})


async def get_dataset_link(request: web.Request, target: Target) -> web.StreamResponse:
    """The link that shows a dataset, and the state that is in it."""
    check_query(request)
    return await _link(request, [target.parts["dataset"]])


async def get_link(request: web.Request, target: Target) -> web.StreamResponse:
    """The link that shows all the datasets that the query names, and the state that is in it."""
    check_query(request, "dataset")
    paths = list(dict.fromkeys(map(dataset_path, request.query.getall("dataset", ()))))
    if not 1 <= len(paths) <= _MOST_DATASETS:
        raise InvalidInput(f"Name 1 to {_MOST_DATASETS} datasets: ?dataset=PATH&dataset=PATH.")
    return await _link(request, paths)


def layer_of(name: CollectionName, source: str) -> AnnotationLayer:
    """The layer of a collection of the dataset at the URL `source`."""
    return AnnotationLayer(str(name), f"{source}/{COLLECTIONS}/{name}", _COLOURS.get(name.kind, _OTHER))


async def _link(request: web.Request, paths: Sequence[str]) -> web.StreamResponse:
    state = await _state(request, paths)
    viewer = viewer_place(request)
    url = None if viewer.url is None else f"{viewer.url}#{viewer_fragment(state)}"
    return json_answer({"url": url, "state": state, "reason": viewer.reason})


async def _state(request: web.Request, paths: Sequence[str]) -> dict[str, Any]:
    """The viewer state that shows these datasets one over another; raises NotFound, Unreadable."""
    images: list[ViewerLayer] = []
    annotations: list[AnnotationLayer] = []
    for path in paths:
        for dataset in await _layers(request, path, qualified=len(paths) > 1):
            source = source_of(dataset.path, origin_of(request))
            images.append(ViewerLayer(dataset.title, source, dataset.volume.info, dataset.contrast, dataset.channels))
            for name in await _names(request, dataset.volume):
                layer = layer_of(name, source)
                annotations.append(replace(layer, name=f"{dataset.title} {name}") if len(paths) > 1 else layer)
    return viewer_state(images, annotations=annotations)


async def _layers(request: web.Request, path: str, *, qualified: bool) -> list[Dataset]:
    """The layers of a dataset, with contrast; `qualified` puts its name before theirs where it has several."""
    state = request.app[STATE]
    found = await state.far(shown_layers, state.tree, state.volumes, path)
    layers = [await request.app[PICTURES].with_contrast(dataset) for dataset in found]
    if qualified and len(layers) > 1:
        name = path.rpartition("/")[2]
        return [replace(layer, title=f"{name} {layer.title}") for layer in layers]
    return layers


async def _names(request: web.Request, volume: Volume) -> Sequence[CollectionName]:
    try:
        return (await request.app[COLLECTION_SERVICE].current(volume.path, volume.info)).names()
    except PrecomputedError:  # the image can be looked at all the same
        return ()
