"""What the NeuroTrALE data manager did wrong, once each."""

from __future__ import annotations

import json
import signal
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from html.parser import HTMLParser
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tifffile

from precomputed_server.format import tiff
from tests.conftest import STOPS_WITHIN_S, RunningServer, StartServer
from tests.data import point, volume, write_annotations, write_dataset
from tests.end_to_end.conftest import Served
from tests.end_to_end.wire import Connection, ask, send_raw

pytestmark = pytest.mark.component

CHUNK = "1_1_1/0-64_0-64_0-10"
ORIGIN = "https://evil.example"


@pytest.fixture
def dataset(request: pytest.FixtureRequest, served: Served) -> Path:
    """A dataset of this test's own, with three annotations in fibers.json."""
    directory: Path = served.root / request.node.originalname
    write_dataset(directory, volume((1, 10, 64, 100), "uint16"))
    write_annotations(directory, {"fibers": [point(n, 10 * n, 10, 5) for n in (1, 2, 3)]}, block_size=(100, 64, 10))
    return directory


def leaf_url(dataset: Path) -> str:
    return f"/{dataset.name}/annotations/x0y0z0/fibers.json"


def leaf_file(dataset: Path) -> Path:
    return dataset / "annotations" / "x0y0z0" / "fibers.json"


def test_predecessor_patch_and_delete_emptied_the_file(served: Served, dataset: Path) -> None:
    moved = point(2, 21, 11, 5)
    with Connection(served.server) as connection:
        patched = connection.patch_json(leaf_url(dataset), moved)
        assert (patched.status, patched.json()) == (200, moved["id"])
        assert json.loads(leaf_file(dataset).read_text()) == [point(1, 10, 10, 5), moved, point(3, 30, 10, 5)]
        added = connection.patch_json(leaf_url(dataset), point(4, 40, 10, 5))
        assert added.status == 200
        deleted = connection.request("DELETE", f"{leaf_url(dataset)}?id={point(1, 0, 0, 0)['id']}")
        assert (deleted.status, deleted.json()) == (200, point(1, 0, 0, 0)["id"])
        assert json.loads(leaf_file(dataset).read_text()) == [moved, point(3, 30, 10, 5), point(4, 40, 10, 5)]
        assert connection.request("DELETE", f"{leaf_url(dataset)}?id=unknown").status == 404
        assert connection.request("DELETE", leaf_url(dataset)).status == 204
    assert len(json.loads(leaf_file(dataset).read_text())) == 3


def test_predecessor_put_answered_500_after_writing(served: Served, dataset: Path) -> None:
    items = [point(7, 1, 2, 3)]
    answer = ask(served.server, "PUT", leaf_url(dataset), json.dumps(items).encode(), Content_Type="text/plain")
    assert (answer.status, answer.json()) == (200, {"filename": leaf_url(dataset)[1:]})
    # Of a page that never read the file: what it never saw stays.
    assert json.loads(leaf_file(dataset).read_text()) == [*(point(n, 10 * n, 10, 5) for n in (1, 2, 3)), *items]
    tag = ask(served.server, "GET", leaf_url(dataset)).headers["etag"]
    answer = ask(served.server, "PUT", leaf_url(dataset), json.dumps(items).encode(), If_Match=tag)
    assert (answer.status, answer.json()) == (200, {"filename": leaf_url(dataset)[1:]})
    assert json.loads(leaf_file(dataset).read_text()) == items


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"\xff\xfe\x00",
        b"[",
        b'{"id": "a"}',
        b"[1, 2]",
        b"[{}]",
        b"null",
        b"[" * 100_000,
        json.dumps([point(1, 1, 1, 1), point(1, 2, 2, 2)]).encode(),
        json.dumps([{**point(1, 1, 1, 1), "point": [1, 2]}]).encode(),
        json.dumps([{**point(1, 1, 1, 1), "type": "teapot"}]).encode(),
    ],
    ids=lambda body: repr(body[:12]),
)
def test_predecessor_any_bytes_were_stored(body: bytes, served: Served, dataset: Path) -> None:
    before = leaf_file(dataset).read_bytes()
    answer = ask(served.server, "PUT", leaf_url(dataset), body)
    assert answer.status in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]
    assert leaf_file(dataset).read_bytes() == before
    kept = answer.headers["precomputed-edit"].removeprefix("refused; id=")
    assert ask(served.server, "GET", f"/{dataset.name}/annotations/parked/{kept}").body == body


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_predecessor_nan_was_written(number: str, served: Served, dataset: Path) -> None:
    before = leaf_file(dataset).read_bytes()
    body = json.dumps([point(1, 1, 1, 1)]).replace("[1, 1, 1]", f"[1, {number}, 1]").encode()
    assert number.encode() in body
    assert ask(served.server, "PUT", leaf_url(dataset), body).status in (400, 422)
    identifier = point(1, 0, 0, 0)["id"]
    assert ask(served.server, "PATCH", f"{leaf_url(dataset)}?id={identifier}", body[1:-1]).status in (400, 422)
    assert leaf_file(dataset).read_bytes() == before


def test_predecessor_torn_files_were_read(served: Served, dataset: Path) -> None:
    """Every GET while the file is rewritten is one of the versions that were put, whole."""
    versions = [[point(n, at, 1, 1, description="x" * 50 * at) for n in range(200)] for at in range(12)]
    done = threading.Event()

    def write() -> None:
        try:
            with Connection(served.server) as connection:
                for items in versions:
                    assert connection.put_json(leaf_url(dataset), items).status == 200
        finally:
            done.set()

    with ThreadPoolExecutor(1) as threads, Connection(served.server) as connection:
        connection.put_json(leaf_url(dataset), versions[0])
        writing = threads.submit(write)
        reads = 0
        while not done.is_set():
            answer = connection.get(leaf_url(dataset))
            assert answer.status == 200
            assert {tuple(item["point"]) for item in answer.json()} in [{(at, 1, 1)} for at in range(len(versions))]
            assert len(answer.json()) == 200
            reads += 1
        writing.result()
    assert reads > 1


def test_predecessor_lost_updates_between_workers(served: Served, dataset: Path) -> None:
    annotators, edits = 8, 25

    def annotate(annotator: int) -> list[str]:
        acknowledged = []
        for edit in range(edits):
            item = point(1000 * (annotator + 1) + edit, edit, annotator, 5)
            answer = ask(served.server, "PATCH", f"{leaf_url(dataset)}?id={item['id']}", json.dumps(item).encode())
            if answer.status == 200:  # a new connection each time: any of the workers takes it
                acknowledged.append(item["id"])
        return acknowledged

    with ThreadPoolExecutor(annotators) as threads:
        acknowledged = [identifier for ids in threads.map(annotate, range(annotators)) for identifier in ids]
    assert len(acknowledged) == annotators * edits
    stored = {item["id"] for item in json.loads(leaf_file(dataset).read_text())}
    assert set(acknowledged) - stored == set()
    assert {item["id"] for item in ask(served.server, "GET", leaf_url(dataset)).json()} == stored


@pytest.mark.parametrize(
    ("suffix", "content"),
    [
        (".tiff", b"II*\0 and then nothing"),
        (".tiff", b""),
        (".tiff", b"not a TIFF at all"),
        (".gz", b"\x1f\x8b\x08\x00 broken"),
        ("", b"too short"),
    ],
)
def test_predecessor_decode_errors_were_404(suffix: str, content: bytes, served: Served, dataset: Path) -> None:
    (dataset / CHUNK).unlink()
    for encoding in ("identity", "gzip, deflate"):
        absent = ask(served.server, "GET", f"/{dataset.name}/{CHUNK}", Accept_Encoding=encoding)
        assert (absent.status, absent.headers["access-control-allow-origin"]) == (404, "*")
    (dataset / f"{CHUNK}{suffix}").write_bytes(content)
    for encoding in ("identity", "gzip, deflate"):
        damaged = ask(served.server, "GET", f"/{dataset.name}/{CHUNK}", Accept_Encoding=encoding)
        assert (damaged.status, damaged.headers["access-control-allow-origin"]) == (500, "*")
        assert str(served.root) not in damaged.body.decode()
    (dataset / f"{CHUNK}{suffix}").unlink()


def test_predecessor_datasets_were_one_segment_deep(served: Served) -> None:
    deep = served.root / "lab" / "run3" / "left half" / "ch1"
    voxels = volume((1, 10, 64, 100), "uint16")
    write_dataset(deep, voxels)
    url = "/lab/run3/left%20half/ch1"
    assert ask(served.server, "GET", f"{url}/info").status == 200
    assert ask(served.server, "GET", f"{url}/{CHUNK}").body == voxels[..., :64].tobytes()
    leaf = f"{url}/annotations/x0y0z0/fibers.json"
    assert ask(served.server, "PUT", leaf, json.dumps([point(1, 1, 1, 1)]).encode()).status == 200
    assert json.loads((deep / "annotations" / "x0y0z0" / "fibers.json").read_text()) == [point(1, 1, 1, 1)]
    deadline = time.monotonic() + 10  # the catalog lists it soon
    while "lab/run3/left half/ch1" not in ask(served.server, "GET", "/index.html").body.decode():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_predecessor_mesh_was_taken_for_a_tile(served: Served, dataset: Path) -> None:
    names = ["mesh_mip_0_err_40/123", "mesh_mip_0_err_40/123:0", "mesh_mip_0_err_40/123:0:0-64_0-64_0-64"]
    (dataset / "mesh_mip_0_err_40").mkdir()
    for name in names:
        (dataset / name).write_bytes(name.encode())
    for name in names:
        answer = ask(served.server, "GET", f"/{dataset.name}/{name}")
        assert (answer.status, answer.body) == (200, name.encode())


def test_predecessor_head_was_405(served: Served, dataset: Path) -> None:
    for path in ("info", CHUNK, f"{CHUNK}.tiff", "annotations/x0y0z0/fibers.json", "", "annotations/blocks"):
        with Connection(served.server) as connection:
            got = connection.get(f"/{dataset.name}/{path}")
            head = connection.request("HEAD", f"/{dataset.name}/{path}")
        assert (head.status, head.body) == (200, b"")
        for name in ("content-length", "content-type", "etag", "access-control-allow-origin"):
            assert head.headers.get(name) == got.headers.get(name), f"{name} of {path!r}"
    assert ask(served.server, "HEAD", "/index.html").status == 200
    assert ask(served.server, "HEAD", f"/{dataset.name}/nothing").status == 404


def test_predecessor_no_new_block_directories(served: Served, dataset: Path) -> None:
    (dataset / "annotations" / "block_info.csv").write_text("sizeX,sizeY,sizeZ\n50,64,10\n")
    for block, directory in (("x60y1z1", "x1y0z0"), ("b4,5,6", "b4,5,6")):
        url = f"/{dataset.name}/annotations/{block}/z-0005.json"
        assert ask(served.server, "PUT", url, json.dumps([point(1, 60, 1, 5)]).encode()).status == 200
        assert (dataset / "annotations" / directory / "z-0005.json").exists()
        assert ask(served.server, "GET", url).json() == [point(1, 60, 1, 5)]


WAYS_OUT = [
    "..",
    "%2e%2e",
    "%2E%2e",
    ".%2e",
    "%252e%252e",
    "%c0%ae%c0%ae",
    "..%2f..",
    "%2e%2e%2f%2e%2e",
    "..%5c..",
    "..\\..",
    "..%00",
    "..;",
    "....//",
    "~/..",
    "~alice/..",
    "~alice.voxel/%2e%2e",
    "annotations/..",
    "%ef%bc%8e%ef%bc%8e",
]


@pytest.mark.parametrize("way", WAYS_OUT)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_predecessor_dotdot_left_the_root(way: str, method: str, served: Served, dataset: Path) -> None:
    outside = served.root.parent / "outside"
    if not outside.exists():
        write_dataset(outside, volume((1, 4, 4, 4), "uint8"))
        write_annotations(outside, {"fibers": [point(1, 1, 1, 1, description="canary")]})
        (outside / "canary.txt").write_text("canary")
    before = contents(outside)
    body = json.dumps([point(2, 1, 1, 1)])
    absolute = f"http://127.0.0.1:{served.server.port}"
    for prefix in ("", f"/{dataset.name}", absolute):
        for steps in (1, 2, 3):
            for target in ("canary.txt", "annotations/x0y0z0/fibers.json", "info", ""):
                path = f"{prefix}/{'/'.join([way] * steps)}/outside/{target}"
                request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
                answer = send_raw(served.server, f"{request}\r\n{body}".encode())
                status = int(answer.split(b" ", 2)[1])
                assert 400 <= status < 500, f"{method} {path}: {answer[:300]!r}"
                assert b"canary" not in answer
    assert contents(outside) == before


def test_predecessor_origin_was_reflected_with_credentials(served: Served, dataset: Path) -> None:
    asked = [("GET", "info"), ("GET", "absent"), ("GET", CHUNK), ("OPTIONS", "annotations/x0y0z0/fibers.json")]
    for method, path in [*asked, ("PUT", "annotations/x0y0z0/fibers.json"), ("POST", "info")]:
        answer = ask(
            served.server,
            method,
            f"/{dataset.name}/{path}",
            Origin=ORIGIN,
            Cookie="session=1",
            Access_Control_Request_Method="PUT",
        )
        assert answer.headers["access-control-allow-origin"] == "*", f"{method} {path}"
        assert "access-control-allow-credentials" not in answer.headers
        assert "set-cookie" not in answer.headers


HOSTILE_NAMES = [
    "<script>alert(1)<",
    '"><img src=x onerror=alert(1)>.txt',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "&lt;b&gt;",
    "{{7*7}}",
]


def test_predecessor_file_names_were_script(served: Served, dataset: Path) -> None:
    for name in HOSTILE_NAMES:
        (dataset / name).write_text("x")
    (dataset / "page.html").write_text("<script>alert(1)</script>")
    page = ask(served.server, "GET", f"/{dataset.name}/")
    read = _Page(page.body.decode())
    assert set(HOSTILE_NAMES) <= set(read.texts)
    assert set(read.tags) <= {"html", "head", "meta", "title", "link", "body", "main", "h1", "ul", "li", "a"}
    assert not any(name.startswith("on") for name in read.attributes)
    for link in read.links:
        assert link.startswith(("./", "../"))
    assert "script-src 'self'" in page.headers["content-security-policy"]
    stored = ask(served.server, "GET", f"/{dataset.name}/page.html")
    assert stored.headers["content-security-policy"] == "sandbox"
    assert stored.headers["x-content-type-options"] == "nosniff"
    absent = ask(served.server, "GET", f"/{dataset.name}/%3Cscript%3E")
    assert absent.headers["content-type"] == "application/problem+json"


def test_predecessor_tiles_were_gzipped_at_level_9(served: Served, dataset: Path) -> None:
    plain = ask(served.server, "GET", f"/{dataset.name}/{CHUNK}", Accept_Encoding="gzip, deflate, br")
    assert (plain.headers.get("content-encoding"), plain.body) == (None, (dataset / CHUNK).read_bytes())
    packed = served.root / "packed"
    write_dataset(packed, volume((1, 10, 64, 100), "uint16"), storage="tiff")
    answer = ask(served.server, "GET", f"/packed/{CHUNK}", Accept_Encoding="gzip, deflate, br")
    assert answer.headers["content-encoding"] == "deflate"
    with tifffile.TiffFile(packed / f"{CHUNK}.tiff") as file:
        page = file.pages.first
        stream = (packed / f"{CHUNK}.tiff").read_bytes()[page.dataoffsets[0] :][: page.databytecounts[0]]
    assert answer.body == stream


@pytest.mark.parametrize("bomb", ["stream", "stream_that_is_decoded", "shape", "shape_that_is_decoded"])
def test_predecessor_small_tiff_inflated_to_gigabytes(bomb: str, tmp_path: Path, start_server: StartServer) -> None:
    shape = (64, 64, 64)
    voxels = volume((1, *shape), "uint16")
    write_dataset(tmp_path / "bombs", voxels)
    chunk = tmp_path / "bombs" / "1_1_1" / "0-64_0-64_0-64"
    chunk.unlink()
    declared = shape if bomb.startswith("stream") else (20_000, 20_000, 20_000)
    order: Literal["<", ">"] = ">" if bomb.endswith("decoded") else "<"
    chunk.with_name(f"{chunk.name}.tiff").write_bytes(
        _tiff(order, shape, zlib.compress(voxels.astype(f"{order}u2").tobytes(), 1))
    )
    server = start_server(tmp_path, workers=1)
    assert ask(server, "GET", "/bombs/1_1_1/0-64_0-64_0-64").body == voxels.tobytes()
    content = _tiff(order, declared, _zeros(2048 if bomb.startswith("stream") else 1))
    assert len(content) < 16 << 20
    chunk.with_name(f"{chunk.name}.tiff").write_bytes(content)
    before = peak_bytes(server)
    for encoding in ("identity", "deflate"):
        answer = ask(server, "GET", "/bombs/1_1_1/0-64_0-64_0-64", Accept_Encoding=encoding)
        assert answer.status == 500
        assert answer.headers["access-control-allow-origin"] == "*"
    assert peak_bytes(server) - before < 3 * 2 * 64**3 + (64 << 20)


def test_predecessor_sigterm_did_not_reach_the_server(tmp_path: Path, start_server: StartServer) -> None:
    server = start_server(tmp_path, workers=2)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(STOPS_WITHIN_S) == 0
    assert not server.is_healthy()
    server.stop()  # fails when it has left a process behind


def contents(directory: Path) -> dict[str, bytes]:
    """Every file beneath `directory`."""
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def peak_bytes(server: RunningServer) -> int:
    """The most memory that one of the server's processes has had."""
    peaks = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            session = int((entry / "stat").read_text().rpartition(") ")[2].split()[3])
            status = (entry / "status").read_text()
        except OSError:  # it ended meanwhile
            continue
        if session == server.pid:
            peaks += [int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM")]
    return max(peaks)


def _zeros(mebibytes: int) -> bytes:
    """A whole zlib stream of zeros, made of one block that is repeated (RFC 1950 and 1951)."""
    packer = zlib.compressobj(9, wbits=-15)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    adler = ((mebibytes << 20) % 65521 << 16) | 1
    return b"\x78\x9c" + block * mebibytes + b"\x03\x00" + struct.pack(">I", adler)


def _tiff(order: Literal["<", ">"], shape: tuple[int, int, int], stream: bytes) -> bytes:
    """A volumetric TIFF; a big-endian one cannot be sent as it lies, so that its pixels have to be decoded."""
    content = tiff.chunk_header(shape, np.dtype("<u2"), len(stream), tiff.DEFLATE) + stream
    if order == "<":
        return content
    (entries,) = struct.unpack_from("<H", content, 8)
    fields = [struct.unpack_from("<HHII", content, 10 + 12 * number) for number in range(entries)]
    swapped = b"".join(
        struct.pack(">HHIHH" if kind == 3 else ">HHII", tag, kind, count, *((value, 0) if kind == 3 else (value,)))
        for tag, kind, count, value in fields
    )
    return struct.pack(">2sHIH", b"MM", 42, 8, entries) + swapped + bytes(4) + stream


class _Page(HTMLParser):
    """What a browser makes of a page: its tags, attributes, texts and links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note it."""
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]
        if tag == "a":
            self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_data(self, data: str) -> None:
        """Note it."""
        self.texts.append(data.strip())
