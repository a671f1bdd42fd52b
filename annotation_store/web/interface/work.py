"""Following the work on annotations: events, parked saves and the last ones."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from annotation_store.web.request import EDIT_HEADER, VERSION_HEADER
from precomputed_server.errors import Gone, InvalidInput, Unreadable
from precomputed_server.web.interface.operation import (
    JSON,
    KEY,
    OF_EDITS,
    Answer,
    Operation,
    Parameter,
    answered,
)
from precomputed_server.web.routes import (
    EVENTS,
    PARKED,
    PARKED_END,
    PARKED_SAVE,
    SAVES,
)


class ParkedRow(TypedDict):
    """A save that was not applied, or not whole; of a refused one `status` is the answer that its page got."""

    id: str
    block: str
    leaf: str
    time: str
    author: NotRequired[str]
    session: str
    reason: str
    remove: list[str]
    status: NotRequired[int]
    complete: NotRequired[bool]


class ParkedAnswer(TypedDict):
    """What waits to be applied or discarded, newest first."""

    parked: list[ParkedRow]


class EndedSave(TypedDict):
    """What became of it; `parked` is the id under which removals of a refused save wait now, where there are any."""

    id: str
    leaf: str
    version: NotRequired[int]
    removed: NotRequired[int]
    parked: NotRequired[str]


class SaveRow(TypedDict):
    """A save of the session that asks, and what became of it."""

    time: str
    block: str
    leaf: str
    outcome: str | None
    version: int | None
    kept: str | None
    reason: str | None


class SavesAnswer(TypedDict):
    """The last saves of a session, newest first."""

    session: str | None
    saves: list[SaveRow]


_NAMES: Any = {"type": "array", "items": str}
_SAVE = Parameter("id", "The id of a parked or refused save", where="path", example="0123456789abcdef")
_ENDED = Answer(
    200,
    "Done, on disk",
    {JSON: EndedSave},
    {VERSION_HEADER: "The leaf's version now", EDIT_HEADER: "How it ended"},
)
WORK = (
    Operation(
        EVENTS,
        "Every edit as it is made",
        (
            Answer(
                200,
                "`data` of an edit: `event`, `block`, `leaf`, `version`, `time`, `author`, `session`, `operation`, "
                "`id`, and `after`, the annotation, null when it was deleted. Of a large one there is `url` instead, "
                "where the leaf of that version can be read, relative to this address; and `change`, what differs, "
                "where that is small. `external` is the operation of a whole leaf that another tool wrote.",
                {"text/event-stream": str},
            ),
        ),
        parameters=(
            Parameter("block", "Only these blocks, each named as in the path of a leaf", _NAMES),
            Parameter("leaf", "Only these leaves", _NAMES),
            Parameter("last_event_id", "The id of the last event that arrived, where no header can be sent"),
            Parameter(
                "since",
                "Begin with what was made since this instant",
                {"type": "string", "format": "date-time"},
            ),
            Parameter(
                "Last-Event-ID", "The id of the last event that arrived; browsers send it by themselves", str, "header"
            ),
        ),
        errors=(InvalidInput, Gone, Unreadable),
        description="A stream of Server-Sent Events that ends when the server stops. Event ids are "
        "`<ms>-<host>-<n>`. Each edit is sent at least once: whoever comes back with the id of the last event gets "
        "everything from 5 s before it. Edits are events without a type; `parked` and `resolved` tell of removals "
        "that were not applied, and of what became of them. A comment comes every 15 s.",
    ),
    Operation(
        PARKED,
        "Saves that were not applied, or not whole",
        (answered("Newest first", ParkedAnswer),),
        errors=(Unreadable,),
    ),
    Operation(
        PARKED_SAVE,
        "The body of such a save",
        (Answer(200, "As the page sent it", {JSON: {}}),),
        parameters=(_SAVE,),
        errors=(Gone, Unreadable),
    ),
    Operation(
        PARKED_END,
        "Apply what was parked, or a refused save, after all",
        (_ENDED,),
        method="POST",
        parameters=(_SAVE, KEY),
        errors=(*OF_EDITS, Gone, Unreadable),
        path="/{dataset}/annotations/parked/{id}/apply",
    ),
    Operation(
        PARKED_END,
        "Forget it",
        (_ENDED,),
        method="POST",
        parameters=(_SAVE, KEY),
        errors=(*OF_EDITS, Gone, Unreadable),
        path="/{dataset}/annotations/parked/{id}/discard",
    ),
    Operation(
        SAVES,
        "The asking session's last saves and what became of them",
        (answered("Newest first, at most 100", SavesAnswer),),
        errors=(Unreadable,),
        description="Ask with the session's prefix: /~NAME/…",
    ),
)
