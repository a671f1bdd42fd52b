"""The annotation store of a tree: what can be read of it, and orders that are committed.

Synchronous and safe between threads and processes: every commit holds the block's lock file, opens its files anew and
reads what others have appended to the log.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from annotation_store.blocks import Location
from annotation_store.committing.block import ChangedMeanwhile, locked
from annotation_store.committing.group import Group
from annotation_store.committing.leaf import Content
from annotation_store.committing.memory import Memory
from annotation_store.committing.preconditions import check_version
from annotation_store.orders import Answer, Order, Outcome, Resolve, Restore, Save
from annotation_store.pages.journal import Journal
from annotation_store.reader import AnnotationReader
from annotation_store.review import Review
from precomputed_server.errors import Busy, NotFound, PrecomputedError
from precomputed_server.files import Tree, join, typed
from precomputed_server.format.geometry import Vector
from precomputed_server.format.names import ANNOTATIONS, BLOCK_INFO
from precomputed_server.settings import Settings
from precomputed_server.writing import atomic_write

_LOCK_TIMEOUT_S = 30.0
_MEMORY_BYTES = 16 << 20
_ATTEMPTS = 10
PAGES, REFUSED = "pages", "refused"
"""Where in the state directory lie what pages hold, and refused saves."""


class AnnotationStore(AnnotationReader):
    """The annotations beneath a tree.

    `lock_timeout` is in seconds, `memory` how many bytes of files may be kept parsed; `journal` knows what pages hold.
    """

    def __init__(
        self,
        tree: Tree,
        lock_timeout: float = _LOCK_TIMEOUT_S,
        journal: Journal | None = None,
        memory: int = _MEMORY_BYTES,
    ) -> None:
        super().__init__(tree)
        self.journal = journal or Journal(None)
        self.lock_timeout = lock_timeout
        self._memory = Memory(memory)
        self._edited: dict[str, None] = {}

    @classmethod
    def of(cls, settings: Settings, state: Path | None, tree: Tree | None = None) -> AnnotationStore:
        """The store of a server whose state lies in `state`; without one it knows no pages."""
        journal = Journal(None if state is None else state / PAGES)
        return cls(tree or Tree(settings.root), settings.lock_timeout, journal, settings.annotation_memory)

    def write_block_info(self, dataset: str, size: Vector) -> None:
        """Write how large the dataset's blocks are, x, y, z in voxels; raises OSError."""
        directory = self.tree.open_directory(join(dataset, ANNOTATIONS), create=True)
        try:
            atomic_write(directory, BLOCK_INFO, (",".join(str(length) for length in size) + "\n").encode())
        finally:
            os.close(directory)

    def commit(self, orders: Sequence[Order]) -> list[Answer]:
        """Carry out orders, all of one block, as one durable write; each ends by itself, with outcomes or an error."""
        try:
            if not any(map(self._touches_anything, orders)):
                ends = [_of_nothing(order) for order in orders]
                found = [end for end in ends if end is not None]
                if len(found) == len(orders):
                    for order, end in zip(orders, found, strict=True):
                        if not isinstance(end, PrecomputedError):
                            self._note_nothing(order)
                    return found
            for _ in range(_ATTEMPTS):
                with contextlib.suppress(ChangedMeanwhile):
                    return self._commit(orders)
            raise Busy("Another program writes this annotation file all the time; try again.")
        except OSError as error:
            return [typed(error, "The annotation file", writing=True)] * len(orders)
        except PrecomputedError as error:
            return [error] * len(orders)
        finally:
            self._memory.shrink({order.location(part).path for order in orders for part in order.parts})

    def carry_out(self, order: Order) -> list[Outcome]:
        """Commit one order; raises the error that it ended with."""
        answer = self.commit([order])[0]
        if isinstance(answer, PrecomputedError):
            raise answer
        return answer

    def _commit(self, orders: Sequence[Order]) -> list[Answer]:
        place = orders[0].location(orders[0].parts[0])
        self._edited[place.directory] = None
        memory = self._memory.block(place.history)
        with locked(self.tree, place, memory.state, self.lock_timeout, self._known(place.directory)) as block:
            group = Group(block, place.directory, self._memory, self.journal)
            if not memory.cleaned:
                block.clean()
                group.recover_journal()
                memory.cleaned = True
            return group.carry_out(orders)

    def edited(self) -> list[str]:
        """The directories of the blocks that this process has committed edits of."""
        return list(self._edited)

    def _touches_anything(self, order: Order) -> bool:
        """Whether there is a file or a log that the order could mean."""
        places = [order.location(part) for part in order.parts]
        return self._exists(places[0].history) or any(self._exists(place.path) for place in places)

    def _note_nothing(self, order: Order) -> None:
        """The pages that saved nothing to what does not exist hold nothing."""
        for part in order.parts:
            if part.kind == "put" and part.if_match is None:
                place = order.location(part).path
                held = self.journal.page(order.session, place).shadows
                nothing = next((shadow.number for shadow in held if shadow.etag is None and not shadow.differing), None)
                self.journal.note_save(
                    order.session,
                    place,
                    outcome="unchanged",
                    replaces=nothing,
                    number=order.op,
                    arrived=order.arrived,
                )

    def _known(self, directory: str) -> Callable[[str], Content | None]:
        return lambda leaf: self._memory.leaf(Location(directory, leaf).path).content


def _of_nothing(order: Order) -> Answer | None:
    """How an order ends where there is neither file nor log, None when it would put something there."""
    outcomes = []
    try:
        for part in order.parts:
            if part.if_match is not None:
                check_version(part.if_match, None)
            wish = part.wish()
            if isinstance(wish, Review):
                raise NotFound("There are no annotations in this file yet.")
            if isinstance(wish, (Restore, Resolve)):
                raise NotFound("This annotation file has never been edited: there is no earlier version of it.")
            if wish.items if isinstance(wish, Save) else wish.edits({}):
                return None
            outcomes.append(Outcome(part.leaf, 0, 0, None, "unchanged", None, part.id))
    except PrecomputedError as error:
        return error
    return outcomes
