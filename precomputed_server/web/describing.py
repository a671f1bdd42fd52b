"""Changing what a dataset says of itself over HTTP: title, description and tags."""

from __future__ import annotations

import asyncio
import functools
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
from aiohttp import web

from precomputed_server.catalog.record_writing import amend
from precomputed_server.catalog.records import Record
from precomputed_server.errors import Busy, InvalidInput, InvalidJson
from precomputed_server.format.record import Words
from precomputed_server.settings import MEBIBYTE, Settings
from precomputed_server.web.body import Budget, body_of
from precomputed_server.web.respond import check_if_match, check_query, json_answer, quoted
from precomputed_server.web.state import STATE, State
from precomputed_server.web.targets import Target

_MEMBERS = ("title", "description", "tags")
_LONGEST_BODY = MEBIBYTE
_ARRIVING = 16 * MEBIBYTE
_MOST_WAITING = 16
"""Changes that wait for the one that is being written."""
LONGEST_TITLE, LONGEST_DESCRIPTION, LONGEST_TAG, MOST_TAGS = 300, 100_000, 64, 100
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class RecordWriter:
    """Writes the records of one worker, one at a time, because that may wait for a lock."""

    def __init__(self, settings: Settings, state: State) -> None:
        self.arriving = Budget(_ARRIVING)
        self._settings = settings
        self._state = state
        self._pool = ThreadPoolExecutor(1, "records")
        self._waiting = 0

    def close(self) -> None:
        """End when what is being written has been."""
        self._pool.shutdown(cancel_futures=True)

    async def amend(self, request: web.Request, path: str, words: Words) -> tuple[Record, str]:
        """As `catalog.record_writing.amend`; the request's If-Match has to name the version that is replaced."""
        check = functools.partial(check_if_match, request)
        call = functools.partial(amend, self._state.tree, self._state.volumes, path, words, check)
        if self._waiting >= _MOST_WAITING:
            raise Busy("Too many changes of datasets wait to be written; try again.", 1)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, call)
        finally:
            self._waiting -= 1


RECORD_WRITER = web.AppKey("record writer", RecordWriter)


async def patch_dataset(request: web.Request, target: Target) -> web.StreamResponse:
    """Change title, description or tags in the record of a dataset, and in the catalog at once."""
    check_query(request)
    state, writer = request.app[STATE], request.app[RECORD_WRITER]
    async with body_of(request, state.settings, writer.arriving, _LONGEST_BODY) as body:
        words = read_words(body)
    path = target.parts["dataset"]
    record, version = await writer.amend(request, path, words)
    return json_answer(await _known(state, path, record), {"ETag": quoted(version)})


async def _known(state: State, path: str, record: Record) -> dict[str, Any]:
    """What the catalog knows of the dataset now; where there is no catalog, what its record says."""
    said = {"id": record.id, "title": record.title, "description": record.description, "tags": list(record.tags)}
    said["title"] = record.title or path.rpartition("/")[2] or "dataset"
    try:
        await state.page(state.catalog.amend, path, said)
        found = await state.page(state.catalog.get, path)
    except (Busy, InvalidInput):
        found = None
    return {**(found or {"path": path or "."}), **said}


def read_words(body: bytes) -> Words:
    """The words of a request's body; raises InvalidJson, InvalidInput naming what is wrong."""
    try:
        given = orjson.loads(body)
    except ValueError as error:
        raise InvalidJson("The body is no JSON; send an object with title, description or tags.") from error
    if not isinstance(given, dict) or not given or set(given) - set(_MEMBERS):
        raise InvalidInput(f"Send an object with some of {', '.join(_MEMBERS)}, and nothing else.")
    tags = given.get("tags", ()) or ()
    if not isinstance(tags, (list, tuple)) or len(tags) > MOST_TAGS or not all(map(_is_tag, tags)):
        raise InvalidInput(
            f"tags is a list of up to {MOST_TAGS} texts of 1 to {LONGEST_TAG} characters without commas."
        )
    return Words(
        _text(given, "title", LONGEST_TITLE, _CONTROL),
        _text(given, "description", LONGEST_DESCRIPTION, _CONTROL_IN_TEXT),
        tuple(tags) if "tags" in given else None,
    )


def _text(given: dict[str, Any], name: str, longest: int, forbidden: re.Pattern[str]) -> str | None:
    """A text, empty for null; None where it is not given."""
    if name not in given:
        return None
    text = given[name] or ""
    if not isinstance(text, str) or len(text) > longest or forbidden.search(text):
        raise InvalidInput(f"{name} is a text of at most {longest} characters, without control characters.")
    return text.strip()


def _is_tag(tag: object) -> bool:
    if not isinstance(tag, str) or not 1 <= len(tag) <= LONGEST_TAG:
        return False
    return tag == tag.strip() and "," not in tag and _CONTROL.search(tag) is None
