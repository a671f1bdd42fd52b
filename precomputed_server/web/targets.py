"""Reading a request's path by the table of routes: pure, no I/O.

A path crosses the border here once: it is split on `/` first and each segment is percent-decoded once, so that no
encoding of `/`, `..` or NUL means anything further in.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from precomputed_server.errors import NotFound
from precomputed_server.format import names
from precomputed_server.format.names import SESSION
from precomputed_server.format.zarr import METADATA_NAMES
from precomputed_server.web.routes import (
    ACTIVITY,
    ANNOTATION_PAGE,
    API,
    BLOCKS,
    CHUNK,
    COLLECTION,
    COLLECTIONS,
    CUTOUT,
    DATASET,
    DATASET_HISTOGRAM,
    DATASET_LINK,
    DATASET_PAGE,
    DATASET_PREVIEW,
    DATASET_PROGRESS,
    DATASET_THUMBNAIL,
    DATASETS,
    EDITS,
    EVENTS,
    EXPORT,
    HEALTH,
    HISTORY,
    ICON,
    ID64,
    IMPORT,
    INDEX,
    LEAF,
    LINK,
    OPEN,
    OPENAPI,
    PARKED,
    PARKED_END,
    PARKED_SAVE,
    PROGRESS,
    RESTORE,
    REVIEW,
    REVIEW_PAGE,
    SAVED_STATE,
    SAVES,
    STATES,
    STATIC,
    TREE,
    VIEWER,
    VIEWER_STATE,
    Route,
)
from precomputed_server.web.segments import checked, segment_of

DATASETS_SEGMENT = "datasets"
PAGES = {"review": REVIEW_PAGE, "annotations": ANNOTATION_PAGE}
"""What a last segment means behind a dataset's page; with a slash at its end it is a part of the dataset's path."""

_FIRST_SEGMENTS: Mapping[str, Route | None] = {
    "index.html": INDEX,
    "api": API,
    "openapi.json": OPENAPI,
    "neuroglancer": VIEWER,
    "static": STATIC,
    "states": STATES,
    "favicon.ico": ICON,
    "healthz": HEALTH,
    DATASETS_SEGMENT: DATASET_PAGE,
    # Kept for what comes, so that no dataset settles there.
    "client": None,
    "login": None,
    "readyz": None,
    "metrics": None,
}
RESERVED = tuple(_FIRST_SEGMENTS)
"""First segments that are ours; a directory of that name is reached as `/~/NAME`."""

_REMEMBERED = 256
"""Characters up to which a path that was read is remembered: clients ask for the same ones again and again."""

_SESSION = re.compile(rf"~({SESSION})(\.voxel)?")
_LITERAL = "~"
_OPEN = "open"
_CUTOUT = "cutout"
_SLASH = re.compile("%2f", re.IGNORECASE)
_CHUNK_PATH = re.compile(r"-?[0-9]+--?[0-9]+_-?[0-9]+--?[0-9]+_-?[0-9]+--?[0-9]+(\.tiff)?")


@dataclass(frozen=True)
class Session:
    """Which page a request comes from; with `voxel_view` it sees `info` in voxels instead of nanometres."""

    name: str
    voxel_view: bool


@dataclass(frozen=True)
class Target:
    """What a request's path names: `path` is relative to the root, `directory` tells a trailing `/`."""

    route: Route
    path: str
    directory: bool = False
    session: Session | None = None
    parts: Mapping[str, str] = field(default_factory=dict)

    def of_leaf(self, block: str, leaf: str) -> Target:
        """The target of a leaf of the same dataset."""
        return replace(self, route=LEAF, parts={"dataset": self.parts["dataset"], "block": block, "leaf": leaf})


def tree_url(path: str) -> str:
    """The percent-encoded URL path, without its first slash, of something in the tree."""
    reserved = path.partition("/")[0]
    literal = "~/" if reserved in RESERVED or reserved.startswith("~") else ""
    return literal + quote(path)


def dataset_path(text: str) -> str:
    """The path of a dataset that a parameter names, `.` for the root; raises InvalidPath for what no file may have."""
    return "" if text == _ROOT else "/".join(checked(part) for part in text.split("/") if part)


def parse_target(raw_path: str) -> Target:
    """Read the path of a request line, percent-encoded and without its query.

    Raises InvalidPath for segments that no file may have, NotFound for reserved, hidden and misspelled ones.
    """
    return _known_target(raw_path) if len(raw_path) <= _REMEMBERED else _read_target(raw_path)


def _read_target(raw_path: str) -> Target:
    catalogued = _catalog_target(raw_path)
    if catalogued is not None:
        return catalogued
    segments = [segment_of(text) for text in raw_path.split("/") if text]
    directory = raw_path.endswith("/")
    session, segments, literal = _take_prefixes(segments)
    shown = segments[:-1] if segments and segments[-1] in METADATA_NAMES and not directory else segments
    if any(segment.startswith(".") for segment in shown):
        raise NotFound("Names that begin with a dot are not served.")
    if not literal and segments and segments[0] in _FIRST_SEGMENTS:
        return _reserved_target(segments, directory, session)
    if not segments and not literal:
        return Target(INDEX, "", directory, session)
    route, parts = _tree_route(segments, directory)
    return Target(route, "/".join(segments), directory, session, parts)


def _reserved_target(segments: list[str], directory: bool, session: Session | None) -> Target:
    """What a path means whose first segment is ours; raises NotFound for those that mean nothing yet."""
    route = _FIRST_SEGMENTS[segments[0]]
    if route is VIEWER and segments[1:2] == [_OPEN]:
        return Target(OPEN, "/".join(segments[2:]), directory, session, {"dataset": "/".join(segments[2:])})
    if route is DATASET_PAGE:
        return _page_target(segments[1:], directory, session)
    if route is STATES and len(segments) > 1:
        return Target(SAVED_STATE, "/".join(segments[1:]), directory, session, {"id": "/".join(segments[1:])})
    if route is None:
        raise NotFound(f"/{segments[0]} is reserved; a directory of that name is /~/{segments[0]}/.")
    return Target(route, "/".join(segments[1:]), directory, session)


def _page_target(segments: list[str], directory: bool, session: Session | None) -> Target:
    """The page of a dataset, or one behind it."""
    route = None if directory or not segments else PAGES.get(segments[-1])
    dataset = segments if route is None else segments[:-1]
    path = "/".join(dataset[1:] if dataset[:1] == [_LITERAL] else dataset)
    return Target(route or DATASET_PAGE, path, directory, session, {"dataset": path})


def _catalog_target(raw_path: str) -> Target | None:
    """A path of the catalog; a dataset's path may be one segment of it, with `%2F` for a slash, and `.` is the root."""
    texts = [text for text in raw_path.split("/") if text]
    if texts == ["api", "v1", "link"]:
        return Target(LINK, "")
    if texts[:3] != ["api", "v1", "datasets"]:
        return None
    rest = [part for text in texts[3:] for part in _SLASH.split(text) if part]
    parts = [_ROOT if number == 0 and part == _ROOT else segment_of(part) for number, part in enumerate(rest)]
    if any(part.startswith(".") for part in (parts[1:] if parts[:1] == [_ROOT] else parts)):
        raise NotFound("Names that begin with a dot are not served.")
    path = "/".join(parts)
    if raw_path.endswith("/"):  # surely a dataset, even where it is named like what is known of one
        return _dataset_target(path) if path else Target(DATASETS, "")
    return _of_catalog(path) if path else Target(DATASETS, "")


_OF_CATALOGUED: Mapping[str, Route] = {
    "histogram": DATASET_HISTOGRAM,
    "thumbnail.png": DATASET_THUMBNAIL,
    "preview.png": DATASET_PREVIEW,
    "link": DATASET_LINK,
    "annotations/progress": DATASET_PROGRESS,
}
_ROOT = "."


def _of_catalog(path: str) -> Target:
    """A dataset, or what is known of it by the last segments; whoever answers looks whether `path` is a dataset."""
    for suffix, route in _OF_CATALOGUED.items():
        if path == suffix or path.endswith(f"/{suffix}"):
            dataset = path.removesuffix(suffix).rstrip("/")
            return Target(route, path, parts={"dataset": "" if dataset == _ROOT else dataset})
    return _dataset_target(path)


def _dataset_target(path: str) -> Target:
    return Target(DATASET, path, parts={"dataset": "" if path == _ROOT else path})


_known_target = functools.lru_cache(maxsize=8192)(_read_target)


def _take_prefixes(segments: list[str]) -> tuple[Session | None, list[str], bool]:
    """Split off the session prefix `~NAME` and the literal prefix `~`, in this order."""
    session = None
    if segments and segments[0].startswith("~") and segments[0] != _LITERAL:
        match = _SESSION.fullmatch(segments[0])
        if match is None:
            raise NotFound(
                "A session prefix is /~NAME/ or /~NAME.voxel/, where NAME is 3 to 64 letters, digits, - or _."
            )
        session, segments = Session(match[1], match[2] is not None), segments[1:]
    literal = bool(segments) and segments[0] == _LITERAL
    return session, segments[1:] if literal else segments, literal


def _tree_route(segments: list[str], directory: bool) -> tuple[Route, dict[str, str]]:
    if names.COLLECTIONS in segments:
        return _collection_route(segments)
    if directory:
        return TREE, {}
    found = _annotation_route(segments)
    if found is not None:
        return found
    if segments and _CHUNK_PATH.fullmatch(segments[-1]):
        return CHUNK, {}
    if len(segments) > 1 and segments[-1] == _CUTOUT:
        return CUTOUT, {}
    return TREE, {}


_OF_DATASET = {
    "blocks": BLOCKS,
    "history": ACTIVITY,
    "edits": EDITS,
    "events": EVENTS,
    "parked": PARKED,
    "saves": SAVES,
    "export": EXPORT,
    "import": IMPORT,
    "state": VIEWER_STATE,
    "progress": PROGRESS,
    "review": REVIEW,
}
_OF_LEAF = {"history": HISTORY, "restore": RESTORE}


def _annotation_route(segments: list[str]) -> tuple[Route, dict[str, str]] | None:
    """What a path below the last `annotations` means; None for what is a file there."""
    if "annotations" not in segments[-4:-1]:
        return None
    at = len(segments) - 1 - segments[::-1].index("annotations")
    dataset, rest = {"dataset": "/".join(segments[:at])}, segments[at + 1 :]
    if len(rest) == 1:
        route = _OF_DATASET.get(rest[0])
        return None if route is None else (route, dataset)
    if rest[0] == "parked":
        parts = dataset | {"id": rest[1]}
        if len(rest) == 3:
            return (PARKED_END, parts | {"how": rest[2]}) if rest[2] in ("apply", "discard") else None
        return PARKED_SAVE, parts
    if rest[0] == "id64" and len(rest) == 2 and rest[1].isdigit():
        return ID64, dataset | {"n": rest[1]}
    if len(rest) == 2 and rest[1].endswith(".json"):
        return LEAF, dataset | {"block": rest[0], "leaf": rest[1].removesuffix(".json")}
    if len(rest) == 3 and rest[2] in _OF_LEAF:
        return _OF_LEAF[rest[2]], dataset | {"block": rest[0], "leaf": rest[1].removesuffix(".json")}
    return None


def _collection_route(segments: list[str]) -> tuple[Route, dict[str, str]]:
    """What a path at or below the last `annotations.precomputed` means."""
    at = len(segments) - 1 - segments[::-1].index(names.COLLECTIONS)
    dataset, rest = {"dataset": "/".join(segments[:at])}, segments[at + 1 :]
    if not rest:
        return COLLECTIONS, dataset
    return COLLECTION, dataset | {"collection": rest[0], "file": "/".join(rest[1:])}
