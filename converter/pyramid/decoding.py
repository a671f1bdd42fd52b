"""Decoding compressed planes into scratch files, where a band of rows cannot be had without decoding whole planes.

It is done for the planes of one slab at a time, and each is decoded once.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converter.pyramid.journal import Done
from converter.stacks.plane import Plane
from converter.stacks.planes import read_rows
from converter.stacks.stack_source import StackSource
from precomputed_server.errors import SourceError
from precomputed_server.format.geometry import Box


@dataclass(frozen=True)
class DecodePlane:
    """Write the pixels of a plane to `path`, "(S, Y, X)" uncompressed in this machine's byte order.

    With `tolerant`, why a plane cannot be read is written beside it instead of raised.
    """

    plane: Plane
    path: Path
    tolerant: bool = False

    @property
    def reason(self) -> Path:
        """The file that says why the plane cannot be read."""
        return self.path.with_name(f"{self.path.name}.unreadable")

    def run(self) -> Done:
        """Do it, a group of strips or tiles at a time; doing it again gives the same file."""
        self.reason.unlink(missing_ok=True)
        partial = self.path.with_name(f"{self.path.name}.{secrets.token_hex(8)}")  # a lost worker may do it as well
        try:
            self._decode(partial)
        except SourceError as error:
            partial.unlink()
            if not self.tolerant:
                raise
            partial.write_text(str(error))
            os.replace(partial, self.reason)
        else:
            os.replace(partial, self.path)
        return Done()

    def decoded(self) -> Plane:
        """The plane as it lies at `path` once the task is done, or one that cannot be read."""
        dtype = self.plane.dtype.newbyteorder("=")
        reason = self.reason.read_text() if self.reason.exists() else ""
        shape = self.plane.shape
        return Plane(str(self.path), 0, shape, dtype, offset=0, file_samples=shape[0], unreadable=reason)

    def _decode(self, target: Path) -> None:
        samples, rows, _ = self.plane.shape
        height = rows if samples > 1 else self.plane.segment_rows
        with target.open("wb") as file:
            for start in range(0, rows, height):
                (band,) = read_rows([self.plane], start, min(start + height, rows))
                file.write(np.ascontiguousarray(band, band.dtype.newbyteorder("=")).data)


@dataclass(frozen=True)
class DecodedSlab:
    """Some planes of a source, and the tasks that decode them, in their order."""

    part: StackSource
    tasks: tuple[tuple[DecodePlane, ...], ...]

    def source(self) -> StackSource:
        """What reads the planes from where the tasks put them; they are done by now."""
        planes = tuple(tuple(task.decoded() for task in pages) for pages in self.tasks)
        return replace(self.part, stack=replace(self.part.stack, planes=planes))


def decode_bytes(source: StackSource) -> int:
    """The most that decoding one of the planes takes."""
    return max(_bytes(plane) for pages in source.stack.planes for plane in pages)


def decoded_slab(source: StackSource, box: Box, directory: Path, *, tolerant: bool) -> DecodedSlab:
    """What decodes the planes of `box` into `directory`; `tolerant`: those that cannot be read end nothing."""
    part = source.part(box)
    tasks = tuple(
        tuple(DecodePlane(plane, directory / f"{z}-{index}", tolerant) for index, plane in enumerate(pages))
        for z, pages in enumerate(part.stack.planes, part.first_plane)
    )
    return DecodedSlab(part, tasks)


def _bytes(plane: Plane) -> int:
    samples, rows, columns = plane.shape
    height = rows if samples > 1 else plane.segment_rows
    return 2 * plane.file_samples * height * columns * plane.dtype.itemsize + plane.segment_bytes
