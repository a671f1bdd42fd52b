"""The page of a dataset: what it tells of each kind of place, and what only a setting lets it tell."""

from __future__ import annotations

import asyncio
import html
import json
import re
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from precomputed_server import settings
from precomputed_server.web.app import create_app
from precomputed_server.web.state import STATE
from tests.catalog.trees import make_dataset, write_record
from tests.data import volume, write_dataset
from tests.web.conftest import AiohttpClient, Client, ServerAsRun
from tests.web.test_datasets import index
from tests.web.test_pages import page

Connect = Callable[..., Awaitable[Client]]


@pytest.fixture
def connect(root: Path, aiohttp_client: AiohttpClient) -> Connect:
    """Serve the root with other settings."""

    async def connected(**given: Any) -> Client:
        chosen = {"workers": 1, "state": str(root.parent / "state"), **given}
        app = await asyncio.to_thread(create_app, settings.load(root, chosen, environ={}))
        return await aiohttp_client(ServerAsRun(app))

    return connected


async def text_of(client: Client, path: str) -> str:
    """The visible text of a page, with one blank between words."""
    answer = await client.get(path)
    assert answer.status == 200
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", await answer.text())).split())


@pytest.mark.parametrize("is_indexed", [False, True])
async def test_what_a_dataset_consists_of(root: Path, client: Client, is_indexed: bool) -> None:
    write_dataset(root / "brain", volume((2, 20, 70, 65)), levels=2, voxel_offset=(0, 0, 8))
    write_record(root / "brain", title="Brain 7", description="Cleared.\nImaged.", tags=["cleared"])
    (root / "brain" / "provenance.json").write_text(json.dumps({"source": "a stack", "files": [{}, {}], "none": None}))
    if is_indexed:
        await asyncio.to_thread(index, root)
    seen = await text_of(client, "/datasets/brain")
    for told in ("Brain 7", "65 × 70 × 20 voxels", "image, uint16, 2 channels", "Cleared. Imaged.", "cleared"):
        assert told in seen
    assert "2_2_2 33 × 35 × 10 3.6 µm × 3.6 µm × 4 µm 64 × 64 × 64 raw" in seen
    assert "source a stack files 2 entries" in seen
    assert f"precomputed://http://127.0.0.1:{client.port}/brain" in seen
    text = await (await client.get("/datasets/brain")).text()
    assert 'min="8" max="27" step="1" value="18"' in text


async def test_each_layer_is_told_and_opened(root: Path, client: Client) -> None:
    for name in ("red", "green"):
        make_dataset(root / "cells" / name)
    write_record(root / "cells", layers=[{"name": "Red", "path": "red"}, {"name": "Gone", "path": "gone"}])
    await asyncio.to_thread(index, root)
    seen = await page(client, "/datasets/cells")
    assert "../neuroglancer/open/cells" in seen.links
    assert "../neuroglancer/open/cells/red" in seen.links
    assert "gone has no info." in seen.text


async def test_of_several_layers_the_first_that_is_whole_is_shown(root: Path, client: Client) -> None:
    for name in ("red", "green"):
        make_dataset(root / "cells" / name)
    (root / "cells" / "red" / "info").write_text("{")
    write_record(root / "cells", layers=[{"name": "Red", "path": "red"}, {"name": "Green", "path": "green"}])
    await asyncio.to_thread(index, root)
    seen = await text_of(client, "/datasets/cells")
    assert f"precomputed://http://127.0.0.1:{client.port}/cells/green" in seen
    assert f"precomputed://http://127.0.0.1:{client.port}/cells/red" not in seen
    assert 'id="preview"' in await (await client.get("/datasets/cells")).text()


async def test_why_a_place_is_no_whole_dataset(root: Path, client: Client) -> None:
    (make_dataset(root / "bad") / "info").write_text("{")
    shutil.rmtree(make_dataset(root / "half") / "1_1_1")
    make_dataset(root / "gone")
    (root / "raw").mkdir()
    (root / "raw" / "plane_0.tif").touch()
    await asyncio.to_thread(index, root)
    shutil.rmtree(root / "gone")
    await asyncio.to_thread(index, root)
    for path, told in (
        ("bad", "unusable info is not JSON."),
        ("half", "incomplete No chunks lie in 1_1_1."),
        ("raw", "stack 1 TIFF file"),
        ("gone", "vanished"),
    ):
        assert told in await text_of(client, f"/datasets/{path}")


async def test_a_root_that_is_a_dataset_has_a_page(root: Path, client: Client) -> None:
    answer = await client.get("/datasets/", allow_redirects=False)
    assert (answer.status, answer.headers["Location"]) == (302, "../")
    write_dataset(root, volume((1, 20, 64, 64)))
    assert "64 × 64 × 20" in await text_of(client, "/datasets/")
    assert (await client.get("/datasets/nothing")).status == 404


async def test_where_it_lies_is_told_only_when_a_setting_lets_it(root: Path, connect: Connect) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)))
    assert str(root) not in await text_of(await connect(), "/datasets/brain")
    assert f"Directory {root}/brain" in await text_of(await connect(show_paths=True), "/datasets/brain")


async def test_links_lead_to_another_viewer_where_ours_is_not_installed(
    root: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)))
    for viewer, is_linked in (("http://viewer.example/", True), ("https://viewer.example/", False)):
        client = await connect(viewer_url=viewer)
        monkeypatch.setattr(client.app[STATE], "viewer", None)
        for path in ("/", "/datasets/brain"):
            seen = await page(client, path)
            editor = f"{viewer}#!http://127.0.0.1:{client.port}/brain/annotations/state"
            assert (editor in seen.links) == is_linked
            assert ("precomputed-server[viewer]" in seen.text) != is_linked
