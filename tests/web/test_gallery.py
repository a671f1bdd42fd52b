"""The gallery over the catalog: searching, narrowing down, paging, and what is said of a dataset that is not whole."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urljoin

import pytest

from precomputed_server.catalog.database import Catalog
from precomputed_server.catalog.entries import COMPLETE, CONVERTING, Entry
from precomputed_server.catalog.indexer import catalog_path
from precomputed_server.web.gallery import CARDS
from tests.catalog.trees import make_dataset
from tests.web.conftest import Client
from tests.web.test_datasets import index
from tests.web.test_pages import Page, page

NOW = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture
def lab(root: Path) -> Path:
    """A root with five datasets and a folder of planes."""
    for number in range(3):
        make_dataset(root / "mouse" / f"brain {number}", title=f"Brain {number}", tags=["cleared", f"day{number}"])
    make_dataset(root / "fish", title="Zebrafish", description="light sheet")
    (make_dataset(root / "broken") / "info").write_text("{")
    (root / "raw").mkdir()
    (root / "raw" / "plane_0.tif").touch()
    index(root)
    return root


def cards(seen: Page) -> list[str]:
    """The pages that the cards lead to."""
    return [link.removeprefix("./") for link in seen.links if link.startswith("./datasets/")]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=brain&sort=-title", ["mouse/brain%202", "mouse/brain%201", "mouse/brain%200"]),
        ("q=sheet", ["fish"]),
        ("q=&state=&tag=day1", ["mouse/brain%201"]),
        ("state=unusable&state=stack", ["broken", "raw"]),
        ("type=segmentation", []),
        ("q=brain&something=else", ["mouse/brain%200", "mouse/brain%201", "mouse/brain%202"]),
    ],
)
async def test_searching_and_narrowing_down(lab: Path, client: Client, query: str, found: list[str]) -> None:
    seen = await page(client, f"/?{query}")
    assert cards(seen) == [f"datasets/{path}" for path in found]
    if not found:
        assert "No dataset is like that" in seen.text


async def test_other_values_can_still_be_chosen_with_their_counts(lab: Path, client: Client) -> None:
    text = await (await client.get("/?state=complete&q=brain")).text()
    assert 'name="state" value="complete" checked> complete <span class="hint">3</span>' in text
    text = await (await client.get("/?state=unusable")).text()
    assert 'value="complete"> complete <span class="hint">4</span>' in text
    assert 'value="unusable" checked> unusable <span class="hint">1</span>' in text
    assert 'name="state" value="vanished"> vanished' in text


async def test_a_search_that_means_nothing_is_refused(lab: Path, client: Client) -> None:
    answer = await client.get("/?sort=colour")
    assert answer.status == 400
    assert "sort is" in json.loads(await answer.text())["detail"]


async def test_states_are_told_with_their_reasons(lab: Path, client: Client) -> None:
    seen = await page(client, "/")
    assert "unusable info is not JSON." in " ".join(seen.text.split())
    assert "1 TIFF file" in seen.text
    assert "complete " not in seen.text.partition("Brain 0")[2].partition("Brain 1")[0]


def put(root: Path, entries: list[Entry], whole: bool = True) -> None:
    """Fill the catalog of the application's root with entries."""
    catalog = Catalog(catalog_path(root.parent / "state", root), writable=True)
    catalog.store(entries, [], NOW)
    if whole:
        catalog.note_scan(NOW, 1.0)
    catalog.close()


async def test_paging_shows_each_dataset_once(root: Path, client: Client) -> None:
    names = [f"d{number:03}" for number in range(2 * CARDS + 5)]
    await asyncio.to_thread(put, root, [Entry(name, COMPLETE, title=name, tags=("a&b", "c")) for name in names])
    address, found = "/?tag=a%26b&sort=-title", []
    while address:
        seen = await page(client, address)
        found += cards(seen)
        following = next((link for link in seen.links if "cursor=" in link), "")
        address = urljoin("/", following) if following else ""
    assert found == [f"datasets/{name}" for name in reversed(names)]
    assert "?tag=a%26b&sort=-title" in seen.links  # back to the first


async def test_a_conversion_has_a_bar(root: Path, client: Client) -> None:
    await asyncio.to_thread(put, root, [Entry("brain", CONVERTING, title="Brain", done=30, total=120)])
    for path, looks_again in (("/", 'data-pace="often"'), ("/datasets/brain", 'data-changing="yes"')):
        text = await (await client.get(path)).text()
        assert '<progress max="100" value="25"' in text
        assert looks_again in text


async def test_what_is_known_so_far_is_shown_while_the_catalog_is_made(root: Path, client: Client) -> None:
    make_dataset(root / "fish")
    for _ in range(2):
        seen = await page(client, "/")
        assert "being made" in seen.text
        assert cards(seen) == ["datasets/fish"]
        await asyncio.to_thread(put, root, [], False)  # a catalog in which nothing is yet
    await asyncio.to_thread(put, root, [Entry("brain", COMPLETE, title="Brain")], False)
    seen = await page(client, "/")
    assert "being made" in seen.text
    assert cards(seen) == ["datasets/brain"]
    await asyncio.to_thread(index, root)
    assert "being made" not in (await page(client, "/")).text


async def test_a_page_of_long_names_stays_small(root: Path, client: Client) -> None:
    entries = [Entry(f"{'päth ' * 20}/{n}", COMPLETE, "A reason.", title="Tïtle " * 20) for n in range(2 * CARDS)]
    await asyncio.to_thread(put, root, entries)
    assert len(await (await client.get("/")).read()) <= 200_000
