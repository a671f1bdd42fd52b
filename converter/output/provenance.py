"""What a dataset tells of how it was made: for this program, for people, and as cloud-volume reads it."""

from __future__ import annotations

import getpass
import json
import os
import platform
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np

import precomputed_server
from converter.options import ConvertOptions
from converter.output.corrections import recorded_channels
from converter.stacks.channels import Channel
from converter.stacks.plane import FileVersion, PlanePlace
from converter.stacks.voxel_size import VoxelSize


@dataclass(frozen=True)
class Origin:
    """What was asked of a conversion and what it was made of: `files` are those of the source by their paths.

    `source_version` tells whether the source is still the same.
    """

    sources: tuple[str, ...]
    options: ConvertOptions
    files: Mapping[str, FileVersion | None]
    voxel_size: VoxelSize
    began: float
    source_version: str = ""

    @property
    def request(self) -> dict[str, Any]:
        """What tells one conversion from another."""
        return request(self.sources, self.options)


def request(sources: Sequence[str], options: ConvertOptions) -> dict[str, Any]:
    """What tells one conversion from another: where its source is, and what decides about the result."""
    return {"source": [os.path.abspath(source) for source in sources], "options": options.to_json()}


def conversion_record(origin: Origin, written: Mapping[str, Any], lost: Mapping[PlanePlace, str]) -> str:
    """The text of `conversion.json`, by which the next conversion knows what this one has `written`.

    That are its scales, the files of its format, and the checksums of others. `lost` says which planes were left
    out, by their place, and `on_error` what that means; checking the dataset does the same.
    """
    written = {
        **written,
        "on_error": origin.options.on_error,
        "lost": [[*place, reason] for place, reason in lost.items()],
    }
    made_of = {**origin.request, "source_version": origin.source_version}
    return json_text({"format": 1, **written, **made_of, "voxel_size": origin.voxel_size.to_json()})


def dataset_record(
    origin: Origin, title: str, channels: Sequence[Channel], known: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The members of `dataset.json`: those that are `known`, with what the conversion has made true."""
    fresh = {"format": 1, "id": uuid.uuid4().hex, "title": title}
    record = {**(fresh if known is None else known), "voxel_size": origin.voxel_size.to_json()}
    if known is None or recorded_channels(known) != tuple(channels):
        record["channels"] = [channel.to_json() for channel in channels]
    record.pop("offset", None)  # which speaks of scales that are replaced
    return record


def provenance(origin: Origin, unreadable: Sequence[str]) -> str:
    """The text of `provenance.json`: the source's files with sizes and times, the command, versions and times."""
    files = [
        {"path": path, **({} if file is None else {"bytes": file.size, "modified": modified(file)})}
        for path, file in origin.files.items()
    ]
    return json_text(
        {
            "format": 1,
            "command": sys.argv,
            **origin.request,
            "voxel_size": origin.voxel_size.to_json(),
            "versions": _versions(),
            "began": _time(origin.began),
            "ended": _time(time.time()),
            "unreadable": list(unreadable),
            "files": files,
        }
    )


def modified(file: FileVersion) -> str:
    """When a file of the source was modified, as `provenance.json` has it."""
    return _time(file.mtime_ns / 1e9)


def cloud_volume_provenance(origin: Origin) -> str:
    """The text of `provenance`.

    Source: https://github.com/seung-lab/cloud-volume/blob/master/cloudvolume/provenance.py
    """
    step = {
        "method": {"task": "precomputed convert", **origin.request["options"], "versions": _versions()},
        "by": _user(),
        "date": _time(time.time()),
    }
    members = {"description": "", "owners": [], "processing": [step], "sources": origin.request["source"]}
    return json_text(members)


def _versions() -> dict[str, str]:
    return {
        "precomputed-server": precomputed_server.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "tifffile": version("tifffile"),
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user without a name
        return str(os.getuid())


def json_text(members: Mapping[str, Any]) -> str:
    """As every file of JSON is written here."""
    return json.dumps(members, indent=2) + "\n"


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
