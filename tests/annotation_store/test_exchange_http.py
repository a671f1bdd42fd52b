"""Exports, imports and the viewer's state over HTTP: what they answer, and that nobody's edit is lost by them."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import ClientError, ClientResponse

from annotation_store.blocks import Location
from annotation_store.exchange.collect import Collection
from annotation_store.exchange.rows import Placed
from annotation_store.exchange.viewer_reading import BASE
from annotation_store.review import confirmed
from annotation_store.web import exchange, planning
from annotation_store.web.large import LargeProcess, count_large
from precomputed_server import settings
from precomputed_server.errors import Busy, TooLarge, Unreadable
from tests.annotation_store.conftest import Client, Connect
from tests.annotation_store.support import Place, by_id, check_log, some
from tests.annotation_store.test_http import refused
from tests.data import point, write_annotations

ROOT = "/brain/annotations"
FIBERS, CENTROIDS = f"{ROOT}/x0y0z0/fibers.json", f"{ROOT}/x0y0z0/centroids.json"
IMPORT, STATE = f"{ROOT}/import", f"{ROOT}/state"

Json = dict[str, Any]
FIBRE: Json = {
    "id": "f",
    "type": "linestring",
    "points": [[1.1, 1, 2.5], [4, 5, 2.5], [9.7, 7, 3]],
    "length": 9,
    "who": "me",
}
LINE: Json = {"id": "l", "type": "line", "pointA": [1, 2, 3], "pointB": [4, 5, 5.5]}
CELL: Json = {
    "id": "c",
    "type": "point",
    "point": [2.1, 3, 4],
    "description": "soma",
    "segments": [["18446744073709551615"]],
}
BALL: Json = {"id": "e", "type": "ellipsoid", "center": [5, 4, 3], "radii": [1, 2, 0.5]}
BOX: Json = {
    "id": "b",
    "type": "axis_aligned_bounding_box",
    "pointA": [1, 1, 1],
    "pointB": [3.3, 3, 3],
    "reviewed": True,
}
CONTOUR: Json = {
    "id": "p",
    "type": "polygon",
    "points": [[1, 1, 3.5], [6.7, 1, 3.5], [6, 5, 3.5]],
    "colour": "green",
}
LEAVES: dict[str, list[Json]] = {"fibers": [FIBRE, LINE], "centroids": [CELL, BALL, BOX], "z-0003": [CONTOUR]}

State = Json


async def begun(connect: Connect, place: Place, **given: object) -> Client:
    """A client of a dataset that has LEAVES, saved over HTTP."""
    client = await connect(**given)
    for leaf, items in LEAVES.items():
        assert (await client.put(f"{ROOT}/x0y0z0/{leaf}.json", json=items)).status == 200
    return client


async def state_of(client: Client, query: str = "") -> State:
    """The state that the dataset is opened with."""
    answer = await client.get(STATE + query)
    assert answer.status == 200, await answer.text()
    state: State = await answer.json()
    return state


async def imported(client: Client, body: object, query: str = "", status: int = 200) -> dict[str, Any]:
    """The report of an import."""
    data = body if isinstance(body, (str, bytes)) else json.dumps(body)
    answer = await client.post(IMPORT + query, data=data)
    assert answer.status == status, await answer.text()
    report: dict[str, Any] = await answer.json()
    return report


def layer(state: State, name: str) -> dict[str, Any]:
    """A layer of a state."""
    found: dict[str, Any] = next(each for each in state["layers"] if each["name"] == name)
    return found


def annotation(state: State, id: str) -> dict[str, Any]:
    """An annotation of any layer of a state."""
    listed = [each for one in state["layers"] for each in one.get("annotations", [])]
    found: dict[str, Any] = next(each for each in listed if each["id"] == id)
    return found


def without(state: State, id: str) -> State:
    """The state in which that annotation was deleted."""
    for one in state["layers"]:
        if "annotations" in one:
            one["annotations"] = [each for each in one["annotations"] if each["id"] != id]
    return state


def content(place: Place) -> dict[Path, bytes]:
    """Every file of annotations and logs."""
    return {path: path.read_bytes() for path in (place.root / "brain").rglob("*") if path.is_file()}


FORMATS = {
    "csv": ("text/csv", ".csv"),
    "geojson": ("application/geo+json", ".geojson"),
    "jsonl": ("application/jsonl", ".jsonl"),
    "swc": ("text/plain", ".swc"),
}


@pytest.mark.parametrize("name", FORMATS)
async def test_an_export_is_imported_without_a_change(name: str, connect: Connect, place: Place) -> None:
    client = await begun(connect, place)
    before = content(place)
    answer = await client.get(f"{ROOT}/export?format={name}")
    kind, ending = FORMATS[name]
    assert (answer.status, answer.content_type) == (200, kind)
    assert answer.headers["Content-Disposition"] == (
        f"attachment; filename=\"brain{ending}\"; filename*=UTF-8''brain{ending}"
    )
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    data = await answer.read()
    head = await client.head(f"{ROOT}/export?format={name}")
    assert (head.status, head.content_type, await head.read()) == (200, kind, b"")
    for query in ("", f"?format={name}", "?remove=1"):
        if (name, query) != ("swc", "?remove=1"):  # what no SWC can show is never taken for removed
            report = await imported(client, data, query)
            assert report["counts"] == {
                **dict.fromkeys(("added", "changed", "removed", "conflicts"), 0),
                "unchanged": 2 if name == "swc" else 6,
            }
    assert (await imported(client, data, "?remove=1"))["counts"]["removed"] == 0
    assert content(place) == before


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("", "flcebp"),
        ("type=point", "c"),
        ("type=point,line&type=polygon", "lcp"),
        ("leaf=fibers", "fl"),
        ("leaf=contours", "p"),
        ("leaf=z-0003", "p"),
        ("box=8,10,0,8,0,6", "f"),
        ("box=0,10,0,8,5.25,6", "l"),
        ("author=anonymous&type=point", "c"),
        ("author=nobody", ""),
        ("reviewed=1", "e"),
        ("reviewed=0&type=ellipsoid", "e"),
    ],
)
async def test_what_an_export_chooses(query: str, ids: str, connect: Connect, place: Place) -> None:
    from datetime import UTC, datetime

    client = await begun(connect, place)
    await client.patch(f"{CENTROIDS}?id=e", json=confirmed(BALL, "pi", datetime.now(UTC)))
    answer = await client.get(f"{ROOT}/export?format=jsonl&{query}")
    _, *lines, _ = (await answer.text()).splitlines()
    assert sorted(json.loads(line)["annotation"]["id"] for line in lines) == sorted(ids)


async def test_an_export_says_which_version_it_is_of(connect: Connect, place: Place) -> None:
    """After every kind of edit the views show one version: the file, its ETag, the log's number, and the export."""
    client = await begun(connect, place)
    state = await state_of(client)
    annotation(state, "c")["description"] = "by the viewer"
    edits: list[Callable[[], Any]] = [
        lambda: client.patch(f"{CENTROIDS}?id=new", json=point(1, 1, 1, 1) | {"id": "new"}),
        lambda: client.put(CENTROIDS, json=[CELL, {**BALL, "radii": [1, 1, 1]}, BOX]),
        lambda: client.post(CENTROIDS.replace(".json", "/restore"), json={"version": 2}),
        lambda: client.post(IMPORT, json=state),
    ]
    for number, edit in enumerate(edits, 2):
        assert (await edit()).status == 200
        leaf = await client.get(CENTROIDS)
        header, *lines, _ = (await (await client.get(f"{ROOT}/export?format=jsonl&leaf=centroids")).text()).splitlines()
        assert json.loads(header)["leaves"]["x0y0z0/centroids"] == [number, leaf.headers["ETag"].strip('"')]
        assert [json.loads(line)["annotation"] for line in lines] == await leaf.json()
        table = (await (await client.get(f"{ROOT}/export?leaf=centroids")).text()).splitlines()[1:]
        assert {row.split(",")[-2] for row in table} == {str(number)}
    moment = (await (await client.get(CENTROIDS.replace(".json", "/history"))).json())["entries"][-1]["time"]
    answer = await client.get(f"{ROOT}/export?format=jsonl&leaf=centroids&at={moment}")
    assert len((await answer.text()).splitlines()) == 2 + len(LEAVES["centroids"])
    await refused(client, "GET", f"{ROOT}/export?author=x&at={moment}", 400)


async def test_what_swc_leaves_out_is_counted_in_a_header(connect: Connect, place: Place) -> None:
    client = await begun(connect, place)
    for query, left in (("", "4 of 6"), ("&leaf=fibers", None), ("&type=point&type=line", "1 of 2")):
        for answer in (
            await client.get(f"{ROOT}/export?format=SWC{query}"),
            await client.head(f"{ROOT}/export?format=swc{query}"),
        ):
            assert (answer.status, answer.headers.get("Annotations-Left-Out")) == (200, left)
    assert "Annotations-Left-Out" not in (await client.get(f"{ROOT}/export?format=csv")).headers


async def _receive(answer: ClientResponse, received: bytearray) -> None:
    async for piece in answer.content.iter_any():
        received += piece


@pytest.mark.parametrize("error", [Unreadable("the disk does not answer."), KeyError("points")])
async def test_an_export_that_fails_half_way_is_no_whole_file(
    error: Exception, connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await connect()
    await client.put(CENTROIDS, json=some(3000))
    whole = Collection.annotations

    def broken(*given: Any) -> Iterator[Placed]:
        yield from itertools.islice(whole(*given), 2500)
        raise error

    monkeypatch.setattr(Collection, "annotations", broken)
    answer = await client.get(f"{ROOT}/export?format=csv")
    received = bytearray()
    with pytest.raises(ClientError):
        await _receive(answer, received)
    assert b"The server failed" not in received, "a problem document is no part of a file"
    monkeypatch.setattr(Collection, "annotations", whole)
    assert len((await (await client.get(f"{ROOT}/export?format=csv")).text()).splitlines()) == 3001


@pytest.mark.parametrize("name", ["csv", "jsonl", "swc"])
async def test_an_export_that_arrived_in_part_removes_nothing(name: str, connect: Connect, place: Place) -> None:
    """Proxies and HTTP/1.0 make whole files of broken ones; whose lines somebody has deleted still removes."""
    client = await begun(connect, place)
    lines = (await (await client.get(f"{ROOT}/export?format={name}&leaf=fibers")).text()).splitlines(keepends=True)
    cut = lines[:4] if name == "swc" else lines[:2]
    report = await imported(client, "".join(cut), f"?format={name}&remove=1")
    assert (report["counts"]["removed"], report["counts"]["changed"]) == (0, 0)
    assert any("export it anew" in note for note in report["notes"])
    assert set(place.stored("fibers")) == {"f", "l"}
    edited = [line for line in lines if '"id":"f"' not in line and not line.startswith("f,")]
    if name == "swc":
        edited = [*lines[:2], *lines[6:]]
    report = await imported(client, "".join(edited), f"?format={name}&remove=1")
    assert [row["id"] for row in report["removed"]] == ["f"]
    assert not report["notes"]


@pytest.mark.parametrize("name", FORMATS)
async def test_an_old_client_is_told_how_long_an_export_is(name: str, connect: Connect, place: Place) -> None:
    """HTTP/1.0 knows no chunks: without its length, a file that was cut off would look whole."""
    client = await begun(connect, place)
    whole = await (await client.get(f"{ROOT}/export?format={name}")).read()
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(f"GET {ROOT}/export?format={name} HTTP/1.0\r\n\r\n".encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    writer.close()
    assert f"content-length: {len(body)}" in head.decode().lower()
    assert body.splitlines()[1:] == whole.splitlines()[1:]


async def test_a_damaged_leaf_stops_only_itself(connect: Connect, place: Place) -> None:
    client = await begun(connect, place)
    (place.root / "brain/annotations/x0y0z0/corrupt.json").write_text('[{"id":')
    for name in FORMATS:
        answer = await client.get(f"{ROOT}/export?format={name}")
        assert (answer.status, answer.headers["Annotations-Unreadable"]) == (200, "x0y0z0/corrupt")
        assert name == "csv" or '"unreadable":["x0y0z0/corrupt"]' in (await answer.text()).splitlines()[0]
    answer = await client.get(STATE)
    assert (answer.status, answer.headers["Annotations-Unreadable"]) == (200, "x0y0z0/corrupt")
    report = await imported(client, "id,x,y,z\nnew1,1,2,3\n")
    assert report["counts"]["added"] == 1
    assert [note for note in report["notes"] if note.startswith("x0y0z0/corrupt cannot be read: ")]
    answer = await client.post(IMPORT, data="id,x,y,z,block,leaf\nnew2,1,2,3,x0y0z0,corrupt\n")
    assert answer.status >= 400
    assert "x0y0z0/corrupt" in (await answer.json())["detail"]


@pytest.mark.parametrize(
    "damage", ['[{"id":"lost 1","type":"point"}, {"id": "lo', '[{"id":"lost 1"},{"id":"lost 1"}]', ""]
)
async def test_what_lies_in_a_damaged_file_is_not_added_again(damage: str, connect: Connect, place: Place) -> None:
    client = await begun(connect, place)
    (place.root / "brain/annotations/x0y0z0/corrupt.json").write_text(damage)
    before = content(place)
    for query in ("", "?conflicts=file"):
        table = "id,x,y,z\nlost 1,1,1,1\nc,1,1,1\n"
        answer = await client.post(f"{IMPORT}{query or '?dry_run=1'}", data=table)
        if damage:
            detail = (await answer.json())["detail"]
            assert (answer.status, "line 2" in detail, "x0y0z0/corrupt" in detail) == (409, True, True), detail
            assert content(place) == before
        else:
            assert answer.status == 200


async def test_files_that_another_program_wrote_hold_up_nobody(connect: Connect, place: Place) -> None:
    """A restored backup differs from its log for good; exports do not take the threads of those who read either."""
    client = await connect(write_threads=1)
    leaves = {f"z-{number:04d}": [point(number, 1, 1, 1)] for number in range(30)}
    for leaf, items in leaves.items():
        assert (await client.put(f"{ROOT}/x0y0z0/{leaf}.json", json=items)).status == 200
    for number, leaf in enumerate(leaves):
        (place.root / f"brain/annotations/x0y0z0/{leaf}.json").write_text(json.dumps([point(number, 2, 2, 2)]))
    begun = time.monotonic()
    export = asyncio.create_task(client.get(f"{ROOT}/export?format=jsonl"))
    await asyncio.sleep(0.1)
    assert (await client.get(f"{ROOT}/blocks")).status == 200
    looked = time.monotonic() - begun
    assert len((await (await export).text()).splitlines()) == 32
    assert (looked < 0.4, time.monotonic() - begun < 3) == (True, True)


@pytest.mark.parametrize("name", ["swc", "geojson", "csv", "jsonl"])
async def test_annotations_that_have_no_place_stop_no_export(name: str, connect: Connect, place: Place) -> None:
    """Other programs write such ones; formats that are nothing but places leave them out."""
    client = await connect()
    broken: list[Json] = [
        {"id": "bad", "type": "linestring"},
        {"id": "flat", "type": "polygon", "points": [[1, 2], "abc"]},
    ]
    write_annotations(place.root / "brain", {"fibers": [FIBRE, *broken]})
    answer = await client.get(f"{ROOT}/export?format={name}")
    text = await answer.text()
    assert answer.status == 200
    assert ('"flat"' in text or "flat," in text) == (name in ("csv", "jsonl"))


async def test_a_state_that_was_edited_by_hand_comes_back_as_blocks(connect: Connect, place: Place) -> None:
    client = await begun(connect, place)
    state = await state_of(client)
    assert [one["name"] for one in state["layers"]] == ["brain", "fibers", "centroids", "contours"]
    moved = annotation(state, "f")
    moved["points"][1] = [4.5, 5.5, 2.5]
    annotation(state, "p")["points"][1] = [7, 1, 3.5]
    del annotation(state, "c")["description"]
    without(state, "l")
    drawn = {"id": "new", "type": "polyline", "points": [[1, 1, 4.5], [3, 1, 4.5], [3, 3, 4.5], [1, 1, 4.5]]}
    layer(state, "contours")["annotations"].append(drawn)
    layer(state, "fibers")["annotations"].append({"id": "q", "type": "point", "point": [1, 2, 3], "description": "x"})
    before = content(place)
    dry = await imported(client, state, "?dry_run=1")
    assert content(place) == before
    assert dry["counts"] == {"added": 2, "changed": 3, "removed": 1, "conflicts": 0, "unchanged": 2}
    report = await imported(client, f"https://elsewhere/#!{quote(json.dumps(state))}")
    assert {**report, "dry_run": True, "blocks": dry["blocks"]} == dry
    assert place.stored("fibers") == by_id(
        [
            {**FIBRE, "points": [[1.1, 1, 2.5], [4.5, 5.5, 2.5], [9.7, 7, 3]]},
            {"id": "q", "type": "point", "point": [1, 2, 3], "description": "x"},
        ]
    )
    assert place.stored("z-0003") == {"p": {**CONTOUR, "points": [[1, 1, 3.5], [7, 1, 3.5], [6, 5, 3.5]]}}
    assert place.stored("z-0004") == {"new": {"id": "new", "type": "polygon", "points": drawn["points"][:3]}}
    assert place.stored("centroids")["c"] == {name: CELL[name] for name in CELL if name != "description"}
    assert check_log(place)["fibers"] == 2, "an import is one version of a leaf"
    again = await imported(client, state)
    assert (again["counts"]["added"], again["counts"]["changed"], again["counts"]["removed"]) == (0, 0, 0)


@pytest.mark.parametrize("dragged", [0, -1])
async def test_a_polygon_of_which_one_end_was_dragged_stays_one(dragged: int, connect: Connect, place: Place) -> None:
    """The viewer shows its first vertex twice, and drags only one of the two."""
    client = await begun(connect, place)
    state = await state_of(client)
    annotation(state, "p")["points"][dragged] = [2, 2, 3.5]
    await imported(client, state)
    assert place.stored("z-0003")["p"]["points"] == [[2, 2, 3.5], *CONTOUR["points"][1:]]


async def test_what_others_did_meanwhile_is_kept(connect: Connect, place: Place) -> None:
    """Fields merge; where both changed one field, or one removed what the other changed, the stored value stays."""
    client = await begun(connect, place)
    state = await state_of(client)
    annotation(state, "f")["points"][0] = [2, 2, 2]
    annotation(state, "c").update(point=[3, 3, 3], description="mine")
    annotation(state, "b")["pointB"] = [9, 7, 5]
    without(state, "l")
    without(state, "e")
    for id, leaf, change in (
        ("f", FIBERS, {"description": "theirs"}),
        ("c", CENTROIDS, {"description": "theirs"}),
        ("l", FIBERS, {"reviewed": True}),
    ):
        headers = {"Content-Type": "application/merge-patch+json"}
        assert (await client.patch(f"{leaf}?id={id}", data=json.dumps(change), headers=headers)).status == 200
    await client.delete(f"{CENTROIDS}?id=b")
    await client.patch(f"{CENTROIDS}?id=z", json=point(1, 1, 1, 1) | {"id": "z"})
    report = await imported(client, state)
    assert [(row["id"], row["fields"]) for row in report["conflicts"]] == [
        ("c", ["description"]),
        ("b", ["geometry"]),
        ("l", ["removal"]),
    ] or {(row["id"], *row["fields"]) for row in report["conflicts"]} == {
        ("c", "description"),
        ("b", "geometry"),
        ("l", "removal"),
    }
    assert all(row["why"] for row in report["conflicts"])
    stored = place.stored("fibers")
    assert (stored["f"]["points"][0], stored["f"]["description"]) == ([2, 2, 2], "theirs")
    assert stored["l"] == {**LINE, "reviewed": True}
    cells = place.stored("centroids")
    assert (cells["c"]["point"], cells["c"]["description"]) == ([3, 3, 3], "theirs")
    assert set(cells) == {"c", "z"}, "b was removed by somebody else, e by the viewer, z was never in it"
    await imported(client, state, "?conflicts=file")
    assert place.stored("centroids")["c"]["description"] == "mine"
    assert place.stored("centroids")["b"] == {**BOX, "pointB": [9, 7, 5]}
    assert set(place.stored("fibers")) == {"f"}
    check_log(place)


async def test_a_state_without_a_base_removes_nothing(connect: Connect, place: Place) -> None:
    client = await begun(connect, place)
    state = await state_of(client)
    for one in state["layers"][1:]:
        one["shader"] = "void main() { setColor(defaultColor()); }"
    annotation(state, "c")["description"] = "changed"
    without(state, "l")
    report = await imported(client, state)
    assert (report["counts"]["changed"], report["counts"]["removed"]) == (1, 0)
    assert {**place.stored("fibers")} == by_id([FIBRE, LINE])
    report = await imported(client, state, "?remove=1")
    assert [row["id"] for row in report["removed"]] == ["l"]


async def test_the_base_of_another_dataset_is_none(connect: Connect, place: Place) -> None:
    """Its versions have the same numbers, and its annotations are not those that were removed here."""
    client = await begun(connect, place)
    state = await state_of(client)
    text = json.dumps(without(state, "l"))
    etag = (await client.get(FIBERS)).headers["ETag"].strip('"')[:8]
    report = await imported(client, text.replace(etag, "00000000"))
    assert (report["counts"]["removed"], report["counts"]["conflicts"]) == (0, 0)
    assert any("not known any longer" in note for note in report["notes"])
    assert "l" in place.stored("fibers")


def aged(table: str) -> str:
    """A table of centroids that were in version 1, as if they had been in one that nobody keeps."""
    return table.replace(",centroids,1,", ",centroids,99,")


@pytest.mark.parametrize("body", ["state", "table"])
async def test_a_file_that_is_too_old_undoes_nobodys_edits(body: str, connect: Connect, place: Place) -> None:
    """What it was made from is not kept any longer: whether the file or somebody else changed a field is not known."""
    client = await begun(connect, place)
    state = await state_of(client)
    table = await (await client.get(f"{ROOT}/export?leaf=centroids")).text()
    etag = (await client.get(CENTROIDS)).headers["ETag"].strip('"')[:8]
    await client.patch(f"{CENTROIDS}?id=c", json={**CELL, "description": "theirs"})
    layer(state, "centroids")["annotations"].append({"id": "new", "type": "point", "point": [1, 1, 1]})
    row = "new,point,1,1,1" + "," * 17 + "x0y0z0,centroids,99,\r\n"
    old = json.dumps(state).replace(etag, "00000000") if body == "state" else aged(table) + row
    report = await imported(client, old)
    assert {row["id"] for row in report["conflicts"]} == {"c"}
    assert [row["id"] for row in report["added"]] == ["new"], "the log tells of none that somebody has removed"
    assert place.stored("centroids")["c"]["description"] == "theirs"
    assert (await client.delete(f"{CENTROIDS}?id=new")).status == 200
    report = await imported(client, old)
    assert {row["id"] for row in report["conflicts"]} == {"c", "new"}
    assert "new" not in place.stored("centroids")


@pytest.mark.parametrize("body", ["state", "table", "jsonl"])
async def test_a_file_that_is_too_old_brings_nothing_back(body: str, connect: Connect, place: Place) -> None:
    client = await begun(connect, place)
    etag = (await client.get(CENTROIDS)).headers["ETag"].strip('"')[:8]
    if body == "table":
        old = aged(await (await client.get(f"{ROOT}/export?leaf=centroids")).text())
    else:
        question = STATE if body == "state" else f"{ROOT}/export?format=jsonl"
        old = (await (await client.get(question)).text()).replace(etag, "00000000")
    assert (await client.delete(f"{CENTROIDS}?id=c")).status == 200
    report = await imported(client, old)
    assert [(row["id"], row["leaf"]) for row in report["conflicts"]] == [("c", "centroids")]
    assert "not known any longer" in report["conflicts"][0]["why"]
    assert "c" not in place.stored("centroids")
    report = await imported(client, old, "?conflicts=file")
    assert [row["id"] for row in report["added"]] == ["c"]


async def test_a_viewer_that_lost_a_whole_kind_removes_none_of_it(connect: Connect, place: Place) -> None:
    """Neuroglancer before 2.41 knows no polylines."""
    client = await begun(connect, place)
    await client.put(FIBERS, json=[*LEAVES["fibers"], FIBRE | {"id": "g"}, FIBRE | {"id": "h"}])
    state = await state_of(client)
    for id in "fgh":
        without(state, id)
    report = await imported(client, state)
    assert {row["id"] for row in report["conflicts"]} == set("fgh")
    assert set(place.stored("fibers")) == set("flgh")
    assert (await imported(client, state, "?remove=1"))["counts"]["removed"] == 3


HAND_WRITTEN = {
    "dimensions": {"x": [900, "nm"], "y": [0.0018, "mm"], "z": [2, "um"]},
    "layers": [
        {"type": "image", "source": "precomputed://gs://other", "name": "i"},
        {"type": "annotation", "name": "by dimension", "source": "local://annotations", "annotations": [
            {"type": "point", "id": "1", "point": [4, 1, 2], "segments": ["5", "6"]}]},
        {"type": "annotation", "name": "moved", "source": {"url": "local://annotations", "transform": {
            "outputDimensions": {"z": [2e-6, "m"], "y": [1.8e-6, "m"], "x": [1.8e-6, "m"]},
            "inputDimensions": {"0": [1e-6, "m"], "1": [1.8e-6, "m"], "2": [3.6e-6, "m"]},
            "matrix": [[1, 0, 0, 1], [0, 1, 0, -1], [0, 0, 1, 0.5]]}}, "annotations": [
            {"type": "ellipsoid", "id": "2", "center": [4, 3, 2], "radii": [2, 1, 1]},
            {"type": "axis_aligned_bounding_box", "id": "3", "pointA": [0, 2, 1], "pointB": [2, 3, 2]}]},
        {"type": "pointAnnotation", "name": "old", "points": [[2, 2, 2]], "voxelSize": [1800, 1800, 2000]},
        {"type": "annotation", "name": "scored", "source": ["local://annotations"], "annotationProperties": [
            {"id": "score", "type": "float32"}, {"id": "kind", "type": "uint8", "default": 3}], "annotations": [
            {"type": "line", "id": "4", "pointA": [2, 1, 1], "pointB": [4, 2, 2], "props": [0.5, 7]},
            {"type": "polyline", "id": "5", "points": [[2, 1, 1], [4, 2, 2]]}]},
        {"type": "annotation", "name": "served", "source": "precomputed://http://x/a"},
    ],
}  # fmt: skip


async def test_a_hand_written_state_in_other_units(connect: Connect, place: Place) -> None:
    client = await connect()
    report = await imported(client, HAND_WRITTEN)
    assert report["counts"]["added"] == 6
    assert [note for note in report["notes"] if "'served'" in note]
    cells = place.stored("centroids")
    assert cells["1"] == {"id": "1", "type": "point", "point": [2, 1, 2], "segments": [["5", "6"]]}
    assert cells["2"] == {"id": "2", "type": "ellipsoid", "center": [4.5, 2, 3], "radii": [2, 1, 1]}
    assert cells["3"]["pointA"] == [2.5, 1, 1]
    (old,) = (item for id, item in cells.items() if id not in "123")
    assert old["point"] == [2, 2, 2]
    fibres = place.stored("fibers")
    assert fibres["4"]["properties"] == {"score": 0.5, "kind": 7}
    assert fibres["5"] == {
        "id": "5",
        "type": "linestring",
        "points": [[1, 1, 1], [2, 2, 2]],
        "properties": {"score": 0, "kind": 3},
    }
    again = await imported(client, HAND_WRITTEN)
    assert (again["counts"]["added"], again["counts"]["changed"]) == (0, 0)


def local(**members: Any) -> State:
    """A state with one local layer."""
    named = {"type": "annotation", "name": "n", "source": "local://annotations", **members}
    return {"dimensions": {axis: [1, "um"] for axis in "xyz"}, "layers": [named]}


ONE = [{"type": "point", "id": "a", "point": [1, 1, 1]}]
ROTATED = {
    "url": "local://annotations",
    "transform": {
        "outputDimensions": {axis: [1, "um"] for axis in "xyz"},
        "matrix": [[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0]],
    },
}
HUGE = {
    "url": "local://annotations",
    "transform": {
        "outputDimensions": {axis: [1, "um"] for axis in "xyz"},
        "matrix": [[1e300, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]],
    },
}
CANNOT: list[tuple[State, str]] = [
    ({"layers": [{"type": "image"}]}, "no local annotation layer"),
    (local(annotations=ONE) | {"dimensions": {"x": [1, "um"], "y": [1, "um"], "t": [1, "s"]}}, "x, y and z"),
    (local(annotations=ONE) | {"dimensions": {"x": [1, "um"], "y": [1, "um"]}}, "x, y and z"),
    (local(annotations=ONE) | {"dimensions": {axis: [1, ""] for axis in "xyz"}}, "unit"),
    (local(annotations=ONE) | {"dimensions": {axis: [0, "m"] for axis in "xyz"}}, "above 0"),
    (local(annotations=[{"type": "sphere", "id": "a"}]), "'sphere'"),
    (local(annotations=[{"type": "point", "id": "a", "point": [1, 2]}]), "three numbers"),
    (local(annotations=[{"type": "point", "id": "a", "point": [1, 2, "3"]}]), "three numbers"),
    (local(annotations=[{"type": "point", "id": 5, "point": [1, 1, 1]}]), "needs an id"),
    (local(annotations=[{"type": "polyline", "id": "a", "points": [1, 2, 3]}]), "list of positions"),
    (local(annotations=[{"type": "polyline", "id": "a", "points": [[[1, 2, 3]]]}]), "three numbers"),
    (local(annotations=[{"type": "point", "id": "a", "point": [[1, 2, 3]]}]), "three numbers"),
    (local(annotations=[{"type": "point", "id": "a", "point": [1e300, 1, 1]}], source=HUGE), "too large"),
    (local(annotations=ONE) | {"dimensions": {axis: [5e-324, "pm"] for axis in "xyz"}}, "above 0"),
    ({"type": []}, "layers"),
    (local(annotations=ONE * 2), "has the id 'a' of"),
    (local(annotations=[{"type": "point", "id": "a", "point": [1e6, 1, 1]}]), "outside the volume"),
    (local(annotations=ONE, annotationProperties=[{"id": "s", "type": "float32"}]) | {"x": 1}, ""),
    (local(annotations=[ONE[0] | {"props": [1, 2]}], annotationProperties=[{"id": "s"}]), "props"),
    (local(annotations=[BALL], source=ROTATED), "rotated"),
    (local(annotations=ONE, shader=f"{BASE}{{}}"), "newer version"),
]


@pytest.mark.parametrize(("state", "said"), CANNOT)
async def test_a_state_that_cannot_be_converted_is_refused(
    state: State, said: str, connect: Connect, place: Place
) -> None:
    client = await connect()
    if not said:
        assert (await imported(client, state))["counts"]["added"] == 1
        return
    before = content(place)
    answer = await client.post(IMPORT, json=state)
    detail = (await answer.json(content_type=None))["detail"]
    assert answer.status in (400, 422)
    assert said in detail
    assert content(place) == before


async def test_the_voxel_view_counts_in_voxels(connect: Connect, place: Place) -> None:
    client = await connect()
    state = local(annotations=ONE) | {"dimensions": {"x": [0.9, "nm"], "y": [0.9, "nm"], "z": [1, "nm"]}}
    state["layers"].append({"type": "image", "source": "precomputed://http://host/~alice.voxel/brain"})
    await imported(client, state)
    assert place.stored("centroids")["a"]["point"] == [1, 1, 1]


async def test_new_annotations_go_to_the_block_of_their_place(connect: Connect, place: Place) -> None:
    write_annotations(place.root / "brain", {"fibers": []}, block="x0001_y0001", block_size=(4, 8, 6))
    client = await connect()
    table = "id,x,y,z\na,3.9,1,1\nb,4,1,1\nc,9.9,7,5\nd,10,8,6\n"
    report = await imported(client, table)
    rows = {row["id"]: (row["block"], row["leaf"]) for row in report["added"]}
    assert rows == {
        "a": ("x0001_y0001", "centroids"),
        "b": ("x0002_y0001", "centroids"),
        **dict.fromkeys("cd", ("x0003_y0001", "centroids")),
    }
    answer = await client.get(f"{ROOT}/x5y0z0/centroids.json")
    assert [item["id"] for item in await answer.json()] == ["b"]
    moved = await imported(client, "id,x,y,z\na,9,1,1\n")
    assert [(row["id"], row["block"]) for row in moved["changed"]] == [("a", "x0001_y0001")], "it keeps its block"


async def test_slices_take_the_names_that_there_are(connect: Connect, place: Place) -> None:
    """An older set-up named them by nanometres: slice 3 of 2,000 nm is z-7000 there, for a height of 3.5."""
    client = await connect()
    await client.put(f"{ROOT}/x0y0z0/z-7000.json", json=[CONTOUR])
    line = json.dumps(CONTOUR | {"id": "other", "points": [[1, 1, 1], [2, 1, 1], [1, 2, 1]]})
    assert [row["leaf"] for row in (await imported(client, line))["added"]] == ["z-2000"]


@pytest.mark.parametrize(("said", "leaf"), [("nm", "z-2000"), ("voxel", "z-0001"), ("feet", "z-0001")])
async def test_slices_take_the_names_that_the_record_tells(
    said: str, leaf: str, connect: Connect, place: Place
) -> None:
    client = await connect()
    record = place.root / "brain" / ".precomputed" / "dataset.json"
    record.parent.mkdir(exist_ok=True)
    record.write_text(json.dumps({"format": 1, "annotation_z": said}))
    line = json.dumps(CONTOUR | {"id": "other", "points": [[1, 1, 1], [2, 1, 1], [1, 2, 1]]})
    assert [row["leaf"] for row in (await imported(client, line))["added"]] == [leaf]


async def test_a_block_that_refuses_does_not_stop_the_others(connect: Connect, place: Place) -> None:
    write_annotations(place.root / "brain", {}, block_size=(5, 8, 6))
    client = await connect(lock_timeout=1)
    await imported(client, "id,x,y,z\na,1,1,1\nb,6,1,1\n")
    descriptor = os.open(place.root / "brain/annotations/.history/x1y0z0/lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        report = await imported(client, "id,x,y,z\na,2,1,1\nb,7,1,1\n", status=207)
    finally:
        os.close(descriptor)
    assert {row["block"]: row["status"] for row in report["blocks"]} == {"x0y0z0": 200, "x1y0z0": 503}
    assert report["counts"]["changed"] == 1
    report = await imported(client, "id,x,y,z\na,2,1,1\nb,7,1,1\n")
    assert [row["id"] for row in report["changed"]] == ["b"]


async def test_an_import_that_somebody_overtakes_is_planned_again(connect: Connect, place: Place) -> None:
    client = await begun(connect, place)
    tables = [f"id,x,y,z\nnew-{number},{number % 9},1,1\nc,{number % 9},2,2\n" for number in range(4)]
    urls = [f"{CENTROIDS}?id=other-{number}" for number in range(6)]
    patches = [client.patch(url, json={"type": "point", "point": [1, 1, 1]}) for url in urls]
    ends = await asyncio.gather(*(imported(client, table) for table in tables), *patches)
    assert all(end["counts"]["added"] == 1 for end in ends[:4])
    cells = place.stored("centroids")
    assert {f"new-{number}" for number in range(4)} | {f"other-{number}" for number in range(6)} <= set(cells)
    assert cells["c"]["description"] == "soma"
    check_log(place)


async def test_what_was_done_between_plan_and_write_is_kept(
    connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await begun(connect, place)
    plan, calls = exchange._Import._plan, iter(("first", "second"))

    async def overtaken(work: Any, **given: Any) -> Any:  # noqa: ANN401  # a plan
        planned = await plan(work, **given)
        if next(calls) == "first":
            await client.patch(f"{CENTROIDS}?id=c", json={**CELL, "reviewed": True})
        return planned

    monkeypatch.setattr(exchange._Import, "_plan", overtaken)
    report = await imported(client, "id,description\nc,new\n")
    assert report["counts"]["changed"] == 1
    assert place.stored("centroids")["c"] == {**CELL, "reviewed": True, "description": "new"}


async def test_an_import_ends_where_people_edit_without_a_pause(
    connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever edits other annotations of the file holds nothing up; what is edited all the time is a conflict."""
    client = await begun(connect, place)
    await client.patch(f"{CENTROIDS}?id=d", json=CELL | {"id": "d"})
    plan, plans = exchange._Import._plan, list[int]()

    async def overtaken(work: Any, **given: Any) -> Any:  # noqa: ANN401  # a plan
        planned = await plan(work, **given)
        plans.append(len(plans))
        for id in busy:
            cell = {**CELL, "id": id, "point": [1, 1, len(plans) / 10]}
            assert (await client.patch(f"{CENTROIDS}?id={id}", json=cell)).status == 200
        return planned

    monkeypatch.setattr(exchange._Import, "_plan", overtaken)
    busy = ["other"]
    report = await imported(client, "id,description\nc,first\nd,first\n")
    assert (report["counts"]["changed"], len(plans)) == (2, 1)
    busy = ["c"]
    report = await imported(client, "id,description\nc,second\nd,second\ne,second\n")
    assert {name: report["counts"][name] for name in ("changed", "conflicts")} == {"changed": 2, "conflicts": 1}
    assert [(row["id"], row["fields"]) for row in report["conflicts"]] == [("c", ["description"])]
    cells = place.stored("centroids")
    assert [cells[id]["description"] for id in "cde"] == ["soma", "second", "second"]
    plans.clear()
    busy = ["d"]
    lines = [json.dumps(each) for each in (cells["c"] | {"who": "me"}, cells["e"], cells["b"])]
    report = await imported(client, "\n".join(lines), "?remove=1")
    assert [row["id"] for row in report["removed"]] == ["other"]
    assert [(row["id"], row["fields"]) for row in report["conflicts"]] == [("d", ["removal"])]
    check_log(place)


LINKED = {
    "a leaf": ("x0y0z0/again.json", "fibers.json"),
    "a block": ("b1,1,1", "x0y0z0"),
    "a leaf that is last by name": ("x0y0z0/z-9999.json", "fibers.json"),
    "a leaf that is first by name": ("x0y0z0/alias.json", "z-0003.json"),
}


@pytest.mark.parametrize("which", LINKED)
async def test_what_has_two_names_is_there_once(which: str, connect: Connect, place: Place) -> None:
    client = await begun(connect, place)
    name, target = LINKED[which]
    (place.root / "brain/annotations" / name).symlink_to(target)
    for query in ("?format=jsonl", "?format=csv"):
        text = await (await client.get(f"{ROOT}/export{query}")).text()
        assert (text.count('"id":"f"') or text.count("\nf,")) == 1
        assert not [other for other in ("b1,1,1", "again", "alias", "z-9999") if other in text]
        report = await imported(client, text, "?remove=1")
        assert report["counts"] == dict.fromkeys(("added", "changed", "removed", "conflicts"), 0) | {"unchanged": 6}
    state = await state_of(client)
    annotation(state, "f")["description"] = "one"
    assert (await imported(client, state))["counts"]["changed"] == 1
    listed = [each for one in state["layers"] for each in one.get("annotations", [])]
    assert len(listed) == 6
    text = await (await client.get(f"{ROOT}/export?format=jsonl")).text()
    older = text.replace('"leaves":{', '"leaves":{"b1,1,1/fibers":[2,null],')  # which named a file twice
    assert (await imported(client, older))["counts"]["unchanged"] == 6


TWICE: dict[str, list[Json]] = {
    "fibers": [FIBRE, LINE],
    "centroids": [CELL, CELL | {"id": "f"}],
    "z-0003": [CONTOUR],
    "z-0004": [{"id": "p", "type": "polygon", "points": [[1, 1, 4.5], [6.7, 1, 4.5], [6, 5, 4.5]]}],
}


@pytest.mark.parametrize("name", ["csv", "geojson", "jsonl", "state"])
async def test_one_id_in_two_files_comes_back_to_both(name: str, connect: Connect, place: Place) -> None:
    client = await connect()
    for leaf, items in TWICE.items():
        assert (await client.put(f"{ROOT}/x0y0z0/{leaf}.json", json=items)).status == 200
    before = {leaf: place.stored(leaf) for leaf in TWICE}
    query = STATE if name == "state" else f"{ROOT}/export?format={name}"
    text = await (await client.get(query)).text()
    report = await imported(client, text, "" if name == "state" else "?remove=1")
    assert report["counts"] == {
        **dict.fromkeys(("added", "changed", "removed", "conflicts"), 0),
        "unchanged": 5 if name == "state" else 6,  # the viewer's layer of contours can have an id once
    }
    assert {leaf: place.stored(leaf) for leaf in TWICE} == before
    assert (await client.delete(f"{CENTROIDS}?id=f")).status == 200
    if name == "state":
        state = json.loads(text)
        annotation(state, "f")["description"] = "mine"
        layer(state, "contours")["annotations"] = []
        edited = json.dumps(state)
    else:
        edited = text.replace('"me"', '"you"').replace('""me""', '""you""')
    report = await imported(client, edited)
    assert ("f" in place.stored("centroids"), report["counts"]["conflicts"]) == (False, 0)
    fibre = place.stored("fibers")["f"]
    assert (fibre.get("description"), fibre["who"]) == (("mine", "me") if name == "state" else (None, "you"))
    if name == "state":
        assert (set(place.stored("z-0003")), set(place.stored("z-0004"))) == (set(), {"p"})


async def test_two_of_one_id_never_become_one(connect: Connect, place: Place) -> None:
    """Where both would come to lie in one file, because their own are not there."""
    client = await begun(connect, place)
    rows = "".join(f'new,{x},1,1,"b9,9,9",{leaf}\n' for x, leaf in ((1, "a"), (2, "a-2")))
    assert (await imported(client, f"id,x,y,z,block,leaf\n{rows}"))["counts"]["added"] == 2
    for table in (
        "new2,1,1,1,,centroids\nnew2,2,1,1,x0y0z0,centroids\n",
        'new2,1,1,1,"b8,8,8",a\nnew2,2,1,1,"b9,9,9",a\n',
        "new2,1,1,1,,\nnew2,2,1,1,x0y0z0,centroids\n",
        "c,1,1,1,,\nc,2,1,1,,\n",
    ):
        await refused(client, "POST", IMPORT, 422, data=f"id,x,y,z,block,leaf\n{table}")


async def test_only_this_server_is_asked_for_a_saved_state(connect: Connect, place: Place) -> None:
    client = await begun(connect, place)
    host = f"http://{client.host}:{client.port}"
    state = await state_of(client)
    annotation(state, "c")["description"] = "saved"
    (place.root / "saved.json").write_text(json.dumps(state))
    report = await imported(client, f"{host}/neuroglancer/v/1/#!{host}/saved.json", "?dry_run=1")
    assert [row["id"] for row in report["changed"]] == ["c"]
    for url in (
        "http://169.254.169.254/latest/meta-data",
        "http://127.0.0.1:1/saved.json",
        "file:///etc/passwd",
        "gs://bucket/state.json",
        f"{host}/brain/annotations/state",
        f"{host}/brain/annotations/.history/x0y0z0/log-000001.jsonl",
        f"{host}/../../etc/passwd",
        f"{host}@169.254.169.254/x",
        "x" * 100,
        "http://[",
        f"{host}/brain",
        f"{host}/brain/",
    ):
        answer = await client.post(IMPORT, data=f"{host}/#!{url}")
        assert answer.status in (400, 404), (url, await answer.text())


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("format=xls", 400),
        ("format=csv", 422),
        ("dry_run=maybe", 400),
        ("conflicts=me", 400),
        ("remove=x", 400),
        ("dryrun=1", 400),
        ("dry-run=true", 400),
    ],
)
async def test_wrong_questions_of_an_import(query: str, status: int, connect: Connect, place: Place) -> None:
    client = await connect()
    await refused(client, "POST", f"{IMPORT}?{query}", status, data="id,x,y,z\na,1,1,x\n")


@pytest.mark.parametrize(
    "query", ["format=xls", "unit=mile", "box=1", "type=dot", "at=now", "reviewed=x", "fromat=swc"]
)
async def test_wrong_questions_of_an_export(query: str, connect: Connect, place: Place) -> None:
    client = await connect()
    await refused(client, "GET", f"{ROOT}/export?{query}", 400)
    await refused(client, "GET", "/nowhere/annotations/export", 404)
    await refused(client, "GET", "/nowhere/annotations/state", 404)


async def test_a_table_of_too_many_lines_is_refused_whole(connect: Connect, place: Place) -> None:
    client = await connect()
    table = "x,y,z\n" + "".join(f"{number % 10},{number % 8},{number / 1e6}\n" for number in range(1_000_000))
    detail = await refused(client, "POST", IMPORT, 413, data=io.BytesIO(table.encode()))
    assert str(planning.MOST_ROWS) in detail
    assert place.stored("centroids") == {}
    detail = await refused(client, "POST", IMPORT, 422, data="id,x,y,z\na,1,1,1\na,1,1,1\n")
    assert "line 2" in detail


async def test_a_file_of_too_many_files_is_refused(connect: Connect, place: Place) -> None:
    client = await begun(connect, place)
    header = (await (await client.get(f"{ROOT}/export?format=jsonl")).text()).splitlines()[0]
    members = json.loads(header)
    members["leaves"] |= {f"x0y0z0/l{number}": [1, None] for number in range(planning.MOST_LEAVES)}
    detail = await refused(client, "POST", IMPORT, 413, data=io.BytesIO(json.dumps(members).encode()))
    assert str(planning.MOST_LEAVES) in detail


async def test_what_takes_too_long_is_given_up(place: Place) -> None:
    """And whoever comes next is served."""
    (place.block / "fibers.json").write_text(json.dumps(LEAVES["fibers"]))
    given = {"large_timeout": 1, "state": str(place.root.parent / "state")}
    large = LargeProcess(settings.load(place.root, given, {}))
    try:
        location = Location("brain/annotations/x0y0z0", "fibers")
        assert await large.call(count_large, location) == 2
        began = time.monotonic()
        with pytest.raises(TooLarge, match="in parts"):
            await large.call(_wait_for_long, too_long=TooLarge(planning.TOO_LONG))
        with pytest.raises(Busy, match="--large-timeout"):
            await large.call(_count_for_ever)
        assert time.monotonic() - began < 20
        assert await large.call(count_large, location) == 2
    finally:
        await asyncio.to_thread(large.close)


def _wait_for_long() -> None:
    time.sleep(60)


def _count_for_ever() -> None:
    for number in itertools.count():
        with contextlib.suppress(Exception):
            assert number < 0


async def test_an_empty_dataset_opens_with_layers_to_draw_in(connect: Connect, place: Place) -> None:
    client = await connect()
    state = await state_of(client)
    assert [(one["name"], one.get("annotations")) for one in state["layers"]] == [
        ("brain", None),
        *((name, []) for name in ("fibers", "centroids", "contours")),
    ]
    layer(state, "contours")["annotations"] = [
        {"id": "o", "type": "polyline", "points": [[1, 1, 2], [2, 1, 2], [2, 2, 2]]},
        {"id": "s", "type": "polyline", "points": [[1, 1, 2], [2, 1, 3], [2, 2, 4]]},
    ]
    await imported(client, state)
    assert place.stored("z-0002")["o"]["type"] == "polygon"
    assert place.stored("fibers")["s"]["type"] == "linestring"


async def test_a_part_of_the_volume_is_edited_without_a_loss_outside(connect: Connect, place: Place) -> None:
    client = await begun(connect, place)
    await client.put(CENTROIDS, json=[*LEAVES["centroids"], *some(3)])
    state = await state_of(client, "?box=0,3,0,8,0,6&leaf=centroids")
    assert [one["name"] for one in state["layers"]] == ["brain", "centroids"]
    shown = {each["id"] for each in layer(state, "centroids")["annotations"]}
    assert "e" not in shown
    layer(state, "centroids")["annotations"] = [
        each for each in layer(state, "centroids")["annotations"] if each["id"] != "c"
    ]
    report = await imported(client, state)
    assert [row["id"] for row in report["removed"]] == ["c"]
    assert {"e", *shown} - {"c"} <= set(place.stored("centroids"))
