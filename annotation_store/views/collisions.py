"""Two annotations whose ids begin with the same 64 bits of hash: who keeps the number, settled once and written down.

It is about as likely as a fault of the memory, and then the numbers have to be the same in every process for ever:
they are kept beside the edit logs, in `annotations/.history/id64.jsonl`, one settled id a line, and lines are only
added. Who was there first keeps the number; the next one takes the next number that nobody has.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping

import numpy as np
import orjson

from annotation_store.blocks import HISTORY
from annotation_store.views.numbers import ID_BITS
from annotation_store.views.rows import Array
from precomputed_server.errors import PrecomputedError
from precomputed_server.files import Tree, join
from precomputed_server.format.names import ANNOTATIONS
from precomputed_server.writing import atomic_write, exclusive_lock

Settled = dict[str, int]
"""The number of each id that had to be settled."""

FirstSeen = Callable[[str], str]
"""The moment, as the log writes it, at which an annotation came to be; "" where it was there before the log."""

_NAME, _LOCK = "id64.jsonl", "id64.lock"
_LOCK_TIMEOUT_S = 10.0
_FORMAT = 1


def collisions(ids: Array, numbers: Array, settled: Mapping[str, int]) -> dict[int, set[str]]:
    """The ids that share a number, or have one that was given to another, and are not settled; by that number."""
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    same = np.flatnonzero(ordered[1:] == ordered[:-1])
    doubtful = set(order[same].tolist()) | set(order[same + 1].tolist())
    if settled:
        given = np.array(list(settled.values()), np.uint64)
        doubtful.update(np.flatnonzero(np.isin(numbers, given)).tolist())
    found: dict[int, set[str]] = {}
    for at in doubtful:
        found.setdefault(int(numbers[at]), set()).add(ids[at])
    holders = {number: id for id, number in settled.items()}
    return {
        number: unsettled
        for number, shared in found.items()
        if (unsettled := shared - settled.keys()) and len(shared | {holders.get(number, "")} - {""}) > 1
    }


def settle(found: Mapping[int, set[str]], numbers: Array, settled: Mapping[str, int], first: FirstSeen) -> Settled:
    """The numbers of the ids that collide, beside those that are settled already."""
    taken = set(settled.values())
    made: Settled = {}
    for number in sorted(found):
        for id in sorted(found[number], key=lambda id: (first(id), id)):
            given = number
            while given in taken or (given != number and bool(np.isin(np.uint64(given), numbers))):
                given = (given + 1) % (1 << ID_BITS)
            made[id] = given
            taken.add(given)
    return made


def read_settled(tree: Tree, dataset: str) -> Settled:
    """What is settled of a dataset's ids; a line that is damaged is passed over."""
    try:
        data = tree.read(f"{_directory(dataset)}/{_NAME}")
    except OSError:
        return {}
    found: Settled = {}
    for line in data.splitlines():
        with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError, ValueError):
            members = orjson.loads(line)
            found.setdefault(members["id"], int(members["number"]))
    return found


def settle_durably(tree: Tree, dataset: str, settle_anew: Callable[[Settled], Settled]) -> Settled:
    """All that is settled once `settle_anew`, given what is settled so far, has said what is to be added.

    Where nothing can be written, it is right as long as the log says who was first.
    """
    try:
        directory = tree.open_directory(_directory(dataset), create=True)
        try:
            with exclusive_lock(directory, _LOCK, _LOCK_TIMEOUT_S):
                settled = read_settled(tree, dataset)
                settled |= settle_anew(settled)
                atomic_write(directory, _NAME, b"".join(_line(id, number) for id, number in settled.items()))
                return settled
        finally:
            os.close(directory)
    except (OSError, PrecomputedError):
        settled = read_settled(tree, dataset)
        return settled | settle_anew(settled)


def _line(id: str, number: int) -> bytes:
    return orjson.dumps({"format": _FORMAT, "id": id, "number": str(number)}) + b"\n"


def _directory(dataset: str) -> str:
    return f"{join(dataset, ANNOTATIONS)}/{HISTORY}"
