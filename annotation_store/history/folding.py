"""Which edits of a segment are folded into a later one: those that nobody could have wanted to have back.

Changes of one annotation by one session, each less than 10 s after the one before, become one; so do an addition and
the changes that follow it. The versions between the first and the last of them stood for less than 10 s: each of them
ended before the next of these changes was made. They are given up, every other one stays to the byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from annotation_store.history.instants import seconds_of
from annotation_store.history.records import CONTENT, EDITS, EXTERNAL, ORDER, PARKED, Members

TOGETHER_S = 10.0

Range = tuple[int, int, str, str]
"""Versions that are given up: the first, the last, when the first began and when the last ended."""


@dataclass
class Run:
    """Edits that become one: their places among a segment's lines, oldest first, and the insertions before it ended."""

    lines: list[int]
    insertions: int


@dataclass
class Plan:
    """What becomes of a segment's lines, by their places: `dropped` go, `last` (with its first) stands for a run."""

    first: set[int] = field(default_factory=set)
    last: dict[int, int] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    ranges: dict[str, list[Range]] = field(default_factory=dict)

    def given_up(self, leaf: str, version: int) -> bool:
        """Whether the content of that version will not be known any longer."""
        return any(first <= version <= last for first, last, _, _ in self.ranges.get(leaf, ()))


class _Leaf:
    """The runs of one leaf that may go on."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.insertions = 0


def planned(lines: Sequence[Members]) -> Plan:
    """What can be folded of the lines of a segment."""
    leaves: dict[str, _Leaf] = {}
    runs: list[Run] = []
    for place, members in enumerate(lines):
        leaf = leaves.setdefault(members["leaf"], _Leaf())
        operation = members["operation"]
        if operation in EDITS:
            _go_on(leaf, lines, place, runs)
        elif operation in (CONTENT, EXTERNAL, ORDER, PARKED):  # a parked body was made from the version that it names
            leaf.runs.clear()
    plan = Plan()
    for run in runs:
        if len(run.lines) > 1:
            _fold(plan, run, lines)
    plan.ranges = {leaf: _merged(ranges) for leaf, ranges in plan.ranges.items()}
    return plan


def _go_on(leaf: _Leaf, lines: Sequence[Members], place: int, runs: list[Run]) -> None:
    members = lines[place]
    id, operation = members["id"], members["operation"]
    run = leaf.runs.get(id)
    if operation in ("add", "restore"):
        leaf.insertions += 1
    if operation == "change" and run is not None and _belongs(run, leaf, lines, members):
        run.lines.append(place)
    elif operation in ("add", "change"):
        leaf.runs[id] = Run([place], leaf.insertions)
        runs.append(leaf.runs[id])
    else:
        leaf.runs.pop(id, None)


def _belongs(run: Run, leaf: _Leaf, lines: Sequence[Members], members: Members) -> bool:
    last = lines[run.lines[-1]]
    if (last["session"], last["author"]) != (members["session"], members["author"]):
        return False
    if lines[run.lines[0]]["operation"] == "add" and run.insertions != leaf.insertions:
        return False  # the order of annotations is that of their additions
    return 0 <= _clock(members) - _clock(last) < TOGETHER_S


def _clock(members: Members) -> float:
    """Seconds since 1970 by the clock of then, which may have gone back."""
    return seconds_of(str(members.get("clock", members["time"])))


def _fold(plan: Plan, run: Run, lines: Sequence[Members]) -> None:
    first, last = lines[run.lines[0]], lines[run.lines[-1]]
    plan.first.add(run.lines[0])
    plan.last[run.lines[-1]] = run.lines[0]
    plan.dropped.update(run.lines[:-1])
    if last["version"] > first["version"]:
        given_up = (first["version"], last["version"] - 1, first["time"], last["time"])
        plan.ranges.setdefault(first["leaf"], []).append(given_up)


def _merged(ranges: list[Range]) -> list[Range]:
    merged: list[Range] = []
    for first, last, begun, until in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            before = merged.pop()
            merged.append((before[0], max(before[1], last), before[2], max(before[3], until)))
        else:
            merged.append((first, last, begun, until))
    return merged
