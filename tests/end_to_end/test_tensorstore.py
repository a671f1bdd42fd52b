"""tensorstore reads cut-outs byte for byte from the running server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorstore

from tests.conftest import RunningServer
from tests.data import Storage, volume, write_dataset
from tests.end_to_end.conftest import Served
from tests.end_to_end.datasets import CUT_OUTS, KEYS, converted, cut_out

pytestmark = pytest.mark.component


@pytest.mark.parametrize("storage", ["tiff", "raw"])
@pytest.mark.parametrize("channels", [1, 3])
def test_cut_outs_of_every_level(storage: str, channels: int, served: Served) -> None:
    name = f"{storage}_{channels}"
    levels = converted(served.root / name, storage, channels=channels)
    for number, key in enumerate(KEYS):
        found = read(served.server, name, number, CUT_OUTS[key])
        expected = cut_out(levels[key], CUT_OUTS[key])
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected, f"level {key}")


@pytest.mark.parametrize("storage", ["gz", "br", "zstd", "plain"])
def test_chunks_that_other_writers_compressed(storage: Storage, served: Served) -> None:
    """Read from the disk such a tree is all zeros to it."""
    voxels = volume((1, 33, 90, 100), "uint16", seed=5)
    write_dataset(served.root / f"other_{storage}", voxels, chunk_size=(64, 64, 16), storage=storage)
    box = (slice(20, 100), slice(5, 90), slice(10, 33))
    found = read(served.server, f"other_{storage}", 0, box)
    np.testing.assert_array_equal(found, cut_out(voxels, box))


def read(server: RunningServer, dataset: str, level: int, box: tuple[slice, slice, slice]) -> np.ndarray[Any, Any]:
    """The voxels of `box` x, y, z, "(X, Y, Z, C)"."""
    store = tensorstore.open(
        {"driver": "neuroglancer_precomputed", "kvstore": f"{server.url}/{dataset}/", "scale_index": level},
        open=True,
        read=True,
    ).result()
    return np.asarray(store[box].read().result())
