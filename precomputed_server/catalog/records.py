"""What is known of a dataset beside its `info`: the record that people edit and the statistics of its conversion."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from precomputed_server.errors import NotFound, Unreadable
from precomputed_server.files import Tree, join
from precomputed_server.format.names import RECORD, STATISTICS
from precomputed_server.format.viewer_state import ViewerChannel
from precomputed_server.readers.volumes import Volume, Volumes

Contrast = tuple[float, float]


@dataclass(frozen=True)
class Dataset:
    """One dataset of one volume; `contrast` is the range to show of each channel, in the volume's values.

    `channels` are the names and colours that the record has, for all channels or the first of them.
    """

    volume: Volume
    title: str
    contrast: tuple[Contrast, ...] | None
    channels: tuple[ViewerChannel, ...] = ()

    @property
    def path(self) -> str:
        """Where it lies beneath the root; "" when the root is the dataset."""
        return self.volume.path


@dataclass(frozen=True)
class ListedLayer:
    """A layer as a record lists it; `path` is relative to the dataset."""

    name: str
    path: str


@dataclass(frozen=True)
class Record:
    """What people say of a dataset, and what it is known by."""

    id: str | None = None
    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    layers: tuple[ListedLayer, ...] = ()


def read_record(tree: Tree, path: str) -> Record:
    """The record of the dataset at `path`; what is damaged or absent of it says nothing."""
    members = _read_json(tree, path, RECORD)
    tags, layers = members.get("tags"), members.get("layers")
    return Record(
        _text(members.get("id")) or None,
        _text(members.get("title")),
        _text(members.get("description")),
        tuple(tag for tag in tags if isinstance(tag, str) and tag) if isinstance(tags, list) else (),
        tuple(_listed(layers)) if isinstance(layers, list) else (),
    )


def _listed(layers: list[Any]) -> Iterator[ListedLayer]:
    """The layers that lie beneath the dataset."""
    for layer in layers:
        path = _text(layer.get("path")) if isinstance(layer, dict) else ""
        if path and not any(part == "" or part.startswith(".") for part in path.split("/")):
            yield ListedLayer(_text(layer.get("name")) or path, path)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def describe(tree: Tree, volume: Volume) -> Dataset:
    """Read what is known of `volume`; a damaged or absent record costs only what it would have said."""
    record = _read_json(tree, volume.path, RECORD)
    title = record.get("title")
    default = volume.path.rpartition("/")[2] or "dataset"
    return Dataset(
        volume,
        title if isinstance(title, str) and title else default,
        contrast_of(recorded_figures(tree, volume) or [], volume.info.num_channels),
        _channels(record),
    )


def shown_layers(tree: Tree, volumes: Volumes, path: str) -> list[Dataset]:
    """The volumes that the dataset at `path` shows, with what is known of each: itself, or the layers of its record.

    What cannot be read of several costs only itself. Raises NotFound, Unreadable, OSError.
    """
    if any(part.startswith(".") for part in path.split("/")):
        raise NotFound("Names that begin with a dot are not served.")
    volume = volumes.at(path)
    if volume is not None:
        return [describe(tree, volume)]
    found, damaged = [], None
    for listed in read_record(tree, path).layers:
        try:
            below = volumes.at(join(path, listed.path))
        except Unreadable as error:
            damaged = error
            continue
        if below is not None:
            found.append(replace(describe(tree, below), title=listed.name))
    if not found:
        raise damaged or NotFound(f"{path or '.'} is not a dataset: it has no info file of a volume.")
    return found


def recorded_figures(tree: Tree, volume: Volume) -> list[dict[str, Any]] | None:
    """The range and histogram of each channel as the conversion of `volume` counted them; None without them."""
    channels = _statistics(tree, volume).get("channels")
    return channels if isinstance(channels, list) and all(isinstance(row, dict) for row in channels) else None


def _statistics(tree: Tree, volume: Volume) -> dict[str, Any]:
    if volume.stack is None:
        return _read_json(tree, volume.path, STATISTICS)
    return _object(volume.stack.statistics() or b"{}")


def _channels(record: dict[str, Any]) -> tuple[ViewerChannel, ...]:
    listed = record.get("channels")
    return tuple(map(ViewerChannel.from_json, listed)) if isinstance(listed, list) else ()


def contrast_of(figures: Sequence[dict[str, Any]], channels: int) -> tuple[Contrast, ...] | None:
    """The range to show of each channel by their figures; None where those of a channel say none."""
    if len(figures) != channels:
        return None
    whole = tuple(pair for pair in map(_range, figures) if pair is not None)
    return whole if len(whole) == channels else None


def _range(row: dict[str, Any]) -> Contrast | None:
    low, high = row.get("p01"), row.get("p998")
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return None
    if not _is_finite(low) or not _is_finite(high):
        return None
    return (low, high) if high > low else (low, low + 1)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer of hundreds of digits
        return False


def _read_json(tree: Tree, dataset: str, name: str) -> dict[str, Any]:
    try:
        return _object(tree.read(join(dataset, name)))
    except OSError:
        return {}


def _object(text: bytes) -> dict[str, Any]:
    """What a JSON object says; nothing where it is none."""
    try:
        members = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return members if isinstance(members, dict) else {}
