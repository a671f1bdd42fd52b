"""What requests came to, so that one that is sent again is not carried out twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from annotation_store.history.lines import opened, whole_lines
from annotation_store.history.records import PARKED, Members
from annotation_store.history.segments import OLD, numbers, read_segment


@dataclass(frozen=True, slots=True)
class Done:
    """A request that was carried out: its digest, its edits as (leaf, version, operation, id), what it parked, when."""

    request: str | None
    edits: tuple[tuple[str, int, str, str], ...]
    parked: str | None
    time: str


Requests = dict[tuple[str, str | None], list[Members]]
"""The lines of requests by operation id and Idempotency-Key."""


def gather(members: Members, requests: Requests) -> None:
    """Put a line to the other lines of its request."""
    if "op" in members or "key" in members:
        requests.setdefault((members.get("op", ""), members.get("key")), []).append(members)


def done_of(made: list[Members]) -> Done:
    """What the lines of one request say that it came to."""
    edits = [(line["leaf"], line["version"], line["operation"], line["id"]) for line in made if "id" in line]
    parked = next((line["parked"] for line in made if line["operation"] == PARKED), None)
    return Done(made[0].get("request"), tuple(edits), parked, made[-1]["time"])


def older_requests(history: int, segment: int, live_from: str) -> Iterator[Requests]:
    """The requests of each segment before `segment` that holds any made since `live_from`, newest segment first."""
    for number in reversed([number for number in numbers(history) if OLD < number < segment]):
        found = read_segment(history, number)
        if found is None:
            return
        requests: Requests = {}
        for raw, _ in whole_lines(found.data):
            line = opened(raw) if b'"op":"' in raw or b'"key":"' in raw else None
            if line is not None and "leaf" in line.members:
                gather(line.members, requests)
        yield requests
        if found.header is not None and found.header.members["time"] < live_from:
            return
