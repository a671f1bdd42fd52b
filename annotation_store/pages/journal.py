"""What the pages of this host were answered and have saved, for every process of this host.

Nothing of it is synced: it has to outlive a process, not the machine. Whatever goes wrong with it, reading annotations
goes on; without it, saves are compared with what was stored within the last day.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from annotation_store.blocks import slice_digits
from annotation_store.history.instants import instant_of
from annotation_store.pages.hourly import Appender, Line, Reader
from annotation_store.pages.memory import PageMemory as PageMemory
from annotation_store.pages.memory import PlaceMemory, SliceMemory
from annotation_store.pages.origins import Holding
from precomputed_server.files import join
from precomputed_server.format.names import ANNOTATIONS
from precomputed_server.recent import Recent

LONGEST_LINE = 4 << 20
"""Bytes: of a save that left its page with more that differs, only that it was made is noted."""

_NOTED_ANEW_S = 10.0
_NOTED_AT_MOST = 4
"""How often one reading is noted within that time: so many pages of a key may have opened a leaf together."""
_MOST_NOTED = 10_000
_PLACES = 1000
_MOST_LINES = 20_000
"""Of a leaf's lines no older ones are read; what a page holds spans half as many."""
_MOST_SAVES = 100
_MOST_SCANNED_SAVES = 1000
_BEGINNINGS = (b'{"read":', b'{"save":')


class Journal:
    """The journal in `directory`; without one nothing is kept and no page is known.

    Safe between threads and processes; `clock` gives seconds since 1970.
    """

    def __init__(self, directory: Path | None, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._boot = _boot()
        self._appender = None if directory is None else Appender(directory, clock)
        self._reader = None if directory is None else Reader(directory, clock)
        self._noted: dict[tuple[object, ...], tuple[float, int]] = {}
        self._reading = threading.Lock()
        self._forget()

    def close(self) -> None:
        """Give the files back."""
        if self._appender is not None:
            self._appender.close()

    def note_read(self, page: str, place: str, etag: str | None, state: object = None) -> None:
        """Note what a page is about to be answered: the version of `etag` of the leaf at `place`, None for nothing.

        What was noted a moment ago is passed over, unless `state` is another one. Never raises.
        """
        if self._appender is None:
            return
        page, place = _spelled(page), _spelled(place)
        now = self._clock()
        times = self._times(now, (page, place, etag, state))
        if times <= _NOTED_AT_MOST:
            record: dict[str, object] = {"read": page, "place": place, "time": now, "etag": etag, **self._moment()}
            if times == _NOTED_AT_MOST:
                record["many"] = True
            directory, leaf = _parts(place)
            if slice_digits(leaf) is not None:
                record["slices"] = directory
            self._appender.append(_line(record), now)

    def note_save(  # noqa: PLR0913  # the members of a line
        self,
        page: str,
        place: str,
        *,
        outcome: str,
        replaces: str | None = None,
        number: str | None = None,
        held: Holding | None = None,
        version: int | None = None,
        kept: str | None = None,
        reason: str | None = None,
        arrived: int = 0,
    ) -> None:
        """Note a save of a page, which holds `held` now, nothing without it.

        `replaces` and `number` are those of the shadows that it held and holds; `outcome` is saved, parked, unchanged
        or refused, after which nothing is known of what it holds. Never raises.
        """
        if self._appender is None:
            return
        page, place = _spelled(page), _spelled(place)
        now = self._clock()
        held = held or Holding()
        record: dict[str, object] = {"save": page, "place": place, "time": now, "etag": held.etag, "outcome": outcome}
        given = {"number": number, "replaces": replaces, "version": version, "kept": kept, "reason": reason}
        record |= {name: value for name, value in given.items() if value is not None}
        record |= ({"arrived": arrived} if arrived else {}) | self._moment()
        said = held.to_json()
        line = _line(record | said)
        if len(line) > LONGEST_LINE:
            line = _line(record | {"missing": None})
        if not self._appender.append(line, now):
            with self._reading:  # this process at least knows it
                pages = self._places.get(place)
                if pages is not None:
                    pages.note(f"unwritten-{number}", record | said | {"unwritten": True})

    def page(self, page: str, place: str) -> PageMemory:
        """What is known of a page and of the leaf at `place`, from what any process of this host has noted."""
        if self._reader is None:
            return PageMemory()
        page, place = _spelled(page), _spelled(place)
        directory, _ = _parts(place)
        with self._reading:
            self._catch_up(self._reader)
            slices = self._slices.get(directory)
            if slices is None:
                slices = SliceMemory()
                for _, record in self._scanned(self._reader, "slices", directory):
                    slices.note(record)
                self._slices.put(directory, slices)
            pages = self._places.get(place)
            if pages is None:
                pages = PlaceMemory()
                for number, record in self._scanned(self._reader, "place", place):
                    pages.note(number, record)
                self._places.put(place, pages)
            return pages.of(page, self._clock(), slices.of(page))

    def knows(self, number: str) -> bool:
        """Whether the save that left the shadow of that number was noted."""
        if self._reader is None:
            return True
        with self._reading:
            return any(True for _ in self._scanned(self._reader, "number", number))

    def saves(self, page: str, dataset: str) -> list[dict[str, Any]]:
        """The last saves of a page in a dataset, newest first: time, block, leaf, outcome, version, kept, reason."""
        if self._reader is None:
            return []
        page, dataset = _spelled(page), _spelled(dataset)
        with self._reading:
            self._catch_up(self._reader)
            found = list(self._scanned(self._reader, "save", page, _MOST_SCANNED_SAVES))
        beginning = join(dataset, ANNOTATIONS) + "/"
        told = [_told(record, beginning) for _, record in reversed(found) if record["place"].startswith(beginning)]
        return told[:_MOST_SAVES]

    def _moment(self) -> dict[str, object]:
        """When a line is made, by a clock that never steps: nanoseconds of this run of the machine, and which."""
        return {"moment": time.monotonic_ns(), "boot": self._boot}

    def _times(self, now: float, reading: tuple[object, ...]) -> int:
        """How often a reading was made within a moment, this one included."""
        since, times = self._noted.get(reading, (now, 0))
        if abs(now - since) >= _NOTED_ANEW_S:
            since, times = now, 0
        if len(self._noted) >= _MOST_NOTED:
            self._noted.clear()
        self._noted[reading] = (since, times + 1)
        return times + 1

    def _forget(self) -> None:
        self._places: Recent[str, PlaceMemory] = Recent(_PLACES)
        self._slices: Recent[str, SliceMemory] = Recent(_PLACES)

    def _catch_up(self, reader: Reader) -> None:
        lines = reader.appended()
        if lines is None:
            self._forget()
            return
        for number, record in _in_order(_records(lines)):
            pages = self._places.get(record["place"])
            if pages is not None:
                pages.note(number, record)
            slices = self._slices.get(record["slices"]) if "slices" in record else None
            if slices is not None:
                slices.note(record)

    def _scanned(
        self, reader: Reader, member: str, value: str, most: int = _MOST_LINES
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        text = f'"{member}":'.encode() + orjson.dumps(value)
        lines = reader.scanned(text, most)
        return iter(_in_order(found for found in _records(lines) if found[1].get(member) == value))


def _spelled(text: str) -> str:
    """The text as it can be written: names of files, and what a browser calls itself, may be no Unicode."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _line(record: dict[str, object]) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _boot() -> str:
    """What tells this run of the machine from others, empty where the kernel does not say."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8]
    return ""


def _in_order(records: Iterable[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """The records of several files in the order in which they were made: the wall clock, which named them, may step.

    Those of one file stay in its order; one run of the machine comes after the other.
    """
    found = list(records)
    boots: dict[str, int] = {}
    newest: dict[tuple[str, str], int] = {}
    keys = []
    for number, record in found:
        boot = record.get("boot", "")
        hour = number.partition("-")[0]
        newest[hour, boot] = max(newest.get((hour, boot), 0), record.get("moment", 0))
        keys.append((boots.setdefault(boot, len(boots)), newest[hour, boot]))
    return [found[place] for place in sorted(range(len(found)), key=keys.__getitem__)]


def _records(lines: Iterator[Line] | list[Line]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What the lines say, those that are damaged passed over; a line may follow one that was cut short."""
    for line in lines:
        for data in _readings(line.data):
            with contextlib.suppress(orjson.JSONDecodeError):
                record = orjson.loads(data)
                if isinstance(record, dict) and "place" in record:
                    yield line.number, record
                break


def _readings(data: bytes) -> Iterator[bytes]:
    yield data
    starts = {data.rfind(beginning, 1) for beginning in _BEGINNINGS} - {-1}
    yield from (data[start:] for start in sorted(starts, reverse=True))


def _parts(place: str) -> tuple[str, str]:
    """The directory of all blocks, and the name of the leaf."""
    block, _, name = place.rpartition("/")
    return block.rpartition("/")[0] + "/", name.removesuffix(".json")


def _told(record: dict[str, Any], beginning: str) -> dict[str, Any]:
    block, _, name = record["place"].removeprefix(beginning).rpartition("/")
    told = {"time": instant_of(record["time"]), "block": block, "leaf": name.removesuffix(".json")}
    return told | {member: record.get(member) for member in ("outcome", "version", "kept", "reason")}
