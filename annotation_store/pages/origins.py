"""What a page holds, counted from what it held before: so a line of the journal says one edit, not all of them. Pure.

A page that stays open while others edit differs from the stored file in more and more annotations, but from what it
held before its last edit in one. Such a line can only be read after those that it is counted from, so now and then one
is counted from a stored version again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from annotation_store.history.delta import Delta, difference, patched
from annotation_store.model import Item, Items

_MOST_LINES = 64
_LONGEST_S = 3600.0
"""What a chain of lines begins with is so much older than its end at most: both must still be there to be read."""
_MOST_BETWEEN = 10_000
"""How many lines about its leaf a chain may span."""
_MOST_KNOWN = 128

Change = tuple[str, Delta]
"""An annotation's id, and what makes of it what it is now."""


@dataclass(frozen=True)
class Holding:
    """What a page holds: the stored version of `etag` (None: nothing) without `missing` and with `differing`.

    Where `origin` is the number of a shadow, that shadow's content takes the place of the version; `changes` are then
    those of annotations that differed in it already.
    """

    etag: str | None = None
    missing: tuple[str, ...] = ()
    differing: tuple[Item, ...] = ()
    origin: str | None = None
    changes: tuple[Change, ...] = ()

    @property
    def size(self) -> int:
        """How many annotations it names."""
        return len(self.missing) + len(self.differing) + len(self.changes)

    def to_json(self) -> dict[str, Any]:
        """The members of a line beside the entity tag."""
        given = {"origin": self.origin, "missing": self.missing, "differing": self.differing, "changes": self.changes}
        return {name: value for name, value in given.items() if value}

    @classmethod
    def from_json(cls, members: Mapping[str, Any], etag: str | None) -> Holding:
        """What those members say."""
        missing, differing = tuple(members.get("missing", ())), tuple(members.get("differing", ()))
        changes = tuple((id, delta) for id, delta in members.get("changes", ()))
        return cls(etag, missing, differing, members.get("origin"), changes)


@dataclass(frozen=True)
class Origin:
    """A shadow from which what a page holds can be counted: its content, and what of it its own lines say."""

    number: str
    items: Items
    differing: tuple[Item, ...] = ()


def counted_from(origin: Origin, missing: Sequence[str], differing: Sequence[Item]) -> Holding:
    """The shadow `origin` without `missing` and with `differing`.

    An annotation that differed before is named by what changed in it: all of a drag is about one.
    """
    known = {item["id"]: item for item in origin.differing}
    whole, changes = [], []
    for item in differing:
        delta = difference(known[item["id"]], item) if item["id"] in known else None
        if delta is None:
            whole.append(item)
        else:
            changes.append((item["id"], delta))
    return Holding(None, tuple(missing), tuple(whole), origin.number, tuple(changes))


@dataclass(frozen=True)
class _Known:
    """A shadow's content, counted from a stored version, and the chain of lines that says it: its length and begin."""

    holding: Holding
    lines: int
    begun: float
    place: int


class Origins:
    """The shadows of one page that were noted last, by their numbers, whether or not it still holds them."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def note(self, number: str, holding: Holding, now: float, place: int, *, alone: bool = False) -> Holding | None:
        """Note a shadow and give it counted from a stored version; None when its origin is not known any longer.

        The line is the one of number `place` about its leaf, made at `now`; `alone`: no other process can read it.
        """
        origin = _Known(Holding(), 0, now, place)
        if holding.origin is not None:
            before = self._known.get(holding.origin)
            composed = None if before is None else _composed(before.holding, holding)
            if before is None or composed is None:
                return None
            origin, holding = before, composed
        lines = _MOST_LINES if alone else origin.lines + 1
        self._known[number] = _Known(holding, lines, origin.begun, origin.place)
        self._known.move_to_end(number)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return holding

    def may_be_counted_from(self, number: str, now: float, place: int) -> bool:
        """Whether another shadow may be counted from this one at that time, after so many lines about its leaf."""
        known = self._known.get(number)
        if known is None or known.lines >= _MOST_LINES:
            return False
        return abs(now - known.begun) < _LONGEST_S and place - known.place < _MOST_BETWEEN


def _composed(before: Holding, holding: Holding) -> Holding | None:
    """A holding, given its origin, as it is counted from what that is counted from."""
    differing = {item["id"]: item for item in before.differing}
    try:
        for id, delta in holding.changes:
            differing[id] = patched(differing[id], delta)
    except (KeyError, TypeError, ValueError):  # the origin is another one than it was
        return None
    differing.update((item["id"], item) for item in holding.differing)
    for id in holding.missing:
        differing.pop(id, None)
    missing = dict.fromkeys((*before.missing, *holding.missing))
    return Holding(before.etag, tuple(id for id in missing if id not in differing), tuple(differing.values()))
