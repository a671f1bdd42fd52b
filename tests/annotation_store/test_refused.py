"""Bodies of saves that were not applied: nothing that a page sends is thrown away while there is room."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from annotation_store.pages.refused import RefusedSaves
from precomputed_server.errors import NotFound, Unreadable

MEBIBYTE = 1 << 20


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "refused"


@pytest.fixture
def saves(directory: Path) -> RefusedSaves:
    return RefusedSaves(directory, 10 * MEBIBYTE)


def meta(**members: Any) -> dict[str, Any]:
    return {"dataset": "brain", "block": "x0y0z0", "leaf": "fibers", "reason": "it is too large", **members}


def kept(saves: RefusedSaves, body: bytes = b"[]", **members: Any) -> str:
    id = saves.keep(meta(**members), body)
    assert id is not None
    return id


def age(directory: Path, id: str, seconds: float) -> None:
    for path in directory.glob(f"{id}*"):
        moment = path.stat().st_mtime - seconds
        os.utime(path, (moment, moment))


def test_a_body_is_kept_with_what_is_known_of_it(saves: RefusedSaves, directory: Path) -> None:
    body = os.urandom(3 * MEBIBYTE)
    id = kept(saves, body)
    expected = {**meta(), "id": id, "size": len(body), "complete": True}
    assert saves.list("brain") == [expected]
    assert saves.find(id, "brain") == expected
    assert saves.body(id, "brain") == body
    assert RefusedSaves(directory, 1).body(id, "brain") == body, "another process does not find it"


def test_the_newest_is_listed_first_and_other_datasets_are_not(saves: RefusedSaves, directory: Path) -> None:
    ids = [kept(saves) for _ in range(3)]
    for seconds, id in enumerate(reversed(ids)):
        age(directory, id, seconds)
    other = kept(saves, dataset="banana")
    assert [found["id"] for found in saves.list("brain")] == ids[::-1]
    assert [found["id"] for found in saves.list("banana")] == [other]


def test_another_datasets_save_is_not_given(saves: RefusedSaves) -> None:
    id = kept(saves, dataset="banana")
    assert saves.find(id, "brain") is None
    with pytest.raises(NotFound):
        saves.body(id, "brain")


def test_nobody_else_may_read_it(saves: RefusedSaves, directory: Path) -> None:
    kept(saves)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_what_is_discarded_is_gone(saves: RefusedSaves, directory: Path) -> None:
    id = kept(saves)
    saves.discard(id)
    saves.discard(id)
    assert (saves.list("brain"), saves.find(id, "brain"), list(directory.iterdir())) == ([], None, [])
    with pytest.raises(NotFound):
        saves.body(id, "brain")


@pytest.mark.parametrize(
    "id", ["", "../../secret", "0" * 15, "0" * 17, "0123456789ABCDEF", "0123456789abcde\n", "." * 16]
)
def test_an_id_that_is_none_names_no_file(saves: RefusedSaves, directory: Path, id: str) -> None:
    kept(saves)
    (directory.parent / "secret.json").write_text(json.dumps(meta()))
    before = sorted(directory.rglob("*"))
    saves.discard(id)
    assert sorted(directory.rglob("*")) == before
    assert (directory.parent / "secret.json").exists()
    assert saves.find(id, "brain") is None
    with pytest.raises(NotFound):
        saves.body(id, "brain")


def test_the_oldest_go_when_there_is_no_room(directory: Path) -> None:
    saves = RefusedSaves(directory, 3 * MEBIBYTE + 20_000)
    ids = []
    for seconds in range(5):
        ids.append(kept(saves, secrets.token_bytes(MEBIBYTE)))
        age(directory, ids[-1], 100 - seconds)
    assert [found["id"] for found in saves.list("brain")] == ids[:1:-1]
    assert sum(path.stat().st_size for path in directory.iterdir()) <= 3 * MEBIBYTE + 20_000


@pytest.mark.parametrize("sessions", [["flood"], [f"10.0.0.9 Browser/{number} " for number in range(30)]])
def test_one_who_floods_pushes_out_his_own(directory: Path, sessions: list[str]) -> None:
    saves = RefusedSaves(directory, 2 * MEBIBYTE)
    others = {kept(saves, secrets.token_bytes(100_000), session=name) for name in ("alice", "bob", "10.0.0.1 Browser ")}
    for id in others:
        age(directory, id, 1000)
    ids = []
    for number in range(30):
        ids.append(kept(saves, secrets.token_bytes(200_000), session=sessions[number % len(sessions)]))
        age(directory, ids[-1], 100 - number)
    found = [meta["id"] for meta in saves.list("brain")]
    assert set(found) >= others
    assert [id for id in found if id not in others] == ids[: -len(found) + len(others) - 1 : -1]
    assert len(found) >= len(others) + 7


def test_one_body_does_not_push_out_all_others(directory: Path) -> None:
    saves = RefusedSaves(directory, MEBIBYTE)
    other = kept(saves, secrets.token_bytes(100_000), session="alice")
    huge = kept(saves, secrets.token_bytes(2 * MEBIBYTE), session="flood")
    assert [meta["id"] for meta in saves.list("brain")] in ([huge, other], [other, huge])
    found = saves.find(huge, "brain")
    assert found is not None
    assert not found["complete"]


def test_of_a_body_beyond_half_of_the_bound_the_beginning_is_kept(directory: Path) -> None:
    saves = RefusedSaves(directory, 2 * MEBIBYTE)
    body = b"[" + b"0," * MEBIBYTE
    id = kept(saves, body)
    assert saves.body(id, "brain") == body[:MEBIBYTE]
    found = saves.find(id, "brain")
    assert found is not None
    assert (found["complete"], found["size"]) == (False, len(body))


def test_a_body_that_arrives_in_pieces_is_one(saves: RefusedSaves) -> None:
    writer = saves.begin(meta())
    assert writer is not None
    pieces = [os.urandom(size) for size in (0, 1, 70_000, 2 * MEBIBYTE)]
    for piece in pieces:
        writer.write(piece)
    assert saves.list("brain") == [], "what is not complete is listed"
    id = writer.finish()
    assert id is not None
    assert saves.body(id, "brain") == b"".join(pieces)


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_full_disk_keeps_nothing_and_raises_nothing(
    saves: RefusedSaves, directory: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    before = kept(saves)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        assert saves.keep(meta(), os.urandom(MEBIBYTE)) is None
    assert [found["id"] for found in saves.list("brain")] == [before]
    assert len(list(directory.iterdir())) == 2, "something was left"


def test_a_directory_that_cannot_be_made_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    saves = RefusedSaves(tmp_path / "file" / "refused", MEBIBYTE)
    assert saves.keep(meta(), b"[]") is None
    assert (saves.list("brain"), saves.find("0" * 16, "brain")) == ([], None)


@pytest.mark.parametrize(("place", "bound"), [(False, MEBIBYTE), (True, 0)])
def test_without_a_place_or_room_nothing_is_kept(directory: Path, *, place: bool, bound: int) -> None:
    saves = RefusedSaves(directory if place else None, bound)
    assert saves.keep(meta(), b"[]") is None
    assert saves.begin(meta()) is None
    assert (saves.list("brain"), directory.exists()) == ([], False)
    saves.discard("0" * 16)


@pytest.mark.parametrize("damage", [lambda data: data[:-5], lambda data: b"x" + data[1:], lambda data: b""])
def test_a_damaged_body_is_said_to_be_so(
    saves: RefusedSaves, directory: Path, damage: Callable[[bytes], bytes]
) -> None:
    id = kept(saves, b"[1,2,3]")
    path = directory / f"{id}.body.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(Unreadable):
        saves.body(id, "brain")
    (directory / f"{id}.json").write_text("{")
    assert saves.list("brain") == []


def test_what_a_crash_left_goes_after_an_hour(saves: RefusedSaves, directory: Path) -> None:
    under_way, crashed = saves.begin(meta()), saves.begin(meta())
    assert under_way is not None
    assert crashed is not None
    names = {path.name[:16] for path in directory.iterdir()}
    for path in directory.iterdir():
        os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 3700))
        break
    kept(saves)
    assert len({path.name[:16] for path in directory.iterdir()} & names) == 1


def test_many_may_keep_at_once(directory: Path) -> None:
    def keep() -> None:
        for _ in range(10):
            kept(RefusedSaves(directory, MEBIBYTE), secrets.token_bytes(50_000))

    threads = [threading.Thread(target=keep) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    saves = RefusedSaves(directory, MEBIBYTE)
    found = saves.list("brain")
    assert 10 <= len(found) <= 24
    assert {len(saves.body(meta["id"], "brain")) for meta in found} == {50_000}
