"""The description of the interface: every route and parameter is in it, and a running server answers as it says."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict
from urllib.parse import quote, urljoin

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from precomputed_server.web.app import SECTIONS
from precomputed_server.web.interface.operation import Operation
from precomputed_server.web.interface.schemas import Schemas
from precomputed_server.web.openapi import document
from precomputed_server.web.routes import EVENTS, INDEX, LEAF, ROUTES
from precomputed_server.web.targets import parse_target
from tests.conftest import StartServer
from tests.data import point, volume, write_annotations, write_dataset
from tests.described import description, faults_of
from tests.web.conftest import Client

OPERATIONS = [operation for section in SECTIONS for operation in section.operations]
IDENTIFIERS = [f"{operation.method} {operation.url}" for operation in OPERATIONS]
KNOWN = {"dataset": "tissue", "block": "x0y0z0", "leaf": "fibers", "path": "notes.txt", "x": "1", "y": "1", "z": "1"}
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
CONDITIONS = ("If-Match", "If-None-Match", "Range", "If-Range")
"""Headers for which most requests would be answered that nothing is sent."""
LENIENT = {INDEX, LEAF, EVENTS}
"""Routes that pass over what they do not know in a query."""
ENDLESS = "/{dataset}/annotations/events"


def url_of(operation: Operation) -> str:
    """A path of an operation that leads to something."""
    told = description()["paths"][operation.url][operation.method.lower()].get("parameters", [])
    values = {each["name"]: each.get("example", "none") for each in told} | {"dataset": "tissue"}
    return re.sub(r"\{(\w+)\}", lambda match: quote(str(values[match[1]])), operation.url)


def test_every_method_of_every_route_is_described() -> None:
    described = {(operation.route, operation.method) for operation in OPERATIONS}
    wanted = {(route, method) for route in ROUTES for method in route.methods if method != "HEAD"}
    assert wanted - described == set()
    assert described - wanted == set()


@pytest.mark.parametrize("operation", OPERATIONS, ids=IDENTIFIERS)
def test_the_described_paths_lead_to_their_routes(operation: Operation) -> None:
    assert parse_target(url_of(operation)).route == operation.route


def test_names_of_operations_occur_once() -> None:
    names = [each["operationId"] for methods in description()["paths"].values() for each in methods.values()]
    assert len(names) == len(set(names))


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(description())
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        found: Any = description()
        for name in reference.split("/"):
            found = found[name]


@pytest.mark.parametrize("operation", OPERATIONS, ids=IDENTIFIERS)
async def test_the_query_that_a_request_takes_is_described(root: Path, client: Client, operation: Operation) -> None:
    """A request that looks at its query names what it takes when it is asked for something else."""
    (root / "tissue").mkdir()
    write_dataset(root / "tissue", volume((1, 20, 64, 64)))
    write_annotations(root / "tissue", {"fibers": [point(1, 1, 2, 3)]})
    required = "&".join(f"{each.name}={KNOWN.get(each.name, 'x')}" for each in operation.parameters if each.required)
    answer = await client.request(
        operation.method, f"{url_of(operation)}?strange=1&{required}", data=b"[]", allow_redirects=False
    )
    sentence = json.loads(await answer.read())["detail"] if answer.status == 400 else ""
    told = re.search(r"is no parameter(?: of this request; it takes|; use) (.*)\.$", sentence)
    described = {each.name for each in operation.parameters if each.where == "query"}
    if told is None:
        assert not described or operation.route in LENIENT
    else:
        assert described == (set() if told[1] == "none" else set(told[1].split(", ")))


@pytest.mark.parametrize(("url", "server"), [("/api/openapi.json", ".."), ("/openapi.json", ".")])
async def test_the_servers_are_relative_to_where_the_description_lies(client: Client, url: str, server: str) -> None:
    for prefix in ("", "/~alice", "/~alice.voxel"):
        answer = await client.get(prefix + url)
        made = json.loads(await answer.read())
        assert made["openapi"].startswith("3.1.")
        assert made["servers"] == [{"url": server}]
        assert urljoin(f"http://host/under/a{prefix}{url}", server).rstrip("/") == f"http://host/under/a{prefix}"
        again = await client.get(prefix + url, headers={"If-None-Match": answer.headers["ETag"]})
        assert again.status == 304


async def test_a_file_of_that_name_is_reached_behind_the_literal_prefix(root: Path, client: Client) -> None:
    (root / "openapi.json").write_text('{"mine": true}')
    assert await (await client.get("/~/openapi.json")).read() == b'{"mine": true}'
    assert b"precomputed-server" in await (await client.get("/openapi.json")).read()


@pytest.mark.parametrize("request_line", ["GET /?q=" + "a" * 9000, "GARBAGE", "GET /a b c"])
async def test_what_is_no_http_is_told_in_a_problem_document(client: Client, request_line: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(f"{request_line} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    assert b"content-type: application/problem+json" in head.lower()
    assert b"server: precomputed-server" in head.lower()
    assert json.loads(body)["status"] == 400


def fault_of(url: str, status: int, content_type: str, body: bytes) -> list[str]:
    """What the guard of all tests says of an answer."""
    answer = web.Response(status=status, body=body, content_type=content_type)
    return faults_of([(make_mocked_request("GET", url), answer)])


def test_the_guard_sees_what_is_not_described() -> None:
    url = "/tissue/annotations/blocks"
    whole = b'{"block_size": null, "blocks": []}'
    assert fault_of(url, 200, "application/json", whole) == []
    assert "answered 418" in fault_of(url, 418, "application/json", whole)[0]
    assert "as text/plain" in fault_of(url, 200, "text/plain", whole)[0]
    assert "does not allow" in fault_of(url, 200, "application/json", b'{"blocks": []}')[0]
    assert "as application/json" in fault_of(url, 404, "application/json", b"{}")[0]


class Leaf(TypedDict):
    """What it is.

    More of it.
    """

    name: str
    count: NotRequired[int | None]


@dataclasses.dataclass
class Tree:
    """A tree."""

    kind: Literal["oak", "fir"]
    leaves: list[Leaf]
    at: tuple[float, float]


def test_types_become_schemas() -> None:
    schemas = Schemas()
    assert schemas.of({"type": "array", "items": Tree}) == {
        "type": "array",
        "items": {"$ref": "#/components/schemas/Tree"},
    }
    assert schemas.components["Leaf"] == {
        "type": "object",
        "description": "What it is.",
        "properties": {"name": {"type": "string"}, "count": {"type": ["integer", "null"]}},
        "required": ["name"],
    }
    assert schemas.components["Tree"]["properties"] == {
        "kind": {"enum": ["oak", "fir"]},
        "leaves": {"type": "array", "items": {"$ref": "#/components/schemas/Leaf"}},
        "at": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
    }
    with pytest.raises(TypeError, match="no JSON schema"):
        schemas.of(set[int])


def narrowed() -> dict[str, Any]:
    """The description, with the names of things that are there instead of any, and without conditions."""
    made: dict[str, Any] = json.loads(json.dumps(document(SECTIONS)))
    for operation in (each for methods in made["paths"].values() for each in methods.values()):
        kept = [each for each in operation.get("parameters", ()) if each["name"] not in CONDITIONS]
        operation["parameters"] = kept
        for parameter in kept:
            if parameter["in"] == "path" and parameter["name"] in KNOWN:
                value = KNOWN["path"] if parameter["name"] == "path" else parameter["example"]
                parameter["schema"] = {"type": "string", "enum": [value]}
                parameter["example"] = value
    return made


@pytest.mark.component
@pytest.mark.parametrize("names", ["known", "any"])
def test_a_server_answers_what_is_described(tmp_path: Path, start_server: StartServer, names: str) -> None:
    """Right and wrong requests that schemathesis makes of the description: each is answered as that says."""
    root = tmp_path / "root"
    (root / "tissue").mkdir(parents=True)
    write_dataset(root / "tissue", volume((1, 20, 64, 64)), levels=2)
    write_annotations(root / "tissue", {"fibers": [point(1, 1, 2, 3)], "z-0003": []}, block_size=(64, 64, 20))
    (root / KNOWN["path"]).write_text("seen")
    server = start_server(root, workers=1)
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(narrowed() if names == "known" else document(SECTIONS)))
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", str(path), "--url", server.url]
    command += ["--checks", ",".join(CHECKS), "--mode", "all"]
    command += ["--phases", "examples,coverage,fuzzing" if names == "known" else "fuzzing", "--max-examples", "6"]
    command += ["--seed", "1", "--workers", "1", "--request-timeout", "10", "--no-color"]
    command += ["--exclude-path", ENDLESS, "--generation-database", "none"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    told = done.stdout.partition("= FAILURES =")[2].partition("= WARNINGS =")[0][:6000] or done.stdout[-3000:]
    assert done.returncode == 0, told + done.stderr[-2000:] + server.log.read_text()[-3000:]
    assert re.search(r"^\s*\d+ generated, \d+ passed$", done.stdout, re.MULTILINE), done.stdout[-3000:]
    assert server.is_healthy()
