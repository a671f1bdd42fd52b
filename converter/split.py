"""Several channels as one layer each of one dataset: `DEST/NAME` is the volume of a channel, the record lists them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converter.options import ConvertOptions, Summary
from converter.output.destination import Destination, locked, read_json
from converter.stacks.channels import Channel
from converter.stacks.presence import check_there
from converter.stacks.source import read_acquisition
from precomputed_server.errors import DestinationExists
from precomputed_server.format.names import ANNOTATIONS, RECORD
from precomputed_server.writing import replace_file

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_+-]+")
_TAKEN = {"info", "provenance", ANNOTATIONS}


@dataclass(frozen=True)
class ChannelLayer:
    """A channel that becomes a layer: its index in the source, its name and colour, and the directory's name."""

    index: int
    channel: Channel
    directory: str

    def to_json(self) -> dict[str, Any]:
        """The element of a record's `layers`; `path` is relative to the dataset."""
        return {**self.channel.to_json(), "name": self.channel.name or self.directory, "path": self.directory}


def channel_layers(channels: Sequence[tuple[int, Channel]]) -> tuple[ChannelLayer, ...]:
    """A layer for each channel, in directories whose names differ in more than upper and lower case."""
    taken = set(_TAKEN)
    layers = []
    for index, channel in channels:
        name = _NOT_IN_NAMES.sub("_", channel.name).strip("_") or f"channel_{index}"
        directory, number = name, 1
        while directory.lower() in taken:
            number += 1
            directory = f"{name}_{number}"
        taken.add(directory.lower())
        layers.append(ChannelLayer(index, channel, directory))
    return tuple(layers)


def convert_split(
    sources: Sequence[str], dest: Path, options: ConvertOptions, convert: Callable[[Path, ConvertOptions], Summary]
) -> tuple[Summary, ...]:
    """Convert each chosen channel into `dest/NAME` by calling `convert`, then write the record that lists them.

    The record is last: a dataset whose conversion was killed lists no layers. Raises DestinationExists when `dest` is a
    volume itself, and what reading the source and `convert` raise.
    """
    check_there(sources)
    destination = Destination(dest)
    if destination.info.exists():
        raise DestinationExists(f"{dest} is a volume; choose another destination for a dataset of several layers.")
    acquisition = read_acquisition(sources, options.source)
    indices = acquisition.chosen_channels(options.source.choice)
    layers = channel_layers([(index, acquisition.channels[index]) for index in indices])
    summaries = tuple(convert(dest / layer.directory, _of_layer(options, layer)) for layer in layers)
    _write_record(destination, layers, summaries[0])
    return summaries


def _of_layer(options: ConvertOptions, layer: ChannelLayer) -> ConvertOptions:
    choice = replace(options.source.choice, channels=(layer.index,))
    return replace(options, source=replace(options.source, choice=choice))


def _write_record(destination: Destination, layers: Sequence[ChannelLayer], summary: Summary) -> None:
    """Write the record, keeping what somebody has put into the one that is there."""
    with locked(destination):
        path = destination.path / RECORD
        fresh = {"format": 1, "id": uuid.uuid4().hex, "title": destination.path.resolve().name}
        record = {**fresh, **(read_json(path) or {})}
        record |= {"voxel_size": summary.voxel_size.to_json(), "layers": [layer.to_json() for layer in layers]}
        replace_file(path, (json.dumps(record, indent=2) + "\n").encode())
