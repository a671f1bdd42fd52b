"""Decoding compressed planes into scratch files, where a band of rows cannot be had without decoding whole planes.

It is done for the planes of one slab at a time, and each is decoded once.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from converter.pyramid.journal import Done
from converter.stacks.plane import Plane
from converter.stacks.planes import read_rows
from converter.stacks.stack_source import StackSource
from precomputed_server.format.geometry import Box


@dataclass(frozen=True)
class DecodePlane:
    """Write the pixels of a plane to `path`, "(S, Y, X)" uncompressed in this machine's byte order."""

    plane: Plane
    path: Path

    def run(self) -> Done:
        """Do it, a group of strips or tiles at a time; doing it again gives the same file."""
        partial = self.path.with_name(f"{self.path.name}.{secrets.token_hex(8)}")  # a lost worker may do it as well
        samples, rows, _ = self.plane.shape
        height = rows if samples > 1 else self.plane.segment_rows
        with partial.open("wb") as file:
            for start in range(0, rows, height):
                (band,) = read_rows([self.plane], start, min(start + height, rows))
                file.write(np.ascontiguousarray(band, band.dtype.newbyteorder("=")).data)
        os.replace(partial, self.path)
        return Done()


def decode_bytes(source: StackSource) -> int:
    """The most that decoding one of the planes takes."""
    return max(_bytes(plane) for pages in source.stack.planes for plane in pages)


def decoded(source: StackSource, box: Box, directory: Path) -> tuple[Sequence[DecodePlane], StackSource]:
    """The tasks that decode the planes of `box` into `directory`, and the source that then reads them from there."""
    part = source.part(box)
    tasks, planes = [], []
    for z, pages in enumerate(part.stack.planes, part.first_plane):
        places = [directory / f"{z}-{index}" for index in range(len(pages))]
        tasks += [DecodePlane(plane, place) for plane, place in zip(pages, places, strict=True)]
        planes.append(tuple(_stored(plane, place) for plane, place in zip(pages, places, strict=True)))
    return tasks, replace(part, stack=replace(part.stack, planes=tuple(planes)))


def _stored(plane: Plane, path: Path) -> Plane:
    dtype = plane.dtype.newbyteorder("=")
    return Plane(str(path), 0, plane.shape, dtype, offset=0, file_samples=plane.shape[0])


def _bytes(plane: Plane) -> int:
    samples, rows, columns = plane.shape
    height = rows if samples > 1 else plane.segment_rows
    return 2 * plane.file_samples * height * columns * plane.dtype.itemsize + plane.segment_bytes
