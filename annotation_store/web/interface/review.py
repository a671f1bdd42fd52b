"""How far annotations are, and reviewing them."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from precomputed_server.errors import InvalidInput, PreconditionFailed, Unreadable
from precomputed_server.format.geometry import Vector
from precomputed_server.web.interface.operation import (
    ETAG,
    IF_MATCH,
    JSON,
    KEY,
    OF_EDITS,
    OF_FILES,
    PART,
    RANGED,
    UNCHANGED,
    Body,
    Operation,
    Parameter,
    answered,
)
from precomputed_server.web.routes import DATASET_PROGRESS, PROGRESS, REVIEW


class LeafCounts(TypedDict):
    """Counts of a leaf."""

    leaf: str
    total: int
    reviewed: int
    visited: int


class BlockCounts(TypedDict):
    """Counts of a block and its leaves."""

    block: str
    directory: str
    index: Vector | None
    start: Vector
    stop: Vector
    leaves: list[LeafCounts]
    total: int
    reviewed: int
    visited: int


class SliceCounts(TypedDict):
    """Counts of a slice; None is of what begins in none."""

    slice: int | None
    total: int
    reviewed: int
    visited: int


class AuthorCounts(TypedDict):
    """Counts of what an author drew, and how much they confirmed; None is of what nobody knows who drew."""

    author: str | None
    total: int
    reviewed: int
    visited: int
    confirmed_by_them: int
    confirmed_own: int


class TypeCounts(TypedDict):
    """Counts of an anntype; None is of what has none."""

    anntype: str | None
    total: int
    reviewed: int
    visited: int


class UnreadableLeaf(TypedDict):
    """A leaf that could not be read, and why."""

    block: str
    leaf: str
    detail: str


class ProgressAnswer(TypedDict):
    """How many annotations there are, how many a person confirmed as they lie there, how many somebody looked at."""

    total: int
    reviewed: int
    visited: int
    blocks: list[BlockCounts]
    slices: list[SliceCounts]
    authors: list[AuthorCounts]
    types: list[TypeCounts]
    unreadable: list[UnreadableLeaf]


class Confirmed(TypedDict):
    """Who confirmed an annotation, and when."""

    author: str
    time: str


class ReviewRow(TypedDict):
    """An annotation in the list of a reviewer; `geometry` is sent back when it is confirmed."""

    block: str
    leaf: str
    id: str
    slice: int | None
    author: str | None
    anntype: str | None
    type: str | None
    position: list[float] | None
    description: str
    state: Literal["untouched", "visited", "moved", "reviewed"]
    review: Confirmed | None
    geometry: str


class ReviewList(TypedDict):
    """A part of the list; `time` is the `since` with which it keeps what is confirmed from now on."""

    annotations: list[ReviewRow]
    matching: int
    next: str | None
    time: str


class ReviewAnswer(TypedDict):
    """What became of each block, which ids are not there, and which leaves could not be read."""

    blocks: list[dict[str, Any]]
    missing: list[Any]
    unreadable: list[Any]


_IDS: Any = {"anyOf": [list[str], {"type": "object", "additionalProperties": {"type": ["string", "null"]}}]}
_REVIEWED: Any = {
    "type": "object",
    "required": ["reviewed"],
    "minProperties": 2,
    "maxProperties": 2,
    "additionalProperties": False,
    "properties": {
        "reviewed": bool,
        "annotations": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["block", "leaf", "ids"],
                "properties": {"block": str, "leaf": str, "if_match": str, "ids": _IDS},
            },
        },
        "ids": _IDS,
        "where": {
            "type": "object",
            "properties": {
                "block": str,
                "leaf": str,
                "slice": {"type": ["integer", "null"]},
                "author": {"type": ["string", "null"]},
                "anntype": {"type": ["string", "null"]},
                "type": {"type": ["string", "null"]},
            },
        },
    },
}
_COUNTED = (
    answered("The counts; the ETag changes when one of them does", ProgressAnswer, ETag=ETAG),
    PART,
    UNCHANGED,
)
_ABOUT_COUNTS = (
    "`reviewed` is what a person confirmed as it lies there now; `visited` what somebody looked at, the client's own "
    "flags included. An annotation belongs to whoever drew it, and is counted in the slice in which it begins."
)

REVIEWING = (
    Operation(
        PROGRESS,
        "How many annotations are drawn, looked at and confirmed",
        _COUNTED,
        parameters=RANGED,
        errors=(Unreadable, *OF_FILES),
        description=_ABOUT_COUNTS,
    ),
    Operation(
        DATASET_PROGRESS,
        "How many annotations are drawn, looked at and confirmed",
        _COUNTED,
        parameters=RANGED,
        errors=(Unreadable, *OF_FILES),
        description=_ABOUT_COUNTS,
    ),
    Operation(
        REVIEW,
        "What is left to review",
        (answered("A part of the list", ReviewList),),
        parameters=(
            Parameter("state", "Which of them", {"enum": ["unreviewed", "reviewed", "all"], "default": "unreviewed"}),
            Parameter("block", "Of this block"),
            Parameter("leaf", "Of this leaf"),
            Parameter("slice", "That begin in this slice; empty: in none"),
            Parameter("author", "Whom this author drew; empty: nobody knows"),
            Parameter("anntype", "Of this anntype; empty: of none"),
            Parameter("type", "Of this type"),
            Parameter("since", "Also what was confirmed since this moment"),
            Parameter("limit", "At most so many", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}),
            Parameter("cursor", "The `next` of an earlier answer"),
        ),
        errors=(InvalidInput, Unreadable),
    ),
    Operation(
        REVIEW,
        "Confirm annotations, or withdraw that",
        (answered("All of them are", ReviewAnswer), answered("What became of each block", ReviewAnswer, 207)),
        method="POST",
        parameters=(IF_MATCH, KEY),
        errors=(*OF_EDITS, PreconditionFailed, Unreadable),
        body=Body({JSON: _REVIEWED}, example={"reviewed": True, "where": {"slice": 3}}),
        description="In the name of the session. All of a block is one durable step. What is confirmed with the "
        "`geometry` that was looked at is refused where it was moved since.",
    ),
)
