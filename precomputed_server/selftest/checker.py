"""What a history of edits and the files at its end say of the promises: pure.

Requests overlap, so many orders are possible. Only what contradicts every one of them counts: an edit may have
happened at any moment between its request and its answer, and one without an answer at any later moment or never.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from precomputed_server.selftest.history import BEFORE_ALL, NEVER_ENDED, Items, Operation, Read, Violation, Write

LOST = "lost"
"""An acknowledged annotation is absent, and nobody deleted it."""

RESURRECTED = "resurrected"
"""An annotation is there after its deletion was acknowledged, and nobody edited it afterwards."""

PHANTOM = "phantom"
"""There is an annotation, or a value, that nobody sent."""

CLOBBERED = "clobbered"
"""A value was undone by somebody who did not touch it."""

MISSING = "missing"
"""A reader did not see an acknowledged annotation that nobody deleted."""

STALE = "stale"
"""A reader saw a version older than one that had been acknowledged, or one that the log does not know."""

BACKWARDS = "backwards"
"""A later edit was answered with a smaller version."""

TORN = "torn"
"""A GET whose entity tag is not that of its body, or whose body is no list of annotations."""

_ABSENT = b""
_FLAGS = ("reviewed", "visited")
"""Fields whose values are not unique: a save that repeats an old one may be taken for a repetition."""


@dataclass(frozen=True)
class _Given:
    """A value that a field was given from `invoked` to `ended`; `surely`: it was, some time in between."""

    invoked: int
    ended: int
    surely: bool
    value: bytes


@dataclass
class _Life:
    """All that happened to one annotation."""

    writes: list[tuple[Operation, Write]]
    removes: list[Operation]
    held: list[tuple[Operation, Mapping[str, Any]]]

    @property
    def may_be_removed(self) -> bool:
        return any(operation.may_remove for operation in self.removes)


def check(operations: Sequence[Operation], initial: Mapping[str, Items], final: Mapping[str, Items]) -> list[Violation]:
    """What is wrong with the content of each leaf at the end, and with the versions that edits were answered with."""
    begun = [_beginning(leaf, items) for leaf, items in initial.items()]
    found: list[Violation] = []
    for leaf, of_leaf in _by_leaf([*begun, *operations]).items():
        now = final.get(leaf, {})
        lives = _lives(of_leaf)
        for id, life in lives.items():
            found += _check_presence(leaf, id, life, id in now)
            if id in now:
                found += _check_values(leaf, id, life, now[id])
        found += [Violation(PHANTOM, leaf, id, "nobody sent this annotation") for id in now if id not in lives]
        found += _check_versions(leaf, of_leaf)
    return found


def _beginning(leaf: str, items: Items) -> Operation:
    writes = tuple(Write(id, item, item, whole=True) for id, item in items.items())
    return Operation("the beginning", leaf, writes, invoked=BEFORE_ALL, ended=BEFORE_ALL, result="ok")


def _by_leaf(operations: Iterable[Operation]) -> dict[str, list[Operation]]:
    leaves: dict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        leaves[operation.leaf].append(operation)
    return leaves


def _lives(operations: Iterable[Operation]) -> dict[str, _Life]:
    lives: dict[str, _Life] = defaultdict(lambda: _Life([], [], []))
    for operation in operations:
        if operation.result == "fail":
            continue
        for write in operation.writes:
            lives[write.id].writes.append((operation, write))
        for id in operation.removes:
            lives[id].removes.append(operation)
        for id, item in operation.held.items():
            lives[id].held.append((operation, item))
    return lives


def _check_presence(leaf: str, id: str, life: _Life, present: bool) -> Iterator[Violation]:
    if present:
        deleted = max((removal for removal in life.removes if removal.surely_removed), key=_invoked, default=None)
        editors = [operation for operation, _ in (*life.writes, *life.held)]
        if deleted and deleted.invoked > max((operation.ended for operation in editors), default=BEFORE_ALL):
            yield Violation(RESURRECTED, leaf, id, f"deleted by {deleted.who}, and edited by nobody afterwards")
    else:
        last = max((operation for operation, _ in life.writes if operation.surely_written), key=_invoked, default=None)
        deleted_at = max((removal.ended for removal in life.removes if removal.may_remove), default=BEFORE_ALL - 1)
        if last and last.invoked > deleted_at:
            yield Violation(LOST, leaf, id, f"written by {last.who}, and deleted by nobody afterwards")


def _invoked(operation: Operation) -> int:
    return operation.invoked


def _check_values(leaf: str, id: str, life: _Life, item: Mapping[str, Any]) -> Iterator[Violation]:
    """A field must hold a value that may have been given last."""
    fields = {*item, *(field for _, write in life.writes for field in write.fields)}
    for name in sorted(fields):
        given = list(_given(life, name))
        latest = max((each.invoked for each in given if each.surely), default=BEFORE_ALL)
        value = _bytes_of(item, name)
        if any(each.value == value and each.ended >= latest for each in given):
            continue
        shown = value.decode()
        if value == _ABSENT and given:
            yield Violation(CLOBBERED, leaf, id, f"{name} is gone, and nobody removed it")
        elif any(each.value == value for each in given):
            yield Violation(CLOBBERED, leaf, id, f"{name} is {shown} again, though another value was given later")
        elif given or name in item:
            yield Violation(PHANTOM, leaf, id, f"{name} is {shown}, which nobody sent")


def _given(life: _Life, name: str) -> Iterator[_Given]:
    """Every value that a field may have been given.

    An edit of an annotation that somebody deleted in between adds it again as it was sent, with all its fields.
    """
    for operation, write in life.writes:
        ended = operation.ended
        if write.whole or name in write.fields:
            repeated = name in _FLAGS and operation.page and operation.said in ("unchanged", "parked")
            surely = operation.surely_written and not repeated
            yield _Given(operation.invoked, ended, surely, _bytes_of(write.fields, name))
        if life.may_be_removed:
            yield _Given(operation.invoked, ended, False, _bytes_of(write.sent, name))
    if life.may_be_removed:
        for operation, sent in life.held:
            yield _Given(operation.invoked, operation.ended, False, _bytes_of(sent, name))


def _bytes_of(item: Mapping[str, Any], name: str) -> bytes:
    """A field's value in a form in which 1, 1.0 and true differ."""
    return orjson.dumps(item[name]) if name in item else _ABSENT


def _check_versions(leaf: str, operations: Iterable[Operation]) -> Iterator[Violation]:
    told = [operation for operation in operations if operation.result == "ok" and operation.version is not None]
    floor = _Floor(told)
    for operation in told:
        least = floor.before(operation.invoked)
        if operation.version is not None and operation.version < least:
            sentence = f"{operation.who} was told version {operation.version} after {least} had been acknowledged"
            yield Violation(BACKWARDS, leaf, "", sentence)


class _Floor:
    """The largest version that had been acknowledged before a moment."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        told = sorted((operation.ended, operation.version or 0) for operation in operations)
        self._moments = [ended for ended, _ in told]
        self._versions = list(itertools.accumulate((version for _, version in told), max))

    def before(self, moment: int) -> int:
        place = bisect.bisect_left(self._moments, moment)
        return self._versions[place - 1] if place else 0


def check_reads(
    reads: Sequence[Read],
    operations: Sequence[Operation],
    initial: Mapping[str, Items],
    versions: Mapping[str, Mapping[str, int]],
) -> list[Violation]:
    """What readers saw that they must not have seen; `versions` has the newest version of each leaf's entity tags."""
    begun = [_beginning(leaf, items) for leaf, items in initial.items()]
    leaves = _by_leaf([*begun, *operations])
    by_reader: dict[tuple[str, str], list[Read]] = defaultdict(list)
    for read in reads:
        by_reader[read.leaf, read.who].append(read)
    promised = {leaf: _promised(leaves[leaf]) for leaf in {leaf for leaf, _ in by_reader}}
    found: list[Violation] = []
    for (leaf, who), own in by_reader.items():
        own.sort(key=lambda read: read.invoked)
        found += _check_seen(leaf, who, own, promised[leaf])
    for leaf, tags in versions.items():
        told = [each for each in leaves[leaf] if each.result == "ok" and each.version is not None]
        floor = _Floor(told)
        found += _check_freshness(leaf, [read for read in reads if read.leaf == leaf], tags, floor)
    return found


def _promised(operations: Iterable[Operation]) -> list[tuple[int, int, str]]:
    """From when to when each annotation has to be seen: acknowledged first, nobody's wish to delete it before last."""
    promised = []
    for id, life in _lives(operations).items():
        start = min((operation.ended for operation, _ in life.writes if operation.surely_written), default=None)
        stop = min((removal.invoked for removal in life.removes if removal.may_remove), default=NEVER_ENDED)
        if start is not None and start < stop:
            promised.append((start, stop, id))
    return sorted(promised)


def _check_seen(
    leaf: str, who: str, reads: Iterable[Read], promised: Sequence[tuple[int, int, str]]
) -> Iterator[Violation]:
    waiting = iter(promised)
    ahead = next(waiting, None)
    wanted: dict[str, int] = {}
    seen: set[str] = set()
    for read in reads:
        seen = (seen - read.vanished) | read.appeared
        while ahead is not None and ahead[0] < read.invoked:
            wanted[ahead[2]] = ahead[1]
            ahead = next(waiting, None)
        for id in wanted.keys() - seen:
            if wanted.pop(id) > read.ended:
                yield Violation(MISSING, leaf, id, f"{who} did not see it, though it was acknowledged and not deleted")


def _check_freshness(leaf: str, reads: Iterable[Read], tags: Mapping[str, int], floor: _Floor) -> Iterator[Violation]:
    for read in reads:
        least = floor.before(read.invoked)
        if read.etag is None:
            continue
        version = tags.get(read.etag)
        if version is None:
            yield Violation(STALE, leaf, "", f"{read.who} saw content with the tag {read.etag}, which no version has")
        elif version < least:
            yield Violation(STALE, leaf, "", f"{read.who} saw version {version} after {least} had been acknowledged")
