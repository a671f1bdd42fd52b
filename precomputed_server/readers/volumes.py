"""Which volume a path belongs to: `info` files, parsed once and read again when they change."""

from __future__ import annotations

import json
from dataclasses import dataclass

from precomputed_server.errors import Unreadable
from precomputed_server.files import Fingerprint, Tree
from precomputed_server.format.info import ScaleInfo, VolumeInfo, is_volume
from precomputed_server.readers.base import ServedStack, Stacks
from precomputed_server.readers.indices import Indices
from precomputed_server.readers.stored import open_stored
from precomputed_server.recent import Recent

_MAXIMUM_INFO_BYTES = 16 << 20
_REMEMBERED = 4096
_INDEX_BYTES = 64 << 20


@dataclass(frozen=True)
class Volume:
    """A directory whose `info` has scales; `path` is relative to the root, "" when the root is one itself.

    A `stack` has no such file; its `info` is made of what its planes say.
    """

    path: str
    info: VolumeInfo
    fingerprint: Fingerprint
    stack: ServedStack | None = None


class Volumes:
    """The volumes of a tree, remembered by the fingerprint of their `info`; `indices` says where their chunks lie.

    `stacks` are those among them that have no `info`, because they are served as they are.
    """

    def __init__(self, tree: Tree, stacks: Stacks | None = None, index_bytes: int = _INDEX_BYTES) -> None:
        """`index_bytes` is how much of headers and indices is kept."""
        self._tree = tree
        self._stacks = stacks
        self.indices = Indices(index_bytes)
        self._known: Recent[str, tuple[Fingerprint, VolumeInfo | None]] = Recent(_REMEMBERED)

    def at(self, path: str, *, cached: bool = False) -> Volume | None:
        """The volume whose directory is `path`, or None; raises BlockingIOError when `cached` and not in memory.

        An `info` of something else (a mesh, a collection of annotations) is no volume; one that is damaged raises
        Unreadable, because a dataset that seems absent is drawn as empty and its annotations as none.
        """
        try:
            stored = open_stored(self._tree, f"{path}/info" if path else "info", cached=cached)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return self._stack(path, cached=cached)
        with stored:
            known = self._known.get(path)
            if known is None or known[0] != stored.fingerprint:
                if stored.length > _MAXIMUM_INFO_BYTES:
                    raise Unreadable("info is too long to be that of a volume.")
                known = (stored.fingerprint, _parse(bytes(stored.read(cached=cached))))
                self._known.put(path, known)
        return None if known[1] is None else Volume(path, known[1], known[0])

    def scale_at(self, directory: str, *, cached: bool = False) -> tuple[Volume, ScaleInfo] | None:
        """The volume and scale whose chunks lie in `directory`, or None; the scale's key may have several segments."""
        parts = directory.split("/")
        for split in range(len(parts) - 1, -1, -1):
            volume = self.at("/".join(parts[:split]), cached=cached)
            if volume is not None:
                key = "/".join(parts[split:])
                scale = volume.info.scale(key)
                if scale is None and volume.stack is not None:
                    volume.stack.check_absent(key)
                return None if scale is None else (volume, scale)
        return None

    def _stack(self, path: str, *, cached: bool) -> Volume | None:
        found = None if self._stacks is None else self._stacks.at(path, cached=cached)
        return None if found is None else Volume(path, found.info, found.fingerprint, found)


def _parse(text: bytes) -> VolumeInfo | None:
    """The volume, None for the `info` of something else; raises Unreadable for what may be a damaged volume's."""
    try:
        members = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable("info is not JSON.") from error
    if isinstance(members, dict) and not is_volume(members):
        return None
    return VolumeInfo.from_json(members)
