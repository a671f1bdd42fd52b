"""Block names: the table of the wire contract, with and without block_info.csv."""

from __future__ import annotations

import pytest

from annotation_store.blocks import Blocks, Location, check_name, parse_block_info, slice_digits, slice_leaf
from precomputed_server.errors import InvalidInput, NotFound, Unreadable
from precomputed_server.format.geometry import Box
from tests.annotation_store.conftest import Connect
from tests.annotation_store.support import Place, some
from tests.data import write_annotations

BOUNDS = Box((0, 0, 0), (100, 80, 60))
SIZE = (64, 64, 32)
THREE, TWO = "x0002_y0001_z0001", "x0002_y0001"


@pytest.mark.parametrize(
    ("existing", "name", "directory"),
    [
        ((), "x0y0z0", "x0y0z0"),
        ((), "x63y63z31", "x0y0z0"),
        ((), "x64y0z0", "x1y0z0"),
        ((), "x99y79z59", "x1y1z1"),
        ((), "x064y00z0", "x1y0z0"),
        # The first of the three spellings that exists.
        ((THREE, TWO, "x1y0z0"), "x64y0z0", THREE),
        ((TWO, "x1y0z0"), "x64y0z0", TWO),
        (("x1y0z0",), "x64y0z0", "x1y0z0"),
        # A new block takes the scheme in use.
        (("x0001_y0001_z0001",), "x64y0z0", THREE),
        (("x0001_y0001_z0001",), "x64y64z32", "x0002_y0002_z0002"),
        (("x0001_y0001",), "x64y0z0", TWO),
        (("x0001_y0001",), "x64y0z40", TWO),
        (("x0y0z0",), "x64y0z0", "x1y0z0"),
        # Meant literally.
        ((), "b1,0,0", "b1,0,0"),
        ((), "b-1,0,7", "b-1,0,7"),
        ((THREE,), THREE, THREE),
        ((TWO,), TWO, TWO),
        (("mine",), "mine", "mine"),
        # The spelling of an index that has another directory, or none yet.
        (("x1y0z0",), THREE, "x1y0z0"),
        ((), THREE, "x1y0z0"),
        ((), TWO, "x1y0z0"),
    ],
)
def test_with_block_info_a_name_is_a_voxel(existing: tuple[str, ...], name: str, directory: str) -> None:
    assert Blocks(SIZE, frozenset(existing), BOUNDS).directory(name) == directory


@pytest.mark.parametrize(
    ("existing", "name", "directory"),
    [
        ((), "x0y0z0", "x0y0z0"),
        ((), "x99y79z59", "x0y0z0"),
        (("x0y0z0",), "x5y6z7", "x0y0z0"),
        (("x5y6z7",), "x5y6z7", "x5y6z7"),
        (("x0001_y0001_z0001",), "x0001_y0001_z0001", "x0001_y0001_z0001"),
        ((), "x0001_y0001_z0001", "x0y0z0"),
        ((), "b2,0,0", "b2,0,0"),
        (("mine",), "mine", "mine"),
        ((), "whatever", "x0y0z0"),
    ],
)
def test_without_block_info_there_is_one_block(existing: tuple[str, ...], name: str, directory: str) -> None:
    assert Blocks(None, frozenset(existing), BOUNDS).directory(name) == directory


@pytest.mark.parametrize("size", [None, SIZE])
@pytest.mark.parametrize("name", ["x100y0z0", "x0y80z0", "x0y0z60", "x-1y0z0", "x999999999999999y0z0"])
def test_a_voxel_outside_the_volume_is_absent(size: tuple[int, int, int] | None, name: str) -> None:
    with pytest.raises(NotFound, match="lies outside the volume"):
        Blocks(size, (), BOUNDS).directory(name)


@pytest.mark.parametrize("name", ["x0003_y0001_z0001", "x0000_y0001_z0001", "x0001_y0003", "x9999_y9999_z9999", "new"])
def test_no_block_is_made_outside_the_volume_or_under_a_name_of_no_scheme(name: str) -> None:
    with pytest.raises(NotFound):
        Blocks(SIZE, (), BOUNDS).directory(name)


def test_voxel_zero_is_answered_wherever_the_volume_lies() -> None:
    bounds = Box((1000, 1000, -500), (1100, 1080, -440))
    assert Blocks(SIZE, (), bounds).directory("x0y0z0") == "x0y0z0"
    assert Blocks(SIZE, (), bounds).directory("x1000y1000z-500") == "x15y15z-16"
    assert Blocks(None, (), bounds).directory("x1000y1000z-500") == "x0y0z0"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a.b", "a b", "ä", "x" * 101, "a\n", "a\x00", "%2e", "*", "~"])
def test_names_that_no_block_or_leaf_may_have(name: str) -> None:
    with pytest.raises(InvalidInput, match="A block name is 1 to 100 letters"):
        Blocks(SIZE, (), BOUNDS).directory(name)
    with pytest.raises(InvalidInput, match="A leaf name is"):
        check_name(name, "leaf")


def test_the_box_of_a_block() -> None:
    blocks = Blocks(SIZE, (), BOUNDS)
    assert blocks.box("x1y1z1") == Box((64, 64, 32), (100, 80, 60))
    assert blocks.box("x0002_y0001_z0002") == Box((64, 0, 32), (100, 64, 60))
    assert blocks.box("x0002_y0001") == Box((64, 0, 0), (100, 64, 60))
    assert blocks.box("b7,7,7") == BOUNDS
    assert Blocks(None, (), BOUNDS).box("x1y1z1") == BOUNDS


def test_block_info() -> None:
    assert parse_block_info("64,64,32\n") == (64, 64, 32)
    assert parse_block_info("sizeX,sizeY,sizeZ\r\n 64 , 64,32,extra\r\n") == (64, 64, 32)
    for wrong in ("", "64,64", "0,1,1", "-1,1,1", "a,b,c\nd,e,f", "a\nb\n1,1,1", "1.5,1,1", "²,1,1"):
        with pytest.raises(Unreadable, match=r"block_info\.csv"):
            parse_block_info(wrong)


def test_leaves_of_slices() -> None:
    assert slice_leaf(20) == "z-0020"
    assert slice_leaf(12_345) == "z-2345"
    assert slice_digits("z-0020") == 20
    assert slice_digits("fibers") is None


def test_a_leaf_may_lie_in_the_root_itself() -> None:
    assert Location("", "fibers").path == "fibers.json"
    assert not Location("", "fibers").history.startswith("/")


async def test_the_blocks_of_a_dataset_over_http(connect: Connect, place: Place) -> None:
    place.block.rmdir()
    write_annotations(place.root / "brain", {"fibers": some(2), "z-0003": []}, block_size=(4, 8, 6))
    write_annotations(place.root / "brain", {"damaged": []}, block="x1y0z0")
    (place.root / "brain/annotations/x1y0z0/damaged.json").write_bytes(b"[{")
    (place.root / "brain/annotations/x1y0z0/a copy.json").write_bytes(b"[]")
    (place.root / "brain/annotations/x1y0z0/directory.json").mkdir()
    client = await connect()
    answer = await client.get("/brain/annotations/blocks")
    assert answer.status == 200
    assert await answer.json() == {
        "block_size": [4, 8, 6],
        "blocks": [
            {
                "directory": "x0y0z0",
                "index": [0, 0, 0],
                "start": [0, 0, 0],
                "stop": [4, 8, 6],
                "leaves": [
                    {"leaf": "fibers", "count": 2, "version": 1},
                    {"leaf": "z-0003", "count": 0, "version": 1},
                ],
            },
            {
                "directory": "x1y0z0",
                "index": [1, 0, 0],
                "start": [4, 0, 0],
                "stop": [8, 8, 6],
                "leaves": [{"leaf": "damaged", "count": None, "version": 1}],
            },
        ],
    }
    assert (await client.get("/brain/1_1_1/annotations/blocks")).status == 404
    assert (await client.get("/nowhere/annotations/blocks")).status == 404


async def test_many_urls_name_one_file(connect: Connect, place: Place) -> None:
    client = await connect()
    for number, name in enumerate(("x0y0z0", "x5y5z5", "x9y0z0", "anything", "x05y05z05")):
        url = f"/brain/annotations/{name}/fibers.json"
        answer = await client.patch(f"{url}?id=i{number}", json={"type": "point", "point": [1, 2, 3]})
        assert answer.status == 200
        assert answer.headers["Precomputed-Version"] == str(number + 1)
    assert list(place.stored()) == ["i0", "i1", "i2", "i3", "i4"]
    assert [path.name for path in place.block.parent.iterdir() if path.is_dir()] in (
        ["x0y0z0", ".history"],
        [".history", "x0y0z0"],
    )


async def test_outside_the_volume_nothing_is_created(connect: Connect, place: Place) -> None:
    client = await connect()
    before = sorted(place.root.rglob("*"))
    for name in ("x10y0z0", "x0y-1z0"):
        url = f"/brain/annotations/{name}/fibers.json"
        assert (await client.get(url)).status == 404
        assert (await client.put(url, json=some(1))).status == 404
        assert (await client.patch(f"{url}?id=a", json={"type": "point", "point": [1, 2, 3]})).status == 404
    for name in ("a.b", "a%20b", "x" * 101, "%C3%A4"):
        assert (await client.put(f"/brain/annotations/{name}/fibers.json", json=some(1))).status == 400
        assert (await client.put(f"/brain/annotations/x0y0z0/{name}.json", json=some(1))).status == 400
    assert sorted(place.root.rglob("*")) == before


async def test_a_new_block_takes_the_scheme_in_use(connect: Connect, place: Place) -> None:
    place.block.rmdir()
    write_annotations(place.root / "brain", {"fibers": []}, block="x0001_y0001_z0001", block_size=(4, 4, 4))
    client = await connect()
    answer = await client.put("/brain/annotations/x9y7z5/fibers.json", json=some(1))
    assert await answer.json() == {"filename": "brain/annotations/x0003_y0002_z0002/fibers.json"}
    assert (place.root / "brain/annotations/x0003_y0002_z0002/fibers.json").is_file()
