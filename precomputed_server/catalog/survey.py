"""Looking at one directory: what kind of place it is, and what the catalog is to know of it."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from precomputed_server.catalog.conversions import Conversion, last_conversion
from precomputed_server.catalog.entries import COMPLETE, CONVERTING, INCOMPLETE, UNUSABLE, Entry, Layer, Scale
from precomputed_server.catalog.layouts import Stored, look_at
from precomputed_server.catalog.records import Record, read_record
from precomputed_server.errors import PrecomputedError
from precomputed_server.files import Tree, join, typed
from precomputed_server.format.info import ScaleInfo
from precomputed_server.format.names import ANNOTATIONS, EVENTS, PRIVATE, RECORD, STATISTICS
from precomputed_server.readers.volumes import Volume, Volumes

Counter = Callable[[str], int | None]
"""Counts the annotations of a dataset; None where it cannot."""


@dataclass(frozen=True)
class Surveyor:
    """Looks at places of a tree; `count` says how many annotations a dataset has."""

    tree: Tree
    volumes: Volumes
    count: Counter = lambda path: None

    def entry(self, path: str) -> Entry | None:
        """What the catalog keeps of a directory; None when it is none of a dataset's. Raises OSError when it is gone.

        What it is made of is looked at after its signature was taken: a change in between is seen by the next scan.
        """
        first = self.signature(path, _WATCHED)
        volume, reason = self.volume(path)
        if reason:
            return Entry(path, UNUSABLE, reason, title=_name(path), watched=_WATCHED, signature=first)
        record = read_record(self.tree, path)
        paths = [""] if volume is not None else [layer.path for layer in record.layers]
        conversion = last_conversion(self.tree, path)
        if not paths and conversion is None:
            return None
        watched = self._watched(path, paths)
        signature = self.signature(path, watched)
        layers = tuple(self._layers(path, volume, record))
        state, reason = _state(layers, conversion)
        shown = None if conversion is None or conversion.has_ended else conversion
        return Entry(
            path,
            state,
            reason,
            id=record.id,
            title=record.title or _name(path),
            description=record.description,
            tags=record.tags,
            layers=layers,
            annotations=self.count(path) if volume is not None else None,
            done=None if shown is None else shown.done,
            total=None if shown is None else shown.total,
            # Of a stack, planes and levels change without any of these names: it is looked at each time.
            watched=() if volume is not None and volume.stack is not None else watched,
            signature=signature,
        )

    def volume(self, path: str) -> tuple[Volume | None, str]:
        """The volume whose directory `path` is, None where it is none; and why what is there cannot be read."""
        try:
            return self.volumes.at(path), ""
        except PrecomputedError as error:
            return None, str(error)
        except OSError as error:
            return None, str(typed(error, "its info"))

    def signature(self, path: str, watched: Sequence[str]) -> str:
        """What changes when one of these names beneath a directory is written, replaced or removed; raises OSError."""
        directory = self.tree.open(path, os.O_PATH | os.O_DIRECTORY)
        try:
            states = [_state_of(name, directory) for name in watched]
        finally:
            os.close(directory)
        return hashlib.blake2b(repr(states).encode(), digest_size=8).hexdigest()

    def _watched(self, path: str, layers: Sequence[str]) -> tuple[str, ...]:
        names = list(_WATCHED)
        for layer in layers:
            prefix = f"{layer}/" if layer else ""
            names += [f"{prefix}info", f"{prefix}{STATISTICS}"] if layer else []
            volume, _ = self.volume(join(path, layer))
            if volume is not None:
                names += [f"{prefix}{scale.key}" for scale in volume.info.scales]
            names += self._blocks(path, f"{prefix}{ANNOTATIONS}")
        return tuple(names)

    def _blocks(self, path: str, annotations: str) -> list[str]:
        try:
            entries = self.tree.listing(join(path, annotations))
        except OSError:
            return [annotations]
        return [annotations, *(f"{annotations}/{entry.name}" for entry in entries if entry.is_directory)]

    def _layers(self, path: str, volume: Volume | None, record: Record) -> list[Layer]:
        if volume is not None:
            return [self._layer(record.title or _name(path), "", volume)]
        found = []
        for listed in record.layers:
            place = join(path, listed.path)
            below, reason = self.volume(place)
            if below is not None:
                found.append(self._layer(listed.name, listed.path, below))
            else:
                told = f"{listed.path}: {reason}" if reason else f"{listed.path} has no info."
                found.append(_missing(listed.name, listed.path, told))
        return found

    def _stored(self, volume: Volume) -> list[Stored | None]:
        """What lies on disk of each scale; of a stack that is served as it is, its planes."""
        if volume.stack is not None:
            return [Stored(_STACK, volume.stack.source_bytes), *[Stored(_STACK, 0)] * (len(volume.info.scales) - 1)]
        found: list[Stored | None] = []
        for scale in volume.info.scales:
            try:
                found.append(look_at(self.tree, volume.path, scale))
            except OSError:
                found.append(None)
        return found

    def _layer(self, name: str, path: str, volume: Volume) -> Layer:
        info, stored = volume.info, self._stored(volume)
        missing = [scale.key for scale, lies in zip(info.scales, stored, strict=True) if lies is None]
        formats = dict.fromkeys(lies.format for lies in stored if lies is not None)
        counted = [lies.bytes for lies in stored if lies is not None]
        return Layer(
            name,
            path,
            info.volume_type,
            info.data_type,
            info.num_channels,
            tuple(map(_scale, info.scales)),
            info.scales[0].voxel_offset,
            ", ".join(formats),
            None if None in counted else sum(each for each in counted if each is not None),
            INCOMPLETE if missing else COMPLETE,
            f"No chunks lie in {', '.join(missing)}." if missing else "",
        )


_STACK = "stack"
"""The format of planes that are served as they are."""

_WATCHED = (".", "info", PRIVATE, RECORD, EVENTS, STATISTICS)


def _state_of(name: str, directory: int) -> tuple[int, ...] | None:
    """The state of a file or directory, and of what it points to: neither is opened or shown."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        target = os.stat(name, dir_fd=directory) if stat.S_ISLNK(status.st_mode) else status
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size, target.st_ino, target.st_mtime_ns, target.st_size


def _state(layers: Sequence[Layer], conversion: Conversion | None) -> tuple[Any, str]:
    """The state of a dataset and the sentence that explains it."""
    if conversion is not None and conversion.is_running:
        return CONVERTING, "It is being converted again; what was there before is served." if layers else ""
    broken = next((layer for layer in layers if layer.state != COMPLETE), None)
    if broken is not None:
        return broken.state, broken.reason
    failed = conversion is not None and not conversion.has_ended
    if not layers:
        return INCOMPLETE, _interrupted(conversion)
    return COMPLETE, f"The last conversion into it did not end: {_interrupted(conversion)}" if failed else ""


def _interrupted(conversion: Conversion | None) -> str:
    if conversion is None:
        return ""
    if conversion.state == "failed":
        return conversion.message
    return "Its conversion was interrupted; the same command goes on from there."


def _missing(name: str, path: str, reason: str) -> Layer:
    return Layer(name, path, "", "", 0, (), (0, 0, 0), "", None, UNUSABLE, reason)


def _scale(scale: ScaleInfo) -> Scale:
    return Scale(scale.key, scale.size, scale.resolution_nm, scale.chunk_sizes[0], scale.encoding)


def _name(path: str) -> str:
    return path.rpartition("/")[2] or "dataset"
