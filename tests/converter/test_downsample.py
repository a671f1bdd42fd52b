"""Averages and modes against slow, obvious references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from converter.pyramid.downsample import Array, average, mode
from precomputed_server.format.geometry import Vector
from tests.converter import reference

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
FACTORS = st.tuples(*[st.sampled_from((1, 2))] * 3)
SHAPES = st.tuples(st.integers(1, 2), *[st.integers(1, 5)] * 3)


def _blocks(dtype: str) -> st.SearchStrategy[Array]:
    return arrays.arrays(np.dtype(dtype), SHAPES)


@pytest.mark.parametrize("dtype", INTEGERS)
@given(data=st.data(), factor=FACTORS)
@settings(max_examples=40, deadline=None)
def test_averages_are_exact_and_rounded_half_to_even(dtype: str, data: st.DataObject, factor: Vector) -> None:
    block = data.draw(_blocks(dtype))
    result = average(block, factor)
    assert result.dtype == block.dtype
    np.testing.assert_array_equal(result, reference.average(block, factor))


@given(data=st.data(), factor=FACTORS)
@settings(max_examples=60, deadline=None)
def test_float_averages_leave_nan_out(data: st.DataObject, factor: Vector) -> None:
    values = st.one_of(st.just(np.nan), st.floats(-60_000, 60_000, width=16))  # their sums are exact in float64
    block = data.draw(arrays.arrays(np.float32, SHAPES, elements=values))
    result = average(block, factor)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, reference.average(block, factor))


def test_all_nan_is_nan_and_infinities_warn_of_nothing() -> None:
    block = np.array([np.nan, np.nan, np.inf, -np.inf], np.float32).reshape(1, 1, 1, 4)
    assert np.isnan(average(block, (2, 1, 1))).all()


def test_float_averages_are_not_truncated() -> None:
    block = np.array([0.25, 0.5], np.float32).reshape(1, 1, 1, 2)
    assert average(block, (2, 1, 1)).item() == 0.375


def test_eight_greatest_uint64_do_not_overflow() -> None:
    greatest = np.iinfo(np.uint64).max
    assert average(np.full((1, 2, 2, 2), greatest, np.uint64), (2, 2, 2)).item() == greatest


@pytest.mark.parametrize("dtype", ["uint8", "uint64", "int32"])
@given(data=st.data(), factor=FACTORS)
@settings(max_examples=60, deadline=None)
def test_modes_go_to_the_smallest_label(dtype: str, data: st.DataObject, factor: Vector) -> None:
    low, high = (np.iinfo(dtype).max - 2, np.iinfo(dtype).max) if dtype == "uint64" else (0, 3)
    block = data.draw(arrays.arrays(np.dtype(dtype), SHAPES, elements=st.integers(int(low), int(high))))
    result = mode(block, factor)
    assert result.dtype == block.dtype
    np.testing.assert_array_equal(result, reference.mode(block, factor))
