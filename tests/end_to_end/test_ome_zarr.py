"""Neuroglancer opens the OME-Zarr trees that a conversion writes, as zarr, from our server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converter import ConvertOptions, convert
from converter.stacks.voxel_size import parse_edges
from tests.data import phantom_stack
from tests.end_to_end.browser import open_viewer, slice_state, visit
from tests.end_to_end.conftest import Served
from tests.end_to_end.test_neuroglancer import WINDOW, place_of, shown_voxels

pytestmark = pytest.mark.component


@pytest.mark.parametrize("scheme", ["zarr", "zarr2"])
def test_a_slice_of_the_finest_level(scheme: str, tmp_path: Path, served: Served) -> None:
    voxels = phantom_stack(tmp_path / "planes", (9, 131, 150), "uint16")
    options = ConvertOptions(voxel_size=parse_edges("0.5,0.5,2"), chunk_size=(64, 64, 4), format="zarr")
    convert(str(tmp_path / "planes"), served.root / scheme, options)
    plane = voxels[0, 5]
    expected = np.stack([plane >> 8, plane & 255, np.full_like(plane, 255)], axis=-1).astype(np.uint8)
    with visit(*WINDOW) as viewer:
        # Its first voxel's centre is the origin: all lies half a voxel lower than in a precomputed volume.
        state = slice_state(served.server.url, [500.0, 500.0, 2000.0], [150 // 2 - 0.5, 131 // 2 - 0.5, 5])
        state["layers"][0]["source"] = f"{scheme}://{served.server.url}/{scheme}/"
        open_viewer(viewer, served.server.url, state)
        panel = viewer.until(
            lambda: shown_voxels(viewer), lambda panel: np.array_equal(place_of(panel, plane), expected)
        )
    np.testing.assert_array_equal(place_of(panel, plane), expected)
