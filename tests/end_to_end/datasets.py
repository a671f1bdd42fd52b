"""Datasets for readers other than our own: made in code, so that nothing outside the repository is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from converter import ConvertOptions, convert
from converter.stacks.voxel_size import parse_edges
from tests.data import phantom_stack
from tests.end_to_end.pyramid import pyramid

KEYS = ("1_1_1", "2_2_1", "4_4_2")
CUT_OUTS = {
    "1_1_1": (slice(10, 75), slice(60, 131), slice(13, 21)),
    "2_2_1": (slice(0, 38), slice(20, 66), slice(9, 21)),
    "4_4_2": (slice(3, 19), slice(1, 33), slice(0, 11)),
}
"""Boxes x, y, z of each level that cross the borders of chunks of CHUNK_SIZE and reach the volume's end."""
CHUNK_SIZE = (32, 32, 16)


def converted(directory: Path, storage: str, *, channels: int = 1) -> dict[str, NDArray[Any]]:
    """Convert a stack of random voxels into `directory` and return what each level must hold, "(C, Z, Y, X)"."""
    stack = directory.with_name(directory.name + "_stack")
    voxels = phantom_stack(stack, (21, 131, 75), "uint16", channels=channels)
    options = ConvertOptions(voxel_size=parse_edges("1,1,2"), chunk_size=CHUNK_SIZE, format=storage, levels=3)
    convert(str(stack), directory, options)
    return pyramid(voxels, KEYS)


def cut_out(level: NDArray[Any], box: tuple[slice, slice, slice]) -> NDArray[Any]:
    """The voxels of `box` x, y, z as readers index them: "(X, Y, Z, C)"."""
    x, y, z = box
    return level[:, z, y, x].transpose(3, 2, 1, 0)
