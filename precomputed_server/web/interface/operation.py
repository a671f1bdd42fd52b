"""What a route takes and answers, as values of which the interface's description is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from precomputed_server.errors import (
    Busy,
    Conflict,
    Defect,
    InvalidAnnotation,
    InvalidPath,
    KeyReused,
    NotFound,
    NotPermitted,
    PrecomputedError,
    PreconditionFailed,
    RangeNotSatisfiable,
    StorageFull,
    TooLarge,
    TooSlow,
    WritesRefused,
)
from precomputed_server.web.routes import Route

Kind = Any
"""What a value is: a type (a dataclass, a TypedDict, `list[int]`), or a JSON schema in which types may stand."""
Errors = tuple[type[PrecomputedError], ...]

JSON, HTML, ANY = "application/json", "text/html", "*/*"
BINARY: Kind = {"type": "string", "format": "binary"}
WHATEVER: Kind = {}
"""Of a file: its name says what it is."""
OBJECT = dict[str, Any]

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Parameter:
    """What a request may bring besides its body; a parameter of a path is always required."""

    name: str
    description: str
    kind: Kind = str
    where: Literal["path", "query", "header"] = "query"
    required: bool = False
    example: Any = None


@dataclass(frozen=True)
class Answer:
    """An answer that is no error: `content` is media type → what its body is, `headers` name → what it says."""

    status: int
    description: str
    content: Mapping[str, Kind] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Body:
    """The body of a request: media type → what it is."""

    content: Mapping[str, Kind]
    description: str = ""
    example: Any = None


@dataclass(frozen=True)
class Operation:
    """What one method of a route does; HEAD is told with GET.

    `path` is as OpenAPI writes it, where the template of the route is not; `errors` are those besides EVERYWHERE.
    """

    route: Route
    summary: str
    answers: tuple[Answer, ...]
    method: str = "GET"
    parameters: tuple[Parameter, ...] = ()
    errors: Errors = ()
    body: Body | None = None
    description: str = ""
    path: str = ""

    @property
    def url(self) -> str:
        """The path, with its parameters in braces."""
        return self.path or self.route.template

    @property
    def placeholders(self) -> list[str]:
        """The names of the path's parameters."""
        return _PLACEHOLDER.findall(self.url)


@dataclass(frozen=True)
class Section:
    """Operations that are shown under one heading."""

    name: str
    description: str
    operations: tuple[Operation, ...]


def answered(description: str, kind: Kind, status: int = 200, **headers: str) -> Answer:
    """An answer whose body is JSON; `headers` are named with underscores."""
    return Answer(status, description, {JSON: kind}, {name.replace("_", "-"): said for name, said in headers.items()})


def moved() -> Answer:
    """The answer to the address of a directory without the slash at its end."""
    return Answer(308, "A directory that was asked for without its slash", {}, {"Location": "The same with it"})


def page(description: str) -> Answer:
    """An answer for people."""
    return Answer(200, description, {HTML: str})


EVERYWHERE: Errors = (Defect, Busy)
"""What any request can meet."""
WITH_PATH: Errors = (InvalidPath, NotFound)
"""What any request can meet whose path has parameters."""
OF_FILES: Errors = (PreconditionFailed, RangeNotSatisfiable)
"""What a conditional request, and one for a range, can meet."""
OF_BODIES: Errors = (InvalidPath, TooLarge, TooSlow)
"""What a request with a body can meet."""
OF_EDITS: Errors = (
    *OF_BODIES,
    Conflict,
    InvalidAnnotation,
    KeyReused,
    NotPermitted,
    PreconditionFailed,
    StorageFull,
    WritesRefused,
)
"""What an edit can meet."""

PART = Answer(206, "The bytes of it that Range asks for", {}, {"Content-Range": "Which bytes, of how many"})
"""As the whole, whose media type it has; nothing is said of what is in it, as it begins and ends anywhere."""
UNCHANGED = Answer(304, "The client has it already")
ETAG = "The version of what is answered"
IF_NONE_MATCH = Parameter("If-None-Match", "The ETag of what the client has: 304 while it is the same", where="header")
IF_MATCH = Parameter("If-Match", "The ETag of the version that the edit is made from, or *", where="header")
ONLY_IF = Parameter("If-Match", "Answer only while the ETag is this one, else 412", where="header")
CONDITIONAL = (IF_NONE_MATCH, ONLY_IF)
RANGED = (
    *CONDITIONAL,
    Parameter("Range", "Some of the bytes: `bytes=0-99`; several ranges are answered with the whole", where="header"),
    Parameter("If-Range", "The ETag that the range is of; the whole is sent where it is another", where="header"),
)
KEY = Parameter(
    "Idempotency-Key",
    "A name for this request: sent again within 24 hours it changes nothing twice",
    {"type": "string", "pattern": "^[!-~]{1,200}$"},
    "header",
)

PATH_PARAMETERS: Mapping[str, Parameter] = {
    parameter.name: parameter
    for parameter in (
        Parameter("dataset", "The dataset's path beneath the root", where="path", example="tissue"),
        Parameter("path", "A path beneath the root", where="path", example="tissue/info"),
        Parameter("file", "The name of a file", where="path"),
        Parameter("block", "A block by any voxel in it, xXyYzZ, or by its directory", where="path", example="x0y0z0"),
        Parameter("leaf", "fibers, centroids or z-NNNN", where="path", example="fibers"),
        Parameter("collection", "The name of a collection", where="path", example="fibers-polyline"),
        Parameter("n", "The number of an annotation", where="path", example="13436514500253700074"),
        Parameter("x", "Of the scale's key", {"type": "string", "pattern": r"^[\d.]+$"}, "path", example="1"),
        Parameter("y", "Of the scale's key", {"type": "string", "pattern": r"^[\d.]+$"}, "path", example="1"),
        Parameter("z", "Of the scale's key", {"type": "string", "pattern": r"^[\d.]+$"}, "path", example="1"),
    )
}
"""Those that mean the same wherever they occur."""
