"""Annotations in other formats over HTTP: exports, imports, and the state in which Neuroglancer edits them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

from aiohttp import web

from annotation_store.blocks import Location
from annotation_store.exchange.collect import Collection
from annotation_store.exchange.formats import NEUROGLANCER, WRITTEN, Format, format_named, format_of
from annotation_store.exchange.importing import Wishes
from annotation_store.exchange.plans import BlockStep
from annotation_store.exchange.report import Ended, Report, unchanged
from annotation_store.exchange.rows import Placed
from annotation_store.exchange.selection import Selection, read_selection
from annotation_store.exchange.swc import UM, VOXEL
from annotation_store.exchange.viewer_layers import annotation_layers
from annotation_store.exchange.viewer_reading import remote_state
from annotation_store.orders import EdgesNm
from annotation_store.web.pieces import sent_in_pieces
from annotation_store.web.planning import TOO_LONG, Asked, Planned, plan_import
from annotation_store.web.request import Arrival
from annotation_store.web.service import STORE, AnnotationService, Place
from annotation_store.web.versions import instant_of_query
from precomputed_server.catalog.records import describe
from precomputed_server.errors import Conflict, InvalidInput, NotFound, PrecomputedError, PreconditionFailed, TooLarge
from precomputed_server.files import Tree, join, read_at
from precomputed_server.format.names import ANNOTATIONS, VIEWER_PATH
from precomputed_server.format.viewer_state import ViewerLayer, viewer_state
from precomputed_server.readers.volumes import Volume
from precomputed_server.web.body import body_of
from precomputed_server.web.pages import source_of
from precomputed_server.web.pictures import PICTURES
from precomputed_server.web.respond import NO_CACHE, attachment, check_query, json_answer, origin_of, status_of
from precomputed_server.web.routes import TREE
from precomputed_server.web.state import STATE
from precomputed_server.web.targets import Target, parse_target, tree_url

_ATTEMPTS = 5
_MOST_NAMED = 20
_COUNTED_AT_ONCE = 1000
_LONGEST_LINK = 1 << 16
_CHOOSING = ("box", "type", "leaf", "author", "reviewed", "at")
_YES = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


async def get_export(request: web.Request, target: Target) -> web.StreamResponse:
    """The dataset's annotations as a file, or those that the query chooses; of one version of each leaf."""
    check_query(request, "format", "unit", *_CHOOSING)
    service = request.app[STORE]
    name = request.query.get("format", WRITTEN[0])
    format = format_named(name, WRITTEN)
    unit = request.query.get("unit", UM)
    if unit not in (UM, VOXEL):
        raise InvalidInput(f"unit={unit[:20]} must be {UM} or {VOXEL}.")
    volume, collection = await _collection(request, target)
    found = await service.export(collection.found)
    export = collection.export(found, _name_of(volume), _edges(volume), unit)
    headers = {
        "Content-Type": format.media_type,
        "Content-Disposition": attachment(_name_of(volume) + format.suffix),
        "Cache-Control": NO_CACHE,
        **_left_out(collection),
        **await _not_held(service, format, collection.annotations(found)),
    }
    if request.method == "HEAD" or format.write is None:
        return web.Response(headers=headers)
    return await sent_in_pieces(request, format.write(export), headers)


def _left_out(collection: Collection) -> dict[str, str]:
    """The header that names the damaged leaves, as block/leaf in percent encoding, which are not in the answer."""
    names = ", ".join(map(quote, collection.unreadable[:_MOST_NAMED]))
    return {"Annotations-Unreadable": names} if names else {}


async def _not_held(service: AnnotationService, format: Format, annotations: Iterator[Placed]) -> dict[str, str]:
    """The header that counts the annotations for which the format has no place; the header comes before the file."""
    if format.holds is None:
        return {}
    left = count = 0
    while part := await service.export(lambda: list(itertools.islice(annotations, _COUNTED_AT_ONCE))):
        count += len(part)
        left += sum(not format.holds(placed.item) for placed in part)
    return {"Annotations-Left-Out": f"{left} of {count}"} if left else {}


async def get_state(request: web.Request, target: Target) -> web.StreamResponse:
    """The Neuroglancer state that shows the dataset with its annotations in local layers, to be edited there."""
    check_query(request, *_CHOOSING)
    service = request.app[STORE]
    volume, collection = await _collection(request, target)
    known = await request.app[STATE].far(describe, request.app[STATE].tree, volume)
    dataset = await request.app[PICTURES].with_contrast(known)
    source = source_of(volume.path, origin_of(request))
    layer = ViewerLayer(dataset.title, source, volume.info, dataset.contrast, dataset.channels)
    return await service.export(_state, viewer_state([layer]), collection, _name_of(volume), _edges(volume))


def _state(state: dict[str, Any], collection: Collection, name: str, edges_nm: EdgesNm) -> web.Response:
    found = collection.found()
    layers = annotation_layers(collection.origin(found, name), collection.annotations(found), edges_nm)
    names = {layer["name"] for layer in layers}
    for layer in state["layers"]:
        if layer["name"] in names:
            layer["name"] += " image"
    state["layers"] += layers
    state["selectedLayer"] = {"layer": layers[0]["name"], "visible": True} if layers else state["selectedLayer"]
    return json_answer(state, _left_out(collection))


async def _collection(request: web.Request, target: Target) -> tuple[Volume, Collection]:
    """The annotations that the query chooses; raises NotFound, InvalidInput."""
    service = request.app[STORE]
    dataset = target.parts["dataset"]
    blocks = await service.blocks(dataset)
    volume = await service.call(request.app[STATE].volumes.at, dataset)
    if volume is None:
        raise NotFound(f"/{dataset} is not a dataset: it has no info file of a volume.")
    return volume, Collection(service.store, dataset, blocks, _selection(request), _at(request))


def _selection(request: web.Request) -> Selection:
    lists = [
        tuple(text for value in request.query.getall(name, ()) for text in value.split(",") if text)
        for name in ("type", "leaf", "author")
    ]
    return read_selection(request.query.get("box"), *lists, reviewed=_is_asked(request, "reviewed") is True)


def _at(request: web.Request) -> datetime | None:
    text = request.query.get("at")
    return None if text is None else instant_of_query(text)


def _is_asked(request: web.Request, name: str) -> bool | None:
    text = request.query.get(name)
    if text is not None and text.lower() not in _YES:
        raise InvalidInput(f"{name}={text[:20]} must be 1 or 0.")
    return None if text is None else _YES[text.lower()]


def _edges(volume: Volume) -> EdgesNm:
    return volume.info.scales[0].resolution_nm


def _name_of(volume: Volume) -> str:
    return volume.path.rpartition("/")[2] or ANNOTATIONS


async def post_import(request: web.Request, target: Target) -> web.StreamResponse:
    """Merge a file into the annotations, or with `dry_run` only say what that would do; 207 where a block refused."""
    check_query(request, "format", "dry_run", "remove", "conflicts")
    arrival = Arrival(request, target)
    service = request.app[STORE]
    is_dry = _is_asked(request, "dry_run") is True
    async with body_of(request, service.settings, service.bodies) as body:
        volume, _ = await _collection(request, target)
        asked = Asked(target.parts["dataset"], request.query.get("format"), _wishes(request), _edges(volume), is_dry)
        state = await _own_state(request, asked, body)
        work = _Import(service, arrival, asked, body if state is None else state)
        report = await work.carry_out()
    source = f"{request.scheme}://{request.host}/"
    url = f"{source}{join(tree_url(volume.path), ANNOTATIONS)}/state"
    rows = [_block_row(ended) for ended in report.ended]
    whole = all(row["status"] == 200 for row in rows)
    members = report.to_json() | {"blocks": rows, "link": f"{source}{VIEWER_PATH}#!{url}"}
    return json_answer(members, status=200 if whole else 207)


def _wishes(request: web.Request) -> Wishes:
    winner = request.query.get("conflicts", "stored")
    if winner not in ("stored", "file"):
        raise InvalidInput(f"conflicts={winner[:20]} must be stored or file: who wins where both have changed.")
    return Wishes(_is_asked(request, "remove"), winner == "file")


def _block_row(ended: Ended) -> dict[str, Any]:
    if ended.error is not None:
        return {"block": ended.step.name, "status": status_of(ended.error), "detail": str(ended.error)}
    leaves = [{"leaf": each.leaf, "version": each.version, "etag": each.etag} for each in ended.outcomes]
    return {"block": ended.step.name, "status": 200, "leaves": leaves}


@dataclass(frozen=True)
class _Import:
    """The import of one body."""

    service: AnnotationService
    arrival: Arrival
    asked: Asked
    body: bytes

    async def carry_out(self) -> Report:
        """Plan it and commit the plan, block by block; where somebody else was faster, plan that block anew.

        In the end what others edit without a pause is passed over.
        """
        ended: dict[str, Ended] = {}
        for attempt in range(_ATTEMPTS):
            before = list(ended.values())
            plan = await self._plan(passes_over=attempt == _ATTEMPTS - 1)
            waiting = {name: step for name, step in plan.steps.items() if _is_open(ended.get(name))}
            ends = await asyncio.gather(*(self._commit(name, step) for name, step in waiting.items()))
            ended |= dict(zip(waiting, ends, strict=True))
            if not any(map(_is_open, ended.values())):
                break
        return Report(list(ended.values()), unchanged(plan.unchanged, before), plan.notes, self.asked.is_dry)

    async def _plan(self, *, passes_over: bool) -> Planned:
        # Anew each time: the first annotation of a block makes its directory.
        blocks = await self.service.blocks(self.asked.dataset)
        given = (self.asked, blocks, self.body, passes_over)
        return await self.service.large.call(plan_import, *given, too_long=TooLarge(TOO_LONG))

    async def _commit(self, directory: str, step: BlockStep) -> Ended:
        if not step.parts:
            return Ended(step)
        place = Place(self.asked.dataset, step.name, Location(directory, ""), self.asked.edges_nm, step.size)
        order = self.arrival.order(place, step.parts, self.body)
        try:
            return Ended(step, await self.service.commit(order, step.size))
        except PrecomputedError as error:
            return Ended(step, error=error)


def _is_open(ended: Ended | None) -> bool:
    return ended is None or isinstance(ended.error, (PreconditionFailed, Conflict))


async def _own_state(request: web.Request, asked: Asked, body: bytes) -> bytes | None:
    """The state that a link in the body names, where that is a file of this server; None for any other body.

    No other address is ever asked: what a body names could be a service that only this machine reaches.
    """
    if (asked.format or NEUROGLANCER).lower() != NEUROGLANCER or len(body) > _LONGEST_LINK:
        return None
    service = request.app[STORE]
    url = await service.call(_named_state, asked.format, body)
    if url is None:
        return None
    parts = urlsplit(url)
    target = parse_target(parts.path) if parts.netloc == request.host else None
    if target is None or target.route is not TREE or target.directory:
        raise InvalidInput("The link only names a saved state; send the state itself, from the viewer's {} button.")
    return await service.call(functools.partial(_read, service.store.tree, target.path, service.settings.max_body))


def _named_state(format: str | None, body: bytes) -> str | None:
    """The URL of the saved state that a body names, if it is such a link; raises InvalidInput."""
    if format is not None or format_of(body) == NEUROGLANCER:
        with contextlib.suppress(UnicodeDecodeError):
            return remote_state(body.decode())
    return None


def _read(tree: Tree, path: str, bound: int) -> bytes:
    descriptor = tree.open(path)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InvalidInput(f"The link names {path[:100]!r}, which is no file; send the state itself.")
        size = status.st_size
        if size > bound:
            raise TooLarge(f"The saved state has more than {bound} bytes (setting --max-body).")
        return bytes(read_at(descriptor, 0, size))
    finally:
        os.close(descriptor)
