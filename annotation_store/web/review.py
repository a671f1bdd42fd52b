"""Confirming annotations, or withdrawing that, over HTTP: each block's are one durable step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from aiohttp import web

from annotation_store.model import check_id, parse_object
from annotation_store.orders import Outcome, Part, reviewing
from annotation_store.progress.listing import After, Wanted, Which
from annotation_store.review import Review
from annotation_store.web.edits import commit_blocks
from annotation_store.web.progress import PROGRESS, Found, chosen, kind_of_query
from annotation_store.web.request import Arrival
from annotation_store.web.service import STORE, Place
from precomputed_server.errors import InvalidAnnotation, InvalidInput, NotFound, TooLarge
from precomputed_server.web.body import body_of
from precomputed_server.web.respond import check_if_match, check_query, json_answer
from precomputed_server.web.targets import Target

_MOST, _LONGEST = 10_000, 4 << 20
"""How many annotations a request may confirm, and how many bytes it may have."""
_SENTENCES: Mapping[str, str] = {
    "missing": "There is no annotation of that id in this file any more.",
    "moved": "It was moved since it was listed; look at it again.",
}
_BODY = '{"reviewed": true or false} with one of "annotations", "ids" and "where"'
_WAYS = {"annotations", "ids", "where"}
_MEMBERS = {"block", "leaf", "ids", "if_match"}
_FILTERS = {"block", "leaf", "slice", "author", "anntype", "type"}

Seen = dict[str, str | None]
"""Ids, and the digest of the geometry that was looked at, where it was told."""


@dataclass(frozen=True)
class Entry:
    """Annotations of one leaf as a client names it."""

    block: str
    leaf: str
    seen: Seen
    if_match: tuple[str, ...] | None


@dataclass(frozen=True)
class Meant:
    """What a request means: parts of orders, ids that are nowhere, and leaves that cannot be looked at."""

    parts: list[tuple[Place, Part]]
    missing: list[str] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """Whether everything was found."""
        return not self.missing and not self.unreadable


@dataclass(frozen=True)
class Asked:
    """What is to be confirmed, or not any longer: annotations of leaves, ids wherever they lie, or what they are."""

    reviewed: bool
    entries: list[Entry] = field(default_factory=list)
    seen: Seen | None = None
    where: dict[str, Any] = field(default_factory=dict)


async def post_review(request: web.Request, target: Target) -> web.StreamResponse:
    """Confirm annotations, or withdraw that; 200 when all of them are, else 207 with what became of each block."""
    check_query(request)
    arrival = Arrival(request, target)
    service = request.app[STORE]
    async with body_of(request, service.settings, service.bodies, _LONGEST) as body:
        asked = await service.call(_asked_of, body)
        if request.if_match is not None:
            _, etag = await request.app[PROGRESS].body(target.parts["dataset"])
            check_if_match(request, etag)
        if asked.entries:
            meant = Meant(await _listed(request, target, asked))
        else:
            meant = await _searched(request, target, asked)
        rows = await commit_blocks(service, arrival, meant.parts, body, _row_of)
    whole = meant.is_whole and all(row["status"] == 200 and not _refused(row) for row in rows)
    answer = {"blocks": rows, "missing": meant.missing, "unreadable": meant.unreadable}
    return json_answer(answer, status=200 if whole else 207)


def _refused(row: dict[str, Any]) -> bool:
    return any(edit["refused"] for edit in row.get("edits", ()))


def _row_of(outcome: Outcome) -> dict[str, Any]:
    return {
        "leaf": outcome.leaf,
        "changed": outcome.edits,
        "version": outcome.version,
        "etag": outcome.etag,
        "refused": [
            {"id": id, "reason": reason, "detail": _SENTENCES[reason]} for id, reason in (outcome.refused or {}).items()
        ],
    }


def _asked_of(body: bytes) -> Asked:
    """What a body asks for; raises InvalidInput and its kin, for too many before any of them is looked at."""
    asked = parse_object(body, f"an object, {_BODY}")
    reviewed = asked.pop("reviewed", None)
    if not isinstance(reviewed, bool) or len(asked) != 1 or not set(asked) <= _WAYS:
        raise InvalidInput(f"The body must be {_BODY}.")
    if "where" in asked:
        return Asked(reviewed, where=_where_of(asked["where"]))
    if "ids" in asked:
        return Asked(reviewed, seen=_seen_of(asked["ids"]))
    listed = asked["annotations"]
    if not isinstance(listed, list) or not listed:
        raise InvalidInput('"annotations" is a list of {"block": …, "leaf": …, "ids": […]}.')
    _check_count(len(listed))
    entries = [_entry_of(number, entry) for number, entry in enumerate(listed)]
    _check_count(sum(len(entry.seen) for entry in entries))
    return Asked(reviewed, entries)


async def _listed(request: web.Request, target: Target, asked: Asked) -> list[tuple[Place, Part]]:
    """The parts of annotations that are named with their leaves."""
    parts = []
    for entry in asked.entries:
        place = await request.app[STORE].place(target.of_leaf(entry.block, entry.leaf))
        part = reviewing(place.location.leaf, Review(entry.seen, asked.reviewed), entry.if_match)
        parts.append((replace(place, block=entry.block), part))
    return parts


def _entry_of(number: int, entry: Any) -> Entry:  # noqa: ANN401  # any JSON value
    if not isinstance(entry, dict) or set(entry) - _MEMBERS:
        raise InvalidInput(f"Entry {number} must be an object with some of {', '.join(sorted(_MEMBERS))}.")
    block, leaf, if_match = entry.get("block"), entry.get("leaf"), entry.get("if_match")
    if not isinstance(block, str) or not isinstance(leaf, str):
        raise InvalidInput(f"Entry {number} needs a block, a leaf and ids.")
    if not isinstance(if_match, (str, type(None))):
        raise InvalidInput(f"Entry {number}: if_match is the ETag of the leaf, a text.")
    tags = None if if_match is None else (if_match.strip('"'),)
    return Entry(block, leaf, _seen_of(entry.get("ids")), tags)


def _seen_of(ids: object) -> Seen:
    """The ids of a list, or of an object that gives the geometry which was looked at; raises InvalidInput."""
    if isinstance(ids, (list, dict)):
        _check_count(len(ids))
    if isinstance(ids, list) and ids:
        for number, id in enumerate(ids):
            check_id(id, f"ids[{number}]")
        return dict.fromkeys(ids)
    if isinstance(ids, dict) and ids and all(isinstance(seen, (str, type(None))) for seen in ids.values()):
        return ids
    raise InvalidInput('"ids" is a list of ids, or an object {id: geometry} with what the list of annotations said.')


async def _searched(request: web.Request, target: Target, asked: Asked) -> Meant:
    """The annotations that are named by ids alone, or by what they are."""
    service = request.app[PROGRESS]
    seen, where, reviewed = asked.seen, asked.where, asked.reviewed
    blocks, found = await service.found(target.parts["dataset"])
    ids = None if seen is None else frozenset(seen)
    which: Which = "all" if seen is not None else "unreviewed" if reviewed else "decided"
    wanted = Wanted(kind_of_query(where), which, None, ids)
    parts: list[tuple[Place, Part]] = []
    names: set[str] = set()
    count = 0
    leaves = chosen(blocks, found, where)
    for each in leaves:
        of_leaf = await _seen_in(request, each, wanted, _MOST + 1 - count)
        count += len(of_leaf)
        _check_count(count)
        if of_leaf:
            names |= of_leaf.keys()
            told = of_leaf if seen is None else {id: seen[id] for id in of_leaf}
            location = each.leaf.location
            place = Place(
                target.parts["dataset"], blocks.name(each.leaf.block), location, (1.0, 1.0, 1.0), each.leaf.state[-1]
            )
            parts.append((place, reviewing(location.leaf, Review(told, reviewed))))
    unreadable = [
        {"block": blocks.name(each.leaf.block), "leaf": each.leaf.name, "detail": each.detail}
        for each in leaves
        if each.tally is None
    ]
    return Meant(parts, [id for id in seen or () if id not in names], unreadable)


async def _seen_in(request: web.Request, found: Found, wanted: Wanted, limit: int) -> Seen:
    """The annotations of a leaf that are meant, as they are now."""
    if found.tally is None or not wanted.may_be_in(found.tally):
        return {}
    try:
        rows, _ = await request.app[PROGRESS].rows(found.leaf, wanted, After(), limit)
    except NotFound:  # removed since it was counted
        return {}
    return {row["id"]: row["geometry"] for row in rows}


def _where_of(where: object) -> dict[str, Any]:
    if not isinstance(where, dict) or not where or set(where) - _FILTERS:
        raise InvalidInput(f'"where" is an object with some of {", ".join(sorted(_FILTERS))}.')
    wrong = [
        name
        for name, value in where.items()
        if not isinstance(value, str) and (name != "slice" or type(value) is not int)
    ]
    if wrong:
        raise InvalidAnnotation(f"{wrong[0]} is a text{', or the number of a slice' if wrong[0] == 'slice' else ''}.")
    return where


def _check_count(count: int) -> None:
    if count > _MOST:
        raise TooLarge(f"These are more than the {_MOST} annotations that one request may confirm; choose fewer.")
