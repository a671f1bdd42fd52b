"""The NeuroTrALE client, simulated from what it was seen to send, against the running server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from converter import ConvertOptions, convert
from converter.stacks.voxel_size import parse_edges
from tests.annotation_store.support import Replayed
from tests.data import phantom_stack, point, volume, write_annotations, write_dataset
from tests.end_to_end.conftest import Served
from tests.end_to_end.neurotrale import CENTROIDS, FIBERS, Item, NeuroTrale, sent_by_client
from tests.end_to_end.wire import Connection

pytestmark = pytest.mark.component

VIEWS = {"one_nanometre": ("", (1.0, 1.0, 1.0)), "voxel_view": ("/~alice.voxel", (1800.0, 1800.0, 2000.0))}
"""A session prefix and the edges of a voxel in nm: the two ways in which a leaf is named by its slice."""


@pytest.fixture(params=VIEWS)
def opened(request: pytest.FixtureRequest, served: Served) -> tuple[NeuroTrale, Path]:
    """A page on a small annotated dataset, and the directory of its block."""
    prefix, resolution_nm = VIEWS[request.param]
    name = f"{request.node.originalname}_{request.param}"
    write_dataset(served.root / name, volume((1, 30, 70, 80), "uint8"), resolution_nm=resolution_nm)
    block = write_annotations(
        served.root / name,
        {
            "z-0020": [contour(1, 20, "neuron"), contour(2, 20, "glia")],
            CENTROIDS: [point(3, 60.1, 60.2, 20.3, note="unknown to the client", length=40.75)],
        },
        block_size=(80, 70, 30),
    )
    (served.root / name / "tree.json").write_text("[]")
    return NeuroTrale(served.server, f"{prefix}/{name}"), block


def test_load_reads_the_slice_and_changes_nothing(opened: tuple[NeuroTrale, Path]) -> None:
    client, block = opened
    before = on_disk(block)
    client.load(20)
    assert {leaf: ids(items) for leaf, items in client.held.items()} == {
        "z-0020": [number(1), number(2)],
        FIBERS: [],
        CENTROIDS: [number(3)],
    }
    assert client.statuses == [200, 200, 404, 200, 200]
    assert on_disk(block) == before


def test_add_drag_and_delete(opened: tuple[NeuroTrale, Path]) -> None:
    client, block = opened
    client.load(20)
    centre = client.add(CENTROIDS, {"type": "point", "anntype": "neuron", "point": [10.1, 20.2, 20.3]})
    fibre = client.add(FIBERS, {"type": "linestring", "anntype": "axon", "points": [[1.1, 2, 3], [4, 5, 6]]})
    assert ids(on_disk(block)[CENTROIDS]) == [number(3), centre]
    assert ids(on_disk(block)[FIBERS]) == [fibre]
    client.drag(CENTROIDS, centre, [(10.1 + step, 20.2, 20.3) for step in range(1, 9)])
    moved = on_disk(block)[CENTROIDS][-1]
    assert moved["point"] == pytest.approx([18.1, 20.2, 20.3], rel=1e-6)
    client.delete(CENTROIDS, centre)
    client.delete(FIBERS, fibre)
    assert on_disk(block)[FIBERS] == []
    assert set(client.statuses) <= {200, 204, 404}
    assert not any(told.startswith("parked") for _, _, told in client.told)
    assert_every_save_is_in_the_log(client, block, dragged=centre)


def test_a_save_keeps_what_the_client_drops(opened: tuple[NeuroTrale, Path]) -> None:
    client, block = opened
    before = on_disk(block)[CENTROIDS]
    client.load(20)
    added = client.add(CENTROIDS, {"type": "point", "anntype": "glia", "point": [1.5, 2.5, 20.5]})
    assert on_disk(block)[CENTROIDS][:1] == before
    assert ids(on_disk(block)[CENTROIDS]) == [number(3), added]


def test_double_clicks_elsewhere_name_the_same_block(opened: tuple[NeuroTrale, Path]) -> None:
    client, block = opened
    client.load(20)
    client.double_click(77, 42)
    assert ids(client.held["z-0020"]) == [number(1), number(2)]
    added = client.add("z-0020", contour(4, 20, "neuron"))
    client.double_click(3, 69)
    assert ids(client.held["z-0020"]) == [number(1), number(2), added]
    assert sorted(path.name for path in block.parent.glob("[!.]*")) == ["block_info.csv", block.name]
    assert_every_save_is_in_the_log(client, block)


def test_what_scrolling_would_take_out_of_a_file_is_parked(opened: tuple[NeuroTrale, Path]) -> None:
    client, block = opened
    client.load(20)
    before = client.held["z-0020"]
    client.change_z(19)
    assert [items for _, items in client.sent] == [sent_by_client(before[1:]), []]
    assert all(told.startswith("parked; id=") for _, _, told in client.told)
    client.change_z(20)
    assert not (block / "z-0019.json").exists()
    assert client.held["z-0020"] == before == on_disk(block)["z-0020"]
    assert set(client.statuses) <= {200, 204, 404}
    assert_every_save_is_in_the_log(client, block)
    # What comes after that is not parked: the person is on the slice, and removes one annotation.
    client.delete("z-0020", number(1))
    assert ids(on_disk(block)["z-0020"]) == [number(2)]
    client.delete("z-0020", number(2))
    if client.told[-1][0].startswith("/~"):
        assert on_disk(block)["z-0020"] == []
    else:  # the peer stands for many pages, of which one may have sent its wipe again: kept, and said so
        assert ids(on_disk(block)["z-0020"]) == [number(2)]
        parked = client.ask(client.told[-1][0].partition("/x0y0z0/")[0] + "/parked").json()["parked"]
        assert (parked[0]["reason"], parked[0]["remove"]) == ("doubt", [number(2)])


def test_a_slice_that_is_drawn_and_scrolled_away_from_is_there_for_another_page(
    opened: tuple[NeuroTrale, Path],
) -> None:
    """It was answered 404 first: what it has saved since is what it holds, and not nothing once more."""
    client, block = opened
    client.load(7)
    leaf = client.slice_leaf
    drawn = [client.add(leaf, contour(9, 7, anntype)) for anntype in ("neuron", "glia")]
    client.change_z(8)
    assert ids(on_disk(block)[leaf]) == drawn
    client.change_z(7)
    assert ids(client.held[leaf]) == drawn
    assert_every_save_is_in_the_log(client, block)


def test_contours_on_three_slices_of_the_banana(shared_data: Path, served: Served) -> None:
    options = ConvertOptions(voxel_size=parse_edges(",,8800"))
    convert(str(shared_data / "banana"), served.root / "banana", options)
    draw_on_three_slices(served, "banana")


def test_contours_on_three_slices_of_a_stack_made_in_code(tmp_path: Path, served: Served) -> None:
    phantom_stack(tmp_path, (25, 40, 50))
    options = ConvertOptions(voxel_size=parse_edges("390.625,390.625,8800"))
    convert(str(tmp_path), served.root / "code", options)
    draw_on_three_slices(served, "code")


def test_the_recorded_session(shared_data: Path, served: Served) -> None:
    recorded = shared_data / "neurotrale_session"
    dataset = served.root / "nt"
    write_dataset(dataset, volume((1, 40, 256, 256), "uint8"), resolution_nm=(1, 1, 1), levels=3)
    shutil.copytree(recorded / "before", dataset, dirs_exist_ok=True)
    requests = [json.loads(line) for line in (recorded / "session.jsonl").read_text().splitlines()]
    replayed = [request for request in requests if request["t"] <= 5]
    assert len(replayed) > 10
    with Connection(served.server) as connection:
        for request in replayed:
            answer = connection.request(
                request["method"], request["path"], request["body"].encode() or None, request["headers"]
            )
            assert answer.status < 500, f"{request['method']} {request['path']}: {answer.body!r}"
            if request["method"] == "PUT":
                assert answer.status == 200
    block = dataset / "annotations" / "x0y0z0"
    assert not (block / "z-0019.json").exists()
    before = json.loads((recorded / "before" / "annotations" / "x0y0z0" / "z-0020.json").read_text())
    assert by_id(before) in versions(block, "z-0020")
    assert set(ids(before)) <= set(ids(on_disk(block)["z-0020"]))


def draw_on_three_slices(served: Served, dataset: str) -> None:
    """Draw a contour on each with a freshly opened page, then look at every slice with another one."""
    slices = (3, 8, 13)
    drawn = {}
    for z in slices:
        client = NeuroTrale(served.server, f"/~alice.voxel/{dataset}")
        client.load(z + 0.5)
        drawn[z] = client.add(client.slice_leaf, contour(z, z + 0.5, "neuron"))
    block = served.root / dataset / "annotations" / "x0y0z0"
    assert {leaf: ids(items) for leaf, items in on_disk(block).items()} == {f"z-{z:04d}": [drawn[z]] for z in slices}
    for z in range(25):
        client = NeuroTrale(served.server, f"/~bob.voxel/{dataset}")
        client.load(z + 0.5)
        assert ids(client.held[client.slice_leaf]) == ([drawn[z]] if z in slices else []), f"slice {z}"


def assert_every_save_is_in_the_log(client: NeuroTrale, block: Path, dragged: str = "") -> None:
    """What each save held was a version of its file, or is parked, whatever came after it.

    Saves of one drag overlap: of what was `dragged`, a place that the page itself had left before it was committed
    need not have been stored.
    """
    assert len(client.told) == len(client.sent)
    for url, items, told in client.told:
        if told.startswith("parked; id="):
            place = url.partition("/annotations/")[0] + f"/annotations/parked/{told.partition('id=')[2]}"
            assert by_id(sent_by_client(client.ask(place).json())) == by_id(items)
        else:
            leaf = url.rpartition("/")[2].removesuffix(".json")
            known = [by_id(sent_by_client(version.values())) for version in versions(block, leaf)]
            if by_id(items) not in known and told in ("merged", "unchanged"):
                items = [item for item in items if item["id"] != dragged]
                known = [{id: item for id, item in version.items() if id != dragged} for version in known]
            assert by_id(items) in known, f"a save of {leaf} is not in the log"


def versions(block: Path, leaf: str) -> list[dict[str, Item]]:
    """Every content that the edit log says the leaf had, the one before there was a log included."""
    replay = Replayed()
    found: dict[int, dict[str, Item]] = {0: {}}
    for log in sorted((block.parent / ".history" / block.name).glob("log-*.jsonl")):
        for line in log.read_text().splitlines():
            replay.take(json.loads(line))
            if leaf in replay.leaves:
                found[replay.versions[leaf]] = dict(replay.leaves[leaf])
    return list(found.values())


def on_disk(block: Path) -> dict[str, list[Any]]:
    """The annotations of every leaf in a block's directory."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(block.glob("*.json"))}


def contour(identifier: int, z: float, anntype: str) -> Item:
    """A polygon in a slice."""
    corners = [[10.25, 10.0, z], [30.1, 10.0, z], [30.1, 25.5 + identifier, z]]
    return {
        "points": corners,
        "type": "polygon",
        "id": number(identifier),
        "anntype": anntype,
        "reviewed": False,
        "visited": False,
    }


def number(identifier: int) -> str:
    """40 hex characters."""
    return f"{identifier:040x}"


def ids(items: list[Item]) -> list[str]:
    """Their ids in order."""
    return [item["id"] for item in items]


def by_id(items: list[Item]) -> dict[str, Item]:
    """The same without an order."""
    return {item["id"]: item for item in items}
