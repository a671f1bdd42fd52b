"""Annotations over HTTP: one leaf read, replaced, and edited one annotation at a time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

import orjson
from aiohttp import web
from aiohttp.helpers import ETAG_ANY

from annotation_store.blocks import Blocks, Location
from annotation_store.edits import Change, DeleteOne, PutOne, ReplaceAll
from annotation_store.leaf import Snapshot
from annotation_store.model import check_id, parse_item, parse_items
from annotation_store.store import ANY_VERSION, AnnotationStore, Outcome
from annotation_store.web_commit import Committer, change_request, check_large, count_large
from precomputed_server.errors import (
    InvalidInput,
    NotFound,
    PrecomputedError,
    TooLarge,
    TooSlow,
    UnsupportedMediaType,
    WritesRefused,
)
from precomputed_server.files import Tree, typed
from precomputed_server.mounts import read_mounts, why_not_writable
from precomputed_server.readers.volumes import Volumes
from precomputed_server.settings import Settings
from precomputed_server.web.respond import NO_CACHE, quoted
from precomputed_server.web.routes import Session, Target
from precomputed_server.web.send import Described, send_bytes

_JSON = "application/json"
_ANONYMOUS = "anonymous"
Result = TypeVar("Result")

VERSION_HEADER = "Precomputed-Version"


class AnnotationService:
    """What the annotation handlers of one worker share."""

    def __init__(self, settings: Settings, tree: Tree, volumes: Volumes) -> None:
        self.settings = settings
        self._volumes = volumes
        self.store = AnnotationStore(tree, settings.lock_timeout)
        self.committer = Committer(settings, self.store)
        self.refusal: str | None = None

    def close(self) -> None:
        """Finish the commits that are under way."""
        self.committer.close()

    async def probe(self) -> None:
        """Find out whether edits are safe on this mount."""
        root, single = self.settings.root, self.settings.single_host
        mounts = await self.committer.thread(read_mounts, root)
        check = functools.partial(why_not_writable, root, single_host=single, mounts=mounts)
        self.refusal = await self.committer.thread(check)

    async def blocks(self, dataset: str) -> Blocks:
        """The blocks of the dataset at `dataset`; raises NotFound where there is none."""
        return await self.call(self._find_blocks, dataset)

    async def locate(self, target: Target) -> Location:
        """The leaf that a path names; raises NotFound, InvalidInput."""
        return await self.call(self._find_leaf, target.parts)

    async def snapshot(self, location: Location) -> Snapshot:
        """The leaf's newest bytes, known to be JSON; raises NotFound, Unreadable."""
        found = await self.call(self.store.load, location)
        if found is None:
            raise NotFound("There are no annotations in this file yet.")
        if self.store.is_good(found):
            return found
        if len(found.data) > self.settings.large_body:
            found = await self.committer.process(check_large, location)
            self.store.mark_good(found.etag)
            return found
        return await self.call(self.store.check, location)

    async def call(self, function: Callable[..., Result], *given: object) -> Result:
        """Call `function` in a thread for annotations; OSErrors become the project's errors."""
        try:
            return await self.committer.thread(function, *given)
        except OSError as error:
            raise typed(error, "The annotation file") from error

    def _find_blocks(self, dataset: str) -> Blocks:
        volume = self._volumes.at(dataset)
        if volume is None:
            raise NotFound(f"/{dataset} is not a dataset: it has no info file of a volume.")
        return self.store.blocks(dataset, volume.info.scales[0].bounds)

    def _find_leaf(self, parts: Mapping[str, str]) -> Location:
        directory = self._find_blocks(parts["dataset"]).directory(parts["block"])
        return self.store.locate(parts["dataset"], directory, parts["leaf"])


STORE = web.AppKey("annotations", AnnotationService)


async def get_blocks(request: web.Request, target: Target) -> web.StreamResponse:
    """The blocks of a dataset: index, voxel box, directory, leaves with the number of annotations in each."""
    service = request.app[STORE]
    blocks = await service.blocks(target.parts["dataset"])
    rows, large = await service.call(_block_rows, service, target.parts["dataset"], blocks)
    for row, location in large:
        with contextlib.suppress(PrecomputedError):
            row["count"] = await service.committer.process(count_large, location)
    size = None if blocks.size is None else list(blocks.size)
    return _json({"block_size": size, "blocks": rows})


def _block_rows(
    service: AnnotationService, dataset: str, blocks: Blocks
) -> tuple[list[dict[str, Any]], list[tuple[dict[str, Any], Location]]]:
    """A row for each block, and the rows and places of those leaves that are too large to be counted here."""
    store, rows, large = service.store, [], []
    for directory in sorted(blocks.existing):
        index, box = blocks.index(directory), blocks.box(directory)
        leaves = []
        for leaf, size in store.leaves(dataset, directory).items():
            row: dict[str, Any] = {"leaf": leaf, "count": None, "version": None}
            leaves.append(row)
            with contextlib.suppress(PrecomputedError, OSError):  # a damaged one is listed, without what is not known
                location = store.locate(dataset, directory, leaf)
                row["version"] = store.version(location)
                if size > service.settings.large_body:
                    large.append((row, location))
                else:
                    row["count"] = store.count(location)
        rows.append(
            {
                "directory": directory,
                "index": None if index is None else list(index),
                "start": list(box.start),
                "stop": list(box.stop),
                "leaves": leaves,
            }
        )
    return rows, large


async def get_leaf(request: web.Request, target: Target) -> web.StreamResponse:
    """The annotations of one leaf as they lie on disk."""
    service = request.app[STORE]
    snapshot = await service.snapshot(await service.locate(target))
    return await send_bytes(request, snapshot.data, Described(snapshot.etag, _JSON, NO_CACHE))


async def put_leaf(request: web.Request, target: Target) -> web.StreamResponse:
    """Replace a whole leaf; answers the file's name."""
    exact = _if_match(request) is not None
    async with _body(request) as body:
        parse = functools.partial(_replacement, body, exact)
        location, outcome = await _commit(request, target, parse, len(body))
    return _json({"filename": location.path}, _told(outcome))


async def patch_leaf(request: web.Request, target: Target) -> web.StreamResponse:
    """Replace the annotation `?id=`, or create it; answers the id."""
    id = request.query.get("id")
    if id is None:
        raise InvalidInput("Name the annotation to replace or create: ?id=….")
    check_id(id, "?id=")
    if request.content_type == "application/merge-patch+json":
        raise UnsupportedMediaType("Merge patches are not understood; send the whole annotation as JSON.")
    async with _body(request) as body:
        _, outcome = await _commit(request, target, functools.partial(_one, body, id), len(body))
    return _json(id, _told(outcome))


async def delete_leaf(request: web.Request, target: Target) -> web.StreamResponse:
    """Delete the annotation `?id=`; answers the id. Without an id nothing is done: a leaf is never deleted whole."""
    id = request.query.get("id")
    if id is None:
        await request.app[STORE].locate(target)
        return web.Response(status=204)
    _, outcome = await _commit(request, target, functools.partial(DeleteOne, id), 0)
    return _json(id, _told(outcome))


def _replacement(body: bytes, exact: bool) -> Change:
    return ReplaceAll(parse_items(body), exact)


def _one(body: bytes, id: str) -> Change:
    return PutOne(parse_item(body, id))


async def _commit(
    request: web.Request, target: Target, parse: Callable[[], Change], size: int
) -> tuple[Location, Outcome]:
    service = request.app[STORE]
    if service.refusal is not None:
        raise WritesRefused(f"This server takes no edits because {service.refusal}.")
    location = await service.locate(target)
    session = _session_name(request, target.session)
    author = target.session.name if target.session else _ANONYMOUS
    make = functools.partial(change_request, parse, author, session, _if_match(request))
    stored = await service.call(service.store.size, location)
    return location, await service.committer.commit(location, make, max(size, stored))


def _session_name(request: web.Request, session: Session | None) -> str:
    """Which page a save comes from: its prefix, else the peer."""
    if session is not None:
        return session.name
    peer = f"{request.remote or '-'} {request.headers.get('User-Agent', '-')}"[:200]
    return peer.encode(errors="replace").decode()  # a header may hold bytes that are no text


def _if_match(request: web.Request) -> tuple[str, ...] | None:
    tags = request.if_match
    if tags is None:
        return None
    return tuple(ANY_VERSION if tag.value == ETAG_ANY else tag.value for tag in tags if not tag.is_weak)


@contextlib.asynccontextmanager
async def _body(request: web.Request) -> AsyncIterator[bytes]:
    """The request's body; a large one holds one of a bounded number of places. Raises TooLarge, TooSlow, Busy."""
    service = request.app[STORE]
    limit, large = service.settings.max_body, service.settings.large_body
    with contextlib.ExitStack() as stack:
        read, has_place = bytearray(), False
        deadline = asyncio.get_running_loop().time() + service.settings.body_timeout
        while True:
            if max(request.content_length or 0, len(read)) > limit:
                raise TooLarge(f"The body has more than the {limit} bytes that one save may have (setting --max-body).")
            # Only what has arrived takes a place: a client that announces much and sends nothing takes none.
            if len(read) > large and not has_place:
                stack.enter_context(service.committer.bodies.one())
                has_place = True
            piece = await _piece(request, deadline)
            if not piece:
                break
            read += piece
        body = bytes(read)
        del read
        yield body


async def _piece(request: web.Request, deadline: float) -> bytes:
    """The next bytes of the body, none at its end; raises TooSlow after `deadline` of the loop's clock."""
    try:
        async with asyncio.timeout_at(deadline):
            return await request.content.readany()
    except TimeoutError as error:
        raise TooSlow("The body did not arrive in time (setting --body-timeout); send it again.") from error


def _told(outcome: Outcome) -> dict[str, str]:
    headers = {VERSION_HEADER: str(outcome.version)}
    if outcome.etag is not None:
        headers["ETag"] = quoted(outcome.etag)
    return headers


def _json(value: object, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=orjson.dumps(value), content_type=_JSON, headers={"Cache-Control": NO_CACHE, **(headers or {})}
    )
