"""Views of a stack: against numpy's own transposing, turning and cutting."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.pyramid.downsample import average, mode
from converter.stacks.view import View, completed, parse_crop, parse_flipped, parse_order
from converter.stacks.window import Window, parse_window, windowed
from precomputed_server.errors import InvalidInput
from precomputed_server.format.geometry import Box, Vector
from tests.converter.stacks import Array

_LENGTH = st.integers(1, 9)
_SIZE = st.tuples(_LENGTH, _LENGTH, _LENGTH)
_FLAG = st.booleans()


def stack(size: Vector) -> Array:
    """Voxels "(2, Z, Y, X)" that are all different."""
    x, y, z = size
    return np.arange(2 * x * y * z).reshape(2, z, y, x)


def seen(voxels: Array, view: View) -> Array:
    """What the whole dataset of an uncropped view is, by numpy: axes (X, Y, Z) permuted, then flipped."""
    xyz = np.moveaxis(voxels, (1, 2, 3), (3, 2, 1)).transpose(0, *(1 + axis for axis in view.order))
    turned: Array = np.flip(xyz, tuple(1 + axis for axis in range(3) if view.flipped[axis]))
    return np.moveaxis(turned, (3, 2, 1), (1, 2, 3))


@st.composite
def views(draw: st.DrawFn) -> tuple[Vector, View, Box]:
    """A stack's size, a view of it, and a box within the view's bounds."""
    size = draw(_SIZE)
    x, y, z = draw(st.permutations(range(3)))
    whole = tuple(size[axis] for axis in (x, y, z))
    crop: list[Any] = []
    starts, stops = [], []
    for length in whole:
        start, stop = sorted(draw(st.lists(st.integers(0, length), min_size=2, max_size=2, unique=True)))
        crop.append((draw(st.sampled_from([start, None])) if start == 0 else start, stop if stop < length else None))
        low, high = sorted(draw(st.lists(st.integers(start, stop), min_size=2, max_size=2, unique=True)))
        starts.append(low)
        stops.append(high)
    view = View((x, y, z), (draw(_FLAG), draw(_FLAG), draw(_FLAG)), (crop[0], crop[1], crop[2]))
    return size, view, Box((starts[0], starts[1], starts[2]), (stops[0], stops[1], stops[2]))


def cut(voxels: Array, box: Box) -> Array:
    """The voxels of a box."""
    (x0, y0, z0), (x1, y1, z1) = box.start, box.stop
    return voxels[:, z0:z1, y0:y1, x0:x1]


@given(views())
def test_a_box_of_the_dataset_is_what_numpy_makes_of_the_stack(case: tuple[Vector, View, Box]) -> None:
    size, view, box = case
    voxels = stack(size)
    expected = cut(seen(voxels, view), box)
    there = cut(voxels, view.stack_box(box, size))
    np.testing.assert_array_equal(view.of_stack(there), expected)
    result = np.empty_like(expected)
    view.as_stack(result)[...] = there
    np.testing.assert_array_equal(result, expected)
    bounds = view.bounds(size)
    assert box.clipped(bounds) == box
    assert bounds.size == cut(seen(voxels, view), bounds).shape[:0:-1]


def test_the_new_x_is_the_old_y_and_its_edge_follows() -> None:
    view = View(order=parse_order("yzx"))
    assert view.permuted((10, 20, 30)) == (20, 30, 10)
    assert view.permuted_edges((Fraction(1), Fraction(2), Fraction(3))) == (Fraction(2), Fraction(3), Fraction(1))


@pytest.mark.parametrize(
    ("text", "crop"),
    [
        ("1:2,3:4,5:6", ((1, 2), (3, 4), (5, 6))),
        ("1:,:4,:", ((1, None), (None, 4), (None, None))),
        (",,5:6", ((None, None), (None, None), (5, 6))),
        ("1:2", ((1, 2), (None, None), (None, None))),
    ],
)
def test_crops_may_be_open(text: str, crop: object) -> None:
    assert parse_crop(text) == crop


@pytest.mark.parametrize("text", ["1:2,3:4,5:6,7:8", "1", "a:b", "-1:5", "1:2:3", "1.5:2", "²:3"])
def test_what_is_no_crop_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="--crop"):
        parse_crop(text)


@pytest.mark.parametrize("text", ["5:5", "6:5", "0:11", "10:", ",,:9"])
def test_a_crop_beyond_the_stack_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="--crop keeps"):
        View(crop=parse_crop(text)).bounds((10, 10, 8))


def test_what_is_no_axis_is_refused() -> None:
    assert parse_flipped("zx") == (True, False, True)
    for text in ("", "w", "xx"):
        with pytest.raises(InvalidInput, match="--flip"):
            parse_flipped(text)
    for text in ("xy", "xxz", "xyzt", ""):
        with pytest.raises(InvalidInput, match="--transpose"):
            parse_order(text)


@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 9))
def test_the_bounds_of_a_level_cover_the_crop_and_not_more(start: int, length: int, factor: int) -> None:
    box = Box((start, start, start), (start + length, start + length, start + length))
    level = box.covered_by((factor, factor, factor))
    cells = {voxel // factor for voxel in range(start, start + length)}
    assert (level.start[0], level.stop[0]) == (min(cells), max(cells) + 1)


_CUT = st.integers(0, 1)


@given(_SIZE, st.tuples(_CUT, _CUT, _CUT), st.sampled_from([average, mode]))
def test_cut_first_cells_are_made_of_the_voxels_that_exist(
    size: Vector, cut_off: Vector, reduce: Callable[[Array, Vector], Array]
) -> None:
    shape = (1, *size[::-1])
    voxels = np.random.default_rng(0).integers(0, 4 if reduce is mode else 1 << 16, shape, np.uint16)
    made = reduce(completed(voxels, cut_off), (2, 2, 2))
    for cell in np.ndindex(*made.shape[1:]):
        z, y, x = (slice(max(0, 2 * n - off), 2 * n + 2 - off) for n, off in zip(cell, cut_off[::-1], strict=True))
        assert made[(0, *cell)] == reduce(voxels[:, z, y, x], (2, 2, 2)).item()


@pytest.mark.parametrize("source", ["uint8", "int8", ">u2", "int16", "uint32", "int64", "float32", ">f8", "float16"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_windows_are_linear_rounded_and_clipped(source: str, dtype: str) -> None:
    values = np.arange(-128, 128) if np.dtype(source).kind != "u" else np.arange(256)
    window, largest = Window(-20.5, 99), np.iinfo(dtype).max
    made = windowed(values.astype(source).reshape(1, 16, 16), window, np.dtype(dtype)).ravel()
    assert made.dtype == dtype
    for value, result in zip(values.tolist(), made.tolist(), strict=True):
        exact = (Fraction(value) - Fraction(window.low)) / (Fraction(window.high) - Fraction(window.low)) * largest
        assert result == round(min(max(exact, Fraction(0)), Fraction(largest)))


def test_what_is_no_number_becomes_0_and_infinity_is_clipped() -> None:
    values = np.array([[np.nan, -np.inf, np.inf, 5]], np.float32)
    assert windowed(values, Window(0, 10), np.dtype("uint8")).tolist() == [[0, 0, 255, 128]]
    assert parse_window("100, 4000") == Window(100, 4000)
    for text in ("4000,100", "1,1", "1", "a,b", "nan,3", "0,inf"):
        with pytest.raises(InvalidInput, match="--window"):
            parse_window(text)
