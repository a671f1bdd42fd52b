"""Saved viewer states: short links that every server of a root knows and nothing can change."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import itertools
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from yarl import URL

from precomputed_server.catalog.indexer import Hints
from precomputed_server.catalog.watch import watching
from precomputed_server.settings import load
from precomputed_server.web.app import create_app
from precomputed_server.web.states import LONGEST
from tests.web.conftest import AiohttpClient, Client, ServerAsRun

STATE_BYTES = json.dumps({"layers": [{"name": "brain é"}], "position": [1, 2, 3]}, ensure_ascii=False).encode()


async def saved(client: Client, body: bytes, status: int) -> Any:  # noqa: ANN401
    """The JSON that `POST /states` answers."""
    answer = await client.post("/states", data=io.BytesIO(body))
    found = json.loads(await answer.read())
    assert answer.status == status, found
    if status < 300:
        assert answer.headers["Location"] == found
    return found


Connect = Callable[..., Awaitable[Client]]


@pytest.fixture
async def connect(root: Path, aiohttp_client: AiohttpClient) -> Connect:
    """Makes a client of a server of its own over the root, with other settings."""

    async def connected(**given: Any) -> Client:
        chosen = load(root, {"workers": 1, "state": str(root.parent / "state"), **given}, environ={})
        return await aiohttp_client(ServerAsRun(await asyncio.to_thread(create_app, chosen)), auto_decompress=False)

    return connected


async def test_a_state_is_saved_once_under_the_name_of_its_content(root: Path, client: Client) -> None:
    id = hashlib.sha256(STATE_BYTES).hexdigest()[:32]
    url = f"http://127.0.0.1:{client.port}/states/{id}"
    assert await saved(client, STATE_BYTES, 201) == url
    assert await saved(client, STATE_BYTES, 200) == url
    answer = await client.get(f"/states/{id}")
    assert (answer.status, await answer.read()) == (200, STATE_BYTES)
    assert answer.content_type == "application/json"
    assert "immutable" in answer.headers["Cache-Control"]
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    again = await client.get(f"/states/{id}", headers={"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304
    assert (root / ".precomputed" / "states" / id).read_bytes() == STATE_BYTES
    assert (await client.get(f"/.precomputed/states/{id}")).status == 404


async def test_every_server_of_a_root_knows_what_one_has_saved(connect: Connect) -> None:
    first, second = await connect(), await connect()
    url = URL(await saved(first, STATE_BYTES, 201))
    assert await (await second.get(url.path)).read() == STATE_BYTES
    await saved(second, STATE_BYTES, 200)


async def test_what_is_saved_is_on_disk_before_the_answer(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        calls.append("fsync")
        fsync(descriptor)

    def noted_rename(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        calls.append("rename")
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    await saved(client, STATE_BYTES, 201)
    assert calls[-3:] == ["fsync", "rename", "fsync"]


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[]", 400), (b'"a"', 400), (b"{", 400), (b"\xff{}", 400), (b"[" * 100_000, 400),
     (b'{"a":"' + b"x" * LONGEST + b'"}', 413)],
)  # fmt: skip
async def test_what_is_no_state_is_refused(root: Path, client: Client, body: bytes, status: int) -> None:
    assert (await saved(client, body, status))["detail"]
    assert not list(root.rglob("*"))


async def test_the_largest_state_is_taken(client: Client) -> None:
    body = b'{"a":"' + b"x" * (LONGEST - 8) + b'"}'
    url = URL(await saved(client, body, 201))
    assert await (await client.get(url.path)).read() == body


BLOCK = 4096
"""What a file takes on a disk however little is in it."""


async def test_all_states_together_are_bounded(connect: Connect, root: Path) -> None:
    bodies = [json.dumps({"number": number, "pad": "x" * 980}).encode() for number in range(12)]
    first, second = await connect(saved_states=4 * BLOCK), await connect(saved_states=4 * BLOCK)
    servers = itertools.cycle((first, second))
    answers = await asyncio.gather(*(next(servers).post("/states", data=body) for body in bodies))
    assert sorted(answer.status for answer in answers) == [201] * 4 + [507] * 8
    refused = next(answer for answer in answers if answer.status == 507)
    assert "--saved-states" in json.loads(await refused.read())["detail"]
    kept = [path for path in (root / ".precomputed" / "states").iterdir() if not path.name.startswith(".")]
    assert sum(path.stat().st_size for path in kept) <= 4 * BLOCK
    known = kept[0].read_bytes()
    await saved(first, known, 200)
    kept[0].unlink()
    await saved(second, known, 201)


@pytest.mark.parametrize(
    "id",
    ["0" * 32, "0" * 31, "A" * 32, "%2E%2E%2F" + "0" * 32, ".lock", "%2Elock", "..%2Fdataset.json", "0" * 32 + "/x",
     "%3Cscript%3E", "%00", "x" * 5000],
)  # fmt: skip
async def test_what_is_no_saved_state(root: Path, client: Client, id: str) -> None:
    await saved(client, STATE_BYTES, 201)
    answer = await client.get(URL(f"/states/{id}", encoded=True))
    assert answer.status in (400, 404)
    assert answer.content_type == "application/problem+json"
    assert "<script>" not in await answer.text()


async def test_a_damaged_state_is_not_handed_out(root: Path, client: Client) -> None:
    url = URL(await saved(client, STATE_BYTES, 201))
    for damaged in (b"{}", bytes(len(STATE_BYTES))):
        (root / ".precomputed" / "states" / url.name).write_bytes(damaged)
        assert (await client.get(url.path)).status == 500
        await saved(client, STATE_BYTES, 201)
        assert await (await client.get(url.path)).read() == STATE_BYTES


async def test_a_root_that_cannot_be_written_says_what_to_do(root: Path, connect: Connect, tmp_path: Path) -> None:
    (root / ".precomputed").write_text("a file where the directory would be")
    client = await connect()
    assert "--shared" in (await saved(client, STATE_BYTES, 503))["detail"]
    elsewhere = await connect(shared=str(tmp_path / "shared" / "deep"))
    url = URL(await saved(elsewhere, STATE_BYTES, 201))
    assert (tmp_path / "shared" / "deep" / "states" / url.name).read_bytes() == STATE_BYTES
    assert await (await elsewhere.get(url.path)).read() == STATE_BYTES


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [
        (errno.EROFS, 503, "--shared"),
        (errno.EACCES, 503, "--shared"),
        (errno.ENOLCK, 503, "--shared"),
        (errno.ENOSPC, 507, "full"),
    ],
)
async def test_disks_that_refuse(
    client: Client, monkeypatch: pytest.MonkeyPatch, code: int, status: int, told: str
) -> None:
    def refuse(*given: object, **more: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("precomputed_server.saved_states.atomic_write", refuse)
    assert told in (await saved(client, STATE_BYTES, status))["detail"]


async def test_states_can_only_be_posted(client: Client) -> None:
    for method in ("GET", "PUT", "DELETE"):
        answer = await client.request(method, "/states")
        assert (answer.status, answer.headers["Allow"]) == (405, "POST, OPTIONS")
    assert (await client.post("/states?x=1", data=STATE_BYTES)).status == 400


def test_saving_a_state_does_not_have_the_tree_gone_through(tmp_path: Path) -> None:
    (tmp_path / ".precomputed" / "states").mkdir(parents=True)
    hints = Hints()
    with watching(tmp_path, hints):
        (tmp_path / ".precomputed" / "states" / "0123").write_text("{}")
        (tmp_path / ".precomputed" / "states").joinpath("0123").rename(tmp_path / ".precomputed" / "states" / "4567")
        (tmp_path / "new").mkdir()
        assert hints.wait(5) == {"new"}
