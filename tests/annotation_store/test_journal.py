"""What the pages of a host hold, as all of its processes know it."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from annotation_store.merging.shadows import Shadow
from annotation_store.pages.hourly import Appender, file_name
from annotation_store.pages.journal import LONGEST_LINE, Journal
from annotation_store.pages.memory import MOST_SHADOWS, PageMemory
from annotation_store.pages.origins import Holding
from tests.conftest import REPOSITORY
from tests.data import point

FIBERS = "brain/annotations/x0y0z0/fibers.json"
SLICE = "brain/annotations/x0y0z0/z-0020.json"
START = datetime(2026, 3, 1, 10, 20, tzinfo=UTC).timestamp()
HOUR = 3600


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


Open = Callable[[], Journal]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "state" / "pages"


@pytest.fixture
def open_journal(directory: Path, clock: Clock) -> Iterator[Open]:
    """Each call is what another process would open."""
    opened = []

    def opening() -> Journal:
        opened.append(Journal(directory, clock))
        return opened[-1]

    yield opening
    for journal in opened:
        journal.close()


@pytest.fixture
def journal(open_journal: Open) -> Journal:
    return open_journal()


def etags(memory: PageMemory) -> list[str | None]:
    return [shadow.etag for shadow in memory.shadows]


def saved(journal: Journal, etag: str, replaces: str | None, page: str = "alice", **members: Any) -> str:
    """A save of the fibres; returns the number of the shadow that it leaves."""
    number = members.pop("number", f"op-{etag}")
    held = {name: members.pop(name) for name in ("missing", "differing", "origin", "changes") if name in members}
    given = {"outcome": "saved", "version": 2, "arrived": 1, **members}
    holding = Holding(None if "origin" in held else etag, **held)
    journal.note_save(page, FIBERS, replaces=replaces, number=number, held=holding, **given)
    return str(number)


def test_what_a_page_was_answered_is_what_it_holds(journal: Journal, clock: Clock) -> None:
    journal.note_read("alice", FIBERS, "v1")
    journal.note_read("bob", FIBERS, None)
    found = journal.page("alice", FIBERS)
    assert found == PageMemory((Shadow(found.shadows[0].number, START, "answered", "v1"),), None, START, False)
    assert etags(journal.page("bob", FIBERS)) == [None]
    assert journal.page("carol", FIBERS) == PageMemory()
    assert journal.page("alice", SLICE) == PageMemory()
    clock.now += 20
    journal.note_read("alice", FIBERS, "v2")
    found = journal.page("alice", FIBERS)
    assert (etags(found), found.first_read) == (["v2", "v1"], START)


def test_every_process_knows_it_at_once(open_journal: Open, clock: Clock) -> None:
    first, second = open_journal(), open_journal()
    for number in range(5):
        clock.now += 20
        (first, second)[number % 2].note_read("alice", FIBERS, f"v{number}")
        assert first.page("alice", FIBERS) == second.page("alice", FIBERS) == open_journal().page("alice", FIBERS)
        assert etags(first.page("alice", FIBERS)) == [f"v{older}" for older in range(number, -1, -1)]


def test_a_save_takes_the_place_of_what_it_was_made_from(open_journal: Open, clock: Clock) -> None:
    journal = open_journal()
    journal.note_read("alice", FIBERS, "v1")
    read = journal.page("alice", FIBERS).shadows[0]
    item = point(1, 2, 3, 4)
    clock.now += 1
    saved(journal, "v2", read.number, missing=("b",), differing=(item,), arrived=77)
    for each in (journal, open_journal()):
        found = each.page("alice", FIBERS)
        assert found.has_saved
        assert found.shadows == (
            Shadow("op-v2", clock.now, "saved", "v2", ("b",), (item,), arrived=77),
            Shadow(read.number, START, "answered", "v1", replaced_at=77),
        )
    clock.now += 119
    assert etags(journal.page("alice", FIBERS)) == ["v2", "v1"]
    clock.now += 2
    assert etags(journal.page("alice", FIBERS)) == ["v2"]


def test_each_of_two_pages_of_a_key_that_read_the_same_still_holds_it(journal: Journal) -> None:
    journal.note_read("proxy", FIBERS, "v1")
    journal.note_read("proxy", FIBERS, "v1")
    (read,) = journal.page("proxy", FIBERS).shadows
    assert read.holders == 2
    saved(journal, "v2", read.number, "proxy")
    assert [(each.etag, each.holders, each.replaced_at) for each in journal.page("proxy", FIBERS).shadows] == [
        ("v2", 1, None),
        ("v1", 1, None),
    ]
    saved(journal, "v3", read.number, "proxy", arrived=5)
    assert [(each.etag, each.replaced_at) for each in journal.page("proxy", FIBERS).shadows] == [
        ("v3", None),
        ("v2", None),
        ("v1", 5),
    ]


def test_what_many_pages_read_within_a_moment_is_noted_a_few_times(journal: Journal, directory: Path) -> None:
    for _ in range(100):
        journal.note_read("proxy", FIBERS, "v1")
    (file,) = directory.iterdir()
    assert file.read_bytes().count(b"\n") == 4
    (read,) = journal.page("proxy", FIBERS).shadows
    assert read.holders > 1000
    saved(journal, "v2", read.number, "proxy")
    assert etags(journal.page("proxy", FIBERS)) == ["v2", "v1"]
    assert journal.page("proxy", FIBERS).shadows[1].replaced_at is None


def test_after_a_moment_or_in_another_state_a_reading_is_noted_again(
    journal: Journal, clock: Clock, directory: Path
) -> None:
    for _ in range(10):
        journal.note_read("alice", FIBERS, "v1")
    journal.note_read("alice", FIBERS, "v1", state=2)
    clock.now += 11
    journal.note_read("alice", FIBERS, "v1")
    (file,) = directory.iterdir()
    assert file.read_bytes().count(b"\n") == 6
    assert journal.page("alice", FIBERS).shadows[0].time == clock.now


def test_what_a_page_reads_again_after_its_save_is_one_shadow(journal: Journal, clock: Clock) -> None:
    journal.note_read("alice", FIBERS, "v1")
    number = saved(journal, "v2", journal.page("alice", FIBERS).shadows[0].number)
    clock.now += 20
    journal.note_read("alice", FIBERS, "v2")
    newest = journal.page("alice", FIBERS).shadows[0]
    assert (newest.etag, newest.source, newest.holders, newest.time) == ("v2", "answered", 2, clock.now)
    # It is still known by the number that it had before.
    saved(journal, "v3", number)
    assert [(each.etag, each.holders) for each in journal.page("alice", FIBERS).shadows][:2] == [("v3", 1), ("v2", 1)]


def test_a_save_that_is_noted_twice_is_one(journal: Journal) -> None:
    for _ in range(3):
        saved(journal, "v2", "unknown")
    assert [(each.number, each.holders) for each in journal.page("alice", FIBERS).shadows] == [("op-v2", 1)]
    saved(journal, "v3", "op-v2")
    assert etags(journal.page("alice", FIBERS)) == ["v3", "v2"]


def test_an_earlier_save_that_is_committed_later_is_not_what_the_page_holds(journal: Journal) -> None:
    journal.note_read("alice", FIBERS, "v1")
    read = journal.page("alice", FIBERS).shadows[0].number
    saved(journal, "v2", read, arrived=20)
    saved(journal, "v3", read, arrived=10)
    assert [(each.etag, each.replaced_at) for each in journal.page("alice", FIBERS).shadows] == [
        ("v2", None),
        ("v3", 20),
        ("v1", 10),
    ]


def test_times_of_arrival_from_before_a_restart_of_the_machine_do_not_count(journal: Journal, clock: Clock) -> None:
    saved(journal, "v1", None, arrived=10**15)
    for number, pause in enumerate((10, 200)):
        clock.now += pause
        saved(journal, f"w{number}", None, arrived=5 + number)
        assert etags(journal.page("alice", FIBERS))[0] == f"w{number}"
        saved(journal, "v1", None, arrived=10**15)
    clock.now += 200
    assert journal.page("alice", FIBERS).shadows[0].arrived == 0


def test_a_refused_save_leaves_the_page_with_what_it_held(journal: Journal) -> None:
    journal.note_read("alice", FIBERS, "v1")
    before = journal.page("alice", FIBERS)
    journal.note_save("alice", FIBERS, outcome="refused", kept="0123", reason="too large")
    assert journal.page("alice", FIBERS) == before


def test_a_page_has_saved_once_a_save_of_it_was_applied(journal: Journal) -> None:
    for outcome, expected in (("unchanged", False), ("parked", False), ("saved", True), ("parked", True)):
        saved(journal, "v2", None, outcome=outcome)
        assert journal.page("alice", FIBERS).has_saved is expected


def test_the_newest_shadows_are_kept_and_for_a_day(journal: Journal, clock: Clock) -> None:
    for number in range(MOST_SHADOWS + 10):
        clock.now += 20
        journal.note_read("alice", FIBERS, f"v{number}")
    found = journal.page("alice", FIBERS)
    assert etags(found) == [f"v{number}" for number in range(MOST_SHADOWS + 9, 9, -1)]
    clock.now += 24 * HOUR - 20 * 5 + 1
    assert len(journal.page("alice", FIBERS).shadows) == 5


def test_the_last_slice_is_that_of_the_dataset_whatever_the_block(open_journal: Open, clock: Clock) -> None:
    journal = open_journal()
    assert journal.page("alice", SLICE).last_slice is None
    for place, expected in [
        (SLICE, "z-0020"), ("brain/annotations/x1y0z0/z-0021.json", "z-0021"), (FIBERS, "z-0021"),
        ("brain2/annotations/x0y0z0/z-0030.json", "z-0021"), (SLICE, "z-0020"),
    ]:  # fmt: skip
        clock.now += 1
        journal.note_read("alice", place, "v1")
        for each in (journal, open_journal()):
            assert each.page("alice", SLICE).last_slice == expected
            assert each.page("alice", FIBERS).last_slice == expected
    assert journal.page("bob", SLICE).last_slice is None
    assert journal.page("alice", "annotations/x0y0z0/z-0001.json").last_slice is None


def test_hours_have_files_of_their_own_and_yesterdays_are_deleted(
    open_journal: Open, clock: Clock, directory: Path
) -> None:
    journal = open_journal()
    for hour in range(30):
        clock.now = START + hour * HOUR
        journal.note_read("alice", FIBERS, f"v{hour}")
        wait_until((directory / f"pages-{datetime.fromtimestamp(clock.now, UTC):%Y%m%dT%H}.jsonl").exists)
        journal.note_read("alice", FIBERS, f"v{hour}+")
        assert etags(journal.page("alice", FIBERS))[:2] == [f"v{hour}+", f"v{hour}"]
        assert journal.page("alice", FIBERS).shadows == open_journal().page("alice", FIBERS).shadows
    wait_until(lambda: len(list(directory.iterdir())) <= 27)
    assert min(path.name for path in directory.iterdir()) == "pages-20260301T13.jsonl"


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        os.sched_yield()


def test_a_process_that_did_nothing_for_hours_knows_what_the_others_noted(open_journal: Open, clock: Clock) -> None:
    idle, busy = open_journal(), open_journal()
    idle.note_read("alice", FIBERS, "v0")
    assert etags(idle.page("alice", FIBERS)) == ["v0"]
    for hour in range(1, 6):
        clock.now = START + hour * HOUR
        busy = open_journal()
        busy.note_read("alice", FIBERS, f"v{hour}")
    assert etags(idle.page("alice", FIBERS)) == ["v5", "v4", "v3", "v2", "v1", "v0"]


def test_a_line_that_was_cut_short_spoils_only_itself(open_journal: Open, directory: Path, clock: Clock) -> None:
    journal = open_journal()
    journal.note_read("alice", FIBERS, "v1")
    assert etags(journal.page("alice", FIBERS)) == ["v1"]
    (file,) = directory.iterdir()
    line = file.read_bytes()
    with file.open("ab") as torn:
        torn.write(line[: len(line) // 2])
    assert etags(journal.page("alice", FIBERS)) == ["v1"]
    clock.now += 20
    journal.note_read("alice", FIBERS, "v2")
    with file.open("ab") as torn:
        torn.write(b"\x00\xff{}\nnull\n[]\n{}\n")
    journal.note_read("alice", FIBERS, "v3")
    for each in (journal, open_journal()):
        assert etags(each.page("alice", FIBERS)) == ["v3", "v2", "v1"]


def test_what_an_annotation_says_is_not_taken_for_a_line(open_journal: Open) -> None:
    forged = {"id": "a", "place": SLICE, "slices": "brain/annotations/", "save": "bob", "read": "bob", "x": '{"save":'}
    saved(open_journal(), "v1", None, differing=(forged,))
    other = open_journal()
    assert other.page("bob", SLICE) == other.page("alice", SLICE) == PageMemory()
    assert other.saves("bob", "brain") == []
    assert other.page("alice", FIBERS).shadows[0].differing == (forged,)


def test_a_save_that_differs_in_too_much_leaves_nothing_to_be_compared_with(open_journal: Open) -> None:
    journal = open_journal()
    journal.note_read("alice", FIBERS, "v1")
    read = journal.page("alice", FIBERS).shadows[0].number
    items = [{"id": str(number), "description": "x" * 1000} for number in range(LONGEST_LINE // 1000)]
    saved(journal, "v2", read, differing=items)
    for each in (journal, open_journal()):
        found = each.page("alice", FIBERS)
        assert [(shadow.etag, shadow.replaced_at) for shadow in found.shadows] == [("v1", 1)]
        assert each.saves("alice", "brain")[0]["outcome"] == "saved"


def test_a_session_is_told_its_last_saves(open_journal: Open, clock: Clock) -> None:
    journal = open_journal()
    saved(journal, "v1", None)
    clock.now += 1
    journal.note_save("alice", FIBERS, outcome="refused", kept="0123", reason="It is too large.")
    journal.note_save("alice", "brain2/annotations/x0y0z0/fibers.json", outcome="saved")
    journal.note_save("bob", FIBERS, outcome="saved")
    expected = [
        {
            "time": "2026-03-01T10:20:01.000Z", "block": "x0y0z0", "leaf": "fibers", "outcome": "refused",
            "version": None, "kept": "0123", "reason": "It is too large.",
        },
        {
            "time": "2026-03-01T10:20:00.000Z", "block": "x0y0z0", "leaf": "fibers", "outcome": "saved",
            "version": 2, "kept": None, "reason": None,
        },
    ]  # fmt: skip
    assert journal.saves("alice", "brain") == open_journal().saves("alice", "brain") == expected
    for number in range(150):
        saved(journal, f"v{number}", None, version=number)
    assert [told["version"] for told in journal.saves("alice", "brain")] == list(range(149, 49, -1))


def test_without_a_directory_nothing_is_kept() -> None:
    journal = Journal(None)
    journal.note_read("alice", FIBERS, "v1")
    journal.note_save("alice", FIBERS, outcome="saved")
    assert (journal.page("alice", FIBERS), journal.saves("alice", "brain")) == (PageMemory(), [])
    journal.close()


def test_a_full_disk_is_logged_once_and_stops_nobody(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, clock: Clock
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, caplog.at_level(logging.WARNING):
        patched.setattr(os, "write", fail)
        for number in range(5):
            journal.note_read("alice", FIBERS, f"v{number}")
            saved(journal, "v1", None)
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    journal.note_read("alice", FIBERS, "later")
    assert etags(journal.page("alice", FIBERS)) == ["later"]


def test_a_directory_that_cannot_be_used_stops_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        journal = Journal(tmp_path / "file" / "pages")
        journal.note_read("alice", FIBERS, "v1")
    assert len(caplog.records) == 1
    assert (journal.page("alice", FIBERS), journal.saves("alice", "brain")) == (PageMemory(), [])


def test_names_that_are_no_unicode_are_kept_apart(open_journal: Open) -> None:
    journal = open_journal()
    odd = os.fsdecode(b"gro\xdfe/annotations/x0y0z0/fibers.json")
    journal.note_read("page\udcff", odd, "v1")
    journal.note_save("größe", odd, outcome="saved", held=Holding("v2"))
    for each in (journal, open_journal()):
        assert etags(each.page("page\udcff", odd)) == ["v1"]
        assert etags(each.page("größe", odd)) == ["v2"]
        assert len(each.saves("größe", os.fsdecode(b"gro\xdfe"))) == 1


NOTING = """
import sys
from pathlib import Path
from annotation_store.pages.journal import Journal
from annotation_store.pages.origins import Holding

journal = Journal(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    if number % 10:
        journal.note_read(sys.argv[2], "brain/annotations/x0y0z0/fibers.json", f"v{number}")
    else:
        item = {"id": "a", "description": sys.argv[2] * 30_000}
        held = Holding(None, (), (item,))
        journal.note_save(sys.argv[2], "brain/annotations/x0y0z0/fibers.json", outcome="saved", held=held)
"""


def test_lines_of_processes_that_note_at_once_are_whole(directory: Path) -> None:
    pages = ["alice", "bob", "carol"]
    processes = [
        subprocess.Popen([sys.executable, "-c", NOTING, str(directory), page, "300"], cwd=REPOSITORY) for page in pages
    ]
    journal = Journal(directory)
    while any(process.poll() is None for process in processes):
        journal.page("alice", FIBERS)
    assert [process.returncode for process in processes] == [0, 0, 0]
    lines = [json.loads(line) for file in sorted(directory.iterdir()) for line in file.read_bytes().splitlines()]
    assert len(lines) == 900
    fresh = Journal(directory)
    for page in pages:
        assert etags(journal.page(page, FIBERS))[0] == "v299"
        assert journal.page(page, FIBERS) == fresh.page(page, FIBERS)
    journal.close()
    fresh.close()


def test_threads_may_ask_and_note_at_once(journal: Journal) -> None:
    def work(page: str) -> None:
        for number in range(100):
            journal.note_read(page, FIBERS, f"v{number}")
            assert etags(journal.page(page, FIBERS))[0] == f"v{number}"

    failures: list[BaseException] = []

    def watched(page: str) -> None:
        try:
            work(page)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=watched, args=(page,)) for page in ("alice", "bob", "carol", "dora")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_noting_a_reading_takes_microseconds(journal: Journal) -> None:
    start = time.perf_counter()
    for number in range(2000):
        journal.note_read("alice", FIBERS, f"v{number}")
    assert (time.perf_counter() - start) / 2000 < 100e-6, "it took ten times as long as it may"


def test_the_oldest_hours_go_when_all_take_too_much(directory: Path, clock: Clock) -> None:
    appender = Appender(directory, clock, most=100_000)
    line = b'{"read":"' + b"x" * 989 + b'"}\n'
    for hour in range(5):
        clock.now = START + hour * HOUR
        for number in range(30):
            assert appender.append(line, clock.now)
            if number == 0:
                wait_until((directory / file_name(int(clock.now // HOUR))).exists)
    wait_until(lambda: size_of(directory) <= 112_500)
    assert max(path.name for path in directory.iterdir()) == file_name(int(clock.now // HOUR))
    assert 3 <= len(list(directory.iterdir())) <= 4
    appender.close()


def test_an_hour_that_takes_too_much_is_not_gone_on_with(
    directory: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    appender = Appender(directory, clock, most=100_000)
    line = b'{"read":"' + b"x" * 989 + b'"}\n'

    def is_full() -> bool:
        return not appender.append(line, clock.now)

    with caplog.at_level(logging.WARNING):
        wait_until(is_full)
    assert len(caplog.records) == 1
    assert "too much was noted within an hour" in caplog.text
    clock.now += HOUR
    wait_until(lambda: not is_full())
    appender.close()


def size_of(directory: Path) -> int:
    total = 0
    for path in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
            total += path.stat().st_size
    return total


@pytest.mark.parametrize("length", [1000, 3 << 20])
@pytest.mark.parametrize("before", [0, 1])
def test_a_line_that_is_being_written_when_a_process_begins_to_read_is_not_missed(
    open_journal: Open, directory: Path, length: int, before: int
) -> None:
    journal = open_journal()
    for number in range(before):
        journal.note_read("alice", FIBERS, f"v{number}")
    saved(journal, "last", None, differing=({"id": "a", "description": "x" * length},))
    (file,) = directory.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-500])
    journal = open_journal()
    assert etags(journal.page("alice", FIBERS)) == ["v0"][:before]
    with file.open("ab") as rest:
        rest.write(whole[-500:])
    assert etags(journal.page("alice", FIBERS)) == ["last", "v0"][: before + 1]


def test_lines_keep_their_order_while_the_wall_clock_steps_back_and_forth(open_journal: Open, clock: Clock) -> None:
    """A save lies in an earlier hour's file than what its page had read before."""
    journal = open_journal()
    journal.note_read("alice", FIBERS, "v0")
    for number, hour in enumerate((1, 0, 1, 0)):
        clock.now = START + hour * HOUR + 20 * number
        journal = open_journal()
        if number % 2:
            saved(journal, f"v{number}", None, arrived=0)
        else:
            journal.note_read("alice", FIBERS, f"v{number}+")
    expected = ["v3", "v2+", "v1", "v0+", "v0"]
    assert etags(journal.page("alice", FIBERS)) == etags(open_journal().page("alice", FIBERS)) == expected
    assert [told["version"] for told in journal.saves("alice", "brain")] == [2, 2]
