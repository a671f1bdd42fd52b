"""The catalog says what lies in the tree: after every scan, whatever happened in between."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tifffile

from converter import convert
from precomputed_server.catalog.database import Catalog
from precomputed_server.catalog.indexer import only_indexer
from precomputed_server.catalog.records import contrast_of
from precomputed_server.errors import Busy
from precomputed_server.format.names import EVENTS, LOCK, PRIVATE
from tests.catalog.trees import INFO, Indexed, make_dataset, write_record
from tests.converter.served import published
from tests.converter.stacks import options, volume, write_planes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    return directory


@pytest.fixture
def indexed(root: Path, tmp_path: Path) -> Iterator[Indexed]:
    made = Indexed(root, tmp_path / "catalog.sqlite")
    yield made
    made.close()


def test_a_dataset_is_described_by_its_info_and_record(root: Path, indexed: Indexed) -> None:
    make_dataset(root / "mouse" / "brain", id="a" * 32, title="Mouse 7", description="cleared", tags=["iDISCO"])
    assert indexed.indexer.scan().changed == 1
    (found,) = indexed.found()
    assert found["path"] == "mouse/brain"
    assert (found["title"], found["description"], found["tags"]) == ("Mouse 7", "cleared", ["iDISCO"])
    assert (found["state"], found["reason"]) == ("complete", "")
    assert (found["type"], found["data_type"], found["num_channels"]) == ("image", "uint8", 1)
    assert (found["size"], found["voxel_size_nm"]) == ([64, 64, 64], [1000, 1000, 2000])
    assert (found["format"], found["bytes"]) == ("raw", 64**3)
    assert [scale["key"] for scale in found["scales"]] == ["1_1_1"]
    assert found["first_seen"] <= found["last_seen"]


def test_nothing_is_looked_at_twice_that_has_not_changed(root: Path, indexed: Indexed) -> None:
    for number in range(5):
        make_dataset(root / f"{number}", title=f"{number}")
    (root / "raw").mkdir()
    (root / "raw" / "z0.tif").write_bytes(b"")
    assert indexed.indexer.scan().changed == 6
    assert indexed.indexer.scan().changed == 0
    write_record(root / "3", title="new")
    assert indexed.indexer.scan().changed == 1
    assert {dataset["title"] for dataset in indexed.found()} == {"0", "1", "2", "new", "4", "raw"}


def test_a_stack_is_a_dataset_once_it_is_published(root: Path, indexed: Indexed) -> None:
    planes = write_planes(root / "mouse", volume(70, 66, 5))
    (planes / PRIVATE).mkdir()
    indexed.indexer.scan()
    (found,) = indexed.found()
    assert (found["state"], found["layers"]) == ("stack", [])
    assert "precomputed describe" in found["reason"]
    time.sleep(2.1)  # its listing is remembered by now
    indexed.indexer.scan()
    published(planes)
    indexed.indexer.scan()
    (found,) = indexed.found()
    assert (found["state"], found["format"], found["title"]) == ("complete", "stack", "mouse")
    assert found["bytes"] == sum(path.stat().st_size for path in planes.glob("*.tif"))
    tifffile.imwrite(planes / "img_5.tif", volume(70, 66, 1)[0], metadata=None)
    indexed.stacks.forget()
    indexed.indexer.scan()
    assert indexed.found()[0]["size"] == [70, 66, 6]


def test_states_and_their_reasons(root: Path, indexed: Indexed) -> None:
    make_dataset(root / "whole")
    (make_dataset(root / "without chunks") / "1_1_1" / "0-64_0-64_0-64").unlink()
    (make_dataset(root / "damaged") / "info").write_text("{")
    (root / "planes").mkdir()
    for z in range(3):
        (root / "planes" / f"img_{z}.tif").write_bytes(b"")
    (root / "mesh").mkdir()
    (root / "mesh" / "info").write_text('{"@type": "neuroglancer_legacy_mesh"}')
    (root / "empty" / "deep" / "er").mkdir(parents=True)
    indexed.indexer.scan()
    assert indexed.states() == {
        "whole": "complete",
        "without chunks": "incomplete",
        "damaged": "unusable",
        "planes": "stack",
    }
    reasons = {dataset["path"]: dataset["reason"] for dataset in indexed.found()}
    assert reasons["without chunks"] == "No chunks lie in 1_1_1."
    assert reasons["damaged"] == "info is not JSON."
    assert reasons["planes"].startswith("3 TIFF files, the first of them img_0.tif")


def test_a_conversion_is_seen_from_its_first_event_to_its_end(root: Path, indexed: Indexed) -> None:
    dataset = root / "brain"
    (dataset / PRIVATE).mkdir(parents=True)
    event = {"state": "progress", "done": 30, "total": 120, "message": ""}
    (dataset / EVENTS).write_text(json.dumps({"state": "began"}) + "\n" + json.dumps(event) + '\n{"torn')
    with (dataset / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        indexed.indexer.scan()
        (found,) = indexed.found()
        assert (found["state"], found["progress"]) == ("converting", {"done": 30, "total": 120})
    indexed.indexer.scan()
    (found,) = indexed.found()
    assert found["state"] == "incomplete"
    assert "the same command goes on" in found["reason"]
    with (dataset / EVENTS).open("a") as events:
        events.write(
            "\n" + json.dumps({"state": "failed", "done": 30, "total": 120, "message": "img_7.tif is damaged."})
        )
    indexed.indexer.scan()
    assert indexed.found()[0]["reason"] == "img_7.tif is damaged."


def test_a_real_conversion_is_complete_with_the_bytes_of_its_manifest(
    root: Path, tmp_path: Path, indexed: Indexed
) -> None:
    planes = write_planes(tmp_path / "planes", volume(100, 80, 40))
    summary = convert(planes, root / "brain", options(chunk_size=(32, 32, 32)))
    indexed.indexer.scan()
    (found,) = indexed.found()
    assert (found["state"], found["reason"], found["progress"]) == ("complete", "", None)
    assert found["bytes"] == summary.bytes
    assert found["title"] == "brain"


def test_layers_of_one_dataset_are_one_row(root: Path, indexed: Indexed) -> None:
    for name in ("red", "green"):
        make_dataset(root / "cells" / name)
    layers = [{"name": "Red", "path": "red"}, {"name": "Green", "path": "green"}, {"name": "evil", "path": "../../etc"}]
    write_record(root / "cells", title="Cells", layers=layers)
    indexed.indexer.scan()
    (found,) = indexed.found()
    assert found["path"] == "cells"
    assert [(layer["name"], layer["path"], layer["state"]) for layer in found["layers"]] == [
        ("Red", "red", "complete"),
        ("Green", "green", "complete"),
    ]
    assert found["bytes"] == 2 * 64**3
    shutil.rmtree(root / "cells" / "green")
    indexed.indexer.scan()
    (found,) = indexed.found()
    assert (found["state"], found["reason"]) == ("unusable", "green has no info.")


def test_what_vanished_is_kept_and_found_again_by_its_id(root: Path, indexed: Indexed) -> None:
    make_dataset(root / "a", id="1" * 32, title="A")
    make_dataset(root / "b", title="B")
    indexed.indexer.scan()
    first_seen = {dataset["title"]: dataset["first_seen"] for dataset in indexed.found()}
    shutil.move(root / "a", root / "moved")
    shutil.rmtree(root / "b")
    assert indexed.indexer.scan().gone == 2
    assert indexed.states() == {"moved": "complete"}
    assert indexed.states(states=("vanished",)) == {"b": "vanished"}
    (found,) = indexed.found()
    assert (found["title"], found["first_seen"]) == ("A", first_seen["A"])
    make_dataset(root / "b", title="B again")
    indexed.indexer.scan()
    assert indexed.states(states=("vanished",)) == {}
    assert indexed.states() == {"moved": "complete", "b": "complete"}


def test_another_dataset_in_the_place_of_one_is_another(root: Path, indexed: Indexed) -> None:
    make_dataset(root / "a", id="1" * 32, title="first")
    indexed.indexer.scan()
    shutil.rmtree(root / "a")
    make_dataset(root / "a", id="2" * 32, title="second")
    indexed.indexer.scan()
    assert [dataset["title"] for dataset in indexed.found()] == ["second"]
    assert [dataset["title"] for dataset in indexed.found(states=("vanished",))] == ["first"]


def test_the_root_may_be_the_dataset(root: Path, indexed: Indexed) -> None:
    (root / "1_1_1").mkdir()
    (root / "1_1_1" / "0-64_0-64_0-64").write_bytes(bytes(64**3))
    (root / "info").write_text(json.dumps(INFO))
    make_dataset(root / "inside")  # the walk stops at a volume
    indexed.indexer.scan()
    assert indexed.states() == {".": "complete"}


def test_links_are_followed_once_and_never_out_of_the_root(root: Path, tmp_path: Path, indexed: Indexed) -> None:
    make_dataset(tmp_path / "outside")
    make_dataset(root / "real" / "brain")
    (root / "z-link").symlink_to("real")
    (root / "loop").symlink_to(".")
    (root / "escape").symlink_to(tmp_path / "outside")
    indexed.indexer.scan()
    assert list(indexed.states()) == ["real/brain"]


@pytest.mark.parametrize("damage", ["deleted", "garbage", "truncated", "of another version"])
def test_a_catalog_that_is_damaged_is_made_anew(root: Path, tmp_path: Path, damage: str) -> None:
    for number in range(20):
        make_dataset(root / f"{number}")
    path = tmp_path / "catalog.sqlite"
    indexed = Indexed(root, path)
    indexed.indexer.scan()
    expected = indexed.states()
    indexed.close()
    if damage == "deleted":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(os.urandom(8192))
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    else:
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
    indexed = Indexed(root, path)
    indexed.indexer.scan()
    assert indexed.states() == expected
    indexed.close()


def test_a_reader_of_no_catalog_is_told(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.Error):
        Catalog(tmp_path / "none.sqlite")
    assert not (tmp_path / "none.sqlite").exists()


def test_one_process_indexes_at_a_time(tmp_path: Path) -> None:
    with only_indexer(tmp_path / "catalog.sqlite"), pytest.raises(Busy), only_indexer(tmp_path / "catalog.sqlite"):
        pass
    with only_indexer(tmp_path / "catalog.sqlite"):
        pass


@pytest.mark.parametrize("hinted", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_after_a_storm_the_catalog_is_the_tree(root: Path, indexed: Indexed, hinted: bool, seed: int) -> None:
    """Create, rename, delete, damage and mend at random; a scan, or hints of what was touched, puts it right."""
    chance = random.Random(seed)
    folders = ["", "x", "x/y"]
    for _ in range(12):
        touched = set()
        for _ in range(chance.randint(1, 6)):
            place = root / chance.choice(folders) / f"d{chance.randrange(5)}"
            touched |= {str(place.relative_to(root)), str(place.parent.relative_to(root)).replace(".", "")}
            _storm(chance, root, place, touched)
        if hinted:
            indexed.indexer.look_at(touched)
        else:
            indexed.indexer.scan()
        assert indexed.states() == _truth(root)


def _storm(chance: random.Random, root: Path, place: Path, touched: set[str]) -> None:
    if not place.exists():
        make_dataset(place)
        return
    what = chance.randrange(4)
    if what == 0:
        shutil.rmtree(place)
    elif what == 1:
        target = root / "x" / f"d{chance.randrange(5, 9)}"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            place.rename(target)
            touched |= {str(target.relative_to(root)), "x"}
    elif what == 2:
        (place / "info").write_text("{" if chance.random() < 0.5 else json.dumps(INFO))
    else:
        (place / "1_1_1" / "0-64_0-64_0-64").unlink(missing_ok=True)


def _truth(root: Path) -> dict[str, str]:
    """What is there, found in another way."""
    states = {}
    for info in root.rglob("info"):
        place = str(info.parent.relative_to(root))
        if info.read_text() == "{":
            states[place] = "unusable"
        else:
            states[place] = "complete" if any((info.parent / "1_1_1").iterdir()) else "incomplete"
    return states


def test_what_comes_within_the_tick_of_the_last_look_is_found(root: Path, indexed: Indexed) -> None:
    make_dataset(root / "first")
    tick = time.time_ns()
    os.utime(root, ns=(tick, tick))
    indexed.indexer.scan()
    make_dataset(root / "second")
    os.utime(root, ns=(tick, tick))
    indexed.indexer.scan()
    assert indexed.states() == {"first": "complete", "second": "complete"}


@pytest.mark.parametrize("strange", [10**400, float("nan"), float("inf"), "1", None, []])
def test_a_figure_that_is_none_says_no_contrast(strange: object) -> None:
    assert contrast_of([{"p01": strange, "p998": 3}], 1) is None
    assert contrast_of([{"p01": 1, "p998": 3}], 1) == ((1, 3),)
