"""Neuroglancer's own Python reader reads our collections, exported as files, as what the leaves say."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from neuroglancer.read_precomputed_annotations import AnnotationReader as NeuroglancerReader

from annotation_store.model import GEOMETRY, Item
from annotation_store.reader import AnnotationReader
from annotation_store.review import confirmed
from annotation_store.views import levels
from annotation_store.views.export import write_precomputed
from annotation_store.views.numbers import number_of
from precomputed_server.errors import DestinationExists
from precomputed_server.files import Tree
from tests.annotation_store.precomputed import expected_points, volume_of
from tests.annotation_store.support import Place, by_id, written
from tests.data import point

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
VOLUME = volume_of((4096, 2048, 512), (-100, 0, 50))
SHAPES = {"polygon": "polyline", "linestring": "polyline"}

coordinates = st.floats(-200, 4100, width=64) | st.integers(-200, 4100) | st.floats(-1e30, 1e30)
places = st.tuples(coordinates, coordinates, coordinates).map(list)


@st.composite
def drawn_annotations(draw: st.DrawFn) -> Item:
    """An annotation of any type, confirmed or looked at or neither, with objects or without."""
    kind = draw(st.sampled_from(list(GEOMETRY)))
    item: Item = {"id": draw(st.text("0123456789abcdef", min_size=6, max_size=12)), "type": kind}
    for field in GEOMETRY[kind]:
        item[field] = draw(st.lists(places, min_size=1, max_size=6) if field == "points" else places)
    item["anntype"] = draw(st.sampled_from(["", "neuron", "vessel", "größe"]))
    item["visited"] = draw(st.booleans())
    objects = draw(st.lists(st.integers(0, 2**64 - 1) | st.integers(1, 3), max_size=3, unique=True))
    if objects:
        item["segments"] = [[str(each) for each in objects]]
    return confirmed(item, "alice", NOON) if draw(st.booleans()) else item


def read(directory: Path) -> dict[str, tuple[Any, ...]]:
    """What Neuroglancer's reader finds, by number: type, points, properties and objects."""
    found: dict[str, tuple[Any, ...]] = {}
    for collection in sorted(directory.iterdir()):
        reader = NeuroglancerReader(f"file://{collection}")
        names = [each.id for each in reader.properties]
        labels = {each.id: dict(zip(each.enum_values or (), each.enum_labels or (), strict=True)) for each in
                  reader.properties}  # fmt: skip
        seen = {}
        for one in reader.get_within_spatial_bounds():
            seen[one.id] = _values(reader, one, names, labels)
        for id, values in seen.items():
            single = reader.by_id[int(id)]
            assert _values(reader, single, names, labels) == values, "by_id and the cells differ"
            objects = [int(each) for each in single.segments[0]]
            for object in objects:
                assert id in {each.id for each in reader.relationships["segments"][object]}
            found[id] = (*values, objects)
    return found


def _values(reader: NeuroglancerReader, one: Any, names: list[str], labels: Mapping[str, Any]) -> tuple[Any, ...]:  # noqa: ANN401
    kind = reader.annotation_type
    fields = {"point": ("point",), "ellipsoid": ("center", "radii"), "polyline": ("points",)}
    points = np.concatenate(
        [np.reshape(getattr(one, field), (-1, 3)) for field in fields.get(kind, ("point_a", "point_b"))]
    )
    told = dict(zip(names, one.props, strict=True))
    anntype = labels["anntype"][int(told["anntype"])]
    return kind, [tuple(map(float, each)) for each in points], int(told["reviewed"]), int(told["visited"]), anntype


def expected(item: Item) -> tuple[Any, ...]:
    """What is to be found of an annotation of ours."""
    reviewed = "review" in item
    objects = list(dict.fromkeys(int(text) for text in (item.get("segments") or [[]])[0]))
    flags = (int(reviewed), int(reviewed or item["visited"]))
    kind = SHAPES.get(item["type"], item["type"])
    return kind, list(expected_points(item)), *flags, item["anntype"] or "none", objects


def check(root: Path, items: Mapping[str, Item]) -> None:
    """Export a leaf that holds `items` and read it back."""
    shutil.rmtree(root, ignore_errors=True)
    place = Place(root / "data")
    place.block.mkdir(parents=True)
    place.file().write_bytes(written(items.values()))
    tree = Tree(place.root)
    try:
        count = write_precomputed(AnnotationReader(tree), "brain", VOLUME, root / "out")
    finally:
        tree.close()
    assert count == len(items)
    found = read(root / "out")
    assert found.keys() == {str(number_of(id)) for id in items}
    for id, item in items.items():
        assert found[str(number_of(id))] == expected(item)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("examples", "total"), [(20, 600), pytest.param(2800, 100_000, marks=pytest.mark.nightly)])
def test_neuroglancers_reader_reads_what_the_leaves_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examples: int, total: int
) -> None:
    """Of annotations that Hypothesis makes, in several levels; more in one example are beyond what it draws."""
    monkeypatch.setattr(levels, "CELL_LIMIT", 8)
    made = [0]

    @given(st.lists(drawn_annotations(), min_size=30, max_size=60))
    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def reads(items: list[Item]) -> None:
        made[0] += len(items)
        check(tmp_path / "example", by_id(items))

    reads()
    assert made[0] >= total


def random_annotations(count: int, seed: int) -> list[Item]:
    """Annotations of all types, by a generator that makes very many of them."""
    chance = np.random.default_rng(seed)
    kinds = list(GEOMETRY)
    found: list[Item] = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        corner = chance.uniform((-100, 0, 50), (3900, 2000, 550))
        item: Item = {"id": f"{seed}-{number:x}", "type": kind, "anntype": ("", "neuron")[number % 2], "visited": False}
        for field in GEOMETRY[kind]:
            points = (corner + chance.uniform(0, 40, (int(chance.integers(1, 6)), 3))).tolist()
            item[field] = points if field == "points" else points[0]
        if number % 5 == 0:
            item["segments"] = [[str(number), str(number % 7)]]
        found.append(confirmed(item, "alice", NOON) if number % 3 == 0 else item)
    return found


@pytest.mark.parametrize(
    "count", [6_000, pytest.param(100_000, marks=[pytest.mark.nightly, pytest.mark.timeout(1800)])]
)
def test_neuroglancers_reader_reads_very_many(tmp_path: Path, count: int) -> None:
    check(tmp_path / "many", by_id(random_annotations(count, 1)))


def test_an_export_goes_into_a_directory_of_its_own(tmp_path: Path) -> None:
    place = Place(tmp_path / "data")
    place.block.mkdir(parents=True)
    place.file().write_bytes(written([point(1, 1, 2, 3)]))
    tree = Tree(place.root)
    out = tmp_path / "some" / "out"
    assert write_precomputed(AnnotationReader(tree), "brain", VOLUME, out) == 1
    written_files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert [name.split("/")[1] for name in written_files] == ["by_id", "info", "spatial-0"]
    with pytest.raises(DestinationExists, match="empty"):
        write_precomputed(AnnotationReader(tree), "brain", VOLUME, out)
    tree.close()
