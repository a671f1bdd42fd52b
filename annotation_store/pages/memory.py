"""What the lines of the journal come to: which shadows each page has of a leaf, and which slice it read last. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from annotation_store.merging.shadows import Shadow, is_prefix, succeeded
from annotation_store.pages.origins import Holding, Origins

DAY_S = 86_400.0
MOST_SHADOWS = 64
_REPLACED_S = 120.0
"""For how long what was replaced is kept: a save that had arrived before may be committed as late as that."""
_MOST_REPLACED = 16
_MOST_PAGES = 4096
_MANY = 1_000_000
_SAME_BOOT_S = 180.0


@dataclass(frozen=True)
class PageMemory:
    """What is known of a page and a leaf: `shadows` newest first, when it first read it, and whether it has saved it.

    `last_slice` is the z-NNNN leaf that it last read in the dataset, whatever the block. `origins` are the numbers of
    shadows from which what it holds next may be counted.
    """

    shadows: tuple[Shadow, ...] = ()
    last_slice: str | None = None
    first_read: float | None = None
    has_saved: bool = False
    origins: frozenset[str] = field(default=frozenset(), compare=False)


class SliceMemory:
    """The slice that each page read last in one dataset."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, str] = OrderedDict()

    def note(self, record: Mapping[str, Any]) -> None:
        """Take in a reading."""
        page = record["read"]
        self._last[page] = record["place"].rpartition("/")[2].removesuffix(".json")
        self._last.move_to_end(page)
        if len(self._last) > _MOST_PAGES:
            self._last.popitem(last=False)

    def of(self, page: str) -> str | None:
        """The leaf's name."""
        return self._last.get(page)


class PlaceMemory:
    """What each page holds of one leaf."""

    def __init__(self) -> None:
        self._pages: OrderedDict[str, _Holder] = OrderedDict()
        self._lines = 0

    def note(self, number: str, record: Mapping[str, Any]) -> None:
        """Take in a reading or a save, in the order of the journal."""
        page = record["read"] if "read" in record else record["save"]
        holder = self._pages.setdefault(page, _Holder())
        self._pages.move_to_end(page)
        self._lines += 1
        if "read" in record:
            holder.read(number, record, self._lines)
        elif record["outcome"] != "refused":  # what a page holds after that is counted from what it held before
            holder.saved(number, record, self._lines)
        if len(self._pages) > _MOST_PAGES:
            self._pages.popitem(last=False)

    def of(self, page: str, now: float, last_slice: str | None) -> PageMemory:
        """What is known of a page at the time `now`."""
        holder = self._pages.get(page)
        if holder is None:
            return PageMemory(last_slice=last_slice)
        shadows = holder.current(now)
        origins = holder.origins(shadows, now, self._lines)
        return PageMemory(shadows, last_slice, holder.first_read, holder.has_saved, origins)


class _Holder:
    """What one key holds of one leaf; `aliases` are numbers of shadows that were found again under another number."""

    def __init__(self) -> None:
        self.first_read: float | None = None
        self.has_saved = False
        self._shadows: list[Shadow] = []
        self._replaced: dict[str, float] = {}
        self._parked: set[str] = set()
        self._aliases: OrderedDict[str, str] = OrderedDict()
        self._origins = Origins()

    def read(self, number: str, record: Mapping[str, Any], place: int) -> None:
        if self.first_read is None:
            self.first_read = record["time"]
        if "slices" in record and is_prefix(record["read"]):
            # It left a slice, was not believed that it emptied it, and has come back: it holds what it reads now.
            self._shadows = [shadow for shadow in self._shadows if shadow.number not in self._parked]
        self._parked.clear()
        new = Shadow(number, record["time"], "answered", record["etag"], holders=_MANY if record.get("many") else 1)
        self._origins.note(number, Holding(new.etag), new.time, place)
        self._shadows.insert(0, new)
        self._join_equal(new)
        self._shrink(new.time)

    def saved(self, number: str, record: Mapping[str, Any], place: int) -> None:
        base = self._known_as(record.get("replaces"))
        self.has_saved = self.has_saved or record["outcome"] == "saved"
        number = record.get("number") or number
        held = None
        if record.get("missing", ()) is not None:  # else what the page holds is too much to be noted
            holding = Holding.from_json(record, record["etag"])
            held = self._origins.note(number, holding, record["time"], place, alone="unwritten" in record)
        new = _of_save(number, record, held or Holding())
        if record["outcome"] == "parked":
            self._parked.add(new.number)
        self._shadows = [shadow for shadow in self._shadows if shadow.number != new.number]  # noted twice
        for place, shadow in enumerate(self._shadows):
            if _is_of_another_time(shadow, new):
                self._shadows[place] = replace(shadow, arrived=0)
        before = {shadow.number for shadow in self._shadows if shadow.replaced_at is not None}
        self._shadows = succeeded(self._shadows, new, base)
        for shadow in self._shadows:
            if shadow.replaced_at is not None and shadow.number not in before:
                self._replaced[shadow.number] = new.time
        if held is None:
            self._shadows = [shadow for shadow in self._shadows if shadow.number != new.number]
        else:
            self._join_equal(next(shadow for shadow in self._shadows if shadow.number == new.number))
        self._shrink(new.time)

    def _known_as(self, number: str | None) -> str | None:
        while number is not None and number in self._aliases:
            number = self._aliases[number]
        return number

    def origins(self, shadows: Iterable[Shadow], now: float, place: int) -> frozenset[str]:
        """The numbers of those of the shadows from which another may be counted."""
        numbers = (shadow.number for shadow in shadows)
        return frozenset(number for number in numbers if self._origins.may_be_counted_from(number, now, place))

    def current(self, now: float) -> tuple[Shadow, ...]:
        return tuple(
            shadow if shadow.time > now - _SAME_BOOT_S else replace(shadow, arrived=0)
            for shadow in self._shadows
            if shadow.time > now - DAY_S and self._replaced.get(shadow.number, now) > now - _REPLACED_S
        )

    def _join_equal(self, new: Shadow) -> None:
        """Make one of equal shadows: the newest, held by all who held any of them."""
        for old in [shadow for shadow in self._shadows if shadow is not new and _says_the_same(shadow, new)]:
            if new.replaced_at is not None and old.replaced_at is None:
                old, new = new, old
            self._shadows.remove(old)
            self._replaced.pop(old.number, None)
            self._aliases[old.number] = new.number
            self._aliases.pop(new.number, None)
            if old.replaced_at is None:
                joined = replace(new, holders=min(_MANY, old.holders + new.holders))
                self._shadows[self._shadows.index(new)] = joined
                new = joined

    def _shrink(self, now: float) -> None:
        gone = {number for number, when in self._replaced.items() if when <= now - _REPLACED_S}
        replaced = [shadow.number for shadow in self._shadows if shadow.replaced_at is not None]
        gone |= {*replaced[_MOST_REPLACED:], *(shadow.number for shadow in self._shadows[MOST_SHADOWS:])}
        if gone:
            self._shadows = [shadow for shadow in self._shadows if shadow.number not in gone]
        for number in gone:
            self._replaced.pop(number, None)
        while len(self._aliases) > 4 * MOST_SHADOWS:
            self._aliases.popitem(last=False)


def _of_save(number: str, record: Mapping[str, Any], held: Holding) -> Shadow:
    arrived = record.get("arrived", 0)
    return Shadow(number, record["time"], "saved", held.etag, held.missing, held.differing, arrived=arrived)


def _is_of_another_time(shadow: Shadow, new: Shadow) -> bool:
    """Whether it arrived by a clock that began anew since, or so long ago that the order no longer matters."""
    late = shadow.arrived - new.arrived > _SAME_BOOT_S * 1e9 or new.time - shadow.time > _SAME_BOOT_S
    return shadow.arrived > 0 and late


def _says_the_same(first: Shadow, second: Shadow) -> bool:
    return (first.etag, first.missing, first.differing) == (second.etag, second.missing, second.differing)
