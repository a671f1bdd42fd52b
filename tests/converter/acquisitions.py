"""Acquisitions made in code: planes whose every value says which position, time, channel and z it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from converter.stacks.planes import read_rows
from converter.stacks.source import Stack, read_stack
from converter.stacks.source_options import source_options
from tests.converter.stacks import Array

ROWS, COLUMNS = 6, 8


def plane(p: int = 0, t: int = 0, c: int = 0, z: int = 0) -> Array:
    """A plane "(Y, X)" that no other place has."""
    number = ((p * 10 + t) * 10 + c) * 100 + z
    return np.arange(number * 3, number * 3 + ROWS * COLUMNS).reshape(ROWS, COLUMNS).astype(np.uint16)


def block(p: Iterable[int] = (0,), t: Iterable[int] = (0,), c: Iterable[int] = (0,), z: Iterable[int] = (0,)) -> Array:
    """Planes as "(P, T, C, Z, Y, X)"."""
    return np.array([[[[plane(a, b, d, e) for e in z] for d in c] for b in t] for a in p])


def stack(source: Path | Sequence[Path], **texts: Any) -> Stack:
    """The stack of a source, with the options as a person types them."""
    paths = [str(source)] if isinstance(source, Path) else [str(path) for path in source]
    return read_stack(paths, source_options(**texts))


def voxels(source: Path | Sequence[Path], **texts: Any) -> Array:
    """The voxels "(C, Z, Y, X)" that are read of a source."""
    chosen = stack(source, **texts)
    rows = chosen.planes[0][0].shape[1]
    return np.stack([np.concatenate(list(read_rows(pages, 0, rows))) for pages in chosen.planes], axis=1)


def ome_xml(pixels: Mapping[str, object], inside: str = "", uuid: str = "", name: str = "sample") -> str:
    """An OME-XML of one image of ROWS × COLUMNS."""
    sizes = {"SizeX": COLUMNS, "SizeY": ROWS, "SizeZ": 1, "SizeC": 1, "SizeT": 1, "Type": "uint16", **pixels}
    attributes = " ".join(f'{key}="{value}"' for key, value in {"DimensionOrder": "XYCZT", **sizes}.items())
    root = f' UUID="{uuid}"' if uuid else ""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"{root}>'
        f'<Image ID="Image:0" Name="{name}"><Pixels ID="Pixels:0" {attributes}>{inside}</Pixels></Image></OME>'
    )


def write_pages(path: Path, pages: Iterable[Array], description: str | None = None, **options: Any) -> Path:
    """Write pages, each with a directory of its own, and the description in the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tifffile.TiffWriter(path) as writer:
        for page in pages:
            writer.write(
                page, photometric="minisblack", metadata=None, contiguous=False, description=description, **options
            )
            description = None
    return path
