"""Files of one hour each, to which every process of a host appends lines, and reading them back.

A line is one write(2) in append mode, which Linux does not mix with others. A line that a full disk cut short spoils
itself only: it is told from what follows by how lines begin.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

HOUR_S = 3600
_KEPT_HOURS = 26
"""What a page held a day ago may be counted from what it held in the hour before."""
_NAME = re.compile(r"pages-[0-9]{8}T[0-9]{2}\.jsonl")
_RETRY_S = 10.0
_MOST_BYTES = 256 << 20
"""Of all hours together; beyond that the oldest go, and an hour that is longer by itself ends."""
_LOOK_BYTES = 1 << 20
_CHUNK = 1 << 20
_MOST_AT_ONCE = 16 << 20
"""More than this that others have appended is not read line by line."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Line:
    """One line without its end; `number` tells it from all others, in every process alike."""

    number: str
    data: bytes


@functools.lru_cache(maxsize=64)
def file_name(hour: int) -> str:
    """The name of the file of an hour, counted since 1970."""
    return f"pages-{datetime.fromtimestamp(hour * HOUR_S, UTC):%Y%m%dT%H}.jsonl"


class Appender:
    """Appends to the file of the hour.

    Beginning one, and deleting what is older than a day, happens on a thread of its own: nobody who appends waits for
    it. Failures are logged once and passed over. All hours together take about `most` bytes.
    """

    def __init__(self, directory: Path, clock: Callable[[], float], most: int = _MOST_BYTES) -> None:
        self._directory = directory
        self._most = most
        self._look_after = min(_LOOK_BYTES, most // 8)
        self._unseen = 0
        self._is_full = False
        self._beginning = threading.Lock()
        self._open: list[int] = []
        self._hour = -1
        self._attempt = 0.0
        self._warned = False
        self._begin(clock())

    def append(self, line: bytes, now: float) -> bool:
        """Append a line, with its end, at the time `now`; returns whether others can read it."""
        if int(now // HOUR_S) != self._hour and abs(now - self._attempt) >= _RETRY_S:
            self._attempt = now
            threading.Thread(target=self._begin, args=(now,), daemon=True).start()
        if self._open and not self._is_full:
            self._unseen += len(line)
            if self._unseen >= self._look_after:
                self._unseen = 0
                threading.Thread(target=self._make_room, daemon=True).start()
            try:
                written = os.write(self._open[-1], line)
                if written < len(line):
                    os.write(self._open[-1], b"\n")
                    raise OSError(errno.ENOSPC, "No space left on device")
                return True
            except OSError as error:
                self._warn(error)
        return False

    def close(self) -> None:
        """Give the files back."""
        while self._open:
            os.close(self._open.pop())

    def _begin(self, now: float) -> None:
        with self._beginning:
            hour = int(now // HOUR_S)
            if hour == self._hour:
                return
            self._attempt = now
            try:
                self._directory.mkdir(0o700, parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                self._open.append(os.open(self._directory / file_name(hour), flags, 0o600))
                self._hour = hour
                self._delete_old(hour)
            except OSError as error:
                self._warn(error)
            self._is_full = False
            # The file before stays open: somebody may be appending to it at this moment.
            while len(self._open) > 2:
                os.close(self._open.pop(0))

    def _make_room(self) -> None:
        with self._beginning, contextlib.suppress(OSError):
            names = sorted((name for name in os.listdir(self._directory) if _NAME.fullmatch(name)), reverse=True)
            total = 0
            for name in names:
                total += os.stat(self._directory / name).st_size
                if total > self._most and name < file_name(self._hour):
                    os.unlink(self._directory / name)
                elif total > self._most:
                    self._is_full = True
                    self._warn(OSError(errno.EFBIG, "too much was noted within an hour"))

    def _delete_old(self, hour: int) -> None:
        oldest = file_name(hour - _KEPT_HOURS)
        for name in os.listdir(self._directory):
            if _NAME.fullmatch(name) and name < oldest:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._directory / name)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "What pages hold cannot be noted (%s): saves are compared with stored versions instead. See --state.",
                error.strerror,
            )


class Reader:
    """Reads what was appended, first all lines that hold a text and then those that have come since."""

    def __init__(self, directory: Path, clock: Callable[[], float]) -> None:
        self._directory = str(directory)
        self._clock = clock
        self._read: dict[str, int] = {}
        """How far the files have been read that may still grow."""

    def appended(self) -> Iterator[Line] | None:
        """The lines since the last call; None when they are too many, or this is the first call: then scan."""
        hour = int(self._clock() // HOUR_S)
        growing = [file_name(hour + number) for number in (-1, 0, 1)]
        sizes = {name: size for name in growing if (size := self._size(name))}
        new = {name: size - self._read.get(name, 0) for name, size in sizes.items()}
        unknown = not self._read.keys() & set(growing)
        if unknown or sum(new.values()) > _MOST_AT_ONCE or min(new.values(), default=0) < 0:
            self._read = {name: self._end_of_lines(name, size) for name, size in sizes.items()}
            return None
        return self._since(new)

    def _since(self, new: dict[str, int]) -> Iterator[Line]:
        for name in sorted(new):
            if new[name]:
                start = self._read.get(name, 0)
                lines = list(self._lines(name, start, start + new[name]))
                if lines:
                    self._read[name] = lines[-1][0] + len(lines[-1][1]) + 1
                yield from (Line(f"{name[6:-6]}-{place:x}", data) for place, data in lines)

    def scanned(self, text: bytes, most: int) -> list[Line]:
        """The lines up to what `appended` has given that hold `text`, oldest first.

        Of more than `most` the newest ones; never older ones than of a day ago.
        """
        found: list[Line] = []
        oldest = file_name(int(self._clock() // HOUR_S) - _KEPT_HOURS + 1)
        for name in sorted(self._names(), reverse=True):
            if len(found) >= most or name < oldest:
                break
            end = self._read.get(name)
            lines = self._lines(name, 0, self._size(name) if end is None else end, text)
            found[:0] = [Line(f"{name[6:-6]}-{place:x}", data) for place, data in lines]
        return found[-most:]

    def _names(self) -> list[str]:
        try:
            return [name for name in os.listdir(self._directory) if _NAME.fullmatch(name)]
        except OSError:
            return []

    def _size(self, name: str) -> int:
        try:
            return os.stat(f"{self._directory}/{name}").st_size
        except OSError:
            return 0

    def _end_of_lines(self, name: str, size: int) -> int:
        end, looked = 0, _CHUNK
        while not end and looked < 2 * size + _CHUNK:  # the last line may be long, and somebody be writing it
            for place, data in self._lines(name, max(0, size - looked), size):
                end = place + len(data) + 1
            looked *= 2
        return end

    def _lines(self, name: str, start: int, end: int, text: bytes = b"") -> Iterator[tuple[int, bytes]]:
        """The whole lines between two places of a file that hold `text`, each with its place."""
        try:
            descriptor = os.open(f"{self._directory}/{name}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return
        try:
            rest = b""
            while start < end and (chunk := os.pread(descriptor, min(_CHUNK, end - start), start)):
                data = rest + chunk
                whole = data.rfind(b"\n") + 1
                yield from _holding(data[:whole], start - len(rest), text)
                rest = data[whole:]
                start += len(chunk)
        except OSError as error:
            _log.warning("What pages hold cannot be read (%s).", error.strerror)
        finally:
            os.close(descriptor)


def _holding(lines: bytes, place: int, text: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines that hold `text`; `place` is where the first of all lies."""
    found = lines.find(text)
    while 0 <= found < len(lines):
        start, end = lines.rfind(b"\n", 0, found) + 1, lines.index(b"\n", found)
        yield place + start, lines[start:end]
        found = lines.find(text, end + 1)
