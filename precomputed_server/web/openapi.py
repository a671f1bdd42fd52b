"""The description of the whole interface (OpenAPI 3.1), made once of the tables of routes and operations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, TypedDict

import orjson
from aiohttp import web

from precomputed_server.web.interface.operation import (
    EVERYWHERE,
    PATH_PARAMETERS,
    WITH_PATH,
    Answer,
    Kind,
    Operation,
    Parameter,
    Section,
)
from precomputed_server.web.interface.schemas import Schema, Schemas
from precomputed_server.web.respond import STATUS, TITLES
from precomputed_server.web.send import Described, send_bytes
from precomputed_server.web.targets import Target

OPENAPI_FILE = "openapi.json"
_PROBLEM = "application/problem+json"
_TEXT: Schema = {"type": "string"}
_ABOUT = (
    "Neuroglancer-precomputed volumes and block-organized annotations, read and edited over HTTP. Every path may be "
    "preceded by a session prefix `/~NAME/`, or `/~NAME.voxel/` in which `info` has its lengths in voxels, and by `/~` "
    "where a directory has a name of ours. `{dataset}` and `{path}` may have any number of segments: write their "
    "slashes as they are (beneath `/api/v1/datasets`, `%2F` is one as well). HEAD answers what GET would, without the "
    "body; OPTIONS which methods there are. Other methods are 405. Every error is `application/problem+json` with one "
    "sentence in `detail`. Every answer may be read by pages of other origins (CORS)."
)
_HEADERS_OF_ERRORS: Mapping[int, tuple[str, str]] = {
    412: ("ETag", "The version that is stored"),
    416: ("Content-Range", "`bytes */` and how many bytes there are"),
    503: ("Retry-After", "Seconds after which it is worth another try"),
    507: ("Retry-After", "Seconds after which it is worth another try"),
}


class Problem(TypedDict):
    """What is wrong and how to mend it (RFC 9457); `detail` is a sentence."""

    type: str
    title: str
    status: int
    detail: str


@dataclass(frozen=True)
class Descriptions:
    """The text of the description for each place where it is served: their servers are relative to it."""

    beneath_api: bytes
    at_root: bytes


DESCRIPTIONS = web.AppKey("descriptions", Descriptions)


def described(sections: Sequence[Section]) -> Descriptions:
    """The description of these operations, as it is served."""
    made = document(sections)
    return Descriptions(
        orjson.dumps({**made, "servers": [{"url": ".."}]}), orjson.dumps({**made, "servers": [{"url": "."}]})
    )


async def get_description(request: web.Request, target: Target) -> web.StreamResponse:
    """The description, whose servers are relative: right under any prefix."""
    texts = request.app[DESCRIPTIONS]
    body = texts.beneath_api if target.path == OPENAPI_FILE else texts.at_root
    return await send_bytes(request, body, Described(hashlib.sha256(body).hexdigest()[:32], "application/json"))


def document(sections: Sequence[Section]) -> Schema:
    """The OpenAPI document, but for where it is served."""
    schemas = Schemas()
    paths: dict[str, Schema] = {}
    for section in sections:
        for operation in section.operations:
            members = {"tags": [section.name], **_operation(operation, schemas)}
            methods = paths.setdefault(operation.url, {})
            methods[operation.method.lower()] = members
            if operation.method == "GET" and "HEAD" in operation.route.methods:
                methods["head"] = _head_of(members)
    return {
        "openapi": "3.1.0",
        "info": {"title": "precomputed-server", "version": version("precomputed-server"), "description": _ABOUT},
        "tags": [{"name": section.name, "description": section.description} for section in sections],
        "paths": paths,
        "components": {
            "responses": {str(status): _problem(status, schemas) for status in sorted(set(STATUS.values()))},
            "schemas": dict(sorted(schemas.components.items())),
        },
    }


def _operation(operation: Operation, schemas: Schemas) -> Schema:
    members: Schema = {"summary": operation.summary, "operationId": _id_of(operation)}
    if operation.description:
        members["description"] = operation.description
    parameters = [*_path_parameters(operation), *(each for each in operation.parameters if each.where != "path")]
    if parameters:
        members["parameters"] = [_parameter(each, schemas) for each in parameters]
    if operation.body is not None:
        content = _content(operation.body.content, schemas)
        if operation.body.example is not None:
            next(iter(content.values()))["example"] = operation.body.example
        members["requestBody"] = {"required": True, "content": content}
        if operation.body.description:
            members["requestBody"]["description"] = operation.body.description
    members["responses"] = _responses(operation, schemas)
    return members


def _id_of(operation: Operation) -> str:
    """A name for programs that are made of the description: each occurs once."""
    own = operation.path.rpartition("/")[2].partition(".")[0].strip("{}")
    told = [] if operation.url == operation.route.template else [own or "root"]
    return "_".join([operation.method.lower(), *operation.route.name.split(), *told])


def _path_parameters(operation: Operation) -> Iterable[Parameter]:
    own = {each.name: each for each in operation.parameters if each.where == "path"}
    return [own.get(name) or PATH_PARAMETERS[name] for name in operation.placeholders]


def _parameter(parameter: Parameter, schemas: Schemas) -> Schema:
    made: Schema = {
        "name": parameter.name,
        "in": parameter.where,
        "description": parameter.description,
        "schema": schemas.of(parameter.kind),
    }
    if parameter.where == "path":
        made["schema"] = {"minLength": 1, **made["schema"]}
    if parameter.required or parameter.where == "path":
        made["required"] = True
    if parameter.example is not None:
        made["example"] = parameter.example
    return made


def _responses(operation: Operation, schemas: Schemas) -> Schema:
    made = {str(answer.status): _answer(answer, schemas) for answer in operation.answers}
    kinds = {*EVERYWHERE, *operation.errors, *(WITH_PATH if operation.placeholders else ())}
    for kind in kinds:
        status = next(STATUS[each] for each in kind.__mro__ if each in STATUS)
        made[str(status)] = {"$ref": f"#/components/responses/{status}"}
    return dict(sorted(made.items()))


def _answer(answer: Answer, schemas: Schemas) -> Schema:
    made: Schema = {"description": answer.description}
    if answer.headers:
        made["headers"] = {name: {"description": said, "schema": _TEXT} for name, said in answer.headers.items()}
    if answer.content:
        made["content"] = _content(answer.content, schemas)
    return made


def _content(content: Mapping[str, Kind], schemas: Schemas) -> Schema:
    return {media_type: {"schema": schemas.of(kind)} for media_type, kind in content.items()}


def _problem(status: int, schemas: Schemas) -> Schema:
    """The answer of an error: what the classes that are this status are for."""
    sentences = [(kind.__doc__ or "").partition("\n")[0] for kind, number in STATUS.items() if number == status]
    made: Schema = {
        "description": f"{TITLES[status]}. {' '.join(sentences)}",
        "content": {_PROBLEM: {"schema": schemas.of(Problem)}},
    }
    if status in _HEADERS_OF_ERRORS:
        name, said = _HEADERS_OF_ERRORS[status]
        made["headers"] = {name: {"description": said, "schema": _TEXT}}
    return made


def _head_of(members: Schema) -> Schema:
    """HEAD of what GET is: the same but for bodies, and no part is sent of what is not sent."""
    responses: dict[str, Any] = {}
    for status, answer in members["responses"].items():
        if status in ("206", "416"):
            continue
        bodiless = {name: value for name, value in answer.items() if name != "content"}
        responses[status] = bodiless if "description" in bodiless else {"description": TITLES[int(status)]}
    parameters = [each for each in members.get("parameters", ()) if each["name"] not in ("Range", "If-Range")]
    return {
        **members,
        "operationId": members["operationId"].replace("get_", "head_", 1),
        **({"parameters": parameters} if parameters else {}),
        "responses": responses,
    }
