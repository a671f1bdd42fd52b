"""The verdict on a run: its history held against the files and the log that it left."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from precomputed_server.selftest.checker import check, check_reads
from precomputed_server.selftest.client import etag_of
from precomputed_server.selftest.history import Items, Operation, Read, Violation
from precomputed_server.selftest.replay import compare, replay, unlogged, unwanted

DAMAGED = "damaged"
"""A file that cannot be read at the end."""

_HISTORY = ".history"
_NANOSECONDS = 1e9


def judged(
    operations: Sequence[Operation], reads: Sequence[Read], initial: Mapping[str, bytes], block: Path
) -> list[Violation]:
    """Everything that is wrong; `initial` are the files of the directory `block` as they were at first."""
    begun = {leaf: _by_id(data) for leaf, data in initial.items()}
    found: list[Violation] = []
    final = {}
    for leaf in initial:
        try:
            final[leaf] = _by_id((block / f"{leaf}.json").read_bytes())
        except (OSError, ValueError, TypeError, KeyError) as error:
            found.append(Violation(DAMAGED, leaf, "", f"the file cannot be read at the end: {error}"))
    found += check(operations, begun, final)
    logged = replay(block.parent / _HISTORY / block.name)
    found += compare(logged, block)
    found += unwanted(logged, _deletable(operations), _may_return(operations))
    found += unlogged(logged, operations)
    versions = {}
    for leaf, data in initial.items():
        first = {etag_of(data): 1}
        versions[leaf] = first | (logged.leaves[leaf].tags if leaf in logged.leaves else {})
    return found + check_reads(reads, operations, begun, versions)


def longest_pause(kills: Iterable[int], acknowledged: Sequence[int]) -> float:
    """The longest time in seconds from a kill to the next acknowledgement; moments are in nanoseconds, in order."""
    longest = 0.0
    for moment in kills:
        place = bisect.bisect_right(acknowledged, moment)
        if place < len(acknowledged):
            longest = max(longest, (acknowledged[place] - moment) / _NANOSECONDS)
    return longest


def _by_id(data: bytes) -> Items:
    return {item["id"]: item for item in orjson.loads(data)}


def _deletable(operations: Iterable[Operation]) -> dict[str, set[str]]:
    """The annotations that somebody may have deleted."""
    deletable: dict[str, set[str]] = {}
    for operation in operations:
        if operation.may_remove:
            deletable.setdefault(operation.leaf, set()).update(operation.removes)
    return deletable


def _may_return(operations: Iterable[Operation]) -> Callable[[str, str, str, Any], bool]:
    """Whether a value may become what it was before.

    It may when it was sent twice (the end of a drag repeats its last move), and when it came from a save that was not
    answered: if that save was carried out, the page's next one may carry it out again.
    """
    sent: Counter[tuple[str, str, str, bytes]] = Counter()
    for operation in operations:
        repeatable = operation.page and operation.result == "info"
        for write in operation.writes:
            for name, value in write.fields.items():
                sent[operation.leaf, write.id, name, orjson.dumps(value)] += 2 if repeatable else 1
    return lambda leaf, id, name, value: sent[leaf, id, name, orjson.dumps(value)] > 1
