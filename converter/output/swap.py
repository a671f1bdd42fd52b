"""Putting a finished pyramid in the place of the old one, so that a kill at any point can be made good.

The plan is durable before the first rename. Every step leaves things as they are when it has been done before, so that
`roll_forward` ends a swap that was interrupted anywhere by doing all of it again. Readers see the old dataset, then
none (no `info`), then the new one.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converter.output.destination import Destination, read_json
from precomputed_server.errors import InvalidInput, Unreadable
from precomputed_server.format.info import VolumeInfo
from precomputed_server.format.names import CONVERSION
from precomputed_server.writing import remove_temporaries, replace_file, sync_filesystem

TransformAnnotations = Callable[[Path, VolumeInfo, VolumeInfo, str], None]
"""Moves a dataset's annotations from the old info's voxels to the new one's; doing it again under the same id of the
operation changes nothing."""


@dataclass(frozen=True)
class SwapPlan:
    """A swap: the staged scales that come, ours that go, and the files to write; `files` are relative paths → text.

    `new_files` are written only where nothing of that name exists; `obsolete` are removed.
    """

    operation: str
    new_scales: tuple[str, ...]
    old_scales: tuple[str, ...]
    info: VolumeInfo
    old_info: VolumeInfo | None = None
    transform: bool = False
    files: Mapping[str, str] = field(default_factory=dict)
    new_files: Mapping[str, str] = field(default_factory=dict)
    obsolete: tuple[str, ...] = ()

    @property
    def is_of_conversion(self) -> bool:
        """Whether a conversion ends with it, rather than a correction."""
        return CONVERSION in self.files

    def to_json(self) -> dict[str, Any]:
        """The members of `swap.json`."""
        return {
            "format": 1,
            "operation": self.operation,
            "new_scales": list(self.new_scales),
            "old_scales": list(self.old_scales),
            "info": self.info.to_json(),
            "old_info": None if self.old_info is None else self.old_info.to_json(),
            "transform": self.transform,
            "files": dict(self.files),
            "new_files": dict(self.new_files),
            "obsolete": list(self.obsolete),
        }

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> SwapPlan:
        """Read `swap.json`."""
        old_info = members["old_info"]
        return cls(
            operation=members["operation"],
            new_scales=tuple(members["new_scales"]),
            old_scales=tuple(members["old_scales"]),
            info=VolumeInfo.from_json(members["info"]),
            old_info=None if old_info is None else VolumeInfo.from_json(old_info),
            transform=members["transform"],
            files=members["files"],
            new_files=members["new_files"],
            obsolete=tuple(members.get("obsolete", ())),
        )


def interrupted_swap(destination: Destination) -> SwapPlan | None:
    """The plan of a swap that has begun and not ended."""
    members = read_json(destination.swap)
    return None if members is None else SwapPlan.from_json(members)


def begin_swap(destination: Destination, plan: SwapPlan) -> None:
    """Make everything that was staged durable, then the plan: from here on the swap will be carried out."""
    sync_filesystem(destination.private)
    replace_file(destination.swap, json.dumps(plan.to_json(), indent=2).encode())


def roll_forward(destination: Destination, plan: SwapPlan, transform: TransformAnnotations | None) -> None:
    """Carry the swap out, from wherever it stands; the caller holds the destination's lock.

    Raises InvalidInput when annotations have to be transformed and nobody said how.
    """
    if plan.transform and (transform is None or plan.old_info is None):
        raise InvalidInput(
            f"The interrupted conversion into {destination.path} has to move annotations; end it with "
            "`precomputed convert` on the command line."
        )
    _check_staged(destination, plan)
    # First, while the old pyramid still stands: nobody draws in the new voxels before this is done.
    if plan.transform and transform is not None and plan.old_info is not None:
        transform(destination.path, plan.old_info, plan.info, plan.operation)
    if plan.new_scales or plan.old_scales:
        _hide(destination, plan)
        _exchange_scales(destination, plan)
    _write_files(destination, plan)
    replace_file(destination.info, plan.info.to_bytes())
    for directory in (destination.old, destination.staging):
        if (directory / plan.operation).exists():
            shutil.rmtree(directory / plan.operation)
        with contextlib.suppress(OSError):  # what a killed worker still writes there is cleared by the next conversion
            directory.rmdir()
    _remove_torn(destination, plan)
    destination.swap.unlink()
    _sync_directory(destination.private)


def _hide(destination: Destination, plan: SwapPlan) -> None:
    """Take away what tells readers of the levels, `info` first: nobody is to look for levels that are being exchanged.

    A level that is told of and is not there reads as zeros. All of it is written again afterwards.
    """
    beside = (name for name in plan.files if "/" not in name)
    for name in (destination.info.name, *plan.obsolete, *beside):
        (destination.path / name).unlink(missing_ok=True)
    _sync_directory(destination.path)


def _write_files(destination: Destination, plan: SwapPlan) -> None:
    absent = {name: text for name, text in plan.new_files.items() if not os.path.lexists(destination.path / name)}
    for name, text in {**plan.files, **absent}.items():
        path = destination.path / name
        path.parent.mkdir(exist_ok=True)
        replace_file(path, text.encode())


def _remove_torn(destination: Destination, plan: SwapPlan) -> None:
    """Remove what kills left of the files that are written here: the tree is to be that of an uninterrupted run."""
    written = (*plan.files, *plan.new_files, destination.info.name, str(destination.swap.relative_to(destination.path)))
    paths = [destination.path / name for name in written]
    for directory in {path.parent for path in paths}:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_temporaries(descriptor, {path.name for path in paths if path.parent == directory})
        finally:
            os.close(descriptor)


def _check_staged(destination: Destination, plan: SwapPlan) -> None:
    for key in plan.new_scales:
        if not (destination.staging / plan.operation / key).exists() and not (destination.path / key).exists():
            raise Unreadable(
                f"Scale {key} of an interrupted conversion is gone; remove {destination.swap} and use --overwrite."
            )


def _exchange_scales(destination: Destination, plan: SwapPlan) -> None:
    staged, aside = destination.staging / plan.operation, destination.old / plan.operation
    aside.mkdir(parents=True, exist_ok=True)
    for key in plan.old_scales:
        arrived = key in plan.new_scales and not (staged / key).exists()
        if not arrived and not (aside / key).exists() and (destination.path / key).exists():
            (aside / key).parent.mkdir(parents=True, exist_ok=True)
            os.rename(destination.path / key, aside / key)
    _sync_directory(aside)
    for key in plan.new_scales:
        if (staged / key).exists():
            os.rename(staged / key, destination.path / key)
    _sync_directory(destination.path)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
