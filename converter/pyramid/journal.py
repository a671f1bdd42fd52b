"""Which tasks of a conversion are done: one file a task, written by whoever did it, once its chunks are on disk.

A conversion that was killed reads them and goes on with the others. They also hold what the end of the conversion
needs: the size and checksum of every file, and what the task learned of its voxels.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.stacks.plane import PlanePlace
from precomputed_server.format.geometry import Vector
from precomputed_server.writing import replace_file

ENTRY = np.dtype([("cell", "<u8"), ("size", "<u8"), ("crc32", "<u4"), ("adler32", "<u4")])
"""A stored chunk: the number of its cell in C order (x fastest), and the size, CRC-32 and Adler-32 of its file.

Two sums, because a gzip file ends with the CRC-32 of what is in it: where that could not be made smaller, any two such
files of one size have the same CRC-32 themselves.
"""

_FORMAT = 2

Entries = NDArray[Any]


@dataclass(frozen=True)
class Done:
    """What a task did: `entries[level]` has a row of ENTRY for each chunk that it stored.

    `source_bytes` are those of the voxels that it read, `channels` what `statistics.Channel.to_json` says of them,
    `lost` which planes could not be read, and why. Those that are `known` were not tried.
    """

    source_bytes: int = 0
    entries: Mapping[int, Entries] = field(default_factory=dict)
    channels: tuple[Mapping[str, Any], ...] = ()
    labels: tuple[int, ...] = ()
    lost: Mapping[PlanePlace, str] = field(default_factory=dict)
    known: tuple[PlanePlace, ...] = ()

    @property
    def chunks(self) -> int:
        """How many chunks were stored."""
        return sum(len(entries) for entries in self.entries.values())

    @property
    def bytes(self) -> int:
        """The bytes of their files."""
        return sum(int(entries["size"].sum()) for entries in self.entries.values())

    def to_json(self) -> dict[str, Any]:
        """The members of the task's file."""
        return {
            "format": _FORMAT,
            "source_bytes": self.source_bytes,
            "entries": {str(level): base64.b64encode(rows.tobytes()).decode() for level, rows in self.entries.items()},
            "channels": list(self.channels),
            "labels": list(self.labels),
            "lost": [[*place, reason] for place, reason in self.lost.items()],
            "known": list(self.known),
        }

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> Done:
        """Read them back; raises ValueError for what another version of this program wrote."""
        if members["format"] != _FORMAT:
            raise ValueError(f"The format {members['format']} of a task is not {_FORMAT}.")
        entries = {
            int(level): np.frombuffer(base64.b64decode(text), ENTRY) for level, text in members["entries"].items()
        }
        return cls(
            members["source_bytes"],
            entries,
            tuple(members["channels"]),
            tuple(members["labels"]),
            {(place, channel): reason for place, channel, reason in members["lost"]},
            tuple((place, channel) for place, channel in members["known"]),
        )


@dataclass(frozen=True)
class Journal:
    """The tasks that are done, in a directory of files named by their stage and first cell."""

    directory: Path

    def record(self, stage: int, cell: Vector, done: Done) -> None:
        """Say that a task is done; what it wrote is on disk by then."""
        replace_file(self._path(stage, cell), json.dumps(done.to_json()).encode(), durable=False)

    def find(self, stage: int, cell: Vector) -> Done | None:
        """What a task did, or None when it is still to do; a file that a crash of the machine tore does not count."""
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            return Done.from_json(json.loads(self._path(stage, cell).read_bytes()))
        return None

    def forget(self, stage: int, cell: Vector) -> None:
        """Have a task done again."""
        self._path(stage, cell).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[Done]:
        """What every task did, in the order of their names."""
        for path in sorted(self.directory.iterdir()):
            if not path.name.startswith("."):
                yield Done.from_json(json.loads(path.read_bytes()))

    def _path(self, stage: int, cell: Vector) -> Path:
        return self.directory / "-".join(map(str, (stage, *cell)))
