"""How annotation blocks and leaves are named: the only place that spells, parses or places them. Pure.

A block is a box of the volume whose annotations lie in one directory. With `block_info.csv` ("sizeX,sizeY,sizeZ" in
voxels) a client names a block by any voxel in it, `xXyYzZ`; three spellings of its directory are in use. Without that
file a dataset has one block, `x0y0z0`, beside directories that exist and are meant literally.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from precomputed_server.errors import InvalidInput, NotFound, Unreadable
from precomputed_server.files import join
from precomputed_server.format.geometry import Box, Vector, multiply
from precomputed_server.format.names import ANNOTATIONS, BLOCK_INFO

HISTORY = ".history"
ONLY_BLOCK = "x0y0z0"

_NAME = re.compile(r"[A-Za-z0-9_,-]{1,100}")
_VOXEL = re.compile(r"x(-?[0-9]{1,15})y(-?[0-9]{1,15})z(-?[0-9]{1,15})")
_COUNTED = re.compile(r"x([0-9]{4,})_y([0-9]{4,})(?:_z([0-9]{4,}))?")
_LITERAL = re.compile(r"b-?[0-9]+,-?[0-9]+,-?[0-9]+")
_SLICE = re.compile(r"z-([0-9]{4})")


def check_name(name: str, what: str) -> None:
    """Raise InvalidInput unless `name` can be that of a block or leaf; `what` says which of them it is."""
    if _NAME.fullmatch(name) is None:
        raise InvalidInput(f"A {what} name is 1 to 100 letters, digits, '_', ',' or '-'.")


def slice_digits(leaf: str) -> int | None:
    """The four digits of a `z-NNNN` leaf, None for other leaves."""
    match = _SLICE.fullmatch(leaf)
    return None if match is None else int(match[1])


def slice_leaf(slice_number: int) -> str:
    """The leaf of a slice: its number's last four digits."""
    return f"z-{slice_number % 10_000:04d}"


def parse_block_info(text: str) -> Vector:
    """The block size x, y, z in voxels; a heading line is passed over; raises Unreadable."""
    for line in text.splitlines()[:2]:
        numbers = [cell.strip() for cell in line.split(",")]
        if len(numbers) >= 3 and all(number.isascii() and number.isdigit() for number in numbers[:3]):
            size = (int(numbers[0]), int(numbers[1]), int(numbers[2]))
            if min(size) > 0:
                return size
    raise Unreadable(f"{ANNOTATIONS}/{BLOCK_INFO} must hold one line sizeX,sizeY,sizeZ of voxels from 1.")


@dataclass(frozen=True)
class Location:
    """Where a leaf lies once every symbolic link is followed: the identity of a leaf, whatever its URL."""

    directory: str
    leaf: str

    @property
    def path(self) -> str:
        """The file beneath the root."""
        return join(self.directory, f"{self.leaf}.json")

    @property
    def history(self) -> str:
        """The directory of the block's log and lock."""
        parent, _, block = self.directory.rpartition("/")
        return join(parent, f"{HISTORY}/{block or '.'}")

    def is_named(self, block: str, leaf: str) -> bool:
        """Whether these are its own names, and not those of a link to it."""
        return self.leaf == leaf and self.directory.rpartition("/")[2] == block


@dataclass(frozen=True)
class BlockOf:
    """A block that has a log: its directory's name, and its directory beneath the root."""

    name: str
    directory: str

    def location(self, leaf: str) -> Location:
        """A leaf of it."""
        return Location(self.directory, leaf)


@dataclass(frozen=True)
class Blocks:
    """The blocks of one dataset.

    `size` is what block_info.csv says, None without it; `existing` are the directories there are; `bounds` is the
    volume in voxels of its finest scale.
    """

    size: Vector | None
    existing: Collection[str]
    bounds: Box

    def directory(self, name: str) -> str:
        """The directory that a block's `name` in a URL means, whether it exists yet or not.

        Raises InvalidInput for a name that no block may have, NotFound for a voxel outside the volume.
        """
        check_name(name, "block")
        if _LITERAL.fullmatch(name) or (_COUNTED.fullmatch(name) and name in self.existing):
            return name
        if self.size is None:
            return self._without_size(name)
        index = self._index_of_name(name, self.size)
        if index is not None:
            return self._directory_of_index(index)
        if name not in self.existing:
            raise NotFound(
                f"There is no annotation block of that name; a block is named by a voxel in it, {ONLY_BLOCK}."
            )
        return name

    def at(self, voxel: Vector) -> str:
        """The directory of the block in which a voxel lies, whether it exists yet or not; raises NotFound."""
        if not self.bounds.contains(voxel):
            raise NotFound(self._outside(voxel))
        if self.size is None:
            return ONLY_BLOCK
        return self._directory_of_index((voxel[0] // self.size[0], voxel[1] // self.size[1], voxel[2] // self.size[2]))

    def index(self, directory: str) -> Vector | None:
        """The 0-based index x, y, z of a directory, None where its name is no index."""
        counted = _COUNTED.fullmatch(directory)
        if counted is not None:
            return int(counted[1]) - 1, int(counted[2]) - 1, int(counted[3] or 1) - 1
        match = _VOXEL.fullmatch(directory)
        return None if match is None else (int(match[1]), int(match[2]), int(match[3]))

    def name(self, directory: str) -> str:
        """The name in a URL that means this directory: where blocks have a size, a voxel of it for `x1y0z2`."""
        if self.size is None or _VOXEL.fullmatch(directory) is None:
            return directory
        start = self.box(directory).start
        return f"x{start[0]}y{start[1]}z{start[2]}"

    def box(self, directory: str) -> Box:
        """The voxels of a block's directory, clipped to the volume; the whole volume where its name says nothing."""
        index = self.index(directory)
        if self.size is None or index is None:
            return self.bounds
        start = multiply(index, self.size)
        stop = (start[0] + self.size[0], start[1] + self.size[1], start[2] + self.size[2])
        counted = _COUNTED.fullmatch(directory)
        if counted is not None and counted[3] is None:
            start, stop = (*start[:2], self.bounds.start[2]), (*stop[:2], self.bounds.stop[2])
        return Box(start, stop).clipped(self.bounds)

    def _without_size(self, name: str) -> str:
        if name in self.existing:
            return name
        voxel = _voxel(name)
        if voxel is not None:
            self._check_inside(voxel)
        return ONLY_BLOCK

    def _index_of_name(self, name: str, size: Vector) -> Vector | None:
        voxel = _voxel(name)
        if voxel is None:
            if self.index(name) is not None and min(self.box(name).size) <= 0:
                raise NotFound("That annotation block lies outside the volume.")
            return self.index(name)
        self._check_inside(voxel)
        return voxel[0] // size[0], voxel[1] // size[1], voxel[2] // size[2]

    def _check_inside(self, voxel: Vector) -> None:
        # A viewer that was just opened asks for voxel 0, 0, 0 wherever the volume lies.
        if voxel != (0, 0, 0) and not self.bounds.contains(voxel):
            raise NotFound(self._outside(voxel))

    def _outside(self, voxel: Vector) -> str:
        place = ", ".join(str(length) for length in voxel)
        return f"Voxel {place} lies outside the volume, which goes from {self.bounds.start} to {self.bounds.stop}."

    def _directory_of_index(self, index: Vector) -> str:
        spellings = _spellings(index)
        found = next((spelling for spelling in spellings if spelling in self.existing), None)
        if found is not None:
            return found
        counted = [match for name in self.existing if (match := _COUNTED.fullmatch(name))]
        if not counted or min(index) < 0:
            return spellings[-1]
        return spellings[0] if any(match[3] for match in counted) else spellings[1]


def _spellings(index: Vector) -> tuple[str, str, str]:
    x, y, z = index
    return f"x{x + 1:04d}_y{y + 1:04d}_z{z + 1:04d}", f"x{x + 1:04d}_y{y + 1:04d}", f"x{x}y{y}z{z}"


def _voxel(name: str) -> Vector | None:
    match = _VOXEL.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))
