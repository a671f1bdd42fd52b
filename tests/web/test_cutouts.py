"""Cut-outs: the voxels of any box of any layout, in every format, and a sentence for what cannot be had."""

from __future__ import annotations

import asyncio
import io
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from aiohttp.web import Application, TCPSite

from precomputed_server.format.geometry import Box
from precomputed_server.format.names import chunk_name
from precomputed_server.readers.base import Place
from precomputed_server.web import boxes
from precomputed_server.web.app import create_runner
from precomputed_server.web.cutout import BOXES
from precomputed_server.web.state import STATE
from tests.data import volume, write_dataset
from tests.readers.layouts import KEY, LAYOUTS, OFFSET, SIZE, Phantom
from tests.web.conftest import Client

BRAIN = f"/brain/{KEY}/cutout"
KINDS = [("tiff", kind) for kind in LAYOUTS["tiff"].data_types] + [("zarr", "float32"), ("plain", "uint64")]


def random_box(generator: np.random.Generator) -> Box:
    """Within the phantom."""
    low = [int(generator.integers(0, extent)) for extent in SIZE]
    high = [int(generator.integers(start, extent)) + 1 for start, extent in zip(low, SIZE, strict=True)]
    return Box((low[0], low[1], low[2]), (high[0], high[1], high[2])).moved(OFFSET)


def phantom_in(root: Path, layout: str, data_type: str = "", channels: int = 1) -> Phantom:
    """Write the dataset `brain`."""
    made = LAYOUTS[layout].phantom(data_type, channels)
    LAYOUTS[layout].write(root / "brain", made)
    return made


def npy(body: bytes) -> np.ndarray[Any, Any]:
    """What numpy makes of a file."""
    found: np.ndarray[Any, Any] = np.load(io.BytesIO(body))
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
async def test_any_box_of_any_layout_in_parts_of_any_size(root: Path, client: Client, layout: str) -> None:
    made = await asyncio.to_thread(phantom_in, root, layout, channels=LAYOUTS[layout].channels)
    generator = np.random.default_rng(len(layout))
    for _ in range(10):
        box = random_box(generator)
        client.app[BOXES].largest_part = int(generator.integers(1, 30_000)) + 8
        name = ("raw", "npy")[int(generator.integers(0, 2))]
        answer = await client.get(BRAIN, params={"box": chunk_name(box), "format": name})
        body = await answer.read()
        assert answer.status == 200
        assert int(answer.headers["Content-Length"]) == len(body)
        expected = made.part(box)
        if name == "npy":
            assert npy(body).dtype == expected.dtype
            assert np.array_equal(npy(body), expected)
        else:
            assert body == expected.tobytes()
            assert answer.headers["Cutout-Shape"] == ",".join(map(str, expected.shape))


@pytest.mark.parametrize(("layout", "data_type"), KINDS)
async def test_every_data_type(root: Path, client: Client, layout: str, data_type: str) -> None:
    made = phantom_in(root, layout, data_type, channels=2)
    box = Box((40, 20, 9), (70, 50, 19))
    for name in ("raw", "npy", "tiff"):
        answer = await client.get(BRAIN, params={"box": chunk_name(box), "format": name})
        body = await answer.read()
        if name == "tiff" and data_type == "uint64":
            assert answer.status == 400
            assert "npy" in json.loads(body)["detail"]
        elif name == "tiff":
            found = tifffile.imread(io.BytesIO(body))
            assert np.array_equal(found, made.part(box).swapaxes(0, 1))
        elif name == "npy":
            assert np.array_equal(npy(body), made.part(box))
        else:
            found = np.frombuffer(body, np.dtype(answer.headers["Cutout-Data-Type"]))
            shape = tuple(map(int, answer.headers["Cutout-Shape"].split(",")))
            assert np.array_equal(found.reshape(shape), made.part(box))


async def test_a_tiff_in_parts_has_the_size_of_its_voxels(root: Path, client: Client) -> None:
    made = phantom_in(root, "gz", channels=3)
    client.app[BOXES].largest_part = 2000
    box = Box((33, 17, 8), (75, 53, 19))
    body = await (await client.get(BRAIN, params={"box": chunk_name(box), "format": "tiff"})).read()
    with tifffile.TiffFile(io.BytesIO(body)) as file:
        assert file.series[0].axes == "ZCYX"
        assert np.array_equal(file.asarray(), made.part(box).swapaxes(0, 1))
        assert file.imagej_metadata is not None
        assert (file.imagej_metadata["spacing"], file.imagej_metadata["unit"]) == (0.04, "um")
        numerator, denominator = file.pages.first.tags["XResolution"].value
        assert denominator / numerator == 0.004


@pytest.mark.parametrize("data_type", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
async def test_a_plane_as_png(root: Path, client: Client, data_type: str, channels: int) -> None:
    made = phantom_in(root, "tiff", data_type, channels)
    box = Box((33, 17, 10), (70, 50, 11))
    answer = await client.get(BRAIN, params={"box": chunk_name(box), "format": "png"})
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
    pixels = imagecodecs.png_decode(await answer.read())
    assert pixels.dtype == made.voxels.dtype
    assert np.array_equal(pixels, np.moveaxis(made.part(box)[:, 0], 0, -1).squeeze())


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("box=40-50_20-30_9-11", "one voxel in z, such as 9-10"),
        ("box=40-50_20-30_9-10&channel=0&channel=1", "one or three channels"),
        ("box=40-50_20-30_9-10&channel=0", "no voxels of float32"),
    ],
)
async def test_what_no_png_holds(root: Path, client: Client, query: str, sentence: str) -> None:
    phantom_in(root, "plain", "float32", 2)
    answer = await client.get(f"{BRAIN}?{query}&format=png")
    assert answer.status == 400
    assert sentence in (await answer.json(content_type=None))["detail"]


async def test_channels_by_number_and_by_name(root: Path, client: Client) -> None:
    made = phantom_in(root, "tiff", channels=3)
    (root / "brain" / ".precomputed").mkdir()
    record = {"channels": [{"name": "DAPI"}, {"name": "0"}, {"name": "488"}]}
    (root / "brain" / ".precomputed" / "dataset.json").write_text(json.dumps(record))
    box = Box((40, 20, 9), (70, 50, 19))
    for given, channels in [
        (["0"], [0]),
        (["DAPI"], [0]),
        (["488"], [2]),
        (["2", "DAPI"], [2, 0]),
        (["1", "1"], [1, 1]),
    ]:
        query = [("box", chunk_name(box)), ("format", "npy"), *(("channel", name) for name in given)]
        answer = await client.get(BRAIN, params=query)
        assert np.array_equal(npy(await answer.read()), made.part(box)[channels])


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("", "box=32-75_16-53_8-19"),
        ("box=", "box=x0-x1"),
        ("box=40-40_20-30_9-11", "each end behind"),
        ("box=40-30_20-30_9-11", "each end behind"),
        ("box=040-50_20-30_9-11", "box=x0-x1"),
        ("box=40-50,20-30,9-11", "box=x0-x1"),
        ("box=40-50_20-30_9-11&box=40-50_20-30_9-11", "Name one box"),
        ("box=31-50_20-30_9-11", "32-75_16-53_8-19"),
        ("box=40-76_20-30_9-11", "not wholly in the volume"),
        ("box=-5-50_20-30_9-11", "not wholly in the volume"),
        ("box=40-50_20-30_9-11&format=jpeg", "raw, npy, tiff, png"),
        ("box=40-50_20-30_9-11&channel=1", "none of this dataset's: 0"),
        ("box=40-50_20-30_9-11&channel=-1", "none of this dataset's"),
        ("box=40-50_20-30_9-11&channel=", "none of this dataset's"),
        ("box=40-50_20-30_9-11&chanel=0", "box, channel, format"),
    ],
)
async def test_what_cannot_be_asked_for(root: Path, client: Client, query: str, sentence: str) -> None:
    phantom_in(root, "plain")
    for method in ("GET", "HEAD"):
        answer = await client.request(method, f"{BRAIN}?{query}")
        assert answer.status == 400
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        if method == "GET":
            assert sentence in (await answer.json(content_type=None))["detail"]


async def test_larger_than_the_setting_is_413(root: Path, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    phantom_in(root, "plain")
    limit = 20 * 10 * 5 * 2
    state = client.app[STATE]
    monkeypatch.setattr(state, "settings", replace(state.settings, max_cutout=limit))
    exact = await client.get(BRAIN, params={"box": "40-60_20-30_9-14"})
    assert (exact.status, len(await exact.read())) == (200, limit)
    answer = await client.get(BRAIN, params={"box": "40-60_20-30_9-15"})
    assert answer.status == 413
    detail = (await answer.json(content_type=None))["detail"]
    assert "2400 bytes" in detail
    assert "at most 2000 (--max-cutout), here 1000 voxels" in detail
    with_header = await client.get(BRAIN, params={"box": "40-60_20-30_9-14", "format": "npy"})
    assert with_header.status == 413


async def test_a_png_larger_than_its_memory_is_413(root: Path, client: Client) -> None:
    phantom_in(root, "plain")
    client.app[BOXES].largest_part = 399
    answer = await client.get(BRAIN, params={"box": "40-60_20-30_9-10", "format": "png"})
    assert answer.status == 413
    assert "--cutout-memory" in (await answer.json(content_type=None))["detail"]


@pytest.mark.parametrize("path", ["/brain/2_2_2/cutout", "/cutout", "/nothing/1_1_1/cutout", "/brain/cutout"])
async def test_elsewhere_there_is_no_cutout(root: Path, client: Client, path: str) -> None:
    phantom_in(root, "plain")
    assert (await client.get(path, params={"box": "40-60_20-30_9-10"})).status == 404


async def test_a_file_of_that_name_that_is_in_no_scale_is_a_file(root: Path, client: Client) -> None:
    (root / "notes").mkdir()
    (root / "notes" / "cutout").write_bytes(b"of paper")
    assert await (await client.get("/notes/cutout")).read() == b"of paper"


@pytest.mark.parametrize("prefix", ["/~alice", "/~alice.voxel", "/~alice/~", "/~"])
async def test_behind_a_prefix_it_is_the_same(root: Path, client: Client, prefix: str) -> None:
    phantom_in(root, "plain")
    box = Box((40, 20, 9), (70, 50, 19))
    plain = await client.get(BRAIN, params={"box": chunk_name(box), "format": "tiff"})
    answer = await client.get(prefix + BRAIN, params={"box": chunk_name(box), "format": "tiff"})
    assert await answer.read() == await plain.read()


@pytest.mark.parametrize("key", ["1_1_1", "mip/0", "40x40x40", "a b"])
async def test_the_root_as_a_dataset_and_any_key(root: Path, client: Client, key: str) -> None:
    voxels = volume((1, 20, 30, 40))
    write_dataset(root, voxels)
    info = json.loads((root / "info").read_text())
    info["scales"][0]["key"] = key
    (root / "info").write_text(json.dumps(info))
    (root / key).parent.mkdir(exist_ok=True)
    (root / "1_1_1").rename(root / key)
    answer = await client.get(f"/{key}/cutout", params={"box": "3-9_4-8_5-20"})
    assert await answer.read() == voxels[:, 5:20, 4:8, 3:9].tobytes()
    assert "filename=" in answer.headers["Content-Disposition"]


@pytest.mark.parametrize("name", ["raw", "npy", "tiff", "png"])
async def test_head_says_the_length_and_reads_no_voxels(root: Path, client: Client, name: str) -> None:
    phantom_in(root, "plain")
    query = {"box": "40-60_20-30_9-10", "format": name}
    whole = await client.get(BRAIN, params=query)
    body = await whole.read()
    for path in (root / "brain" / KEY).iterdir():
        path.write_bytes(b"damaged")
    head = await client.head(BRAIN, params=query)
    assert (head.status, await head.read()) == (200, b"")
    assert head.headers.get("Content-Length") == (None if name == "png" else str(len(body)))
    for header in ("Content-Type", "Cache-Control", "Cutout-Shape", "Cutout-Data-Type", "Accept-Ranges"):
        assert head.headers[header] == whole.headers[header]
    assert head.headers["Cache-Control"] == "no-cache"
    assert "ETag" not in head.headers


async def test_a_range_is_answered_with_the_whole(root: Path, client: Client) -> None:
    phantom_in(root, "plain")
    answer = await client.get(BRAIN, params={"box": "40-60_20-30_9-10"}, headers={"Range": "bytes=5-9"})
    assert (answer.status, len(await answer.read())) == (200, 400)


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
async def test_other_methods_are_not_known(root: Path, client: Client, method: str) -> None:
    phantom_in(root, "plain")
    assert (await client.request(method, BRAIN)).status == 405


@pytest.mark.parametrize("layout", ["plain", "tiff", "zarr"])
async def test_a_damaged_chunk_at_the_beginning_is_500_and_named(root: Path, client: Client, layout: str) -> None:
    phantom_in(root, layout)
    for path in [path for path in (root / "brain" / KEY).rglob("*") if path.is_file() and path.name != ".zarray"]:
        os.truncate(path, 40)
    answer = await client.get(BRAIN, params={"box": "32-40_16-20_8-10"})
    assert answer.status == 500
    assert "chunk 32-48_16-32_8-16" in (await answer.json(content_type=None))["detail"]


async def test_without_memory_for_it_the_answer_is_503(root: Path, client: Client) -> None:
    phantom_in(root, "plain")
    shared = client.app[BOXES]
    with shared.holding(4 * shared.largest_part):
        answer = await client.get(BRAIN, params={"box": "32-40_16-20_8-10"})
        assert answer.status == 503
        assert int(answer.headers["Retry-After"]) > 0
    assert (await client.get(BRAIN, params={"box": "32-40_16-20_8-10"})).status == 200


async def test_nothing_more_is_read_for_a_client_that_went_away(
    root: Path, app: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    phantom_in(root, "plain")
    looked_for: list[Box] = []

    def slowly(_place: Place, whole: Box) -> None:
        looked_for.append(whole)
        time.sleep(0.05)

    monkeypatch.setattr(boxes, "_found", slowly)
    runner = create_runner(app)  # as workers do, and other than aiohttp's test server it cancels no handlers
    await runner.setup()
    await TCPSite(runner, "127.0.0.1", 0).start()
    _, writer = await asyncio.open_connection(*runner.addresses[0])
    writer.write(f"GET {BRAIN}?box=32-75_16-53_8-19 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    while not looked_for:
        await asyncio.sleep(0.01)
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(1.5)
    await runner.cleanup()
    assert len(looked_for) < 6  # of 18 chunks
