"""Saves that were not applied, over HTTP: parked removals, refused bodies, and what became of a page's last saves."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from annotation_store.model import serialize
from annotation_store.orders import Kind, Part
from annotation_store.web.request import JSON, Arrival, page_of, told
from annotation_store.web.service import STORE, Place
from precomputed_server.errors import NotFound
from precomputed_server.web.respond import NO_CACHE, json_answer
from precomputed_server.web.targets import Target


async def get_parked(request: web.Request, target: Target) -> web.StreamResponse:
    """What of a dataset's saves waits for somebody to apply or to discard it, newest first."""
    service = request.app[STORE]
    dataset = target.parts["dataset"]
    await service.blocks(dataset)
    rows = await service.call(service.store.parked, dataset)
    refused = await service.call(service.refused.list, dataset)
    listed = [row.to_json() for row in rows] + [_refused_row(meta) for meta in refused]
    listed.sort(key=lambda row: str(row["time"]), reverse=True)
    return json_answer({"parked": listed})


def _refused_row(meta: dict[str, Any]) -> dict[str, Any]:
    names = ("id", "block", "leaf", "time", "author", "session", "reason", "status", "complete")
    return {name: meta[name] for name in names if name in meta} | {"remove": []}


async def get_parked_body(request: web.Request, target: Target) -> web.StreamResponse:
    """The body of a save that was not applied, as the page sent it."""
    service = request.app[STORE]
    dataset, id = target.parts["dataset"], target.parts["id"]
    headers = {"Cache-Control": NO_CACHE, "Content-Disposition": f"attachment; filename={id}.json"}
    found = await service.call(service.store.find_parked, dataset, id)
    if found is not None:
        body = serialize(await service.call(service.store.parked_body, found))
        return web.Response(body=body, content_type=JSON, headers=headers)
    pieces = service.refused.pieces(id, dataset)
    piece = await service.call(next, pieces, b"")
    response = web.StreamResponse(headers={**headers, "Content-Type": JSON})
    await response.prepare(request)
    while piece:  # a small file on disk may be a large body
        await response.write(piece)
        piece = await service.call(next, pieces, b"")
    await response.write_eof()
    return response


async def post_parked(request: web.Request, target: Target) -> web.StreamResponse:
    """Apply what was parked, or discard it."""
    arrival = Arrival(request, target)
    service = request.app[STORE]
    dataset, id, how = (target.parts[name] for name in ("dataset", "id", "how"))
    kind: Kind = "apply" if how == "apply" else "discard"
    found = await service.call(service.store.find_parked, dataset, id)
    if found is None:
        return await _refused(arrival, target, kind)
    size = await service.call(service.store.size, found.location)
    place = Place(dataset, "", found.location, (1.0, 1.0, 1.0), size)
    part = Part(found.location.leaf, kind, id)
    outcome = (await service.commit(arrival.order(place, (part,)), place.size))[0]
    row = {"id": id, "leaf": part.leaf, "version": outcome.version, "removed": outcome.edits}
    return json_answer(row, told(outcome))


async def _refused(arrival: Arrival, target: Target, kind: Kind) -> web.StreamResponse:
    """Apply a refused save as if its page sent it now, or discard it."""
    service = arrival.request.app[STORE]
    dataset, id = target.parts["dataset"], target.parts["id"]
    meta = await service.call(service.refused.find, id, dataset)
    if meta is None:
        raise NotFound("Nothing is parked under that id; it may have been applied or discarded.")
    headers: dict[str, str] = {}
    row = {"id": id, "leaf": meta["leaf"]}
    if kind == "apply":
        body = await service.call(service.refused.body, id, dataset)
        place = await service.place(target.of_leaf(meta["block"], meta["leaf"]))
        # Not as a save of its page, which holds something else by now: as one of whom nothing is known.
        order = arrival.order(place, (Part(place.location.leaf, "put", body=body),), body, page=f"refused {id}")
        outcome = (await service.commit(order, max(place.size, len(body))))[0]
        headers = told(outcome)
        row |= {} if outcome.parked is None else {"parked": outcome.parked}  # what it removes waits under that id now
    await service.call(service.refused.discard, id)
    return json_answer(row, headers)


async def get_saves(request: web.Request, target: Target) -> web.StreamResponse:
    """The last saves of the session that asks, newest first, each saved, merged, unchanged, parked or refused."""
    service = request.app[STORE]
    dataset = target.parts["dataset"]
    await service.blocks(dataset)
    page = page_of(request, target.session)
    saves = await service.call(service.store.journal.saves, page, dataset)
    return json_answer({"session": page if target.session else None, "saves": saves})
