"""Earlier versions of a leaf and who made them, read back from the log."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime

import pytest

from annotation_store.history.entries import Entry
from annotation_store.history.instants import instant_of, read_instant
from annotation_store.history.versions import Versions
from annotation_store.model import Item, parse_stored
from precomputed_server.errors import Gone, NotFound, Unreadable
from tests.annotation_store.history_writer import START_S, Writer, sha, some
from tests.data import point

pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


@pytest.fixture
def segment_bytes() -> int:
    """Small segments."""
    return 2500


def scribble(writer: Writer, count: int, seed: int = 1) -> None:
    """That many random edits of two leaves, a second apart, with versions by other tools among them."""
    chance = random.Random(seed)
    for _ in range(count):
        writer.now += 1
        leaf = chance.choice(["fibers", "z-0001"])
        session = chance.choice(["one", "two"])
        item = point(chance.randrange(6), chance.random(), chance.randrange(3), 1)
        if item["id"] in writer.items.get(leaf, {}) and chance.random() < 0.3:
            writer.edit(("delete", item["id"]), leaf=leaf, session=session)
        elif chance.random() < 0.05:
            writer.external(json.dumps(some(chance.randrange(4)), indent=1).encode(), leaf)
        else:
            writer.edit(("put", item), leaf=leaf, session=session)


def at(seconds: float) -> datetime:
    """A moment of the test's clock."""
    return datetime.fromtimestamp(START_S + seconds, UTC)


def test_every_version_is_given_to_the_byte(writer: Writer) -> None:
    scribble(writer, 150)
    assert len(writer.segments()) > 4
    versions = Versions(writer.history)
    for leaf, past in writer.past.items():
        for number, (time, data) in past.items():
            found = versions.content(leaf, number)
            assert (found.version, found.time, found.data) == (number, time, data)
            assert found.etag == sha(data)[:32]  # type: ignore[index]  # bytes have one
            assert found.items == parse_stored(data)


def test_each_version_of_a_group_of_requests_is_kept(writer: Writer) -> None:
    with writer.log() as log:
        made = [record for item in some(3) for record in writer.records(log, [("put", item)])]
        made += writer.records(log, [("put", some(1)[0])], "z-0001")
        writer.append(log, made)
    versions = Versions(writer.history)
    for number, (_, data) in writer.past["fibers"].items():
        assert versions.content("fibers", number).data == data


@pytest.mark.parametrize("number", [0, -1, 6, 1000])
def test_an_unknown_version_is_not_found(writer: Writer, number: int) -> None:
    for item in some(5):
        writer.edit(("put", item))
    with pytest.raises(NotFound, match=f"has no version {number}; the newest is 5"):
        Versions(writer.history).content("fibers", number)
    with pytest.raises(NotFound, match="does not know"):
        Versions(writer.history).content("z-0009", 1)


def test_an_instant_names_the_version_in_force_then(writer: Writer) -> None:
    for item in some(60):
        writer.now += 10
        writer.edit(("put", item))
    assert len(writer.segments()) > 2
    versions = Versions(writer.history)
    for number in range(1, 61):
        assert versions.at("fibers", at(10 * number)) == number
        assert versions.at("fibers", at(10 * number + 9.9)) == number
    with pytest.raises(NotFound, match="did not exist yet"):
        versions.at("fibers", at(9.9))
    with pytest.raises(NotFound, match="does not know"):
        versions.at("z-0009", at(9))


def test_a_leaf_that_no_new_segment_has_edited_is_found_in_an_old_one(writer: Writer) -> None:
    writer.edit(("put", point(1, 1, 1, 1)), leaf="z-0001")
    writer.now += 5
    for item in some(60):
        writer.edit(("put", item))
    versions = Versions(writer.history)
    assert versions.at("z-0001", at(100)) == 1
    assert versions.content("z-0001", 1).data == writer.files["z-0001"]
    assert versions.by_etag("z-0001", sha(writer.files["z-0001"])[:32]) == writer.items["z-0001"]  # type: ignore[index]


def test_what_was_deleted_with_old_segments_is_gone(writer: Writer) -> None:
    for item in some(60):
        writer.now += 10
        writer.edit(("put", item))
    writer.segments()[0].unlink()
    versions = Versions(writer.history)
    with pytest.raises(Gone):
        versions.content("fibers", 1)
    with pytest.raises(Gone):
        versions.at("fibers", at(15))
    first = json.loads(writer.segments()[0].read_bytes().splitlines()[0])["leaves"]["fibers"]["version"]
    for number in range(first, 61):
        assert versions.content("fibers", number).data == writer.past["fibers"][number][1]


def test_a_damaged_version_is_never_given_wrong(writer: Writer) -> None:
    writer.segment_bytes = 1 << 20
    for number in range(9):
        writer.edit(("put", point(1, number, 0, 0, description="something long that makes a delta worth while")))
    path = writer.segments()[0]
    path.write_bytes(path.read_bytes().replace(b'"set":{"point":[5,0,0]}', b'"set":{"point":[6,0,0]}'))
    versions = Versions(writer.history)
    assert versions.content("fibers", 5).data == writer.past["fibers"][5][1]
    with pytest.raises((Unreadable, Gone)):
        versions.content("fibers", 6)


def test_a_version_after_damage_is_not_given_when_it_lacks_something(writer: Writer) -> None:
    writer.segment_bytes = 1 << 20
    for item in some(5):
        writer.edit(("put", item))
    path = writer.segments()[0]
    path.write_bytes(path.read_bytes().replace(b"[1.5,2,3.25]", b"[1.5,3,3.25]"))
    with pytest.raises(Unreadable, match="damaged"):
        Versions(writer.history).content("fibers", 4)


def walk(writer: Writer, limit: int, **filters: str) -> list[Entry]:
    """The whole history, page by page."""
    found: list[Entry] = []
    before = None
    while True:
        page, following = Versions(writer.history).entries("fibers", limit, before, **filters)
        assert len(page) >= limit or following is None
        assert all(before is None or entry.version < before for entry in page)
        found += page
        if following is None:
            return found
        assert following == page[-1].version
        before = following


@pytest.mark.parametrize("segment_bytes", [2500, 1 << 20])
@pytest.mark.parametrize("limit", [1, 7, 50, 1000])
def test_the_history_tells_every_edit_whatever_the_page(writer: Writer, limit: int) -> None:
    scribble(writer, 120)
    entries = walk(writer, limit)
    items: dict[str, Item] = {}
    for version, (time, data) in writer.past["fibers"].items():
        made = [entry for entry in reversed(entries) if entry.version == version]
        assert all(entry.time == time for entry in made)
        for entry in made:
            assert entry.before == items.get(entry.id)
            items.pop(entry.id) if entry.after is None else items.update({entry.id: entry.after})
        assert items == parse_stored(data)
    assert [entry.version for entry in entries] == sorted((entry.version for entry in entries), reverse=True)


def test_the_history_of_one_annotation_or_one_author(writer: Writer) -> None:
    scribble(writer, 120)
    entries = walk(writer, 1000)
    id = point(3, 0, 0, 0)["id"]
    assert walk(writer, 2, id=id) == [entry for entry in entries if entry.id == id]
    author = "author of two"
    assert walk(writer, 2, author=author) == [entry for entry in entries if entry.author == author]


def test_one_request_is_never_split(writer: Writer) -> None:
    writer.edit(*(("put", item) for item in some(10)))
    writer.edit(("put", point(20, 1, 1, 1)))
    page, following = Versions(writer.history).entries("fibers", 2, None, None, None)
    assert (len(page), following) == (11, None)
    page, following = Versions(writer.history).entries("fibers", 1, None, None, None)
    assert (len(page), following) == (1, 2)


def test_parked_removals_are_told_with_what_they_would_remove(writer: Writer) -> None:
    for item in some(40):
        writer.edit(("put", item))
    ids = [item["id"] for item in some(3)]
    parked = writer.park(*ids, differing=[point(90, 1, 1, 1), {**some(4)[3], "reviewed": True}])
    for item in some(40, 50):
        writer.edit(("put", item))
    told = [entry for entry in walk(writer, 3) if entry.operation == "parked"]
    assert [(entry.id, entry.before, entry.after) for entry in told[::-1]] == [
        (item["id"], item, None) for item in some(3)
    ]
    assert {entry.version for entry in told} == {40}
    versions = Versions(writer.history)
    record = versions.parked(parked)
    assert record.remove == tuple(ids)
    body = versions.body_of(record)
    assert list(body.values()) == [{**some(4)[3], "reviewed": True}, *some(36, 4), point(90, 1, 1, 1)]
    with pytest.raises(NotFound):
        versions.parked("0" * 16)


def test_parked_removals_of_a_leaf_that_is_not_edited_again(writer: Writer) -> None:
    """The annotations that they name lie in an older segment then."""
    writer.edit(*(("put", item) for item in some(3)))
    for item in some(60):
        writer.edit(("put", item), leaf="z-0001")
    writer.park(some(1)[0]["id"])
    page, following = Versions(writer.history).entries("fibers", 1)
    assert (page[0].operation, page[0].before) == ("parked", some(1)[0])
    assert ([entry.operation for entry in page[1:]], following) == (["add"] * 3, None), "a version was split"


def test_another_tools_version_is_told_by_annotation(writer: Writer) -> None:
    writer.edit(*(("put", item) for item in some(3)))
    for item in some(60):
        writer.edit(("put", item), leaf="z-0001")
    kept, changed, added = some(1)[0], {**some(2)[1], "reviewed": True}, point(9, 1, 1, 1)
    writer.external(json.dumps([kept, changed, added]).encode())
    page, _ = Versions(writer.history).entries("fibers", 1)
    told = {entry.id: (entry.operation, entry.before, entry.after) for entry in page if entry.version == 2}
    assert told == {
        changed["id"]: ("external", some(2)[1], changed),
        some(3)[2]["id"]: ("external", some(3)[2], None),
        added["id"]: ("external", None, added),
    }


def test_a_version_is_found_by_its_entity_tag(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    scribble(writer, 120)
    monkeypatch.setattr("time.time", lambda: writer.now)
    versions = Versions(writer.history)
    for leaf, past in writer.past.items():
        for _, data in past.values():
            assert versions.by_etag(leaf, sha(data)[:32]) == parse_stored(data)  # type: ignore[index]
    assert versions.by_etag("fibers", "0" * 32) is None
    writer.now += 86_400 * 3
    writer.edit(*(("put", item) for item in some(60, 100)))
    writer.now += 86_400 * 3
    for number in range(60):
        writer.edit(("put", point(number, 1, 1, 1)), leaf="centroids")
    assert versions.by_etag("fibers", sha(writer.past["fibers"][2][1])[:32]) is None  # type: ignore[index]
    assert versions.by_etag("fibers", sha(writer.files["fibers"])[:32]) == writer.items["fibers"]  # type: ignore[index]


def test_what_was_stored_lately_is_given_newest_first(writer: Writer) -> None:
    for item in some(60):
        writer.now += 10
        writer.edit(("put", item))
    versions = Versions(writer.history)
    found = list(versions.recent("fibers", instant_of(START_S + 305)))
    assert [held.version for held in found] == list(range(60, 29, -1))
    for held in found:
        assert list(held.items.values()) == some(held.version)
    assert len(list(versions.recent("fibers", ""))) == 60
    assert list(versions.recent("z-0009", "")) == []


def test_blame_names_the_last_change_of_each_annotation(writer: Writer) -> None:
    scribble(writer, 120)
    last: dict[str, Entry] = {}
    for entry in reversed(walk(writer, 1000)):
        last[entry.id] = entry
    assert Versions(writer.history).blame("fibers") == {id: last[id] for id in writer.items["fibers"]}


def test_an_entry_is_told_in_json() -> None:
    entry = Entry(3, "2026-03-01T12:00:00.000Z", "ada", "page", "add", "a", None, {"id": "a"})
    assert list(entry.to_json()) == ["version", "time", "author", "session", "operation", "id", "before", "after"]


def test_instants_are_read_with_any_time_zone() -> None:
    assert read_instant("2026-03-01T13:00:00+01:00") == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert read_instant("2026-03-01T12:00:00Z") == read_instant("2026-03-01T12:00:00")
