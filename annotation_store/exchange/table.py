"""CSV (RFC 4180): one row for each annotation, its coordinates in voxels.

Columns may be missing: then the table says nothing of them. Without `type`, rows with `x,y,z` are points.

`x,y,z` are those of a point, of pointA, or of a centre; `x2,y2,z2` those of pointB; `rx,ry,rz` are radii; `points` is
the JSON list of a polygon's or linestring's points. What a column cannot say exactly (a field that is not known here,
an empty text, a text that a spreadsheet would take for a formula) is in `extra`, a JSON object. Numbers are written so
that they are read as the same ones: `5` is an integer and `5.0` is not. The last column, `end`, is empty but in the
last row, where it has the number of rows: a table that has the column and no such row is not whole.

`confirmed_by` and `confirmed_at` say who confirmed the annotation as it lies there, and when. They are not read: the
confirmation itself is the field `review`, in `extra`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from annotation_store.exchange.fields import PLACE, Fields, fields_of, geometry_names, id_of
from annotation_store.exchange.rows import Dialect, End, Export, Reading, Row
from annotation_store.exchange.text import dumped, gathered, lines_of, object_of
from annotation_store.model import Item, check_id, check_item
from annotation_store.review import REVIEW, is_confirmed
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
_TOLD = ("confirmed_by", "confirmed_at")
_PLACES = ("block", "leaf", "version", "end")
COLUMNS = ("id", "type", *_COORDINATES, *_TEXTS, *_FLAGS, *_TOLD, "length", "segments", "extra", *_PLACES)
"""The columns that are written; a file that is read may leave some out, and then says nothing of them."""

_AT = {name: number for number, name in enumerate(COLUMNS)}
_VECTOR_CELLS = {name: columns[0] for name, columns in _VECTORS.items()}
_EMPTY = {
    name: ",," if name in _VECTOR_CELLS.values() else ""
    for name in COLUMNS[:-4]
    if name not in _COORDINATES or name in ("points", *_VECTOR_CELLS.values())
}
"""The cells of a row before block, leaf and version; the three of a vector are one."""

_QUOTE = '"'
_SPECIAL = re.compile('[",\r\n]')
_COORDINATES_ONLY = re.compile(r"[0-9.eE+-]+,[0-9.eE+-]+,[0-9.eE+-]+")
_SIGNS = "=+\\-@\uff1d\uff0b\uff0d\uff20"
_ENDS = "\\x85\\u2028\\u2029"
_FORMULA = re.compile(rf"(?:^|[;|\t\r\n\v\f\x1c-\x1e{_ENDS}])[\s\"']*[{_SIGNS}]")
"""What a spreadsheet runs: a sign, also a wide one, first in a cell or behind what may part cells or lines, blanks and
quotes aside."""
_IN_JSON = re.compile(rf"([;|{_ENDS}](?:\s|\\?[\"'])*)([{_SIGNS}])")
_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_LONGEST_CELL = 1 << 30


def write_table(export: Export) -> Iterator[bytes]:
    """The file, in pieces."""
    return gathered(_lines(export))


def _lines(export: Export) -> Iterator[bytes]:
    yield ",".join(COLUMNS).encode() + b"\r\n"
    place: tuple[str, str, int | None] | None = None
    end, line, count = "", b"", 0
    for placed in export.annotations:
        count += 1
        if place != (placed.block, placed.leaf, placed.version):
            place = placed.block, placed.leaf, placed.version
            version = "" if placed.version is None else str(placed.version)
            end = ",".join((_name(placed.block), _name(placed.leaf), version, ""))
        if line:
            yield line + b"\r\n"
        line = _line(placed.item, end).encode()
    if line:
        yield line + b"%d\r\n" % count


def _line(item: Item, end: str) -> str:
    """The row of an annotation: its cells, of which three that belong together are one text."""
    cells = dict(_EMPTY)
    extra = {}
    places = geometry_names(item)
    for name, value in item.items():
        if name in places:
            cell = _points(value) if name == "points" else _vector(value)
            column = _VECTOR_CELLS.get(name, name)
        else:
            spell = _SPELLINGS.get(name)
            cell, column = None if spell is None else spell(value), name
        if cell is None:
            extra[name] = value
        else:
            cells[column] = cell
    if REVIEW in item and is_confirmed(item):
        review = item[REVIEW]
        cells |= {"confirmed_by": _text(review["author"]) or "", "confirmed_at": _text(review["time"]) or ""}
    if extra:
        cells["extra"] = _json(extra)
    return ",".join((*cells.values(), end))


def _quoted(text: str) -> str:
    """A text as a cell."""
    return f'"{text.replace(_QUOTE, _QUOTE * 2)}"' if _SPECIAL.search(text) else text


def _text(value: object) -> str | None:
    return None if type(value) is not str or not value or _FORMULA.search(value) else _quoted(value)


def _spelled_flag(value: object) -> str | None:
    return None if type(value) is not bool else "true" if value else "false"


def _spelled_number(value: object) -> str | None:
    return dumped(value) if type(value) is int or type(value) is float else None


def _spelled_list(value: object) -> str | None:
    return _json(value) if type(value) is list else None


def _json(value: object) -> str:
    """A value as a cell of JSON, which begins with a bracket; a sign that would begin a cell behind it is escaped."""
    text = _IN_JSON.sub(lambda found: f"{found[1]}\\u{ord(found[2]):04x}", dumped(value))
    return _quoted(text)


def _name(name: str) -> str:
    """The name of a block or leaf as a cell: no name begins with a quote, behind which a minus is none."""
    return _quoted(f"'{name}" if name.startswith("-") else name)


def _points(value: object) -> str | None:
    text = dumped(value) if type(value) is list else _QUOTE
    return None if _QUOTE in text else f'"{text}"'


def _vector(value: object) -> str | None:
    if type(value) is not list or len(value) != 3:
        return None
    text = dumped(value)[1:-1]
    return text if _COORDINATES_ONLY.fullmatch(text) else None


_SPELLINGS: Mapping[str, Callable[[object], str | None]] = {
    **dict.fromkeys(("id", "type", *_TEXTS), _text),
    **dict.fromkeys(_FLAGS, _spelled_flag),
    "length": _spelled_number,
    "segments": _spelled_list,
}


def read_table(pieces: Iterable[bytes]) -> Reading:
    """The file's rows; the heading is read at once. Raises InvalidInput and its kin, naming row and column."""
    csv.field_size_limit(_LONGEST_CELL)
    table = _Table(lines_of(pieces))
    return Reading(None, table.rows(), Dialect(), end=table.end)


class _Table:
    """A table whose heading has been read."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._reader = csv.reader(lines, strict=True)
        heading = [name.strip() for name in self._next() or []]
        _check_heading(heading)
        self._heading = heading
        self._names = frozenset(heading).difference(_TOLD)
        self.end = End()
        self._is_place = bool({"type", "x"} & self._names)
        self._missing = frozenset({*_TEXTS, *_FLAGS, "length", "segments"} - self._names)

    def rows(self) -> Iterator[Row]:
        """The rows that are not empty."""
        ends = "end" in self._names
        at = self._heading.index("end") if ends else 0
        while (cells := self._next()) is not None:
            if any(cells):
                row = self._row(cells, f"line {self._reader.line_num}")
                if ends:
                    self.end.is_met, ends = bool(cells[at].strip()), not cells[at].strip()
                yield row

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
        if version is not None and (not isinstance(version, int) or version < 1):
            raise InvalidInput(f"{where}: version {version} is no whole number above 0.")
        if self._is_place:
            check_item({"id": "new", **item}, where)
            fields: Fields = fields_of(item)
            item.setdefault("id", id_of(fields))
        else:  # a table of fields of annotations that there are
            fields = {name: value for name, value in item.items() if name != "id"}
        check_id(item.get("id"), where)
        block, leaf = (named[name].removeprefix("'") if name in named else None for name in ("block", "leaf"))
        return Row(where, item["id"], fields, block, leaf, version, self._knows)


def _check_heading(heading: list[str]) -> None:
    """Raise InvalidInput for a first row that names no columns, with what is wrong with it."""
    separator = next((mark for mark in ";\t" if len(heading) == 1 and mark in heading[0]), None)
    if separator is not None:
        shown = "semicolons" if separator == ";" else "tabs"
        raise InvalidInput(
            f"The table has {shown} between its columns; save it with commas, and with a point in its numbers."
        )
    unknown = [name for name in heading if name not in _AT]
    if unknown or len(set(heading)) < len(heading) or not {"id", "x", "points"} & set(heading):
        wrong = f"{unknown[0][:40]!r} is none of them" if unknown else "each once, and id or coordinates"
        raise InvalidInput(f"The first row must name columns of {', '.join(COLUMNS)}: {wrong}.")
    for columns in dict.fromkeys(_VECTORS.values()):
        missing = [name for name in columns if name not in heading]
        if 0 < len(missing) < len(columns):
            there = ", ".join(name for name in columns if name in heading)
            raise InvalidInput(f"The table has {there}, but no column {' and '.join(missing)}: a place has all three.")


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
