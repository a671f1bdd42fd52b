"""Holding answers against the interface's description: what a test is answered has to be written there."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any

import jsonschema_rs
from aiohttp import web

from precomputed_server.errors import PrecomputedError
from precomputed_server.web.app import SECTIONS
from precomputed_server.web.openapi import document
from precomputed_server.web.routes import Route
from precomputed_server.web.targets import parse_target

_LONGEST_BODY = 1 << 18
_UNDESCRIBED = ("OPTIONS",)


def faults_of(answers: Iterable[tuple[web.BaseRequest, web.StreamResponse]]) -> list[str]:
    """What of these answers the description does not say, each once."""
    faults = (_fault_of(request, response) for request, response in answers)
    return sorted({fault for fault in faults if fault is not None})


def _fault_of(request: web.BaseRequest, response: web.StreamResponse) -> str | None:
    """What of an answer the description does not say, None where all of it is described."""
    try:
        route = parse_target(request.raw_path.partition("?")[0]).route
    except PrecomputedError:  # no route: nothing is described
        return None
    if request.method in _UNDESCRIBED or request.method not in route.methods:
        return None
    asked = f"{request.method} {route.template} answered {response.status}"
    answers = _answers(route, request.method).get(str(response.status), [])
    if not answers:
        return f"{asked}, which is not described"
    kinds = {kind: content for answer in answers for kind, content in answer.get("content", {}).items()}
    if request.method == "HEAD" or not kinds or _is_empty(response):
        return None
    found = [content for kind, content in kinds.items() if fnmatch(response.content_type, kind)]
    if not found:
        return f"{asked} as {response.content_type}, which is not described"
    return _fault_of_body(asked, response, [content["schema"] for content in found])


def _is_empty(response: web.StreamResponse) -> bool:
    return isinstance(response, web.Response) and not response.body


def _fault_of_body(asked: str, response: web.StreamResponse, schemas: list[dict[str, Any]]) -> str | None:
    """What is wrong with a JSON body; a part of one is not looked at, nor what is served as it lies on disk."""
    body = response.body if isinstance(response, web.Response) else None
    is_json = response.content_type.endswith("json") and response.status != 206
    if not is_json or not isinstance(body, bytes) or len(body) > _LONGEST_BODY:
        return None
    value = json.loads(body)
    faults = [next(_validator(json.dumps(schema)).iter_errors(value), None) for schema in schemas]
    if None in faults:
        return None
    return f"{asked} with what the schema does not allow: {faults[0].message if faults[0] else ''}"


@functools.cache
def description() -> dict[str, Any]:
    """The description of the whole interface."""
    made: dict[str, Any] = json.loads(json.dumps(document(SECTIONS)))
    return made


@functools.cache
def _answers(route: Route, method: str) -> dict[str, list[dict[str, Any]]]:
    """The described answers of a route by their status; a route may be told of in several places."""
    found: dict[str, list[dict[str, Any]]] = {}
    urls = {each.url for section in SECTIONS for each in section.operations if each.route == route}
    for url in urls:
        operation = description()["paths"][url].get(method.lower(), {"responses": {}})
        for status, answer in operation["responses"].items():
            reference = answer.get("$ref")
            named = description()["components"]["responses"].get(status) if reference else answer
            found.setdefault(status, []).append(named)
    return found


@functools.cache
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    whole = {**json.loads(schema), "components": description()["components"]}
    return jsonschema_rs.Draft202012Validator(whole)
