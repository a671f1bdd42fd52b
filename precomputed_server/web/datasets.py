"""The catalog for programs: `/api/v1/datasets`."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from aiohttp import web
from multidict import MultiMapping

from precomputed_server.catalog.database import SORTS, Query
from precomputed_server.catalog.entries import STATES
from precomputed_server.catalog.record_writing import record_version
from precomputed_server.errors import Busy, InvalidInput, NotFound
from precomputed_server.web.respond import json_answer, quoted
from precomputed_server.web.state import STATE
from precomputed_server.web.targets import Target

TargetHandler = Callable[[web.Request, Target], Awaitable[web.StreamResponse]]

MOST, USUALLY = 1000, 100
LONGEST_QUERY = 1000
PARAMETERS = {"q", "state", "type", "tag", "sort", "limit", "cursor"}


async def get_datasets(request: web.Request, target: Target) -> web.StreamResponse:
    """The datasets that match, a page of them, with how many there are and how often each value occurs."""
    query = query_of(request.query)
    state = request.app[STATE]
    page = await state.page(state.catalog.search, query)
    return json_answer(
        {
            "total": page.total,
            "datasets": page.datasets,
            "facets": page.facets,
            "next": None if page.next is None else cursor_of(query, page.next),
        }
    )


async def get_dataset(request: web.Request, target: Target) -> web.StreamResponse:
    """What is known of one dataset."""
    state = request.app[STATE]
    path = target.parts["dataset"]
    found = await state.page(state.catalog.get, path)
    if found is None:
        raise NotFound(f"The catalog has no dataset {target.path}.")
    return json_answer(found, {"ETag": quoted(await state.far(record_version, state.tree, path))})


def unless_dataset(handler: TargetHandler) -> TargetHandler:
    """A handler of a path with a suffix, which is a dataset's own path where the catalog has one there."""

    async def handle(request: web.Request, target: Target) -> web.StreamResponse:
        state = request.app[STATE]
        try:
            found = await state.page(state.catalog.get, target.path)
        except (Busy, InvalidInput):  # there is no catalog: what is asked for is seen without
            found = None
        return await handler(request, target) if found is None else json_answer(found)

    return handle


def query_of(given: MultiMapping[str]) -> Query:
    """The search that the parameters of a URL ask for; raises InvalidInput naming what is wrong."""
    unknown = set(given) - PARAMETERS
    if unknown:
        raise InvalidInput(f"{sorted(unknown)[0]!r} is no parameter; use {', '.join(sorted(PARAMETERS))}.")
    sort = given.get("sort", "path")
    descending, name = sort.startswith("-"), sort.removeprefix("-")
    if name not in SORTS:
        raise InvalidInput(f"sort is {', '.join(SORTS)}, with - before it for the other direction; not {sort!r}.")
    states = tuple(given.getall("state", ()))
    strange = next((each for each in states if each not in STATES), None)
    if strange is not None:
        raise InvalidInput(f"state is one of {', '.join(STATES)}; not {strange!r}.")
    text = given.get("q", "")
    if len(text) > LONGEST_QUERY:
        raise InvalidInput(f"q has more than {LONGEST_QUERY} characters.")
    return Query(
        text,
        states,
        tuple(given.getall("type", ())),
        tuple(given.getall("tag", ())),
        name,
        descending,
        _limit(given.get("limit", str(USUALLY))),
        _position(given.get("cursor"), sort),
    )


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST:
        raise InvalidInput(f"limit is a whole number from 1 to {MOST}; not {text[:40]!r}.")
    return int(text)


def cursor_of(query: Query, position: tuple[Any, str]) -> str:
    """What `?cursor=` has to be for the datasets behind a position."""
    sort = f"-{query.sort}" if query.descending else query.sort
    return base64.urlsafe_b64encode(orjson.dumps([sort, *position])).decode()


def _position(cursor: str | None, sort: str) -> tuple[Any, str] | None:
    if cursor is None:
        return None
    try:
        made_for, key, path = orjson.loads(base64.urlsafe_b64decode(cursor))
    except (ValueError, TypeError):
        made_for = key = path = None
    known = isinstance(key, str) or (isinstance(key, int) and abs(key) < 1 << 63)  # what the database can compare
    if made_for != sort or not known or not isinstance(path, str):
        raise InvalidInput("cursor is the `next` of an answer to the same search; begin without it.")
    return key, path
