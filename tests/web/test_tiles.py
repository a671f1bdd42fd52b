"""Chunks and files: what is on the disk is what a client gets, whatever form it lies in."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import io
import json
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import tifffile

from precomputed_server.errors import Unreadable
from precomputed_server.files import Tree
from precomputed_server.format.geometry import Box
from precomputed_server.format.grid import cell_box, cells
from precomputed_server.format.info import VolumeInfo
from precomputed_server.format.names import chunk_name
from precomputed_server.readers.stored import Stored
from precomputed_server.web.state import STATE
from tests.data import Storage, chunk_bytes, level_of, volume, write_dataset
from tests.web.conftest import Client

STORAGES: tuple[Storage, ...] = ("plain", "gz", "br", "zstd", "tiff")
ENCODED = {"gz": "gzip", "br": "br", "zstd": "zstd", "tiff": "deflate"}
CORNER = "1_1_1/0-64_0-64_0-20"


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("suffix", ["", ".tiff"])
async def test_every_chunk_in_every_form_of_storage(root: Path, client: Client, storage: Storage, suffix: str) -> None:
    voxels = volume((2, 20, 70, 65))
    info = write_dataset(root / "lab" / "run3" / "ch1", voxels, levels=2, storage=storage, voxel_offset=(64, -128, 8))
    for level, scale in enumerate(info.scales):
        for cell in cells(scale):
            box = cell_box(scale, cell)
            answer = await client.get(
                f"/lab/run3/ch1/{scale.key}/{chunk_name(box)}{suffix}", headers={"Accept-Encoding": "identity"}
            )
            assert answer.status == 200
            assert "Content-Encoding" not in answer.headers
            assert await answer.read() == chunk_bytes(level_of(voxels, level), box, scale.voxel_offset)


@pytest.mark.parametrize("storage", STORAGES[1:])
async def test_what_lies_compressed_is_sent_as_it_lies(root: Path, client: Client, storage: Storage) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)), storage=storage)
    stored = next((root / "brain" / "1_1_1").iterdir()).read_bytes()
    for _ in range(2):  # the first answer has checked the stream, the second has not
        answer = await client.get(f"/brain/{CORNER}", headers={"Accept-Encoding": "gzip, deflate, br, zstd"})
        body = await answer.read()
        assert answer.headers["Content-Encoding"] == ENCODED[storage]
        assert "Accept-Encoding" in answer.headers["Vary"].split(", ")
        assert body in stored
        assert len(body) > len(stored) - 400


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("accepted", ["identity", "gzip, deflate, br, zstd"])
async def test_head_says_the_length_of_a_chunk_without_decoding_it(
    root: Path, client: Client, storage: Storage, accepted: str
) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)), storage=storage)
    path = next((root / "brain" / "1_1_1").iterdir())
    whole = await client.get(f"/brain/{CORNER}", headers={"Accept-Encoding": accepted})
    body = await whole.read()
    content = path.read_bytes()
    path.write_bytes(content[:500] + bytes(1000) + content[1500:])
    head = await client.head(f"/brain/{CORNER}", headers={"Accept-Encoding": accepted})
    assert (head.status, head.headers["Content-Length"]) == (200, str(len(body)))
    assert head.headers.get("Content-Encoding") == whole.headers.get("Content-Encoding")
    assert head.headers["ETag"] != whole.headers["ETag"]


async def test_an_encoding_with_quality_zero_is_not_accepted(root: Path, client: Client) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)), storage="gz")
    answer = await client.get(f"/brain/{CORNER}", headers={"Accept-Encoding": "gzip;q=0, br"})
    assert "Content-Encoding" not in answer.headers


async def test_each_encoding_has_a_tag_of_its_own(root: Path, client: Client) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)), storage="gz")
    encoded = await client.get(f"/brain/{CORNER}", headers={"Accept-Encoding": "gzip"})
    identity = await client.get(f"/brain/{CORNER}", headers={"Accept-Encoding": "identity"})
    assert encoded.headers["ETag"] != identity.headers["ETag"]


async def test_a_range_of_a_compressed_chunk_is_of_its_decoded_bytes(root: Path, client: Client) -> None:
    voxels = volume((1, 20, 64, 64))
    write_dataset(root / "brain", voxels, storage="tiff")
    answer = await client.get(f"/brain/{CORNER}", headers={"Accept-Encoding": "deflate", "Range": "bytes=10-19"})
    assert (answer.status, answer.headers["Content-Range"]) == (206, f"bytes 10-19/{voxels.nbytes}")
    assert "Content-Encoding" not in answer.headers
    assert await answer.read() == voxels.tobytes()[10:20]


@pytest.mark.parametrize(
    ("byteorder", "options"),
    [("<", {}), (">", {}), ("<", {"predictor": True}), ("<", {"rowsperstrip": 7}), ("<", {"tile": (16, 16)})],
)
async def test_any_tiff_of_the_right_shape_is_decoded(
    root: Path, client: Client, byteorder: Literal["<", ">"], options: dict[str, Any]
) -> None:
    voxels = volume((1, 20, 64, 64))
    write_dataset(root / "brain", voxels, storage="tiff")
    with tifffile.TiffWriter(root / "brain" / f"{CORNER}.tiff", byteorder=byteorder) as writer:
        for plane in voxels[0]:
            writer.write(plane, compression="zlib", contiguous=False, metadata=None, **options)
    answer = await client.get(f"/brain/{CORNER}", headers={"Accept-Encoding": "deflate"})
    assert await answer.read() == voxels.tobytes()


async def test_the_pages_of_a_tiff_may_differ_in_how_they_are_stored(root: Path, client: Client) -> None:
    voxels = volume((1, 20, 64, 64))
    write_dataset(root / "brain", voxels, storage="tiff")
    ways: list[dict[str, Any]] = [
        {"compression": "zlib"},
        {"compression": "zlib"},
        {"compression": None},
        {"compression": "zlib", "predictor": True},
        {"compression": "zlib", "rowsperstrip": 7},
    ]
    with tifffile.TiffWriter(root / "brain" / f"{CORNER}.tiff") as writer:
        for number, plane in enumerate(voxels[0]):
            writer.write(plane, contiguous=False, metadata=None, **ways[number % len(ways)])
    assert await (await client.get(f"/brain/{CORNER}")).read() == voxels.tobytes()


async def test_absent_is_404(root: Path, client: Client) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)))
    (root / "brain" / CORNER).unlink()
    for path in (CORNER, CORNER + ".tiff", "1_1_1/64-128_0-64_0-20", "9_9_9/0-64_0-64_0-20", "nothing"):
        assert (await client.get(f"/brain/{path}")).status == 404


@pytest.mark.parametrize(
    "name", ["00-64_0-64_0-20", "0-64_0-64_0-19", "1-64_0-64_0-20", "0-64_0-64_0-20.tif", "-0-64_0-64_0-20"]
)
async def test_a_name_that_is_not_the_canonical_one_is_404(root: Path, client: Client, name: str) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)), storage="tiff")
    assert (await client.get(f"/brain/1_1_1/{name}")).status == 404


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("accepted", ["identity", "deflate"])
async def test_damaged_is_500_and_readable_by_a_browser(
    root: Path, client: Client, storage: Storage, accepted: str
) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)), storage=storage)
    path = next((root / "brain" / "1_1_1").iterdir())
    path.write_bytes(path.read_bytes()[:-1000])
    answer = await client.get(f"/brain/{CORNER}", headers={"Accept-Encoding": accepted, "Origin": "http://elsewhere"})
    assert answer.status == 500
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert str(root) not in await answer.text()


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((21, 64, 64), "uint16"), ((20, 64, 65), "uint16"), ((20, 64, 64), "uint8"), ((20, 64, 64), "int16")],
)
async def test_a_tiff_of_another_shape_or_type_is_500(
    root: Path, client: Client, shape: tuple[int, int, int], dtype: str
) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)), storage="tiff")
    tifffile.imwrite(root / "brain" / f"{CORNER}.tiff", volume(shape, dtype), photometric="minisblack")
    assert (await client.get(f"/brain/{CORNER}")).status == 500


async def test_a_stream_longer_than_its_header_says_is_500(root: Path, client: Client) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)), storage="tiff")
    path = root / "brain" / f"{CORNER}.tiff"
    header, bomb = path.read_bytes()[:182], zlib.compress(bytes(200_000_000), 9)
    path.write_bytes(header[:-4] + header[-4:] + bomb)
    for accepted in ("identity", "deflate"):
        assert (await client.get(f"/brain/{CORNER}", headers={"Accept-Encoding": accepted})).status == 500


async def test_a_damaged_layout_is_never_shown_as_empty(root: Path, client: Client) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)))
    (root / "brain" / CORNER).unlink()
    (root / "brain" / "1_1_1" / "precomputed.blockfs").write_bytes(b"BlockFS\0")
    answer = await client.get(f"/brain/{CORNER}")
    assert answer.status == 500
    assert "precomputed.blockfs" in await answer.text()


async def test_a_dataset_converted_again_is_seen_at_once(root: Path, client: Client) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)))
    assert (await client.get(f"/brain/{CORNER}")).status == 200
    voxels = volume((1, 10, 64, 64), "uint8")
    write_dataset(root / "brain", voxels)
    answer = await client.get("/brain/1_1_1/0-64_0-64_0-10")
    assert await answer.read() == voxels.tobytes()


async def test_the_root_may_be_a_dataset(root: Path, client: Client) -> None:
    voxels = volume((1, 20, 64, 64))
    write_dataset(root, voxels)
    assert await (await client.get(f"/{CORNER}")).read() == voxels.tobytes()
    assert VolumeInfo.from_bytes(await (await client.get("/info")).read()).scales[0].size == (64, 64, 20)


async def test_a_scale_key_may_be_anything(root: Path, client: Client) -> None:
    voxels = volume((1, 20, 64, 64))
    info = write_dataset(root / "brain", voxels)
    os.renames(root / "brain" / "1_1_1", root / "brain" / "scales" / "full res")
    text = info.to_bytes().replace(b'"1_1_1"', b'"scales/full res"')
    (root / "brain" / "info").write_bytes(text)
    answer = await client.get("/brain/scales/full%20res/0-64_0-64_0-20.tiff")
    assert await answer.read() == voxels.tobytes()


async def test_a_chunk_without_a_dataset_is_a_plain_file(root: Path, client: Client) -> None:
    (root / "loose").mkdir()
    (root / "loose" / "0-1_0-1_0-1").write_bytes(b"ab")
    assert await (await client.get("/loose/0-1_0-1_0-1")).read() == b"ab"
    assert (await client.get("/loose/0-1_0-1_0-1.tiff")).status == 404


async def test_meshes_written_compressed_are_found_by_their_name(root: Path, client: Client) -> None:
    (root / "mesh").mkdir()
    (root / "mesh" / "123:0.gz").write_bytes(gzip.compress(b"mesh"))
    plain = await client.get("/mesh/123:0", headers={"Accept-Encoding": "identity"})
    packed = await client.get("/mesh/123:0", headers={"Accept-Encoding": "gzip"})
    assert await plain.read() == b"mesh"
    assert gzip.decompress(await packed.read()) == b"mesh"


async def test_large_files_arrive_whole_and_in_part(root: Path, client: Client) -> None:
    content = np.random.default_rng(1).bytes(3 * (1 << 20) + 17)
    (root / "0.shard").write_bytes(content)
    assert await (await client.get("/0.shard")).read() == content
    answer = await client.get("/0.shard", headers={"Range": "bytes=1000000-2999999", "Accept-Encoding": "gzip"})
    assert (answer.status, await answer.read()) == (206, content[1_000_000:3_000_000])
    head = await client.head("/0.shard")
    assert head.headers["Content-Length"] == str(len(content))


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("info", "application/json"),
        ("provenance", "application/json"),
        ("tree.json", "application/json"),
        ("notes.txt", "text/plain; charset=utf-8"),
        ("block_info.csv", "text/csv; charset=utf-8"),
        ("unknown", "application/octet-stream"),
        ("plane.tif", "image/tiff"),
    ],
)
async def test_content_types(root: Path, client: Client, name: str, content_type: str) -> None:
    (root / name).write_bytes(b"{}")
    answer = await client.get(f"/{name}")
    assert answer.headers["Content-Type"] == content_type
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_fifos_sockets_and_links_out_are_404(root: Path, client: Client, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    os.mkfifo(root / "fifo")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to("../secret")
    (root / "loop").symlink_to("loop")
    (root / "real").write_text("inside")
    (root / "in").symlink_to("real")
    for name in ("fifo", "out", "up", "loop", "up/x", "real/x"):
        assert (await client.get(f"/{name}")).status == 404, name
    assert await (await client.get("/in")).text() == "inside"


async def test_tiles_of_each_data_type(root: Path, client: Client) -> None:
    for dtype in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32"):
        voxels = volume((1, 20, 64, 64), dtype)
        write_dataset(root / dtype, voxels, storage="tiff")
        for accepted in ("deflate", "identity"):
            answer = await client.get(f"/{dtype}/{CORNER}", headers={"Accept-Encoding": accepted})
            body = await answer.read()
            assert (zlib.decompress(body) if "Content-Encoding" in answer.headers else body) == voxels.tobytes()


def test_our_chunk_tiffs_are_read_by_tifffile(root: Path) -> None:
    voxels = volume((1, 20, 63, 31), "uint16")
    write_dataset(root / "brain", voxels, storage="tiff")
    box = Box((0, 0, 0), (31, 63, 20))
    read = tifffile.imread(io.BytesIO((root / "brain" / "1_1_1" / f"{chunk_name(box)}.tiff").read_bytes()))
    assert np.array_equal(read, voxels[0])


async def test_a_download_that_breaks_off_ends_the_connection(
    root: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second status line in the middle of a body would be taken for content."""
    (root / "0.shard").write_bytes(bytes(1_500_000))

    def fails_after_a_mebibyte(self: Stored, offset: int = 0, length: int | None = None, **_named: object) -> bytes:
        if offset:
            raise Unreadable("the disk does not answer.")
        return bytes(length or 0)

    monkeypatch.setattr(Stored, "read", fails_after_a_mebibyte)
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(b"GET /0.shard HTTP/1.1\r\nHost: x\r\n\r\n")
    seen = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(1 << 16):
            seen += piece
    writer.close()
    assert seen.startswith(b"HTTP/1.1 200 ")
    assert seen.count(b"HTTP/1.1") == 1
    assert len(seen) < 1_500_000


@pytest.mark.parametrize("text", ["", "{", '{"data_type": "uint16", "sc', "[]", '"scales"', '{"scales": [{}]}'])
async def test_behind_a_damaged_info_nothing_looks_empty(root: Path, client: Client, text: str) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)), storage="tiff")
    (root / "brain" / "info").write_text(text)
    assert (await client.get(f"/brain/{CORNER}")).status == 500
    leaf = "/brain/annotations/x0y0z0/fibers.json"
    assert (await client.get(leaf)).status == 500
    assert (await client.put(leaf, data=b"[]")).status == 500


async def test_what_may_not_be_read_is_500_and_not_empty(
    root: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)))

    def forbidden(self: Tree, path: str, *_given: object, **_named: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(Tree, "open", forbidden)
    for path in (f"/brain/{CORNER}", "/brain/info", "/brain/annotations/x0y0z0/fibers.json"):
        assert (await client.get(path)).status == 500


async def test_a_gzip_file_of_several_members_is_sent_whole(root: Path, client: Client) -> None:
    (root / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n") + gzip.compress(b"1,2\n"))
    answer = await client.get("/t.csv", headers={"Accept-Encoding": "identity"})
    assert await answer.read() == b"a,b\n1,2\n"
    assert (await client.get("/t.csv.gz")).headers["Content-Type"] == "application/octet-stream"


async def test_a_chunk_is_checked_again_when_info_changes(root: Path, client: Client) -> None:
    info = write_dataset(root / "brain", volume((1, 20, 64, 64)), storage="gz")
    asked = {"Accept-Encoding": "gzip"}
    assert (await client.get(f"/brain/{CORNER}", headers=asked)).status == 200
    (root / "brain" / "info").write_bytes(replace(info, num_channels=2).to_bytes())
    assert (await client.get(f"/brain/{CORNER}", headers=asked)).status == 500


async def test_a_scale_sharded_in_an_unknown_way_is_never_shown_as_empty(root: Path, client: Client) -> None:
    info = json.loads(write_dataset(root / "brain", volume((1, 20, 64, 64))).to_bytes())
    info["scales"][0]["sharding"] = {"@type": "neuroglancer_uint64_sharded_v1"}
    (root / "brain" / "info").write_text(json.dumps(info))
    (root / "brain" / CORNER).unlink()
    answer = await client.get(f"/brain/{CORNER}")
    assert answer.status == 500
    assert "sharding" in await answer.text()


async def test_a_compressed_file_beyond_the_bound_is_not_even_read(
    root: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "brain.nii.gz").write_bytes(gzip.compress(b"small"))
    settings = replace(client.app[STATE].settings, max_decoded=10)
    monkeypatch.setattr(client.app[STATE], "settings", settings)
    answer = await client.get("/brain.nii", headers={"Accept-Encoding": "identity"})
    assert answer.status == 500
    assert "--max-decoded" in await answer.text()


@pytest.mark.parametrize("name", ["page.html", "picture.svg", "feed.atom", "data.rdf", "unknown"])
async def test_no_stored_file_runs_scripts_as_ours(root: Path, client: Client, name: str) -> None:
    (root / name).write_text("<script>alert(1)</script>")
    assert (await client.get(f"/{name}")).headers["Content-Security-Policy"] == "sandbox"


async def test_numbers_of_thousands_of_digits_are_no_names_and_no_ranges(root: Path, client: Client) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)))
    nines = "9" * 5000
    assert (await client.get(f"/brain/1_1_1/0-{nines}_0-64_0-20")).status == 404
    assert (await client.get("/brain/info", headers={"Range": f"bytes={nines}-"})).status == 200
