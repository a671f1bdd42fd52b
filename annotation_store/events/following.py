"""A dataset followed by a program that may wait: what has happened since a moment, and then what happens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from annotation_store.events.event import Event
from annotation_store.events.identity import EventId
from annotation_store.events.past import Past, in_order, page
from annotation_store.events.watching import DatasetTail
from annotation_store.history.instants import instant, instant_of, read_instant
from annotation_store.reader import AnnotationReader
from precomputed_server.errors import InvalidInput

_PAUSE_S = 0.5


def moment_of(text: str) -> str:
    """The moment of the log that an RFC 3339 instant, or the id of an event, names; raises InvalidInput."""
    try:
        return EventId.parse(text).resumed_from(time.time())
    except InvalidInput:
        return instant(read_instant(text))


def follow(store: AnnotationReader, wanted: Past, pause_s: float = _PAUSE_S) -> Iterator[Event]:
    """The events that are wanted, from `wanted.since` on or, where that is empty, from now on; it never ends.

    Raises Gone when edits since then are not kept any longer, OSError, Unreadable.
    """
    tail = DatasetTail(store, wanted.dataset, instant_of(time.time()))
    sent: set[str] = set()
    events, whole = [*tail.look()], not wanted.since
    while not whole:
        events, whole = page(store, wanted, sent)
        yield from events
        sent = {event.id for event in events if whole or event.time == events[-1].time}
        wanted = replace(wanted, since=events[-1].time) if events else wanted
        if not whole:
            list(tail.look())  # what came meanwhile is on the next page
    while True:
        for event in in_order(tail.look()):
            if wanted.wants(event) and event.id not in sent:
                yield event
        time.sleep(pause_s)
