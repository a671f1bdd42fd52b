"""Annotations in other formats: files, Neuroglancer's states and its precomputed collections."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from annotation_store.exchange.formats import FORMATS, WRITTEN, format_named
from annotation_store.exchange.swc import UM, VOXEL
from annotation_store.web.interface.leaves import AT
from precomputed_server.errors import InvalidInput, PreconditionFailed, TooLarge, Unreadable
from precomputed_server.web.interface.operation import (
    ANY,
    ETAG,
    KEY,
    OBJECT,
    OF_EDITS,
    OF_FILES,
    PART,
    RANGED,
    UNCHANGED,
    WHATEVER,
    Answer,
    Body,
    Kind,
    Operation,
    Parameter,
    answered,
    moved,
    page,
)
from precomputed_server.web.routes import COLLECTION, COLLECTIONS, EXPORT, ID64, IMPORT, VIEWER_STATE


class ImportRow(TypedDict):
    """An annotation of an import, which of its fields are meant, and why it was not taken where it was not."""

    id: str
    block: str
    leaf: str
    fields: NotRequired[list[str]]
    why: NotRequired[str]


class ImportAnswer(TypedDict):
    """What an import did, or would do: counts of all, and of each kind the first 1000 annotations."""

    dry_run: bool
    counts: dict[str, int]
    added: list[ImportRow]
    changed: list[ImportRow]
    removed: list[ImportRow]
    conflicts: list[ImportRow]
    notes: list[str]
    blocks: list[dict[str, Any]]
    link: str


class Place(TypedDict):
    """A leaf of a block."""

    block: str
    leaf: str


class NumberedAnnotation(TypedDict):
    """The annotation of a number, and where it lies; `also` where other leaves have the same id."""

    id64: str
    id: str
    block: str
    leaf: str
    also: NotRequired[list[Place]]


def _content(name: str) -> tuple[str, Kind]:
    """The media type of a format that is written, and what its file is."""
    media_type = format_named(name, WRITTEN).media_type.partition(";")[0]
    return media_type, OBJECT if media_type.endswith("json") else str


_YES = {"enum": ["0", "1"]}
_CHOOSING = (
    Parameter("box", "Only what overlaps this box of voxels: x0,x1,y0,y1,z0,z1"),
    Parameter("type", "Only these types, separated by commas"),
    Parameter("leaf", "Only these leaves, separated by commas; contours stands for every slice"),
    Parameter("author", "Only what these edited last"),
    Parameter("reviewed", "1: only what a person has confirmed", _YES),
    AT,
)

EXCHANGE = (
    Operation(
        EXPORT,
        "Annotations as a file",
        (
            Answer(
                200,
                "The file",
                dict(map(_content, WRITTEN)),
                {
                    "Content-Disposition": "The file's name",
                    "Annotations-Unreadable": "The damaged leaves that are left out",
                    "Annotations-Left-Out": "How many annotations the format has no place for: 4 of 6",
                },
            ),
        ),
        parameters=(
            Parameter("format", "The file's format", {"enum": list(WRITTEN), "default": WRITTEN[0]}),
            *_CHOOSING,
            Parameter("unit", "Lengths of SWC", {"enum": [UM, VOXEL], "default": UM}),
        ),
        errors=(InvalidInput, Unreadable, TooLarge),
        description="Streamed; each leaf in one version, which the file names (a header, or the column version).",
    ),
    Operation(
        IMPORT,
        "Merge a file or a Neuroglancer state",
        (
            answered("Every block took its edits", ImportAnswer),
            answered("Some did not: each block has a status", ImportAnswer, 207),
        ),
        method="POST",
        parameters=(
            Parameter("dry_run", "1: only say what would be done", _YES),
            Parameter("format", "Default: what the body looks like", {"enum": list(FORMATS)}),
            Parameter(
                "remove",
                "1: remove what the file has no more; 0: never. Default: only for a state that was opened by our link",
                _YES,
            ),
            Parameter("conflicts", "Who wins", {"enum": ["stored", "file"], "default": "stored"}),
            KEY,
        ),
        errors=(*OF_EDITS, PreconditionFailed, Unreadable),
        body=Body({ANY: str}),
        description="CSV, SWC, GeoJSON, JSON lines, a Neuroglancer state or a link with one. Where the file and "
        "somebody else changed the same since the file was made, the stored value stays and is a conflict.",
    ),
    Operation(
        VIEWER_STATE,
        "The Neuroglancer state to annotate in",
        (answered("The state", OBJECT),),
        parameters=_CHOOSING,
        errors=(InvalidInput, TooLarge, Unreadable),
        description="For a link NEUROGLANCER#!URL. Its edits come back by import.",
    ),
    Operation(
        ID64,
        "Which annotation has a number in Neuroglancer",
        (answered("Its id, and the block and leaf that it lies in", NumberedAnnotation),),
        errors=(Unreadable,),
        description="The number is the first 8 bytes of the SHA-256 of the id, most significant first.",
    ),
    Operation(
        COLLECTIONS,
        "The collections of annotations that Neuroglancer can show",
        (page("A page of relative links"), moved()),
        errors=(Unreadable,),
        description="One for each kind of leaf and type of geometry, `fibers-polyline`. They are made of the newest "
        "version of every leaf.",
    ),
    Operation(
        COLLECTION,
        "A file of a collection",
        (
            Answer(200, "The file", {ANY: WHATEVER}, {"ETag": ETAG}),
            PART,
            UNCHANGED,
            moved(),
        ),
        parameters=(Parameter("file", "The name of a file", where="path", example="info"), *RANGED),
        errors=(Unreadable, *OF_FILES),
        description="`info`, a cell of the spatial index as info names it, `by_id/NUMBER` or `segments/OBJECT`, in "
        "Neuroglancer's precomputed format.",
    ),
)
