"""The formats in one table, and how a file is told to be of one of them. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from annotation_store.exchange.geojson import read_geojson, write_geojson
from annotation_store.exchange.jsonlines import read_json_lines, write_json_lines
from annotation_store.exchange.rows import MARK, Export, Reading
from annotation_store.exchange.swc import read_swc, write_swc
from annotation_store.exchange.table import read_table, write_table
from annotation_store.exchange.viewer_reading import read_viewer
from annotation_store.model import GEOMETRY
from precomputed_server.errors import InvalidInput

Edges = tuple[float, float, float] | None
NEUROGLANCER = "neuroglancer"


@dataclass(frozen=True)
class Format:
    """One format; `in_parts`: a file of it may be imported in parts. Without `write` it is only read."""

    media_type: str
    suffix: str
    read: Callable[[Iterable[bytes], Edges], Reading]
    write: Callable[[Export], Iterator[bytes]] | None = None
    in_parts: bool = True


FORMATS = {
    "csv": Format("text/csv; charset=utf-8", ".csv", lambda pieces, _: read_table(pieces), write_table),
    "swc": Format("text/plain; charset=utf-8", ".swc", read_swc, write_swc),
    "geojson": Format("application/geo+json", ".geojson", lambda pieces, _: read_geojson(pieces), write_geojson),
    "jsonl": Format("application/jsonl", ".jsonl", lambda pieces, _: read_json_lines(pieces), write_json_lines),
    NEUROGLANCER: Format("application/json", ".json", read_viewer, in_parts=False),
}
WRITTEN = tuple(name for name, format in FORMATS.items() if format.write is not None)

_LOOKED_AT = 1 << 16
_LINK = re.compile(r"\s*\S*#!")
_NODE = re.compile(r"\s*(#|-?\d+\s+-?\d+\s+\S+\s+\S+\s+\S+\s+\S+\s+-?\d+\s)")


def format_named(name: str, among: Iterable[str] = tuple(FORMATS)) -> Format:
    """The format of that name; raises InvalidInput."""
    if name not in among:
        raise InvalidInput(f"There is no format {name[:40]!r} here; choose of {', '.join(among)}.")
    return FORMATS[name]


def format_of(head: bytes) -> str:
    """The name of the format of a file that begins like this."""
    text = head[:_LOOKED_AT].decode(errors="replace").removeprefix("\ufeff")
    if _LINK.match(text):
        return NEUROGLANCER
    if text.lstrip().startswith("{"):
        return _json_format(text.lstrip())
    return "swc" if _NODE.match(text) else "csv"


def _json_format(text: str) -> str:
    try:
        first = json.loads(text.partition("\n")[0])
    except (ValueError, RecursionError):
        first = {}
    kind = first.get("type")
    if MARK in first or "annotation" in first or (isinstance(kind, str) and kind in GEOMETRY):
        return "jsonl"
    return "geojson" if '"Feature' in text else NEUROGLANCER
