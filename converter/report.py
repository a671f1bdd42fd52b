"""What a finished conversion says of itself: lines for people, figures for programs. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from converter.options import Summary
from converter.stacks.voxel_size import AXES, CORRECTED, VoxelSize


def headline(summary: Summary) -> str:
    """`/data/brain: 4 levels, 120 chunks, 12.3 MB in 4.0 s (210 MB/s)`: what was written, and voxels read a second."""
    levels = counted(len(summary.info.scales), "level")
    if summary.chunks == 0:
        return f"{summary.destination}: finished the conversion that was interrupted, {levels}"
    return (
        f"{summary.destination}: {levels}, {counted(summary.chunks, 'chunk')}, {_size(summary.bytes)} "
        f"in {summary.seconds:.1f} s ({summary.rate / 1e6:.0f} MB/s)"
    )


def summary_lines(summary: Summary) -> list[str]:
    """The end of a conversion as a person reads it: what was written, each level, and the memory that it took."""
    rows = [
        [level.key, " × ".join(map(str, level.size)), counted(level.chunks, "chunk"), _size(level.bytes)]
        for level in summary.levels
    ]
    lines = [headline(summary), *(f"  {row}" for row in table(rows, right=(2, 3)))]
    lines += _corrections(summary.voxel_size)
    if summary.peak_memory:
        lines.append(f"Memory: {_size(summary.peak_memory)} at most, {_counted_memory(summary)}")
    return [*lines, f"Look at it: precomputed serve {shlex.quote(str(summary.destination.parent))}"]


def _counted_memory(summary: Summary) -> str:
    if summary.cluster is None:
        return "all processes of this machine together"
    return f"this process alone; what the workers of {summary.cluster} took is not counted"


def _corrections(size: VoxelSize) -> list[str]:
    rows = zip(AXES, size.micrometres, size.source, strict=True)
    kept = [f"{axis} = {float(edge):g} µm" for axis, edge, source in rows if source == CORRECTED]
    return [f"Voxel size: {', '.join(kept)} as corrected before; --voxel-size gives another"] if kept else []


def figures(summary: Summary) -> dict[str, Any]:
    """The same as members of an event: sizes in bytes, times in seconds."""
    return {
        "levels": [level.to_json() for level in summary.levels],
        "chunks": summary.chunks,
        "bytes": summary.bytes,
        "source_bytes": summary.source_bytes,
        "seconds": round(summary.seconds, 3),
        "bytes_per_second": round(summary.rate),
        "peak_memory": summary.peak_memory,
        "unreadable": list(summary.unreadable),
        "warnings": list(summary.warnings),
    }


def table(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Lines whose columns are as wide as their longest cell; those in `right` end at the same place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [">" if at in right else "<" for at in range(len(widths))]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)).rstrip()
        for row in rows
    ]


def counted(number: int, name: str) -> str:
    """`1 chunk`, `2 chunks`."""
    return f"{number} {name}" + ("" if number == 1 else "s")


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 10**10 else f"{number / 1e6:.1f} MB"
