"""The events of a dataset since a moment, of all blocks together and in the order of time.

As many as a page has room for are kept at a time, however many there are: the next page reads the logs again.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from annotation_store.blocks import BlockOf
from annotation_store.events.event import Event
from annotation_store.events.tail import BlockTail
from annotation_store.events.watching import blocks_of, is_older
from annotation_store.history.segments import newest_state_in
from annotation_store.reader import AnnotationReader

PAGE = 10_000
"""How many events a page has, and as many more as are of the last one's millisecond."""
PAGE_BYTES = 4 << 20
"""How many bytes of data they have before the last one."""


@dataclass(frozen=True)
class Past:
    """What is asked for: a dataset, from which moment of the log on, of which blocks and leaves; none named: all."""

    dataset: str
    since: str
    blocks: Collection[str] = ()
    leaves: Collection[str] = ()

    def wants(self, event: Event) -> bool:
        """Whether an event is asked for."""
        return (not self.blocks or event.block in self.blocks) and (not self.leaves or event.leaf in self.leaves)


def page(store: AnnotationReader, past: Past, sent: Collection[str] = (), size: int = PAGE) -> tuple[list[Event], bool]:
    """The first events that are asked for, except those whose ids were `sent`, and whether there are no more.

    Raises Gone when edits since then are not kept any longer, OSError, Unreadable.
    """
    found: list[Event] = []
    bound, room, held, most = "", 2 * size, 0, 2 * PAGE_BYTES
    whole = True
    for block in blocks_of(store, past.dataset):
        if past.blocks and block.name not in past.blocks:
            continue
        for event in _of_block(store, block, past.since):
            if bound and event.time > bound:
                whole = False
                break
            if past.wants(event) and event.id not in sent:
                found.append(event)
                held += len(event.data)
            if len(found) >= room or held >= most:
                count = len(found)
                found, bound = _first(found, size)
                room, whole = max(room, 2 * len(found)), whole and len(found) == count
                held = sum(len(each.data) for each in found)
                most = max(most, 2 * held)
    first, _ = _first(found, size)
    return first, whole and len(first) == len(found)


def _of_block(store: AnnotationReader, block: BlockOf, since: str) -> Iterator[Event]:
    with contextlib.suppress(FileNotFoundError):
        history = store.tree.open_directory(block.location("").history)
        try:
            if not is_older(newest_state_in(history), since):
                yield from BlockTail(block.name, since).read(history, all_of_it=True)
        finally:
            os.close(history)


def _first(found: list[Event], size: int) -> tuple[list[Event], str]:
    """The earliest `size` events, or fewer of PAGE_BYTES, with all others of the last one's moment, and that moment."""
    found = in_order(found)
    before = itertools.accumulate((len(event.data) for event in found), initial=0)
    count = sum(1 for _ in itertools.takewhile(lambda held: held < PAGE_BYTES, itertools.islice(before, len(found))))
    bound = found[min(size, count) - 1].time if found else ""
    return [event for event in found if event.time <= bound], bound


def in_order(events: Iterable[Event]) -> list[Event]:
    """Events of several blocks in the order of time, which is the order within each block."""
    return sorted(events, key=lambda event: event.time)
