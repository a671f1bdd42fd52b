"""The levels of the spatial index: nothing is missed, cells stay small, and an edit touches no cells but its own."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_store.model import Item
from annotation_store.views import levels
from annotation_store.views.collection import Collection
from annotation_store.views.grid import MOST_CELLS, grid_of
from annotation_store.views.levels import level_name, parse_level_name
from annotation_store.views.numbers import number_of
from precomputed_server.format.geometry import Box
from tests.annotation_store.precomputed import Decoded, answered, cells_of, collection_of, everything, info_of, view_of
from tests.annotation_store.support import Place, written
from tests.data import point

LIMIT = 8


@pytest.fixture(autouse=True)
def small_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels as with many annotations, of a few."""
    monkeypatch.setattr(levels, "CELL_LIMIT", LIMIT)


def fibres(count: int, seed: int = 0, spread: float = 1.0, reach: float = 60) -> list[Item]:
    """Fibres within a part `spread` of the volume, each as long as `reach` at most."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        start = [chance.uniform(0, length * spread) for length in (1000, 800, 600)]
        points = [[at + chance.uniform(0, reach) for at in start] for _ in range(4)]
        found.append({"id": f"{seed}-{number}", "type": "linestring", "points": points})
    return found


def all_cells(collection: Collection) -> dict[str, bytes]:
    """The cells of every level that info names."""
    paths = [
        f"{level['key']}/{'_'.join(map(str, cell))}"
        for level in info_of(collection)["spatial"]
        for cell in cells_of(collection, level)
    ]
    return {path: answered(collection, path) for path in paths}


@pytest.mark.parametrize(("spread", "reach"), [(1.0, 5), (1.0, 600), (0.05, 5), (0.0, 0)])
@pytest.mark.parametrize("count", [0, 1, LIMIT, LIMIT + 1, 400])
def test_every_annotation_is_in_the_cells_that_it_reaches_into(
    place: Place, count: int, spread: float, reach: float
) -> None:
    items = fibres(count, 1, spread, reach)
    place.file().write_bytes(written(items))
    collection = collection_of(view_of(place), "fibers-polyline")
    assert everything(collection).keys() == {number_of(item["id"]) for item in items}


@pytest.mark.parametrize("count", [LIMIT, 100, 1000])
def test_cells_hold_about_as_many_as_they_may(place: Place, count: int) -> None:
    place.file().write_bytes(written(fibres(count, 2, reach=2)))
    spatial = info_of(collection_of(view_of(place), "fibers-polyline"))["spatial"]
    assert (len(spatial) == 1) == (count <= LIMIT)
    assert max(level["limit"] for level in spatial) <= 3 * LIMIT
    assert spatial[0]["grid_shape"] == [1, 1, 1]
    for coarse, fine in zip(spatial, spatial[1:], strict=False):
        ratios = np.array(coarse["chunk_size"]) / fine["chunk_size"]
        assert set(ratios) <= {1.0, 2.0}
        assert ratios.max() == 2


def test_the_limit_is_what_the_fullest_cell_holds(place: Place) -> None:
    place.file().write_bytes(written(fibres(200)))
    collection = collection_of(view_of(place), "fibers-polyline")
    for level in info_of(collection)["spatial"]:
        fullest = max(
            int.from_bytes(answered(collection, f"{level['key']}/{'_'.join(map(str, cell))}")[:8], "little")
            for cell in cells_of(collection, level)
        )
        assert level["limit"] == max(1, fullest)


def test_one_edit_changes_and_encodes_only_the_cells_that_it_touches(place: Place) -> None:
    items = fibres(300, 3)
    place.file().write_bytes(written(items))
    view = view_of(place)
    before = all_cells(collection_of(view, "fibers-polyline"))
    for number, way in ((7, 200), (100, -100), (250, 0.125)):
        moved = {**items[number], "points": [[at + way for at in p] for p in items[number]["points"]]}
        items[number] = moved
        place.file().write_bytes(written(items))
        encoded = view.cells.encoded
        view.refresh()
        after = all_cells(collection_of(view, "fibers-polyline"))
        changed = {cell for cell in before if before[cell] != after[cell]}
        assert after.keys() == before.keys()
        assert 1 <= len(changed) <= 2 * MOST_CELLS
        assert view.cells.encoded - encoded == len(changed)
        assert after == all_cells(collection_of(view_of(place), "fibers-polyline"))
        before = after


def test_an_annotation_that_is_added_moves_no_other_to_another_level(place: Place) -> None:
    items = fibres(300, 4)
    place.file().write_bytes(written(items))
    view = view_of(place)
    before = all_cells(collection_of(view, "fibers-polyline"))
    place.file().write_bytes(written([*items, *fibres(1, 5)]))
    view.refresh()
    after = all_cells(collection_of(view, "fibers-polyline"))
    assert len([cell for cell in before if before[cell] != after[cell]]) <= MOST_CELLS


def test_a_viewer_with_an_older_info_gets_every_annotation(place: Place) -> None:
    """Under the levels that it knows, whatever others drew or deleted since."""
    generations: list[dict[str, Any]] = []
    view = view_of(place)
    for count in (3, 40, 400, 0, 100):
        items = fibres(count, 6)
        place.file().write_bytes(written(items))
        view.refresh()
        collection = collection_of(view, "fibers-polyline")
        generations.append(info_of(collection))
        for info in generations:
            found = everything(collection, info)
            assert found.keys() == {number_of(item["id"]) for item in items}
    shapes = {tuple(level["key"] for level in info["spatial"]) for info in generations}
    assert len(shapes) > 2, "the levels never changed"


def test_cells_come_in_an_order_by_chance_and_not_by_place(place: Place) -> None:
    place.file().write_bytes(written([point(x, x, 1, 1) for x in range(LIMIT)]))
    found: list[Decoded] = list(everything(collection_of(view_of(place), "fibers-point")).values())
    assert [one.points[0][0] for one in found] != sorted(one.points[0][0] for one in found)
    assert [one.id for one in found] == sorted(one.id for one in found)


@given(
    st.tuples(*[st.integers(1, 10**5)] * 3),
    st.tuples(*[st.integers(-(10**5), 10**5)] * 3),
    st.tuples(*[st.floats(1, 1e6)] * 3),
)
@settings(deadline=None)
def test_grids_halve_and_end_before_a_voxel(
    size: tuple[int, int, int], start: tuple[int, int, int], resolution: tuple[float, float, float]
) -> None:
    x, y, z = (low + length for low, length in zip(start, size, strict=True))
    grid = grid_of(Box(start, (x, y, z)), resolution)
    assert grid.shapes[0] == (1, 1, 1)
    for level, shape in enumerate(grid.shapes):
        assert all(edge >= 1 for edge in grid.cell_size(level))
        assert [count * edge for count, edge in zip(shape, grid.cell_size(level), strict=True)] == pytest.approx(size)
    for coarse, fine in zip(grid.shapes, grid.shapes[1:], strict=False):
        assert {b // a for a, b in zip(coarse, fine, strict=True)} in ({2}, {1, 2})


@pytest.mark.parametrize("name", ["spatial-0", "spatial-3-0", "spatial-3-1", "spatial-32-31-30"])
def test_a_level_has_one_name(name: str) -> None:
    grid = grid_of(Box((0, 0, 0), (1000, 1000, 1000)), (1, 1, 1))
    halvings = parse_level_name(name, grid)
    assert halvings is not None
    assert level_name(halvings) == name


@pytest.mark.parametrize(
    "name",
    [
        *("spatial", "spatial-", "spatial-00", "spatial-03", "spatial-0-0", "spatial-1-0-1", "spatial-33", "spatial-x"),
        *("spatial--1", "spatial-1-", "spatial0", "spatial-" + "-".join(["1"] * 12), "spatial-" + "-".join(["1"] * 99)),
    ],
)
def test_other_names_are_no_levels(name: str) -> None:
    assert parse_level_name(name, grid_of(Box((0, 0, 0), (10**6, 10**6, 10**6)), (1, 1, 1))) is None
