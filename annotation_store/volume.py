"""The volume that annotations on a disk are drawn over."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from precomputed_server.errors import InvalidInput, Unreadable
from precomputed_server.format.info import VolumeInfo
from precomputed_server.format.names import RECORD


def volume_of(dataset: Path) -> VolumeInfo:
    """The `info` of a dataset; of planes that are served as they are what its record says of them.

    Raises InvalidInput where there is no dataset, Unreadable.
    """
    if (dataset / "info").is_file():
        return VolumeInfo.from_bytes((dataset / "info").read_bytes())
    with contextlib.suppress(OSError, ValueError, RecursionError, LookupError, TypeError, Unreadable):
        return VolumeInfo.from_json(json.loads((dataset / RECORD).read_bytes())["stack"]["info"])
    raise InvalidInput(f"{dataset} is no dataset: it has no info file. Name the directory of one.")
