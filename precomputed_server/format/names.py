"""How things are spelled in URLs and on disk: the only place that builds or parses the names of chunks and scales."""

from __future__ import annotations

import re

from precomputed_server.format.geometry import Box, Vector

_INTEGER = r"(0|-?[1-9][0-9]{0,17})"
_RANGE = f"{_INTEGER}-{_INTEGER}"
_CHUNK = re.compile(f"{_RANGE}_{_RANGE}_{_RANGE}")

CHUNK_TIFF_SUFFIX = ".tiff"

PRIVATE = ".precomputed"
"""The directory of a dataset that clients never see."""

RECORD = f"{PRIVATE}/dataset.json"
"""What people say of a dataset, and its id."""

CONVERSION = f"{PRIVATE}/conversion.json"
"""What the last conversion wrote, and from what."""

MANIFEST = f"{PRIVATE}/manifest"
"""The directory of the sizes and checksums of the chunks that the last conversion wrote."""

EVENTS = f"{PRIVATE}/events.jsonl"
"""What its conversions have told of themselves, a line an event."""

LOCK = f"{PRIVATE}/lock"
"""The file that is locked while a conversion writes."""

SWAP = f"{PRIVATE}/swap.json"
"""What a conversion is about to put in place: while it lies there `info` may be away."""

STATISTICS = "statistics.json"
"""Beside `info`: the range and histogram of each channel."""

PROVENANCE = "provenance.json"
"""Beside `info`: what a dataset was made of, with what, and when."""

CLOUD_VOLUME_PROVENANCE = "provenance"
"""The same as cloud-volume reads it."""

SESSION = "[A-Za-z0-9_-]{3,64}"
"""The names that sessions, and so the authors of edits, may have: a regular expression."""

ANNOTATIONS = "annotations"
VIEWER_PATH = "neuroglancer/v/1/"
"""Where the server's Neuroglancer lies: the client wants a path that ends in `/v/TOKEN/`."""

OPEN_PATH = "neuroglancer/open/"
"""Where the way there begins, with what a dataset has in the link."""

COLLECTIONS = f"{ANNOTATIONS}.precomputed"
"""The directory of a dataset in which its annotations are shown as Neuroglancer's collections."""

BLOCK_INFO = "block_info.csv"
"""In ANNOTATIONS: one line `sizeX,sizeY,sizeZ`, the voxels of an annotation block."""


def chunk_name(box: Box) -> str:
    """Spell a chunk: `0-64_0-64_0-25` for x, y and z."""
    (x0, y0, z0), (x1, y1, z1) = box.start, box.stop
    return f"{x0}-{x1}_{y0}-{y1}_{z0}-{z1}"


def parse_chunk_name(name: str) -> Box | None:
    """Read a canonically spelled chunk name (no leading zeros, no empty range); None for any other name."""
    match = _CHUNK.fullmatch(name)
    if match is None:
        return None
    x0, x1, y0, y1, z0, z1 = map(int, match.groups())
    if x0 >= x1 or y0 >= y1 or z0 >= z1:
        return None
    return Box((x0, y0, z0), (x1, y1, z1))


def scale_key(factor: Vector) -> str:
    """Spell a scale by its factor from full resolution: `2_2_1`."""
    return "_".join(str(step) for step in factor)
