"""What precomputed-tif wrote of one stack in its three formats: the same bytes for every chunk of every level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from precomputed_server.files import Tree
from precomputed_server.format.grid import cell_box, cells
from precomputed_server.format.names import chunk_name
from precomputed_server.readers.chunks import find_chunk, read_box, scale_place
from precomputed_server.readers.volumes import Volumes

TREES = ("banana_tiff", "banana_blockfs", "banana_zarr")
LIMIT = 1 << 20


def chunk(tree: Tree, volumes: Volumes, path: str) -> bytes:
    found = find_chunk(tree, volumes, path)
    assert found is not None, path
    with found.stored:
        return found.decode(LIMIT)


def test_the_three_trees_are_the_same(shared_data: Path) -> None:
    tree = Tree(shared_data / "legacy")
    volumes = Volumes(tree)
    volume = volumes.at(TREES[0])
    assert volume is not None
    compared = 0
    for scale in volume.info.scales:
        for cell in cells(scale):
            name = f"{scale.key}/{chunk_name(cell_box(scale, cell))}"
            first, *others = (chunk(tree, volumes, f"{each}/{name}") for each in TREES)
            assert len(first) == volume.info.array_bytes(cell_box(scale, cell))
            assert all(other == first for other in others), name
            compared += 1
    assert compared == 36 + 9
    tree.close()


@pytest.mark.parametrize("name", TREES)
def test_the_finest_level_is_the_stack(name: str, shared_data: Path) -> None:
    stack = np.stack([tifffile.imread(path) for path in sorted((shared_data / "banana").glob("*.tif"))])
    tree = Tree(shared_data / "legacy")
    place = scale_place(tree, Volumes(tree), f"{name}/1_1_1")
    np.testing.assert_array_equal(read_box(place, place.scale.bounds)[0], stack)
    tree.close()
