"""Many edits of many leaves in one request: each block's are one durable step, and each block is answered."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from typing import Any

import orjson
from aiohttp import web

from annotation_store.model import check_id, parse_object
from annotation_store.orders import Kind, Outcome, Part
from annotation_store.web.request import Arrival
from annotation_store.web.service import STORE, AnnotationService, Place
from precomputed_server.errors import InvalidInput, PrecomputedError
from precomputed_server.web.body import body_of
from precomputed_server.web.respond import json_answer, status_of
from precomputed_server.web.targets import Target

_MOST, _LONGEST = 10_000, 4 << 20
"""How many edits a request may have, and bytes: it is read here, beside what others are served."""
_KINDS: dict[str, Kind] = {"put": "patch", "change": "merge", "add": "add", "delete": "delete"}
_MEMBERS = {"block", "leaf", "operation", "id", "annotation", "if_match"}

Parts = list[tuple[Place, Part]]


async def post_edits(request: web.Request, target: Target) -> web.StreamResponse:
    """Apply edits of many leaves; 200 when every block took its own, else 207 with what became of each."""
    arrival = Arrival(request, target)
    service = request.app[STORE]
    async with body_of(request, service.settings, service.bodies, _LONGEST) as body:
        edits = await service.call(_edits_of, body)
    parts = [await _placed(service, target, edit) for edit in edits]
    rows = await commit_blocks(service, arrival, parts, body, _edit_row)
    whole = all(row["status"] == 200 for row in rows)
    return json_answer({"blocks": rows}, status=200 if whole else 207)


async def _placed(service: AnnotationService, target: Target, edit: tuple[str, str, Part]) -> tuple[Place, Part]:
    block, leaf, part = edit
    place = await service.place(target.of_leaf(block, leaf))
    return place, part.of(place.location.leaf)


async def commit_blocks(
    service: AnnotationService,
    arrival: Arrival,
    parts: Iterable[tuple[Place, Part]],
    body: bytes,
    row_of: Callable[[Outcome], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Carry out the parts of each block as one order; a row for each, `row_of` says what it tells of a part."""
    blocks: dict[str, Parts] = {}
    for place, part in parts:
        blocks.setdefault(place.location.directory, []).append((place, part))
    return await asyncio.gather(*(_commit(service, arrival, found, body, row_of) for found in blocks.values()))


async def _commit(
    service: AnnotationService, arrival: Arrival, parts: Parts, body: bytes, row_of: Callable[[Outcome], dict[str, Any]]
) -> dict[str, Any]:
    """Carry out the edits of one block."""
    place = parts[0][0]
    order = arrival.order(place, tuple(part for _, part in parts), body)
    row: dict[str, Any] = {"block": place.block, "status": 200}
    try:
        outcomes = await service.commit(order, max(place.size for place, _ in parts))
    except PrecomputedError as error:
        return row | {"status": status_of(error), "detail": str(error)}
    return row | {"edits": [row_of(outcome) for outcome in outcomes]}


def _edit_row(outcome: Outcome) -> dict[str, Any]:
    return {"leaf": outcome.leaf, "id": outcome.id, "version": outcome.version, "etag": outcome.etag}


def _edits_of(body: bytes) -> list[tuple[str, str, Part]]:
    """The block, leaf and part of each edit; raises InvalidInput and its kin."""
    wanted = f'{{"edits": […]}} with 1 to {_MOST} edits'
    listed = parse_object(body, f"an object, {wanted}").get("edits")
    if not isinstance(listed, list) or not 0 < len(listed) <= _MOST:
        raise InvalidInput(f"The body must be {wanted}.")
    return [_edit_of(number, edit) for number, edit in enumerate(listed)]


def _edit_of(number: int, edit: Any) -> tuple[str, str, Part]:  # noqa: ANN401  # any JSON value
    if not isinstance(edit, dict) or set(edit) - _MEMBERS:
        raise InvalidInput(f"Edit {number} must be an object with some of {', '.join(sorted(_MEMBERS))}.")
    block, leaf, operation, id = edit.get("block"), edit.get("leaf"), str(edit.get("operation")), edit.get("id")
    if not isinstance(block, str) or not isinstance(leaf, str) or operation not in _KINDS:
        raise InvalidInput(f"Edit {number} needs a block, a leaf and an operation, one of {', '.join(_KINDS)}.")
    annotation, if_match = edit.get("annotation"), edit.get("if_match")
    if operation != "delete" and not isinstance(annotation, dict):
        raise InvalidInput(f"Edit {number} needs the annotation, or the fields to change.")
    if not isinstance(if_match, (str, type(None))):
        raise InvalidInput(f"Edit {number}: if_match is the ETag of the leaf, a text.")
    if id is None and isinstance(annotation, dict):
        id = annotation.get("id")
    if operation != "add":
        check_id(id, f"edit {number}")
    elif id is None:
        id = secrets.token_hex(20)
    tags = None if if_match is None else (if_match.strip('"'),)
    body = b"" if operation == "delete" else orjson.dumps(annotation)
    return block, leaf, Part("", _KINDS[operation], id, tags, body=body)
