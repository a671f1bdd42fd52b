"""What the annotations of a block hold while its log is read on: a bounded memory from which events are made whole."""

from __future__ import annotations

from annotation_store.history.lines import Group, Line
from annotation_store.history.records import CONTENT, EDITS, EXTERNAL, Members
from annotation_store.history.replay import Replay
from annotation_store.model import Item

LONGEST_CONTENT = 1 << 20
"""Bytes of a line with a whole leaf up to which it is parsed: the interpreter is held for 10 ms."""
MOST_BYTES = 16 << 20
"""How much is kept for making events whole, of one block and of all: leaves beyond that are not taken."""


class Contents:
    """The annotations of one block as far as they are known; `size` is about how many bytes of JSON they have.

    `learned_from` is the segment of which all lines were taken from the first on.
    """

    def __init__(self) -> None:
        self.size = 0
        self.learned_from: int | None = None
        self._leaves: dict[str, Replay] = {}

    def forget(self) -> None:
        """Know nothing."""
        self.size, self.learned_from = 0, None
        self._leaves.clear()

    def lacks(self, group: Group) -> bool:
        """Whether the group changes an annotation that is not known and does not say what it is."""
        told: set[tuple[str, str]] = set()
        for line in group.lines:
            members = line.members
            if members["operation"] == CONTENT:
                told.update((members["leaf"], item["id"]) for item in members["items"])
            elif members["operation"] in EDITS:
                place = (members["leaf"], members["id"])
                if "change" in members and place not in told and self.annotation(*place) is None:
                    return True
                told.add(place)
        return False

    def pass_line(self, line: Line) -> None:
        """Take what a line says."""
        members = line.members
        if members["operation"] == CONTENT and self.size + line.size > MOST_BYTES:
            return
        replay = self._leaves.setdefault(members["leaf"], Replay())
        if members["operation"] == EXTERNAL and line.size > LONGEST_CONTENT:
            replay.items = {}
        elif members["operation"] not in EDITS or self._can_be_made(replay, members):
            replay.apply(members)
        if members["operation"] in EDITS and "change" not in members or members["operation"] in (CONTENT, EXTERNAL):
            self.size += line.size

    def knows(self, members: Members) -> bool:
        """Whether the annotation of an edit is known once its line was taken."""
        return "change" not in members or self.annotation(members["leaf"], members["id"]) is not None

    def annotation(self, leaf: str, id: str) -> Item | None:
        """The annotation, None where there is none or it is not known."""
        replay = self._leaves.get(leaf)
        return None if replay is None else replay.items.get(id)

    @staticmethod
    def _can_be_made(replay: Replay, members: Members) -> bool:
        return "change" not in members or members["id"] in replay.items
