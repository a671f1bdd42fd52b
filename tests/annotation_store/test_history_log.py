"""The log as the holder of a block's lock uses it: commits, other processes, crashes, requests sent again."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path

import orjson
import pytest

from annotation_store.history.instants import instant_of
from annotation_store.history.log import BlockLog
from annotation_store.history.records import FileChange
from annotation_store.history.state import LogState
from annotation_store.model import serialize
from precomputed_server.errors import Unreadable
from tests.annotation_store.history_writer import Writer, sha, some
from tests.data import point


def opened(writer: Writer, *, repair: bool = False) -> BlockLog:
    """The log as a process sees it that never saw it before."""
    log = BlockLog(writer.history, LogState(), writer.segment_bytes, writer.clock)
    log.refresh(repair=repair)
    return log


def fill(writer: Writer, count: int = 5, first: int = 0, leaf: str = "fibers") -> None:
    """One version for each of `count` points."""
    for item in some(count, first):
        writer.edit(("put", item), leaf=leaf)


def lines(writer: Writer) -> list[dict[str, object]]:
    """Every line of the log."""
    return [json.loads(line) for path in writer.segments() for line in path.read_bytes().splitlines()]


def test_every_line_is_chained_by_a_digest_of_its_own(writer: Writer) -> None:
    writer.segment_bytes = 500
    fill(writer, 30)
    previous = ""
    for path in writer.segments():
        for line in path.read_bytes().splitlines():
            body, _, seal = line.rpartition(b',"digest":')
            assert body.endswith(f',"previous":"{previous}"'.encode())
            previous = sha(body)[:32]  # type: ignore[index]  # bytes have one
            assert seal == f'"{previous}"}}'.encode()
    assert len(writer.segments()) > 2


def test_the_newest_version_is_replayed_from_the_log(writer: Writer) -> None:
    fill(writer)
    writer.edit(("put", {**some(1)[0], "reviewed": True}), ("delete", some(2)[1]["id"]))
    for log in (opened(writer), BlockLog(writer.history, writer.state)):
        log.refresh(repair=False)
        tail = log.tail("fibers")
        assert tail is not None
        assert (tail.version, tail.after) == (6, sha(writer.files["fibers"]))
        assert serialize(log.newest("fibers")) == writer.files["fibers"]
        log.close()


def test_what_another_process_wrote_is_read_on(writer: Writer) -> None:
    """New groups, new segments, and a log that was deleted and begun again."""
    fill(writer, 3)
    other = opened(writer)
    for number in range(3, 30):
        writer.segment_bytes = 2000
        fill(writer, 1, number)
        other.refresh(repair=False)
        assert other.tail("fibers") == writer.state.leaves["fibers"]
    for path in writer.segments():
        path.unlink()
    other.close()
    other.refresh(repair=False)
    assert other.tail("fibers") is None


def test_another_log_of_the_same_length_and_inode_is_read_anew(writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Writer(tmp_path / "other")
    fill(writer, 5)
    other.now += 1
    fill(other, 5)
    copied = other.segments()[0].read_bytes()
    assert len(copied) == writer.segments()[0].stat().st_size
    with writer.segments()[0].open("r+b") as log:
        log.write(copied)
    with writer.log() as log:
        assert log.tail("fibers") == other.state.leaves["fibers"]


def test_a_long_log_is_read_once(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(writer, 50)
    read: list[int] = []
    pread = os.pread

    def counted(descriptor: int, size: int, offset: int) -> bytes:
        read.append(size)
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", counted)
    fill(writer, 5, 50)
    assert sum(read) < 5000


@pytest.mark.parametrize("cut", [1, 2, 40, 200])
def test_a_torn_group_never_happened(writer: Writer, cut: int) -> None:
    fill(writer, 4)
    path = writer.segments()[0]
    whole = path.read_bytes()
    with writer.log() as log:
        writer.append(log, [*writer.records(log, [("put", point(9, 1, 1, 1)), ("put", point(8, 1, 1, 1))])])
    torn = path.read_bytes()[:-cut]
    path.write_bytes(torn)
    reader = opened(writer)
    assert reader.tail("fibers").version == 4  # type: ignore[union-attr]
    reader.refresh(repair=False)
    assert path.read_bytes() == torn
    with opened(writer, repair=True) as log:
        assert path.read_bytes() == whole
        assert log.tail("fibers").version == 4  # type: ignore[union-attr]


@pytest.mark.parametrize("at", [0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize("damage", [b"\x00", b"\n", b"\xff{", b"5\n7\n"])
def test_damage_in_a_log_costs_no_record_after_it(writer: Writer, at: float, damage: bytes) -> None:
    fill(writer, 20)
    path = writer.segments()[0]
    content = path.read_bytes()
    position = int(at * len(content))
    path.write_bytes(content[:position] + damage + content[position + len(damage) :])
    with opened(writer, repair=True) as log:
        assert log.tail("fibers").version == 20  # type: ignore[union-attr]
        assert log.done(f"{20:016x}") is not None
        with pytest.raises(Unreadable, match="so is its log"):
            log.newest("fibers")
    assert path.read_bytes()[position + 2000 :] == content[position + 2000 :]


def test_a_damaged_header_is_made_good_by_the_segment_before(writer: Writer) -> None:
    writer.segment_bytes = 1000
    fill(writer, 3, leaf="centroids")
    fill(writer, 30)
    path = writer.segments()[-1]
    content = path.read_bytes()
    assert b'{"leaf":"centroids"' not in content
    path.write_bytes(content[:100] + b"#" + content[101:])
    with opened(writer) as log:
        assert {leaf: tail.version for leaf, tail in log.leaves().items()} == writer.versions


def test_an_append_that_fails_leaves_nothing(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    fill(writer, 3)
    content = writer.segments()[0].read_bytes()
    with monkeypatch.context() as patch, writer.log() as log:
        patch.setattr(os, "fdatasync", full)
        with pytest.raises(OSError, match="No space"):
            log.append(writer.records(log, [("put", point(9, 1, 1, 1))]), {"fibers": FileChange("b", "a")}, {})
    assert writer.segments()[0].read_bytes() == content
    with writer.log() as log:
        assert log.tail("fibers").version == 3  # type: ignore[union-attr]


def test_an_append_after_one_that_failed_replaces_nothing(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even when what the first one left could not be removed."""

    def broken(*_: object) -> None:
        raise OSError(5, "Input/output error")

    fill(writer, 3)
    with writer.log() as log:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", broken)
            patch.setattr(os, "ftruncate", broken)
            with pytest.raises(OSError, match="Input/output"):
                writer.append(log, writer.records(log, [("put", point(9, 1, 1, 1))]))
        writer.append(log, writer.records(log, [("put", point(8, 1, 1, 1))]))
    assert [line["operation"] for line in lines(writer)] == ["segment", *["add"] * 5]


def test_the_newest_group_can_be_taken_back(writer: Writer) -> None:
    fill(writer, 3)
    content = writer.segments()[0].read_bytes()
    before = writer.files["fibers"]
    with writer.log() as log:
        writer.append(log, writer.records(log, [("put", point(9, 1, 1, 1))]))
        log.undo()
        assert log.tail("fibers").after == sha(before)  # type: ignore[union-attr]
        assert log.done(f"{4:016x}") is None
    assert writer.segments()[0].read_bytes() == content


def test_a_rename_that_a_crash_prevented_is_redone(writer: Writer) -> None:
    """Also when edits of another leaf have begun a new segment since."""
    fill(writer, 3)
    before = dict(writer.items["fibers"])
    with writer.log() as log:
        first = writer.records(log, [("put", {**some(1)[0], "point": [7.5, 7, 7]})])
        second = writer.records(log, [("delete", some(2)[1]["id"])], session="other")
        writer.append(log, [*first, *second])
        assert serialize(log.redo("fibers", before)) == writer.files["fibers"]
    writer.segment_bytes = 1000
    fill(writer, 20, leaf="centroids")
    assert len(writer.segments()) > 1
    with opened(writer) as log:
        tail = log.tail("fibers")
        assert tail is not None
        assert (tail.before, tail.external) == (sha(serialize(before)), False)
        assert serialize(log.redo("fibers", before)) == writer.files["fibers"]
        assert serialize(log.redo("fibers", {})) == writer.files["fibers"], "made from something else"


def test_each_segment_can_be_replayed_by_itself(writer: Writer) -> None:
    writer.segment_bytes = 3000
    for number in range(60):
        writer.edit(("put", point(number % 7, number, 1, 1)), leaf=f"z-{number % 2:04}")
    for path in writer.segments()[:-1]:
        path.unlink()
    with opened(writer) as log:
        for leaf, data in writer.files.items():
            assert serialize(log.newest(leaf)) == data


def test_a_new_segment_waits_until_contents_are_a_small_part(writer: Writer) -> None:
    """Else a leaf of 12,500 fibres would be written anew for every few edits."""
    writer.segment_bytes = 500
    writer.edit(*(("put", item) for item in some(200)))
    for number in range(40):
        writer.edit(("put", point(number, 9, number, 9)))
    contents = [line for line in lines(writer) if line["operation"] == "content"]
    assert len(contents) == len(writer.segments()) - 1 == 1


def test_a_new_segment_never_takes_the_place_of_another(writer: Writer) -> None:
    fill(writer, 1)
    with writer.log() as log:
        (writer.directory / "log-000002.jsonl").write_bytes(b"somebody else's")
        with pytest.raises(FileExistsError):
            log.begin_segment()


def test_a_change_is_written_as_a_delta_and_every_hundredth_whole(writer: Writer) -> None:
    writer.edit(("put", point(1, 0, 0, 0, description="a long text that is never written again")))
    for number in range(1, 250):
        writer.edit(("put", point(1, number, 0, 0, description="a long text that is never written again")))
    edits = [line for line in lines(writer) if line["operation"] != "segment"]
    assert [number for number, line in enumerate(edits) if "after" in line] == [0, 100, 200]
    assert edits[1]["change"] == {"set": {"point": [1, 0, 0]}}
    with opened(writer) as log:
        assert serialize(log.newest("fibers")) == writer.files["fibers"]


def test_a_change_of_everything_is_written_whole(writer: Writer) -> None:
    writer.edit(("put", {"id": "a", "type": "point", "point": [1, 2, 3]}))
    writer.edit(("put", {"id": "a", "type": "line", "pointA": [1, 2, 3], "pointB": [4, 5, 6]}))
    assert lines(writer)[-1]["after"] == writer.items["fibers"]["a"]


def test_what_another_tool_wrote_is_kept_as_text(writer: Writer) -> None:
    fill(writer, 2)
    data = json.dumps(some(3), indent=2).encode()
    writer.external(data)
    with opened(writer) as log:
        tail = log.tail("fibers")
        assert tail is not None
        assert tail.external
        assert list(log.newest("fibers").values()) == some(3)
    writer.external(None)
    with opened(writer) as log:
        assert log.newest("fibers") == {}
        assert log.tail("fibers").after is None  # type: ignore[union-attr]
    fill(writer, 1)
    with opened(writer) as log:
        assert serialize(log.newest("fibers")) == writer.files["fibers"]


def test_one_group_may_hold_requests_of_several_leaves(writer: Writer) -> None:
    with writer.log() as log:
        made = writer.records(log, [("put", point(1, 1, 1, 1))], "fibers")
        made += writer.records(log, [("put", point(2, 1, 1, 1))], "z-0001", "other")
        made += writer.records(log, [("put", point(3, 1, 1, 1))], "fibers", "other")
        writer.append(log, made)
    with opened(writer) as log:
        assert {leaf: tail.version for leaf, tail in log.leaves().items()} == {"fibers": 2, "z-0001": 1}
        for leaf in ("fibers", "z-0001"):
            assert serialize(log.newest(leaf)) == writer.files[leaf]


def test_a_request_that_was_carried_out_is_known_again(writer: Writer) -> None:
    """By the process that did it and by the one that takes its place, new segments or not."""
    writer.edit(("put", point(1, 1, 1, 1)), key="first", request="digest")
    fill(writer, 3, 3)
    writer.note("nothing")
    parked = writer.park(some(1, 3)[0]["id"])
    expected = (("fibers", 1, "add", point(1, 1, 1, 1)["id"]),)

    def check(log: BlockLog) -> None:
        done = log.done_key("first")
        assert done is not None
        assert (done.request, done.edits, done.parked) == ("digest", expected, None)
        assert log.done(f"{1:016x}") == done
        assert log.done_key("nothing").edits == ()  # type: ignore[union-attr]
        assert log.done(parked).parked == parked  # type: ignore[union-attr]
        assert log.done("never") is None
        assert log.done_key("never") is None

    with writer.log() as log:
        check(log)
    with opened(writer) as log:
        check(log)
    writer.segment_bytes = 700
    fill(writer, 30, 10)
    assert len(writer.segments()) == 3
    with opened(writer) as log:
        check(log)


def test_an_idempotency_key_is_forgotten_after_a_day(writer: Writer) -> None:
    writer.edit(("put", point(1, 1, 1, 1)), key="k")
    writer.now += 86_300
    with writer.log() as log:
        assert log.done_key("k") is not None
    writer.now += 200
    with writer.log() as log:
        assert log.done_key("k") is None


def test_time_never_goes_back(writer: Writer) -> None:
    fill(writer, 1)
    writer.now += 5
    fill(writer, 1, 1)
    written = writer.told()
    writer.now -= 3600
    with opened(writer) as log:
        assert log.time() == written
        assert log.time(writer.now + 7200) == instant_of(writer.now + 7200)
        assert log.time() == instant_of(writer.now + 7200)


def test_parked_removals_stay_open_over_segments_until_resolved(writer: Writer) -> None:
    writer.segment_bytes = 1500
    fill(writer, 4)
    ids = [item["id"] for item in some(4)]
    kept = writer.park(*ids[:2], differing=[point(9, 9, 9, 9)])
    gone = writer.park(ids[2])
    writer.resolve(gone, "discarded")
    fill(writer, 20, 10)
    for path in writer.segments()[:-1]:
        path.unlink()
    with opened(writer) as log:
        (record,) = log.open_parked().values()
        assert (record.parked, record.remove, record.differing) == (kept, tuple(ids[:2]), (point(9, 9, 9, 9),))
    writer.state = LogState()
    writer.resolve(kept, "applied")
    with opened(writer) as log:
        assert log.open_parked() == {}


def test_a_log_from_a_newer_program_is_refused(writer: Writer) -> None:
    fill(writer, 2)
    path = writer.segments()[0]
    path.write_bytes(path.read_bytes().replace(b'"format":2', b'"format":3'))
    with pytest.raises(Unreadable, match="newer version"):
        opened(writer)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["directory", "fifo"])
def test_what_is_no_file_is_no_log(writer: Writer, make: object) -> None:
    make(writer.directory / "log-000001.jsonl")  # type: ignore[operator]
    with pytest.raises((Unreadable, OSError)):
        opened(writer)


def old_log(count: int) -> bytes:
    """A log of format 1: another tool's version, then `count` additions and a deletion."""
    items = {item["id"]: item for item in some(2)}
    written, previous = b"", ""
    file = sha(json.dumps(some(2)).encode())
    for number in range(count + 2):
        members: dict[str, object] = {"format": 1, "leaf": "fibers", "version": number + 1}
        members |= {"time": f"2026-09-21T12:00:{number:02}.000Z", "author": "a", "session": "s"}
        before = file
        if number == 0:
            members |= {"operation": "external", "items": some(2)}
        elif number <= count:
            item = some(1, number + 5)[0]
            items[item["id"]] = item
            members |= {"operation": "add", "id": item["id"], "after": item}
            file = sha(serialize(items))
        else:
            del items[some(1)[0]["id"]]
            members |= {"operation": "delete", "id": some(1)[0]["id"]}
            file = sha(serialize(items))
        members |= {"previous": previous, "file": {"before": before if number else None, "after": file}}
        line = orjson.dumps(members)
        previous = sha(line) or ""
        written += line + b"\n"
    return written


def test_a_log_of_format_1_is_gone_on_with_in_a_new_segment(writer: Writer) -> None:
    (writer.directory / "log.jsonl").write_bytes(old_log(3) + b'{"format":1,"torn')
    with writer.log() as log:
        assert log.tail("fibers").version == 5  # type: ignore[union-attr]
        writer.stored["fibers"] = writer.items["fibers"] = log.newest("fibers")
        writer.files["fibers"], writer.versions["fibers"] = serialize(writer.items["fibers"]), 5
    assert list(writer.items["fibers"].values()) == [some(2)[1], *some(3, 6)]
    fill(writer, 2, 20)
    assert (writer.directory / "log.jsonl").read_bytes() == old_log(3)
    assert [line["operation"] for line in lines(writer)] == ["segment", "content", "add", "add"]
    (writer.directory / "log.jsonl").unlink()
    with opened(writer) as log:
        assert serialize(log.newest("fibers")) == writer.files["fibers"]


def test_random_histories_are_replayed_to_the_byte(writer: Writer) -> None:
    random.seed(5)
    writer.segment_bytes = 4000
    for _ in range(300):
        leaf = random.choice(["fibers", "centroids", "z-0001"])
        item = point(random.randrange(6), random.random(), random.randrange(3), 1, note=random.choice([1, 1.0, True]))
        if item["id"] in writer.items.get(leaf, {}) and random.random() < 0.3:
            writer.edit(("delete", item["id"]), leaf=leaf)
        elif random.random() < 0.03:
            writer.external(json.dumps(some(4)).encode(), leaf)
        else:
            writer.edit(("put", item), leaf=leaf)
    with opened(writer) as log:
        for leaf, data in writer.files.items():
            assert log.tail(leaf).after == sha(data)  # type: ignore[union-attr]
            assert list(log.newest(leaf).values()) == orjson.loads(data or b"[]")
    assert len(writer.segments()) > 5
