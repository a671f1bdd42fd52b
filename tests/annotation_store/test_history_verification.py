"""Damage in a log is found: every flipped bit, every missing line, every file that is not what the log says."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from annotation_store.history import verification
from annotation_store.history.compaction import compact
from annotation_store.history.lines import Line, opened, sealed
from annotation_store.history.verification import Finding, verify
from annotation_store.model import serialize
from tests.annotation_store.history_writer import Writer, some
from tests.annotation_store.test_history_compaction import DAY_S, Lock, scribble
from tests.annotation_store.test_history_log import old_log

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


@pytest.fixture
def segment_bytes() -> int:
    """Small segments."""
    return 20_000


@pytest.fixture
def writer(writer: Writer) -> Writer:
    """A log of several segments."""
    scribble(writer, 200)
    return writer


def findings(writer: Writer) -> list[Finding]:
    """What the check finds with the files as they should be."""
    return verify(writer.history, writer.files.get)


def compacted(writer: Writer, days: float, keep_days: int = 90) -> None:
    """Thin the log out so many days after the newest edit."""
    now = datetime.fromtimestamp(writer.now, UTC) + timedelta(days=days)
    compact(writer.history, Lock(), keep_days=keep_days, now=now)


def test_a_sound_log_has_no_findings(writer: Writer) -> None:
    assert len(writer.segments()) > 3
    assert findings(writer) == []


@pytest.mark.parametrize("seed", range(4))
def test_a_compacted_log_has_no_findings_and_goes_on(tmp_path: Path, seed: int) -> None:
    writer = Writer(tmp_path, 20_000)
    writer.edit(("put", some(1)[0]), leaf="centroids")
    for part in range(4):
        scribble(writer, 100, seed + part)
        writer.now += 50 * DAY_S
        compacted(writer, 0)
        assert findings(writer) == []
    assert any('"dropped":true' in path.read_text() for path in writer.segments())


def test_a_log_that_begins_with_format_1_has_no_findings(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    (tmp_path / "log.jsonl").write_bytes(old_log(3))
    with writer.log() as log:
        writer.stored["fibers"] = writer.items["fibers"] = log.newest("fibers")
        writer.files["fibers"], writer.versions["fibers"] = serialize(writer.items["fibers"]), 5
    writer.edit(("put", some(1, 30)[0]))
    assert findings(writer) == []
    damaged = bytearray(old_log(3))
    damaged[60] ^= 1
    (tmp_path / "log.jsonl").write_bytes(damaged)
    assert findings(writer) != []


@pytest.mark.parametrize("thinned", [False, True])
def test_every_flipped_bit_is_found(writer: Writer, thinned: bool) -> None:
    if thinned:
        compacted(writer, 2)
    chance = random.Random(8)
    for path in writer.segments():
        content = path.read_bytes()
        places = {0, len(content) - 1, len(content) - 2, len(content) - 40}
        places |= {chance.randrange(len(content)) for _ in range(12)}
        for place in places:
            damaged = bytearray(content)
            damaged[place] ^= 1 << chance.randrange(8)
            path.write_bytes(damaged)
            assert findings(writer) != [], (path.name, place)
        path.write_bytes(content)
    assert findings(writer) == []


def reseal(path: Path, mend: Callable[[dict[str, object]], None]) -> None:
    """Write a segment anew with every digest right, after `mend` had every line."""
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    digest = lines[0]["previous"]
    written = b""
    for members in lines:
        del members["previous"], members["digest"]
        mend(members)
        line, digest = sealed(members, digest)
        written += line
    path.write_bytes(written)


def lies(members: dict[str, object]) -> None:
    """An annotation that is not what it was."""
    if "after" in members and isinstance(members["after"], dict):
        members["after"]["point"] = [1, 2, 3]


def stands(members: dict[str, object]) -> None:
    """A version that does not grow."""
    if members["operation"] == "add":
        members["version"] = 1


def forgets(members: dict[str, object]) -> None:
    """A header that does not know its leaves."""
    if members["operation"] == "segment":
        members["leaves"] = {}


def misremembers(members: dict[str, object]) -> None:
    """A content line that is another one's."""
    if members["operation"] == "content":
        members["items"] = some(1)


def omits(members: dict[str, object]) -> None:
    """A group that does not say what it changes."""
    if "files" in members:
        members["files"] = {}


def misbegins(members: dict[str, object]) -> None:
    """A group that begins with another file than there was."""
    if isinstance(members.get("files"), dict):
        members["files"] = {leaf: {**file, "before": "0" * 64} for leaf, file in members["files"].items()}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("mend", "sentence"),
    [
        (lies, "is not what"),
        (stands, "does not grow"),
        (forgets, "does not know"),
        (misremembers, "the content of"),
        (omits, "does not say what becomes"),
        (misbegins, "begins as no version"),
    ],
)
def test_lines_whose_digests_are_right_are_checked_too(
    writer: Writer, mend: Callable[[dict[str, object]], None], sentence: str
) -> None:
    reseal(writer.segments()[-1], mend)
    found = findings(writer)
    assert any(sentence in finding.sentence for finding in found), found


def test_what_is_missing_is_found(writer: Writer) -> None:
    path = writer.segments()[1]
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:5], *lines[6:]]))
    assert [(finding.segment, finding.line) for finding in findings(writer)][0] == (2, 6)
    path.write_bytes(b"".join(lines[:-1]))
    assert findings(writer) != []
    path.unlink()
    assert any("segments before this one are missing" in finding.sentence for finding in findings(writer))


def test_the_oldest_segments_may_be_missing(tmp_path: Path) -> None:
    """Also when what another tool wrote in them is what an edit of the next one was made from."""
    writer = Writer(tmp_path)
    writer.external(b'[ {"id": "a"} ]')
    with writer.log() as log:
        log.begin_segment()
    writer.edit(("put", some(1)[0]))
    writer.segments()[0].unlink()
    assert findings(writer) == []


def test_a_file_that_is_not_the_newest_version_is_found(writer: Writer) -> None:
    files = dict(writer.files)
    files["fibers"] = (files["fibers"] or b"") + b" "
    (found,) = verify(writer.history, files.get)
    assert (found.leaf, found.segment, found.line) == ("fibers", None, None)
    assert "fibers" in found.sentence


def test_a_zero_byte_file_is_an_empty_list(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    writer.edit(("put", some(1)[0]))
    writer.edit(("delete", some(1)[0]["id"]))
    writer.files["fibers"] = b""
    assert findings(writer) == []


def test_a_torn_end_is_told(writer: Writer) -> None:
    with writer.segments()[-1].open("ab") as log:
        log.write(b'{"leaf":"fibers"')
    assert "has no end" in findings(writer)[0].sentence


class Watching:
    """A lock before which something happens, and how many lines are read while it is held."""

    def __init__(self, happens: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
        self.happens = happens
        self.held = False
        self.lines = 0
        monkeypatch.setattr(verification, "opened", self.opened)

    def opened(self, raw: bytes) -> Line | None:
        self.lines += self.held
        return opened(raw)

    @contextmanager
    def lock(self) -> Iterator[None]:
        self.happens()
        self.held = True
        yield
        self.held = False


def grows(writer: Writer) -> None:
    scribble(writer, 20, seed=5)


def grows_by_a_segment(writer: Writer) -> None:
    count = len(writer.segments())
    while len(writer.segments()) == count:
        scribble(writer, 10, seed=len(writer.past))


def takes_the_newest_group_back(writer: Writer) -> None:
    size = writer.segments()[-1].stat().st_size
    before = dict(writer.files)
    with writer.log() as log:
        log.take_back()
    assert writer.segments()[-1].stat().st_size < size
    for leaf in writer.files:
        with writer.log() as log:
            writer.files[leaf] = log.newest_data(leaf)
    assert writer.files != before


@pytest.mark.parametrize("happens", [lambda _: None, grows, grows_by_a_segment, takes_the_newest_group_back])
def test_the_lock_is_held_for_what_came_meanwhile_only(
    writer: Writer, monkeypatch: pytest.MonkeyPatch, happens: Callable[[Writer], None]
) -> None:
    writer.edit(("put", some(1, first=900)[0]))
    lines = sum(path.read_bytes().count(b"\n") for path in writer.segments())
    watching = Watching(lambda: happens(writer), monkeypatch)
    assert verify(writer.history, lambda leaf: writer.files.get(leaf), watching.lock) == []
    grown = sum(path.read_bytes().count(b"\n") for path in writer.segments()) - lines
    assert watching.lines <= max(0, grown) + 8


def test_what_is_compacted_while_it_is_read_has_no_findings(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    watching = Watching(lambda: compacted(writer, 2), monkeypatch)
    assert verify(writer.history, writer.files.get, watching.lock) == []
    assert watching.lines > 0


def test_damage_is_found_once_wherever_it_lies(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in writer.segments()[-2:]:
        data = path.read_bytes()
        path.write_bytes(b"\0" * 10 + data[10:])
    found = verify(writer.history, writer.files.get, Watching(lambda: None, monkeypatch).lock)
    assert len(found) == len(set(found))
    assert {each.segment for each in found} == {int(path.stem[4:]) for path in writer.segments()[-2:]}


def test_another_file_in_the_newest_segments_place_is_read_as_a_whole(
    writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = writer.segments()[-1]

    def replace() -> None:
        data = newest.read_bytes()
        damaged = newest.with_suffix(".new")
        damaged.write_bytes(data.replace(b'"id":"', b'"id":"x', 1))
        damaged.rename(newest)

    (found, *_) = verify(writer.history, writer.files.get, Watching(replace, monkeypatch).lock)
    assert found.sentence == "this line is damaged."
