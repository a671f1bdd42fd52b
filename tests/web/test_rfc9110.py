"""RFC 9110 as a table, asked of the running server: conditions, ranges and content codings of stored bytes."""

from __future__ import annotations

import gzip
import http.client
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.conftest import RunningServer, launch, wait_until_healthy
from tests.data import volume, write_dataset

pytestmark = pytest.mark.component

CORNER = "1_1_1/0-64_0-64_0-20"
VOXELS = volume((1, 20, 64, 64))
BODY = VOXELS.tobytes()
LENGTH = len(BODY)
LONG_AGO, SOON = "Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
WHOLE = (0, LENGTH)


@dataclass(frozen=True)
class Case:
    """What is asked of `path`, where `{tag}` is its current entity tag, and what the answer is.

    `part` says which of the decoded bytes come, `headers` what the answer has, None for none of that name.
    """

    section: str
    asked: dict[str, str]
    status: int
    part: tuple[int, int] | None = None
    encoding: str | None = None
    path: str = f"/plain/{CORNER}"
    headers: dict[str, str | None] = field(default_factory=dict)


def _part(asked: str, first: int, end: int, **more: str) -> Case:
    """A range that is answered 206."""
    content_range = f"bytes {first}-{end - 1}/{LENGTH}"
    asking = {"Range": asked, **_named(more)}
    return Case("14.4", asking, 206, (first, end), headers={"Content-Range": content_range, "Accept-Ranges": "bytes"})


def _whole(asked: str, **more: str) -> Case:
    """A range that is not looked at."""
    return Case("14.2", {"Range": asked, **_named(more)}, 200, WHOLE, headers={"Content-Range": None})


def _none(asked: str, **more: str) -> Case:
    """A range of which there is nothing."""
    return Case("15.5.17", {"Range": asked, **_named(more)}, 416, headers={"Content-Range": f"bytes */{LENGTH}"})


def _if(status: int, **asked: str) -> Case:
    """Conditions; 200 is answered with all."""
    return Case("13", _named(asked), status, WHOLE if status == 200 else None)


def _coded(storage: str, accepted: str, encoding: str | None) -> Case:
    """What a chunk that lies in that form is sent as."""
    return Case("12.5.3", {"Accept-Encoding": accepted}, 200, WHOLE, encoding, f"/{storage}/{CORNER}")


def _named(asked: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in asked.items()}


CASES = [
    # 14: one range is answered in part; several are answered with the whole, as a server may.
    _part("bytes=0-9", 0, 10),
    _part("Bytes=0-9", 0, 10),
    _part("bytes=0-0", 0, 1),
    _part("bytes=10-", 10, LENGTH),
    _part("bytes=-10", LENGTH - 10, LENGTH),
    _part(f"bytes=-{2 * LENGTH}", 0, LENGTH),
    _part(f"bytes=10-{2 * LENGTH}", 10, LENGTH),
    _part("bytes=0-9", 0, 10, Accept_Encoding="gzip, deflate, br"),
    _none(f"bytes={LENGTH}-"),
    _none("bytes=-0"),
    _whole("bytes=0-9,20-29"),
    _whole("bytes=0-9, 5-14"),
    _whole("bytes=9-0"),
    _whole("bytes=-"),
    _whole("bytes="),
    _whole("lines=0-9"),
    _whole("0-9"),
    # 13.1.5: If-Range compares strongly; there is no Last-Modified that a date could be equal to.
    _part("bytes=0-9", 0, 10, If_Range="{tag}"),
    _whole("bytes=0-9", If_Range="W/{tag}"),
    _whole("bytes=0-9", If_Range='"other"'),
    _whole("bytes=0-9", If_Range=SOON),
    _whole("bytes=0-9", If_Range=LONG_AGO),
    _whole(f"bytes={LENGTH}-", If_Range='"other"'),
    # 13.1.1: If-Match compares strongly.
    _if(200, If_Match="{tag}"),
    _if(200, If_Match='"other", {tag}'),
    _if(200, If_Match="*"),
    _if(412, If_Match='"other"'),
    _if(412, If_Match="W/{tag}"),
    # 13.1.2: If-None-Match compares weakly.
    _if(304, If_None_Match="{tag}"),
    _if(304, If_None_Match="W/{tag}"),
    _if(304, If_None_Match='"other", {tag}'),
    _if(304, If_None_Match='W/"other",W/{tag}'),
    _if(304, If_None_Match="*"),
    _if(200, If_None_Match='"other"'),
    # 13.1.3, 13.1.4: without a date of modification these are ignored.
    _if(200, If_Modified_Since=SOON),
    _if(200, If_Unmodified_Since=LONG_AGO),
    _if(304, If_Modified_Since=LONG_AGO, If_None_Match="{tag}"),
    _if(200, If_Modified_Since=SOON, If_None_Match='"other"'),
    _if(200, If_Unmodified_Since=LONG_AGO, If_Match="{tag}"),
    # 13.2.2: If-Match before If-None-Match, both before the range.
    _if(412, If_Match='"other"', If_None_Match="{tag}"),
    _if(304, If_Match="{tag}", If_None_Match="{tag}"),
    _if(412, If_Match='"other"', Range="bytes=0-9"),
    _if(304, If_None_Match="{tag}", Range="bytes=0-9"),
    _if(304, If_None_Match="{tag}", Range=f"bytes={LENGTH}-"),
    _part("bytes=0-9", 0, 10, If_Match="{tag}"),
    # 12.5.3: a coding that lies there and is accepted is sent; what a client excludes is not.
    _coded("gz", "gzip", "gzip"),
    _coded("gz", "GZIP", "gzip"),
    _coded("gz", "x-gzip", "gzip"),
    _coded("gz", "br, gzip;q=0.1", "gzip"),
    _coded("gz", "*", "gzip"),
    _coded("gz", "gzip;q=0", None),
    _coded("gz", "gzip;q=0.000, *", None),
    _coded("gz", "*;q=0", None),
    _coded("gz", "identity", None),
    _coded("gz", "identity;q=0, gzip", "gzip"),
    _coded("gz", "deflate, br, zstd", None),
    _coded("gz", "", None),
    _coded("gz", "identity;q=0", None),  # rather than 406: 12.4.1 lets a server disregard it
    _coded("plain", "gzip, identity;q=0", None),
    _coded("tiff", "deflate", "deflate"),
    _coded("tiff", "gzip, deflate", "deflate"),
    _coded("tiff", "gzip", "gzip"),
    _coded("tiff", "gzip;q=0.5, deflate;q=0", "gzip"),
    _coded("tiff", "br", None),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of chunks in several forms."""
    root = tmp_path_factory.mktemp("root")
    write_dataset(root / "plain", VOXELS)
    write_dataset(root / "gz", VOXELS, storage="gz")
    write_dataset(root / "tiff", VOXELS, storage="tiff")
    server = launch(root, (), 1, tmp_path_factory.mktemp("log") / "log")
    wait_until_healthy(server)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def connection(server: RunningServer) -> Iterator[http.client.HTTPConnection]:
    """One connection for all: an answer that is framed wrongly spoils those that follow."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    yield connection
    connection.close()


Answer = tuple[int, http.client.HTTPMessage, bytes]


def ask(connection: http.client.HTTPConnection, method: str, path: str, headers: dict[str, str]) -> Answer:
    """Status, headers and body."""
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.section} {case.asked} {case.path[1:3]}")
def test_rfc_9110(connection: http.client.HTTPConnection, case: Case) -> None:
    tag = str(ask(connection, "GET", case.path, {})[1]["ETag"])
    asked = {name: value.replace("{tag}", tag) for name, value in case.asked.items()}
    for _ in range(2):
        status, headers, body = ask(connection, "GET", case.path, asked)
        assert (status, headers["Content-Encoding"]) == (case.status, case.encoding)
        assert {name: headers[name] for name in case.headers} == case.headers
        if case.part is not None:
            assert headers["Content-Length"] == str(len(body))
            assert decoded(case.encoding, body) == BODY[slice(*case.part)]
    if status == 304:
        assert (body, headers["ETag"], headers["Cache-Control"]) == (b"", tag, "max-age=60")
        assert headers["Date"]
    if case.path != f"/plain/{CORNER}":
        assert "Accept-Encoding" in headers["Vary"]
    _check_head(connection, case, asked, (status, headers, body))


def _check_head(connection: http.client.HTTPConnection, case: Case, asked: dict[str, str], got: Answer) -> None:
    """HEAD is GET without its body (9.3.2); ranges are defined for GET alone (14.2)."""
    if "Range" in asked:
        got = ask(connection, "GET", case.path, {name: value for name, value in asked.items() if name != "Range"})
    status, headers, body = ask(connection, "HEAD", case.path, asked)
    assert (status, body) == (got[0], b"")
    for name in (
        "ETag",
        "Content-Encoding",
        "Content-Length",
        "Content-Type",
        "Cache-Control",
        "Vary",
        "Accept-Ranges",
    ):
        assert headers[name] == got[1][name], name


def decoded(encoding: str | None, body: bytes) -> bytes:
    """A body without its content coding."""
    if encoding is None:
        return body
    return gzip.decompress(body) if encoding == "gzip" else zlib.decompress(body)


def test_each_coding_has_a_tag_of_its_own(connection: http.client.HTTPConnection) -> None:
    path = f"/tiff/{CORNER}"
    accepted = ("identity", "deflate", "gzip")
    tags = [ask(connection, "GET", path, {"Accept-Encoding": coding})[1]["ETag"] for coding in accepted]
    assert len(set(tags)) == 3
    for coding, tag in zip(accepted, tags, strict=True):
        for asked_coding in accepted:
            asked = {"Accept-Encoding": asked_coding, "If-None-Match": tag}
            assert ask(connection, "GET", path, asked)[0] == (304 if asked_coding == coding else 200)
