"""The chunk-name mapping: which stored file answers for `KEY/x0-x1_y0-y1_z0-z1`."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from precomputed_server.errors import Unreadable
from precomputed_server.files import Tree
from precomputed_server.format.geometry import Box
from precomputed_server.format.grid import is_cell
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.format.names import CHUNK_TIFF_SUFFIX, parse_chunk_name
from precomputed_server.readers.compression import inflate
from precomputed_server.readers.stored import IDENTITY, TIFF, Stored, find_stored, open_stored
from precomputed_server.readers.tiff import decode_tiff, open_tiff
from precomputed_server.readers.volumes import Volumes

OTHER_LAYOUTS = (("precomputed.blockfs", "BlockFS"), (".zarray", "zarr"))
"""Files that mark a scale stored in a layout that is not one file a chunk."""


@dataclass(frozen=True)
class Chunk:
    """One cell of a scale and the stored bytes that answer for it; `stored` is open."""

    info: VolumeInfo
    box: Box
    stored: Stored

    @property
    def array_bytes(self) -> int:
        """The length of the decoded array "(C, Z, Y, X)" in bytes."""
        return self.info.array_bytes(self.box)

    def decode(self, limit: int) -> bytes:
        """The chunk's bytes as the scale's encoding has them, at most `limit`; raises Unreadable."""
        if self.stored.encoding == IDENTITY:
            return self.stored.read()
        if max(self.array_bytes, self.stored.length) > limit:
            raise Unreadable(f"the chunk has more than the {limit} bytes that this server decodes (--max-decoded).")
        data = bytes(self.stored.read())
        if self.stored.encoding == TIFF:
            return decode_tiff(data, self.info, self.box)
        expected = self.stored.decoded_bytes
        decoded = inflate(self.stored.encoding, data, limit if expected is None else expected)
        if expected is not None and len(decoded) != expected:
            raise Unreadable("the chunk is shorter than its name says.")
        return decoded


def find_chunk(tree: Tree, volumes: Volumes, path: str, *, cached: bool = False) -> Chunk | None:
    """The chunk that `path` names, with or without `.tiff`, when it lies in a scale of a volume; else None.

    Raises Unreadable for what is there and cannot be a chunk, BlockingIOError as `Tree.open` does with `cached`.
    """
    directory, _, leaf = path.rpartition("/")
    name = leaf.removesuffix(CHUNK_TIFF_SUFFIX)
    box = parse_chunk_name(name)
    found = None if box is None else volumes.scale_at(directory, cached=cached)
    if box is None or found is None or not is_cell(found[1], box):
        return None
    volume, scale = found
    stem = f"{directory}/{name}"
    stored = find_stored(tree, stem, cached=cached)
    if stored is not None:
        return Chunk(volume.info, box, _checked(stored, volume.info, scale, box))
    try:
        return Chunk(volume.info, box, open_tiff(tree, stem + CHUNK_TIFF_SUFFIX, volume.info, box, cached=cached))
    except FileNotFoundError:
        _refuse_other_layouts(tree, directory, scale, cached=cached)
        return None


def _checked(stored: Stored, info: VolumeInfo, scale: ScaleInfo, box: Box) -> Stored:
    """Give a raw chunk the length that it must have; raises Unreadable when a plain file has another."""
    if scale.encoding != "raw":
        return stored
    expected = info.array_bytes(box)
    if stored.encoding == IDENTITY and stored.length != expected:
        stored.close()
        raise Unreadable(f"the chunk has {stored.length} bytes where info says {expected}.")
    return Stored(stored.descriptor, stored.fingerprint, stored.offset, stored.length, stored.encoding, expected)


def _refuse_other_layouts(tree: Tree, directory: str, scale: ScaleInfo, *, cached: bool) -> None:
    """Say that a scale is stored in a layout that this version cannot read, rather than let it look empty."""
    layouts = ["shards"] if scale.other.get("sharding") else []
    for marker, layout in OTHER_LAYOUTS:
        with contextlib.suppress(FileNotFoundError):
            open_stored(tree, f"{directory}/{marker}", cached=cached).close()
            layouts.append(layout)
    if layouts:
        raise Unreadable(f"this scale is stored as {layouts[0]}, of which single chunks cannot be read yet.")
