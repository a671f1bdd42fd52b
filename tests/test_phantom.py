"""The made-up tissue: its annotations lie on what it shows, and a seed always gives the same tissue."""

from __future__ import annotations

import re
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from precomputed_server.phantom import Tissue, tissue

SHAPE = (40, 160, 200)


@pytest.fixture(scope="module")
def sample() -> Tissue:
    return tissue(SHAPE, seed=3)


def brightness(plane: NDArray[np.uint16], positions: list[list[float]]) -> NDArray[Any]:
    """The voxels of "(Z, Y, X)" in which the positions x, y, z lie."""
    x, y, z = np.floor(np.array(positions)).astype(int).T
    return np.asarray(plane[z, y, x], float)


def test_planes_are_three_channels_of_a_12_bit_camera(sample: Tissue) -> None:
    assert sample.planes.shape == (3, *SHAPE)
    assert sample.planes.dtype == np.uint16
    assert sample.planes.max() <= 4095


def test_centroids_lie_on_bright_cells(sample: Tissue) -> None:
    for anntype, channel in (("neuron", 0), ("glia", 0), ("glia", 1)):
        points = [item["point"] for item in sample.annotations["centroids"] if item["anntype"] == anntype]
        bright = np.percentile(sample.planes[channel], 97)
        assert len(points) >= 3
        assert np.all(brightness(sample.planes[channel], points) > bright)


def test_fibers_lie_on_bright_fibres(sample: Tissue) -> None:
    fibers = sample.annotations["fibers"]
    assert len(fibers) >= 3
    bright = np.percentile(sample.planes[2], 97)
    for fiber in fibers:
        assert np.median(brightness(sample.planes[2], fiber["points"])) > bright
        steps = np.diff(np.array(fiber["points"]), axis=0) * (1.8, 1.8, 2.0)
        assert fiber["length"] == pytest.approx(np.sum(np.linalg.norm(steps, axis=1)), rel=1e-3)


def test_contours_lie_in_the_slice_of_their_leaf_around_bright_cells(sample: Tissue) -> None:
    leaves = {leaf: items for leaf, items in sample.annotations.items() if leaf.startswith("z-")}
    assert sum(len(items) for items in leaves.values()) >= 10
    bright = np.percentile(sample.planes[0], 95)
    for leaf, items in leaves.items():
        for item in items:
            corners = np.array(item["points"])
            assert set(np.floor(corners[:, 2])) == {int(leaf[2:])}
            assert brightness(sample.planes[0], [corners.mean(axis=0).tolist()]) > bright


def test_annotations_are_what_an_annotation_file_holds(sample: Tissue) -> None:
    items = [item for leaf in sample.annotations.values() for item in leaf]
    assert set(sample.annotations) >= {"centroids", "fibers"}
    assert {item["type"] for item in items} == {"point", "linestring", "polygon"}
    assert len({item["id"] for item in items}) == len(items)
    for item in items:
        assert re.fullmatch("[0-9a-f]{40}", item["id"])
        assert item["reviewed"] is False
        assert item["visited"] is False
        positions = np.array(item.get("points") or [item["point"]])
        assert np.all(positions >= 0)
        assert np.all(positions < SHAPE[::-1])


def test_a_seed_decides_everything(sample: Tissue) -> None:
    again, other = tissue(SHAPE, seed=3), tissue(SHAPE, seed=4)
    assert np.array_equal(again.planes, sample.planes)
    assert again.annotations == sample.annotations
    assert not np.array_equal(other.planes, sample.planes)


def test_the_demo_does_not_wait_for_its_tissue() -> None:
    start = time.process_time()
    assert tissue().planes.shape == (3, 96, 512, 512)
    assert time.process_time() - start < 10
