"""Labels in blocks: what comes back, and what the library of the format's authors makes of it."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precomputed_server.errors import Unreadable
from precomputed_server.format import compressed_segmentation
from precomputed_server.format.geometry import Vector

BLOCKS: list[Vector] = [(8, 8, 8), (4, 2, 8), (16, 16, 16)]
library: Any = importlib.import_module("compressed_segmentation")  # comes with cloud-volume; it has no types


@settings(deadline=None)
@given(
    size=st.tuples(*[st.integers(1, 20)] * 3),
    labels=st.sampled_from([1, 2, 3, 4, 5, 16, 17, 256, 257, 10_000]),
    data_type=st.sampled_from(["uint32", "uint64"]),
    block=st.sampled_from(BLOCKS),
    channels=st.integers(1, 3),
)
def test_labels_come_back(
    size: tuple[int, int, int], labels: int, data_type: str, block: Vector, channels: int
) -> None:
    generator = np.random.default_rng(labels)
    table = generator.integers(0, np.iinfo(data_type).max, labels, dtype=data_type, endpoint=True)
    voxels = table[generator.integers(0, labels, (channels, *size))]
    stored = compressed_segmentation.encode(voxels, block)
    found = compressed_segmentation.decode(stored, voxels.shape, voxels.dtype, block)
    assert found.dtype == voxels.dtype
    np.testing.assert_array_equal(found, voxels)
    assert len(stored) <= 4 * channels + channels * compressed_segmentation.longest(size[::-1], block, found.itemsize)
    if channels == 1:  # of several it crashes
        theirs = library.decompress(stored, (*size[::-1], 1), voxels.dtype, block, order="F")
        np.testing.assert_array_equal(theirs.T, voxels)
        other = library.compress(np.asfortranarray(voxels.T), block, order="F")
        np.testing.assert_array_equal(compressed_segmentation.decode(other, voxels.shape, voxels.dtype, block), voxels)


def test_blocks_of_one_label_take_no_bits() -> None:
    voxels = np.full((1, 64, 64, 64), 7, np.uint64)
    assert len(compressed_segmentation.encode(voxels, (8, 8, 8))) == 4 + 512 * (8 + 8)


@given(st.binary(max_size=64))
def test_what_is_no_such_chunk_is_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        compressed_segmentation.decode(data, (1, 16, 16, 16), np.dtype(np.uint32), (8, 8, 8))
