"""Which levels there are, and how large their voxels are."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.pyramid.scales import MAXIMUM_LEVELS, Edges, PyramidOptions, levels
from precomputed_server.errors import InvalidInput
from precomputed_server.format.geometry import Vector

LENGTHS = st.tuples(*[st.integers(1, 100_000)] * 3)
EDGES = st.tuples(*[st.fractions(Fraction(1, 10), 10_000, max_denominator=1000)] * 3)


def _keys(size: Vector, edges: tuple[int, int, int], **options: object) -> list[str]:
    exact = (Fraction(edges[0]), Fraction(edges[1]), Fraction(edges[2]))
    return [level.scale.key for level in levels(size, exact, PyramidOptions(**options))]  # type: ignore[arg-type]


def test_automatic_levels_halve_the_finest_axes_first() -> None:
    assert _keys((1024, 1024, 256), (500, 500, 2000)) == ["1_1_1", "2_2_1", "4_4_1", "8_8_2", "16_16_4"]


def test_an_axis_of_one_voxel_is_never_halved_and_does_not_count() -> None:
    assert _keys((500, 500, 1), (500, 500, 100)) == ["1_1_1", "2_2_1", "4_4_1", "8_8_1"]


def test_levels_count_the_full_resolution_one() -> None:
    assert _keys((1024, 1024, 1024), (1, 1, 1), levels=2) == ["1_1_1", "2_2_2"]
    assert _keys((1024, 1024, 1024), (1, 1, 1), levels=1) == ["1_1_1"]


def test_levels_asked_for_go_on_below_one_chunk_while_something_can_be_halved() -> None:
    assert _keys((4, 4, 1), (1, 1, 1), levels=9) == ["1_1_1", "2_2_1", "4_4_1"]


def test_a_fixed_factor_is_applied_at_every_step() -> None:
    assert _keys((100, 100, 10), (1, 1, 9), downsample=(2, 2, 2)) == ["1_1_1", "2_2_2"]
    assert _keys((8, 8, 1), (1, 1, 1), downsample=(2, 2, 2), levels=4)[-1] == "8_8_8"


def test_a_fixed_factor_that_cannot_reach_one_chunk_ends() -> None:
    assert _keys((200, 200, 1), (1, 1, 1), downsample=(2, 1, 1))[-1] == "256_1_1"


@given(size=LENGTHS, edges=EDGES)
def test_sizes_round_up_and_resolutions_are_exact(size: Vector, edges: tuple[Fraction, Fraction, Fraction]) -> None:
    made = levels(size, edges, PyramidOptions())
    assert len(made) <= MAXIMUM_LEVELS
    previous: Vector = size
    for level in made:
        factor = tuple(int(part) for part in level.scale.key.split("_"))
        assert level.scale.resolution_nm == tuple(float(e * f) for e, f in zip(edges, factor, strict=True))
        assert level.scale.size == tuple(-(-n // f) for n, f in zip(size, factor, strict=True))
        assert level.scale.size == tuple(-(-n // s) for n, s in zip(previous, level.step, strict=True))
        previous = level.scale.size
    assert max(previous) <= 64


@pytest.mark.parametrize(
    "options",
    [
        {"chunk_size": (0, 64, 64)},
        {"chunk_size": (64, 64, -1)},
        {"levels": 0},
        {"levels": -1},
        {"levels": 1000},
        {"downsample": (3, 2, 2)},
        {"downsample": (1, 1, 1)},
        {"downsample": (0, 2, 2)},
    ],
)
def test_impossible_pyramids_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        PyramidOptions(**options)  # type: ignore[arg-type]


OFFSETS = st.tuples(*[st.integers(0, 5000)] * 3)


@given(LENGTHS, OFFSETS, EDGES)
def test_levels_of_a_part_lie_on_the_grid_of_the_whole(size: Vector, offset: Vector, edges: Edges) -> None:
    made = levels(size, edges, PyramidOptions(), offset)
    assert made[0].scale.voxel_offset == offset
    assert made[0].scale.size == size
    for level in made:
        bounds = level.scale.bounds
        factor = [round(float(a) / float(b)) for a, b in zip(level.scale.resolution_nm, edges, strict=True)]
        for axis in range(3):
            first, last = offset[axis], offset[axis] + size[axis] - 1
            assert bounds.start[axis] == first // factor[axis]
            assert bounds.stop[axis] == last // factor[axis] + 1
