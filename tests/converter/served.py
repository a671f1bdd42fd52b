"""Served stacks for tests: a tree, who serves it, and what clients get of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from converter.describe import Corrections
from converter.served.keeping import LevelKeeper
from converter.served.publish import dataset_of, publish
from converter.served.stacks import Keeping, PublishedStack, PublishedStacks
from converter.stacks.voxel_size import parse_edges
from precomputed_server.files import Tree
from precomputed_server.format.grid import cell_box, cells
from precomputed_server.format.names import chunk_name, parse_chunk_name
from precomputed_server.readers.base import Place
from precomputed_server.readers.chunks import find_chunk
from precomputed_server.readers.indices import Indices
from precomputed_server.readers.source import Directory
from precomputed_server.readers.volumes import Volume, Volumes
from tests.converter.stacks import read_info

LIMIT = 1 << 30
MEMORY = 256 << 20
ONE = Corrections(voxel_size=parse_edges("1,1,1"))
"""A voxel size of 1 µm, as the options of `stacks.options` have it."""


@dataclass(frozen=True)
class Serving:
    """A process that serves the stacks beneath `root`, and one that makes their coarser levels."""

    root: Path
    tree: Tree
    stacks: PublishedStacks
    keeper: LevelKeeper

    def volume(self, dataset: str) -> Volume | None:
        """The volume as it is known when everything that is remembered for a second has been forgotten."""
        self.stacks.forget()
        return Volumes(self.tree, self.stacks).at(dataset)

    def keys(self, dataset: str) -> list[str]:
        """The keys of the scales that `info` lists now."""
        volume = self.volume(dataset)
        assert volume is not None
        return [scale.key for scale in volume.info.scales]

    def chunk(self, path: str) -> bytes:
        """What a client gets."""
        chunk = find_chunk(self.tree, Volumes(self.tree, self.stacks), path)
        assert chunk is not None
        with chunk.stored:
            return chunk.decode(LIMIT)

    def read_known(self, stack: PublishedStack, name: str) -> bytes:
        """A chunk of full resolution as somebody gets it who knows the stack already."""
        box = parse_chunk_name(name)
        assert box is not None
        place = Place(Directory(self.tree, ""), stack.info, stack.info.scales[0], Indices(1 << 20))
        reader = stack.reader(place)
        stored = reader.stored(box)
        assert stored is not None
        with stored:
            return reader.decode(stored, box, LIMIT)

    def make_levels(self, dataset: str) -> bool:
        """Ask for the coarser levels of a dataset, and have them made; whether anything was done."""
        self.volume(dataset)
        return self.keeper.turn(lambda: False)

    def chunks(self, dataset: str) -> dict[str, bytes]:
        """Every chunk of every level that is listed, by the names that `files_of` a conversion to raw chunks has."""
        volume = self.volume(dataset)
        assert volume is not None
        boxes = ((scale, cell_box(scale, cell)) for scale in volume.info.scales for cell in cells(scale))
        names = [f"{scale.key}/{chunk_name(box)}" for scale, box in boxes]
        return {name: self.chunk(f"{dataset}/{name}") for name in names}


@contextlib.contextmanager
def serving(root: Path, memory: int = MEMORY, disk: int = 1 << 40) -> Iterator[Serving]:
    """Serve the stacks beneath `root`; what is kept of them lies beside it."""
    directory = root.parent / "state"
    directory.mkdir(exist_ok=True)
    tree = Tree(root)
    stacks = PublishedStacks(tree, root, Keeping(directory, memory, disk), lambda path: path.startswith("unasked"))
    try:
        yield Serving(root, tree, stacks, LevelKeeper(root, directory, disk, MEMORY))
    finally:
        stacks.close()
        tree.close()


def published(source: Path, to: Path | None = None, asked: Corrections = ONE, *, segmentation: bool = False) -> Path:
    """Have a stack served; returns the directory of the dataset."""
    return publish(source, to or dataset_of(source), asked, lambda path, info: None, segmentation or None).path


def converted(dataset: Path) -> dict[str, bytes]:
    """The chunks of a conversion to raw ones, by level and name."""
    keys = [scale["key"] for scale in read_info(dataset)["scales"]]
    return {f"{key}/{path.name}": path.read_bytes() for key in keys for path in sorted((dataset / key).iterdir())}
