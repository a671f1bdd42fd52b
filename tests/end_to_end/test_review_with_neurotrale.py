"""What somebody confirms while others work with the NeuroTrALE client: kept by every save, undone by a move."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.data import point, volume, write_annotations, write_dataset
from tests.end_to_end.conftest import Served
from tests.end_to_end.neurotrale import CENTROIDS, FIBERS, NeuroTrale
from tests.end_to_end.wire import Connection

pytestmark = pytest.mark.component

RESOLUTION_NM = (1800.0, 1800.0, 2000.0)
VIEWS = {"nanometres": "/~carol", "voxels": "/~carol.voxel"}


@pytest.fixture(params=VIEWS)
def opened(request: pytest.FixtureRequest, served: Served) -> tuple[NeuroTrale, str]:
    """A page on a dataset in which slices 20 and 25 share a leaf's name where it counts nanometres; and its name."""
    name = f"{request.node.originalname}_{request.param}"
    write_dataset(served.root / name, volume((1, 30, 70, 80), "uint8"), resolution_nm=RESOLUTION_NM)
    items = [point(number, 60.1 + number, 60.2, 20.3, length=4.75) for number in (1, 2, 3)]
    write_annotations(served.root / name, {CENTROIDS: items})
    return NeuroTrale(served.server, f"{VIEWS[request.param]}/{name}"), name


def test_confirming_beside_a_client(opened: tuple[NeuroTrale, str], served: Served) -> None:
    client, name = opened
    with Connection(served.server) as alice:
        client.load(20)
        told = confirm(alice, name, [f"{number:040x}" for number in (1, 2)])
        assert told == 200
        fibre = client.add(FIBERS, {"type": "linestring", "anntype": "axon", "points": [[1, 2, 25.5], [4, 5, 26]]})
        client.add(client.slice_leaf, polygon(20.5))
        client.change_z(25)
        client.add(client.slice_leaf, polygon(25.5))
        look(client, f"{3:040x}")
        client.drag(CENTROIDS, f"{1:040x}", [(60.1 + step, 60.2, 20.3) for step in range(1, 5)])
        progress = progress_of(alice, name)
        assert (progress["total"], progress["reviewed"], progress["visited"]) == (6, 1, 3)
        assert [(row["slice"], row["total"]) for row in progress["slices"]] == [(20, 4), (25, 2)]
        authors = {row["author"]: row["total"] for row in progress["authors"]}
        assert authors == {"alice": 0, "carol": 3, "external": 3}
        rows = {row["id"]: row["state"] for row in listed(alice, name)}
        assert rows[f"{1:040x}"] == "moved"
        assert rows[f"{2:040x}"] == "reviewed"
        assert rows[f"{3:040x}"] == "visited"
        assert rows[fibre] == "untouched"


def polygon(z: float) -> dict[str, Any]:
    """A contour in a slice."""
    return {"type": "polygon", "anntype": "soma", "points": [[5, 5, z], [9, 5, z], [9, 9, z]]}


def look(client: NeuroTrale, id: str) -> None:
    """Click on a point: the client sets its flag and saves."""
    for item in client.held[CENTROIDS]:
        if item["id"] == id:
            item["reviewed"] = True
    client.drag(CENTROIDS, id, [tuple(item["point"]) for item in client.held[CENTROIDS] if item["id"] == id])


def confirm(connection: Connection, name: str, ids: list[str]) -> int:
    """The status that alice is answered."""
    body = json.dumps({"reviewed": True, "ids": ids}).encode()
    return connection.request("POST", f"/~alice/{name}/annotations/review", body).status


def progress_of(connection: Connection, name: str) -> Any:  # noqa: ANN401  # any JSON value
    """How far the dataset is."""
    return connection.get(f"/{name}/annotations/progress").json()


def listed(connection: Connection, name: str) -> list[dict[str, Any]]:
    """Every annotation."""
    rows: list[dict[str, Any]] = connection.get(f"/{name}/annotations/review?state=all").json()["annotations"]
    return rows


def test_every_worker_counts_the_same(served: Served, tmp_path: Path) -> None:
    """Each connection may be another worker's."""
    write_dataset(served.root / "same", volume((1, 30, 70, 80), "uint8"))
    write_annotations(served.root / "same", {f"z-{z:04d}": [point(z, 1, 1, z)] for z in range(20)})
    for number in range(20):
        with Connection(served.server) as connection:
            assert confirm(connection, "same", [f"{number:040x}"]) == 200
        tags = set()
        for _ in range(6):
            with Connection(served.server) as connection:
                answer = connection.get("/same/annotations/progress")
                assert answer.json()["reviewed"] == number + 1
                tags.add(answer.headers["etag"])
        assert len(tags) == 1
