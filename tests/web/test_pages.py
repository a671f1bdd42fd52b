"""Pages and listings, and the files that installed packages bring."""

from __future__ import annotations

import asyncio
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin

import pytest

from tests.catalog.trees import make_dataset, write_record
from tests.data import volume, write_dataset
from tests.web.conftest import Client
from tests.web.test_datasets import index


class Page(HTMLParser):
    """The links, scripts and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        self.links += [value for name, value in attributes if name in ("href", "src") and value]

    def handle_data(self, data: str) -> None:
        self.text += data


async def page(client: Client, path: str) -> Page:
    """Fetch and parse one page."""
    answer = await client.get(path)
    assert answer.status == 200
    return Page(await answer.text())


async def test_the_start_page_lists_datasets_at_any_depth(root: Path, client: Client) -> None:
    write_dataset(root / "mouse", volume((1, 20, 70, 65)), resolution_nm=(162.5, 162.5, 8_800_000))
    write_dataset(root / "lab" / "run 3" / "ch1", volume((2, 20, 64, 64)))
    (root / "raw").mkdir()
    start = await page(client, "/index.html")
    for shown in ("mouse", "lab/run 3/ch1", "65 × 70 × 20", "162.5 nm × 162.5 nm × 8.8 mm", "uint16, 2 channels"):
        assert shown in start.text
    assert "./datasets/lab/run%203/ch1" in start.links
    assert start.text == (await page(client, "/")).text


async def test_the_start_page_looks_at_no_chunks_and_lists_each_layer(
    root: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("red", "green"):
        make_dataset(root / "cells" / name)
    write_record(root / "cells", layers=[{"name": "Red", "path": "red"}, {"name": "Green", "path": "green"}])
    for looking in ("survey.look_at", "survey.last_conversion"):
        monkeypatch.setattr(f"precomputed_server.catalog.{looking}", None)
    start = await page(client, "/")
    assert {"./datasets/cells/red", "./datasets/cells/green"} <= set(start.links)


async def test_the_start_page_of_an_empty_root_says_what_to_do(client: Client) -> None:
    assert "precomputed convert" in (await page(client, "/")).text


async def test_a_damaged_dataset_does_not_hide_the_others(root: Path, client: Client) -> None:
    write_dataset(root / "good", volume((1, 20, 64, 64)))
    (root / "bad").mkdir()
    (root / "bad" / "info").write_text('{"scales": [')
    (root / "loop").mkdir()
    (root / "loop" / "again").symlink_to("..")
    seen = (await page(client, "/")).text
    assert "good" in seen
    assert "info is not JSON." in seen


async def test_a_half_written_dataset_is_not_listed(root: Path, client: Client) -> None:
    write_dataset(root / "half", volume((1, 20, 64, 64)))
    (root / "half" / "info").unlink()
    assert "./datasets/half" not in (await page(client, "/")).links
    assert (await client.get("/datasets/half")).status == 404


RESERVED = ("api", "review", "~tilde")
"""Names that the server keeps for itself, or gives a meaning of its own."""


@pytest.mark.parametrize("is_indexed", [False, True])
async def test_every_link_of_the_pages_leads_somewhere(root: Path, client: Client, is_indexed: bool) -> None:
    for name in ("brain", "lab/review", "lab/annotations", *RESERVED):
        write_dataset(root / name, volume((1, 20, 64, 64)))
    if is_indexed:
        await asyncio.to_thread(index, root)
    for start in ("/index.html", "/~alice/"):
        links = set((await page(client, start)).links)
        pages = sorted(link for link in links if "/datasets/" in link and "/api/" not in link)
        assert len(pages) == 6
        for link in links:
            await follow(client, start, link)
        for link in pages:
            here = urljoin(start, link)
            seen = await page(client, here)
            assert "64 × 64 × 20" in seen.text
            for further in seen.links:
                await follow(client, here, further)


async def follow(client: Client, here: str, link: str) -> None:
    """Go where a link of a page leads."""
    if not link.startswith("data:") and not link.endswith(("/thumbnail.png", "/preview.png")):
        answer = await client.get(urljoin(here, link.partition("#")[0]))
        assert answer.status == 200, (here, link)


async def test_the_files_of_a_dataset_with_a_reserved_name_are_linked(root: Path, client: Client) -> None:
    write_dataset(root / "api", volume((1, 20, 64, 64)))
    files = next(link for link in (await page(client, "/datasets/~/api")).links if link.endswith("~/api/"))
    assert "info" in (await page(client, urljoin("/datasets/~/api", files))).text


async def test_the_viewer_link_carries_the_layer(root: Path, client: Client) -> None:
    write_dataset(root / "brain", volume((2, 20, 70, 65)))
    link = next(link for link in (await page(client, "/")).links if "neuroglancer" in link)
    way = (await client.get(urljoin("/", link), allow_redirects=False)).headers["Location"]
    assert (await client.get(urljoin(urljoin("/", link), way))).status == 200
    state = json.loads(unquote(way.partition("#!")[2]))
    layer = state["layers"][0]
    assert layer["source"] == f"precomputed://http://127.0.0.1:{client.port}/brain"
    assert state["dimensions"] == {"x": [1.8e-06, "m"], "y": [1.8e-06, "m"], "z": [2e-06, "m"]}
    assert state["position"] == [32.5, 35.5, 10.5]
    assert "channel1()" in layer["shader"]


async def test_a_listing_has_relative_links_and_no_hidden_names(root: Path, client: Client) -> None:
    directory = root / "brain"
    (directory / "1_1_1").mkdir(parents=True)
    (directory / "info").write_text("{}")
    (directory / ".precomputed").mkdir()
    listing = await page(client, "/brain/")
    assert [link for link in listing.links if link.startswith("./")] == ["./1_1_1/", "./info"]


async def test_a_listing_has_the_collections_that_lie_on_no_disk(root: Path, client: Client) -> None:
    write_dataset(root / "brain", volume((1, 4, 8, 8), "uint8"))
    (root / "brain" / "annotations").mkdir()
    (root / "brain" / "z").mkdir()
    links = ["./1_1_1/", "./annotations/", "./annotations.precomputed/", "./info", "./z/"]
    assert [link for link in (await page(client, "/brain/")).links if link.startswith("./")] == links
    (root / "brain" / "annotations.precomputed").mkdir()
    assert [link for link in (await page(client, "/brain/")).links if link.startswith("./")] == links


async def test_the_style_of_a_listing_is_found_under_any_prefix(root: Path, client: Client) -> None:
    (root / "lab" / "brain").mkdir(parents=True)
    for path in ("/lab/brain/", "/~alice.voxel/lab/brain/", "/~/lab/brain/", "/~alice/~/lab/"):
        style = next(link for link in (await page(client, path)).links if link.endswith(".css"))
        assert (await client.get(urljoin(path, style))).status == 200


@pytest.mark.parametrize("path", ["/brain", "/~alice/brain", "/a%20b", "/lab//brain"])
async def test_a_directory_without_its_slash_answers_308(root: Path, client: Client, path: str) -> None:
    (root / "brain").mkdir()
    (root / "lab" / "brain").mkdir(parents=True)
    (root / "a b").mkdir()
    answer = await client.get(path, allow_redirects=False)
    assert answer.status == 308
    assert (await client.get(urljoin(path, answer.headers["Location"]))).status == 200


HOSTILE = (
    "<script>alert(1)<script>",
    '"onmouseover="alert(1)',
    "'><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "{{7*7}}",
    "a&amp;b",
    "x..%2f..%2fetc",
    "名前 с é",
    "a#b?c",
    "دماغ الفأر",
    "\N{BRAIN} brain",
    "x" * 200,
)


@pytest.mark.parametrize("is_indexed", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_names_are_text(root: Path, client: Client, name: str, is_indexed: bool) -> None:
    write_dataset(root / name / "sub", volume((1, 20, 64, 64)))
    write_record(root / name / "sub", title=name, description=name, tags=[name.replace(" ", "")[:64]])
    if is_indexed:
        await asyncio.to_thread(index, root)
    start = await page(client, "/")
    place = next(link for link in start.links if link.startswith("./datasets/"))
    for path in ("/", urljoin("/", place), urljoin("/", f"{place}/annotations"), urljoin("/", f"{place}/review")):
        seen = await page(client, path)
        assert seen.tags.count("script") <= 1
        assert not [name for name in seen.attributes if name.startswith("on")]
        assert not [link for link in seen.links if link.startswith("javascript:")]
        assert name in seen.text


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_names_are_text_in_listings(root: Path, client: Client, name: str) -> None:
    write_dataset(root / name / "sub", volume((1, 20, 64, 64)))
    seen = await page(client, "/~/")
    assert not {"script", "img"} & set(seen.tags)
    assert name in seen.text
    link = next(link for link in seen.links if link.startswith("./") and link.endswith("/") and "~" not in link[:3])
    assert (await client.get(urljoin("/~/", link), allow_redirects=False)).status == 200


async def test_pages_name_nothing_outside_the_server(root: Path, client: Client) -> None:
    write_dataset(root / "brain", volume((1, 20, 64, 64)))
    for path in ("/", "/brain/", "/api/", "/datasets/brain", "/datasets/brain/annotations"):
        text = await (await client.get(path)).text()
        hosts = set(re.findall(r"https?://([^/\"&%<]+)", text))
        assert hosts <= {f"127.0.0.1:{client.port}"}


@pytest.mark.parametrize("asset", ["", "swagger-ui-bundle.js", "swagger-ui.css", "openapi.json", "../static/api.js"])
async def test_the_interface_page_has_its_assets_here(client: Client, asset: str) -> None:
    assert (await client.get(urljoin("/api/", asset))).status == 200


async def test_the_interface_description_names_every_route(client: Client) -> None:
    described = json.loads(await (await client.get("/api/openapi.json")).read())
    assert described["openapi"].startswith("3.")
    methods = described["paths"]["/{dataset}/annotations/{block}/{leaf}.json"]
    assert {"get", "put", "patch", "delete"} <= set(methods)


async def test_the_viewer_is_served_here(client: Client) -> None:
    viewer = await page(client, "/neuroglancer/v/1/")
    for link in viewer.links:
        assert (await client.get(urljoin("/neuroglancer/v/1/", link))).status == 200
    assert (await client.get("/neuroglancer/v/1/../../../setup.py")).status in (400, 404)


async def test_without_the_viewer_the_remedy_is_named(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    from precomputed_server.web.state import STATE

    monkeypatch.setattr(client.app[STATE], "viewer", None)
    answer = await client.get("/neuroglancer/v/1/")
    assert answer.status == 404
    assert "precomputed-server[viewer]" in await answer.text()
