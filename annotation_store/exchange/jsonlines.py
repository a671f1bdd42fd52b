"""JSON lines: a header with what the file was made from, then one line for each annotation, whole as it is stored.

`{"block": "x0y0z0", "leaf": "fibers", "annotation": {…}}`. Block and leaf may be missing. A line that is an annotation
itself, with its `type`, is read too. The last line, `{"precomputed_annotations_end": N}`, says that the file is whole
and how many annotations it had.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from annotation_store.exchange.fields import fields_of
from annotation_store.exchange.rows import MARK, Dialect, End, Export, Lines, Origin, Reading, Row
from annotation_store.exchange.text import gathered, lines_of, object_of, placed_by
from annotation_store.model import Item, check_item
from precomputed_server.errors import InvalidInput

_END = f"{MARK}_end"


def write_json_lines(export: Export) -> Iterator[bytes]:
    """The file, in pieces."""
    return gathered(_lines(export))


def _lines(export: Export) -> Iterator[bytes]:
    yield orjson.dumps(export.origin.to_json()) + b"\n"
    count = 0
    dumps = orjson.dumps
    written = export.lines
    if written is None:
        written = (Lines(each.block, each.leaf, (dumps(each.item),)) for each in export.annotations)
    for some in written:
        count += len(some.lines)
        begin = b'{"block":%b,"leaf":%b,"annotation":' % (dumps(some.block), dumps(some.leaf))
        yield begin + (b"}\n" + begin).join(some.lines) + b"}\n"
    yield dumps({_END: count}) + b"\n"


def read_json_lines(pieces: Iterable[bytes]) -> Reading:
    """The file's rows; the first line is read at once. Raises InvalidInput and its kin, naming the line."""
    numbered = ((number, line) for number, line in enumerate(lines_of(pieces), 1) if not line.isspace())
    first = next(numbered, None)
    if first is None:
        return Reading(None, iter(()), Dialect())
    members = object_of(first[1], f"line {first[0]}")
    if MARK in members:
        end = End(is_met=False)
        return Reading(Origin.from_json(members), _rows(numbered, end), Dialect(), end=end)
    return Reading(None, _rows(itertools.chain([first], numbered), End()), Dialect())


def _rows(lines: Iterable[tuple[int, str]], end: End) -> Iterator[Row]:
    for number, line in lines:
        where = f"line {number}"
        members = object_of(line, where)
        if _END in members:
            end.is_met = True
        else:
            yield _row(members, where)


def _row(members: dict[str, Any], where: str) -> Row:
    place: tuple[str | None, str | None] = None, None
    if "annotation" in members:
        place = placed_by(members, where)
        members = members["annotation"]
    elif MARK in members:
        raise InvalidInput(f"{where} is a header: one file at a time can be imported.")
    if not isinstance(members, dict):
        raise InvalidInput(f"{where}: the annotation must be an object.")
    item: Item = members
    check_item(item, where)
    return Row(where, item["id"], fields_of(item), *place)
