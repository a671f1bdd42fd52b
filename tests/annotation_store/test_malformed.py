"""Requests that are wrong in every way there is: each is refused or understood, and what is refused changes nothing."""

from __future__ import annotations

import io
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import quote

import pytest

from tests.annotation_store.conftest import Client, Connect
from tests.annotation_store.support import Place, check_log, some

BLOCK = "/brain/annotations/x0y0z0"
URL = f"{BLOCK}/fibers.json"
EDITS = "/brain/annotations/edits"
ID = some(1)[0]["id"]
MERGE_PATCH = {"Content-Type": "application/merge-patch+json"}

WRONG_JSON: dict[str, bytes] = {
    "nothing": b"",
    "a space": b" ",
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "1e999": b"1e999",
    "a lone surrogate": b'"\\ud800"',
    "a surrogate in UTF-8": b'"\xed\xa0\x80"',
    "no UTF-8": b'"\xff\xfe"',
    "a leading zero": b"01",
    "a hexadecimal number": b"0x1",
    "a comma too many": b"[1,]",
    "single quotes": b"{'a':1}",
    "a comment": b"[]//",
    "two values": b"[] []",
    "a control character": b'"\x01"',
    "a NUL": b"\0",
    "a deep list": b"[" * 1_000_000 + b"]" * 1_000_000,
    "a deep object": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "an open list": b"[" * 1_000_000,
}
WRONG_VALUES: tuple[bytes, ...] = (
    *(b"null", b"true", b"false", b"0", b"-1", b"1.5", b'""', b'"x"', b"[]", b"{}", b"[null]", b"[[]]", b"[{}]"),
    *(b"[1,2]", b"[1,2,3,4]", b'["1","2","3"]', b"[1,2,true]", b"[1,2,null]", b"[1,2,[3]]", b'{"a":{"b":null}}'),
    *(b"18446744073709551616", b"-9223372036854775809", b"9" * 400, b"[1,2,18446744073709551616]"),
    *(b"[" * 40 + b"]" * 40, b'{"a":' * 40 + b"1" + b"}" * 40, b"1e400", b"[1,2,1e309]", b'"\\ud83d"'),
)
FIELDS = (
    *("id", "type", "point", "points", "pointA", "center", "anntype", "description", "length", "reviewed"),
    *("segments", "visited", "unknown"),
)
WRONG_IDS = (
    *("", " ", "\0", "a\nb", "a\rb", "../x", "/", "\\", "x" * 201, "x" * 10_000, "%", "%00", "\ud7ff", "\U0001f600"),
    *(".", "..", "a/b", "a;b", "a&b=c", '"', "'", "<script>", "\u202e", "\ufeff", "null", "__proto__"),
)
WRONG_QUERIES = (
    *("", "?", "?id", "?id=", "?id=&id=", "?id=a&id=b", "?ID=a", "?id[]=a", "?id=%", "?id=%zz", "?id=%00", "?id=%ff"),
    *("?id=%ed%a0%80", "?version=", "?version=x", "?version=-1", "?version=0", "?version=99999999999999999999"),
    *("?version=1.5", "?version=%F0%9F%98%80", "?at=", "?at=now", "?at=2026", "?at=9999-99-99T99:99:99Z"),
    *("?at=0000-00-00T00:00:00Z", "?version=1&at=2026-01-01T00:00:00Z", "?limit=-1", "?limit=1e9", "?before=x"),
)
WRONG_HEADERS = (
    *({"If-Match": value} for value in ("", '"', "x", "W/", "*, *", '"' + "x" * 3000 + '"', '"\u00ff"')),
    *({"Idempotency-Key": value} for value in ("", " ", "a b", "x" * 201, "\u00e9")),
    *({"Content-Type": value} for value in ("", "x", "application/xml", "application/json; charset=utf-16")),
    {"Content-Encoding": "gzip", "Connection": "close"},
)


@dataclass(frozen=True)
class Wrong:
    """A request."""

    method: str
    url: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


def item_with(name: str, value: bytes) -> bytes:
    """An annotation whose field of that name is `value`, other fields being right."""
    fields = {**some(1)[0], "description": "text", "length": 3}
    texts = [f"{json.dumps(key)}:{json.dumps(right)}".encode() for key, right in fields.items() if key != name]
    return b"{" + b",".join([*texts, json.dumps(name).encode() + b":" + value]) + b"}"


def requests_of(item: bytes, id: str = ID) -> Iterator[Wrong]:
    """Every request that can carry an annotation."""
    yield Wrong("PUT", URL, b"[" + item + b"]")
    yield Wrong("PATCH", f"{URL}?id={quote(id, errors='replace')}", item)
    yield Wrong("PATCH", f"{URL}?id={quote(id, errors='replace')}", item, MERGE_PATCH)
    yield Wrong("POST", URL, item)
    for operation in ("put", "change", "add"):
        edit = b'"block":"x0y0z0","leaf":"fibers","annotation":' + item
        operation_and_id = f'"operation":{json.dumps(operation)},"id":{json.dumps(id)},'.encode()
        yield Wrong("POST", EDITS, b'{"edits":[{' + operation_and_id + edit + b"}]}")


def wrong_fields() -> Iterator[Wrong]:
    """Each field of an annotation with each wrong value, by each request."""
    for name, value in itertools.product(FIELDS, WRONG_VALUES):
        yield from requests_of(item_with(name, value))


def wrong_json() -> Iterator[Wrong]:
    """What is not JSON, as a body of its own and within one, to every place that takes a body."""
    places = [("PUT", URL), ("PATCH", f"{URL}?id={ID}"), ("POST", URL), ("POST", EDITS)]
    places += [("POST", f"{BLOCK}/fibers/restore"), ("POST", "/brain/annotations/parked/0123456789abcdef/apply")]
    for (method, url), text in itertools.product(places, WRONG_JSON.values()):
        yield Wrong(method, url, text)
        yield Wrong(method, url, b"\xef\xbb\xbf" + text[:1000])
    for text in WRONG_JSON.values():
        yield Wrong("PATCH", f"{URL}?id={ID}", text, MERGE_PATCH)
        if len(text) < 1000:
            yield from requests_of(item_with("unknown", text))


def wrong_ids() -> Iterator[Wrong]:
    """Odd ids in the query and in the body."""
    for id in WRONG_IDS:
        text = json.dumps(id).encode()
        yield from requests_of(item_with("id", text), id)
        yield Wrong("DELETE", f"{URL}?id={quote(id)}")
        yield Wrong("GET", f"{BLOCK}/fibers/history?id={quote(id)}")
        yield Wrong("POST", f"{BLOCK}/fibers/restore", b'{"version":1,"id":' + text + b"}")
        yield Wrong("GET", f"/brain/annotations/parked/{quote(id, safe='')}")
    twice = item_with("id", json.dumps(ID).encode())
    yield Wrong("PUT", URL, b"[" + twice + b"," + twice + b"]")


def wrong_orders() -> Iterator[Wrong]:
    """Lists of edits and restorations whose members are wrong."""
    right = {"block": "x0y0z0", "leaf": "fibers", "operation": "put", "id": ID, "annotation": some(1)[0]}
    for name, value in itertools.product([*right, "if_match", "unknown"], WRONG_VALUES):
        texts = [f"{json.dumps(key)}:{json.dumps(each)}".encode() for key, each in right.items() if key != name]
        edit = b"{" + b",".join([*texts, json.dumps(name).encode() + b":" + value]) + b"}"
        yield Wrong("POST", EDITS, b'{"edits":[' + edit + b"]}")
    for value in WRONG_VALUES:
        yield Wrong("POST", EDITS, b'{"edits":' + value + b"}")
        yield Wrong("POST", EDITS, value)
        for name in ("version", "at", "id"):
            yield Wrong("POST", f"{BLOCK}/fibers/restore", b'{"' + name.encode() + b'":' + value + b"}")
        yield Wrong("POST", f"{BLOCK}/fibers/restore", value)


def wrong_queries() -> Iterator[Wrong]:
    """Odd query strings and headers, to every method."""
    body = json.dumps(some(1)[0]).encode()
    for query in WRONG_QUERIES:
        for url in (URL, f"{BLOCK}/fibers/history"):
            yield Wrong("GET", url + query)
        yield Wrong("PATCH", URL + query, body)
        yield Wrong("DELETE", URL + query)
    for headers in WRONG_HEADERS:
        yield Wrong("PUT", URL, b"[1]", headers)
        yield Wrong("PATCH", f"{URL}?id={ID}", b"[1]", headers)
        yield Wrong("POST", EDITS, b"[1]", headers)
        yield Wrong("DELETE", f"{URL}?id=nobody", None, headers)


async def ask(client: Client, wrong: Wrong) -> int:
    """The status of a request."""
    body = None if wrong.body is None else io.BytesIO(wrong.body)
    async with client.request(wrong.method, wrong.url, data=body, headers=wrong.headers) as answer:
        await answer.read()
        return answer.status


@pytest.mark.parametrize("kind", [wrong_fields, wrong_json, wrong_ids, wrong_orders, wrong_queries])
async def test_no_request_is_a_server_error_and_what_is_refused_changes_nothing(
    connect: Connect, place: Place, kind: type[Iterator[Wrong]]
) -> None:
    client = await connect()
    await client.put(URL, json=some(4))
    statuses: Counter[int] = Counter()
    stored, before = place.stored(), place.file().read_bytes()
    for wrong in kind():
        status = await ask(client, wrong)
        statuses[status] += 1
        assert status < 500, f"{wrong.method} {wrong.url[:200]} {wrong.headers} {(wrong.body or b'')[:300]!r}"
        now = place.file().read_bytes()
        if status >= 400 and status != 207:
            assert now == before, f"{status} to {wrong.method} {wrong.url[:200]} {(wrong.body or b'')[:300]!r}"
        before = now
    assert statuses.total() - statuses[200] > 100
    print(kind.__name__, dict(statuses))  # noqa: T201
    assert len(stored) == 4
    assert place.stored()
    check_log(place)


@pytest.mark.parametrize("points", [1_000_000, pytest.param(10_000_000, marks=pytest.mark.nightly)])
async def test_a_polygon_of_very_many_points_is_kept_or_refused(connect: Connect, place: Place, points: int) -> None:
    client = await connect()
    await client.put(URL, json=some(4))
    body = b'[{"id":"a","type":"polygon","points":[' + b",".join([b"[1,2,3]"] * points) + b"]}]"
    answer = await client.put(URL, data=io.BytesIO(body))
    assert answer.status == (200 if points <= 1_000_000 else 413)
    if answer.status == 200:
        assert len(place.stored()["a"]["points"]) == points
    assert (await client.get(URL)).status == 200
    assert place.stored().keys() >= {item["id"] for item in some(4)}
    check_log(place)
