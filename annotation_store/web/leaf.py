"""Annotations over HTTP: one leaf read, replaced, and edited one annotation at a time."""

from __future__ import annotations

import contextlib
import secrets
from typing import Any

from aiohttp import web

from annotation_store.blocks import Blocks, Location
from annotation_store.orders import Kind, Outcome, Part
from annotation_store.web.large import count_large
from annotation_store.web.refused import PutBody
from annotation_store.web.request import JSON, Arrival, id_of, if_match_of, page_of, told, whole_number
from annotation_store.web.service import STORE, AnnotationService, Place
from annotation_store.web.versions import get_version
from precomputed_server.errors import PrecomputedError
from precomputed_server.web.body import body_of
from precomputed_server.web.respond import NO_CACHE, json_answer
from precomputed_server.web.send import Described, send_bytes
from precomputed_server.web.targets import Target

_MERGE_PATCH = "application/merge-patch+json"


async def get_leaf(request: web.Request, target: Target) -> web.StreamResponse:
    """The annotations of one leaf as they lie on disk, or as they were in a `version` or `at` an instant."""
    service = request.app[STORE]
    place = await service.place(target)
    if "version" in request.query or "at" in request.query:
        return await get_version(request, place)
    page = page_of(request, target.session) if request.method == "GET" else None
    try:
        snapshot = await service.snapshot(place.location)
    except PrecomputedError:
        if page is not None:  # a page takes an error for emptiness
            service.store.journal.note_read(page, place.location.path, None)
        raise
    if page is not None:
        service.store.journal.note_read(page, place.location.path, snapshot.etag)
    return await send_bytes(request, snapshot.data, Described(snapshot.etag, JSON, NO_CACHE))


async def put_leaf(request: web.Request, target: Target) -> web.StreamResponse:
    """Save a whole leaf; answers the file's name. The body of a save that is refused is kept."""
    arrival = Arrival(request, target)
    put = PutBody(request, target, arrival)
    try:
        async with put.read() as body:
            part = Part("", "put", None, if_match_of(request), body=body)
            place, outcome = await _edit(request, target, arrival, part)
    except PrecomputedError as error:
        return await put.refused(error)
    return json_answer({"filename": place.location.path}, told(outcome))


async def patch_leaf(request: web.Request, target: Target) -> web.StreamResponse:
    """Replace the annotation `?id=`, or create it; a merge patch changes fields of one. Answers the id."""
    arrival = Arrival(request, target)
    id = id_of(request, "to replace or create")
    kind: Kind = "merge" if request.content_type == _MERGE_PATCH else "patch"
    service = request.app[STORE]
    async with body_of(request, service.settings, service.bodies) as body:
        part = Part("", kind, id, if_match_of(request), body=body)
        _, outcome = await _edit(request, target, arrival, part)
    return json_answer(id, told(outcome))


async def post_leaf(request: web.Request, target: Target) -> web.StreamResponse:
    """Create an annotation, under an id of the server's unless the body brings one; answers the id."""
    arrival = Arrival(request, target)
    service = request.app[STORE]
    async with body_of(request, service.settings, service.bodies) as body:
        part = Part("", "add", secrets.token_hex(20), if_match_of(request), body=body)
        _, outcome = await _edit(request, target, arrival, part)
    return json_answer(outcome.id, told(outcome), status=201)


async def delete_leaf(request: web.Request, target: Target) -> web.StreamResponse:
    """Delete the annotation `?id=`, if it is what it was in the version `?seen=`; answers the id.

    Without an id nothing is done: a leaf is never deleted whole.
    """
    if request.query.get("id") is None:
        await request.app[STORE].place(target)
        return web.Response(status=204)
    arrival = Arrival(request, target)
    id = id_of(request, "to delete")
    part = Part("", "delete", id, if_match_of(request), seen=whole_number(request, "seen", None))
    _, outcome = await _edit(request, target, arrival, part)
    return json_answer(id, told(outcome))


async def _edit(request: web.Request, target: Target, arrival: Arrival, part: Part) -> tuple[Place, Outcome]:
    """Carry out one part of an order on the leaf that the path names."""
    service = request.app[STORE]
    place = await service.place(target)
    order = arrival.order(place, (part.of(place.location.leaf),), part.body)
    return place, (await service.commit(order, place.size))[0]


async def get_blocks(request: web.Request, target: Target) -> web.StreamResponse:
    """The blocks of a dataset: index, voxel box, directory, leaves with the number of annotations in each."""
    service = request.app[STORE]
    blocks = await service.blocks(target.parts["dataset"])
    rows, large = await service.call(_block_rows, service, target.parts["dataset"], blocks)
    for row, location in large:
        with contextlib.suppress(PrecomputedError):
            row["count"] = await service.large.call(count_large, location)
    size = None if blocks.size is None else list(blocks.size)
    return json_answer({"block_size": size, "blocks": rows})


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
