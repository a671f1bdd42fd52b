"""Deltas: an annotation made again from what it was before, to the byte."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_store.history.delta import difference, patched

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.0, -0.0, 1.0, 2.5, 1e300]),
    st.text("ab", max_size=2),
)
VALUES = st.recursive(
    SCALARS,
    lambda below: st.one_of(st.lists(below, max_size=7), st.dictionaries(st.sampled_from("xyz"), below, max_size=3)),
    max_leaves=12,
)
ITEMS = st.dictionaries(st.sampled_from(["id", "type", "points", "length", "a", "b"]), VALUES, max_size=6)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """An annotation and what an edit made of it: often with most of it kept."""
    before = draw(ITEMS)
    after = dict(before)
    for field, value in draw(ITEMS).items():
        after[field] = value
    for field in draw(st.lists(st.sampled_from(list(before) or ["id"]), max_size=2)):
        after.pop(field, None)
    for field, value in after.items():
        if isinstance(value, list) and value and draw(st.booleans()):
            start, stop = draw(st.integers(0, len(value))), draw(st.integers(0, len(value)))
            after[field] = [*value[:start], *draw(st.lists(SCALARS, max_size=3)), *value[stop:]]
    return before, after


@given(pairs())
def test_a_delta_gives_the_annotation_to_the_byte(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    before, after = pair
    kept = orjson.dumps(before)
    delta = difference(before, after)
    if delta is not None:
        assert orjson.dumps(patched(before, orjson.loads(orjson.dumps(delta)))) == orjson.dumps(after)
    assert orjson.dumps(before) == kept
    places = [field for field in before if field in after]
    assert (delta is None) == (list(after)[: len(places)] != places)


@pytest.mark.parametrize(("first", "second"), [(1, 1.0), (1, True), (0, False), (0.0, -0.0), ("1", 1), (None, 0)])
def test_values_that_only_look_alike_are_told_apart(first: object, second: object) -> None:
    for before, after in (
        ({"length": first}, {"length": second}),
        ({"points": [[first]] * 9}, {"points": [*[[first]] * 4, [second], *[[first]] * 4]}),
        ({"a": {"b": first}}, {"a": {"b": second}}),
    ):
        delta = difference(before, after)
        assert delta is not None
        assert orjson.dumps(patched(before, delta)) == orjson.dumps(after)


def test_a_dragged_point_of_a_fibre_is_all_that_is_written() -> None:
    points = [[number + 0.5, 2.0, 3.0] for number in range(500)]
    before = {"id": "a", "points": points, "length": 5}
    moved = [*points[:250], [9.5, 9.0, 9.0], *points[251:]]
    assert difference(before, {**before, "points": moved}) == {"splice": {"points": [250, 1, [[9.5, 9.0, 9.0]]]}}
    longer = [*points, [1.5, 1.0, 1.0]]
    assert difference(before, {**before, "points": longer}) == {"splice": {"points": [500, 0, [[1.5, 1.0, 1.0]]]}}
    shorter = points[1:]
    assert difference(before, {**before, "points": shorter}) == {"splice": {"points": [0, 1, []]}}


def test_fields_that_change_places_are_no_delta() -> None:
    assert difference({"a": 1, "b": 2}, {"b": 2, "a": 1}) is None
    assert difference({"a": {"b": 1, "c": 2}}, {"a": {"c": 2, "b": 1}}) == {"set": {"a": {"c": 2, "b": 1}}}


def test_fields_come_and_go() -> None:
    delta = difference({"a": 1, "b": 2}, {"a": 3, "c": None})
    assert delta == {"set": {"a": 3, "c": None}, "unset": ["b"]}
