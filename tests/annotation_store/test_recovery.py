"""What is found on opening: crash artefacts, other tools' writes, damage; and whose files they are."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from annotation_store.committing import leaf as leaf_module
from annotation_store.edits import PutOne
from annotation_store.history.lines import sealed
from annotation_store.history.log import BlockLog, LogState
from annotation_store.history.segments import read_from
from annotation_store.orders import Order, Outcome, Part
from precomputed_server import writing
from precomputed_server.errors import Busy, Unreadable
from tests.annotation_store.support import Editor, Place, by_id, check_log, some, written
from tests.data import point


def fill(editor: Editor, count: int = 3) -> None:
    """One version for each of `count` points."""
    for item in some(count):
        editor.put(item)


def rejected(place: Place) -> list[Path]:
    """The files that were set aside."""
    return sorted(place.block.glob(".fibers.rejected-*"))


def crash(*_: object) -> None:
    """The end of a process."""
    raise KeyboardInterrupt


def test_a_file_without_a_log_is_version_1_by_external(editor: Editor, place: Place) -> None:
    place.file().write_text(json.dumps(some(2), indent=2))
    assert editor.version() == 1
    assert editor.put(some(1, first=5)[0]).version == 2
    first = json.loads(place.log.read_bytes().splitlines()[1])  # after the header
    assert (first["author"], first["operation"], first["version"], first["text"]) == (
        "external",
        "external",
        1,
        json.dumps(some(2), indent=2),
    )
    check_log(place)


def test_another_tools_change_is_a_version_by_external(editor: Editor, place: Place) -> None:
    fill(editor)
    place.file().write_text(json.dumps(some(4)))
    assert json.loads(editor.seen()) == some(4)
    assert editor.put(some(1, first=7)[0]).version == 5
    assert place.stored() == by_id([*some(4), *some(1, first=7)])
    check_log(place)


def test_another_tool_may_go_back_and_forth(editor: Editor, place: Place) -> None:
    """What an external version replaced is no unfinished write of ours when it comes back."""
    fill(editor)
    earlier = place.file().read_bytes()
    place.file().write_bytes(written(some(5)))
    assert editor.replace(some(5)).edits == 0
    place.file().write_bytes(earlier)
    assert editor.replace(some(3)).edits == 0
    assert place.file().read_bytes() == earlier
    assert check_log(place) == {"fibers": 5}


def test_a_damaged_file_is_set_aside_and_the_last_good_one_served(editor: Editor, place: Place) -> None:
    fill(editor)
    for number, damage in enumerate((b"[{", b"{}", b'[{"id":"a"},{"id":"a"}]')):
        kept = place.stored()
        place.file().write_bytes(damage)
        assert json.loads(editor.seen()) == list(kept.values())
        editor.put(point(number + 10, 1, 2, 3))
        assert place.stored() == kept | by_id([point(number + 10, 1, 2, 3)])
        assert len(rejected(place)) == number + 1
        assert rejected(place)[-1].read_bytes() == damage
        check_log(place)


def test_a_crash_while_a_damaged_file_is_set_aside_loses_nothing(
    editor: Editor, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(editor)
    place.file().write_bytes(b"[{")
    with monkeypatch.context() as patch:
        patch.setattr(leaf_module, "atomic_write", crash)
        with pytest.raises(KeyboardInterrupt):
            editor.put(some(1, first=9)[0])
    assert place.file().exists()
    editor.restart()
    editor.put(some(1, first=9)[0])
    assert place.stored() == by_id([*some(3), *some(1, first=9)])
    check_log(place)


def test_a_file_system_without_hard_links_sets_aside_by_copy(
    editor: Editor, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    fill(editor)
    place.file().write_bytes(b"[{")
    monkeypatch.setattr(os, "link", no_links)
    editor.put(some(1, first=9)[0])
    assert rejected(place)[0].read_bytes() == b"[{"


@pytest.mark.parametrize("resealed", [False, True], ids=["its line is damaged", "its line is sound"])
def test_a_group_that_does_not_give_the_announced_file_is_not_written(
    editor: Editor, place: Place, resealed: bool
) -> None:
    fill(editor)
    before = place.file().read_bytes()
    editor.put(some(1, first=5)[0])
    place.file().write_bytes(before)
    *lines, last = place.log.read_bytes().replace(b"[5.5,10,3.25]", b"[6.5,10,3.25]").splitlines(keepends=True)
    if resealed:
        members = json.loads(last)
        del members["digest"]
        last = sealed(members, members.pop("previous"))[0]
    place.log.write_bytes(b"".join([*lines, last]))
    editor.restart()
    editor.put(some(1, first=6)[0])
    assert place.stored() == by_id([*some(3), *some(1, first=6)])


@pytest.mark.parametrize("at", [0.1, 0.35, 0.6, 0.85])
@pytest.mark.parametrize("damage", [b"\x00", b"\n", b"\xff{", b"5\n7\n"])
def test_damage_in_a_log_costs_no_record_after_it(editor: Editor, place: Place, at: float, damage: bytes) -> None:
    """A bit that flipped on the disk once made the next edit cut off every record behind it."""
    fill(editor, 20)
    content = place.log.read_bytes()
    position = int(at * len(content))
    place.log.write_bytes(content[:position] + damage + content[position + len(damage) :])
    editor.restart()
    assert editor.version() == 20
    assert editor.put(some(1, first=30)[0]).version == 21
    after = place.log.read_bytes()
    assert after.startswith(content[:position])
    assert content[position + 1000 :] in after
    assert place.stored() == by_id([*some(20), *some(1, first=30)])


def test_a_damaged_file_with_a_damaged_log_is_500_and_stays(editor: Editor, place: Place) -> None:
    fill(editor, 5)
    place.file().write_bytes(b"[{")
    place.log.write_bytes(place.log.read_bytes().replace(b"[2.5,4,3.25]", b"[2.6,4,3.25]"))
    editor.restart()
    assert isinstance(editor.ends(PutOne(some(1)[0]))[0], Unreadable)
    with pytest.raises(Unreadable, match="log is damaged"):
        editor.seen()
    assert place.file().read_bytes() == b"[{"
    assert rejected(place) == []


def test_another_log_with_the_same_inode_is_read_anew(editor: Editor, place: Place, tmp_path: Path) -> None:
    """A dataset that was deleted and copied back: file systems give inodes out again."""
    other = Place(tmp_path / "other")
    other.block.mkdir(parents=True)
    fill(editor, 3)
    copy = Editor(other)
    for number in range(9):
        copy.put(point(number, 1, 1, 1, description="longer" * 9))
    with place.log.open("r+b") as log:
        log.write(other.log.read_bytes())
    place.file().write_bytes(other.file().read_bytes())
    assert editor.put(some(1, first=20)[0]).version == 10
    assert check_log(place) == {"fibers": 10}


def test_a_log_from_a_newer_program_is_refused(editor: Editor, place: Place) -> None:
    fill(editor)
    before = place.log.read_bytes().replace(b'"format":2', b'"format":3')
    place.log.write_bytes(before)
    editor.restart()
    ended = editor.ends(PutOne(some(1, first=5)[0]))[0]
    assert isinstance(ended, Unreadable)
    assert "newer version" in str(ended)
    assert place.log.read_bytes() == before


def test_a_stored_file_nested_too_deep_to_be_written_is_refused(editor: Editor, place: Place) -> None:
    place.file().write_text('[{"id":"a","n":' + "[" * 300 + "]" * 300 + "}]")
    assert isinstance(editor.ends(PutOne(some(1)[0]))[0], Unreadable)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["directory", "fifo"])
def test_what_is_no_file_is_left_alone(editor: Editor, place: Place, make: Callable[[Path], None]) -> None:
    make(place.file())
    assert not isinstance(editor.ends(PutOne(some(1)[0]))[0], Outcome)
    assert not stat.S_ISREG(place.file().lstat().st_mode)


def test_a_file_keeps_owner_group_and_mode(editor: Editor, place: Place) -> None:
    fill(editor)
    os.chmod(place.file(), 0o640)
    owner = (os.getuid(), os.getgid())
    if os.getuid() == 0:
        owner = (12_345, 23_456)
        os.chown(place.file(), *owner)
    fill(editor, 6)
    status = place.file().stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (*owner, 0o640)


def test_a_file_keeps_its_access_control_list(editor: Editor, place: Place) -> None:
    fill(editor)
    # user::rw-, user:12345:r--, group::r--, mask::r--, other::---
    entries = ((1, 6, -1), (2, 4, 12_345), (4, 4, -1), (16, 4, -1), (32, 0, -1))
    acl = b"\x02\x00\x00\x00" + b"".join(
        tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + (id & 0xFFFFFFFF).to_bytes(4, "little")
        for tag, rights, id in entries
    )
    try:
        os.setxattr(place.file(), "system.posix_acl_access", acl)
    except OSError as error:
        pytest.skip(f"the file system has no access control lists: {error.strerror}")
    fill(editor, 6)
    assert os.getxattr(place.file(), "system.posix_acl_access") == acl


def test_new_files_follow_the_umask_and_the_directory(editor: Editor, place: Place) -> None:
    os.chmod(place.block, 0o2775)
    group = os.getgid()
    if os.getuid() == 0:
        group = 23_456
        os.chown(place.block, -1, group)
        os.chmod(place.block, 0o2775)
    before = os.umask(0o002)
    try:
        fill(editor)
    finally:
        os.umask(before)
    status = place.file().stat()
    assert (stat.S_IMODE(status.st_mode), status.st_gid) == (0o664, group)
    assert stat.S_IMODE(place.log.stat().st_mode) == 0o664


def test_a_link_inside_the_root_is_written_through(editor: Editor, place: Place) -> None:
    shared = place.root / "shared"
    shared.mkdir()
    (shared / "all.json").write_bytes(written(some(1)))
    place.file().symlink_to("../../../shared/all.json")
    editor.replace(some(3))
    assert place.file().is_symlink()
    assert (shared / "all.json").read_bytes() == written(some(3))
    other = place.block.parent / "b1,0,0"
    other.symlink_to("x0y0z0")
    location = editor.store.locate("brain", "b1,0,0", "z-0001")
    assert location == editor.store.locate("brain", "x0y0z0", "z-0001")


def test_a_link_to_a_file_of_another_name_is_not_overlooked(editor: Editor, place: Place) -> None:
    (place.block / "fibers.txt").write_bytes(written(some(1)))
    place.file().symlink_to("fibers.txt")
    with pytest.raises(Unreadable, match="does not end in .json"):
        editor.seen()


def test_a_lock_that_is_held_is_waited_for_and_then_told(editor: Editor, place: Place) -> None:
    fill(editor)
    directory = os.open(place.log.parent, os.O_RDONLY)
    try:
        with writing.exclusive_lock(directory, "lock", 1):
            editor.store.lock_timeout = 0.05
            ended = editor.ends(PutOne(some(1, first=5)[0]))[0]
        assert isinstance(ended, Busy)
        assert isinstance(editor.ends(PutOne(some(1, first=5)[0]))[0], Outcome)
    finally:
        os.close(directory)


def test_a_log_is_read_once(editor: Editor, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an edit nor a listing reads again what it has read."""
    fill(editor, 50)
    editor.version()
    begun = place.log.stat().st_size
    read = []

    def counted(descriptor: int, start: int) -> bytes:
        data = read_from(descriptor, start)
        read.append(len(data))
        return data

    monkeypatch.setattr("annotation_store.history.log.read_from", counted)
    for number in range(5):
        editor.put(point(number + 60, 1, 1, 1))
        editor.version()
    assert 0 < sum(read) <= place.log.stat().st_size - begun


def two_edits(editor: Editor) -> list[str]:
    """Two edits in one group; returns their operation ids, of which the first's line is the group's first."""
    ops = [secrets.token_hex(16), secrets.token_hex(16)]
    ends = editor.store.commit([order(editor, op, number) for number, op in enumerate(ops)])
    assert all(isinstance(end, list) for end in ends)
    return ops


def order(editor: Editor, op: str, number: int, *, repeated: bool = False) -> Order:
    location = editor.store.locate("brain", "x0y0z0", "fibers")
    part = Part("fibers", "patch", change=PutOne(some(1, first=10 + number)[0]))
    return Order(location.directory, (part,), "somebody", "page", op, arrived=number + 1, repeated=repeated)


def zero_line(path: Path, from_end: int) -> None:
    """What power loss leaves of a line whose sectors did not come to the disk."""
    lines = path.read_bytes().splitlines(keepends=True)
    lines[-from_end] = b"\0" * (len(lines[-from_end]) - 1) + b"\n"
    path.write_bytes(b"".join(lines))


@pytest.mark.parametrize("segment", ["the same", "a new one"])
def test_a_group_that_came_to_the_disk_in_part_never_happened(editor: Editor, place: Place, segment: str) -> None:
    fill(editor)
    if segment == "a new one":
        history = os.open(place.history, os.O_RDONLY)
        with contextlib.closing(BlockLog(history, LogState())) as log:
            log.refresh(repair=True)
            log.begin_segment()
        os.close(history)
    before = place.file().read_bytes(), place.log.read_bytes()
    ops = two_edits(editor)
    place.file().write_bytes(before[0])
    zero_line(place.log, 2)
    editor.restart()
    again = editor.store.commit([order(editor, ops[1], 1, repeated=True)])
    assert isinstance(again[0], list)
    assert again[0][0].edits == 1
    assert place.stored() == by_id([*some(3), *some(1, first=11)])
    assert place.log.read_bytes().startswith(before[1])
    check_log(place)


def test_a_damaged_group_whose_files_were_written_stays(editor: Editor, place: Place) -> None:
    """It was acknowledged: then its line was damaged later, and that has to be told."""
    fill(editor)
    two_edits(editor)
    zero_line(place.log, 2)
    log, stored = place.log.read_bytes(), place.stored()
    editor.restart()
    assert editor.put(some(1, first=10)[0]).edits == 0
    editor.put(some(1, first=12)[0])
    assert place.log.read_bytes().startswith(log)
    assert place.stored() == stored | by_id(some(1, first=12))


def test_a_whole_group_whose_file_was_not_renamed_is_done(editor: Editor, place: Place) -> None:
    fill(editor)
    before = place.file().read_bytes()
    two_edits(editor)
    after = place.stored()
    place.file().write_bytes(before)
    editor.restart()
    assert editor.put(some(1)[0]).edits == 0
    assert place.stored() == after
    check_log(place)


@pytest.mark.parametrize("leaves", [1, 2])
def test_what_another_tool_writes_while_the_log_is_put_on_disk_is_not_overwritten(
    editor: Editor, place: Place, monkeypatch: pytest.MonkeyPatch, leaves: int
) -> None:
    fill(editor)
    editor.put(some(1)[0], leaf="centroids")
    theirs = [*some(3), *some(1, first=20)]
    append = BlockLog.append
    written_by_them: list[object] = []

    def slow(log: BlockLog, *given: Any) -> None:
        append(log, *given)
        if not written_by_them:
            written_by_them.append(theirs)
            place.file().write_text(json.dumps(theirs))

    location = editor.store.locate("brain", "x0y0z0", "fibers")
    mine = some(1, first=30)[0]
    parts = tuple(Part(leaf, "patch", change=PutOne(mine)) for leaf in ("fibers", "centroids")[:leaves])
    monkeypatch.setattr(BlockLog, "append", slow)
    (ended,) = editor.store.commit([Order(location.directory, parts, "somebody", "page", "0123", arrived=1)])
    assert [outcome.edits for outcome in ended] == [1] * leaves if isinstance(ended, list) else ended
    assert place.stored() == by_id([*theirs, mine])
    check_log(place)
    lines = [json.loads(line) for line in place.log.read_bytes().splitlines()[1:]]
    assert [line["operation"] for line in lines if line["leaf"] == "fibers"][-2:] == ["external", "add"]
    assert sum(line.get("op") == "0123" for line in lines) == leaves
