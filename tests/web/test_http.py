"""What RFC 9110 asks of every answer: conditions, ranges, methods, CORS, problem documents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from precomputed_server.web.routes import ROUTES
from tests.data import point, volume, write_annotations, write_dataset
from tests.web.conftest import Client

CHUNK = "/brain/1_1_1/0-64_0-64_0-20"
LEAF = "/brain/annotations/x0y0z0/fibers.json"
CONTENT = bytes(range(100))


@pytest.fixture
def brain(root: Path) -> Path:
    """A dataset with annotations, and a file of 100 bytes beside it."""
    write_dataset(root / "brain", volume((1, 20, 64, 64)))
    write_annotations(root / "brain", {"fibers": [point(1, 1, 2, 3)]})
    (root / "bytes").write_bytes(CONTENT)
    return root / "brain"


RANGES = [
    # Range, status, Content-Range, body
    ("bytes=0-9", 206, "bytes 0-9/100", CONTENT[:10]),
    ("bytes=90-", 206, "bytes 90-99/100", CONTENT[90:]),
    ("bytes=-10", 206, "bytes 90-99/100", CONTENT[90:]),
    ("bytes=-1000", 206, "bytes 0-99/100", CONTENT),
    ("bytes=95-1000", 206, "bytes 95-99/100", CONTENT[95:]),
    ("bytes=0-0", 206, "bytes 0-0/100", CONTENT[:1]),
    ("bytes=100-", 416, "bytes */100", None),
    ("bytes=-0", 416, "bytes */100", None),
    ("bytes=100-200", 416, "bytes */100", None),
    # Several ranges, other units and malformed values are answered with the whole.
    ("bytes=0-9,20-29", 200, None, CONTENT),
    ("lines=0-9", 200, None, CONTENT),
    ("bytes=9-0", 200, None, CONTENT),
    ("bytes=-", 200, None, CONTENT),
    ("bytes=a-b", 200, None, CONTENT),
    ("0-9", 200, None, CONTENT),
]


@pytest.mark.parametrize(("asked", "status", "content_range", "body"), RANGES)
async def test_ranges(
    brain: Path, client: Client, asked: str, status: int, content_range: str | None, body: bytes | None
) -> None:
    answer = await client.get("/bytes", headers={"Range": asked})
    assert (answer.status, answer.headers.get("Content-Range")) == (status, content_range)
    if body is not None:
        assert (await answer.read(), answer.headers["Content-Length"]) == (body, str(len(body)))
        assert answer.headers["Accept-Ranges"] == "bytes"
    head = await client.head("/bytes", headers={"Range": asked})
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(CONTENT)))


CONDITIONS = [
    # header, value with {tag} for the current one, status
    ("If-None-Match", "{tag}", 304),
    ("If-None-Match", "W/{tag}", 304),
    ("If-None-Match", '"other", {tag}', 304),
    ("If-None-Match", "*", 304),
    ("If-None-Match", '"other"', 200),
    ("If-Match", "{tag}", 200),
    ("If-Match", '"other", {tag}', 200),
    ("If-Match", "*", 200),
    ("If-Match", '"other"', 412),
    ("If-Match", "W/{tag}", 412),
]


@pytest.mark.parametrize("path", [CHUNK, LEAF, "/brain/info", "/bytes"])
@pytest.mark.parametrize(("header", "value", "status"), CONDITIONS)
async def test_conditions(brain: Path, client: Client, path: str, header: str, value: str, status: int) -> None:
    tag = (await client.get(path)).headers["ETag"]
    assert tag.startswith('"')
    for method in ("GET", "HEAD"):
        answer = await client.request(method, path, headers={header: value.format(tag=tag)})
        assert answer.status == status
        if status == 304:
            assert (answer.headers["ETag"], await answer.read()) == (tag, b"")
            assert "Cache-Control" in answer.headers


@pytest.mark.parametrize(
    ("value", "status"), [("{tag}", 206), ('"other"', 200), ("Sat, 21 Nov 2026 00:00:00 GMT", 200)]
)
async def test_if_range(brain: Path, client: Client, value: str, status: int) -> None:
    tag = (await client.get("/bytes")).headers["ETag"]
    answer = await client.get("/bytes", headers={"Range": "bytes=0-9", "If-Range": value.format(tag=tag)})
    assert answer.status == status


async def test_if_match_goes_before_the_range(brain: Path, client: Client) -> None:
    answer = await client.get("/bytes", headers={"Range": "bytes=0-9", "If-Match": '"other"'})
    assert answer.status == 412


async def test_a_changed_file_has_another_tag(brain: Path, client: Client) -> None:
    before = (await client.get("/bytes")).headers["ETag"]
    (brain.parent / "bytes").write_bytes(CONTENT[::-1])
    assert (await client.get("/bytes")).headers["ETag"] != before


@pytest.mark.parametrize("path", ["/", "/index.html", "/healthz", "/api/", "/brain/", "/brain/info", CHUNK, LEAF])
async def test_head_is_get_without_a_body(brain: Path, client: Client, path: str) -> None:
    got, head = await client.get(path), await client.head(path)
    assert (head.status, await head.read()) == (200, b"")
    kept = ("Content-Length", "Content-Type", "ETag", "Cache-Control", "Access-Control-Allow-Origin")
    assert [head.headers.get(name) for name in kept] == [got.headers.get(name) for name in kept]


@pytest.mark.parametrize(
    ("path", "cache_control"),
    [(CHUNK, "max-age=60"), ("/brain/info", "no-cache"), (LEAF, "no-cache"), ("/bytes", "no-cache")],
)
async def test_what_a_browser_may_keep(brain: Path, client: Client, path: str, cache_control: str) -> None:
    assert (await client.get(path)).headers["Cache-Control"] == cache_control


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "POST", "OPTIONS"])
@pytest.mark.parametrize(
    "path", ["/", "/brain", "/brain/info", CHUNK, LEAF, "/nothing", "/%2e%2e/x", "/datasets/x", "/api/x", "/~a/x"]
)
async def test_every_answer_can_be_read_by_another_origin(brain: Path, client: Client, method: str, path: str) -> None:
    answer = await client.request(method, path, headers={"Origin": "http://elsewhere"}, allow_redirects=False)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    if answer.status >= 400 and method != "HEAD":
        problem = json.loads(await answer.read())
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert (problem["status"], problem["detail"][-1]) == (answer.status, ".")


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_the_preflight_of_an_edit(brain: Path, client: Client, method: str) -> None:
    answer = await client.options(
        LEAF,
        headers={
            "Origin": "http://elsewhere",
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "content-type,if-match",
        },
    )
    assert answer.status == 204
    assert method in answer.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Allow-Headers"] == "content-type,if-match"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", CHUNK),
        ("DELETE", "/brain/info"),
        ("POST", "/brain/info"),
        ("PATCH", "/"),
        ("POST", "/brain/annotations/blocks"),
        ("PUT", LEAF.replace(".json", "/history")),
    ],
)
async def test_a_method_that_does_not_exist_names_those_that_do(
    brain: Path, client: Client, method: str, path: str
) -> None:
    answer = await client.request(method, path)
    assert answer.status == 405
    assert answer.headers["Allow"].startswith("GET, HEAD")
    assert method not in answer.headers["Allow"].split(", ")


async def test_an_unknown_route_is_a_sentence(brain: Path, client: Client) -> None:
    answer = await client.get("/no/such/thing")
    assert answer.status == 404
    assert json.loads(await answer.read())["detail"] == "Nothing is stored under this path."


async def test_the_query_is_no_part_of_the_path(brain: Path, client: Client) -> None:
    assert (await client.get("/brain/info?x=/../../etc")).status == 200


def test_every_route_can_be_read_or_only_acts() -> None:
    acting = {route.name for route in ROUTES if route.methods[:2] != ("GET", "HEAD")}
    assert acting == {"restore", "edits", "import", "parked end", "states"}
    assert {route.methods for route in ROUTES if route.name in acting} == {("POST",)}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["fibers/restore", "../edits", "../parked/0123456789abcdef/apply"])
async def test_what_only_acts_is_not_read(brain: Path, client: Client, method: str, path: str) -> None:
    """A page that a browser fetches ahead of time, or a crawler, changes nothing."""
    below = path.removeprefix("../")
    url = f"/brain/annotations/{below}" if below != path else f"/brain/annotations/x0y0z0/{path}"
    answer = await client.request(method, url)
    assert (answer.status, answer.headers["Allow"]) == (405, "POST, OPTIONS")
