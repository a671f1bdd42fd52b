"""How far a dataset is, and what is left to review, over HTTP."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from aiohttp import web

from annotation_store.blocks import Blocks, check_name
from annotation_store.history.instants import instant, read_instant
from annotation_store.progress.listing import After, Wanted, Which
from annotation_store.progress.survey import Leaf, counted_of, rows_in, sentence_of, survey_of
from annotation_store.progress.tally import Counted, Tally, progress_of, rows_of_blocks
from annotation_store.web.large import with_store
from annotation_store.web.request import JSON
from annotation_store.web.service import AnnotationService
from precomputed_server.errors import InvalidInput, NotFound, PrecomputedError
from precomputed_server.recent import Recent
from precomputed_server.settings import Settings
from precomputed_server.web.respond import NO_CACHE, check_query, json_answer
from precomputed_server.web.send import Described, send_bytes
from precomputed_server.web.targets import Target

_DATASETS = 64
_ROWS, _MOST_ROWS = 50, 1000
_LONGEST_SLICE = 18
"""Digits; Python refuses to read some thousands of them, and no volume has so many slices."""
_STATES: Mapping[str, Which] = {"unreviewed": "unreviewed", "reviewed": "reviewed", "all": "all"}
_NO_CURSOR = "?cursor= is the `next` of an earlier answer; leave it out to begin anew."
_OF_KIND = ("author", "anntype", "type")


@dataclass(frozen=True)
class Found:
    """A leaf of a dataset and what it counts; without a tally, `detail` says why."""

    leaf: Leaf
    tally: Tally | None
    detail: str = ""

    def to_counted(self) -> Counted:
        """What the sum needs of it."""
        return Counted(self.leaf.block, self.leaf.name, self.tally, self.detail)


@dataclass(frozen=True)
class Start:
    """Where a list goes on: in which leaf of which block's directory, and where in it."""

    block: str = ""
    leaf: str = ""
    after: After = After()

    def to_text(self) -> str:
        """The cursor of a URL."""
        members = [self.block, self.leaf, *self.after.ids]
        return base64.urlsafe_b64encode(orjson.dumps(members)).decode()

    @classmethod
    def from_text(cls, text: str) -> Start:
        """The place that a cursor names; raises InvalidInput."""
        try:
            block, leaf, *ids = orjson.loads(base64.urlsafe_b64decode(text))
        except (ValueError, TypeError) as error:
            raise InvalidInput(_NO_CURSOR) from error
        if not all(isinstance(name, str) for name in (block, leaf, *ids)):
            raise InvalidInput(_NO_CURSOR)
        return cls(block, leaf, After(tuple(ids)))


class ProgressService:
    """The counts of the datasets of one worker: threads count small leaves, a process of its own the large ones."""

    def __init__(self, settings: Settings, annotations: AnnotationService) -> None:
        self._annotations = annotations
        self._memory = settings.progress_memory
        self._survey = survey_of(annotations.store, self._memory)
        self._counting: Recent[str, asyncio.Lock] = Recent(_DATASETS)
        self._bodies: Recent[str, tuple[Blocks, list[Counted], bytes, str]] = Recent(_DATASETS)

    async def found(self, dataset: str) -> tuple[Blocks, list[Found]]:
        """The blocks and leaves of a dataset as they are now; raises NotFound, Unreadable, Busy."""
        counting = self._counting.get(dataset) or asyncio.Lock()
        self._counting.put(dataset, counting)
        async with counting:  # who comes while somebody counts finds that done
            blocks = await self._annotations.blocks(dataset)
            found = await self._annotations.call(self._look, dataset, blocks)
            for number, (leaf, is_counted) in enumerate(found):
                if isinstance(leaf, Leaf) and not is_counted:
                    found[number] = (await self._count_apart(leaf), True)
        return blocks, [each for each, _ in found if isinstance(each, Found)]

    async def body(self, dataset: str) -> tuple[bytes, str]:
        """The JSON of a dataset's progress, and its entity tag, which is the same in every worker."""
        blocks, found = await self.found(dataset)
        counted = [each.to_counted() for each in found]
        known = self._bodies.get(dataset)
        if known is not None and known[:2] == (blocks, counted):
            return known[2], known[3]
        body = await self._annotations.call(_body_of, blocks, counted)
        etag = hashlib.sha256(body).hexdigest()[:32]
        self._bodies.put(dataset, (blocks, counted, body, etag))
        return body, etag

    async def rows(
        self, leaf: Leaf, wanted: Wanted, after: After, limit: int
    ) -> tuple[list[dict[str, Any]], After | None]:
        """Rows of the annotations of a leaf that are meant."""
        call = self._annotations.call
        if await call(self._survey.is_large, leaf):
            given = (leaf.location, wanted, after, limit, self._memory)
            return await self._annotations.large.call(with_store, rows_in, *given)
        return await call(self._survey.rows, leaf.location, wanted, after, limit)

    def _look(self, dataset: str, blocks: Blocks) -> list[tuple[Leaf | Found, bool]]:
        """Every leaf: counted, or to be counted elsewhere."""
        return [self._counted(leaf) for leaf in self._survey.leaves(dataset, sorted(blocks.existing))]

    def _counted(self, leaf: Leaf) -> tuple[Leaf | Found, bool]:
        try:
            tally = self._survey.known(leaf)
            if tally is None and self._survey.is_large(leaf):
                return leaf, False
            return Found(leaf, tally or self._survey.count(leaf)), True
        except (PrecomputedError, OSError) as error:
            return Found(leaf, None, sentence_of(error)), True

    async def _count_apart(self, leaf: Leaf) -> Found:
        counted = await self._annotations.large.call(with_store, counted_of, leaf.location, self._memory)
        if isinstance(counted, str):
            return Found(leaf, None, counted)
        tally, etag = counted
        self._survey.remember(leaf, etag, tally)
        return Found(leaf, tally)


PROGRESS = web.AppKey("progress", ProgressService)


async def get_progress(request: web.Request, target: Target) -> web.StreamResponse:
    """How many annotations there are, are confirmed, and were looked at: in all, by block, slice, author and type."""
    body, etag = await request.app[PROGRESS].body(target.parts["dataset"])
    return await send_bytes(request, body, Described(etag, JSON, NO_CACHE))


async def get_review(request: web.Request, target: Target) -> web.StreamResponse:
    """A part of the list of annotations that the query names, in the order of blocks, leaves and files."""
    check_query(request, "state", "block", "leaf", "slice", "author", "anntype", "type", "since", "limit", "cursor")
    service = request.app[PROGRESS]
    limit = _limit_of(request)
    start = Start.from_text(request.query["cursor"]) if "cursor" in request.query else Start()
    blocks, found = await service.found(target.parts["dataset"])
    wanted = _wanted_of(request.query)
    leaves = chosen(blocks, found, request.query)
    rows, following = await _page(service, blocks, leaves, (wanted, start, limit))
    return json_answer(
        {
            "annotations": rows,
            "matching": sum(wanted.count(each.tally) for each in leaves if each.tally is not None),
            "next": None if following is None else following.to_text(),
            "time": instant(datetime.now(UTC)),
        }
    )


async def _page(
    service: ProgressService, blocks: Blocks, leaves: list[Found], asked: tuple[Wanted, Start, int]
) -> tuple[list[dict[str, Any]], Start | None]:
    """At most so many rows from there on, and where the next ones begin."""
    wanted, start, limit = asked
    rows: list[dict[str, Any]] = []
    for leaf in (each.leaf for each in leaves if each.tally is not None and wanted.may_be_in(each.tally)):
        here = (leaf.block, leaf.name)
        if here < (start.block, start.leaf):
            continue
        if len(rows) == limit:
            return rows, Start(*here)
        after = start.after if here == (start.block, start.leaf) else After()
        try:
            made, following = await service.rows(leaf, wanted, after, limit - len(rows))
        except NotFound:  # removed since it was counted
            continue
        rows += [{"block": blocks.name(leaf.block), "leaf": leaf.name, **row} for row in made]
        if following is not None:
            return rows, Start(*here, following)
    return rows, None


def chosen(blocks: Blocks, found: list[Found], query: Mapping[str, Any]) -> list[Found]:
    """The leaves of the block and of the name that a query or a body gives; raises InvalidInput, NotFound."""
    block, leaf = query.get("block"), query.get("leaf")
    directory = None if block is None else blocks.directory(block)
    if leaf is not None:
        check_name(leaf, "leaf")
    leaves = [
        each for each in found if directory in (None, each.leaf.block) and (leaf is None or leaf == each.leaf.name)
    ]
    if not leaves and (block is not None or leaf is not None):
        named = "/".join(name for name in (block, leaf) if name is not None)
        raise NotFound(f"There are no annotations in {named}: nothing there can be reviewed.")
    return leaves


def kind_of_query(query: Mapping[str, Any]) -> frozenset[tuple[str, int | str | None]]:
    """The kind that a query or a body asks for; an empty text is what has no such thing; raises InvalidInput."""
    found: set[tuple[str, int | str | None]] = {(name, query[name] or None) for name in _OF_KIND if name in query}
    if "slice" in query:
        text = str(query["slice"])
        if text and (len(text) > _LONGEST_SLICE or not text.removeprefix("-").isdecimal()):
            raise InvalidInput("slice is the number of a slice, a whole number of voxels.")
        found.add(("slice", int(text) if text else None))
    return frozenset(found)


def _wanted_of(query: Mapping[str, str]) -> Wanted:
    state = query.get("state", "unreviewed")
    if state not in _STATES:
        raise InvalidInput(f"?state= is one of {', '.join(_STATES)}.")
    since = None if "since" not in query else instant(read_instant(query["since"]))
    return Wanted(kind_of_query(query), _STATES[state], since)


def _limit_of(request: web.Request) -> int:
    text = request.query.get("limit", str(_ROWS))
    if len(text) > len(str(_MOST_ROWS)) or not text.isdecimal() or not 0 < int(text) <= _MOST_ROWS:
        raise InvalidInput(f"?limit= is a whole number from 1 to {_MOST_ROWS}.")
    return int(text)


def _body_of(blocks: Blocks, counted: list[Counted]) -> bytes:
    return orjson.dumps(progress_of(counted, rows_of_blocks(blocks)))
