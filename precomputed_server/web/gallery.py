"""The start page: the datasets of the catalog as cards, found by words, state, type and tag.

The page is made of the catalog's rows alone, so that it is as quick over twenty thousand datasets as over ten. Where
there is no catalog yet, or cannot be one, a look at the tree itself takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web
from multidict import MultiDict

from precomputed_server.catalog.database import Page, Query
from precomputed_server.catalog.entries import CONVERTING, STACK, STATES, UNUSABLE, VANISHED
from precomputed_server.catalog.records import Dataset
from precomputed_server.catalog.scan import Damaged, find_datasets
from precomputed_server.errors import Busy, InvalidInput, NotFound
from precomputed_server.format.names import ANNOTATIONS, OPEN_PATH, VIEWER_PATH
from precomputed_server.web.addresses import api_url, page_url
from precomputed_server.web.datasets import PARAMETERS, cursor_of, query_of
from precomputed_server.web.pages import page_of, source_of, way_home
from precomputed_server.web.respond import origin_of
from precomputed_server.web.state import STATE, State
from precomputed_server.web.targets import Session, Target
from precomputed_server.web.viewer_place import viewer_place
from precomputed_server.web.wording import bytes_text, counted, kind_text, lengths_text, size_text

CARDS = 60
"""On a page: with thumbnails about what one looks through before one searches."""

_SORTS = {
    "path": "path",
    "title": "title",
    "-first_seen": "newest first",
    "-bytes": "largest first",
    "-annotations": "most annotations",
    "state": "state",
}
_BEING_MADE = "The catalog of datasets is being made; until then this is a short look at the directory."


@dataclass(frozen=True)
class Around:
    """Where a page lies: the server's origin, the ways to its root and to that root of the session's, and the viewer,
    "" where there is none.
    """

    origin: str
    home: str
    base: str
    viewer: str

    @classmethod
    def of(cls, request: web.Request, session: Session | None) -> Around:
        """What is around the page that a request asks for."""
        home = way_home(request)
        base = home if session is None else f"{home}~{session.name}/"
        viewer = viewer_place(request).url or ""
        # Our own one is named from here: a proxy may have it under a prefix.
        place = viewer if request.app[STATE].viewer is None else f"{base}{VIEWER_PATH}"
        return cls(origin_of(request), home, base, place)

    def opener(self, path: str) -> str:
        """The way to the viewer with a dataset in it."""
        return f"{self.base}{OPEN_PATH}{quote(path)}" if self.viewer else ""

    def editor(self, path: str) -> str:
        """The viewer with the annotations of a dataset in layers that can be edited."""
        return f"{self.viewer}#!{source_of(path, self.origin)}/{ANNOTATIONS}/state" if self.viewer else ""


@dataclass(frozen=True)
class Card:
    """What the gallery shows of one dataset: texts, and links, empty where there is nothing.

    `done` is the share of a conversion's chunks in percent, None where none is under way or its extent is not known.
    """

    title: str
    path: str
    page: str
    state: str = ""
    reason: str = ""
    thumbnail: str = ""
    opener: str = ""
    editor: str = ""
    size: str = ""
    voxel_size: str = ""
    kind: str = ""
    bytes: str = ""
    annotations: str = ""
    tags: tuple[str, ...] = ()
    done: int | None = None


@dataclass(frozen=True)
class Choice:
    """A value that the search can be narrowed down to, how many datasets have it, and whether it is chosen."""

    name: str
    value: str
    count: int | None
    is_chosen: bool


@dataclass(frozen=True)
class Found:
    """The cards of a page and what is around them; `note` is a sentence about the list as a whole."""

    cards: Sequence[Card]
    total: int
    query: Query
    choices: Sequence[tuple[str, Sequence[Choice]]] = ()
    following: str = ""
    note: str = ""

    @property
    def pace(self) -> str:
        """How soon the page looks again: "often" while something changes, "never" where each look goes through the
        tree.
        """
        if self.note and self.note != _BEING_MADE:
            return "never"
        return "often" if self.note or any(card.state == CONVERTING for card in self.cards) else "usual"

    @property
    def is_searched(self) -> bool:
        """Whether anything was asked for but all datasets."""
        query = self.query
        return bool(query.text or query.states or query.types or query.tags)


async def index(request: web.Request, target: Target) -> web.StreamResponse:
    """The gallery, at / and /index.html."""
    state = request.app[STATE]
    around = Around.of(request, target.session)
    given = MultiDict((name, value) for name, value in request.query.items() if name in PARAMETERS and value)
    given["limit"] = str(CARDS)
    found = await state.page(_found, state, given, around)
    sort = f"-{found.query.sort}" if found.query.descending else found.query.sort
    return await page_of(
        request,
        "index.html",
        home=around.home,
        base=around.base,
        origin=around.origin,
        found=found,
        counted=counted,
        sort=sort,
        sorts={**({} if sort in _SORTS else {sort: sort}), **_SORTS},
        first=_address(given) if "cursor" in given else "",
        viewer=around.viewer,
    )


def _found(state: State, given: MultiDict[str], around: Around) -> Found:
    """What the catalog has, else what lies in the tree."""
    query = query_of(given)
    try:
        page = state.catalog.search(query)
        is_whole = state.catalog.is_whole()
        if page.total or is_whole:
            choices = _choices(state, query, page)
            following = "" if page.next is None else _address(given, cursor_of(query, page.next))
            cards = [card_of(dataset, around) for dataset in page.datasets]
            return Found(cards, page.total, query, choices, following, "" if is_whole else _BEING_MADE)
        note = _BEING_MADE
    except Busy:
        note = _BEING_MADE
    except (InvalidInput, NotFound) as error:  # a state directory in which there can be no catalog
        note = f"{error} Until then this is a short look at the directory."
    datasets, damaged = find_datasets(state.tree, state.volumes)
    cards = [_glanced(dataset, around) for dataset in datasets] + [_damaged(place, around) for place in damaged]
    return Found(cards, len(cards), Query(), note=note)


def _address(given: MultiDict[str], cursor: str = "") -> str:
    """The link to another page of the same search."""
    kept = [(name, value) for name, value in given.items() if name not in ("limit", "cursor")]
    return "?" + urlencode([*kept, ("cursor", cursor)] if cursor else kept)


def _choices(state: State, query: Query, page: Page) -> list[tuple[str, list[Choice]]]:
    """The values to choose from: of states and types those that there would be without a choice of them."""
    states = _counts(state, replace(query, states=()), "state", page) if query.states else dict(page.facets["state"])
    types = _counts(state, replace(query, types=()), "type", page) if query.types else dict(page.facets["type"])
    states |= {} if VANISHED in states else {VANISHED: None}
    return [
        ("State", _listed("state", {each: states[each] for each in STATES if each in states}, query.states)),
        ("Type", _listed("type", types, query.types)),
        ("Tags", _listed("tag", dict(page.facets["tags"]), query.tags)),
    ]


def _counts(state: State, without: Query, facet: str, page: Page) -> dict[str, int | None]:
    """How often each value of a facet occurs in the search without a choice of it."""
    return {**state.catalog.search(replace(without, limit=1, after=None)).facets[facet], **page.facets[facet]}


def _listed(name: str, counts: Mapping[str, int | None], chosen: Sequence[str]) -> list[Choice]:
    missing = {value: 0 for value in chosen if value not in counts}
    return [Choice(name, value, count, value in chosen) for value, count in {**counts, **missing}.items()]


def card_of(known: dict[str, Any], around: Around) -> Card:
    """The card of a dataset as the catalog knows it."""
    path = "" if known["path"] == "." else known["path"]
    is_there = known["state"] != VANISHED
    has_voxels = is_there and any(layer["scales"] for layer in known["layers"])
    is_volume = has_voxels and known["layers"][0]["path"] == ""
    count = known["annotations"]
    return Card(
        title=known["title"] or path or "dataset",
        path=path or "/",
        page=around.base + page_url(path),
        state=known["state"],
        reason=known["reason"],
        thumbnail=f"{around.home}{api_url(path)}/thumbnail.png" if has_voxels else "",
        opener=around.opener(path) if has_voxels else "",
        editor=around.editor(path) if is_volume else "",
        size=size_text(known["size"] or ()),
        voxel_size=lengths_text(known["voxel_size_nm"] or ()),
        kind=kind_text(known),
        bytes="" if known["bytes"] is None or not has_voxels else bytes_text(known["bytes"]),
        annotations=counted(count, "annotation") if count else "",
        tags=tuple(known["tags"]),
        done=_share(known),
    )


def _share(known: dict[str, Any]) -> int | None:
    """How much of a conversion is done, in percent."""
    progress = known["progress"]
    if known["state"] == STACK or progress is None or progress["done"] is None or not progress["total"]:
        return None
    return min(100, 100 * int(progress["done"]) // int(progress["total"]))


def _glanced(dataset: Dataset, around: Around) -> Card:
    """The card of a dataset of which only its `info` was looked at."""
    info, path = dataset.volume.info, dataset.path
    kind = {"type": info.volume_type, "data_type": info.data_type, "num_channels": info.num_channels}
    return Card(
        title=dataset.title,
        path=path or "/",
        page=around.base + page_url(path),
        opener=around.opener(path),
        editor=around.editor(path),
        size=size_text(info.scales[0].size),
        voxel_size=lengths_text(info.scales[0].resolution_nm),
        kind=kind_text(kind),
    )


def _damaged(place: Damaged, around: Around) -> Card:
    title = place.path.rpartition("/")[2] or "/"
    return Card(title, place.path or "/", around.base + page_url(place.path), UNUSABLE, place.reason)
