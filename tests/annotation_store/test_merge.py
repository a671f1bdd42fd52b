"""Whole-file saves against what is stored: what the client did not touch is no edit, what it touched is one."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from annotation_store.edits import DeleteOne, Edit, PutOne, ReplaceAll, apply
from annotation_store.merge import KNOWN, merged, same_value
from annotation_store.model import GEOMETRY, Item, Items, check_item
from precomputed_server.errors import NotFound
from tests.annotation_store.support import by_id, some

QUICK = settings(max_examples=150, deadline=None)

coordinates = st.floats(-1e6, 1e6, allow_nan=False) | st.integers(-(2**31), 2**31)
vectors = st.lists(coordinates, min_size=3, max_size=3)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", ""]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
unknown = st.dictionaries(st.sampled_from(["colour", "who", "größe", "n", "nested"]), values, max_size=3)


@st.composite
def items(draw: st.DrawFn) -> Item:
    """An annotation of any type as a store may hold it, with fields that no client knows."""
    kind = draw(st.sampled_from(list(GEOMETRY)))
    item: Item = {"id": draw(st.text("0123456789abcdef", min_size=1, max_size=4)), "type": kind}
    for field in GEOMETRY[kind]:
        item[field] = draw(st.lists(vectors, min_size=1, max_size=4) if field == "points" else vectors)
    item |= draw(
        st.fixed_dictionaries(
            {"anntype": st.sampled_from(["neuron", "vessel"]), "reviewed": st.booleans(), "visited": st.booleans()},
            optional={
                "description": st.text(st.characters(codec="utf-8"), max_size=6),
                "segments": st.sampled_from([[], [[]], [["5"]], [["1", "2"], ["3"]]]),
                "length": st.floats(0, 1e9) | st.integers(0, 2**53),
            },
        )
    )
    return item | draw(unknown)


leaves = st.lists(items(), max_size=5).map(by_id)


def through_the_client(item: Item) -> Item:
    """What the NeuroTrALE client sends for an annotation that it did not touch."""
    sent: Item = {}
    for field, value in item.items():
        if field not in KNOWN or (field in ("description", "segments") and value in ("", [], [[]])):
            continue
        sent[field] = copy.deepcopy(value)
        if field in ("point", "pointA", "pointB", "center", "radii"):
            sent[field] = [whole(float(np.float32(length))) for length in value]
        elif field == "points":
            sent[field] = [[whole(float(length)) for length in point] for point in value]
        elif field == "length":
            sent[field] = int(value)
    return sent


def whole(number: float) -> float:
    """JavaScript writes 5.0 as 5."""
    return int(number) if number == int(number) else number


def saved(stored: Items, order: int = 1) -> Items:
    """The whole file as the client sends it, in another order."""
    return {id: through_the_client(stored[id]) for id in sorted(stored, key=lambda id: stored[id]["anntype"])[::order]}


@QUICK
@given(leaves, st.sampled_from([1, -1]))
def test_a_save_without_an_edit_is_none(stored: Items, order: int) -> None:
    sent = json.loads(json.dumps(saved(stored, order)))
    assert ReplaceAll(sent).edits(stored) == []
    assert ReplaceAll(stored).edits(stored) == []
    assert ReplaceAll(copy.deepcopy(stored), exact=True).edits(stored) == []


@QUICK
@given(leaves, st.data())
def test_an_edit_of_one_field_changes_only_that(stored: Items, data: st.DataObject) -> None:
    assume(stored)
    sent = saved(stored)
    id = data.draw(st.sampled_from(sorted(sent)))
    field = data.draw(st.sampled_from([*GEOMETRY[sent[id]["type"]], "reviewed", "description", "length"]))
    edited: Any = {
        "reviewed": not sent[id]["reviewed"],
        "description": sent[id].get("description", "") + "!",
        "length": int(sent[id].get("length", 0)) + 1,
        "points": [*sent[id].get("points", []), [1, 2, 3]],
    }.get(field, [7, 8, 1e9])
    sent[id] = {**sent[id], field: edited}
    edits = ReplaceAll(sent).edits(stored)
    assert edits == [Edit("change", id, {**stored[id], field: edited})]
    assert apply(stored, edits) == {**stored, id: {**stored[id], field: edited}}


@QUICK
@given(leaves, leaves)
def test_an_exact_save_brings_what_it_says(stored: Items, wanted: Items) -> None:
    edits = ReplaceAll(wanted, exact=True).edits(stored)
    result = apply(stored, edits)
    assert json.dumps(result, sort_keys=True) == json.dumps(wanted, sort_keys=True)
    assert {edit.id for edit in edits} >= stored.keys() ^ wanted.keys()
    assert ReplaceAll(wanted, exact=True).edits(result) == []


@QUICK
@given(leaves, leaves)
def test_a_save_brings_what_it_says_and_keeps_what_the_client_does_not_know(stored: Items, wanted: Items) -> None:
    sent = saved(wanted)
    result = apply(stored, ReplaceAll(sent).edits(stored))
    assert result.keys() == wanted.keys()
    for id, item in result.items():
        check_item(item, "the result")
        kept = {field: value for field, value in stored.get(id, {}).items() if field not in KNOWN}
        assert {field: value for field, value in item.items() if field not in KNOWN} == kept
        assert through_the_client(item) == sent[id]
    assert ReplaceAll(sent).edits(result) == []


@QUICK
@given(items(), items())
def test_merging_twice_is_merging_once(stored: Item, other: Item) -> None:
    sent = through_the_client(other)
    once = merged(stored, sent)
    assert merged(once, sent) == once


def test_an_optional_field_that_was_left_out_is_removed_and_an_unknown_one_kept() -> None:
    stored = {"id": "a", "type": "point", "point": [1, 2, 3], "description": "text", "length": 4.5, "who": "me"}
    assert merged(stored, {"id": "a", "type": "point", "point": [1, 2, 3]}) == {
        "id": "a", "type": "point", "point": [1, 2, 3], "who": "me",
    }  # fmt: skip


def test_another_type_takes_the_old_coordinates_away() -> None:
    stored = {"id": "a", "type": "point", "point": [1, 2, 3], "who": "me"}
    sent = {"id": "a", "type": "line", "pointA": [1, 2, 3], "pointB": [4, 5, 6]}
    assert merged(stored, sent) == sent | {"who": "me"}


@pytest.mark.parametrize(
    ("field", "stored", "sent", "same"),
    [
        ("point", [102.1, 110, 20.5], [102.0999984741211, 110, 20.5], True),
        ("point", [102.1, 110, 20.5], [102.09, 110, 20.5], False),
        ("point", [1e39, 0, 0], [2e39, 0, 0], False),
        ("point", [1, 2, 3], [1, 2], False),
        ("points", [[102.1, 0, 0]], [[102.0999984741211, 0, 0]], False),
        ("points", [[5.0, 0, 0]], [[5, 0, 0]], True),
        ("length", 12.75, 12, True),
        ("length", 12.75, 13, False),
        ("length", None, None, True),
        ("description", "", None, True),
        ("description", "text", None, False),
        ("segments", [[]], [], True),
        ("segments", [["1"]], [], False),
        ("who", 1, 1.0, True),
        ("who", 1, True, False),
        ("who", [{"a": 0}], [{"a": False}], False),
        ("reviewed", False, None, False),
    ],
)
def test_what_says_the_same(field: str, stored: object, sent: object, same: bool) -> None:
    assert same_value(field, stored, sent) is same


def test_an_exact_save_tells_one_from_true_and_from_one_point_zero() -> None:
    item = some(1)[0]
    for before, after in ((1, True), (1, 1.0), (0, False), ([1], [1.0]), ({"a": 0}, {"a": False})):
        edits = ReplaceAll(by_id([item | {"n": after}]), exact=True).edits(by_id([item | {"n": before}]))
        assert len(edits) == 1


def test_one_annotation_is_put_and_deleted() -> None:
    stored = by_id(some(2))
    id, item = next(iter(stored.items()))
    assert PutOne(item).edits(stored) == []
    assert PutOne({**item, "n": 1}).edits(stored) == [Edit("change", id, {**item, "n": 1})]
    assert PutOne({"id": "new"}).edits(stored) == [Edit("add", "new", {"id": "new"})]
    assert DeleteOne(id).edits(stored) == [Edit("delete", id)]
    assert list(apply(stored, [Edit("change", id, {"id": id}), Edit("add", "new", {"id": "new"})])) == [*stored, "new"]
    with pytest.raises(NotFound, match="'new'"):
        DeleteOne("new").edits(stored)


def test_without_the_round_trip_an_unedited_save_would_be_an_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The properties above are seen to fail."""
    stored = by_id([{**some(1)[0], "point": [102.1, 110, 20.5], "colour": "red"}])
    monkeypatch.setattr("annotation_store.edits.merged", lambda _, sent: sent)
    assert ReplaceAll(saved(stored)).edits(stored) != []
