"""The annotations as Neuroglancer's collections: what is in them, and that it is what the leaves say now."""

from __future__ import annotations

import json
import os
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_store.edits import ChangeFields
from annotation_store.model import Item
from annotation_store.orders import Restore
from annotation_store.review import REVIEW, confirmed, is_confirmed, is_visited
from annotation_store.views import numbers
from annotation_store.views.dataset import DatasetView
from annotation_store.views.numbers import label_number, number_of
from tests.annotation_store import drawn
from tests.annotation_store.precomputed import (
    answered,
    collection_of,
    decoded,
    decoded_one,
    everything,
    expected_points,
    info_of,
    view_of,
    volume_of,
)
from tests.annotation_store.support import Editor, Place, some, written
from tests.data import point

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TYPE_OF = {"polygon": "polyline", "linestring": "polyline"}
FIBRE = {"id": "f1", "type": "linestring", "points": [[1, 2, 3], [4, 5, 6.25], [7, 8, 9]], "anntype": "axon"}


pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


def names(view: DatasetView) -> list[str]:
    """The collections that hold something."""
    return [str(name) for name in view.names()]


def shown(view: DatasetView) -> dict[str, dict[int, Any]]:
    """Everything that the view shows, by collection."""
    return {name: everything(collection_of(view, name)) for name in names(view)}


def test_what_has_two_names_is_shown_once(editor: Editor, place: Place) -> None:
    """By its own name; and by the other one when only that is left."""
    editor.replace([FIBRE])
    outside = place.root / "all.json"
    outside.write_bytes(written(some(2)))
    for name, target in (("again", "fibers.json"), ("one", "../../../all.json"), ("two", "../../../all.json")):
        place.file(name).symlink_to(target)
    (place.block.parent / "twice").symlink_to("x0y0z0")
    view = view_of(place)
    assert names(view) == ["fibers-polyline", "one-point"]
    place.file("one").unlink()
    view.refresh()
    assert names(view) == ["fibers-polyline", "two-point"]


def assert_shows(view: DatasetView, leaf: str, stored: dict[str, Item]) -> None:
    """The view has exactly these annotations of the leaf, each at its place, with its flags and type."""
    kind = "contours" if leaf.startswith("z-") else leaf
    seen = {(name, number): one for name, found in shown(view).items() for number, one in found.items()}
    wanted = {(f"{kind}-{TYPE_OF.get(item['type'], item['type'])}", number_of(id)) for id, item in stored.items()}
    assert {key for key in seen if key[0].startswith(f"{kind}-")} == wanted
    for id, item in stored.items():
        one = seen[f"{kind}-{TYPE_OF.get(item['type'], item['type'])}", number_of(id)]
        assert one.points == expected_points(item)
        assert (one.reviewed, one.visited) == (is_confirmed(item), is_visited(item))
        assert one.anntype == label_number(item.get("anntype") or "")


def test_a_kind_of_leaf_and_a_type_of_geometry_make_a_collection(place: Place, editor: Editor) -> None:
    polygon = {"id": "c", "type": "polygon", "points": [[1, 2, 20.5], [4, 5, 20.5], [4, 2, 20.5]]}
    box = {"id": "b", "type": "axis_aligned_bounding_box", "pointA": [1, 2, 3], "pointB": [4, 5, 6]}
    line = {"id": "l", "type": "line", "pointA": [1, 2, 3], "pointB": [4, 5, 6]}
    ball = {"id": "e", "type": "ellipsoid", "center": [1, 2, 3], "radii": [4, 5, 6]}
    leaves = {"fibers": [FIBRE, line], "centroids": [point(1, 1, 2, 3), ball], "z-0020": [polygon], "vessels": [box]}
    for leaf, items in leaves.items():
        editor.replace(items, leaf=leaf)
    editor.put(polygon | {"id": "c2"}, leaf="z-0021")
    view = view_of(place)
    assert names(view) == [
        *("centroids-ellipsoid", "centroids-point", "contours-polyline", "fibers-line", "fibers-polyline"),
        "vessels-axis_aligned_bounding_box",
    ]
    for leaf in ("fibers", "centroids", "vessels"):
        assert_shows(view, leaf, place.stored(leaf))
    contours = everything(collection_of(view, "contours-polyline"))
    assert {one.points for one in contours.values()} == {expected_points(polygon)}
    assert contours.keys() == {number_of("c"), number_of("c2")}
    assert info_of(collection_of(view, "contours-polyline"))["annotation_type"] == "POLYLINE"
    assert collection_of(view, "contours-line").answer("info", (1, 1, 1)) is not None, "a fixed kind, if only empty"


def test_info_lies_over_the_image(place: Place, editor: Editor) -> None:
    editor.put(FIBRE)
    info = info_of(collection_of(view_of(place, volume_of((100, 80, 60), (10, -20, 30))), "fibers-polyline"))
    assert info["dimensions"] == {"x": [1.8e-6, "m"], "y": [1.8e-6, "m"], "z": [2e-6, "m"]}
    assert list(info["dimensions"]) == ["x", "y", "z"]
    assert (info["lower_bound"], info["upper_bound"]) == ([10, -20, 30], [110, 60, 90])
    assert info["spatial"][0]["grid_shape"] == [1, 1, 1]
    assert info["spatial"][0]["chunk_size"] == [100, 80, 60]
    assert info["@type"] == "neuroglancer_annotations_v1"


def test_properties_say_who_edited_last_and_when(place: Place, editor: Editor) -> None:
    editor.put(FIBRE, author="alice")
    editor.put(FIBRE | {"id": "f2"}, author="alice")
    editor.commit(ChangeFields("f2", {"anntype": "dendrite"}), author="bob")
    collection = collection_of(view_of(place), "fibers-polyline")
    found = everything(collection)
    one, other = found[number_of("f1")], found[number_of("f2")]
    labels = {
        named["id"]: dict(zip(named["enum_values"], named["enum_labels"], strict=True))
        for named in info_of(collection)["properties"]
        if "enum_values" in named
    }
    assert (labels["author"][one.author], labels["author"][other.author]) == ("alice", "bob")
    assert (labels["anntype"][one.anntype], labels["anntype"][other.anntype]) == ("axon", "dendrite")
    assert labels["reviewed"] == {0: "no", 1: "yes"}
    assert 0 <= datetime.now(UTC).timestamp() - one.time < 60
    assert one.time <= other.time


def test_who_confirms_an_annotation_is_not_its_editor(place: Place, editor: Editor) -> None:
    editor.put(FIBRE, author="alice")
    review = confirmed(FIBRE, "pi", NOON)[REVIEW]
    for times in range(3):
        editor.commit(ChangeFields("f1", {REVIEW: {**review, "times": times}}), author="pi")
    editor.put(FIBRE | {"id": "f2"}, author="bob")
    collection = collection_of(view_of(place), "fibers-polyline")
    (authors,) = (each for each in info_of(collection)["properties"] if each["id"] == "author")
    shown = {one.id: one.author for one in everything(collection).values()}
    labels = dict(zip(authors["enum_values"], authors["enum_labels"], strict=True))
    assert [labels[shown[number_of(id)]] for id in ("f1", "f2")] == ["alice", "bob"]


def test_what_nobody_edited_has_no_author_and_no_time(place: Place, editor: Editor) -> None:
    place.file().write_bytes(written([FIBRE, FIBRE | {"id": "f2"}]))
    editor.put(FIBRE | {"id": "f3"}, author="alice")
    found = everything(collection_of(view_of(place), "fibers-polyline"))
    assert [(found[number_of(id)].author, found[number_of(id)].time > 0) for id in ("f1", "f2", "f3")] == [
        (0, False),
        (0, False),
        (label_number("alice"), True),
    ]


def test_another_tool_takes_the_author_of_what_it_changed_only(place: Place, editor: Editor) -> None:
    editor.replace([FIBRE, FIBRE | {"id": "f2"}], author="alice")
    changed = [FIBRE, FIBRE | {"id": "f2", "anntype": "other"}]
    place.file().write_text(json.dumps(changed))
    editor.put(FIBRE | {"id": "f3"}, author="bob")
    for view in (view_of(place), view_of(place)):
        found = everything(collection_of(view, "fibers-polyline"))
        assert [found[number_of(id)].author for id in ("f1", "f2", "f3")] == [
            *(label_number("alice"), 0, label_number("bob"))
        ]


def test_a_person_confirms_and_the_clients_click_only_looks(place: Place, editor: Editor) -> None:
    editor.replace([confirmed(FIBRE, "alice", NOON), FIBRE | {"id": "f2", "reviewed": True}, FIBRE | {"id": "f3"}])
    found = everything(collection_of(view_of(place), "fibers-polyline"))
    flags = [(found[number_of(id)].reviewed, found[number_of(id)].visited) for id in ("f1", "f2", "f3")]
    assert flags == [(1, 1), (0, 1), (0, 0)]


def test_objects_are_related_whether_they_are_numbers_texts_or_nested(place: Place, editor: Editor) -> None:
    large = str(2**64 - 1)
    segments: list[Any] = [["7", "8"], [7, 8], [["7"], ["8", large]], ["7", "no object", -1, 2**63, str(2**64)]]
    editor.replace([FIBRE | {"id": str(at), "segments": named} for at, named in enumerate(segments)])
    collection = collection_of(view_of(place), "fibers-polyline")
    assert [each["id"] for each in info_of(collection)["relationships"]] == ["segments"]
    related = {
        object: {each.id for each in decoded("polyline", answered(collection, f"segments/{object}"))}
        for object in ("7", "8", large, "9")
    }
    assert related == {
        "7": {number_of(str(at)) for at in range(4)},
        "8": {number_of(str(at)) for at in range(3)},
        large: {number_of("2")},
        "9": set(),
    }
    assert decoded_one("polyline", answered(collection, f"by_id/{number_of('3')}"), 0)[1] == [7, 2**63]


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "text"},
        {"type": ["point"]},
        {"type": "point", "point": [1, 2]},
        {"type": "point", "point": [1, 2, "3"]},
        {"type": "point", "point": "123"},
        {"type": "point", "point": {"1": 1, "2": 2, "3": 3}},
        {"type": "point"},
        {"type": "linestring", "points": []},
        {"type": "linestring", "points": [[1, 2, 3], [1, 2], [1, 2, 3, 4]]},
        {"type": "linestring", "points": [1, 2, 3]},
        {"type": "line", "pointA": [1, 2, 3]},
        {},
    ],
)
def test_what_has_no_place_is_left_out_and_hides_no_other(place: Place, odd: dict[str, Any]) -> None:
    place.file().write_text(json.dumps([{"id": "odd", **odd}, FIBRE, point(1, 1, 2, 3)]))
    view = view_of(place)
    assert names(view) == ["fibers-point", "fibers-polyline"]
    assert [len(found) for found in shown(view).values()] == [1, 1]


@pytest.mark.parametrize("damaged", [b"[{]", b"[\n{\n]\n", b"\xff", b'{"a": 1}', b'[\n{"id":"a"},\n{"id":"a"}\n]\n'])
def test_a_damaged_leaf_hides_no_other(place: Place, editor: Editor, damaged: bytes) -> None:
    editor.put(FIBRE)
    place.file("centroids").write_bytes(damaged)
    assert names(view_of(place)) == ["fibers-polyline"]
    place.file().write_bytes(damaged)
    assert_shows(view_of(place), "fibers", {"f1": FIBRE})  # the last good version, as GET answers it


@pytest.mark.parametrize("text", ["[\n\n]\n", "[]", "", "[\n]\n"])
def test_an_empty_leaf_shows_nothing(place: Place, text: str) -> None:
    place.file().write_text(text)
    assert names(view_of(place)) == []


@pytest.mark.parametrize("indent", [None, 2])
def test_a_leaf_in_any_other_spelling_is_read(place: Place, indent: int | None) -> None:
    place.file().write_text(json.dumps(some(3), indent=indent) + "\n")
    assert len(everything(collection_of(view_of(place), "fibers-point"))) == 3


def test_coordinates_past_single_precision_stay_finite(place: Place, editor: Editor) -> None:
    editor.replace([point(1, 1e300, -1e300, 2**62), point(2, 0.1, 1e-300, 3)])
    found = everything(collection_of(view_of(place), "fibers-point"))
    largest = 3.4028234663852886e38
    assert found[number_of(f"{1:040x}")].points == ((largest, -largest, 2.0**62),)


def test_two_leaves_with_one_id_are_both_shown_and_found(place: Place, editor: Editor) -> None:
    for leaf in ("z-0020", "z-0021"):
        editor.put(FIBRE, leaf=leaf)
    view = view_of(place)
    assert len(decoded("polyline", answered(collection_of(view, "contours-polyline"), "spatial-0/0_0_0"))) == 2
    found = view.find(number_of("f1"))
    assert found is not None
    assert found.to_json() == {
        "id": "f1",
        "block": "x0y0z0",
        "leaf": "z-0020",
        "also": [{"block": "x0y0z0", "leaf": "z-0021"}],
    }
    assert view.find(1) is None


@pytest.fixture
def short_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers of three values only: every fourth id collides."""
    monkeypatch.setattr("annotation_store.views.rows.number_of", lambda id: number_of(id) % 3)
    monkeypatch.setattr("annotation_store.views.dataset.number_of", lambda id: number_of(id) % 3)


def numbers_of(view: DatasetView) -> dict[str, int]:
    """The number of each id."""
    collection = collection_of(view, "fibers-point")
    rows = collection.members.rows
    return dict(zip(rows.ids.tolist(), rows.numbers.tolist(), strict=True))


@pytest.mark.usefixtures("short_numbers")
@pytest.mark.parametrize("seed", range(8))
def test_numbers_that_collide_are_settled_once_for_all(place: Place, editor: Editor, seed: int) -> None:
    """Whatever is added, deleted and added again: an annotation that stays keeps its number, in every process."""
    chance = random.Random(seed)
    seen: dict[str, int] = {}
    old = view_of(place)
    for step in range(16):
        ids = sorted(place.stored())
        if ids and chance.random() < 0.4:
            editor.delete(gone := chance.choice(ids))
            seen.pop(gone, None)
        else:
            editor.put(point(chance.randrange(8), step, 2, 3))
        for view in [old] if step % 2 else [view_of(place), old, view_of(place)]:
            view.refresh()
            now = numbers_of(view) if names(view) else {}
            assert len(set(now.values())) == len(now) == len(place.stored()), "two have the same number"
            assert all(seen.get(id, number) == number for id, number in now.items()), "a number has changed"
            seen |= now
            for id, number in now.items():
                found = view.find(number)
                assert found is not None
                assert found.id == id


@pytest.mark.usefixtures("short_numbers")
def test_where_nothing_can_be_written_the_log_says_who_was_first(place: Place, editor: Editor) -> None:
    for number in (3, 1, 2, 7, 5, 4):
        editor.put(point(number, 1, 2, 3), arrived=number)
    (place.history.parent / "id64.jsonl").mkdir()  # nothing can take its place
    known = numbers_of(view_of(place))
    assert len(set(known.values())) == 6
    assert numbers_of(view_of(place)) == known


def test_a_number_is_the_first_half_of_the_hash_most_significant_byte_first() -> None:
    assert f"{numbers.number_of('abc'):016x}" == "ba7816bf8f01cfea"


def edits_of(data: st.DataObject, editor: Editor, leaf: str) -> None:
    """One edit, whichever, by whatever way."""
    stored = editor.place.stored(leaf)
    kind = data.draw(st.sampled_from(["put", "patch", "merge", "delete", "save", "restore", "tool"]))
    ids = sorted(stored)
    if kind == "delete" and ids:
        editor.delete(data.draw(st.sampled_from(ids)), leaf=leaf)
    elif kind == "merge" and ids:
        editor.commit(ChangeFields(data.draw(st.sampled_from(ids)), {"anntype": "changed"}), leaf=leaf, author="bob")
    elif kind == "save":
        items = [item for id, item in stored.items() if id != (ids or [""])[0]] + [data.draw(drawn.items())]
        editor.save({item["id"]: item for item in items}.values(), leaf=leaf)
    elif kind == "restore" and editor.version(leaf) > 0:
        editor.commit(Restore(data.draw(st.integers(1, editor.version(leaf))), None, None), leaf=leaf)
    elif kind == "tool":
        editor.place.file(leaf).write_text(json.dumps([*stored.values()], indent=data.draw(st.sampled_from([None, 1]))))
    elif kind == "patch" and ids:
        editor.put(data.draw(drawn.items()) | {"id": ids[0]}, leaf=leaf)
    else:
        editor.put(data.draw(drawn.items()), leaf=leaf, author="alice")


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for the examples."""
    return tmp_path_factory.mktemp("roots")


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_edit_is_in_the_view_in_the_same_version(roots: Path, data: st.DataObject) -> None:
    place = Place(roots / str(len(list(roots.iterdir()))) / "data")
    place.block.mkdir(parents=True)
    editor = Editor(place)
    view = view_of(place, volume_of((2**20, 2**20, 2**20), (-(2**19),) * 3))
    try:
        for _ in range(data.draw(st.integers(1, 8))):
            edits_of(data, editor, leaf := data.draw(st.sampled_from(["fibers", "z-0020"])))
            view.refresh()
            for leaf in ("fibers", "z-0020"):
                assert_shows(view, leaf, place.stored(leaf))
        anew = view_of(place, volume_of((2**20, 2**20, 2**20), (-(2**19),) * 3))
        assert names(anew) == names(view)
        for name in names(view):  # another worker, which was never asked before, answers the same bytes
            ours, others = collection_of(view, name), collection_of(anew, name)
            assert info_of(ours) == info_of(others)
            for level in info_of(ours)["spatial"]:
                assert answered(ours, f"{level['key']}/0_0_0") == answered(others, f"{level['key']}/0_0_0")
    finally:
        editor.close()


@pytest.mark.parametrize("between", [True, False])
def test_an_annotation_that_is_as_before_has_its_new_author(place: Place, editor: Editor, between: bool) -> None:
    editor.put(FIBRE, author="alice")
    view = view_of(place)
    editor.delete("f1", author="bob")
    if between:
        view.refresh()
        assert names(view) == []
    editor.put(FIBRE, author="carol")
    view.refresh()
    assert everything(collection_of(view, "fibers-polyline"))[number_of("f1")].author == label_number("carol")


def test_a_file_that_is_replaced_within_a_tick_is_read_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def of_coarse_clock(status: os.stat_result) -> tuple[int, ...]:
        tick_ns = 10**7
        times = (status.st_mtime_ns // tick_ns * tick_ns, status.st_ctime_ns // tick_ns * tick_ns)
        return status.st_ino, status.st_size, *times

    monkeypatch.setattr("annotation_store.views.leaves._state_of", of_coarse_clock)
    view = view_of(place)
    for x in range(100, 150):
        place.file().write_bytes(written([FIBRE | {"points": [[x, 1, 1], [2, 2, 2]]}]))
        view.refresh()
        assert collection_of(view, "fibers-polyline").members.rows.points.values[0, 0] == x


def test_leaves_reached_through_links_are_shown(place: Place, editor: Editor) -> None:
    editor.put(FIBRE)
    (place.root / "all.json").write_bytes(written([FIBRE]))
    place.file("axons").symlink_to("../../../all.json")
    place.file("outside").symlink_to("/etc/passwd")
    place.file("gone").symlink_to("nothing.json")
    view = view_of(place)
    assert names(view) == ["axons-polyline", "fibers-polyline"]
    (place.root / "all.json").write_bytes(written([FIBRE | {"anntype": "other"}]))
    view.refresh()
    assert everything(collection_of(view, "axons-polyline"))[number_of("f1")].anntype == label_number("other")


def test_blocks_make_one_collection(place: Place, editor: Editor) -> None:
    editor.put(FIBRE)
    second = Place(place.root)
    (second.block.parent / "x1y0z0").mkdir()
    (second.block.parent / "x1y0z0" / "fibers.json").write_bytes(written([FIBRE | {"id": "f2"}]))
    view = view_of(place)
    assert everything(collection_of(view, "fibers-polyline")).keys() == {number_of("f1"), number_of("f2")}
    found = view.find(number_of("f2"))
    assert found is not None
    assert (found.block, found.leaf) == ("x1y0z0", "fibers")


def test_the_volume_may_have_one_voxel(place: Place, editor: Editor) -> None:
    editor.put(FIBRE)
    assert_shows(view_of(place, volume_of((1, 1, 1))), "fibers", {"f1": FIBRE})
