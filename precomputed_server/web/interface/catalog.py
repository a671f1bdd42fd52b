"""The catalog's part of the interface: which datasets there are, their pictures and links."""

from __future__ import annotations

from typing import Any, TypedDict

from precomputed_server.catalog.database import SORTS
from precomputed_server.catalog.entries import STATES as DATASET_STATES
from precomputed_server.catalog.rows import CataloguedDataset
from precomputed_server.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    NotPermitted,
    PreconditionFailed,
    StorageFull,
    Unreadable,
    WritesRefused,
)
from precomputed_server.web.datasets import LONGEST_QUERY, MOST, USUALLY
from precomputed_server.web.describing import LONGEST_DESCRIPTION, LONGEST_TAG, LONGEST_TITLE, MOST_TAGS
from precomputed_server.web.interface.operation import (
    BINARY,
    ETAG,
    IF_MATCH,
    JSON,
    OBJECT,
    OF_BODIES,
    OF_FILES,
    PART,
    RANGED,
    UNCHANGED,
    Answer,
    Body,
    Operation,
    Parameter,
    Section,
    answered,
)
from precomputed_server.web.pictures import FEWEST_PIXELS, MOST_PIXELS, PREVIEW_PIXELS, SLICE_HEADER
from precomputed_server.web.routes import (
    DATASET,
    DATASET_HISTOGRAM,
    DATASET_LINK,
    DATASET_PREVIEW,
    DATASET_THUMBNAIL,
    DATASETS,
    LINK,
    SAVED_STATE,
    STATES,
)


class DatasetsPage(TypedDict):
    """A part of what was found; `facets` counts the values among all that match, `next` is the cursor of the rest."""

    total: int
    datasets: list[CataloguedDataset]
    facets: dict[str, dict[str, int]]
    next: str | None


class DescribedDataset(TypedDict):
    """What the record of a dataset says; where there is a catalog, with all that it knows of it."""

    path: str
    id: str | None
    title: str
    description: str
    tags: list[str]


class ChannelFigures(TypedDict):
    """Range, percentiles and histogram of a channel: one count between each two edges; None where it has no voxel."""

    min: float | None
    max: float | None
    p01: float | None
    p998: float | None
    edges: list[float]
    counts: list[int]


class Histogram(TypedDict):
    """The figures of each channel."""

    channels: list[ChannelFigures]


class ViewerLink(TypedDict):
    """A link and the Neuroglancer state in it; None, and the reason, where no viewer could read from this server."""

    url: str | None
    state: dict[str, Any]
    reason: str | None


_NAMES: Any = {"type": "array", "items": str}
_LAYER = Parameter("layer", "The name of a layer; without it the first")
SEARCH = (
    Parameter(
        "q",
        "Beginnings of words of title, path, description and tags; all have to occur",
        {"type": "string", "maxLength": LONGEST_QUERY},
    ),
    Parameter(
        "state",
        "Only datasets in one of these states; without it all but the vanished",
        {"type": "array", "items": {"enum": list(DATASET_STATES)}},
    ),
    Parameter("type", "Only these types: image, segmentation", _NAMES),
    Parameter("tag", "Only datasets with all of these tags", _NAMES),
    Parameter(
        "sort",
        "Their order, with - before it the other way round",
        {"enum": [sign + name for name in SORTS for sign in ("", "-")], "default": "path"},
    ),
    Parameter("limit", "How many at most", {"type": "integer", "minimum": 1, "maximum": MOST, "default": USUALLY}),
    Parameter("cursor", "`next` of the page before, of the same search"),
)
_WORDS = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": False,
    "properties": {
        "title": {
            "type": ["string", "null"],
            "maxLength": LONGEST_TITLE,
            "description": "Empty or null: the name of its directory",
        },
        "description": {"type": ["string", "null"], "maxLength": LONGEST_DESCRIPTION},
        "tags": {
            "type": ["array", "null"],
            "maxItems": MOST_TAGS,
            "items": {"type": "string", "minLength": 1, "maxLength": LONGEST_TAG},
        },
    },
}
_SLICE = "The slice that is shown, in voxels of the finest scale counted from where the volume begins"
_PICTURE = (
    Answer(200, "A PNG file", {"image/png": BINARY, JSON: CataloguedDataset}, {"ETag": ETAG, SLICE_HEADER: _SLICE}),
    PART,
    UNCHANGED,
)
_OF_LAYERS = (InvalidInput, NotFound, Unreadable)
_ADDRESS = {"type": "string", "format": "uri"}

CATALOG = Section(
    "catalog",
    "Which datasets there are, in what state, how they look. Where a dataset itself has the name of something that is "
    "asked of one, `histogram`, the answer is that dataset.",
    (
        Operation(
            DATASETS,
            "The datasets of the catalog",
            (answered("A page of them", DatasetsPage),),
            parameters=SEARCH,
            errors=(InvalidInput,),
        ),
        Operation(
            DATASET,
            "What the catalog knows of a dataset",
            (answered("The dataset", CataloguedDataset, ETag="The version of the dataset's record"),),
        ),
        Operation(
            DATASET,
            "Change title, description or tags of a dataset",
            (answered("The dataset as it is then", DescribedDataset, ETag="The version of the dataset's record"),),
            method="PATCH",
            parameters=(IF_MATCH,),
            errors=(*OF_BODIES, Conflict, NotPermitted, PreconditionFailed, StorageFull, WritesRefused),
            body=Body({JSON: _WORDS}, example={"tags": ["cortex"]}),
        ),
        Operation(
            DATASET_HISTOGRAM,
            "Range and histogram of each channel of a layer",
            (
                answered(
                    "As the conversion counted them, or of a sample of the coarsest scale",
                    Histogram | CataloguedDataset,
                ),
            ),
            parameters=(_LAYER,),
            errors=_OF_LAYERS,
        ),
        Operation(
            DATASET_THUMBNAIL,
            "The middle slice, at most 256 pixels a side",
            _PICTURE,
            parameters=(_LAYER, *RANGED),
            errors=(*_OF_LAYERS, *OF_FILES),
        ),
        Operation(
            DATASET_PREVIEW,
            "One slice of a layer",
            _PICTURE,
            parameters=(
                Parameter(
                    "z",
                    "The slice, in voxels of the finest scale counted from where the volume begins; one outside is "
                    "the next there is. Without it the middle",
                    int,
                ),
                Parameter(
                    "size",
                    "Pixels of the longer side, at most",
                    {"type": "integer", "minimum": FEWEST_PIXELS, "maximum": MOST_PIXELS, "default": PREVIEW_PIXELS},
                ),
                _LAYER,
                Parameter(
                    "range",
                    "LOW,HIGH in the volume's values, once for each channel: another contrast than the dataset's",
                    _NAMES,
                ),
                *RANGED,
            ),
            errors=(*_OF_LAYERS, *OF_FILES),
        ),
        Operation(
            DATASET_LINK,
            "The link that shows a dataset in Neuroglancer",
            (answered("The link and the state in it", ViewerLink | CataloguedDataset),),
            errors=_OF_LAYERS,
        ),
        Operation(
            LINK,
            "One link that shows several datasets in Neuroglancer",
            (answered("The link and the state in it", ViewerLink),),
            parameters=(
                Parameter(
                    "dataset",
                    "The path of a dataset, . for the root",
                    {**_NAMES, "minItems": 1, "maxItems": 100},
                    required=True,
                    example=["tissue"],
                ),
            ),
            errors=_OF_LAYERS,
        ),
        Operation(
            STATES,
            "Save a viewer state, for a short link",
            (
                answered("It was saved before; its address", _ADDRESS, Location="The same address"),
                answered("Its address", _ADDRESS, 201, Location="The same address"),
            ),
            method="POST",
            errors=(*OF_BODIES, StorageFull, NotPermitted, WritesRefused),
            body=Body({JSON: OBJECT}, "A JSON object of at most 1 MiB"),
        ),
        Operation(
            SAVED_STATE,
            "A saved viewer state",
            (
                answered("The state, byte for byte as it was saved", OBJECT, ETag=ETAG),
                PART,
                UNCHANGED,
            ),
            parameters=(
                Parameter(
                    "id",
                    "The beginning of the SHA-256 of the state",
                    {"type": "string", "pattern": "^[0-9a-f]{32}$"},
                    "path",
                ),
                *RANGED,
            ),
            errors=(Unreadable, *OF_FILES),
        ),
    ),
)
