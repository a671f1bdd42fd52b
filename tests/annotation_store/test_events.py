"""Events as they are read from edit logs: their ids, what a log that is written to meanwhile says, and pages."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_store.blocks import BlockOf
from annotation_store.events import contents, past
from annotation_store.events.event import Event
from annotation_store.events.identity import EventId, number_of
from annotation_store.events.past import Past, page
from annotation_store.events.tail import BlockTail
from annotation_store.events.watching import DatasetTail
from annotation_store.history.compaction import compact
from annotation_store.history.instants import instant_of, milliseconds_of
from annotation_store.reader import AnnotationReader
from annotation_store.upkeep import compact_block
from annotation_store.web import feed
from annotation_store.web.feed import Ring
from precomputed_server.errors import Gone, InvalidInput
from precomputed_server.files import Tree
from tests.annotation_store.history_writer import START_S, Writer, some
from tests.annotation_store.support import Editor, Place

EVER = instant_of(0)
A, B, C = some(3)
DAY = timedelta(days=1)


@pytest.fixture
def segment_bytes() -> int:
    """Segments of a few edits."""
    return 1500


def read(tail: BlockTail, writer: Writer) -> list[dict[str, object]]:
    """What is new."""
    return [json.loads(event.data) for event in tail.read(writer.history)]


@given(
    st.integers(0, 253_402_300_799_999), st.from_regex(r"[A-Za-z0-9._]{1,64}", fullmatch=True), st.integers(0, 2**48)
)
def test_an_id_is_read_as_it_was_written(milliseconds: int, host: str, number: int) -> None:
    id = EventId(milliseconds, host, number)
    assert EventId.parse(str(id)) == id
    assert str(id).count("-") == 2


@given(st.lists(st.tuples(st.integers(0, 10**13), st.sampled_from(["a", "b"]), st.integers(0, 2**48))))
def test_ids_sort_by_time(ids: list[tuple[int, str, int]]) -> None:
    made = sorted(EventId(*id) for id in ids)
    assert [id.milliseconds for id in made] == sorted(id[0] for id in ids)


@pytest.mark.parametrize("text", ["", "1", "1-2", "a-host-1", "1-host-x", "1--1", "-1-host-1", "1-ho st-1", "٣-host-1"])
def test_what_is_no_id(text: str) -> None:
    with pytest.raises(InvalidInput):
        EventId.parse(text)


@given(st.integers(10_000, 10**12), st.integers(0, 10**9))
def test_one_goes_on_five_seconds_before_the_id(milliseconds: int, later: int) -> None:
    begun = EventId(milliseconds, "host", 1).resumed_from((milliseconds + later) / 1000)
    assert milliseconds_of(begun) == milliseconds - 5000


def test_an_id_that_is_still_to_come_has_a_minute_sent_again() -> None:
    assert EventId(2_000_000_000_000, "host", 1).resumed_from(START_S) == instant_of(START_S - 60)


@given(st.lists(st.integers(0, 99), unique=True, max_size=20))
def test_a_number_tells_events_apart(versions: list[int]) -> None:
    assert len({number_of("x0y0z0", "fibers", version, "add", None) for version in versions}) == len(versions)
    assert number_of("a", "bc") != number_of("ab", "c")


def test_every_edit_is_told_once_through_many_segments(writer: Writer) -> None:
    tail = BlockTail("x0y0z0", EVER)
    told = []
    for number in range(60):
        writer.now += 0.3
        writer.edit(("put", {**A, "number": number}), leaf=("fibers", "centroids")[number % 2])
        if number % 7 == 0:
            told += read(tail, writer)
    told += read(tail, writer)
    assert len(writer.segments()) > 5
    assert [each["after"] for each in told] == [{**A, "number": number} for number in range(60)]
    assert [each["version"] for each in told] == [number // 2 + 1 for number in range(60)]


def test_two_readers_who_begin_at_different_times_give_the_same_events(writer: Writer) -> None:
    early = BlockTail("x0y0z0", EVER)
    told = []
    for number in range(30):
        writer.now += 1
        writer.edit(("put", {**A, "number": number}), ("put", {**B, "number": number}))
        told += read(early, writer)
    late = read(BlockTail("x0y0z0", instant_of(START_S + 20)), writer)
    assert late == [each for each in told if str(each["time"]) >= instant_of(START_S + 20)]
    assert len({each["event"] for each in told}) == 60


def test_a_reader_goes_on_after_a_compaction(writer: Writer) -> None:
    """The segment that it was in is replaced by another file, in which there are fewer lines."""
    tail = BlockTail("x0y0z0", EVER)
    for number in range(3):
        writer.now += 1
        writer.edit(("put", {**A, "number": number}))
    known = read(tail, writer)
    assert len(known) == 3
    for number in range(3, 30):
        writer.now += 1
        writer.edit(("put", {**A, "number": number}))
    first = writer.segments()[0]
    before = first.stat().st_ino
    later = datetime.fromtimestamp(writer.now, UTC) + 2 * DAY
    compact(writer.history, contextlib.nullcontext, keep_days=3650, now=later)
    assert first.stat().st_ino != before
    writer.now += 3 * 86_400
    told = read(tail, writer)
    # What was folded is told of by what it came to; what is of the moment that was read last comes again.
    assert told == read(BlockTail("x0y0z0", str(known[-1]["time"])), writer)
    assert told[-1]["after"] == {**A, "number": 29}
    assert len(told) < 27
    writer.edit(("put", {**A, "number": 30}))
    assert [each["after"] for each in read(tail, writer)] == [{**A, "number": 30}]


def test_a_group_is_told_of_when_it_is_whole(writer: Writer) -> None:
    tail = BlockTail("x0y0z0", EVER)
    writer.edit(("put", A))
    read(tail, writer)
    (segment,) = writer.segments()
    before = segment.read_bytes()
    writer.edit(("put", B), ("put", C))
    whole = segment.read_bytes()
    for stop in range(len(before), len(whole)):
        segment.write_bytes(whole[:stop])
        assert read(tail, writer) == []
    segment.write_bytes(whole)
    assert [each["id"] for each in read(tail, writer)] == [B["id"], C["id"]]


def test_what_was_taken_back_does_not_hide_what_comes_in_its_place(writer: Writer) -> None:
    tail = BlockTail("x0y0z0", EVER)
    writer.edit(("put", A))
    assert len(read(tail, writer)) == 1
    (segment,) = writer.segments()
    before = segment.read_bytes()
    writer.now += 1
    writer.edit(("put", {**A, "number": 1}))
    assert len(read(tail, writer)) == 1
    os.truncate(segment, len(before))
    assert read(tail, writer)[-1:] in ([], read(BlockTail("x0y0z0", EVER), writer)[-1:])
    writer.now += 1
    writer.versions["fibers"], writer.items["fibers"] = 1, dict(writer.items["fibers"]) | {A["id"]: A}
    writer.edit(("put", {**A, "number": 2}))
    assert read(tail, writer)[-1]["after"] == {**A, "number": 2}


def test_bytes_that_another_host_is_still_writing_are_waited_for(writer: Writer) -> None:
    tail = BlockTail("x0y0z0", EVER)
    writer.edit(("put", A))
    read(tail, writer)
    (segment,) = writer.segments()
    before = segment.read_bytes()
    writer.edit(("put", B), ("put", C))
    whole = segment.read_bytes()
    half = len(before) + (len(whole) - len(before)) // 3
    segment.write_bytes(whole[: len(before)] + bytes(half - len(before)) + whole[half:])
    assert read(tail, writer) == []
    segment.write_bytes(whole)
    assert [each["id"] for each in read(tail, writer)] == [B["id"], C["id"]]


def test_a_line_that_is_damaged_for_good_holds_the_others_up_for_a_while_only(writer: Writer) -> None:
    tail = BlockTail("x0y0z0", EVER)
    writer.edit(("put", A))
    read(tail, writer)
    (segment,) = writer.segments()
    before = len(segment.read_bytes())
    writer.edit(("put", B))
    damaged = bytearray(segment.read_bytes())
    damaged[before + 10] = 0
    segment.write_bytes(damaged)
    told: list[dict[str, object]] = []
    for _ in range(30):
        told += read(tail, writer)
    writer.edit(("put", C))
    told += read(tail, writer)
    assert C["id"] in [each["id"] for each in told]


def test_a_change_is_told_whole_also_after_what_was_known_is_forgotten(writer: Writer) -> None:
    tail = BlockTail("x0y0z0", EVER)
    for number in range(20):
        writer.edit(("put", {**A, "number": number, "text": "x" * 100}))
        if number % 3 == 0:
            tail.contents.forget()
        assert [each["after"] for each in read(tail, writer)] == [{**A, "number": number, "text": "x" * 100}]


def test_the_clock_of_a_log_may_go_back(writer: Writer) -> None:
    tail = BlockTail("x0y0z0", instant_of(START_S - 1))
    writer.edit(("put", A))
    writer.now -= 7200
    writer.edit(("put", B))
    assert [each["id"] for each in read(tail, writer)] == [A["id"], B["id"]]
    writer.now += 10
    writer.edit(("put", C))
    assert [each["id"] for each in read(tail, writer)] == [C["id"]]


def test_edits_that_are_not_kept_any_longer_are_gone(editor: Editor) -> None:
    editor.put(A)
    block = BlockOf("x0y0z0", "brain/annotations/x0y0z0")
    compact_block(editor.store, block, 90, datetime.now(UTC) + 100 * DAY)
    editor.put(B)
    with pytest.raises(Gone):
        page(editor.store, Past("brain", EVER))
    events, whole = page(editor.store, Past("brain", instant_of(time.time())))
    assert whole
    assert [event.annotation for event in events] == [B["id"]]  # whose clock follows that of the log


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 12))
def test_pages_have_every_event_once_and_in_order(times: list[int], size: int) -> None:
    """Blocks whose edits have these times, second by second: the pages of any size are the whole."""
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as quick:
        quick.setattr(os, "fsync", lambda _: None)
        quick.setattr(os, "fdatasync", lambda _: None)
        root = Path(directory)
        for block in range(3):
            history = root / "annotations" / ".history" / f"x{block}y0z0"
            history.mkdir(parents=True)
            (root / "annotations" / f"x{block}y0z0").mkdir()
            writer = Writer(history)
            for number, second in enumerate(sorted(times[block::3])):
                writer.now = START_S + second
                writer.edit(("put", {**A, "number": number}))
            os.close(writer.history)
        events = pages(root, size)
        assert len({event.id for event in events}) == len(events) == len(times)
        assert [event.time for event in events] == sorted(event.time for event in events)


def pages(root: Path, size: int, dataset: str = "") -> list[Event]:
    """All pages one after the other."""
    tree = Tree(root)
    try:
        store = AnnotationReader(tree)
        asked, found, sent, whole = Past(dataset, EVER), [], set[str](), False
        while not whole:
            events, whole = page(store, asked, sent, size)
            found += events
            assert events or whole
            if events:
                asked = Past(dataset, events[-1].time)
                sent = {event.id for event in events if event.time == asked.since}
        return found
    finally:
        tree.close()


def test_a_page_is_bounded_by_bytes_too(place: Place, editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    for item in some(12):
        editor.put({**item, "description": "x" * 1000})
    since = instant_of(0)
    monkeypatch.setattr(past, "PAGE_BYTES", 3000)
    first, whole = page(editor.store, Past("brain", since))
    assert (whole, sum(len(event.data) for event in first) < 8000) == (False, True)
    assert len(pages(place.root, 10_000, "brain")) == 12


def test_the_ring_lets_go_of_the_oldest_and_says_so() -> None:
    ring = Ring(instant_of(0), most=10)
    made = [
        Event(f"{number}-host-1", "edit", "x0y0z0", "fibers", instant_of(number), None, b"{}") for number in range(25)
    ]
    for number, event in enumerate(made):
        ring.put([event])
        kept = ring.since(ring.first)
        assert ring.end == number + 1
        assert kept == made[ring.first : number + 1]
        assert len(kept) <= 10
        assert all(event.time < ring.covers for event in made[: ring.first])
        assert all(event.time >= ring.covers or not ring.first for event in kept)
    with pytest.raises(IndexError):
        ring.since(ring.first - 1)


@pytest.mark.parametrize(("most", "most_bytes"), [(10, 1 << 20), (1000, 20)])
def test_a_look_keeps_no_more_than_the_ring(most: int, most_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much happened since: the newest is kept, and for the rest the logs are asked."""
    monkeypatch.setattr(feed, "_MOST_EVENTS", most)
    monkeypatch.setattr(feed, "_MOST_BYTES", most_bytes)
    made = [
        Event(f"{number}-host-1", "edit", "x0y0z0", "fibers", instant_of(number), None, b"{}") for number in range(99)
    ]
    in_two_blocks = [*made[::2], *made[1::2]]
    held: list[int] = []
    trimmed = feed._fitting

    def counted(found: list[Event]) -> tuple[list[Event], str]:
        held.append(len(found))
        return trimmed(found)

    monkeypatch.setattr(feed, "_fitting", counted)
    found, covers = feed._newest(lambda: iter(in_two_blocks))
    assert found == made[-10:]
    assert max(held) <= 21
    assert made[88].time < covers <= made[89].time
    assert feed._newest(lambda: iter(made[:5])) == (made[:5], "")
    ring = Ring(instant_of(0))
    ring.put(made[:3])
    number = ring.end
    ring.lose(covers)
    ring.put(found)
    assert (ring.since(ring.first), ring.covers) == (found, covers)
    with pytest.raises(IndexError):
        ring.since(number)


def test_thousands_of_blocks_that_nobody_edits_cost_little(tmp_path: Path) -> None:
    place = Place(tmp_path)
    editor = Editor(place)
    editor.put(A)
    log = place.log.read_bytes()
    for number in range(1, 1000):
        (place.block.parent / f"x{number}y0z0").mkdir()
        history = place.history.with_name(f"x{number}y0z0")
        history.mkdir()
        (history / "log-000001.jsonl").write_bytes(log)
        os.utime(history / "log-000001.jsonl", (1, 1))
    tail = DatasetTail(editor.store, "brain", instant_of(time.time() - 60))
    assert len(list(tail.look())) == 1
    opened: list[object] = []

    def noted(path: str, *given: int, **named: int) -> int:
        opened.append(path)
        return real(path, *given, **named)

    real = os.open
    with pytest.MonkeyPatch.context() as watched:
        watched.setattr(os, "open", noted)
        assert list(tail.look()) == []
        assert [name for name in opened if str(name).startswith("log-")] == []
        assert len(opened) < 50
    editor.put(B)
    assert [event.annotation for event in tail.look()] == [B["id"]]


def test_a_block_of_two_names_is_told_of_once(place: Place, editor: Editor) -> None:
    (place.block.parent / "a-link").symlink_to(place.block.name)
    editor.put(A)
    since = instant_of(time.time() - 60)
    listed = DatasetTail(editor.store, "brain", since)
    told = DatasetTail(editor.store, "brain", since)
    events = list(told.look_at(["brain/annotations/x0y0z0"]))
    assert list(told.look()) == []
    assert list(listed.look()) == page(editor.store, Past("brain", since))[0] == events
    assert [event.block for event in events] == ["x0y0z0"]


def test_the_command_prints_what_is_and_what_will_be(place: Place, editor: Editor) -> None:
    editor.put(A)
    command = [str(Path(sys.executable).with_name("precomputed")), "annotations", "watch", str(place.root / "brain")]
    with subprocess.Popen(
        [*command, "--since", EVER, "--leaf", "fibers"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert (first["id"], first["operation"], first["after"]) == (A["id"], "add", A)
        editor.put(B, leaf="centroids")
        editor.put(C)
        assert json.loads(process.stdout.readline())["id"] == C["id"]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert str(EventId.parse(first["event"])) == first["event"]


def test_what_is_known_of_annotations_is_bounded(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change in a leaf that was not taken is told of by what differs and where to read it."""
    for number in range(30):
        writer.now += 1
        writer.edit(("put", {**A, "number": number}))
    assert b'{"operation":"content"' in writer.segments()[-1].read_bytes()
    late = instant_of(START_S + 25)
    assert [each["after"] for each in read(BlockTail("x0y0z0", late), writer)][-1] == {**A, "number": 29}
    monkeypatch.setattr(contents, "MOST_BYTES", 1)
    told = read(BlockTail("x0y0z0", late), writer)[-1]
    assert "after" not in told
    assert (told["change"], told["url"]) == ({"set": {"number": 29}}, "x0y0z0/fibers.json?version=30")
