"""Session prefixes and the voxel view: the same tree, whose info has voxels for nanometres."""

from __future__ import annotations

import json
from pathlib import Path

from tests.data import point, volume, write_dataset
from tests.web.conftest import Client

MIB_BANANA = (390_625.0, 390_625.0, 8_800_000.0)


async def test_a_prefix_changes_nothing_but_who_asks(root: Path, client: Client) -> None:
    voxels = volume((1, 20, 64, 64))
    write_dataset(root / "lab" / "banana", voxels, resolution_nm=MIB_BANANA)
    plain = await (await client.get("/lab/banana/info")).read()
    assert await (await client.get("/~alice/lab/banana/info")).read() == plain
    for prefix in ("/~alice", "/~alice.voxel"):
        chunk = await client.get(f"{prefix}/lab/banana/1_1_1/0-64_0-64_0-20.tiff")
        assert await chunk.read() == voxels.tobytes()


async def test_the_voxel_view_divides_every_resolution_by_the_finest_z(root: Path, client: Client) -> None:
    write_dataset(root / "banana", volume((1, 20, 64, 64)), resolution_nm=(1800, 1800, 2000), levels=2)
    info = json.loads(await (await client.get("/~alice.voxel/banana/info")).read())
    assert [scale["resolution"] for scale in info["scales"]] == [[0.9, 0.9, 1], [1.8, 1.8, 2]]
    plain = json.loads(await (await client.get("/banana/info")).read())
    for scale in info["scales"] + plain["scales"]:
        del scale["resolution"]
    assert info == plain


async def test_the_two_views_of_info_have_different_tags(root: Path, client: Client) -> None:
    write_dataset(root / "banana", volume((1, 20, 64, 64)))
    voxel, plain = await client.get("/~alice.voxel/banana/info"), await client.get("/banana/info")
    assert voxel.headers["ETag"] != plain.headers["ETag"]
    again = await client.get("/~alice.voxel/banana/info", headers={"If-None-Match": voxel.headers["ETag"]})
    assert again.status == 304


async def test_members_of_info_that_nobody_knows_stay(root: Path, client: Client) -> None:
    write_dataset(root / "banana", volume((1, 20, 64, 64)))
    info = json.loads((root / "banana" / "info").read_text())
    info["mesh"], info["scales"][0]["hidden"] = "mesh", True
    (root / "banana" / "info").write_text(json.dumps(info))
    seen = json.loads(await (await client.get("/~alice.voxel/banana/info")).read())
    assert (seen["mesh"], seen["scales"][0]["hidden"]) == ("mesh", True)


async def test_an_info_that_is_no_volume_is_the_same_in_both_views(root: Path, client: Client) -> None:
    (root / "mesh").mkdir()
    (root / "mesh" / "info").write_text('{"@type": "neuroglancer_legacy_mesh"}')
    assert await (await client.get("/~alice.voxel/mesh/info")).text() == '{"@type": "neuroglancer_legacy_mesh"}'


async def test_saves_under_a_prefix_land_in_the_same_file_and_name_the_session(root: Path, client: Client) -> None:
    write_dataset(root / "banana", volume((1, 20, 64, 64)))
    url = "/banana/annotations/x0y0z0/z-0003.json"
    saved = await client.put(f"/~alice.voxel{url}", data=json.dumps([point(1, 5, 5, 3)]))
    assert saved.status == 200
    assert json.loads(await (await client.get(url)).read()) == [point(1, 5, 5, 3)]
    log = (root / "banana" / "annotations" / ".history" / "x0y0z0" / "log-000001.jsonl").read_text().splitlines()
    record = json.loads(log[-1])
    assert (record["author"], record["session"], record["leaf"]) == ("alice", "alice", "z-0003")
