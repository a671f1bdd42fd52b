"""Reading and editing annotations: leaves, their history, and many edits at once."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

from annotation_store.activity import Edit
from annotation_store.history.entries import Entry
from annotation_store.model import GEOMETRY, LONGEST_ID
from annotation_store.web.request import EDIT_HEADER, VERSION_HEADER
from precomputed_server.errors import Gone, InvalidInput, Unreadable
from precomputed_server.format.geometry import Vector
from precomputed_server.web.interface.operation import (
    ETAG,
    IF_MATCH,
    JSON,
    KEY,
    OBJECT,
    OF_BODIES,
    OF_EDITS,
    OF_FILES,
    PART,
    RANGED,
    UNCHANGED,
    Answer,
    Body,
    Operation,
    Parameter,
    answered,
)
from precomputed_server.web.routes import ACTIVITY, BLOCKS, EDITS, HISTORY, LEAF, RESTORE


class LeafOfBlock(TypedDict):
    """A leaf of a block; None where it cannot be read."""

    leaf: str
    count: int | None
    version: int | None


class BlockRow(TypedDict):
    """A block: the directory it lies in, its place in the grid of blocks, and which voxels are its own."""

    directory: str
    index: Vector | None
    start: Vector
    stop: Vector
    leaves: list[LeafOfBlock]


class BlocksAnswer(TypedDict):
    """The blocks of a dataset; the size in voxels, None where they are not of one."""

    block_size: Vector | None
    blocks: list[BlockRow]


class HistoryAnswer(TypedDict):
    """Edits of a leaf, newest first; `next` is the `before` with which the list goes on."""

    leaf: str
    version: int
    entries: list[Entry]
    next: int | None


class DayOfAuthor(TypedDict):
    """How many edits an author made on a day (UTC)."""

    day: str
    author: str
    edits: int


class ActivityAnswer(TypedDict):
    """The newest edits, and how many each author made on each day; `cut` tells that there are too many to count."""

    edits: list[Edit]
    days: list[DayOfAuthor]
    cut: bool


class Restored(TypedDict):
    """What a restore made: so many annotations are as they were."""

    leaf: str
    version: int
    restored: int


class EditedLeaf(TypedDict):
    """What became of one edit."""

    leaf: str
    id: str | None
    version: int
    etag: str | None


class EditedBlock(TypedDict):
    """What became of the edits of a block: all of them, or `detail` says why none."""

    block: str
    status: int
    detail: NotRequired[str]
    edits: NotRequired[list[EditedLeaf]]


class EditsAnswer(TypedDict):
    """What became of the edits of each block."""

    blocks: list[EditedBlock]


class WantedEdit(TypedDict):
    """One edit: `if_match` is the ETag of its leaf; `change` takes a merge patch."""

    block: str
    leaf: str
    operation: Literal["put", "change", "add", "delete"]
    id: NotRequired[str]
    annotation: NotRequired[dict[str, Any]]
    if_match: NotRequired[str]


class SavedLeaf(TypedDict):
    """The path of the file that a save wrote."""

    filename: str


_POINT: Any = {"type": "array", "items": float, "minItems": 3, "maxItems": 3, "description": "x, y, z in voxels"}
ANNOTATION: Any = {
    "type": "object",
    "required": ["id", "type"],
    "description": "Further members are kept",
    "properties": {
        "id": {"type": "string", "minLength": 1, "maxLength": LONGEST_ID},
        "type": {"enum": sorted(GEOMETRY)},
        **{
            name: {"type": "array", "items": _POINT} if name == "points" else _POINT
            for name in sorted({field for fields in GEOMETRY.values() for field in fields})
        },
        "anntype": str,
        "description": str,
    },
}
_STORED: Any = {"type": "array", "items": {"type": "object"}}
_EXAMPLE = {"id": "a1", "type": "point", "point": [1, 2, 3]}
_TOLD = {VERSION_HEADER: "The leaf's version now", EDIT_HEADER: "applied, merged, unchanged or parked; id=…"}
_ID = Parameter("id", "The annotation's id", example="a1")
_EDITING = (IF_MATCH, KEY)
AT = Parameter("at", "An RFC 3339 instant: what was there then")


def _edited(status: int, description: str, kind: Any = str) -> Answer:  # noqa: ANN401  # any type
    return Answer(status, description, {JSON: kind}, {**_TOLD, "ETag": ETAG})


LEAVES = (
    Operation(
        BLOCKS,
        "The blocks of a dataset",
        (answered("Directory, index and voxel box of each, and its leaves", BlocksAnswer),),
        errors=(Unreadable,),
    ),
    Operation(
        LEAF,
        "The annotations of one leaf",
        (
            Answer(
                200,
                "The newest acknowledged version, or the one asked for",
                {JSON: _STORED},
                {"ETag": "A hash of the content", VERSION_HEADER: "Which version it is, where one was asked for"},
            ),
            PART,
            UNCHANGED,
        ),
        parameters=(
            Parameter("version", "A version of the leaf, counted from 1", {"type": "integer", "minimum": 0}),
            AT,
            *RANGED,
        ),
        errors=(InvalidInput, Gone, Unreadable, *OF_FILES),
    ),
    Operation(
        LEAF,
        "Save the whole leaf",
        (_edited(200, "On disk", SavedLeaf),),
        method="PUT",
        parameters=_EDITING,
        errors=(*OF_EDITS, Unreadable),
        body=Body({JSON: {"type": "array", "items": ANNOTATION}, "text/plain": str}, example=[_EXAMPLE]),
        description="With If-Match the list becomes exactly the body, or the answer is 412. Without it the save means "
        "the difference to what that page holds: the body it saved last, else what it was answered last. That "
        "difference is merged into what is stored, annotation by annotation and field by field; removals that look "
        "like an accident of the client are parked. The body of a save that is refused is kept (refused; id=…). An "
        "empty list for a leaf that does not exist creates nothing.",
    ),
    Operation(
        LEAF,
        "Replace one annotation, or create it; or change fields of it",
        (_edited(200, "On disk; the id"),),
        method="PATCH",
        parameters=(_ID, *_EDITING),
        errors=(*OF_EDITS, Unreadable),
        body=Body({JSON: ANNOTATION, "application/merge-patch+json": OBJECT}, example=_EXAMPLE),
        description="application/json: the whole annotation. application/merge-patch+json (RFC 7396): the fields to "
        "change; null removes one. What is new or moved must lie in the volume, at least in part (else 422).",
    ),
    Operation(
        LEAF,
        "Create an annotation",
        (_edited(201, "On disk; the id"),),
        method="POST",
        parameters=_EDITING,
        errors=(*OF_EDITS, Unreadable),
        body=Body({JSON: {**ANNOTATION, "required": ["type"]}}, example={"type": "point", "point": [1, 2, 3]}),
        description="The server gives the id, unless the body brings one that is not taken. It must lie in the volume, "
        "at least in part (else 422).",
    ),
    Operation(
        LEAF,
        "Delete one annotation",
        (_edited(200, "Gone, on disk; the id"), Answer(204, "No id was given; nothing was done")),
        method="DELETE",
        parameters=(
            _ID,
            Parameter("seen", "The annotation has to be what it was in this version of the leaf, else 412", int),
            *_EDITING,
        ),
        errors=(*OF_EDITS, Gone, Unreadable),
    ),
    Operation(
        HISTORY,
        "Who changed what in a leaf and when",
        (answered("Newest first", HistoryAnswer),),
        parameters=(
            Parameter("limit", "How many edits at most; a version is never split", {"type": "integer", "minimum": 0}),
            Parameter("before", "Only versions before this one: next of the answer before", int),
            Parameter("id", "Only this annotation"),
            Parameter("author", "Only this author"),
        ),
        errors=(InvalidInput, Unreadable),
    ),
    Operation(
        RESTORE,
        "Bring back what a leaf, or one annotation of it, was before",
        (_edited(200, "On disk", Restored),),
        method="POST",
        parameters=_EDITING,
        errors=(*OF_EDITS, Gone, Unreadable),
        body=Body(
            {
                JSON: {
                    "type": "object",
                    "properties": {"version": {"type": "integer", "minimum": 1}, "at": str, "id": str, "seen": int},
                    "oneOf": [{"required": ["version"]}, {"required": ["at"]}],
                    "additionalProperties": False,
                }
            },
            example={"version": 1},
        ),
        description="An edit like any other: it makes a new version and can itself be undone.",
    ),
    Operation(
        ACTIVITY,
        "The newest edits of all leaves, and how many each author made on each day",
        (answered("Newest first; those that one person made to one annotation in one go are one", ActivityAnswer),),
        parameters=(
            Parameter("limit", "How many edits", {"type": "integer", "minimum": 0, "maximum": 1000, "default": 50}),
            Parameter("days", "How many days back", {"type": "integer", "minimum": 0, "maximum": 3660, "default": 30}),
        ),
        errors=(InvalidInput, Unreadable),
    ),
    Operation(
        EDITS,
        "Many edits of many leaves",
        (
            answered("Every block took its edits", EditsAnswer),
            answered("Some did not: each block has a status", EditsAnswer, 207),
        ),
        method="POST",
        parameters=(KEY,),
        errors=(*OF_EDITS, *OF_BODIES, Unreadable),
        body=Body(
            {
                JSON: {
                    "type": "object",
                    "required": ["edits"],
                    "properties": {"edits": {"type": "array", "items": WantedEdit, "minItems": 1, "maxItems": 10_000}},
                }
            },
            example={"edits": [{"block": "x0y0z0", "leaf": "fibers", "operation": "put", "annotation": _EXAMPLE}]},
        ),
        description="Operations: put (the whole annotation, created when absent), change (a merge patch), add, delete. "
        "All edits of a block happen or none does.",
    ),
)
