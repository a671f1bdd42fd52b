"""Annotations moved to new voxels: values, leaves of slices, crashes at every commit, edits meanwhile."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from annotation_store.model import Item
from annotation_store.orders import Answer, Order
from annotation_store.slices import slice_naming
from annotation_store.store import AnnotationStore
from annotation_store.transform import scaled, transform_annotations
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.writing import replace_file
from tests.annotation_store.support import Editor, Place, check_log, some
from tests.data import point, write_annotations


def info(resolution: tuple[float, float, float]) -> VolumeInfo:
    """A volume of 100 × 100 × 100 voxels of that edge."""
    return VolumeInfo("uint8", 1, (ScaleInfo("1_1_1", (100, 100, 100), resolution, ((64, 64, 64),)),))


OLD, NEW = info((1000.0, 2000.0, 2000.0)), info((2000.0, 2000.0, 4000.0))
"""x is halved, y stays, z is halved."""


@pytest.fixture
def dataset(place: Place) -> Path:
    """The dataset's directory."""
    return place.root / "brain"


def slices(place: Place) -> dict[str, list[Item]]:
    """Every leaf of the block that holds anything."""
    return {path.stem: items for path in sorted(place.block.glob("*.json")) if (items := json.loads(path.read_bytes()))}


def test_every_type_is_scaled() -> None:
    ratio = (0.5, 1.0, 2.0)
    for item, field, value in (
        ({"type": "point", "point": [1, 2, 3]}, "point", [0.5, 2, 6]),
        ({"type": "polygon", "points": [[1, 2, 3], [4, 5, 6]]}, "points", [[0.5, 2, 6], [2, 5, 12]]),
        ({"type": "linestring", "points": [[1, 2, 3]]}, "points", [[0.5, 2, 6]]),
        ({"type": "line", "pointA": [0, 0, 0], "pointB": [2, 2, 2]}, "pointB", [1, 2, 4]),
        ({"type": "axis_aligned_bounding_box", "pointA": [2, 2, 2], "pointB": [0, 0, 0]}, "pointA", [1, 2, 4]),
        ({"type": "ellipsoid", "center": [2, 2, 2], "radii": [4, 4, 4]}, "radii", [2, 4, 8]),
    ):
        assert scaled(item | {"who": [1, 2, 3]}, ratio) == {**item, "who": [1, 2, 3], field: value} | (
            {"center": [1, 2, 4]} if field == "radii" else {}
        )
    damages: tuple[Item, ...] = (
        {},
        {"type": "point"},
        {"type": []},
        {"type": "point", "point": [1, 2]},
        {"type": "point", "point": "x"},
    )
    for damaged in damages:
        assert scaled(damaged, ratio) is None


def test_leaves_named_by_voxel_move_with_their_slice(place: Place, dataset: Path) -> None:
    write_annotations(
        dataset,
        {
            "fibers": [point(1, 10, 10, 10.5), {"id": "old", "type": "star"}],
            "z-0020": [point(2, 8, 8, 20.5), point(3, 8, 8, 20.0)],
            "z-0021": [point(4, 8, 8, 21.5)],
            "z-0010": [point(5, 8, 8, 10.5)],
        },
        block_size=(65, 100, 100),
    )
    transform_annotations(dataset, OLD, NEW, "one")
    assert slices(place) == {
        "fibers": [point(1, 5, 10, 5.25), {"id": "old", "type": "star"}],
        "z-0010": [point(2, 4, 8, 10.25), point(3, 4, 8, 10.0), point(4, 4, 8, 10.75)],
        "z-0005": [point(5, 4, 8, 5.25)],
    }
    assert (dataset / "annotations/block_info.csv").read_text() == "33,100,50\n"
    check_log(place)
    before = slices(place)
    transform_annotations(dataset, OLD, NEW, "one")
    assert slices(place) == before
    transform_annotations(dataset, NEW, NEW, "nothing")
    assert slices(place) == before


def test_leaves_named_by_nanometres_keep_their_names(place: Place, dataset: Path) -> None:
    items = {"z-1000": [point(2, 8, 8, 20.5)], "z-3000": [point(3, 8, 8, 21.5)]}
    write_annotations(dataset, items)
    transform_annotations(dataset, OLD, NEW, "one")
    assert slices(place) == {"z-1000": [point(2, 4, 8, 10.25)], "z-3000": [point(3, 4, 8, 10.75)]}


def test_leaves_are_named_as_the_record_says_whatever_their_points(place: Place, dataset: Path) -> None:
    write_annotations(dataset, {"z-0020": [point(2, 8, 8, 20.5)]})
    (dataset / ".precomputed").mkdir()
    (dataset / ".precomputed" / "dataset.json").write_text('{"format": 1, "annotation_z": "nm"}')
    transform_annotations(dataset, OLD, NEW, "one")
    assert slices(place) == {"z-0020": [point(2, 4, 8, 10.25)]}


def test_the_names_of_slices_are_told_by_most_of_their_points(place: Place, dataset: Path) -> None:
    assert slice_naming(dataset, OLD) is None
    write_annotations(dataset, {"fibers": [point(1, 8, 8, 20.5)], "z-0020": []})
    assert slice_naming(dataset, OLD) is None
    damaged: list[Item] = [
        {"id": "x", "type": []},
        {"id": "y", "type": "point"},
        {"id": "z", "type": "polygon", "points": []},
    ]
    write_annotations(
        dataset, {"z-0020": [point(1, 8, 8, 20.5), point(2, 8, 8, 20.0)], "z-1000": [point(3, 8, 8, 20.5)]}
    )
    assert slice_naming(dataset, OLD) == "voxel"
    write_annotations(dataset, {"z-3000": [point(4, 8, 8, 21.5), point(5, 8, 8, 21.5), *damaged]})
    assert slice_naming(dataset, OLD) == "nm"


def test_a_copy_on_the_slice_that_becomes_the_same_is_kept(place: Place, dataset: Path) -> None:
    write_annotations(dataset, {"z-0020": [point(1, 2, 2, 20.5)], "z-0021": [point(1, 4, 4, 21.5)]})
    transform_annotations(dataset, OLD, NEW, "one")
    found = slices(place)["z-0010"]
    assert [item["point"] for item in found] == [[1, 2, 10.25], [2, 4, 10.75]]
    assert len({item["id"] for item in found}) == 2


class Crash(BaseException):
    """The end of a process."""


def crash_after(patch: pytest.MonkeyPatch, count: int) -> None:
    """Let `count` commits be made, and end the process in the next."""
    commit = AnnotationStore.commit
    made: list[Order] = []

    def counted(self: AnnotationStore, orders: Sequence[Order]) -> list[Answer]:
        if len(made) == count:
            raise Crash
        made.extend(orders)
        return commit(self, orders)

    patch.setattr(AnnotationStore, "commit", counted)


def test_a_crash_at_every_commit_is_finished_by_calling_again(tmp_path: Path) -> None:
    leaves = {
        "fibers": [point(1, 10, 10, 10.5)],
        "z-0020": [point(2, 8, 8, 20.5), point(6, 1, 1, 20.5)],
        "z-0021": [point(4, 8, 8, 21.5)],
        "z-0010": [point(5, 8, 8, 10.5)],
    }
    for number in range(40):
        place = Place(tmp_path / str(number))
        write_annotations(place.root / "brain", leaves, block_size=(64, 64, 64))
        crashed = False
        with pytest.MonkeyPatch.context() as patch:
            crash_after(patch, number)
            try:
                transform_annotations(place.root / "brain", OLD, NEW, "one")
            except Crash:
                crashed = True
        transform_annotations(place.root / "brain", OLD, NEW, "one")
        assert slices(place) == {
            "fibers": [point(1, 5, 10, 5.25)],
            "z-0005": [point(5, 4, 8, 5.25)],
            "z-0010": [point(2, 4, 8, 10.25), point(6, 0.5, 1, 10.25), point(4, 4, 8, 10.75)],
        }
        check_log(place)
        if not crashed:
            assert number > 10
            return
    raise AssertionError


def test_what_is_edited_or_deleted_meanwhile_is_left_alone(
    place: Place, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaves = {"fibers": some(2), "z-0020": [point(number, 8, 8, 20.5) for number in (11, 12, 13)]}
    write_annotations(dataset, leaves)
    editor = Editor(place)
    edited, moved = some(1)[0] | {"description": "mine"}, point(11, 1, 1, 20.5)

    def then_edit(path: Path, data: bytes) -> None:
        replace_file(path, data)
        if data != b"{}":
            editor.put(edited)
            editor.put(moved, leaf="z-0020")
            editor.delete(point(12, 0, 0, 0)["id"], leaf="z-0020")

    monkeypatch.setattr("annotation_store.transform.replace_file", then_edit)
    transform_annotations(dataset, OLD, NEW, "one")
    assert slices(place) == {
        "fibers": [edited, some(2)[1] | {"point": [0.75, 2, 1.625]}],
        "z-0010": [point(13, 4, 8, 10.25)],
        "z-0020": [moved],
    }
    check_log(place)
