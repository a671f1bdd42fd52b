"""The application of one worker: the handler of each route, CORS on every answer, errors as problem documents."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Mapping
from contextvars import ContextVar
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from annotation_store.web import (
    annotation_page,
    collections,
    edits,
    events,
    exchange,
    leaf,
    parked,
    progress,
    review,
    review_page,
    versions,
    viewer_link,
)
from annotation_store.web.collections import COLLECTION_SERVICE, CollectionService
from annotation_store.web.interface import ANNOTATIONS
from annotation_store.web.service import STORE, AnnotationService
from precomputed_server.errors import MethodNotAllowed, PrecomputedError
from precomputed_server.settings import Settings
from precomputed_server.stack_keeper import open_stacks
from precomputed_server.web import (
    cutout,
    dataset_page,
    datasets,
    describing,
    gallery,
    openapi,
    pictures,
    states,
    tiles,
    viewer,
)
from precomputed_server.web.boxes import Boxes
from precomputed_server.web.datasets import TargetHandler
from precomputed_server.web.express import Runner
from precomputed_server.web.interface.catalog import CATALOG
from precomputed_server.web.interface.pages import PAGES
from precomputed_server.web.interface.tiles import TILES
from precomputed_server.web.respond import COMMON_HEADERS, problem, problem_of
from precomputed_server.web.routes import (
    ACTIVITY,
    ANNOTATION_PAGE,
    API,
    BLOCKS,
    CHUNK,
    COLLECTION,
    COLLECTIONS,
    CUTOUT,
    DATASET,
    DATASET_HISTOGRAM,
    DATASET_LINK,
    DATASET_PAGE,
    DATASET_PREVIEW,
    DATASET_PROGRESS,
    DATASET_THUMBNAIL,
    DATASETS,
    EDITS,
    EVENTS,
    EXPORT,
    HEALTH,
    HISTORY,
    ICON,
    ID64,
    IMPORT,
    INDEX,
    LEAF,
    LINK,
    OPEN,
    OPENAPI,
    PARKED,
    PARKED_END,
    PARKED_SAVE,
    PROGRESS,
    RESTORE,
    REVIEW,
    REVIEW_PAGE,
    SAVED_STATE,
    SAVES,
    STATES,
    STATIC,
    TREE,
    VIEWER,
    VIEWER_STATE,
    Route,
)
from precomputed_server.web.state import STATE, State
from precomputed_server.web.targets import Target, parse_target

logger = logging.getLogger("precomputed_server")

SECTIONS = (CATALOG, TILES, ANNOTATIONS, PAGES)
"""What the interface's description is made of."""

_PREFLIGHT_SECONDS = "3600"
_begun: ContextVar[web.StreamResponse | None] = ContextVar("begun", default=None)
"""The response to the request at hand, once something of it was sent."""


async def _health(request: web.Request, target: Target) -> web.StreamResponse:
    return web.Response(text="ok\n", headers={"Cache-Control": "no-store"})


READERS: Mapping[Route, TargetHandler] = {
    INDEX: gallery.index,
    API: viewer.get_api,
    OPENAPI: openapi.get_description,
    DATASETS: datasets.get_datasets,
    DATASET: datasets.get_dataset,
    DATASET_HISTOGRAM: datasets.unless_dataset(pictures.get_histogram),
    DATASET_THUMBNAIL: datasets.unless_dataset(pictures.get_thumbnail),
    DATASET_PREVIEW: datasets.unless_dataset(pictures.get_preview),
    DATASET_LINK: datasets.unless_dataset(viewer_link.get_dataset_link),
    DATASET_PROGRESS: datasets.unless_dataset(progress.get_progress),
    LINK: viewer_link.get_link,
    SAVED_STATE: states.get_saved_state,
    VIEWER: viewer.get_viewer,
    OPEN: viewer_link.get_open,
    STATIC: viewer.get_static,
    ICON: viewer.get_icon,
    HEALTH: _health,
    BLOCKS: leaf.get_blocks,
    LEAF: leaf.get_leaf,
    EVENTS: events.get_events,
    HISTORY: versions.get_history,
    ACTIVITY: versions.get_activity,
    PARKED: parked.get_parked,
    PARKED_SAVE: parked.get_parked_body,
    SAVES: parked.get_saves,
    ID64: collections.get_id64,
    COLLECTIONS: collections.get_collections,
    COLLECTION: collections.get_collection,
    EXPORT: exchange.get_export,
    VIEWER_STATE: exchange.get_state,
    PROGRESS: progress.get_progress,
    REVIEW: progress.get_review,
    DATASET_PAGE: dataset_page.get_dataset_page,
    REVIEW_PAGE: review_page.get_review_page,
    ANNOTATION_PAGE: annotation_page.get_annotation_page,
    CHUNK: tiles.get_chunk,
    CUTOUT: cutout.get_cutout,
    TREE: tiles.get_file,
}
WRITERS: Mapping[tuple[Route, str], TargetHandler] = {
    (DATASET, "PATCH"): describing.patch_dataset,
    (STATES, "POST"): states.post_states,
    (LEAF, "PUT"): leaf.put_leaf,
    (LEAF, "PATCH"): leaf.patch_leaf,
    (LEAF, "POST"): leaf.post_leaf,
    (LEAF, "DELETE"): leaf.delete_leaf,
    (RESTORE, "POST"): versions.post_restore,
    (EDITS, "POST"): edits.post_edits,
    (IMPORT, "POST"): exchange.post_import,
    (PARKED_END, "POST"): parked.post_parked,
    (REVIEW, "POST"): review.post_review,
}


async def dispatch(request: web.Request) -> web.StreamResponse:
    """Find the handler of a request by the table of routes."""
    target = parse_target(_raw_path(request))
    if request.method == "OPTIONS":
        return _options(request, target.route)
    if request.method not in target.route.methods:
        raise MethodNotAllowed(request.method, target.route.methods)
    handler = WRITERS.get((target.route, request.method)) or READERS[target.route]
    return await handler(request, target)


def _raw_path(request: web.Request) -> str:
    """The path as the request line spells it, without the query, and without scheme and host where it has them."""
    path = request.raw_path.partition("?")[0]
    if not path.startswith("/"):
        path = "/" + path.partition("://")[2].partition("/")[2]
    return path


def _options(request: web.Request, route: Route) -> web.Response:
    methods = ", ".join((*route.methods, "OPTIONS"))
    return web.Response(
        status=204,
        headers={
            "Allow": methods,
            "Access-Control-Allow-Methods": methods,
            "Access-Control-Allow-Headers": request.headers.get("Access-Control-Request-Headers", "*"),
            "Access-Control-Max-Age": _PREFLIGHT_SECONDS,
        },
    )


@web.middleware
async def _errors_as_problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    _begun.set(None)  # the requests of one connection share a context
    try:
        return await handler(request)
    except PrecomputedError as error:
        answer = problem_of(error)
    except web.HTTPException as error:
        answer = problem(error.status, f"{error.reason}.", {"Cache-Control": "no-cache"})
    except (ConnectionError, TimeoutError):
        if request.transport is None or request.transport.is_closing():
            return web.Response()  # the client went away: nobody is told, and it is no error
        raise
    except Exception:  # the worker boundary: one request's defect is told and logged, and no other request's
        logger.exception("%s failed", request.method)
        answer = problem(500, "The server failed; its log says why.")
    begun = _begun.get()
    return answer if begun is None else _cut_short(request, begun)


def _cut_short(request: web.Request, begun: web.StreamResponse) -> web.StreamResponse:
    """End the connection under an answer that has begun: what follows would be taken for a part of it."""
    logger.warning("%s %s ended before its answer was whole", request.method, request.path)
    if request.transport is not None:
        request.transport.abort()
    return begun


async def _add_common_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in COMMON_HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = COMMON_HEADERS["Server"]  # aiohttp has set its own
    _begun.set(response)


async def _lifetime(app: web.Application) -> AsyncIterator[None]:
    yield
    await app[COLLECTION_SERVICE].close()
    await app[STORE].close()
    await asyncio.to_thread(app[pictures.PICTURES].close)
    await asyncio.to_thread(app[states.STATE_SERVICE].close)
    await asyncio.to_thread(app[describing.RECORD_WRITER].close)
    await asyncio.to_thread(app[STATE].close)


async def _probe_mount(app: web.Application) -> None:
    service = app[STORE]
    await service.probe()
    if service.refusal is not None:
        logger.warning("annotations are read-only because %s", service.refusal)


async def _stop_streams(app: web.Application) -> None:
    app[STATE].stopping.set()
    app[STORE].feeds.stop()


def create_app(settings: Settings, *, writer_apart: bool = False) -> web.Application:
    """The application that serves `settings.root`; with `writer_apart`, another process commits edits.

    Raises NotFound when the root is no directory, InvalidInput when the state directory cannot be used.
    """
    app = web.Application(middlewares=[_errors_as_problems], client_max_size=settings.max_body)
    state = State(settings, viewer.open_client(), functools.partial(open_stacks, settings))
    app[STATE] = state
    app[openapi.DESCRIPTIONS] = openapi.described(SECTIONS)
    app[cutout.BOXES] = Boxes(settings)
    app[STORE] = AnnotationService(settings, state.tree, state.volumes, remote=writer_apart)
    app[COLLECTION_SERVICE] = CollectionService(settings, app[STORE])
    app[progress.PROGRESS] = progress.ProgressService(settings, app[STORE])
    app[pictures.PICTURES] = pictures.Pictures(settings, state)
    app[states.STATE_SERVICE] = states.StateService(settings)
    app[describing.RECORD_WRITER] = describing.RecordWriter(settings, state)
    app.router.add_route("*", r"/{path:[\s\S]*}", dispatch)
    app.on_startup.append(_probe_mount)
    app.on_response_prepare.append(_add_common_headers)
    app.on_shutdown.append(_stop_streams)
    app.cleanup_ctx.append(_lifetime)
    return app


def create_runner(app: web.Application, **given: Any) -> web.AppRunner:
    """What runs the application: aiohttp's runner, with the short way for chunks before it; `given` as there."""
    return Runner(app, access_log=None, **given)
