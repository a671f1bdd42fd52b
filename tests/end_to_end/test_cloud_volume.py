"""cloud-volume reads cut-outs byte for byte from the running server, and we serve what it has written itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cloudvolume import CloudVolume

from tests.conftest import RunningServer
from tests.data import volume
from tests.end_to_end.conftest import Served
from tests.end_to_end.datasets import CUT_OUTS, KEYS, converted, cut_out
from tests.end_to_end.wire import ask

pytestmark = pytest.mark.component


@pytest.mark.parametrize("storage", ["tiff", "raw"])
@pytest.mark.parametrize("channels", [1, 3])
def test_cut_outs_of_every_level(storage: str, channels: int, served: Served) -> None:
    name = f"{storage}_{channels}"
    levels = converted(served.root / name, storage, channels=channels)
    for mip, key in enumerate(KEYS):
        reader = over_http(served.server, name, mip)
        assert reader.num_channels == channels
        found = np.asarray(reader[CUT_OUTS[key]])
        expected = cut_out(levels[key], CUT_OUTS[key])
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected, f"level {key}")


@pytest.mark.parametrize("compress", ["gzip", "br", "zstd", "no"])
def test_what_it_wrote_itself(compress: str, served: Served) -> None:
    name = f"own_{compress}"
    voxels = write_own(served.root / name, compress)
    suffix = {"gzip": ".gz", "br": ".br", "zstd": ".zstd", "no": ""}[compress]
    assert {path.suffix for path in (served.root / name / "4_4_40").iterdir()} == {suffix}
    found = np.asarray(over_http(served.server, name, 0)[20:100, 5:90, 10:33])
    np.testing.assert_array_equal(found, voxels[20:100, 5:90, 10:33])


def test_provenance_is_read_and_its_absence_is_404(served: Served) -> None:
    converted(served.root / "plain", "raw")
    provenance = over_http(served.server, "plain", 0).provenance
    assert provenance.processing[0]["method"]["format"] == "raw"
    assert len(provenance.sources) == 1
    write_own(served.root / "its_own", "gzip")
    answer = ask(served.server, "GET", "/its_own/provenance")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    (served.root / "its_own" / "provenance").unlink()
    assert ask(served.server, "GET", "/its_own/provenance").status == 404


def over_http(server: RunningServer, dataset: str, mip: int) -> Any:  # noqa: ANN401  # it has no types
    """The library's reader of a level; a chunk that is missing is an error, never zeros."""
    return CloudVolume(f"precomputed://{server.url}/{dataset}", mip=mip, progress=False, fill_missing=False)


def write_own(directory: Path, compress: str) -> np.ndarray[Any, Any]:
    """A volume that the library writes (`compress` "no": as it is); returns its voxels "(X, Y, Z, C)"."""
    info = CloudVolume.create_new_info(
        num_channels=1,
        layer_type="image",
        data_type="uint16",
        encoding="raw",
        resolution=[4, 4, 40],
        voxel_offset=[0, 0, 0],
        volume_size=[100, 90, 33],
        chunk_size=[64, 64, 16],
    )
    writer = CloudVolume(f"file://{directory}", info=info, compress=compress != "no" and compress, progress=False)
    writer.commit_info()
    writer.commit_provenance()
    voxels = volume((100, 90, 33, 1), "uint16", seed=5)
    writer[:, :, :] = voxels
    return voxels
