"""What a conversion found, put together from what its tasks recorded: counts, statistics and the manifest."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.options import LevelFigures
from converter.pyramid.journal import Done
from converter.pyramid.plan import Pyramid
from converter.pyramid.tasks import Volume
from converter.stacks.channels import Channel as SourceChannel
from converter.stacks.plane import PlanePlace
from converter.writers import Channel as ShownChannel
from precomputed_server.format.grid import grid_shape
from precomputed_server.format.info import ScaleInfo
from precomputed_server.format.statistics import Channel

STORED = np.dtype([("size", "<u8"), ("crc32", "<u4"), ("adler32", "<u4")])
"""What the manifest says of a chunk: the size of its file in bytes, 0 where there is none, and the file's checksums."""


@dataclass(frozen=True)
class Found:
    """Figures of a whole conversion; `manifest[level]` has an element of STORED for each cell, "(Z, Y, X)".

    `lost` says why planes were left out, by their places in the source.
    """

    chunks: int
    bytes: int
    manifest: tuple[NDArray[Any], ...]
    statistics: Mapping[str, Any]
    lost: Mapping[PlanePlace, str]

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Which planes were left out and why."""
        return tuple(sorted(set(self.lost.values())))

    @property
    def statistics_text(self) -> str:
        """The text of `statistics.json`."""
        return json.dumps(self.statistics, indent=2) + "\n"

    def shown_channels(self, known: Sequence[SourceChannel]) -> list[ShownChannel]:
        """How the channels are to be shown, with what the source says of them."""
        return shown_channels(self.statistics["channels"], known)


def shown_channels(figures: Sequence[Mapping[str, Any]], known: Sequence[SourceChannel]) -> list[ShownChannel]:
    """How the channels of a volume of these `figures` (statistics.json) are to be shown, with what is known of them.

    One without any value is shown as the format does.
    """
    shown = []
    for number, row in enumerate(figures):
        low, high = row["p01"], row["p998"]
        source = known[number] if number < len(known) else SourceChannel()
        color = None if source.color is None else source.color.removeprefix("#").upper()
        window = None if None in (low, high) else (low, high)
        shown.append(ShownChannel(source.name or f"Channel {number}", color, window))
    return shown


def gather(journal: Iterable[Done], pyramid: Pyramid, volume: Volume) -> Found:
    """Add up what every task recorded."""
    manifest = tuple(np.zeros(grid_shape(scale)[::-1], STORED) for scale in pyramid.scales)
    channels = [Channel() for _ in range(volume.num_channels)]
    labels: NDArray[Any] = np.empty(0, volume.dtype)
    chunks = stored_bytes = 0
    lost: dict[PlanePlace, str] = {}
    for done in journal:
        chunks, stored_bytes = chunks + done.chunks, stored_bytes + done.bytes
        for level, entries in done.entries.items():
            places = manifest[level].reshape(-1)
            for member in STORED.fields or ():
                places[member][entries["cell"].astype(np.intp)] = entries[member]
        for channel, figures in zip(channels, done.channels, strict=False):
            channel.add(**figures)
        if done.labels:
            labels = np.union1d(labels, np.array(done.labels, volume.dtype))
        lost |= done.lost
    return Found(chunks, stored_bytes, manifest, _statistics(channels, labels, volume), lost)


def write_manifest(directory: Path, keys: Iterable[str], manifest: Iterable[NDArray[Any]]) -> None:
    """Write the manifest of each scale as `KEY.npy`, "(Z, Y, X)" of STORED; not yet durable."""
    directory.mkdir(parents=True, exist_ok=True)
    for key, entries in zip(keys, manifest, strict=True):
        temporary = directory / f".{key}.npy"
        with temporary.open("wb") as file:
            np.save(file, entries)
        os.replace(temporary, directory / f"{key}.npy")


def level_figures(scales: Sequence[ScaleInfo], manifest: Sequence[NDArray[Any]]) -> tuple[LevelFigures, ...]:
    """What each scale holds by its manifest."""
    return tuple(
        LevelFigures(scale.key, scale.size, int(np.count_nonzero(entries["size"])), int(entries["size"].sum()))
        for scale, entries in zip(scales, manifest, strict=True)
    )


def read_manifest(directory: Path, keys: Iterable[str]) -> list[NDArray[Any]] | None:
    """The manifest of each scale; None where one is absent."""
    paths = [directory / f"{key}.npy" for key in keys]
    return [np.load(path) for path in paths] if all(path.exists() for path in paths) else None


def _statistics(channels: list[Channel], labels: NDArray[Any], volume: Volume) -> dict[str, Any]:
    """The members of `statistics.json`."""
    if volume.segmentation:
        return {"format": 1, "channels": [], "labels": int(np.count_nonzero(labels))}
    return {
        "format": 1,
        "rows_counted": f"1 of {volume.row_stride}",
        "channels": [channel.figures(volume.dtype) for channel in channels],
    }
