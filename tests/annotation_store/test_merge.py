"""One annotation against what a whole-file client made of it: what the client did not touch says the same."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_store.edits import DeleteOne, Edit, PutOne, ReplaceAll, apply
from annotation_store.merging.merge import KNOWN, changed_fields, merged, same_value, taken
from annotation_store.model import GEOMETRY, Item, Items, check_item
from precomputed_server.errors import NotFound
from tests.annotation_store.drawn import CLIENT_KNOWS, by_id, items, leaves, through_the_client
from tests.data import point

QUICK = settings(max_examples=80, deadline=None)


def some(count: int) -> list[Item]:
    """That many points with different coordinates."""
    return [point(number, number + 0.5, 2 * number, 3.25) for number in range(count)]


@QUICK
@given(items())
def test_what_the_client_did_not_touch_is_no_change(stored: Item) -> None:
    sent = json.loads(json.dumps(through_the_client(stored)))
    assert changed_fields(stored, sent) == frozenset()
    assert json.dumps(merged(stored, sent)) == json.dumps(stored)
    assert changed_fields(stored, copy.deepcopy(stored)) == frozenset()


@QUICK
@given(items(), st.data())
def test_a_change_of_one_field_changes_only_that(stored: Item, data: st.DataObject) -> None:
    sent = through_the_client(stored)
    field = data.draw(st.sampled_from([*GEOMETRY[sent["type"]], "reviewed", "description", "length"]))
    edited: Any = {
        "reviewed": not sent["reviewed"],
        "description": sent.get("description", "") + "!",
        "length": int(sent.get("length", 0)) + 1,
        "points": [*sent.get("points", []), [1, 2, 3]],
    }.get(field, [7, 8, 1e9])
    sent[field] = edited
    assert changed_fields(stored, sent) == {field}
    assert merged(stored, sent) == {**stored, field: edited}


@QUICK
@given(items(), items())
def test_a_merge_brings_what_was_sent_and_keeps_what_the_client_does_not_know(stored: Item, wanted: Item) -> None:
    sent = through_the_client({**wanted, "id": stored["id"]})
    result = merged(stored, sent)
    check_item(result, "the result")
    kept = {field: value for field, value in stored.items() if field not in CLIENT_KNOWS}
    assert {field: value for field, value in result.items() if field not in CLIENT_KNOWS} == kept
    assert through_the_client(result) == sent
    assert changed_fields(result, sent) == frozenset()
    assert json.dumps(merged(result, sent)) == json.dumps(result), "merging twice is not merging once"


@QUICK
@given(items(), items(), st.sets(st.sampled_from([*sorted(KNOWN), "colour", "n"])))
def test_of_what_was_sent_only_the_named_fields_are_taken(stored: Item, sent: Item, fields: set[str]) -> None:
    result = taken(stored, sent, fields)
    assert [field for field in result if field in stored] == [field for field in stored if field in result]
    for field in {*stored, *sent} - fields:
        assert (field in result, result.get(field)) == (field in stored, stored.get(field))
    for field in fields:
        assert (field in result) == (field in sent)
        assert same_value(field, result.get(field), sent.get(field))


@QUICK
@given(leaves, leaves)
def test_a_save_that_names_its_version_brings_exactly_what_it_says(stored: Items, wanted: Items) -> None:
    edits = ReplaceAll(wanted).edits(stored)
    result = apply(stored, edits)
    assert json.dumps(result, sort_keys=True) == json.dumps(wanted, sort_keys=True)
    assert {edit.id for edit in edits} >= stored.keys() ^ wanted.keys()
    assert ReplaceAll(wanted).edits(result) == []


def test_an_optional_field_that_the_client_left_out_is_removed() -> None:
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


@pytest.mark.parametrize(("before", "after"), [(1, True), (1, 1.0), (0, False), ([1], [1.0]), ({"a": 0}, {"a": False})])
def test_an_exact_save_tells_one_from_true_and_from_one_point_zero(before: object, after: object) -> None:
    item = some(1)[0]
    assert len(ReplaceAll(by_id([item | {"n": after}])).edits(by_id([item | {"n": before}]))) == 1


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
