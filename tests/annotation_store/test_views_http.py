"""Neuroglancer's collections over HTTP: what is answered, under which headers, and that it is never old."""

from __future__ import annotations

import asyncio
import json
import threading
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

import pytest

from annotation_store.views import leaves
from annotation_store.views.numbers import number_of
from annotation_store.web import collections
from precomputed_server.format.info import VolumeInfo
from tests.annotation_store.conftest import Client, Connect
from tests.annotation_store.precomputed import decoded, decoded_one, single
from tests.annotation_store.support import Editor, Place, some, written
from tests.data import point, volume, write_annotations, write_dataset
from tests.web.test_pages import Page

COLLECTIONS = "/brain/annotations.precomputed/"
POINTS = f"{COLLECTIONS}fibers-point"
CELL = f"{POINTS}/spatial-0/0_0_0"
LEAF = "/brain/annotations/x0y0z0/fibers.json"


async def seen(client: Client, url: str = CELL) -> set[int]:
    """The numbers of the points in a cell."""
    answer = await client.get(url)
    assert answer.status == 200, await answer.text()
    return {one.id for one in decoded("point", await answer.read())}


async def test_the_collections_that_exist_are_listed(connect: Connect, place: Place, editor: Editor) -> None:
    client = await connect()
    assert [link for link in Page(await (await client.get(COLLECTIONS)).text()).links if "-" in link] == []
    await asyncio.to_thread(editor.put, point(1, 1, 2, 3))
    await asyncio.to_thread(editor.put, point(1, 1, 2, 3), leaf="z-0003")
    listing = Page(await (await client.get(COLLECTIONS)).text())
    assert [link for link in listing.links if "-" in link] == ["./contours-point/", "./fibers-point/"]
    inside = Page(await (await client.get(f"{POINTS}/")).text())
    assert [link for link in inside.links if link.startswith("./")] == [
        *("./info", "./by_id/", "./segments/", "./spatial-0/")
    ]
    for path in (COLLECTIONS, f"{POINTS}/"):
        answer = await client.get(path.rstrip("/"), allow_redirects=False)
        assert (answer.status, (await client.get(path.rstrip("/"))).url.path) == (308, path)


async def test_an_edit_is_in_the_next_answer(connect: Connect) -> None:
    """Of whatever kind, and whatever was asked at the same time."""
    client = await connect()
    ids = [f"id{number}" for number in range(20)]
    present: set[str] = set()
    for step, id in enumerate(ids):
        waiting = [asyncio.create_task(seen(client)) for _ in range(3)]
        if step % 4 == 3:
            assert (await client.delete(f"{LEAF}?id={ids[step - 1]}")).status == 200
            present.discard(ids[step - 1])
        elif step % 4 == 2:
            body = json.dumps([{"id": each, "type": "point", "point": [1, 2, 3]} for each in sorted(present | {id})])
            assert (await client.put(LEAF, data=body)).status == 200
            present.add(id)
        else:
            assert (await client.patch(f"{LEAF}?id={id}", json={"type": "point", "point": [1, 2, 3]})).status == 200
            present.add(id)
        assert await seen(client) == {number_of(each) for each in present}
        assert all(await asyncio.gather(*waiting)) or step == 0
    assert (await client.post(LEAF.replace(".json", "/restore"), json={"version": 1})).status == 200
    assert await seen(client) == {number_of(ids[0])}


async def test_answers_are_revalidated_and_may_be_read_by_any_origin(connect: Connect, editor: Editor) -> None:
    client = await connect()
    await asyncio.to_thread(editor.put, point(1, 1, 2, 3, segments=["5"]))
    number = number_of(f"{1:040x}")
    for path in ("info", "spatial-0/0_0_0", f"by_id/{number}", "segments/5"):
        answer = await client.get(f"{POINTS}/{path}")
        assert (answer.status, answer.headers["Cache-Control"]) == (200, "no-cache")
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        tag, body = answer.headers["ETag"], await answer.read()
        assert not tag.startswith("W/")
        again = await client.get(f"{POINTS}/{path}", headers={"If-None-Match": tag})
        assert (again.status, await again.read()) == (304, b"")
        head = await client.head(f"{POINTS}/{path}")
        assert (head.status, head.headers["ETag"], head.headers["Content-Length"]) == (200, tag, str(len(body)))
        part = await client.get(f"{POINTS}/{path}", headers={"Range": "bytes=2-5"})
        assert (part.status, await part.read()) == (206, body[2:6])
    await asyncio.to_thread(editor.put, point(2, 1, 2, 3))
    answer = await client.get(CELL, headers={"If-None-Match": tag})
    assert answer.status == 200
    for method in ("PUT", "POST", "DELETE", "PATCH"):
        refused = await client.request(method, CELL)
        assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD, OPTIONS")


async def test_one_annotation_by_its_number(connect: Connect, editor: Editor) -> None:
    client = await connect()
    mine = {"id": "mine", "type": "point", "point": [1.1, 2, 3], "segments": [["5", "6"]]}
    await asyncio.to_thread(editor.put, mine)
    number = number_of("mine")
    one, segments = decoded_one("point", await (await client.get(f"{POINTS}/by_id/{number}")).read(), number)
    assert (one.points, segments) == ((single([1.1, 2, 3]),), [5, 6])
    answer = await client.get(f"/brain/annotations/id64/{number}")
    assert await answer.json() == {"id64": str(number), "id": "mine", "block": "x0y0z0", "leaf": "fibers"}
    for unknown in ("0", f"0{number}", str(2**64), "9" * 5000, str(number + 1)):
        answer = await client.get(f"/brain/annotations/id64/{unknown}")
        assert answer.status == 404
        assert (await answer.json(content_type=None))["detail"].endswith(".")


@pytest.mark.parametrize(
    "path",
    [
        *("infos", "info/", "by_id", "by_id/", "by_id/1", "by_id/01", "by_id/-1", "by_id/x", f"by_id/{2**64}"),
        *("spatial-0", "spatial-0/", "spatial-0/0_0", "spatial-0/0_0_1", "spatial-0/00_0_0", "spatial-0/0_0_0_0"),
        *("spatial-0/-1_0_0", "spatial-0/999999999_0_0", "spatial-1/x", "spatial-0-0/0_0_0", "segments/x", "a/b/c"),
        *("spatial-%30/0_0_0/", "by_id/%E0%A5%A7", "%2e%2e/info", "..%2finfo"),
    ],
)
async def test_other_paths_are_no_files(connect: Connect, editor: Editor, path: str) -> None:
    client = await connect()
    await asyncio.to_thread(editor.put, point(1, 1, 2, 3))
    answer = await client.get(f"{POINTS}/{path}")
    assert answer.status in (400, 404)
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize(
    "name", ["fibers", "point", "fibers-polygon", "-point", "z-0020-point", "a.b-point", "vessels-point", "é-point"]
)
async def test_other_names_are_no_collections(connect: Connect, editor: Editor, name: str) -> None:
    client = await connect()
    await asyncio.to_thread(editor.put, point(1, 1, 2, 3), leaf="z-0020")
    assert (await client.get(f"{COLLECTIONS}{name}/info")).status == 404


async def test_a_collection_of_a_usual_kind_may_be_opened_before_anything_is_drawn(connect: Connect) -> None:
    client = await connect()
    answer = await client.get(f"{POINTS}/info")
    assert (answer.status, (await answer.json())["annotation_type"]) == (200, "POINT")
    assert await seen(client) == set()
    assert (await client.patch(f"{LEAF}?id=a", json={"type": "point", "point": [1, 2, 3]})).status == 200
    assert await seen(client) == {number_of("a")}


async def test_a_collection_that_lies_on_disk_is_served_as_it_lies(
    connect: Connect, place: Place, editor: Editor
) -> None:
    client = await connect()
    await asyncio.to_thread(editor.put, point(1, 1, 2, 3))
    await asyncio.to_thread(editor.put, point(1, 1, 2, 3), leaf="centroids")
    static = place.root / "brain" / "annotations.precomputed" / "fibers-point"
    static.mkdir(parents=True)
    (static / "info").write_text('{"mine": 1}')
    (static.parent / "README").write_text("by hand")
    assert await (await client.get(f"{POINTS}/info")).json() == {"mine": 1}
    assert (await client.get(CELL)).status == 404, "what is computed is not mixed with what lies there"
    assert await (await client.get(f"{COLLECTIONS}README")).text() == "by hand"
    assert (await client.get(f"{COLLECTIONS}centroids-point/info")).status == 200
    links = Page(await (await client.get(COLLECTIONS)).text()).links
    assert [link for link in links if link.startswith("./")] == ["./centroids-point/", "./fibers-point/", "./README"]


async def test_outside_of_a_dataset_the_name_means_what_lies_there(connect: Connect, place: Place) -> None:
    client = await connect()
    static = place.root / "exports" / "annotations.precomputed" / "fibers-point"
    static.mkdir(parents=True)
    (static / "info").write_text("{}")
    assert (await client.get("/exports/annotations.precomputed/fibers-point/info")).status == 200
    assert (await client.get("/exports/annotations.precomputed/fibers-line/info")).status == 404
    assert (await client.get("/exports/annotations.precomputed/")).status == 200
    assert (await client.get("/nothing/annotations.precomputed/")).status == 404
    assert (await client.get("/nothing/annotations/id64/5")).status == 404


async def test_a_session_sees_the_collections_over_its_image(connect: Connect, editor: Editor) -> None:
    client = await connect()
    await asyncio.to_thread(editor.put, point(1, 1, 2, 3))
    dimensions = []
    for prefix in ("", "/~alice", "/~alice.voxel"):
        dimensions.append((await (await client.get(f"{prefix}{POINTS}/info")).json())["dimensions"])
        assert await seen(client, prefix + CELL) == {number_of(f"{1:040x}")}
    nanometres = {"x": [1.8e-6, "m"], "y": [1.8e-6, "m"], "z": [2e-6, "m"]}
    assert dimensions[:2] == [nanometres, nanometres]
    assert dimensions[2] == {"x": [0.9e-9, "m"], "y": [0.9e-9, "m"], "z": [1e-9, "m"]}


async def test_the_root_may_be_the_dataset(connect: Connect, place: Place) -> None:
    write_dataset(place.root, volume((1, 6, 8, 10), "uint8"))
    write_annotations(place.root, {"fibers": some(2)})
    client = await connect()
    assert len(await seen(client, "/annotations.precomputed/fibers-point/spatial-0/0_0_0")) == 2
    number = next(iter(await seen(client, "/annotations.precomputed/fibers-point/spatial-0/0_0_0")))
    assert (await client.get(f"/annotations/id64/{number}")).status == 200


async def test_the_volume_may_change(connect: Connect, place: Place, editor: Editor) -> None:
    client = await connect()
    await asyncio.to_thread(editor.put, point(1, 1, 2, 3))
    assert (await (await client.get(f"{POINTS}/info")).json())["upper_bound"] == [10, 8, 6]
    path = place.root / "brain" / "info"
    info = VolumeInfo.from_bytes(path.read_bytes())
    larger = replace(info, scales=(replace(info.scales[0], size=(100, 80, 60)),))
    path.unlink()
    path.write_bytes(larger.to_bytes())
    answers = await asyncio.gather(*(client.get(f"{POINTS}/info") for _ in range(4)))
    assert [(await answer.json())["upper_bound"] for answer in answers] == [[100, 80, 60]] * 4
    assert await seen(client) == {number_of(f"{1:040x}")}


async def test_a_damaged_volume_is_no_empty_collection(connect: Connect, place: Place, editor: Editor) -> None:
    client = await connect()
    await asyncio.to_thread(editor.put, point(1, 1, 2, 3))
    (place.root / "brain" / "info").write_text('{"scales": [')
    for path in (CELL, f"{POINTS}/info", COLLECTIONS, "/brain/annotations/id64/1"):
        assert (await client.get(path)).status == 500


async def test_what_many_ask_at_once_is_looked_up_for_all_of_them(
    connect: Connect, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    states = leaves.leaf_states

    def counted(*given: Any) -> Any:  # noqa: ANN401
        looked.append("")
        return states(*given)

    monkeypatch.setattr(leaves, "leaf_states", counted)
    client = await connect()
    await asyncio.to_thread(editor.put, point(1, 1, 2, 3))
    assert await asyncio.gather(*(seen(client) for _ in range(30))) == [{number_of(f"{1:040x}")}] * 30
    assert len(looked) <= 10


class Held:
    """Looks at the leaves as the code does; the first look is held until `go`, after what it saw and before its use."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.entered, self.go = threading.Event(), threading.Event()
        self._states = leaves.leaf_states
        monkeypatch.setattr(leaves, "leaf_states", self._look)

    def _look(self, *given: Any) -> Any:  # noqa: ANN401
        found = self._states(*given)
        if not self.entered.is_set():
            self.entered.set()
            self.go.wait(20)
        return found


async def test_who_asks_after_an_edit_does_not_share_an_older_look(
    connect: Connect, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await connect()
    await asyncio.to_thread(editor.put, point(1, 1, 2, 3))
    await asyncio.sleep(0.2)  # what was written just now is always read again
    await seen(client)
    held = Held(monkeypatch)
    before = asyncio.create_task(seen(client))
    await asyncio.to_thread(held.entered.wait, 20)
    assert (await client.patch(f"{LEAF}?id=a", json={"type": "point", "point": [1, 2, 3]})).status == 200
    after = [asyncio.create_task(seen(client)) for _ in range(3)]
    await asyncio.sleep(0.2)
    held.go.set()
    assert await asyncio.gather(*after) == [{number_of(f"{1:040x}"), number_of("a")}] * 3
    assert number_of(f"{1:040x}") in await before


async def test_who_asks_of_a_changed_volume_does_not_wait_for_the_old_ones_view(
    connect: Connect, place: Place, editor: Editor, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await connect()
    await asyncio.to_thread(editor.put, point(1, 1, 2, 3))
    held = Held(monkeypatch)
    old = [asyncio.create_task(seen(client))]
    await asyncio.to_thread(held.entered.wait, 20)
    old.append(asyncio.create_task(seen(client)))
    await asyncio.sleep(0.2)
    write_dataset(place.root / "brain", volume((1, 16, 18, 20), "uint8"))
    new = asyncio.create_task(seen(client))
    await asyncio.sleep(0.2)
    held.go.set()
    assert await asyncio.gather(new, *old) == [{number_of(f"{1:040x}")}] * 3


async def test_a_large_file_of_another_tool_is_parsed_elsewhere(
    connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collections, "_PARSED_HERE", 100)
    place.file().write_text(json.dumps(some(50), indent=1))
    client = await connect()
    assert len(await seen(client)) == 50
    place.file().write_text("[{")
    assert await seen(client) == set()
    place.file().write_bytes(written(some(20)))
    assert len(await seen(client)) == 20


async def test_memory_is_given_back(connect: Connect, place: Place) -> None:
    """What a worker keeps of datasets that were asked for before is bounded; they are read again."""
    for number in range(4):
        write_dataset(place.root / f"d{number}", volume((1, 6, 8, 10), "uint8"))
        write_annotations(place.root / f"d{number}", {"fibers": some(200)})
    client = await connect(view_memory=100_000)
    for number in (0, 1, 2, 3, 0):
        assert len(await seen(client, f"/d{number}/annotations.precomputed/fibers-point/spatial-0/0_0_0")) == 200
    service = client.app[collections.COLLECTION_SERVICE]
    assert len(service.kept()) < 4


async def test_the_link_opens_the_collections_that_exist(connect: Connect, editor: Editor) -> None:
    client = await connect()
    await asyncio.to_thread(editor.put, point(1, 1, 2, 3))
    await asyncio.to_thread(editor.put, {"id": "c", "type": "polygon", "points": [[1, 2, 3]]}, leaf="z-0003")
    for prefix in ("", "/~alice"):
        answer = await client.get(f"{prefix}/neuroglancer/open/brain", allow_redirects=False)
        assert answer.status == 302
        assert answer.headers["Cache-Control"] == "no-cache"
        path, _, fragment = answer.headers["Location"].partition("#!")
        state = json.loads(unquote(fragment))
        source = f"precomputed://http://127.0.0.1:{client.port}/brain"
        assert [(layer["type"], layer["source"]) for layer in state["layers"]] == [
            ("image", source),
            ("annotation", f"{source}/annotations.precomputed/contours-polyline"),
            ("annotation", f"{source}/annotations.precomputed/fibers-point"),
        ]
        assert len({layer["annotationColor"] for layer in state["layers"][1:]}) == 2
        assert (await client.get(f"{prefix}/neuroglancer/open/brain")).status == 200
        assert (await client.get(f"{prefix}/neuroglancer/open//brain/")).status == 200
    assert (await client.get("/neuroglancer/open/nothing")).status == 404


async def test_annotations_that_cannot_be_read_do_not_hide_the_image(
    connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await connect()
    monkeypatch.setattr(leaves, "leaf_states", lambda *_: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    assert (await client.get(CELL)).status == 500
    answer = await client.get("/neuroglancer/open/brain", allow_redirects=False)
    assert (answer.status, answer.headers["Location"].count("precomputed://")) == (302, 1)
