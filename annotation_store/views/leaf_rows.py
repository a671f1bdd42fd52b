"""A leaf's file as columns; of one that was edited only the lines are read that were not there before. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from annotation_store.model import line_of, parse_stored, parse_stored_item
from annotation_store.views.collections import TYPE_OF
from annotation_store.views.rows import Array, Rows, RowsBuilder, joined, points_of
from precomputed_server.errors import Unreadable

_PIECE = 1 << 20
_BEGIN, _BETWEEN, _END = b"[\n", b",\n", b"\n]\n"


@dataclass(frozen=True)
class LeafRows:
    """The annotations of a leaf by the geometry that shows them.

    `unshown` are those that nothing can show, because their type or their coordinates are none: what tells their lines
    from others, and their ids. `anntypes` are the texts that were met.
    """

    rows: Mapping[str, Rows]
    unshown: Mapping[int, str]
    anntypes: frozenset[str]

    def __len__(self) -> int:
        return sum(map(len, self.rows.values()))


NO_ROWS = LeafRows({}, {}, frozenset())


def lines_of(data: bytes) -> list[bytes] | None:
    """The lines of a leaf's file that seems to have one annotation a line, as this program writes it; else None."""
    if data in (b"", b"[]\n"):
        return []
    return list(chain.from_iterable(_pieces(data))) if data.startswith(_BEGIN) and data.endswith(_END) else None


def parsed_lines(data: bytes) -> list[bytes]:
    """The annotations of any leaf's file, each as JSON; raises Unreadable."""
    return [line_of(item) for item in parse_stored(data).values()]


def _pieces(data: bytes) -> Iterator[list[bytes]]:
    """The lines of a file, a piece at a time: to split all of it would keep the interpreter for too long."""
    start, stop = len(_BEGIN), len(data) - len(_END)
    while start <= stop:
        end = data.find(_BETWEEN, min(start + _PIECE, stop), stop)
        end = stop if end < 0 else end
        yield data[start:end].split(_BETWEEN)
        start = end + len(_BETWEEN)


def read_leaf(lines: Sequence[bytes], known: LeafRows = NO_ROWS) -> LeafRows:
    """The annotations of these lines; those that `known` has are not read again. Raises Unreadable."""
    # Texts that are equal have the same hash; that two others have it too is as rare as a fault of the memory.
    wanted = np.fromiter((hash(line) for line in lines), np.int64, len(lines))
    ordered = np.sort(wanted)
    present = set(wanted.tolist()) if known.unshown else set()
    kept = {type: rows.take(np.flatnonzero(_is_among(rows.lines, ordered))) for type, rows in known.rows.items()}
    unshown = {line: id for line, id in known.unshown.items() if line in present}
    have = np.concatenate([np.array(list(unshown), np.int64), *(rows.lines for rows in kept.values())])
    new = np.flatnonzero(~_is_among(wanted, np.sort(have)))
    added, added_unshown, anntypes = _read(lines[at] for at in new.tolist())
    rows = {type: joined([part[type] for part in (kept, added) if type in part]) for type in kept.keys() | added.keys()}
    found = LeafRows(
        {type: rows[type] for type in sorted(rows) if len(rows[type])},
        unshown | added_unshown,
        known.anntypes | anntypes,
    )
    _check_ids(found, len(lines))
    return found


def _is_among(values: Array, ordered: Array) -> Array:
    """Whether each value is among others, which are in order."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    found: Array = ordered[at] == values
    return found


def _read(lines: Iterable[bytes]) -> tuple[dict[str, Rows], dict[int, str], frozenset[str]]:
    builders: dict[str, RowsBuilder] = {}
    unshown: dict[int, str] = {}
    anntypes = set()
    for line in lines:
        item = parse_stored_item(line)
        kind = item.get("type")
        type = TYPE_OF.get(kind) if isinstance(kind, str) else None
        if type is None or not _add(builders, type, line, item):
            unshown[hash(line)] = item["id"]
        elif isinstance(item.get("anntype"), str):
            anntypes.add(item["anntype"])
    built = {type: builder.built() for type, builder in builders.items()}
    return built, unshown, frozenset(anntypes)


def _add(builders: dict[str, RowsBuilder], type: str, line: bytes, item: dict[str, object]) -> bool:
    try:
        points = points_of(item)
    except KeyError:
        return False
    return builders.setdefault(type, RowsBuilder()).add(item, points, hash(line))


def _check_ids(found: LeafRows, count: int) -> None:
    """Raise Unreadable when two lines have the same id: an edit would not take such a file either."""
    numbers = [np.zeros(0, np.uint64), *(rows.numbers for rows in found.rows.values())]
    together = np.sort(np.concatenate(numbers))
    if len(together) == count and not np.any(together[1:] == together[:-1]):
        return
    ids = {id for rows in found.rows.values() for id in rows.ids.tolist()} | set(found.unshown.values())
    if len(ids) < count:
        raise Unreadable("the stored annotation file has one id twice.")
