"""What is kept of served stacks in the state directory: headers of planes, and coarser levels.

`stacks/KEY/headers.json` are the headers of a dataset's planes, `stacks/KEY/VERSION-N/` the levels from the N-th on of
the planes in that state: what a conversion writes, `info` last. `stacks/KEY/wanted` names the levels that somebody
looks at and that are still to be made, `used` has the time at which somebody looked last.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

from converter.conversion import Conversion
from converter.served.headers import Headers
from converter.served.record import Published
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.local_state import WANTED
from precomputed_server.writing import replace_file

USED = "used"
_HEADERS = "headers.json"
_USED_S = 20.0
"""How often at most it is noted that a stack is used."""


@dataclass(frozen=True)
class StackCache:
    """The directory of one dataset's stack; `directory` is that of all of them."""

    directory: Path
    key: str

    @classmethod
    def of(cls, directory: Path, dataset: str) -> StackCache:
        """The cache of the dataset at that path beneath the root."""
        return cls(directory, hashlib.sha256(dataset.encode(errors="surrogateescape")).hexdigest()[:16])

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.directory / self.key

    def headers(self, published: Published, version: str, root: str) -> Headers | None:
        """The headers that were read for the same record when the files were in that state, if they were."""
        with contextlib.suppress(OSError, LookupError, TypeError, ValueError):
            members = json.loads((self.path / _HEADERS).read_bytes())
            if members["published"] == published.to_json() and members["version"] == version:
                return Headers.from_json(members, root)
        return None

    def keep_headers(self, headers: Headers, published: Published, root: str) -> None:
        """Keep them for other processes; not durable."""
        self.path.mkdir(parents=True, exist_ok=True)
        members = {**headers.to_json(root), "published": published.to_json()}
        replace_file(self.path / _HEADERS, json.dumps(members).encode(errors="surrogateescape"), durable=False)

    def levels(self, name: str) -> Path:
        """The directory of coarser levels of that name."""
        return self.path / name

    def has_levels(self, name: str) -> bool:
        """Whether they are all made."""
        return (self.levels(name) / "info").exists()

    def note_use(self) -> None:
        """Say that somebody looks at the stack: what nobody has looked at for longest is removed first."""
        path = self.path / USED
        with contextlib.suppress(OSError):
            if not path.exists() or time.time() - path.stat().st_mtime > _USED_S:
                self.path.mkdir(parents=True, exist_ok=True)
                path.touch()

    def want(self, dataset: str, name: str, size: int) -> None:
        """Ask for the levels of that name, of `size` bytes, of the dataset at that path."""
        path = self.path / WANTED
        asked = json.dumps({"dataset": dataset, "levels": name, "bytes": size}).encode()
        with contextlib.suppress(OSError):
            if not path.exists() or path.read_bytes() != asked:
                self.path.mkdir(parents=True, exist_ok=True)
                replace_file(path, asked, durable=False)

    def last_used(self) -> float:
        """When somebody looked at the stack last; 0 when nobody did."""
        with contextlib.suppress(OSError):
            return os.stat(self.path / USED).st_mtime
        return 0.0


def first_kept(info: VolumeInfo, bound: int) -> int | None:
    """The finest level, from 1 on, with which the coarser ones take at most `bound` bytes; None when none does."""
    kept = None
    for level in range(len(info.scales) - 1, 0, -1):
        if levels_bytes(info, level) > bound:
            break
        kept = level
    return kept


def levels_bytes(info: VolumeInfo, first: int) -> int:
    """The bytes of the levels from `first` on as they are kept."""
    return sum(info.array_bytes(scale.bounds) for scale in info.scales[first:])


def levels_name(conversion: Conversion, first: int) -> str:
    """The name of coarser levels: the same for the same voxels of the same files."""
    options = conversion.options
    made = [
        conversion.origin.source_version,
        [_shape(scale) for scale in conversion.scales],
        options.segmentation,
        options.method,
        conversion.volume.dtype.str,
    ]
    return f"{hashlib.sha256(json.dumps(made).encode()).hexdigest()[:24]}-{first}"


def _shape(scale: ScaleInfo) -> list[object]:
    return [scale.key, scale.size, scale.voxel_offset, scale.chunk_sizes]
