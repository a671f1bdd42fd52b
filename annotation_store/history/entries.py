"""The edits of a leaf as somebody reads them who looks back: who made what of which annotation, and when."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from annotation_store.history.delta import same
from annotation_store.history.records import EDITS, EXTERNAL, PARKED, Members
from annotation_store.history.replay import Replay
from annotation_store.model import Item, Items


@dataclass(frozen=True)
class Entry:
    """One annotation in one version; `before` and `after` are None where there was, or is, no such annotation."""

    version: int
    time: str
    author: str
    session: str
    operation: str
    id: str
    before: Item | None
    after: Item | None

    def to_json(self) -> dict[str, Any]:
        """The members of an entry of the history."""
        return dict(vars(self))


def entries_of(members: Members, replay: Replay) -> Iterator[Entry]:
    """What a line says, applied to `replay`, which is the leaf before it; nothing for a line that is no edit."""
    operation = members["operation"]
    head = (members["version"], members["time"], members["author"], members["session"], operation)
    if operation in EDITS:
        id = members["id"]
        before = replay.items.get(id)
        replay.apply(members)
        yield Entry(*head, id, before, replay.items.get(id))
    elif operation == EXTERNAL:
        stood = dict(replay.items)
        replay.apply(members)
        for id, before, after in _differences(stood, replay.items):
            yield Entry(*head, id, before, after)
    elif operation == PARKED:
        for id in members["remove"]:
            yield Entry(*head, id, replay.items.get(id), None)
    else:
        replay.apply(members)


def _differences(stood: Items, stands: Items) -> Iterator[tuple[str, Item | None, Item | None]]:
    for id, before in stood.items():
        if not same(before, stands.get(id)):
            yield id, before, stands.get(id)
    for id, after in stands.items():
        if id not in stood:
            yield id, None, after


class Window:
    """The newest entries of a stream, whole versions, as many as are `wanted` at least, and one version more."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._versions: deque[tuple[int, list[Entry]]] = deque()
        self._count = 0

    def put(self, entry: Entry) -> None:
        """Take the next entry, which may push the oldest version out."""
        if not self._versions or self._versions[-1][0] != entry.version:
            self._versions.append((entry.version, []))
        self._versions[-1][1].append(entry)
        self._count += 1
        while len(self._versions) > 2:
            kept = self._count - len(self._versions[0][1])
            if kept - len(self._versions[1][1]) < self._wanted:
                return
            self._versions.popleft()
            self._count = kept

    def newest_first(self) -> list[tuple[int, list[Entry]]]:
        """The versions and their entries, newest first."""
        return [(version, entries[::-1]) for version, entries in reversed(self._versions)]
