"""The pages that people see, and what they are made of."""

from __future__ import annotations

from precomputed_server.errors import InvalidInput, MissingExtra, Unreadable
from precomputed_server.web.interface.catalog import SEARCH
from precomputed_server.web.interface.operation import (
    ANY,
    ETAG,
    JSON,
    OBJECT,
    OF_FILES,
    PART,
    RANGED,
    UNCHANGED,
    WHATEVER,
    Answer,
    Operation,
    Section,
    moved,
    page,
)
from precomputed_server.web.routes import (
    ANNOTATION_PAGE,
    API,
    DATASET_PAGE,
    HEALTH,
    ICON,
    INDEX,
    OPEN,
    OPENAPI,
    REVIEW_PAGE,
    STATIC,
    VIEWER,
)

_OF_PAGES = (InvalidInput, Unreadable)
_FILE = (
    Answer(200, "The file", {ANY: WHATEVER}, {"ETag": ETAG}),
    PART,
    UNCHANGED,
)
_DESCRIPTION = (
    Answer(200, "An OpenAPI 3.1 document", {JSON: OBJECT}, {"ETag": ETAG}),
    PART,
    UNCHANGED,
)

PAGES = Section(
    "pages",
    "For people",
    (
        *(
            Operation(
                INDEX, "The datasets, as cards", (page("A page"),), parameters=SEARCH, errors=_OF_PAGES, path=path
            )
            for path in ("/", INDEX.template)
        ),
        Operation(
            DATASET_PAGE,
            "A look at a dataset, its scales and origin, and its links",
            (page("A page"), Answer(302, "To the start page, where the root is no dataset", {}, {"Location": "It"})),
            errors=_OF_PAGES,
        ),
        Operation(
            ANNOTATION_PAGE,
            "How far the annotations of a dataset are, who edits, undo, and parked saves",
            (page("A page"),),
            errors=_OF_PAGES,
        ),
        Operation(REVIEW_PAGE, "Where people review annotations", (page("A page"),), errors=_OF_PAGES),
        Operation(
            OPEN,
            "The way to Neuroglancer with a dataset and its annotations in it",
            (Answer(302, "To the viewer", {}, {"Location": "The viewer, with the state in the fragment"}),),
            errors=(InvalidInput, MissingExtra, Unreadable),
        ),
        Operation(
            VIEWER,
            "Neuroglancer, where the `viewer` extra is installed",
            (page("The viewer"), *_FILE[1:]),
            parameters=RANGED,
            errors=(MissingExtra, *OF_FILES),
        ),
        Operation(
            VIEWER,
            "What the viewer consists of",
            _FILE,
            parameters=RANGED,
            errors=(MissingExtra, *OF_FILES),
            path=f"{VIEWER.template}{{file}}",
        ),
        Operation(API, "This interface, to read and to try", (page("Swagger UI"), moved())),
        Operation(API, "What Swagger UI consists of", _FILE, parameters=RANGED, errors=OF_FILES, path="/api/{file}"),
        Operation(API, "This description", _DESCRIPTION, parameters=RANGED, errors=OF_FILES, path="/api/openapi.json"),
        Operation(OPENAPI, "This description once more", _DESCRIPTION, parameters=RANGED, errors=OF_FILES),
        Operation(STATIC, "Style and script of the pages", _FILE, parameters=RANGED, errors=OF_FILES),
        Operation(ICON, "The pages' icon", _FILE, parameters=RANGED, errors=OF_FILES),
        Operation(HEALTH, "200 while the process serves", (Answer(200, "ok", {"text/plain": str}),)),
    ),
)
