"""What the server gives of each output format to tensorstore and cloud-volume."""

from __future__ import annotations

import numpy as np
import pytest

from converter.writers import Output
from tests.converter.written import cloud_volume_reads, stored, tensorstore_reads, write
from tests.data import volume
from tests.end_to_end.conftest import Served
from tests.end_to_end.wire import ask

pytestmark = pytest.mark.component

OUTPUTS = [
    (Output("tiff"), "uint16", 3),
    (Output("tiff", "zstd"), "float32", 1),
    (Output("raw"), "int16", 2),
    (Output("raw", "gzip"), "uint64", 1),
    (Output("raw", "zstd"), "uint8", 3),
    (Output("raw", encoding="png"), "uint16", 1),
    (Output("raw", encoding="png"), "uint8", 3),
    (Output("raw", encoding="jpeg"), "uint8", 1),
    (Output("raw", "gzip", "compressed_segmentation"), "uint64", 1),
    (Output("raw", encoding="compressed_segmentation"), "uint32", 2),
    (Output("sharded"), "uint16", 2),
    (Output("sharded", "none", "png"), "uint8", 1),
    (Output("sharded", encoding="compressed_segmentation"), "uint32", 1),
    (Output("zarr"), "uint16", 2),
    (Output("zarr", "deflate"), "int32", 1),
    (Output("zarr", "none"), "uint8", 1),
    (Output("ngff", "zstd"), "float32", 3),
]


@pytest.mark.parametrize(("output", "data_type", "channels"), OUTPUTS)
def test_every_voxel(output: Output, data_type: str, channels: int, served: Served) -> None:
    name = f"{output.format}_{output.compression}_{output.encoding}_{data_type}_{channels}"
    voxels = volume((channels, 21, 40, 35), data_type)
    made, info = write(served.root / name, voxels, output, chunk_size=(16, 16, 8), offset=(5, 0, 3))
    seen = stored(made, served.root / name, info)
    if not made.lossy:
        np.testing.assert_array_equal(seen, voxels)
    found = [tensorstore_reads(f"{served.server.url}/{name}/")]
    if output.encoding != "png" and (channels == 1 or output.encoding == "raw"):
        found.append(cloud_volume_reads(f"{served.server.url}/{name}"))
    for reading in found:
        assert reading.dtype == voxels.dtype
        assert np.abs(reading.astype(float) - seen).max() <= (1 if made.lossy else 0)


@pytest.mark.parametrize("name", ["sharded", "zarr"])
def test_chunks_by_their_names_for_clients_that_know_nothing_else(name: str, served: Served) -> None:
    voxels = volume((1, 21, 40, 35), "uint8")
    write(served.root / f"named_{name}", voxels, Output(name), chunk_size=(16, 16, 8))
    for suffix in ("", ".tiff"):
        answer = ask(served.server, "GET", f"/named_{name}/4_5_40/32-35_16-32_16-21{suffix}")
        assert (answer.status, answer.body) == (200, voxels[0, 16:21, 16:32, 32:35].tobytes())
