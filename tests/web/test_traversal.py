"""No spelling of a path leads out of the root, for reading or for writing."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from precomputed_server.files import Tree
from tests.data import volume, write_annotations, write_dataset
from tests.web.conftest import Client

CANARY = "canary-never-to-be-served"
UPS = ("..", "../..", "../../..", "....//", "..;", ".", "x/..", "x/../..")
ENCODINGS = ("", "%2e", "%2E%2e", "%252e%252e", "..%2f", "..%5c", "..\\", "%c0%ae%c0%ae", "%2f", "%00", "%ff", "..%00")
SLOTS = (
    "/{}/secret",
    "/{}/secret.json",
    "/brain/{}/{}/secret",
    "/brain/1_1_1/{}/{}/{}/secret",
    "/brain/{}/{}/cutout",
    "/brain/{}/annotations/x0y0z0/secret.json",
    "/brain/annotations/{}/secret.json",
    "/brain/annotations/x0y0z0/{}.json",
    "/brain/annotations/{}/secret/history",
    "/brain/annotations/x0y0z0/{}/restore",
    "/brain/annotations/parked/{}",
    "/brain/annotations/parked/{}/discard",
    "/~alice/{}/secret",
    "/~/{}/secret",
    "/neuroglancer/v/1/{}/{}/{}/{}/{}/{}/{}/secret",
    "/static/{}/app.py",
    "/api/{}/__init__.py",
    "/api/v1/datasets/{}/secret",
    "/api/v1/datasets/{}/secret/preview.png",
    "/api/v1/datasets/brain/{}/{}/link",
    "/api/v1/link?dataset={}/secret",
    "/states/{}/secret",
)
BODIES = {"GET": b"", "HEAD": b"", "PUT": b"[]", "PATCH": b"[]", "POST": b'{"version":1}', "DELETE": b""}
KEPT = re.compile(r"/state|/state/root-[0-9a-f]+(/pages(/pages-[0-9T]+\.jsonl)?|/refused(/[0-9a-f]{16}\.\w+(\.gz)?)?)?")
"""The names beside the root that the server may give files, beneath the state directory of these tests."""


def attacks() -> Iterator[bytes]:
    """Whole requests, byte for byte as they go over the wire."""
    payloads = {*UPS, *ENCODINGS, *(quote(up, safe="") for up in UPS), "%2e%2e%2f" * 3, "/etc", "%2fetc%2fpasswd"}
    for slot in SLOTS:
        for payload in sorted(payloads):
            path = slot.format(*[payload] * slot.count("{}"))
            for method, body in BODIES.items():
                head = f"{method} {path}?id=a HTTP/1.1", "Host: x", "Connection: close", f"Content-Length: {len(body)}"
                yield "\r\n".join((*head, "", "")).encode("latin-1") + body


async def exchange(port: int, request: bytes) -> bytes:
    """Send one request as it is and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


def tree_of(directory: Path) -> dict[str, bytes | None]:
    """Every file beneath a directory and what it holds."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(directory.rglob("*"))}


def outside(directory: Path, root: Path, tree: dict[str, bytes | None]) -> dict[str, bytes | None]:
    """What of `tree` is neither beneath the root nor a file that the server keeps of its own."""
    return {
        path: held
        for path, held in tree.items()
        if not path.startswith(str(root)) and not KEPT.fullmatch(path.removeprefix(str(directory)))
    }


async def test_nothing_outside_is_read_written_or_told_of(root: Path, client: Client, tmp_path: Path) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)))
    write_annotations(root / "brain", {"fibers": []})
    for name in ("secret", "secret.json"):
        (tmp_path / name).write_text(CANARY)
    before = tree_of(tmp_path)
    assert client.port is not None
    requests = list(attacks())
    for request in requests:
        answer = await exchange(client.port, request)
        status = int(answer.split(b" ", 2)[1])
        assert CANARY.encode() not in answer, request
        assert b"root:" not in answer, request
        # Nobody has made a catalog here.
        assert status < 500 or (status == 503 and b" /api/v1/datasets/" in request), (request, answer)
        if request.startswith((b"PUT", b"PATCH", b"POST", b"DELETE")):
            assert status >= 400 or b'{"filename":"brain/annotations/x0y0z0/' in answer, (request, answer)
    assert outside(tmp_path, root, tree_of(tmp_path)) == outside(tmp_path, root, before)
    assert len(requests) > 1000


async def test_present_and_absent_outside_cannot_be_told_apart(root: Path, client: Client, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(CANARY)
    (root / "there").symlink_to(tmp_path / "secret")
    (root / "not-there").symlink_to(tmp_path / "nothing")
    for prefix in ("", "/~alice"):
        there, absent = await client.get(f"{prefix}/there"), await client.get(f"{prefix}/not-there")
        assert (there.status, await there.read()) == (absent.status, await absent.read())


def test_a_name_that_is_swapped_while_it_is_opened_never_leads_out(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "inside").mkdir(parents=True)
    (root / "inside" / "file").write_text("inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text(CANARY)
    (root / "name").symlink_to("inside")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for target in ("../outside", "inside"):
                (root / "new").symlink_to(target)
                (root / "new").rename(root / "name")

    attacker = threading.Thread(target=swap)
    attacker.start()
    tree = Tree(root)
    seen = set()
    try:
        for _ in range(20_000):
            try:
                seen.add(tree.read("name/file"))
            except OSError as error:
                seen.add(type(error).__name__.encode())
    finally:
        done.set()
        attacker.join()
        tree.close()
    assert CANARY.encode() not in seen
    assert b"inside" in seen
    assert len(seen) > 1


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "/etc/passwd", "out", "out/x"])
@pytest.mark.parametrize("has_openat2", [True, False])
def test_without_openat2_the_walk_is_as_strict(tmp_path: Path, path: str, has_openat2: bool) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "secret").write_text(CANARY)
    (root / "out").symlink_to("../secret")
    tree = Tree(root)
    tree.uses_openat2 = has_openat2 and tree.uses_openat2
    with pytest.raises(OSError):  # noqa: PT011  # which error it is depends on the kernel
        tree.open(path)
    tree.close()


def test_the_walk_opens_what_is_inside(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_text("inside")
    tree = Tree(tmp_path)
    tree.uses_openat2 = False
    assert tree.read("a/b/file") == b"inside"
    assert [entry.name for entry in tree.listing("a")] == ["b"]
    tree.close()
