"""Changing title, description and tags of a dataset through HTTP: into its record, and the catalog at once."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from converter.describe import Corrections, describe
from precomputed_server.format.names import LOCK, RECORD, SWAP
from tests.catalog.trees import make_dataset, write_record
from tests.data import point, volume, write_annotations, write_dataset
from tests.web.conftest import Client
from tests.web.test_datasets import asked, index
from tests.web.test_pictures import HOSTILE

OLD: dict[str, Any] = {"id": "abc", "title": "Old", "tags": ["one"], "channels": [{"name": "a"}], "novel": {"a": 1}}


async def patched(client: Client, path: str, body: object, status: int = 200, **headers: str) -> Any:  # noqa: ANN401
    """The JSON that a PATCH answers."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    url = URL(f"/api/v1/datasets/{path}", encoded=True)
    answer = await client.patch(
        url, data=io.BytesIO(text), headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    found = json.loads(await answer.read())
    assert answer.status == status, found
    return found


def record_of(dataset: Path) -> dict[str, Any]:
    """What `dataset.json` has."""
    record: dict[str, Any] = json.loads((dataset / RECORD).read_bytes())
    return record


@pytest.fixture
def brain(root: Path) -> Path:
    """A dataset that the catalog knows, with a record of which not everything is known."""
    dataset = make_dataset(
        root / "brain", id="abc", title="Old", tags=["one"], channels=[{"name": "a"}], novel={"a": 1}
    )
    index(root)
    return dataset


async def test_words_are_written_into_the_record_and_found_at_once(brain: Path, client: Client) -> None:
    words = {"title": "Größe 7", "description": "two\nlines", "tags": ["left", "new tag", "left"]}
    found = await patched(client, "brain", words)
    assert (found["title"], found["description"], found["tags"]) == ("Größe 7", "two\nlines", ["left", "new tag"])
    assert (found["path"], found["size"], found["id"]) == ("brain", [64, 64, 64], "abc")
    channels, novel = [{"name": "a"}], {"a": 1}
    assert record_of(brain) == {
        "format": 1, "id": "abc", **words, "tags": ["left", "new tag"], "channels": channels, "novel": novel
    }  # fmt: skip
    for query in ("q=gro", "tag=new%20tag", "q=lines"):
        assert [each["path"] for each in (await asked(client, f"/api/v1/datasets?{query}"))["datasets"]] == ["brain"]
    for query in ("q=old", "tag=one"):
        assert (await asked(client, f"/api/v1/datasets?{query}"))["total"] == 0
    assert (await asked(client, "/api/v1/datasets?q=gro"))["facets"]["tags"] == {"left": 1, "new tag": 1}


async def test_the_next_scan_agrees(brain: Path, root: Path, client: Client) -> None:
    await patched(client, "brain", {"title": "New"})
    before = await asked(client, "/api/v1/datasets/brain")
    await asyncio.to_thread(index, root)
    after = await asked(client, "/api/v1/datasets/brain")
    for found in (before, after):
        del found["last_seen"], found["layers"]
    assert before == after
    assert after["title"] == "New"


async def test_what_is_not_given_stays_and_what_is_null_goes(brain: Path, client: Client) -> None:
    await patched(client, "brain", {"description": "seen"})
    assert (record_of(brain)["title"], record_of(brain)["tags"]) == ("Old", ["one"])
    found = await patched(client, "brain", {"title": None, "tags": None})
    assert (found["title"], found["tags"], found["description"]) == ("brain", [], "seen")


async def test_a_dataset_without_a_record_gets_one(root: Path, client: Client) -> None:
    make_dataset(root / "plain")
    found = await patched(client, "plain", {"tags": ["a"]})
    record = record_of(root / "plain")
    assert len(record["id"]) == 32
    assert {**record, "id": ""} == {"format": 1, "id": "", "title": "plain", "tags": ["a"]}
    assert (found["path"], found["id"], found["tags"]) == ("plain", record["id"], ["a"])


async def test_it_is_the_record_that_the_command_writes(brain: Path, client: Client) -> None:
    words = {"title": "T", "description": "D", "tags": ["a", "b"]}
    await patched(client, "brain", words)
    by_patch = (brain / RECORD).read_bytes()
    write_record(brain, **OLD)
    corrections = Corrections(title="T", description="D", tags=("a", "b"))
    await asyncio.to_thread(describe, brain, corrections, lambda path, info: None)
    assert (brain / RECORD).read_bytes() == by_patch


async def test_if_match_refuses_what_somebody_else_has_changed(brain: Path, client: Client) -> None:
    etag = (await client.get("/api/v1/datasets/brain")).headers["ETag"]
    await patched(client, "brain", {"title": "First"}, If_Match=etag)
    assert "If-Match" in (await patched(client, "brain", {"title": "Second"}, 412, If_Match=etag))["detail"]
    assert record_of(brain)["title"] == "First"
    now = (await client.get("/api/v1/datasets/brain")).headers["ETag"]
    await patched(client, "brain", {"title": "Second"}, If_Match=now)
    await patched(client, "brain", {"title": "Third"}, If_Match="*")


async def test_many_changes_at_once_lose_none(brain: Path, client: Client) -> None:
    async def add(number: int) -> None:
        while True:
            text = (brain / RECORD).read_bytes()
            body = json.dumps({"tags": [*json.loads(text)["tags"], f"t{number}"]})
            headers = {"If-Match": f'"{hashlib.sha256(text).hexdigest()[:32]}"'}
            if (await client.patch("/api/v1/datasets/brain", data=body, headers=headers)).status == 200:
                return

    await asyncio.gather(*map(add, range(8)))
    assert sorted(record_of(brain)["tags"]) == ["one", *(f"t{number}" for number in range(8))]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"title": 1}', b'{"colour": "red"}', b'{"tags": "a"}', b'{"tags": [1]}',
     b'{"tags": [""]}', b'{"tags": ["a,b"]}', b'{"tags": [" a"]}', b'{"title": "a\\nb"}', b'{"title": "\\u0000"}',
     b'{"description": "\\u001b[2J"}', b'{"title": "\\ud800"}', json.dumps({"title": "x" * 301}).encode(),
     json.dumps({"tags": ["x" * 65]}).encode(), json.dumps({"tags": [str(n) for n in range(101)]}).encode(),
     b"[" * 100_000, b"\xff"],
)  # fmt: skip
async def test_bad_changes_are_explained_and_change_nothing(brain: Path, client: Client, body: bytes) -> None:
    before = (brain / RECORD).read_bytes()
    assert (await patched(client, "brain", body, 400))["detail"]
    assert (brain / RECORD).read_bytes() == before


async def test_what_is_too_long_is_refused(brain: Path, client: Client) -> None:
    await patched(client, "brain", b'{"description": "' + b"x" * (1 << 20) + b'"}', 413)


@pytest.mark.parametrize("path", ["nothing", ".hidden", "brain%2F1_1_1", "%2E%2E%2Fbrain", "brain%00", "."])
async def test_only_datasets_are_described(brain: Path, root: Path, client: Client, path: str) -> None:
    make_dataset(root / ".hidden")
    url = URL(f"/api/v1/datasets/{path}", encoded=True)
    assert (await client.patch(url, data=b'{"title": "x"}')).status in (400, 404, 405)
    assert not (root / "brain" / "1_1_1" / ".precomputed").exists()
    assert not (root / ".hidden" / ".precomputed").exists()
    assert not (root / ".precomputed").exists()


async def test_a_conversion_in_progress_is_not_disturbed(
    brain: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("precomputed_server.catalog.record_writing._LOCK_TIMEOUT_S", 0.05)
    with (brain / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "conversion" in (await patched(client, "brain", {"title": "x"}, 503))["detail"]
    (brain / SWAP).write_text("{}")
    assert "precomputed describe" in (await patched(client, "brain", {"title": "x"}, 409))["detail"]
    assert record_of(brain)["title"] == "Old"


@pytest.mark.parametrize("record", [b"{", b"[]", b'{"format": 2}'])
async def test_a_record_that_is_not_understood_is_left_alone(brain: Path, client: Client, record: bytes) -> None:
    (brain / RECORD).write_bytes(record)
    assert (await patched(client, "brain", {"title": "x"}, 409))["detail"]
    assert (brain / RECORD).read_bytes() == record


@pytest.mark.parametrize(
    ("code", "status", "told"),
    [(errno.EROFS, 503, "read-only"), (errno.EACCES, 403, "may not write"), (errno.ENOSPC, 507, "full")],
)
async def test_disks_that_refuse(
    brain: Path, client: Client, monkeypatch: pytest.MonkeyPatch, code: int, status: int, told: str
) -> None:
    def refuse(*given: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("precomputed_server.catalog.record_writing.atomic_write", refuse)
    assert told in (await patched(client, "brain", {"title": "x"}, status))["detail"]
    assert (await asked(client, "/api/v1/datasets/brain"))["title"] == "Old"


async def test_a_record_behind_a_link_that_leads_out_is_not_read_or_written(
    brain: Path, root: Path, tmp_path: Path, client: Client
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "dataset.json").write_text('{"format": 1, "title": "secret"}')
    make_dataset(root / "linked")
    (root / "linked" / ".precomputed").symlink_to(tmp_path / "outside")
    await patched(client, "linked", {"title": "x"}, 404)
    assert json.loads((tmp_path / "outside" / "dataset.json").read_text())["title"] == "secret"


@pytest.mark.parametrize("name", HOSTILE)
async def test_datasets_with_hostile_names_and_words(root: Path, client: Client, name: str) -> None:
    make_dataset(root / name)
    index_of = asyncio.to_thread(index, root)
    await index_of
    spelled = f"{quote(name, safe='')}/"
    said = name[:64].replace(",", ";")
    found = await patched(client, spelled, {"title": name, "description": name, "tags": [said]})
    assert (found["path"], found["title"], found["tags"]) == (name, name, [said])
    known = await client.get(URL(f"/api/v1/datasets/{spelled}", encoded=True))
    assert json.loads(await known.read())["description"] == name
    assert (await asked(client, f"/api/v1/datasets?tag={quote(said, safe='')}"))["total"] == 1


async def test_the_root_is_described(root: Path, client: Client) -> None:
    write_dataset(root, volume((1, 4, 8, 8), "uint8"))
    await asyncio.to_thread(index, root)
    assert (await patched(client, ".%2F", {"title": "All"}))["path"] == "."
    assert (await asked(client, "/api/v1/datasets?q=all"))["total"] == 1


async def test_other_members_of_the_interface_take_no_patch(brain: Path, client: Client) -> None:
    for path in ("brain/histogram", "brain/thumbnail.png", "brain/link", "brain/annotations/progress"):
        assert (await client.patch(f"/api/v1/datasets/{path}", data=b"{}")).status == 405


async def test_the_progress_of_annotations(root: Path, client: Client) -> None:
    for name in ("brain", HOSTILE[0], HOSTILE[3]):
        (root / name).mkdir()
        write_dataset(root / name, volume((1, 6, 8, 10), "uint8"))
        write_annotations(root / name, {"fibers": [point(1, 1, 2, 3), point(2, 1, 2, 3)]})
        spelled = quote(name, safe="")
        there = await client.get(URL(f"/api/v1/datasets/{spelled}/annotations/progress", encoded=True))
        own = await client.get(URL(f"/{spelled}/annotations/progress", encoded=True))
        assert (there.status, await there.read()) == (200, await own.read())
    assert (await client.get("/api/v1/datasets/nothing/annotations/progress")).status == 404


@pytest.mark.parametrize("spelled", [".hidden", "./.hidden", "%2Ehidden", ".%2F.hidden", "lab/.hidden"])
async def test_names_that_begin_with_a_dot_are_nobodys_business(root: Path, client: Client, spelled: str) -> None:
    for directory in (root / ".hidden", root / "lab" / ".hidden"):
        directory.mkdir(parents=True)
        write_dataset(directory, volume((1, 6, 8, 10), "uint8"))
        write_annotations(directory, {"fibers": [point(1, 1, 2, 3)]})
    for rest in ("", "/annotations/progress", "/histogram", "/link"):
        answer = await client.get(URL(f"/api/v1/datasets/{spelled}{rest}", encoded=True))
        assert answer.status == 404, rest


async def test_changes_of_a_dataset_that_is_converted_hold_up_no_others(
    brain: Path, root: Path, client: Client
) -> None:
    (root / "other").mkdir()
    write_dataset(root / "other", volume((1, 6, 8, 10), "uint8"))
    with (brain / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        changes = [client.patch("/api/v1/datasets/brain", data=io.BytesIO(b'{"title": "x"}')) for _ in range(40)]
        told = [json.loads(await answer.read())["detail"] for answer in await asyncio.gather(*changes)]
        assert sum("Too many changes" in each for each in told) >= 20
        assert sum("conversion" in each for each in told) >= 1
        await patched(client, "other", {"title": "x"}, 200)
