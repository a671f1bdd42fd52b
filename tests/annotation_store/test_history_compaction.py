"""Thinning out: what goes, what stays to the byte, and that a crash or a reader in between sees a whole log."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from annotation_store.history import compaction
from annotation_store.history.compaction import Report, compact
from annotation_store.history.log import BlockLog
from annotation_store.history.state import LogState
from annotation_store.history.versions import Versions
from annotation_store.model import Item, parse_stored, serialize
from precomputed_server import writing
from precomputed_server.errors import Gone, NotFound
from tests.annotation_store.history_writer import Writer, sha, some
from tests.data import point

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")

DAY_S = 86_400.0


@pytest.fixture
def segment_bytes() -> int:
    """Small segments."""
    return 20_000


class Lock:
    """Counts how often the block's lock is taken."""

    def __init__(self) -> None:
        self.taken = 0

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        self.taken += 1
        yield


def run(writer: Writer, days: float, keep_days: int = 90) -> Report:
    """Compact so many days after the newest edit."""
    now = datetime.fromtimestamp(writer.now, UTC) + timedelta(days=days)
    return compact(writer.history, Lock(), keep_days=keep_days, now=now)


def moment(text: str, later_s: float = 0) -> datetime:
    """A moment of the log, or a little after it."""
    return datetime.fromisoformat(text) + timedelta(seconds=later_s)


def scribble(writer: Writer, count: int, seed: int = 1) -> None:
    """Edits of two leaves by three sessions, some close together and some with a pause after them."""
    chance = random.Random(seed)
    for _ in range(count):
        writer.now += chance.choice([0.016, 0.016, 0.5, 5, 9.9, 10, 12, 300])
        leaf = chance.choice(["fibers", "fibers", "z-0001"])
        session = chance.choice(["one", "two", "three"])
        item = point(chance.randrange(5), chance.random(), 1, 1, description="a long text" * 9)
        present = writer.items.get(leaf, {})
        dice = chance.random()
        if item["id"] in present and dice < 0.1:
            writer.edit(("delete", item["id"]), leaf=leaf, session=session)
        elif dice < 0.13:
            writer.external(json.dumps(list(some(2))).encode(), leaf)
        elif dice < 0.2:
            writer.edit(("restore", item), leaf=leaf, session=session)
        elif dice < 0.23 and present:
            writer.park(next(iter(present)), leaf=leaf)
        elif dice < 0.4:
            with writer.log() as log:
                made = writer.records(log, [("put", item)], leaf, session)
                made += writer.records(log, [("put", point(7, chance.random(), 1, 1))], leaf, "two")
                writer.append(log, made)
        else:
            writer.edit(("put", item), leaf=leaf, session=session)


@pytest.mark.parametrize("seed", range(8))
def test_every_version_that_stood_for_ten_seconds_stays_to_the_byte(writer: Writer, seed: int) -> None:
    scribble(writer, 250, seed)
    report = run(writer, 2)
    assert report.folded > 1
    versions = Versions(writer.history)
    folded = 0
    for leaf, past in writer.past.items():
        ends = [time for time, _ in list(past.values())[1:]] + ["2100-01-01T00:00:00.000Z"]
        for (number, (time, data)), end in zip(past.items(), ends, strict=True):
            stood_s = (moment(end) - moment(time)).total_seconds()
            try:
                assert versions.content(leaf, number).data == data
                if stood_s > 0:
                    assert versions.at(leaf, moment(time)) == number
            except Gone as error:
                folded += 1
                assert stood_s < 10
                nearest = int(str(error).rpartition(" ")[2][:-1])
                assert nearest < number
                assert versions.content(leaf, nearest).data == past[nearest][1]
                if stood_s > 0:
                    with pytest.raises(Gone):
                        versions.at(leaf, moment(time))
    assert folded > 5
    with BlockLog(writer.history, LogState()) as log:
        log.refresh(repair=False)
        for leaf, written in writer.files.items():
            assert log.tail(leaf).after == sha(written)  # type: ignore[union-attr]
            assert serialize(log.newest(leaf)) == serialize(parse_stored(written or b""))
        assert {record.parked for record in log.open_parked().values()} == set(writer.state.parked)
        for record in log.open_parked().values():
            assert set(record.missing) & set(versions.body_of(record)) == set()


def test_the_history_still_tells_who_made_what_of_each_annotation(writer: Writer) -> None:
    scribble(writer, 250, 3)
    blamed = Versions(writer.history).blame("fibers")
    kept = [entry for entry in Versions(writer.history).entries("fibers", 10**6)[0] if entry.operation != "change"]
    run(writer, 2)
    entries, _ = Versions(writer.history).entries("fibers", 10**6)
    told = {(entry.version, entry.operation, entry.id) for entry in entries}
    for entry in kept:
        if entry.operation in ("delete", "restore", "external", "parked"):
            assert (entry.version, entry.operation, entry.id) in told
    stands: dict[str, Item | None] = {}
    for entry in reversed(entries):
        if entry.operation != "parked":
            assert stands.get(entry.id) == entry.before
            stands[entry.id] = entry.after
    now = Versions(writer.history).blame("fibers")
    assert {id: entry.version for id, entry in now.items()} == {id: entry.version for id, entry in blamed.items()}


def test_a_drag_becomes_one_edit(writer: Writer) -> None:
    for number in range(30):
        writer.now += 0.016
        writer.edit(("put", point(1, number, 1, 1)))
    report = run(writer, 2)
    assert report.folded == 1
    (entry,), _ = Versions(writer.history).entries("fibers", 5)
    assert (entry.version, entry.operation, entry.before) == (30, "add", None)
    with pytest.raises(Gone, match="less than 10 seconds"):
        Versions(writer.history).content("fibers", 29)


@pytest.mark.parametrize("verb", ["put", "restore"])
def test_an_addition_that_others_came_after_keeps_its_place(writer: Writer, verb: str) -> None:
    """The order of the file is that of the additions."""
    writer.edit(("put", point(1, 1, 1, 1)))
    writer.edit((verb, point(2, 1, 1, 1)), session="other")
    writer.edit(("put", point(1, 2, 1, 1)))
    writer.edit(("put", point(1, 3, 1, 1)))
    run(writer, 2)
    versions = Versions(writer.history)
    assert versions.content("fibers", 4).data == writer.files["fibers"]
    assert [entry.operation for entry in versions.entries("fibers", 9)[0]] == [
        "change",
        "add" if verb == "put" else "restore",
        "add",
    ]


@pytest.mark.parametrize("between", ["restoration", "other session", "ten seconds", "deletion", "parked", "other tool"])
def test_what_somebody_might_want_back_is_not_folded(writer: Writer, between: str) -> None:
    writer.edit(("put", point(1, 1, 1, 1)), ("put", point(2, 1, 1, 1)))
    writer.now += 20
    writer.edit(("put", point(1, 2, 1, 1)))
    stood = writer.versions["fibers"]
    if between == "other session":
        writer.edit(("put", point(1, 3, 1, 1)), session="other")
    elif between == "restoration":
        writer.edit(("restore", point(1, 3, 1, 1)))
    elif between == "ten seconds":
        writer.now += 10
    elif between == "deletion":
        writer.edit(("delete", point(1, 3, 1, 1)["id"]))
    elif between == "parked":
        writer.park(point(2, 0, 0, 0)["id"])
    else:
        writer.external(serialize({**writer.items["fibers"], "x": {"id": "x"}}))
    writer.edit(("put", point(1, 4, 1, 1)))
    run(writer, 2)
    assert Versions(writer.history).content("fibers", stood).data == writer.past["fibers"][stood][1]


@pytest.mark.parametrize("seed", range(4))
def test_many_versions_at_a_time_are_those_that_are_kept(writer: Writer, seed: int) -> None:
    """The same as one by one, of both leaves and across segments, compacted or not, and for any choice of them."""
    scribble(writer, 250, seed)
    chance = random.Random(seed)
    versions = Versions(writer.history)
    for days in (None, 2, 100):
        if days is not None:
            run(writer, days)
        everything = {leaf: [*past, max(past) + 1] for leaf, past in writer.past.items()} | {"never": [1]}
        some_of_them = {leaf: chance.sample(numbers, min(len(numbers), 5)) for leaf, numbers in everything.items()}
        for wanted in (everything, some_of_them):
            alone = {}
            for leaf, numbers in wanted.items():
                for number in numbers:
                    with contextlib.suppress(NotFound, Gone):
                        version = versions.content(leaf, number)
                        alone[leaf, number] = (version.items, version.etag)
            assert {key: (kept.items, kept.etag) for key, kept in versions.several(wanted).items()} == alone
            assert alone or wanted is some_of_them


def test_edits_of_the_last_day_and_what_was_compacted_stay_as_they_are(writer: Writer) -> None:
    scribble(writer, 150)
    before = [path.read_bytes() for path in writer.segments()]
    assert run(writer, -1).folded == 0
    assert [path.read_bytes() for path in writer.segments()] == before
    assert run(writer, 2).folded > 0
    compacted = [path.read_bytes() for path in writer.segments()]
    lock = Lock()
    compact(writer.history, lock, keep_days=90, now=datetime.fromtimestamp(writer.now + 3 * DAY_S, UTC))
    assert [path.read_bytes() for path in writer.segments()] == compacted
    assert lock.taken == 0


def test_the_log_goes_on_after_compaction(writer: Writer) -> None:
    """Also in a process that had read it before."""
    scribble(writer, 100)
    run(writer, 2)
    writer.now += 2 * DAY_S
    scribble(writer, 100, 2)
    versions = Versions(writer.history)
    for leaf, past in writer.past.items():
        assert versions.content(leaf, writer.versions[leaf]).data == past[writer.versions[leaf]][1]


def test_what_is_older_than_it_has_to_be_kept_goes(writer: Writer) -> None:
    writer.edit(("put", point(1, 1, 1, 1)), leaf="z-0001")
    writer.external(b'[ {"id": "a"} ]', "z-0002")
    scribble(writer, 150)
    writer.now += 100 * DAY_S
    old = writer.versions["fibers"]
    with writer.log() as log:
        log.begin_segment()
    scribble(writer, 100, 2)
    writer.now += DAY_S
    size = sum(path.stat().st_size for path in writer.segments())
    report = run(writer, 5)
    assert report.dropped > 1
    assert (report.before, report.after) == (size, sum(path.stat().st_size for path in writer.segments()))
    versions = Versions(writer.history)
    for number in range(old):
        with pytest.raises((Gone, NotFound)):
            versions.content("fibers", number)
    assert (
        versions.content("fibers", writer.versions["fibers"]).data
        == writer.past["fibers"][writer.versions["fibers"]][1]
    )
    for number in range(1, old):
        with pytest.raises(Gone):
            versions.at("fibers", moment(writer.past["fibers"][number][0]))
    assert versions.entries("z-0002", 9) == ([], None)
    assert run(writer, 6).dropped == 0


def test_the_newest_content_of_a_leaf_is_kept_for_ever(writer: Writer) -> None:
    """Else a file that is damaged after 90 days could not be made good."""
    writer.external(b"[ ]", "z-0002")
    scribble(writer, 150)
    run(writer, 100)
    writer.now += 100 * DAY_S
    for item in some(60):
        writer.edit(("put", item), leaf="centroids")
    writer.now += 100 * DAY_S
    run(writer, 0)
    run(writer, 2)
    assert sum(path.stat().st_size for path in writer.segments()) < 40_000
    versions = Versions(writer.history)
    with BlockLog(writer.history, LogState()) as log:
        log.refresh(repair=False)
        for leaf, data in writer.files.items():
            assert serialize(log.newest(leaf)) == serialize(parse_stored(data or b""))
            assert versions.content(leaf, writer.versions[leaf]).items == parse_stored(data or b"")
    assert versions.content("z-0002", 1).data == b"[ ]"


@pytest.mark.parametrize("end", range(12))
def test_a_crash_at_any_replacement_leaves_a_whole_log(
    writer: Writer, end: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.segment_bytes = 4000
    scribble(writer, 200)
    writer.now += 100 * DAY_S
    scribble(writer, 200, 2)
    done = 0
    write, unlink = writing.atomic_write, os.unlink

    def counted(*given: object, **members: object) -> None:
        nonlocal done
        done += 1
        if done > end:
            raise KeyboardInterrupt
        (write if len(given) == 3 else unlink)(*given, **members)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr(compaction, "atomic_write", counted)
        patch.setattr(os, "unlink", counted)
        run(writer, 3)
    versions = Versions(writer.history)
    for leaf, past in writer.past.items():
        newest = writer.versions[leaf]
        assert versions.content(leaf, newest).data == past[newest][1]
    with monkeypatch.context() as patch:
        run(writer, 3)
    for leaf, past in writer.past.items():
        newest = writer.versions[leaf]
        assert versions.content(leaf, newest).data == past[newest][1]


def test_a_damaged_segment_is_left_as_it_is(writer: Writer) -> None:
    scribble(writer, 100)
    with writer.log() as log:
        log.begin_segment()
    path = writer.segments()[0]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + b"#" + data[len(data) // 2 + 1 :])
    damaged = path.read_bytes()
    run(writer, 2)
    assert path.read_bytes() == damaged


def drags(writer: Writer, count: int) -> int:
    """A day of one annotator: so many drags of points of a 500-point fibre, 60 saves each; returns the log's bytes."""
    fibres = [
        {"id": f"{number:040x}", "type": "linestring", "points": [[place + 0.25, number, 7.5] for place in range(500)]}
        for number in range(3)
    ]
    writer.edit(*(("put", fibre) for fibre in fibres))
    chance = random.Random(1)
    for drag in range(count):
        writer.now += 60
        fibre = writer.items["fibers"][fibres[drag % 3]["id"]]  # type: ignore[index]  # the id is a text
        place = chance.randrange(499)
        for step in range(60):
            writer.now += 0.016
            moved = [[place + step / 7, step / 3, 7.5], [place + step / 9, step / 2, 7.5]][: chance.choice([1, 2])]
            points = fibre["points"]
            fibre = {**fibre, "points": [*points[:place], *moved, *points[place + len(moved) :]]}
            writer.edit(("put", fibre))
        writer.past.clear()
    return sum(path.stat().st_size for path in writer.segments())


def check_drags(writer: Writer, count: int) -> None:
    """25 MB before and 2.5 MB after compaction for 200 drags, and the newest version is still the file."""
    written = drags(writer, count)
    assert written < 25e6 * count / 200
    report = run(writer, 2)
    assert report.after < 2.5e6 * count / 200
    newest = writer.versions["fibers"]
    assert Versions(writer.history).content("fibers", newest).data == writer.files["fibers"]


def test_a_few_drags_stay_small(writer: Writer) -> None:
    writer.segment_bytes = 16 << 20
    check_drags(writer, 10)


@pytest.mark.nightly
def test_a_day_of_drags_stays_small(writer: Writer) -> None:
    writer.segment_bytes = 16 << 20
    check_drags(writer, 200)
