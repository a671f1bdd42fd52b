"""The time machine over HTTP: earlier versions of a leaf, the history of its edits, and their restoration."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from aiohttp import web

from annotation_store.activity import activity_of
from annotation_store.blocks import Location
from annotation_store.committing.leaf import Snapshot
from annotation_store.history.instants import instant, read_instant
from annotation_store.history.versions import Entry
from annotation_store.model import parse_object
from annotation_store.orders import Part
from annotation_store.store import AnnotationStore
from annotation_store.web.request import JSON, VERSION_HEADER, Arrival, if_match_of, told, whole_number
from annotation_store.web.service import STORE, Place
from precomputed_server.errors import InvalidInput
from precomputed_server.web.body import body_of
from precomputed_server.web.respond import NO_CACHE, check_query, json_answer
from precomputed_server.web.send import Described, send_bytes
from precomputed_server.web.targets import Target

_ENTRIES = 50
_MOST_ENTRIES = 1000
_DAYS, _MOST_DAYS = 30, 3660
_LONGEST_WISH = 1 << 16
_WISH = '{"version": 12} or {"at": "2026-01-31T17:05:00Z"}, with "id" for one annotation'


def instant_of_query(text: str) -> datetime:
    """An RFC 3339 instant of a query, where a plus sign that nobody encoded arrives as a space; raises InvalidInput."""
    return read_instant(text.strip().replace(" ", "+" if "T" in text else "T"))


async def get_version(request: web.Request, place: Place) -> web.StreamResponse:
    """A leaf as it was in the version, or at the instant, that the query names."""
    service = request.app[STORE]
    if "version" in request.query and "at" in request.query:
        raise InvalidInput("Give a version or an instant, not both.")
    version = whole_number(request, "version", None)
    at = None if version is not None else instant_of_query(request.query["at"])
    number, snapshot = await service.call(_version, service.store, place.location, version, at)
    response = await send_bytes(request, snapshot.data, Described(snapshot.etag, JSON, NO_CACHE))
    response.headers[VERSION_HEADER] = str(number)
    return response


def _version(
    store: AnnotationStore, location: Location, version: int | None, at: datetime | None
) -> tuple[int, Snapshot]:
    found = store.version_at(location, version, at)
    return found.version, Snapshot(found.data, found.etag)


async def get_history(request: web.Request, target: Target) -> web.StreamResponse:
    """The edits of a leaf, newest first."""
    check_query(request, "limit", "before", "id", "author")
    service = request.app[STORE]
    place = await service.place(target)
    limit = min(whole_number(request, "limit", _ENTRIES) or _ENTRIES, _MOST_ENTRIES)
    before = whole_number(request, "before", None)
    named = (request.query.get("id"), request.query.get("author"))
    version, entries, following = await service.call(_history, service.store, place.location, (limit, before, *named))
    return json_answer(
        {
            "leaf": place.location.leaf,
            "version": version,
            "entries": [entry.to_json() for entry in entries],
            "next": following,
        }
    )


def _history(
    store: AnnotationStore, location: Location, asked: tuple[int, int | None, str | None, str | None]
) -> tuple[int, list[Entry], int | None]:
    version = store.version(location)
    with store.versions(location) as versions:
        entries, following = versions.entries(location.leaf, *asked)
    return version, entries, following


async def get_activity(request: web.Request, target: Target) -> web.StreamResponse:
    """The newest edits of a dataset, and how many each author made on each day."""
    check_query(request, "limit", "days")
    service = request.app[STORE]
    dataset = target.parts["dataset"]
    await service.blocks(dataset)
    limit = min(whole_number(request, "limit", _ENTRIES) or _ENTRIES, _MOST_ENTRIES)
    days = min(whole_number(request, "days", _DAYS) or _DAYS, _MOST_DAYS)
    since = (datetime.now(UTC) - timedelta(days=days)).replace(hour=0, minute=0, second=0, microsecond=0)
    found = await service.export(activity_of, service.store, dataset, since, limit)
    return json_answer(found.to_json())


async def post_restore(request: web.Request, target: Target) -> web.StreamResponse:
    """Bring back what a leaf, or one annotation of it, was in a version or at an instant: an edit like any other."""
    arrival = Arrival(request, target)
    service = request.app[STORE]
    async with body_of(request, service.settings, service.bodies, _LONGEST_WISH) as body:
        asked = parse_object(body, f"an object, {_WISH}")
    version, at, id, seen = _restore_of(asked)
    place = await service.place(target)
    part = Part(place.location.leaf, "restore", id, if_match_of(request), version, at, seen)
    outcome = (await service.commit(arrival.order(place, (part,), orjson.dumps(asked)), place.size))[0]
    return json_answer({"leaf": part.leaf, "version": outcome.version, "restored": outcome.edits}, told(outcome))


def _restore_of(asked: dict[str, Any]) -> tuple[int | None, str | None, str | None, int | None]:
    version, at, id, seen = asked.get("version"), asked.get("at"), asked.get("id"), asked.get("seen")
    if set(asked) - {"version", "at", "id", "seen"} or (version is None) == (at is None):
        raise InvalidInput(f"Say what to restore: {_WISH}.")
    if version is not None and (type(version) is not int or version < 1):
        raise InvalidInput("The version to restore is a whole number from 1.")
    if seen is not None and (type(seen) is not int or seen < 1 or id is None):
        raise InvalidInput("seen is the version, a whole number from 1, in which the annotation of the id was seen.")
    if not isinstance(id, (str, type(None))) or not isinstance(at, (str, type(None))):
        raise InvalidInput("The instant and the id to restore are texts.")
    if at is not None:
        at = instant(read_instant(at))
    return version, at, id, seen
