"""The directory that a conversion writes into: what it may hold beforehand, its lock and its staging area."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from precomputed_server.errors import (
    Busy,
    DestinationExists,
    InvalidInput,
    NotFound,
    PrecomputedError,
    StorageFull,
    Unreadable,
    WritesRefused,
)
from precomputed_server.files import typed
from precomputed_server.format.info import VolumeInfo
from precomputed_server.format.names import ANNOTATIONS, CONVERSION, EVENTS, LOCK, PRIVATE, RECORD, SWAP
from precomputed_server.writing import exclusive_lock, is_temporary

KEEP, TRANSFORM = "keep", "transform"
_LOCK, _EVENTS = (name.rpartition("/")[2] for name in (LOCK, EVENTS))
_OURS = {_LOCK, "old", "staging", "verifying", _EVENTS, "events.1.jsonl"}
"""What a conversion that was killed may have left in `.precomputed`, beside files that were being replaced."""
_LOCK_TIMEOUT_S = 2.0
_AGAIN = "convert the stack again with `precomputed convert --overwrite`, which makes it new"


@dataclass(frozen=True)
class Destination:
    """The paths of a volume that this program writes: a dataset, or the `layer` of that name of the one above it."""

    path: Path
    layer: str | None = None

    @property
    def info(self) -> Path:
        """The volume's `info`."""
        return self.path / "info"

    @property
    def private(self) -> Path:
        """What clients never see."""
        return self.path / PRIVATE

    @property
    def staging(self) -> Path:
        """Scales that are being built, below the id of their conversion."""
        return self.private / "staging"

    @property
    def verifying(self) -> Path:
        """What checking a dataset against its source keeps aside."""
        return self.private / "verifying"

    @property
    def old(self) -> Path:
        """Scales that have been replaced, below the id of the conversion that did it."""
        return self.private / "old"

    @property
    def conversion(self) -> Path:
        """What the last conversion wrote, and from what."""
        return self.path / CONVERSION

    @property
    def events(self) -> Path:
        """What happened to its conversions."""
        return self.path / EVENTS

    @property
    def swap(self) -> Path:
        """The plan of a swap that has begun."""
        return self.path / SWAP


@dataclass(frozen=True)
class Existing:
    """The pyramid that a destination holds: its `info`, None when there is none, and the scales that we wrote."""

    info: VolumeInfo | None = None
    scales: tuple[str, ...] = ()


def existing_pyramid(destination: Destination, overwrite: bool) -> Existing:
    """Check that a conversion may write here; raises DestinationExists when something is there that it may not replace.

    A directory that is absent, empty or holds only what a killed conversion left is new. Any other needs `overwrite`,
    and then a pyramid in it must be one that this program wrote.
    """
    path = destination.path
    if path.exists() and not path.is_dir():
        raise DestinationExists(f"{path} is a file; choose a directory as destination.")
    if not _is_occupied(destination):
        return Existing()
    if not overwrite:
        what = "replace the pyramid in it" if _our_scales(destination) else "put a pyramid beside what it holds"
        raise DestinationExists(f"{path} is not empty; choose another destination, or add --overwrite to {what}.")
    scales = _our_scales(destination)
    if not destination.info.exists():
        return Existing(None, scales)
    if scales and _is_damaged(destination):
        return Existing(None, scales)
    info = _read_info(destination)
    if not scales or info is None or not {scale.key for scale in info.scales} <= set(scales):
        raise DestinationExists(
            f"{path} holds a dataset that this program did not write; choose another destination for the new one."
        )
    return Existing(info, scales)


def check_keys(destination: Destination, existing: Existing, keys: tuple[str, ...]) -> None:
    """Raise DestinationExists when a new scale would replace a directory that is none of our scales."""
    for key in keys:
        if key not in existing.scales and os.path.lexists(destination.path / key):
            raise DestinationExists(
                f"{destination.path / key} was not written by this program; move it away or choose another destination."
            )


def must_transform(destination: Destination, existing: Existing, info: VolumeInfo, choice: str | None) -> bool:
    """Whether stored annotations have to be moved to a changed voxel grid.

    Raises InvalidInput when there are annotations, the grid changes and nobody chose what to do.
    """
    if existing.info is None and existing.scales and choice != KEEP and has_annotations(destination):
        raise InvalidInput(
            f"{destination.path} has annotations, and its old info, which says where they lie, is gone or damaged; add "
            "--annotations keep to leave them as they are."
        )
    if existing.info is None or _grid(existing.info) == _grid(info) or not has_annotations(destination):
        return False
    if choice is None:
        raise InvalidInput(
            f"{destination.path} has annotations, and its size, voxel size or offset would change; add "
            "--annotations keep to leave them as they are, or --annotations transform to move them to the new voxels."
        )
    return choice == TRANSFORM


@contextmanager
def locked(destination: Destination) -> Iterator[None]:
    """Hold the destination against other conversions, making the directory if need be; raises Busy."""
    try:
        destination.private.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno == errno.EROFS:
            raise
        raise InvalidInput(
            f"{destination.path} cannot be made: {error.strerror}; choose another destination."
        ) from error
    with ExitStack() as held:
        directory = os.open(destination.private, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        held.callback(os.close, directory)
        try:
            held.enter_context(exclusive_lock(directory, _LOCK, _LOCK_TIMEOUT_S))
        except Busy as error:
            raise Busy(f"Another conversion is writing into {destination.path}; wait until it has ended.") from error
        except OSError as error:
            error.filename = str(destination.private / "lock")  # instead of its name in the open directory
            raise
        yield


def not_written(destination: Destination, error: OSError) -> PrecomputedError:
    """What an error means that ended a conversion, and what to do about it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(
            f"{destination.path} could not be written: the disk or a quota is full; make room and run the same command "
            "again: what is done is kept."
        )
    if error.errno == errno.EROFS:
        return WritesRefused(f"{destination.path} lies on a read-only file system; choose another destination.")
    return typed(error, str(error.filename or destination.path), writing=True)


def clear_leftovers(destination: Destination) -> None:
    """Remove what killed conversions left; the caller holds the lock and no swap is under way."""
    for directory in (destination.staging, destination.old):
        if directory.exists():
            shutil.rmtree(directory)


def read_json(path: Path) -> dict[str, Any] | None:
    """Read an object that this program wrote; None when absent; raises Unreadable."""
    try:
        members = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{path} is not JSON; move it away.") from error
    if not isinstance(members, dict) or members.get("format") != 1:
        raise Unreadable(f"{path} was written by a newer version of this program; use that version.")
    return members


def read_info(destination: Destination) -> VolumeInfo:
    """The volume's `info`; raises NotFound that says what is there instead, Unreadable with the remedy."""
    path, info = destination.path, destination.info
    if not path.exists():
        raise NotFound(f"{path} does not exist; name the directory of a dataset.")
    if not path.is_dir():
        raise NotFound(f"{path} is a file; name the directory of a dataset.")
    if not info.exists():
        if destination.conversion.exists():
            raise NotFound(f"{info} is gone; {_AGAIN}.")
        if destination.staging.exists():
            raise NotFound(
                f"{path} holds an interrupted conversion; the same `precomputed convert` again goes on where it stood."
            )
        raise NotFound(f"{path} is not a dataset: it has no info file of a volume.")
    try:
        return VolumeInfo.from_bytes(info.read_bytes())
    except Unreadable as error:
        said = str(error).rstrip(".")
        remedy = _AGAIN if destination.conversion.exists() else "put back the one that was there"
        raise Unreadable(f"{info} is damaged ({said}); {remedy}.") from error


def layers_of(destination: Destination) -> tuple[str, ...]:
    """The directories of the layers of a dataset that is no volume itself."""
    if not destination.path.is_dir() or destination.info.exists():
        return ()
    record = read_json(destination.path / RECORD) or {}
    names = [str(layer.get("path", "")) for layer in record.get("layers", ())]
    return tuple(name for name in names if name not in ("", ".", "..") and "/" not in name)


def _is_damaged(destination: Destination) -> bool:
    """Whether `info` is none at all, of whatever kind."""
    try:
        members = json.loads(destination.info.read_bytes())
    except (ValueError, RecursionError):
        return True
    return not isinstance(members, dict) or (_read_info(destination) is None and "@type" not in members)


def _is_occupied(destination: Destination) -> bool:
    path, private = destination.path, destination.private
    names = set(os.listdir(path)) - {PRIVATE} if path.exists() else set()
    kept = set(os.listdir(private)) - _OURS if private.exists() else set()
    return bool(names) or not all(is_temporary(name) for name in kept)


def _our_scales(destination: Destination) -> tuple[str, ...]:
    members = read_json(destination.conversion) or {}
    return tuple(str(key) for key in members.get("scales", []))


def own_files(destination: Destination) -> tuple[str, ...]:
    """The files beside `info` that the format of the last conversion put there."""
    return tuple((read_json(destination.conversion) or {}).get("files", ()))


def _read_info(destination: Destination) -> VolumeInfo | None:
    try:
        return VolumeInfo.from_bytes(destination.info.read_bytes())
    except Unreadable:
        return None


def _grid(info: VolumeInfo) -> tuple[object, ...]:
    finest = info.scales[0]
    return finest.size, finest.resolution_nm, finest.voxel_offset


def has_annotations(destination: Destination) -> bool:
    """Whether any annotation file lies in a block."""
    leaves = destination.path.glob(f"{ANNOTATIONS}/[!.]*/[!.]*.json")
    return any(stat.S_ISREG(path.stat().st_mode) for path in leaves)
