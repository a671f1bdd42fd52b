"""The formats in one table, and how a file is told to be of one of them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from annotation_store.exchange.geojson import read_geojson, write_geojson
from annotation_store.exchange.jsonlines import read_json_lines, write_json_lines
from annotation_store.exchange.rows import MARK, Export, Reading
from annotation_store.exchange.swc import is_fibre, read_swc, write_swc
from annotation_store.exchange.table import read_table, write_table
from annotation_store.exchange.viewer_reading import read_viewer
from annotation_store.model import GEOMETRY, Item
from precomputed_server.errors import InvalidInput

Edges = tuple[float, float, float] | None
NEUROGLANCER = "neuroglancer"


@dataclass(frozen=True)
class Format:
    """One format; `in_parts`: a file of it may be imported in parts. Without `write` it is only read.

    `holds` tells which annotations it can hold by their type; None: all of them.
    """

    media_type: str
    suffix: str
    read: Callable[[Iterable[bytes], Edges], Reading]
    write: Callable[[Export], Iterator[bytes]] | None = None
    in_parts: bool = True
    holds: Callable[[Item], bool] | None = None


FORMATS = {
    "csv": Format("text/csv; charset=utf-8", ".csv", lambda pieces, _: read_table(pieces), write_table),
    "swc": Format("text/plain; charset=utf-8", ".swc", read_swc, write_swc, holds=is_fibre),
    "geojson": Format("application/geo+json", ".geojson", lambda pieces, _: read_geojson(pieces), write_geojson),
    "jsonl": Format("application/jsonl", ".jsonl", lambda pieces, _: read_json_lines(pieces), write_json_lines),
    NEUROGLANCER: Format("application/json", ".json", read_viewer, in_parts=False),
}
WRITTEN = tuple(name for name, format in FORMATS.items() if format.write is not None)

_LOOKED_AT = 1 << 16
_OURS = f'{{"{MARK}"'
"""How the header of our JSON lines begins, which may be longer than what is looked at."""
_OF_A_STATE = re.compile(r'"(layers|dimensions|navigation|voxelSize|position|crossSectionScale)"')
_LINK = re.compile(r"\s*\S*#!")
_NODE = re.compile(r"\s*(#|-?\d+\s+-?\d+\s+\S+\s+\S+\s+\S+\s+\S+\s+-?\d+\s)")


def format_named(name: str, among: Iterable[str] = tuple(FORMATS)) -> Format:
    """The format of that name, in capitals or not; raises InvalidInput."""
    if name.lower() not in among:
        raise InvalidInput(f"There is no format {name[:40]!r} here; choose of {', '.join(among)}.")
    return FORMATS[name.lower()]


def format_of(head: bytes) -> str:
    """The name of the format of a file that begins like this; raises InvalidInput for JSON that is of none."""
    text = head[:_LOOKED_AT].decode(errors="replace").removeprefix("\ufeff")
    if _LINK.match(text):
        return NEUROGLANCER
    text = text.lstrip()
    if text.startswith("{"):
        return _json_format(text)
    if text.startswith("["):
        raise InvalidInput(
            "The file is a JSON list, as annotation files are, and no format that is imported; export what it holds as"
            " JSON lines, or PUT it to its own address."
        )
    return "swc" if _NODE.match(text) else "csv"


def _json_format(text: str) -> str:
    first = _object_or_none(text.partition("\n")[0])
    kind = (first or {}).get("type")
    if text.startswith(_OURS) or "annotation" in (first or {}) or (isinstance(kind, str) and kind in GEOMETRY):
        return "jsonl"
    if '"Feature' in text:
        return "geojson"
    whole = _object_or_none(text) if len(text) < _LOOKED_AT else None
    if not _OF_A_STATE.search(text) if whole is None else "layers" not in whole:
        raise InvalidInput(
            "The file is JSON, but neither a Neuroglancer state (which has layers) nor GeoJSON nor JSON lines; --format"
            " (?format=) says what else it is."
        )
    return NEUROGLANCER


def _object_or_none(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
