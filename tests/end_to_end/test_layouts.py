"""Every layout through the running server, as cloud-volume, tensorstore and Neuroglancer see it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorstore
from cloudvolume import CloudVolume
from numpy.typing import NDArray

from tests.end_to_end.browser import open_viewer, slice_state, visit
from tests.end_to_end.conftest import Served
from tests.end_to_end.test_neuroglancer import WINDOW, place_of, shown_voxels
from tests.readers.layouts import KEY, LAYOUTS, OFFSET, RESOLUTION_NM, SIZE

pytestmark = pytest.mark.component

DRAWN_EMPTY = {"zarr_filled"}
"""Layouts whose absent chunks stand for something else than zeros, which a client draws for 404."""


@pytest.mark.parametrize("layout", sorted(LAYOUTS.keys() - DRAWN_EMPTY))
def test_every_voxel_as_others_read_it(layout: str, served: Served) -> None:
    channels = 1 if LAYOUTS[layout].encoding != "raw" else min(2, LAYOUTS[layout].channels)
    made = LAYOUTS[layout].phantom(channels=channels)
    LAYOUTS[layout].write(served.root / layout, made)
    url = f"{served.server.url}/{layout}"
    spec = {"driver": "neuroglancer_precomputed", "kvstore": f"{url}/"}
    np.testing.assert_array_equal(read(spec).transpose(3, 2, 1, 0), made.voxels)
    reader = CloudVolume(f"precomputed://{url}", progress=False, fill_missing=True)
    np.testing.assert_array_equal(np.asarray(reader[reader.bounds]).transpose(3, 2, 1, 0), made.voxels)


@pytest.mark.parametrize("layout", ["zarr", "zarr_none", "zarr_filled", "zarr_fortran", "ome_zarr"])
def test_a_zarr_array_as_zarr(layout: str, served: Served) -> None:
    made = LAYOUTS[layout].phantom()
    LAYOUTS[layout].write(served.root / f"as_zarr_{layout}", made)
    spec = {"driver": "zarr", "kvstore": f"{served.server.url}/as_zarr_{layout}/{KEY}/"}
    np.testing.assert_array_equal(read(spec), made.voxels[0])


def read(spec: dict[str, Any]) -> NDArray[Any]:
    """The whole of what tensorstore opens."""
    return np.asarray(tensorstore.open(spec, open=True, read=True).result().read().result())


@pytest.mark.parametrize("layout", ["sharded_gzip", "zarr", "blockfs", "pages"])
def test_a_slice_in_neuroglancer(layout: str, served: Served) -> None:
    made = LAYOUTS[layout].phantom()
    LAYOUTS[layout].write(served.root / f"shown_{layout}", made)
    z = OFFSET[2] + SIZE[2] - 2  # beside the absent chunk
    plane = made.voxels[0, SIZE[2] - 2]
    middle = [OFFSET[0] + SIZE[0] // 2, OFFSET[1] + SIZE[1] // 2, z + 0.5]
    expected = np.stack([plane >> 8, plane & 255, np.full_like(plane, 255)], axis=-1).astype(np.uint8)
    state = slice_state(f"{served.server.url}/shown_{layout}", [*RESOLUTION_NM], [*map(float, middle)])
    with visit(*WINDOW) as viewer:
        open_viewer(viewer, served.server.url, state)
        panel = viewer.until(
            lambda: shown_voxels(viewer), lambda panel: np.array_equal(place_of(panel, plane), expected)
        )
    np.testing.assert_array_equal(place_of(panel, plane), expected)
