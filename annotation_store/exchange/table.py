"""CSV (RFC 4180): one row for each annotation, its coordinates in voxels.

Columns may be missing: then the table says nothing of them. Without `type`, rows with `x,y,z` are points.

`x,y,z` are those of a point, of pointA, or of a centre; `x2,y2,z2` those of pointB; `rx,ry,rz` are radii; `points` is
the JSON list of a polygon's or linestring's points. What a column cannot say exactly (a field that is not known here,
an empty text, a text that a spreadsheet would take for a formula) is in `extra`, a JSON object. Numbers are written so
that they are read as the same ones: `5` is an integer and `5.0` is not.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from annotation_store.exchange.fields import PLACE, Fields, fields_of, geometry_names, id_of
from annotation_store.exchange.rows import Dialect, Export, Placed, Reading, Row
from annotation_store.exchange.text import PIECE, dumped, lines_of, object_of
from annotation_store.model import Item, check_id, check_item
from precomputed_server.errors import InvalidAnnotation, InvalidInput

_VECTORS: Mapping[str, tuple[str, ...]] = {
    "point": ("x", "y", "z"),
    "pointA": ("x", "y", "z"),
    "center": ("x", "y", "z"),
    "pointB": ("x2", "y2", "z2"),
    "radii": ("rx", "ry", "rz"),
}
_COORDINATES = ("x", "y", "z", "x2", "y2", "z2", "rx", "ry", "rz", "points")
_TEXTS = ("anntype", "description")
_FLAGS = ("reviewed", "visited")
COLUMNS = (
    *("id", "type", *_COORDINATES, *_TEXTS, *_FLAGS, "length", "segments", "extra"),
    *("block", "leaf", "version"),
)
"""The columns that are written; a file that is read may leave some out, and then says nothing of them."""

_AT = {name: number for number, name in enumerate(COLUMNS)}
_POSITIONS = {name: [_AT[column] for column in columns] for name, columns in _VECTORS.items()}
_FORMULA = tuple("=+-@\t\r")
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_BATCH = 500
_LONGEST_CELL = 1 << 30


def write_table(export: Export) -> Iterator[bytes]:
    """The file, in pieces."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    rows: list[list[Any]] = []
    for placed in export.annotations:
        rows.append(_cells(placed))
        if len(rows) >= _BATCH:
            writer.writerows(rows)
            rows = []
            if text.tell() > PIECE:
                yield text.getvalue().encode()
                text.seek(0)
                text.truncate()
    writer.writerows(rows)
    yield text.getvalue().encode()


def _cells(placed: Placed) -> list[Any]:
    cells: list[Any] = [None] * len(COLUMNS)
    cells[-3:] = placed.block, placed.leaf, placed.version
    places = geometry_names(placed.item)
    extra = {name: value for name, value in placed.item.items() if not _put(cells, name, value, places)}
    if extra:
        cells[_AT["extra"]] = dumped(extra)
    return cells


def _put(cells: list[Any], name: str, value: Any, places: tuple[str, ...]) -> bool:  # noqa: ANN401, C901  # any JSON value
    """Put a field into its cells, if they can say it."""
    if name in ("id", "type", *_TEXTS):
        if type(value) is not str or not value or value.startswith(_FORMULA):
            return False
        cells[_AT[name]] = value
    elif name in _FLAGS:
        if type(value) is not bool:
            return False
        cells[_AT[name]] = "true" if value else "false"
    elif name == "length":
        if type(value) not in (int, float):
            return False
        cells[_AT[name]] = value
    elif name == "segments":
        if type(value) is not list:
            return False
        cells[_AT[name]] = dumped(value)
    elif name in places:
        return _put_place(cells, name, value)
    else:
        return False
    return True


def _put_place(cells: list[Any], name: str, value: Any) -> bool:  # noqa: ANN401  # any JSON value
    if type(value) is not list:
        return False
    if name == "points":
        cells[_AT[name]] = dumped(value)
        return True
    if len(value) != 3 or not all(type(number) in (int, float) for number in value):
        return False
    for at, number in zip(_POSITIONS[name], value, strict=True):
        cells[at] = number
    return True


def read_table(pieces: Iterable[bytes]) -> Reading:
    """The file's rows; the heading is read at once. Raises InvalidInput and its kin, naming row and column."""
    csv.field_size_limit(_LONGEST_CELL)
    table = _Table(lines_of(pieces))
    return Reading(None, table.rows(), Dialect())


class _Table:
    """A table whose heading has been read."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._reader = csv.reader(lines, strict=True)
        heading = [name.strip() for name in self._next() or []]
        unknown = [name for name in heading if name not in _AT]
        if unknown or len(set(heading)) < len(heading) or not {"id", "x", "points"} & set(heading):
            wrong = f"{unknown[0][:40]!r} is none of them" if unknown else "each once, and id or coordinates"
            raise InvalidInput(f"The first row must name columns of {', '.join(COLUMNS)}: {wrong}.")
        self._heading = heading
        self._names = frozenset(heading)
        self._is_place = bool({"type", "x"} & self._names)
        self._missing = frozenset({*_TEXTS, *_FLAGS, "length", "segments"} - self._names)

    def rows(self) -> Iterator[Row]:
        """The rows that are not empty."""
        while (cells := self._next()) is not None:
            if any(cells):
                yield self._row(cells, f"line {self._reader.line_num}")

    def _knows(self, name: str) -> bool:
        """Whether the table's columns can say something of a field."""
        if name == PLACE:
            return self._is_place
        return name in self._names or ("extra" in self._names and name not in self._missing)

    def _next(self) -> list[str] | None:
        try:
            return next(self._reader, None)
        except csv.Error as error:
            raise InvalidInput(f"line {self._reader.line_num} is not CSV: {error}.") from error

    def _row(self, cells: list[str], where: str) -> Row:
        if len(cells) != len(self._heading):
            raise InvalidInput(f"{where} has {len(cells)} cells, and the heading {len(self._heading)} columns.")
        named = {name: cell for name, cell in zip(self._heading, cells, strict=True) if cell}
        item: Item = object_of(named["extra"], f"{where}: extra") if "extra" in named else {}
        item |= {name: named[name] for name in ("id", "type", *_TEXTS) if name in named}
        if self._is_place and "type" not in self._names:
            item["type"] = "point"
        for name in _FLAGS:
            if name in named:
                item[name] = _flag(named[name], f"{where}: {name}")
        if "length" in named:
            item["length"] = _number(named["length"], f"{where}: length")
        item |= {name: _list(named[name], f"{where}: {name}") for name in ("segments", "points") if name in named}
        item |= _place(item, named, where)
        return self._checked(item, named, where)

    def _checked(self, item: Item, named: Mapping[str, str], where: str) -> Row:
        version = _number(named["version"], f"{where}: version") if "version" in named else None
        if not isinstance(version, (int, type(None))):
            raise InvalidInput(f"{where}: version {version} is no whole number.")
        if self._is_place:
            check_item({"id": "new", **item}, where)
            fields: Fields = fields_of(item)
            item.setdefault("id", id_of(fields))
        else:  # a table of fields of annotations that there are
            fields = {name: value for name, value in item.items() if name != "id"}
        check_id(item.get("id"), where)
        return Row(where, item["id"], fields, named.get("block"), named.get("leaf"), version, self._knows)


def _place(item: Item, named: Mapping[str, str], where: str) -> Item:
    """The coordinates of the columns that the type has; cells of other types' coordinates must be empty."""
    kind = item.get("type")
    names = geometry_names(item)
    wanted = {column for name in names for column in _VECTORS.get(name, (name,))}
    strange = next((column for column in _COORDINATES if column in named and column not in wanted), None)
    if strange is not None and names:
        raise InvalidAnnotation(f"{where}: a {kind} has no {strange}; leave that cell empty.")
    place = {}
    for name in names:
        columns = _VECTORS.get(name)
        if columns is not None and any(column in named for column in columns):
            place[name] = [_number(named.get(column, ""), f"{where}: {column}") for column in columns]
    return place


def _number(text: str, where: str) -> int | float:
    text = text.strip()
    if _INTEGER.fullmatch(text) and -(2**63) <= int(text) < 2**64:
        return int(text)
    number = float(text) if _NUMBER.fullmatch(text) else float("nan")
    if number - number != 0:
        raise InvalidAnnotation(f"{where} is {text[:40]!r}, not a number (a point is the decimal separator).")
    return number


def _flag(text: str, where: str) -> bool:
    lower = text.strip().lower()
    if lower not in ("true", "false"):
        raise InvalidAnnotation(f"{where} is {text[:40]!r}, not true or false.")
    return lower == "true"


def _list(text: str, where: str) -> list[Any]:
    value = object_of(f'{{"value":{text}}}', where).get("value")
    if not isinstance(value, list):
        raise InvalidAnnotation(f"{where} is not a JSON list.")
    return value
