"""The catalog for programs: search, paging, one dataset, its histogram, and bad requests."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from precomputed_server import settings
from precomputed_server.catalog.indexer import Indexer, catalog_path
from precomputed_server.files import Tree
from precomputed_server.readers.volumes import Volumes
from tests.catalog.trees import INFO, make_dataset
from tests.web.conftest import Client


def index(root: Path) -> None:
    """Bring the catalog of the application's root up to date, as its indexer does."""
    chosen = settings.load(root, {"state": str(root.parent / "state")}, environ={})
    tree = Tree(root)
    indexer = Indexer(tree, Volumes(tree), catalog_path(chosen.state, root))
    indexer.scan()
    indexer.close()
    tree.close()


async def asked(client: Client, path: str, status: int = 200) -> Any:  # noqa: ANN401
    """The JSON of an answer."""
    answer = await client.get(path)
    body = json.loads(await answer.read())
    assert answer.status == status, body
    return body


@pytest.fixture
def lab(root: Path) -> Path:
    """A root with seven datasets, of which two are not complete."""
    for number in range(5):
        tags = ["cleared", "left" if number % 2 else "right"]
        make_dataset(root / "mouse" / f"brain {number}", title=f"Brain {number}", tags=tags)
    make_dataset(root / "fish" / "Größe", title="Zebrafish", description="light sheet")
    (make_dataset(root / "broken") / "info").write_text("{")
    index(root)
    return root


async def test_all_datasets_with_their_facets(lab: Path, client: Client) -> None:
    found = await asked(client, "/api/v1/datasets")
    assert found["total"] == 7
    assert found["next"] is None
    assert [dataset["path"] for dataset in found["datasets"]] == sorted(
        ["broken", "fish/Größe", *(f"mouse/brain {number}" for number in range(5))]
    )
    assert found["facets"]["state"] == {"complete": 6, "unusable": 1}
    assert found["facets"]["tags"] == {"cleared": 5, "right": 3, "left": 2}


@pytest.mark.parametrize(
    ("query", "titles"),
    [
        ("q=brain", [f"Brain {number}" for number in range(5)]),
        ("q=BRA%204", ["Brain 4"]),
        ("q=grosse", []),
        ("q=grö", ["Zebrafish"]),
        ("q=gro", ["Zebrafish"]),
        ("q=sheet", ["Zebrafish"]),
        ("q=left", ["Brain 1", "Brain 3"]),
        ("q=%22*%20OR%20(", []),
        ("q=%22*%20-(", [*(f"Brain {number}" for number in range(5)), "Zebrafish", "broken"]),
        ("tag=left", ["Brain 1", "Brain 3"]),
        ("tag=left&tag=cleared&q=3", ["Brain 3"]),
        ("state=unusable", ["broken"]),
        ("type=segmentation", []),
        ("q=brain&sort=-title&limit=2", ["Brain 4", "Brain 3"]),
    ],
)
async def test_searches(lab: Path, client: Client, query: str, titles: list[str]) -> None:
    found = await asked(client, f"/api/v1/datasets?{query}")
    assert sorted(dataset["title"] for dataset in found["datasets"]) == sorted(titles)


@pytest.mark.parametrize("sort", ["path", "-path", "title", "-title", "bytes", "-bytes", "state", "first_seen"])
async def test_pages_have_every_dataset_once(lab: Path, client: Client, sort: str) -> None:
    whole = await asked(client, f"/api/v1/datasets?sort={sort}")
    paged: list[str] = []
    cursor = ""
    while True:
        page = await asked(client, f"/api/v1/datasets?sort={sort}&limit=2{cursor}")
        assert page["total"] == 7
        paged += [dataset["path"] for dataset in page["datasets"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert paged == [dataset["path"] for dataset in whole["datasets"]]


@pytest.mark.parametrize("path", ["mouse/brain%202", "mouse%2Fbrain%202", "mouse%2fbrain 2"])
async def test_one_dataset_by_its_path(lab: Path, client: Client, path: str) -> None:
    found = await asked(client, f"/api/v1/datasets/{path}")
    assert (found["path"], found["title"], found["size"]) == ("mouse/brain 2", "Brain 2", [64, 64, 64])


async def test_the_longest_path_that_is_a_dataset_wins_over_a_suffix(root: Path, client: Client) -> None:
    (root / "1_1_1").mkdir()
    (root / "1_1_1" / "0-64_0-64_0-64").write_bytes(bytes(64**3))
    (root / "info").write_text(json.dumps(INFO))
    figures = {"min": 1, "max": 9, "p01": 1, "p998": 9, "edges": [1, 5, 10], "counts": [3, 4]}
    (root / "statistics.json").write_text(json.dumps({"channels": [figures]}))
    await asyncio.to_thread(index, root)
    assert (await asked(client, "/api/v1/datasets/histogram")) == {"channels": [figures]}
    (root / "info").unlink()
    make_dataset(root / "histogram", title="a dataset")
    figures = figures | {"min": 2}
    (root / "histogram" / "statistics.json").write_text(json.dumps({"channels": [figures]}))
    await asyncio.to_thread(index, root)
    assert (await asked(client, "/api/v1/datasets/histogram"))["title"] == "a dataset"
    assert (await asked(client, "/api/v1/datasets/histogram/histogram")) == {"channels": [figures]}


BEYOND = base64.urlsafe_b64encode(json.dumps(["bytes", 1 << 70, "x"]).encode()).decode()
"""A cursor with a number that no database has."""


@pytest.mark.parametrize(
    "query",
    [
        "sort=size",
        "limit=0",
        "limit=1001",
        "limit=ten",
        "state=ready",
        "colour=red",
        "cursor=%F0",
        "cursor=bnVsbA==",
        f"cursor={BEYOND}&sort=bytes",
    ],
)
async def test_bad_searches_are_explained(lab: Path, client: Client, query: str) -> None:
    problem = await asked(client, f"/api/v1/datasets?{query}", 400)
    assert query.partition("=")[0] in problem["detail"]


async def test_what_is_no_dataset(lab: Path, client: Client) -> None:
    for path in ("nothing", "mouse", "mouse/brain 2/1_1_1", "%2E%2E/etc"):
        assert (await client.get(f"/api/v1/datasets/{path}")).status in (400, 404)


async def test_before_the_first_index_clients_are_asked_to_wait(root: Path, client: Client) -> None:
    answer = await client.get("/api/v1/datasets")
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "2"
    make_dataset(root / "a")
    await asyncio.to_thread(index, root)
    assert (await asked(client, "/api/v1/datasets"))["total"] == 1
