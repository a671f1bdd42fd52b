"""What an engine reads from: any box of the voxels that a dataset will have, from the planes of a stack.

    source = stack_source(stack, options.source, options.dtype, options.segmentation)   # picklable; opens nothing yet
    source.bounds                 Box of the finest scale: start = voxel_offset, from the corner of the whole stack
    source.size, .num_channels, .dtype
    source.read(box)              "(C, Z, Y, X)" of a box inside bounds, C-contiguous; SourceError names the plane
    source.read_bytes(box)        the most that read(box) holds beside its result
    source.decoded_bytes(box)     what read(box) reads or decodes: compare plans with it
    source.grain                  x, y, z: a box that is cut finer than this decodes something twice
    source.whole_planes           reading a few rows decodes whole planes: read each plane once, or use a scratch file
    source.part(box)              the same source with only the planes that boxes inside `box` need: what a task carries

Boxes are in voxels of the dataset, counted as its `voxel_offset` is: in `bounds`, not from 0. The levels of a cropped
dataset lie on the grid of the uncropped one: `bounds.covered_by(factor)` are the bounds of a level, and
`view.completed` makes whole the first cells that a crop cuts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.stacks.acquisition import Stack
from converter.stacks.data_type import becomes, converted, stored_type
from converter.stacks.plane import Plane, PlanePlace
from converter.stacks.planes import read_rows
from converter.stacks.source_options import SourceOptions
from converter.stacks.stored import Part
from converter.stacks.view import View
from converter.stacks.window import WINDOW_BYTES, WINDOWED_TYPES, Window, windowed
from precomputed_server.errors import InvalidInput, SourceError
from precomputed_server.format.geometry import Box, Vector

Array = NDArray[Any]


@dataclass(frozen=True)
class StackSource:
    """The voxels of a dataset, read from a stack through a view.

    `dtype` is what they become: by the window if there is one, else exactly (see `data_type.converted`).
    `first_plane` is the z of the stack that `stack.planes` begins with, `depth` how many z the whole stack has.
    """

    stack: Stack
    view: View
    dtype: np.dtype[Any]
    window: Window | None = None
    first_plane: int = 0
    depth: int | None = None

    @property
    def stack_size(self) -> Vector:
        """The extent of the whole stack x, y, z in voxels."""
        x, y, z = self.stack.size
        return x, y, z if self.depth is None else self.depth

    @property
    def bounds(self) -> Box:
        """The voxels that the dataset has; the start is its `voxel_offset`. Raises InvalidInput for an empty crop."""
        return self.view.bounds(self.stack_size)

    @property
    def size(self) -> Vector:
        """The extent x, y, z of the dataset in voxels."""
        return self.bounds.size

    @property
    def num_channels(self) -> int:
        """How many channels each voxel has."""
        return self.stack.num_channels

    def read(self, box: Box) -> Array:
        """The voxels "(C, Z, Y, X)" of a box within `bounds`; raises SourceError or InvalidInput naming the plane."""
        x, y, z = box.size
        voxels = np.empty((self.num_channels, z, y, x), self.dtype)
        target = self.view.as_stack(voxels)
        inside = self._stack_box(box)
        (x0, y0, _), (x1, y1, _) = inside.start, inside.stop
        planes = self._planes(inside)
        bands = read_rows([plane for _, _, plane in planes], y0, y1, (x0, x1))
        for depth, channel, plane in planes:
            # not zip, which would hold the last band while the next is read
            self._place(next(bands), plane, target[channel : channel + plane.shape[0], depth])
        return voxels

    def read_readable(self, box: Box) -> tuple[Array, dict[PlanePlace, str]]:
        """The voxels "(C, Z, Y, X)" of a box within `bounds`, 0 where a plane cannot be read, and why each cannot."""
        x, y, z = box.size
        voxels = np.zeros((self.num_channels, z, y, x), self.dtype)
        target = self.view.as_stack(voxels)
        inside = self._stack_box(box)
        (x0, y0, low), (x1, y1, _) = inside.start, inside.stop
        lost = {}
        for depth, channel, plane in self._planes(inside):
            try:
                (rows,) = read_rows([plane], y0, y1, (x0, x1))
            except SourceError as error:
                lost[self._place_of(low + depth), channel] = str(error)
            else:
                self._place(rows, plane, target[channel : channel + plane.shape[0], depth])
        return voxels, lost

    def read_bytes(self, box: Box) -> int:
        """The most that `read(box)` holds beside its result, in bytes."""
        inside = self._stack_box(box)
        return max((self._plane_bytes(plane, inside) for _, _, plane in self._planes(inside)), default=0)

    def decoded_bytes(self, box: Box) -> int:
        """The bytes of the rows, strips or tiles that `read(box)` goes through."""
        inside = self._stack_box(box)
        return sum(_gone_through(plane, inside) for _, _, plane in self._planes(inside))

    @property
    def grain(self) -> Vector:
        """The largest box x, y, z, counted from a corner of the stack, of which a part costs as much as the whole."""
        planes = [plane for pages in self.stack.planes for plane in pages]
        columns = max(plane.segment_columns for plane in planes)
        return self.view.permuted((columns, max(plane.segment_rows for plane in planes), 1))

    @property
    def plane_axis(self) -> int:
        """The axis x, y, z = 0, 1, 2 of the dataset across which the planes of the stack lie."""
        return self.view.order.index(2)

    @property
    def unreadable(self) -> dict[PlanePlace, str]:
        """Why planes cannot be read, as far as that is known."""
        listed = enumerate(self.stack.planes, self.first_plane)
        return {
            (self._place_of(z), channel): plane.unreadable
            for z, pages in listed
            for channel, plane in _with_channels(pages)
            if plane.unreadable
        }

    def without(self, reasons: Mapping[PlanePlace, str]) -> StackSource:
        """The same source, of which these planes cannot be read, and why."""
        planes = list(self.stack.planes)
        for (place, lost), reason in reasons.items():
            at = self._place_of(place) - self.first_plane
            planes[at] = tuple(
                replace(plane, unreadable=reason) if channel == lost else plane
                for channel, plane in _with_channels(planes[at])
            )
        return replace(self, stack=replace(self.stack, planes=tuple(planes)))

    @property
    def segment_rows(self) -> int:
        """How many rows of the stack have to be decoded to read one: 1 where they lie uncompressed."""
        return self.stack.segment_rows

    @property
    def whole_planes(self) -> bool:
        """Whether there are planes of which a few rows take as long as all of them."""
        return any(plane.is_whole for pages in self.stack.planes for plane in pages)

    def part(self, box: Box) -> StackSource:
        """The same source with only those planes that hold voxels of `box`: small enough to send to a worker."""
        inside = self._stack_box(box)
        low, high = inside.start[2], inside.stop[2]
        kept = self.stack.planes[low - self.first_plane : high - self.first_plane]
        return replace(self, stack=replace(self.stack, planes=kept), first_plane=low, depth=self.stack_size[2])

    def _place_of(self, z: int) -> int:
        """The place of plane z of the stack, and the z of the plane at that place."""
        return self.stack_size[2] - 1 - z if self.view.flipped[self.plane_axis] else z

    def _stack_box(self, box: Box) -> Box:
        return self.view.stack_box(box, self.stack_size)

    def _planes(self, inside: Box) -> list[tuple[int, int, Plane]]:
        """The planes of a box of the stack, each with its z in the box and its first channel."""
        planes: list[tuple[int, int, Plane]] = []
        low = inside.start[2]
        assert low >= self.first_plane, "a box beyond the part that this source is"
        for z in range(low, inside.stop[2]):
            listed = _with_channels(self.stack.planes[z - self.first_plane])
            planes += [(z - low, channel, plane) for channel, plane in listed]
        return planes

    def _place(self, rows: Array, plane: Plane, target: Array) -> None:
        if self.window is not None:
            target[...] = windowed(rows, self.window, self.dtype)
        elif plane.dtype.newbyteorder("=") == self.dtype:
            target[...] = rows
        else:
            target[...] = converted(rows, self.dtype, plane.name)

    def _plane_bytes(self, plane: Plane, inside: Box) -> int:
        """The most that reading the rows of one plane and converting them holds."""
        part = _part(plane, inside)
        pixels = plane.shape[0] * (part.stop - part.start) * (part.right - part.left)
        converting = pixels * self.dtype.itemsize + (WINDOW_BYTES if self.window is not None else 0)
        if self.window is None and plane.dtype.newbyteorder("=") == self.dtype:
            converting = 0
        if plane.offset is not None:
            return part.read_bytes + converting
        band = plane.file_samples * (part.stop - part.start) * (part.right - part.left) * plane.dtype.itemsize
        return band * (1 if plane.samples is None else 2) + plane.segment_bytes + converting


def stack_source(stack: Stack, options: SourceOptions, dtype: str | None, segmentation: bool) -> StackSource:
    """The source of a dataset of `stack`; `dtype` is what was asked for.

    Raises InvalidInput for a data type that the voxels cannot become, and for a crop beyond the stack.
    """
    if options.window is None:
        if dtype in WINDOWED_TYPES and stack.dtype.kind in "uif" and dtype not in becomes(stack.dtype):
            raise InvalidInput(
                f"{stack.dtype.name} planes cannot become {dtype} as they are; add --window LO,HI, the values that "
                f"become 0 and {np.iinfo(dtype).max}."
            )
        chosen = stored_type(stack.dtype, dtype, segmentation)
    else:
        chosen = _windowed_type(stack, dtype, segmentation)
    source = StackSource(stack, options.view, chosen, options.window)
    _ = source.bounds  # checks the crop
    return source


def _windowed_type(stack: Stack, dtype: str | None, segmentation: bool) -> np.dtype[Any]:
    if dtype not in WINDOWED_TYPES:
        raise InvalidInput(f"--window fits values into fewer bits; add --dtype {' or '.join(WINDOWED_TYPES)}.")
    if segmentation:
        raise InvalidInput("Labels are names, which no --window may change; leave --segmentation or --window out.")
    if stack.dtype.kind not in "uifb":
        raise InvalidInput(f"The planes are {stack.dtype.name}, which no --window maps; save them as real numbers.")
    return np.dtype(dtype)


def _with_channels(pages: Sequence[Plane]) -> Iterator[tuple[int, Plane]]:
    """The planes of one z, each with its first channel."""
    channel = 0
    for plane in pages:
        yield channel, plane
        channel += plane.shape[0]


def _part(plane: Plane, inside: Box) -> Part:
    return Part(plane, inside.start[1], inside.stop[1], inside.start[0], inside.stop[0])


def _gone_through(plane: Plane, inside: Box) -> int:
    (x0, y0, _), (x1, y1, _) = inside.start, inside.stop
    high, wide = plane.segment_rows, plane.segment_columns
    rows = min(-(-y1 // high) * high, plane.shape[1]) - y0 // high * high
    columns = min(-(-x1 // wide) * wide, plane.shape[2]) - x0 // wide * wide
    return plane.file_samples * rows * columns * plane.dtype.itemsize
