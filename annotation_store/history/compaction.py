"""Thinning out a log: what is older than it has to be kept goes, and edits that followed each other fast become one.

Only closed segments are touched, a day after their last record, and each is replaced as a whole. A compacted segment
ends with a line that says what its last line was, so that the chain of digests goes on in the next one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from annotation_store.digests import file_hash
from annotation_store.history.encoding import Counts, count, encoded
from annotation_store.history.folding import Plan, planned
from annotation_store.history.instants import instant
from annotation_store.history.lines import Group, sealed, whole_lines
from annotation_store.history.log import BlockLog
from annotation_store.history.records import COMPACTED, CONTENT, EDITS, EXTERNAL, EditRecord, Members, head_of
from annotation_store.history.replay import Replay
from annotation_store.history.segments import OLD, Segment, name_of, numbers, read_segment
from annotation_store.history.state import LogState
from annotation_store.model import serialize
from precomputed_server.writing import atomic_write

Lock = Callable[[], AbstractContextManager[None]]

_REST = timedelta(hours=26)
"""What pages hold and requests sent again may refer to is left as it is for so long."""


@dataclass(frozen=True)
class Report:
    """What compaction came to: bytes of the log before and after, segments that were dropped and folded."""

    before: int
    after: int
    dropped: int
    folded: int


def compact(history: int, lock: Lock, *, keep_days: int, now: datetime) -> Report:
    """Thin out the log in the open directory `history`; raises OSError, Unreadable, and what is done by then stays.

    `lock` is taken for each replacement only. Edits are kept for `keep_days` days; the newest content of a leaf is kept
    for ever. A damaged segment is left as it is.
    """
    before = _size(history)
    _close_if_old(history, lock, now)
    work = _Work(history, lock, instant(now - timedelta(days=keep_days)), instant(now - _REST))
    work.all()
    return Report(before, _size(history), work.dropped, work.folded)


class _Work:
    """One run over the closed segments; `expired` and `rested` are moments: what is older may go, or be folded."""

    def __init__(self, history: int, lock: Lock, expired: str, rested: str) -> None:
        self._history = history
        self._lock = lock
        self._expired = expired
        self._rested = rested
        self.dropped = self.folded = 0

    def all(self) -> None:
        """Go through the segments, oldest first."""
        found = numbers(self._history)
        newest = read_segment(self._history, found[-1]) if found else None
        if newest is None or newest.header is None:
            return
        oldest = True
        for number in found[:-1]:
            segment = read_segment(self._history, number)
            if segment is not None:
                needed = {leaf for leaf, tail in newest.leaves.items() if tail["segment"] == number and tail["after"]}
                oldest = self._one(segment, needed, oldest) and oldest

    def _one(self, segment: Segment, needed: set[str], oldest: bool) -> bool:
        """Deal with one segment; returns whether it is gone."""
        newest = _newest_time(segment)
        if newest is None or newest >= self._rested:
            return False
        if newest < self._expired:
            return self._drop(segment, needed, oldest)
        if segment.number != OLD and segment.compacted is None:
            folded = _folded(segment)
            if folded is not None:
                self._replace(segment, folded)
                self.folded += 1
        return False

    def _drop(self, segment: Segment, needed: set[str], oldest: bool) -> bool:
        if oldest and not needed:
            with self._lock():
                os.unlink(name_of(segment.number), dir_fd=self._history)
                os.fsync(self._history)
            self.dropped += 1
            return True
        remnant = None if segment.number == OLD else _remnant(segment, needed)
        if remnant is not None and remnant != segment.data:
            self._replace(segment, remnant)
            self.dropped += 1
        return False

    def _replace(self, segment: Segment, data: bytes) -> None:
        with self._lock():
            current = read_segment(self._history, segment.number)
            if current is not None and current.data == segment.data:
                atomic_write(self._history, name_of(segment.number), data)


def _close_if_old(history: int, lock: Lock, now: datetime) -> None:
    """Begin a new segment when nothing was written to the newest one for so long that it can be compacted."""
    found = numbers(history)
    newest = read_segment(history, found[-1]) if found else None
    written = None if newest is None else _newest_time(newest)
    if written is None or written >= instant(now - _REST):
        return
    with lock(), contextlib.closing(BlockLog(history, LogState(), clock=now.timestamp)) as log:
        log.refresh(repair=True)
        if not log.is_empty():
            log.begin_segment()


def _newest_time(segment: Segment) -> str | None:
    """When the last record of a segment was made, None when there is none."""
    compacted = segment.compacted
    if compacted is not None:
        return str(compacted.members["time"])
    times = [group.lines[-1].members["time"] for group in segment.groups(contents=False)]
    return max(times, default=None)


def _is_sound(segment: Segment) -> bool:
    """Whether every line of a segment can be read."""
    if segment.header is None or not segment.data.endswith(b"\n"):
        return False
    lines = sum(1 for _ in whole_lines(segment.data))
    return lines == 1 + sum(len(group.lines) for group in segment.groups()) + (segment.compacted is not None)


def _folded(segment: Segment) -> bytes | None:
    """The bytes of a segment once it is folded, None when it is damaged and has to stay."""
    if not _is_sound(segment):
        return None
    groups = list(segment.groups())
    plan = planned([line.members for group in groups for line in group.lines])
    contents = _contents(groups)
    if contents is None:
        return None
    data = _sealed(segment, _Fold(plan).lines(groups), {"ranges": plan.ranges})
    folded = Segment(segment.number, data, segment.header)
    return data if _contents(list(folded.groups())) == contents else None


def _contents(groups: Iterable[Group]) -> dict[str, str | None] | None:
    """The hash of each leaf's file at a segment's end, None when that is not what its last line says."""
    replays: dict[str, Replay] = {}
    files: dict[str, Any] = {}
    for group in groups:
        for line in group.lines:
            replays.setdefault(line.members["leaf"], Replay()).apply(line.members)
        files |= group.files
    if not all(replays[leaf].gives(file["after"]) for leaf, file in files.items()):
        return None
    return {leaf: file_hash(replay.data()) for leaf, replay in replays.items()}


class _Fold:
    """The lines of a segment as a plan leaves them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._replays: dict[str, Replay] = {}
        self._counts: Counts = {}
        self._before: dict[int, Any] = {}
        self._place = 0

    def lines(self, groups: Iterable[Group]) -> Iterator[Members]:
        """What is to be written, group by group."""
        waiting: list[Members] = []
        for group in groups:
            files = group.files
            for line in group.lines:
                kept = self._line({name: value for name, value in line.members.items() if name != "files"})
                if kept is not None:
                    waiting.append(kept)
            if any(members["operation"] != CONTENT for members in waiting):
                waiting[-1] |= {
                    "host": group.host,
                    "files": self._files(group, files, {each["leaf"] for each in waiting}),
                }
                yield from waiting
                waiting = []

    def _line(self, members: Members) -> Members | None:
        place, self._place = self._place, self._place + 1
        replay = self._replays.setdefault(members["leaf"], Replay())
        if members["operation"] not in EDITS:
            replay.apply(members)
            return members
        before = replay.items.get(members["id"])
        replay.apply(members)
        if place in self._plan.first:
            self._before[place] = before
        if place in self._plan.dropped:
            return None
        operation = members["operation"]
        if place in self._plan.last:
            before = self._before.pop(self._plan.last[place])
            operation = "add" if before is None else operation
        after = replay.items.get(members["id"])
        head = head_of(members)
        record = EditRecord(members["leaf"], members["version"], head, operation, members["id"], before, after)
        written = encoded(record, self._counts)
        count(written, self._counts)
        return written

    def _files(self, group: Group, files: Members, kept: set[str]) -> Members:
        """The hashes of files whose content is still known."""
        found = {}
        for leaf, file in files.items():
            made = [line.members["version"] for line in group.lines if _makes_version(line.members, leaf)]
            if leaf in kept and made and not self._plan.given_up(leaf, made[-1]):
                known = not self._plan.given_up(leaf, made[0] - 1)
                found[leaf] = file if known else {"after": file["after"]}
        return found


def _makes_version(members: Mapping[str, Any], leaf: str) -> bool:
    return members["leaf"] == leaf and (members["operation"] in EDITS or members["operation"] == EXTERNAL)


def _remnant(segment: Segment, needed: set[str]) -> bytes | None:
    """What has to stay of a segment: the newest content of leaves that were not edited since; None when damaged."""
    if not _is_sound(segment):
        return None
    replays: dict[str, Replay] = {}
    newest: dict[str, Members] = {}
    for group in segment.groups():
        for line in group.lines:
            leaf = line.members["leaf"]
            if leaf in needed and (line.members["operation"] == CONTENT or _makes_version(line.members, leaf)):
                replays.setdefault(leaf, Replay()).apply(line.members)
                newest[leaf] = line.members
    lines = []
    for leaf in sorted(newest):
        members = {name: newest[leaf][name] for name in ("leaf", "version", "time", "author", "session")}
        data = replays[leaf].data()
        if newest[leaf]["operation"] == EXTERNAL:
            members |= {"operation": EXTERNAL, "text": newest[leaf]["text"]}
        else:
            members = {"operation": CONTENT, **members, "items": list(replays[leaf].items.values())}
            data = serialize(replays[leaf].items)
        lines.append(members | {"files": {leaf: {"after": file_hash(data)}}})
    return _sealed(segment, lines, {"ranges": {}, "dropped": True})


def _sealed(segment: Segment, lines: Iterable[Members], said: Members) -> bytes:
    """The bytes of a compacted segment: its header, `lines` chained anew, and a line that says what it was."""
    if segment.header is None:
        raise ValueError("a segment without a header cannot be compacted")
    compacted = segment.compacted
    written = [segment.data[: segment.header.size]]
    digest = segment.header.digest
    was = segment.header.digest
    for group in segment.groups():
        was = group.lines[-1].digest
    was = was if compacted is None else compacted.members["was"]
    last = {"operation": COMPACTED, "time": _newest_time(segment), "was": was, **said}
    for members in (*lines, last):
        line, digest = sealed(members, digest)
        written.append(line)
    return b"".join(written)


def _size(history: int) -> int:
    return sum(os.stat(name_of(number), dir_fd=history).st_size for number in numbers(history))
