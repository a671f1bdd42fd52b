"""The length of an annotation after its points moved: in the unit, and as whole, as it was before."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from annotation_store.merging.lengths import length_after
from annotation_store.model import Item

VOXEL_NM = (1800.0, 1800.0, 2000.0)
SQUARE = [[0, 0, 0], [10, 0, 0], [10, 10, 0], [0, 10, 0]]
TWICE = [[2 * number for number in point] for point in SQUARE]

points = st.lists(
    st.tuples(*[st.floats(0, 5000, allow_nan=False)] * 3).map(list), min_size=2, max_size=6
)  # fmt: skip


def fibre(points: list[Any], length: object = None, kind: str = "linestring") -> Item:
    item: Item = {"id": "a", "type": kind, "points": points}
    return item if length is None else {**item, "length": length}


def measured(points: list[list[float]], edges: tuple[float, float, float]) -> float:
    scaled = [[number * edge for number, edge in zip(point, edges, strict=True)] for point in points]
    steps = zip(scaled, scaled[1:], strict=False)
    return sum(math.sqrt(sum((b - a) ** 2 for a, b in zip(first, second, strict=True))) for first, second in steps)


@pytest.mark.parametrize(
    ("kind", "length", "after"),
    [
        ("linestring", 30, 60),
        ("linestring", 30.0, 60.0),
        ("linestring", 54_000, 108_000),
        ("linestring", 54.0, 108.0),
        ("linestring", 54, 108),
        ("linestring", 0.054, 0.108),
        ("polygon", 40, 80),
        ("polygon", 30, 60),
        ("polygon", 72_000.0, 144_000.0),
        ("linestring", 30.1, 60.0),
        ("linestring", 33, None),
        ("linestring", 0, 0),
        ("linestring", "long", None),
        ("linestring", True, None),
        ("linestring", None, None),
    ],
)
def test_the_unit_is_the_one_that_fitted_the_old_points(kind: str, length: object, after: float | None) -> None:
    found = length_after(fibre(SQUARE, length, kind), fibre(TWICE, kind=kind), VOXEL_NM)
    assert found == (None if after is None else pytest.approx(after))
    assert after is None or type(found) is type(length)


def test_without_a_voxel_size_only_voxels_are_known() -> None:
    assert length_after(fibre(SQUARE, 30), fibre(TWICE)) == 60
    assert length_after(fibre(SQUARE, 54), fibre(TWICE)) is None


@pytest.mark.parametrize(("old", "length", "new", "after"), [
    (12.7, 12, 25.4, 25), (12.7, 13, 25.4, 25), (12.7, 13, 25.6, 26), (12.7, 12, 25.6, 25), (12.7, 12.0, 25.6, 25.0),
    (12.7, 12.7, 25.6, 25.6),
])  # fmt: skip
def test_a_whole_length_stays_whole_as_it_was_made(old: float, length: float, new: float, after: float) -> None:
    before, moved = [[0, 0, 0], [old, 0, 0]], [[0, 0, 0], [new, 0, 0]]
    found = length_after(fibre(before, length), fibre(moved))
    assert found == pytest.approx(after)
    assert type(found) is type(length)


def test_a_line_has_the_distance_of_its_ends() -> None:
    before = {"id": "a", "type": "line", "pointA": [0, 0, 0], "pointB": [3, 4, 0], "length": 5}
    assert length_after(before, {**before, "pointB": [6, 8, 0]}) == 10


@pytest.mark.parametrize("after", [
    {"id": "a", "type": "point", "point": [1, 2, 3]}, {"id": "a", "type": "linestring"}, {"id": "a"},
    {"id": "a", "type": "line", "pointA": [1, 2], "pointB": None},
])  # fmt: skip
def test_what_is_no_line_has_no_length(after: Item) -> None:
    assert length_after(fibre(SQUARE, 30), after) is None
    assert length_after({**after, "length": 30}, fibre(SQUARE)) is None


def test_points_that_are_all_one_say_nothing_of_the_unit() -> None:
    assert length_after(fibre([[1, 1, 1]] * 2, 0), fibre(SQUARE), VOXEL_NM) is None


@settings(max_examples=150, deadline=None)
@given(points, points, st.sampled_from([1.0, 1e3, 1e6]), st.booleans())
def test_a_length_in_any_unit_is_what_measuring_anew_gives(
    old: list[list[float]], new: list[list[float]], nm: float, whole: bool
) -> None:
    edges = (VOXEL_NM[0] / nm, VOXEL_NM[1] / nm, VOXEL_NM[2] / nm)
    before = measured(old, edges)
    assume(measured(old, (1, 1, 1)) > 1)
    assume(before > 500 or not whole)  # a short whole length fits more than one unit
    found = length_after(fibre(old, int(before) if whole else before), fibre(new), VOXEL_NM)
    assert found is not None
    expected = measured(new, edges)
    assert found == (int(found) if whole else pytest.approx(expected))
    assert abs(found - expected) <= (1 if whole else 1e-6 * expected)
