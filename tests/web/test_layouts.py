"""Every layout over HTTP: chunks by their names, as they lie where the client takes that, and errors as they are."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from precomputed_server.format import compressed_segmentation
from precomputed_server.format.geometry import Box
from precomputed_server.format.grid import cell_box, cells
from precomputed_server.format.names import chunk_name
from tests.readers.layouts import ABSENT, KEY, LAYOUTS, OFFSET, Phantom, inflate
from tests.web.conftest import Client

EVERYTHING = "gzip, deflate, br, zstd"
FIRST = Box(OFFSET, (OFFSET[0] + 16, OFFSET[1] + 16, OFFSET[2] + 8))
FIRST_URL = f"/brain/{KEY}/{chunk_name(FIRST)}"

AS_THEY_LIE = {
    "zarr_none": "",
    "zarr_zlib": "deflate",
    "zarr_gzip": "gzip",
    "zarr_zstd": "zstd",
    "sharded": "",
    "sharded_gzip": "gzip",
    "sharded_labels": "gzip",
}


async def written(root: Path, layout: str, channels: int = 1) -> Phantom:
    """The phantom in that layout: written beside the loop, as our writers must not block it."""
    made = LAYOUTS[layout].phantom(channels=channels)
    await asyncio.to_thread(LAYOUTS[layout].write, root / "brain", made)
    return made


def voxels(body: bytes, made: Phantom, box: Box) -> NDArray[Any]:
    expected = made.part(box)
    if made.encoding == "compressed_segmentation":
        return compressed_segmentation.decode(body, expected.shape, expected.dtype, (8, 8, 8))
    return np.frombuffer(body, expected.dtype).reshape(expected.shape)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("accepted", ["identity", EVERYTHING])
async def test_every_chunk_by_its_name(root: Path, client: Client, layout: str, accepted: str) -> None:
    made = await written(root, layout, min(2, LAYOUTS[layout].channels))
    scale = made.info.scales[0]
    for cell in cells(scale):
        box = cell_box(scale, cell)
        for suffix in ("", ".tiff"):
            answer = await client.get(f"/brain/{KEY}/{chunk_name(box)}{suffix}", headers={"Accept-Encoding": accepted})
            body = await answer.read()
            if cell == ABSENT and answer.status == 404:
                continue
            assert answer.status == 200
            encoding = answer.headers.get("Content-Encoding", "")
            assert encoding == "" or encoding in accepted
            assert answer.headers["Content-Type"] == "application/octet-stream"
            assert int(answer.headers["Content-Length"]) == len(body)
            np.testing.assert_array_equal(voxels(inflate(encoding, body), made, box), made.part(box))


@pytest.mark.parametrize("layout", AS_THEY_LIE)
async def test_what_clients_understand_is_sent_as_it_lies(root: Path, client: Client, layout: str) -> None:
    await written(root, layout)
    files = [path.read_bytes() for path in (root / "brain" / KEY).iterdir()]
    for _ in range(2):  # the first answer has checked the stream, the second has not
        answer = await client.get(FIRST_URL, headers={"Accept-Encoding": EVERYTHING})
        assert answer.headers.get("Content-Encoding", "") == AS_THEY_LIE[layout]
        body = await answer.read()
        assert any(body in content for content in files)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("accepted", ["identity", EVERYTHING])
async def test_damage_is_500_with_a_sentence(root: Path, client: Client, layout: str, accepted: str) -> None:
    made = await written(root, layout)
    scale = made.info.scales[0]
    for path in (path for path in (root / "brain" / KEY).rglob("*") if path.is_file()):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    statuses = set()
    for cell in cells(scale):
        box = cell_box(scale, cell)
        answer = await client.get(f"/brain/{KEY}/{chunk_name(box)}", headers={"Accept-Encoding": accepted})
        statuses.add(answer.status)
        if answer.status == 200:
            body = inflate(answer.headers.get("Content-Encoding", ""), await answer.read())
            np.testing.assert_array_equal(voxels(body, made, box), made.part(box))
        elif answer.status == 500:
            assert (await answer.json())["detail"].endswith(".")
            assert str(root) not in await answer.text()
    assert 500 in statuses
    assert statuses <= {200, 404, 500}


@pytest.mark.parametrize("layout", ["blockfs", "zarr", "zarr_small_chunks", "sharded", "pages"])
async def test_the_tag_of_a_chunk_changes_with_what_is_stored(root: Path, client: Client, layout: str) -> None:
    await written(root, layout)
    first = await client.get(FIRST_URL)
    again = await client.get(FIRST_URL, headers={"If-None-Match": first.headers["ETag"]})
    assert (first.status, again.status) == (200, 304)
    (root / "brain").rename(root / "before")
    await written(root, layout)
    answer = await client.get(FIRST_URL, headers={"If-None-Match": first.headers["ETag"]})
    assert answer.status == 200
    assert answer.headers["ETag"] != first.headers["ETag"]
    assert await answer.read() == await first.read()


async def test_a_range_of_a_chunk_in_any_layout_is_of_its_decoded_bytes(root: Path, client: Client) -> None:
    for layout in ("blockfs", "zarr_small_chunks", "sharded_gzip", "sharded"):
        made = await written(root, layout)
        asked = {"Range": "bytes=10-19", "Accept-Encoding": EVERYTHING}
        answer = await client.get(FIRST_URL, headers=asked)
        assert (answer.status, await answer.read()) == (206, made.part(FIRST).tobytes()[10:20])
        assert "Content-Encoding" not in answer.headers
        (root / "brain").rename(root / layout)


async def test_shards_are_files_of_which_parts_are_sent_as_they_are(root: Path, client: Client) -> None:
    await written(root, "sharded_gzip")
    for path in (root / "brain" / KEY).iterdir():
        url, content = f"/brain/{KEY}/{path.name}", path.read_bytes()
        for first, last in ((0, 31), (32, len(content) - 1)):
            asked = {"Range": f"bytes={first}-{last}", "Accept-Encoding": EVERYTHING}
            answer = await client.get(url, headers=asked)
            assert (answer.status, await answer.read()) == (206, content[first : last + 1])
            assert "Content-Encoding" not in answer.headers
            assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(content)}"


async def test_a_file_left_over_in_a_sharded_scale_is_no_chunk_of_it(root: Path, client: Client) -> None:
    made = await written(root, "sharded")
    absent = cell_box(made.info.scales[0], ABSENT)
    (root / "brain" / KEY / chunk_name(absent)).write_bytes(made.part(absent).tobytes())
    (root / "brain" / KEY / chunk_name(FIRST)).write_bytes(bytes(made.part(FIRST).nbytes))
    assert (await client.get(f"/brain/{KEY}/{chunk_name(absent)}")).status == 404
    assert await (await client.get(FIRST_URL)).read() == made.part(FIRST).tobytes()


async def test_a_file_of_its_name_wins_over_a_cell_of_blocks(root: Path, client: Client) -> None:
    made = await written(root, "blockfs")
    edited = bytes(made.part(FIRST).nbytes)
    (root / "brain" / KEY / chunk_name(FIRST)).write_bytes(edited)
    assert await (await client.get(FIRST_URL)).read() == edited


@pytest.mark.parametrize("layout", ["blockfs", "zarr"])
async def test_what_would_have_to_be_encoded_is_refused(root: Path, client: Client, layout: str) -> None:
    await written(root, layout)
    info = root / "brain" / "info"
    info.write_bytes(info.read_bytes().replace(b'"encoding": "raw"', b'"encoding": "jpeg"'))
    answer = await client.get(FIRST_URL)
    assert answer.status == 500
    assert "jpeg" in await answer.text()


async def test_what_describes_zarr_is_served_where_it_belongs(root: Path, client: Client) -> None:
    await written(root, "ome_zarr")
    for path in ("brain/.zgroup", "brain/.zattrs", f"brain/{KEY}/.zarray"):
        answer = await client.get(f"/{path}")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
        assert await answer.read() == (root / path).read_bytes()
        assert path.rpartition("/")[2] not in await (await client.get(f"/{path.rpartition('/')[0]}/")).text()
    (root / "notes").mkdir()
    for path in ("notes/.zattrs", "notes/.hidden", "brain/.hidden"):
        (root / path).write_text("{}")
        assert (await client.get(f"/{path}")).status == 404
    for path in ("notes/.zgroup", "brain/.zarray", ".zattrs", "nowhere/.zgroup", "brain/info/.zattrs"):
        assert (await client.get(f"/{path}")).status == 404
    (root / "notes" / ".zgroup").write_text('{"zarr_format": 2}')
    assert (await client.get("/notes/.zattrs")).status == 200
