"""A box comes in parts that are its array when one is put behind the other, none too large, none chunk read in vain."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from precomputed_server.format.geometry import Box, Vector
from precomputed_server.format.info import ScaleInfo
from precomputed_server.format.parts import CZYX, ZCYX, parts

SIZE: Vector = (13, 11, 9)
OFFSET: Vector = (-4, 5, 100)


def scale_of(chunk: Vector) -> ScaleInfo:
    """A scale that does not begin at 0."""
    return ScaleInfo("1_1_1", SIZE, (1.0, 1.0, 1.0), (chunk,), OFFSET)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Any box within the scale."""
    low = [draw(st.integers(0, extent - 1)) for extent in SIZE]
    high = [draw(st.integers(start + 1, extent)) for start, extent in zip(low, SIZE, strict=True)]
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2])).moved(OFFSET)


EDGES = st.integers(1, 14)


@given(boxes(), st.tuples(EDGES, EDGES, EDGES), st.integers(1, 3), st.sampled_from([CZYX, ZCYX, "ZYXC"]), st.data())
def test_parts_behind_one_another_are_the_array(
    box: Box, chunk: Vector, channels: int, order: str, data: st.DataObject
) -> None:
    most = data.draw(st.integers(1, 4000))
    enough = data.draw(st.integers(1, most))
    x, y, z = box.size
    voxels = np.arange(channels * z * y * x).reshape(channels, z, y, x)
    axes = [CZYX.index(axis) for axis in order]
    read = []
    for part in parts(scale_of(chunk), box, channels, order, (enough, most)):
        assert 0 < part.voxels <= most
        read.append(voxels[slice(*part.channels)][part.box.within(box)].transpose(axes).ravel())
    assert np.array_equal(np.concatenate(read), voxels.transpose(axes).ravel())


def test_a_part_ends_where_a_layer_of_chunks_does() -> None:
    found = list(parts(scale_of((4, 4, 4)), Box((0, 6, 102), (9, 16, 109)), 1, CZYX, (1, 9 * 10 * 4)))
    assert [(part.box.start[2], part.box.stop[2]) for part in found] == [(102, 104), (104, 108), (108, 109)]


def test_no_more_than_a_layer_is_held_where_that_is_enough() -> None:
    found = list(parts(scale_of((4, 4, 4)), Box((0, 6, 102), (9, 16, 109)), 1, CZYX, (1, 1000)))
    assert [(part.box.start[2], part.box.stop[2]) for part in found] == [(102, 104), (104, 108), (108, 109)]


def test_thin_layers_are_put_together() -> None:
    found = list(parts(scale_of((4, 4, 1)), Box((0, 6, 100), (9, 16, 109)), 1, CZYX, (9 * 10 * 4, 9 * 10 * 5)))
    assert [(part.box.start[2], part.box.stop[2]) for part in found] == [(100, 104), (104, 108), (108, 109)]


def test_a_plane_is_divided_along_its_rows_of_chunks() -> None:
    found = list(parts(scale_of((4, 4, 4)), Box((0, 6, 102), (9, 16, 103)), 1, CZYX, (1, 40)))
    assert [(part.box.start[1], part.box.stop[1]) for part in found] == [(6, 9), (9, 13), (13, 16)]


def test_channels_that_fit_are_read_together() -> None:
    found = list(parts(scale_of((4, 4, 4)), Box((0, 6, 100), (4, 10, 104)), 3, CZYX, (64, 200)))
    assert [part.channels for part in found] == [(0, 3)]
