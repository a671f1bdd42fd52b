"""The annotations over HTTP as Neuroglancer's precomputed collections, always of the newest version of every leaf."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar
from urllib.parse import quote
from weakref import WeakKeyDictionary

from aiohttp import web

from annotation_store.blocks import Location
from annotation_store.views.collection import INFO, Collection
from annotation_store.views.collections import CollectionName
from annotation_store.views.dataset import DatasetView
from annotation_store.views.kept import KeptViews
from annotation_store.views.leaf_rows import parsed_lines
from annotation_store.views.numbers import parse_number
from annotation_store.web.gatherer import within
from annotation_store.web.large import lines_large
from annotation_store.web.request import JSON
from annotation_store.web.service import AnnotationService
from precomputed_server.errors import Busy, NotFound
from precomputed_server.files import Entry, Tree, join, typed
from precomputed_server.format.info import VolumeInfo
from precomputed_server.format.names import COLLECTIONS
from precomputed_server.settings import Settings
from precomputed_server.web import pages, tiles
from precomputed_server.web.respond import json_answer
from precomputed_server.web.send import Described, send_bytes
from precomputed_server.web.state import STATE
from precomputed_server.web.targets import Target

Result = TypeVar("Result")

_THREADS = 4
_PARSED_HERE = 1 << 20
"""Bytes of a file of one line up to which a thread parses it: the interpreter is held for 10 ms."""
_BINARY = "application/octet-stream"
_WAIT_S = 120.0


class _Turn:
    """Refreshes of one view: one at a time, and the one that has not begun yet."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting: asyncio.Task[None] | None = None


class CollectionService:
    """The views of one worker."""

    def __init__(self, settings: Settings, annotations: AnnotationService) -> None:
        self._annotations = annotations
        self._views = KeptViews(annotations.store, settings.view_memory, self._parse_whole)
        self._threads = ThreadPoolExecutor(_THREADS, "collections")
        self._turns: WeakKeyDictionary[DatasetView, _Turn] = WeakKeyDictionary()
        self._loop: asyncio.AbstractEventLoop | None = None

    def kept(self) -> list[str]:
        """The datasets of which something is kept, the one asked for last at the end."""
        return self._views.kept()

    async def close(self) -> None:
        """Stop the threads."""
        await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    async def current(self, dataset: str, volume: VolumeInfo) -> DatasetView:
        """The view of a dataset with every edit that was acknowledged before it was asked for."""
        self._loop = asyncio.get_running_loop()
        view = self._views.of(dataset, volume)
        turn = self._turns.setdefault(view, _Turn())
        if turn.waiting is None:
            turn.waiting = asyncio.create_task(self._refresh(turn, view))
        await asyncio.shield(turn.waiting)
        return view

    async def call(self, function: Callable[..., Result], *given: object) -> Result:
        """Call `function` in a thread for collections; OSErrors become the project's."""
        try:
            return await within(self._threads, function, *given)
        except OSError as error:
            raise typed(error, "The annotation file") from error

    async def _refresh(self, turn: _Turn, view: DatasetView) -> None:
        async with turn.lock:
            turn.waiting = None  # who comes now may know of an edit that this one does not see any more
            await self.call(self._refresh_here, view)

    def _refresh_here(self, view: DatasetView) -> None:
        view.refresh()
        self._views.shrink()

    def _parse_whole(self, location: Location, size: int) -> list[bytes]:
        """A leaf that another tool wrote: a large one is parsed in a process of its own."""
        if size <= _PARSED_HERE or self._loop is None:
            return parsed_lines(self._annotations.store.check(location).data)
        parsing = asyncio.run_coroutine_threadsafe(self._annotations.large.call(lines_large, location), self._loop)
        try:
            return parsing.result(_WAIT_S)
        except TimeoutError as error:
            raise Busy("Parsing a large annotation file takes too long; try again.") from error


COLLECTION_SERVICE = web.AppKey("collections", CollectionService)


async def get_collections(request: web.Request, target: Target) -> web.StreamResponse:
    """The listing of the collections that exist, and of what else lies there."""
    view = await _view(request, target)
    if view is None:
        return await tiles.get_file(request, target)
    if not target.directory:
        return _with_slash(target)
    stored = await request.app[STATE].far(_listed, request.app[STATE].tree, target.path)
    names = {str(name) for name in view.names()} | {entry.name for entry in stored if entry.is_directory}
    files = [entry for entry in stored if not entry.is_directory]
    return await pages.listing_of(request, target, [Entry(name, True, 0) for name in sorted(names)] + files)


async def get_collection(request: web.Request, target: Target) -> web.StreamResponse:
    """A file of a collection; of one that lies there on disk, what lies there."""
    state, parts = request.app[STATE], target.parts
    name = CollectionName.parse(parts["collection"])
    place = f"{join(parts['dataset'], COLLECTIONS)}/{parts['collection']}"
    if name is None or await state.near(_lies_there, state.tree, place):
        return await tiles.get_file(request, target)
    view = await _view(request, target)
    collection = None if view is None else view.collection(name)
    if collection is None:
        return await tiles.get_file(request, target)
    if parts["file"] == "":
        return await _listing_of(request, target, collection)
    volume = await _volume(request, target)
    if volume is None or target.directory:
        raise _no_such_file()
    in_voxels = target.session is not None and target.session.voxel_view
    resolution_nm = (volume.in_voxels() if in_voxels else volume).scales[0].resolution_nm
    found = await request.app[COLLECTION_SERVICE].call(collection.answer, parts["file"], resolution_nm)
    if found is None:
        raise _no_such_file()
    return await send_bytes(request, found.data, Described(found.etag, JSON if parts["file"] == INFO else _BINARY))


def _no_such_file() -> NotFound:
    return NotFound("The collection has no such file; its info says which there are.")


async def _listing_of(request: web.Request, target: Target, collection: Collection) -> web.StreamResponse:
    if not target.directory:
        return _with_slash(target)
    directories = await request.app[COLLECTION_SERVICE].call(collection.directories)
    return await pages.listing_of(
        request, target, [Entry(INFO, False, 0), *(Entry(each, True, 0) for each in directories)]
    )


async def get_id64(request: web.Request, target: Target) -> web.StreamResponse:
    """The annotation of a number of Neuroglancer's."""
    view = await _view(request, target)
    if view is None:
        raise NotFound(f"/{target.parts['dataset']} is not a dataset: it has no info file of a volume.")
    number = parse_number(target.parts["n"])
    found = None if number is None else await request.app[COLLECTION_SERVICE].call(view.find, number)
    if found is None:
        raise NotFound("No annotation of this dataset has that number now.")
    return json_answer({"id64": str(number), **found.to_json()})


async def _view(request: web.Request, target: Target) -> DatasetView | None:
    """The view of the dataset that the path names, None where that is no volume."""
    volume = await _volume(request, target)
    if volume is None:
        return None
    return await request.app[COLLECTION_SERVICE].current(target.parts["dataset"], volume)


async def _volume(request: web.Request, target: Target) -> VolumeInfo | None:
    state = request.app[STATE]
    volume = await state.near(state.volumes.at, target.parts["dataset"])
    return None if volume is None else volume.info


def _with_slash(target: Target) -> web.Response:
    return web.Response(status=308, headers={"Location": quote(target.path.rpartition("/")[2]) + "/"})


def _lies_there(tree: Tree, path: str, *, cached: bool = False) -> bool:
    """Whether a directory of that path is on disk: somebody put it there, and it is served as it lies."""
    try:
        os.close(tree.open(path, os.O_PATH | os.O_DIRECTORY, cached=cached))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _listed(tree: Tree, path: str) -> list[Entry]:
    try:
        return tree.listing(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
