"""How far a dataset is: counts that say what GET of every leaf answers, and what it costs to have them."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import settings as sizes
from hypothesis import strategies as st

from annotation_store.blocks import BlockOf, Location
from annotation_store.progress import survey
from annotation_store.review import is_confirmed, is_visited
from annotation_store.upkeep import compact_block
from precomputed_server import settings
from precomputed_server.web.app import create_app
from tests.annotation_store.conftest import Client, Connect
from tests.annotation_store.support import BLOCK, Editor, Place, some
from tests.data import point, volume, write_dataset

DATASET = "/brain/annotations"
A, B, C, D = some(4)
Json = dict[str, Any]


async def progress_of(client: Client) -> Json:
    """What the dataset's progress is answered."""
    answer = await client.get(f"{DATASET}/progress")
    assert answer.status == 200, await answer.text()
    found: Json = await answer.json()
    return found


async def recounted(client: Client) -> Json:
    """The same, counted from what GET answers of every leaf and of its history."""
    blocks: dict[str, list[Json]] = {}
    drew: Counter[str] = Counter()
    confirmed: dict[str, list[tuple[str, str]]] = {}
    seen: list[tuple[Json, str]] = []
    for row in (await (await client.get(f"{DATASET}/blocks")).json())["blocks"]:
        blocks[row["directory"]] = []
        for leaf in row["leaves"]:
            url = f"{DATASET}/{row['directory']}/{leaf['leaf']}"
            answer = await client.get(f"{url}.json")
            if answer.status != 200:
                continue
            authors = await authors_of(client, url)
            items = await answer.json()
            blocks[row["directory"]] += items
            seen += [(item, authors.get(item["id"], "external")) for item in items]
    for item, author in seen:
        drew[author] += 1
        if is_confirmed(item):
            confirmed.setdefault(item["review"]["author"], []).append((item["id"], author))
    return {
        **counted([item for item, _ in seen]),
        "blocks": {name: counted(items) for name, items in blocks.items()},
        "slices": {
            number: counted([item for item, _ in seen if slice_of(item) == number])
            for number in {slice_of(item) for item, _ in seen}
        },
        "authors": {
            name: counted([item for item, author in seen if author == name])
            | {
                "confirmed_by_them": len(confirmed.get(name, ())),
                "confirmed_own": sum(author == name for _, author in confirmed.get(name, ())),
            }
            for name in {*drew, *confirmed}
        },
        "types": {
            name: counted([item for item, _ in seen if item.get("anntype") == name])
            for name in {item.get("anntype") for item, _ in seen}
        },
    }


async def authors_of(client: Client, url: str) -> dict[str, str]:
    """Who added each annotation that the leaf's history knows; a later addition of the same id counts."""
    answer = await client.get(f"{url}/history?limit=1000")
    if answer.status == 404:
        return {}
    authors: dict[str, str] = {}
    for entry in reversed((await answer.json())["entries"]):
        if entry["operation"] == "add":
            authors[entry["id"]] = entry["author"]
        elif entry["operation"] == "external" and entry["before"] is None:
            authors.setdefault(entry["id"], "external")
    return authors


def counted(items: list[Json]) -> Json:
    """Counts in plain Python."""
    return {
        "total": len(items),
        "reviewed": sum(is_confirmed(item) for item in items),
        "visited": sum(is_visited(item) for item in items),
    }


def slice_of(item: Json) -> int:
    """The slice of where an annotation begins."""
    begin = item["points"][0] if "points" in item else item.get("point") or item.get("pointA") or item["center"]
    return math.floor(float(begin[2]))


def told(progress: Json) -> Json:
    """The answer in the form of `recounted`."""
    names = {"blocks": "directory", "slices": "slice", "authors": "author", "types": "anntype"}
    assert progress["unreadable"] == []
    left = ("block", "index", "start", "stop", "leaves")
    return {
        **{name: progress[name] for name in ("total", "reviewed", "visited")},
        **{
            name: {
                row[key]: {member: value for member, value in row.items() if member not in (key, *left)}
                for row in progress[name]
            }
            for name, key in names.items()
        },
    }


NUMBERS = st.integers(0, 7)
AUTHORS = st.sampled_from(["alice", "bob", "carol"])
PLACES = st.floats(-3, 40).map(lambda number: round(number, 2))
SHAPES = st.one_of(
    st.builds(lambda x, z: {"type": "point", "point": [x, 1, z]}, PLACES, PLACES),
    st.builds(lambda z, w: {"type": "linestring", "points": [[1, 2, z], [3, 4, w]]}, PLACES, PLACES),
    st.builds(lambda z, w: {"type": "polygon", "points": [[1, 2, z], [3, 4, z], [5, 6, w]]}, PLACES, PLACES),
    st.builds(lambda z, w: {"type": "line", "pointA": [1, 2, z], "pointB": [3, 4, w]}, PLACES, PLACES),
    st.builds(lambda z: {"type": "ellipsoid", "center": [1, 2, z], "radii": [1, 1, 9]}, PLACES),
)
DRAWN = st.builds(
    lambda shape, number, anntype, flags: {"id": f"a{number}", **shape, "anntype": anntype, **flags},
    SHAPES,
    NUMBERS,
    st.sampled_from(["neuron", "glia"]),
    st.sampled_from([{}, {"visited": True}, {"reviewed": True}, {"reviewed": False, "visited": False}]),
)
LEAVES = st.sampled_from([f"{block}/{leaf}" for block in (BLOCK, "b1,0,0") for leaf in ("fibers", "z-0003")])
EDITS = st.one_of(
    st.tuples(st.just("put"), LEAVES, AUTHORS, DRAWN),
    st.tuples(st.just("move"), LEAVES, AUTHORS, DRAWN),
    st.tuples(st.just("save"), LEAVES, AUTHORS, st.lists(DRAWN, unique_by=lambda item: item["id"], max_size=4)),
    st.tuples(st.just("other tool"), LEAVES, AUTHORS, st.lists(DRAWN, unique_by=lambda item: item["id"], max_size=4)),
    st.tuples(st.just("delete"), LEAVES, AUTHORS, NUMBERS),
    st.tuples(st.just("confirm"), LEAVES, AUTHORS, st.lists(NUMBERS, min_size=1, max_size=4)),
    st.tuples(st.just("withdraw"), LEAVES, AUTHORS, st.lists(NUMBERS, min_size=1, max_size=4)),
    st.tuples(st.just("confirm slice"), LEAVES, AUTHORS, st.integers(-3, 40)),
    st.tuples(st.just("restore"), LEAVES, AUTHORS, st.integers(0, 3)),
)


async def edit(client: Client, root: Path, kind: str, leaf: str, author: str, given: Any) -> None:  # noqa: ANN401
    """Make one edit; whether it is refused does not matter."""
    url = f"/~{author}{DATASET}/{leaf}.json"
    block, name = leaf.split("/")
    review = f"/~{author}{DATASET}/review"
    if kind == "put":
        await client.patch(f"{url}?id={given['id']}", json=given)
    elif kind == "move":
        fields = {field: value for field, value in given.items() if field not in ("id", "anntype")}
        gone = dict.fromkeys({"point", "points", "pointA", "pointB", "center", "radii"} - fields.keys())
        headers = {"Content-Type": "application/merge-patch+json"}
        await client.patch(f"{url}?id={given['id']}", data=json.dumps(fields | gone), headers=headers)
    elif kind == "save":
        await client.get(url)
        await client.put(url, json=given)
    elif kind == "other tool":
        path = root / "brain" / "annotations" / block
        path.mkdir(exist_ok=True)
        (path / f"{name}.json").write_text(json.dumps(given))
    elif kind == "delete":
        await client.delete(f"{url}?id=a{given}")
    elif kind == "confirm slice":
        await client.post(review, json={"reviewed": True, "where": {"slice": given}})
    elif kind == "restore":
        await client.post(f"{url.removesuffix('.json')}/restore", json={"version": given})
    else:
        ids = [f"a{number}" for number in given]
        body = {"reviewed": kind == "confirm", "annotations": [{"block": block, "leaf": name, "ids": ids}]}
        await client.post(review, json=body)


async def compared(root: Path, edits: list[tuple[str, str, str, Any]]) -> None:
    """Make the edits, and look at the progress after each few of them."""
    app = await asyncio.to_thread(
        create_app, settings.load(root, {"state": str(root.parent / "state"), "workers": 1}, {})
    )
    async with TestClient(TestServer(app)) as client:
        for number, (kind, leaf, author, given) in enumerate(edits):
            await edit(client, root, kind, leaf, author, given)
            if number % 4 == 3:
                assert told(await progress_of(client)) == await recounted(client)
        progress = await progress_of(client)
        assert told(progress) == await recounted(client)
        rows = (await (await client.get(f"{DATASET}/review?limit=1000")).json())["annotations"]
        assert len(rows) == progress["total"] - progress["reviewed"]
        assert not any(row["state"] == "reviewed" for row in rows)


@pytest.mark.usefixtures("no_waiting_for_the_disk")
def test_the_counts_are_those_of_what_every_leaf_answers() -> None:
    @given(edits=st.lists(EDITS, min_size=1, max_size=14))
    @sizes(max_examples=40, deadline=None)
    def example(edits: list[tuple[str, str, str, Any]]) -> None:
        directory = Path(tempfile.mkdtemp())
        try:
            write_dataset(directory / "data" / "brain", volume((1, 6, 8, 10), "uint8"))
            (directory / "data" / "brain" / "annotations" / BLOCK).mkdir(parents=True)
            asyncio.run(compared(directory / "data", edits))
        finally:
            shutil.rmtree(directory)

    example()


async def test_slices_are_those_of_the_annotations_where_the_leaves_names_lie(connect: Connect, place: Place) -> None:
    """At 2,000 nm a slice, the client names slices 20, 25 and 30 all `z-0000`."""
    client = await connect()
    at = {1: 20, 2: 25.9, 3: 30}
    items = [point(number, 1, 1, z) for number, z in at.items()]
    contour = {"id": "c", "type": "polygon", "points": [[1, 1, 25.2], [2, 2, 26], [3, 3, 30]], "anntype": "soma"}
    await client.put(f"/~page{DATASET}/{BLOCK}/z-0000.json", json=[*items, contour])
    assert [(row["slice"], row["total"]) for row in (await progress_of(client))["slices"]] == [
        (20, 1),
        (25, 2),
        (30, 1),
    ]


async def test_what_has_no_place_is_counted_in_no_slice(connect: Connect, place: Place) -> None:
    items = [A, {"id": "odd"}, {"id": "far", "type": "point", "point": [1, 2, 1e300]}, {"id": "o", "type": "polygon"}]
    place.file().write_text(json.dumps(items))
    client = await connect()
    progress = await progress_of(client)
    assert [(row["slice"], row["total"]) for row in progress["slices"]] == [(3, 1), (None, 3)]
    rows = (await (await client.get(f"{DATASET}/review?slice=&type=")).json())["annotations"]
    assert [(row["id"], row["position"]) for row in rows] == [("odd", None)]


async def test_a_damaged_leaf_is_told_and_the_others_are_counted(connect: Connect, place: Place) -> None:
    place.file().write_text("[{")
    place.file("centroids").write_text(json.dumps([A, B]))
    client = await connect()
    progress = await progress_of(client)
    assert progress["total"] == 2
    (row,) = progress["unreadable"]
    assert (row["block"], row["leaf"]) == (BLOCK, "fibers")
    assert str(place.root) not in row["detail"]


async def test_of_a_damaged_leaf_the_last_good_version_counts(connect: Connect, place: Place) -> None:
    client = await connect()
    await client.put(f"/~page{DATASET}/{BLOCK}/fibers.json", json=[A, B])
    place.file().write_text("[{")
    assert told(await progress_of(client)) == await recounted(client)
    assert (await progress_of(client))["total"] == 2


async def test_a_dataset_without_annotations_and_what_is_no_dataset(connect: Connect, place: Place) -> None:
    place.block.rmdir()
    place.block.parent.rmdir()
    client = await connect()
    progress = await progress_of(client)
    assert (progress["total"], progress["blocks"], progress["slices"]) == (0, [], [])
    assert (await client.get("/nothing/annotations/progress")).status == 404


async def test_links_count_once(connect: Connect, place: Place) -> None:
    place.file().write_text(json.dumps([A]))
    (place.block / "again.json").symlink_to("fibers.json")
    (place.block / "out.json").symlink_to("/etc/passwd")
    (place.block.parent / "twice").symlink_to(BLOCK)
    client = await connect()
    assert (await progress_of(client))["total"] == 1


async def test_what_has_not_changed_is_answered_304_and_counted_once(
    connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await connect()
    leaves = ("fibers", "centroids", "z-0003")
    for number, leaf in enumerate(leaves):
        await client.put(f"/~page{DATASET}/{BLOCK}/{leaf}.json", json=[some(3)[number]])
    counted: list[str] = []
    whole = survey.Survey.counted

    def watched(self: survey.Survey, location: Location) -> Any:  # noqa: ANN401
        counted.append(location.leaf)
        return whole(self, location)

    monkeypatch.setattr(survey.Survey, "counted", watched)
    first = await client.get(f"{DATASET}/progress")
    assert sorted(counted) == sorted(leaves)
    counted.clear()
    again = await client.get(f"/~other{DATASET}/progress", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, counted, again.headers["Cache-Control"]) == (304, [], "no-cache")
    await client.patch(f"/~bob{DATASET}/{BLOCK}/fibers.json?id={D['id']}", json=D)
    third = await client.get(f"{DATASET}/progress", headers={"If-None-Match": first.headers["ETag"]})
    assert (third.status, counted, (await third.json())["total"]) == (200, ["fibers"], 4)
    # Another worker counts the same.
    other = await connect()
    assert (await other.get(f"{DATASET}/progress")).headers["ETag"] == third.headers["ETag"]
    assert (await other.head(f"{DATASET}/progress")).headers["ETag"] == third.headers["ETag"]


async def test_a_large_leaf_is_counted_in_a_process_of_its_own(
    connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await connect()
    await client.put(f"/~page{DATASET}/{BLOCK}/fibers.json", json=some(5))
    monkeypatch.setattr(survey, "_LARGE", 100)

    def never(*_: object) -> None:
        raise AssertionError("a serving process parses a large leaf")

    monkeypatch.setattr(survey, "tally_of", never)
    monkeypatch.setattr(survey, "rows_of", never)
    progress = await progress_of(client)
    assert [(row["author"], row["total"]) for row in progress["authors"]] == [("page", 5)]
    part = await (await client.get(f"{DATASET}/review?limit=3")).json()
    assert (len(part["annotations"]), part["matching"]) == (3, 5)
    assert (await client.post(f"{DATASET}/review", json={"reviewed": True, "where": {"slice": 3}})).status == 200
    assert (await progress_of(client))["reviewed"] == 5


async def test_requests_at_the_same_time_count_once(
    connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.file().write_text(json.dumps(some(3)))
    os.utime(place.file(), (1_700_000_000, 1_700_000_000))
    client = await connect()
    counted: list[Location] = []
    whole = survey.Survey.counted

    def watched(self: survey.Survey, location: Location) -> Any:  # noqa: ANN401
        counted.append(location)
        time.sleep(0.3)
        return whole(self, location)

    monkeypatch.setattr(survey.Survey, "counted", watched)
    answers = await asyncio.gather(*(client.get(f"{DATASET}/progress") for _ in range(8)))
    assert {answer.status for answer in answers} == {200}
    assert len(counted) == 1


def drew(editor: Editor, found: survey.Survey | None = None) -> dict[str | None, int]:
    """How many annotations of the leaf `fibers` each author drew."""
    found = found or survey.Survey(editor.store, 1 << 20)
    (leaf,) = found.leaves("brain", [BLOCK])
    counts: Counter[str | None] = Counter()
    for kind, each in found.count(leaf).counts.items():
        counts[kind.author] += each.total
    return dict(counts)


def test_whoever_drew_it_stays_its_author(editor: Editor, place: Place) -> None:
    editor.save([A, B], author="alice")
    editor.put(A | {"description": "bob's"}, author="bob")
    editor.delete(B["id"], author="bob")
    editor.put(C, author="carol")
    assert drew(editor) == {"alice": 1, "carol": 1}
    editor.put(B, author="bob")
    assert drew(editor) == {"alice": 1, "bob": 1, "carol": 1}
    place.file().write_text(json.dumps([A, C, D]))
    assert drew(editor) == {"alice": 1, "carol": 1, "external": 1}


def test_the_log_is_read_on_from_where_it_was_read_to(editor: Editor, place: Place) -> None:
    found = survey.Survey(editor.store, 1 << 20)
    for number, author in enumerate(["alice", "bob", "alice", "carol"]):
        editor.put(some(4)[number], author=author)
        assert sum(drew(editor, found).values()) == number + 1
    assert drew(editor, found) == {"alice": 2, "bob": 1, "carol": 1}
    # A crash takes the last group back, and another one, longer or shorter, comes in its place.
    log, file = place.log.read_bytes(), place.file().read_bytes()
    for author in ("dave", "erin-whose-name-is-long", "f"):
        editor.put(point(50, 1, 1, 3), author=author)
        assert drew(editor, found) == {"alice": 2, "bob": 1, "carol": 1, author: 1}
        place.log.write_bytes(log)
        place.file().write_bytes(file)


def test_after_a_compaction_nobody_knows_who_drew_what_is_too_old(editor: Editor) -> None:
    editor.save([A, B], author="alice")
    later = datetime.now(UTC) + timedelta(days=200)
    location = editor.store.locate("brain", BLOCK, "fibers")
    compact_block(editor.store, BlockOf(BLOCK, location.directory), 90, later)
    editor.put(C, author="bob")
    assert drew(editor) == {None: 2, "bob": 1}


def test_memory_is_bounded_and_the_counts_stay_right(editor: Editor) -> None:
    for number in range(30):
        editor.put(point(number, 1, 1, number), author=f"author{number}", leaf=f"z-{number:04d}")
    found = survey.Survey(editor.store, 3000)
    leaves = found.leaves("brain", [BLOCK])
    assert all(found.count(leaf).sum.total == 1 for leaf in leaves)
    assert sum(found.known(leaf) is not None for leaf in leaves) <= 3
    assert {kind.author for leaf in leaves for kind in found.count(leaf).counts} == {f"author{n}" for n in range(30)}
