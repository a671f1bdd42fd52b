"""Pictures of datasets and what is sampled of their voxels, through HTTP."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import quote

import imagecodecs
import numpy as np
import pytest
from aiohttp.web import Application
from numpy.typing import NDArray
from yarl import URL

from precomputed_server.catalog.kept import KeptFiles
from precomputed_server.catalog.pictures import draw
from precomputed_server.format.names import RECORD, STATISTICS
from precomputed_server.format.painting import averaged, paint_labels, picked
from tests.catalog.trees import write_record
from tests.data import Storage, volume, write_dataset
from tests.web.conftest import Client

Pixels = NDArray[np.uint8]
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "\"onload='x'",
    "a&b=c#d?e",
    "100%2Fdone",
    "שלום\u202eevil",
    "🧠 fish",
    "x" * 200,
    "~alice",
    "api",
    "thumbnail.png",
    "datasets",
    "semi;colon,comma",
)
"""Names of directories that a page, a URL, a log or a query could take for something else."""


async def picture(client: Client, path: str) -> Pixels:
    """The pixels of a picture."""
    answer = await client.get(URL(f"/api/v1/datasets/{path}", encoded=True))
    body = await answer.read()
    assert answer.status == 200, body
    assert answer.content_type == "image/png"
    pixels: Pixels = imagecodecs.png_decode(body)
    return pixels


async def problem(client: Client, path: str, status: int) -> str:
    """The sentence of a problem document."""
    answer = await client.get(URL(f"/api/v1/datasets/{path}", encoded=True))
    body = json.loads(await answer.read())
    assert (answer.status, answer.content_type) == (status, "application/problem+json"), body
    return str(body["detail"])


def write_statistics(dataset: Path, *ranges: tuple[float, float]) -> None:
    """What a conversion leaves of these contrasts."""
    rows = [{"min": low, "max": high, "p01": low, "p998": high, "edges": [], "counts": []} for low, high in ranges]
    (dataset / STATISTICS).write_text(json.dumps({"channels": rows}))


@pytest.mark.parametrize("storage", ["plain", "gz", "br", "zstd", "tiff"])
async def test_a_thumbnail_is_the_middle_slice_under_the_contrast(root: Path, client: Client, storage: Storage) -> None:
    voxels = volume((1, 30, 70, 90), "uint16")
    write_dataset(root / "brain", voxels, storage=storage, resolution_nm=(1000, 1000, 2000))
    write_statistics(root / "brain", (1000, 40_000))
    pixels = await picture(client, "brain/thumbnail.png")
    assert pixels.shape == (70, 90)
    wanted = np.rint(np.clip((voxels[0, 15] - 1000.0) / 39_000, 0, 1) * 255)
    assert np.abs(pixels - wanted).max() <= 1


async def test_a_thumbnail_has_at_most_256_pixels_a_side_and_reads_a_coarse_scale(root: Path, client: Client) -> None:
    voxels = volume((1, 8, 300, 1000), "uint8")
    write_dataset(root / "brain", voxels, levels=4, resolution_nm=(1000, 1000, 1000))
    write_statistics(root / "brain", (0, 255))
    for finer in ("1_1_1", "2_2_2"):
        for chunk in (root / "brain" / finer).iterdir():
            chunk.write_bytes(b"damaged")
    pixels = await picture(client, "brain/thumbnail.png")
    assert pixels.shape == (75, 250)
    quarter = voxels[0, ::4, ::4, ::4][1]
    assert np.abs(pixels.astype(float) - quarter).max() <= 1


async def test_channels_are_added_up_in_their_colours(root: Path, client: Client) -> None:
    voxels = np.zeros((3, 1, 16, 16), np.uint8)
    voxels[0, :, :8], voxels[1, :, :, :8], voxels[2, 0, 15, 15] = 200, 200, 100
    write_dataset(root / "brain", voxels)
    write_statistics(root / "brain", *[(0, 200)] * 3)
    write_record(root / "brain", channels=[{"name": "a", "color": "#ff0000"}, {"color": "#00ff00"}, {"name": "c"}])
    pixels = await picture(client, "brain/thumbnail.png")
    assert pixels[0, 0].tolist() == [255, 255, 0]
    assert pixels[0, 15].tolist() == [255, 0, 0]
    assert pixels[15, 0].tolist() == [0, 255, 0]
    assert pixels[15, 15].tolist() == [128, 105, 32]


async def test_labels_have_colours_of_their_own(root: Path, client: Client) -> None:
    labels = np.zeros((1, 4, 20, 20), np.uint64)
    labels[:, :, :10], labels[:, :, 10:, 10:] = 7, 2**63 + 1
    write_dataset(root / "cells", labels, volume_type="segmentation")
    pixels = await picture(client, "cells/thumbnail.png")
    assert pixels[19, 0].tolist() == [0, 0, 0]
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) == 3
    assert pixels.max(axis=-1)[labels[0, 2] != 0].min() > 100


def test_labels_that_are_alike_are_told_apart() -> None:
    pixels = paint_labels(np.arange(1, 257, dtype=np.uint32).reshape(16, 16)).reshape(-1, 3).astype(int)
    apart = np.abs(pixels[1:] - pixels[:-1]).max(axis=1)
    assert np.quantile(apart, 0.05) > 30


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 5), (10, 6), (17, 13)])
def test_a_plane_is_brought_to_any_size(width: int, height: int) -> None:
    plane = volume((6, 10), "uint16")
    mean, one = averaged(plane, width, height), picked(plane, width, height)
    assert mean.shape == one.shape == (height, width)
    for row in range(height):
        for column in range(width):
            rows = slice(row * 6 // height, max((row + 1) * 6 // height, row * 6 // height + 1))
            columns = slice(column * 10 // width, max((column + 1) * 10 // width, column * 10 // width + 1))
            assert mean[row, column] == pytest.approx(plane[rows, columns].mean(), rel=1e-5)
            assert one[row, column] == plane[rows, columns][0, 0]


@pytest.mark.parametrize(("z", "shown"), [("0", 0), ("7", 7), ("29", 29), ("30", 29), ("-4", 0), ("9" * 18, 29)])
async def test_a_preview_is_the_slice_that_was_asked_for_or_the_next_there_is(
    root: Path, client: Client, z: str, shown: int
) -> None:
    voxels = volume((1, 30, 32, 40), "uint8")
    write_dataset(root / "brain", voxels, voxel_offset=(5, 6, 100), resolution_nm=(10, 10, 10))
    write_statistics(root / "brain", (0, 255))
    answer = await client.get(f"/api/v1/datasets/brain/preview.png?z={z}")
    assert answer.headers["Precomputed-Slice"] == str(shown)
    assert np.array_equal(imagecodecs.png_decode(await answer.read()), voxels[0, shown])


async def test_a_coarse_scale_is_scrolled_in_voxels_of_the_finest(root: Path, client: Client) -> None:
    voxels = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None, None], (1, 64, 256, 256)).copy()
    write_dataset(root / "brain", voxels, levels=3, voxel_offset=(0, 0, 8))
    write_statistics(root / "brain", (0, 255))
    for z in (0, 3, 4, 33, 63):
        assert np.unique(await picture(client, f"brain/preview.png?z={z}&size=64")).tolist() == [z // 4 * 4]


async def test_a_preview_under_another_contrast_and_size(root: Path, client: Client, tmp_path: Path) -> None:
    voxels = volume((1, 4, 128, 64), "uint8")
    write_dataset(root / "brain", voxels, resolution_nm=(10, 10, 10))
    pixels = await picture(client, "brain/preview.png?z=1&range=100,101&size=512")
    assert np.array_equal(pixels == 255, voxels[0, 1] > 100)
    assert not list((tmp_path / "state").glob("*/pictures/*.png"))
    assert (await picture(client, "brain/preview.png?size=32")).shape == (32, 16)
    assert len(list((tmp_path / "state").glob("*/pictures/*.png"))) == 1


@pytest.mark.parametrize(
    "query",
    ["z=", "z=1.5", "z=x", "z=" + "9" * 5000, "size=0", "size=15", "size=2049", "range=1", "range=1,2,3", "range=a,b",
     "range=1,2&range=1,2", "range=nan,1", "range=0,inf", "zoom=1"],
)  # fmt: skip
async def test_bad_previews_are_explained(root: Path, client: Client, query: str) -> None:
    write_dataset(root / "brain", volume((1, 4, 8, 8), "uint8"))
    assert query.partition("=")[0] in await problem(client, f"brain/preview.png?{query}", 400)


async def test_layers_are_asked_for_by_name(root: Path, client: Client) -> None:
    for number, name in enumerate(("image", "cells")):
        (root / "brain" / name).mkdir(parents=True)
        write_dataset(root / "brain" / name, np.full((1, 1, 8, 8 * (number + 1)), 5, np.uint8))
    layers = [{"name": "Image & more", "path": "image"}, {"name": "Cells", "path": "cells"}]
    write_record(root / "brain", layers=[*layers, {"name": "gone", "path": "gone"}])
    assert (await picture(client, "brain/thumbnail.png")).shape == (8, 8)
    assert (await picture(client, "brain/thumbnail.png?layer=Cells")).shape[1] == 16
    assert (await picture(client, "brain/preview.png?layer=Image%20%26%20more")).shape[1] == 8
    assert "Cells" in await problem(client, "brain/preview.png?layer=none", 404)


async def test_where_nothing_can_be_drawn(root: Path, client: Client) -> None:
    write_dataset(root / "empty", volume((1, 4, 8, 8), "uint8"))
    shutil.rmtree(root / "empty" / "1_1_1")
    write_dataset(root / "coded", volume((1, 4, 8, 8), "uint8"))
    info = root / "coded" / "info"
    info.write_text(info.read_text().replace('"raw"', '"jxl"'))
    write_dataset(root / "huge", volume((1, 1, 8, 8), "uint8"))
    huge = json.loads((root / "huge" / "info").read_text())
    huge["scales"][0]["size"] = [100_000, 100_000, 100]
    (root / "huge" / "info").write_text(json.dumps(huge))
    (root / ".hidden").mkdir()
    write_dataset(root / ".hidden", volume((1, 4, 8, 8), "uint8"))
    (root / "planes").mkdir()
    for name in ("thumbnail.png", "preview.png"):
        assert "no chunks" in await problem(client, f"empty/{name}", 404)
        assert "jxl" in await problem(client, f"coded/{name}", 404)
        assert "too large" in await problem(client, f"huge/{name}", 404)
        assert "not served" in await problem(client, f".hidden/{name}", 404)
        assert "not a dataset" in await problem(client, f"planes/{name}", 404)
        assert "not a dataset" in await problem(client, f"nothing/{name}", 404)
        await problem(client, f"{'x' * 300}/{name}", 404)
        await problem(client, f"%2E%2E/{name}", 400)


async def test_what_is_damaged_is_not_drawn_as_empty(root: Path, client: Client) -> None:
    write_dataset(root / "brain", volume((1, 4, 8, 8), "uint8"))
    next((root / "brain" / "1_1_1").iterdir()).write_bytes(b"short")
    await problem(client, "brain/thumbnail.png", 500)
    (root / "brain" / "info").write_text("{")
    await problem(client, "brain/thumbnail.png", 500)


async def test_the_root_may_be_the_dataset(root: Path, client: Client) -> None:
    write_dataset(root, volume((1, 4, 8, 8), "uint8"))
    for path in ("thumbnail.png", ".%2Fthumbnail.png"):
        assert (await picture(client, path)).shape == (8, 8)


@pytest.mark.parametrize("name", HOSTILE)
async def test_pictures_of_datasets_with_hostile_names(root: Path, client: Client, name: str) -> None:
    (root / "lab" / name).mkdir(parents=True)
    write_dataset(root / "lab" / name, volume((1, 4, 8, 9), "uint8"))
    (root / name).mkdir()
    write_dataset(root / name, volume((1, 4, 9, 8), "uint8"))
    for path, shape in ((f"lab/{name}", (8, 9)), (name, (9, 8))):
        for spelled in (quote(path), quote(path, safe="")):
            assert (await picture(client, f"{spelled}/thumbnail.png")).shape == shape
            assert (await picture(client, f"{spelled}/preview.png?z=2")).shape == shape


async def test_a_picture_is_asked_for_again_only_when_it_has_changed(
    root: Path, client: Client, app: Application, tmp_path: Path
) -> None:
    write_dataset(root / "brain", volume((1, 4, 8, 8), "uint8"))
    url = "/api/v1/datasets/brain/thumbnail.png"
    first = await client.get(url)
    again = await client.get(url, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status, again.headers["ETag"]) == (304, first.headers["ETag"])
    kept = list((tmp_path / "state").glob("*/pictures/*.png"))
    assert len(kept) == 1
    drawn = await first.read()
    kept[0].write_bytes(b"recalled")
    assert await (await client.get(url)).read() == b"recalled"
    write_record(root / "brain", channels=[{"color": "#ff0000"}])
    changed = await client.get(url, headers={"If-None-Match": first.headers["ETag"]})
    assert changed.status == 200
    assert await changed.read() != drawn
    assert (root / "brain" / RECORD).exists()


async def test_many_who_ask_at_once_wait_for_one_drawing(
    root: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(root / "brain", volume((1, 4, 8, 8), "uint8"))
    calls: list[Any] = []

    def counted(*given: Any) -> bytes:
        calls.append(given)
        return draw(*given)

    monkeypatch.setattr("precomputed_server.web.pictures.draw", counted)
    answers = await asyncio.gather(*(client.get("/api/v1/datasets/brain/thumbnail.png") for _ in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert len(calls) == 1


async def test_the_contrast_of_a_foreign_dataset_is_sampled_and_kept(
    root: Path, client: Client, tmp_path: Path
) -> None:
    voxels = np.random.default_rng(0).integers(1000, 3000, (2, 20, 64, 64)).astype(np.uint16)
    write_dataset(root / "brain", voxels, levels=2)
    url = "/api/v1/datasets/brain/histogram"
    channels = json.loads(await (await client.get(url)).read())["channels"]
    coarse = voxels[:, ::2, ::2, ::2]
    for figures, channel in zip(channels, coarse, strict=True):
        assert (figures["min"], figures["max"]) == (channel.min(), channel.max())
        assert figures["p01"] == pytest.approx(np.quantile(channel, 0.01), abs=3)
        assert figures["p998"] == pytest.approx(np.quantile(channel, 0.998), abs=3)
        assert sum(figures["counts"]) == channel.size
        assert len(figures["edges"]) == len(figures["counts"]) + 1
    (kept,) = (tmp_path / "state").glob("*/pictures/*.json")
    kept.write_text("[]")
    assert json.loads(await (await client.get(url)).read()) == {"channels": []}
    write_statistics(root / "brain", (1, 2), (3, 4))
    told = json.loads(await (await client.get(url)).read())["channels"]
    assert [row["p998"] for row in told] == [2, 4]


async def test_labels_have_no_histogram(root: Path, client: Client) -> None:
    write_dataset(root / "cells", volume((1, 4, 8, 8), "uint64"), volume_type="segmentation")
    assert "labels" in await problem(client, "cells/histogram", 404)


async def test_voxels_without_a_finite_value_have_no_figures_and_are_drawn(root: Path, client: Client) -> None:
    write_dataset(root / "brain", np.full((1, 4, 8, 8), np.nan, np.float32))
    answer = await client.get("/api/v1/datasets/brain/histogram")
    assert json.loads(await answer.read())["channels"][0]["p01"] is None
    assert (await picture(client, "brain/thumbnail.png")).max() == 0


def test_what_is_kept_is_bounded_and_the_newest_is_there(tmp_path: Path) -> None:
    bound = 1 << 16
    writers = [KeptFiles(tmp_path / "kept", bound, 2) for _ in range(2)]
    for number in range(400):
        writers[number % 2].put(str(number), bytes(1000))
        assert sum(path.stat().st_size for path in (tmp_path / "kept").iterdir()) <= bound
        assert writers[0].get(str(number)) == bytes(1000)
    assert len(list((tmp_path / "kept").iterdir())) > 50
    writers[0].put("large", bytes(bound))
    assert writers[0].get("large") is None
    KeptFiles(tmp_path / "none", 0).put("a", b"a")
    assert not (tmp_path / "none").exists()
