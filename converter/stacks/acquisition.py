"""What a source holds before anything is chosen from it: planes by position, time, channel and z."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converter.stacks.channels import Channel
from converter.stacks.metadata import Metadata
from converter.stacks.place import AXES, Axis, Label, Place, abbreviated
from converter.stacks.plane import Plane
from precomputed_server.errors import InvalidInput, SourceError
from precomputed_server.format.geometry import Vector

FILE_NAME = "file names"
FILE_ORDER = "the order of the files"


@dataclass(frozen=True)
class Stack:
    """Planes that fit together: `planes[z]` are the pages of that z, each with the same number of samples.

    The channels are the samples of the first page of a z, then those of the next: "(C, Z, Y, X)" in all. `remarks` are
    sentences on what a person should look at though it may be meant.
    """

    planes: tuple[tuple[Plane, ...], ...]
    metadata: Metadata
    channels: tuple[Channel, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def size(self) -> Vector:
        """The extent x, y, z in voxels."""
        _, rows, columns = self.planes[0][0].shape
        return columns, rows, len(self.planes)

    @property
    def num_channels(self) -> int:
        """How many channels each voxel has."""
        return sum(plane.shape[0] for plane in self.planes[0])

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type of the voxels in this machine's byte order."""
        return self.planes[0][0].dtype.newbyteorder("=")

    @property
    def segment_rows(self) -> int:
        """How many rows have to be decoded to read one: 1 where the pixels lie uncompressed in the files."""
        return max(plane.segment_rows for pages in self.planes for plane in pages)


@dataclass(frozen=True)
class Choice:
    """What is taken of an acquisition: channels by name or index, in this order (none: all), a time, a position.

    A text is a name first, then an index; a number is an index.
    """

    channels: tuple[str | int, ...] = ()
    time: str | None = None
    position: str | None = None


@dataclass(frozen=True)
class Acquisition:
    """Every plane of a source by its place, the axes that they run through, and what is wrong with them.

    `lengths` are how many times, pages of channels and z each position has. A page has `samples` channels, `channels`
    describes them all: those of the first page of a z, then those of the next. `elsewhere` names the files in which
    absent planes should be; `unreadable` are sentences about files, whose planes are taken to be like the others.
    """

    name: str
    planes: Mapping[Place, Plane]
    axes: Mapping[str, Axis]
    lengths: tuple[Place, ...]
    samples: int
    channels: tuple[Channel, ...]
    metadata: Metadata
    duplicates: Mapping[Place, tuple[Plane, ...]] = field(default_factory=dict)
    elsewhere: Mapping[Place, str] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()

    def length(self, axis: str) -> int:
        """How many labels an axis has; of channels, all of them."""
        return len(self.channels) if axis == "c" else len(self.axes[axis].labels)

    def chosen_channels(self, choice: Choice) -> tuple[int, ...]:
        """The indices of the channels; raises InvalidInput naming those that there are."""
        names: list[Label] = [channel.name for channel in self.channels]
        if not choice.channels:
            return tuple(range(len(names)))
        return tuple(_chosen(names, wanted, "channel") for wanted in choice.channels)

    def chosen_one(self, axis: str, wanted: str | None) -> int:
        """The index of the time or the position; raises InvalidInput when it has to be chosen, or is not there."""
        labels, called = self.axes[axis].labels, AXES[axis]
        if wanted is not None:
            return _chosen(labels, wanted, called)
        if len(labels) == 1:
            return 0
        option = {"t": "--time", "p": "--position"}[axis]
        slices = self.length("z") == 1 and self.axes[axis].origin not in (FILE_NAME, "OME")
        otherwise = ", or add --axes z if they are slices" if slices else ""
        raise InvalidInput(
            f"{self.name} holds {len(labels)} {called}s ({abbreviated(labels)}); choose one with {option}{otherwise}."
        )

    def missing(self, position: int, time: int, pages: Sequence[int]) -> list[Place]:
        """The places without a plane among those of a position, a time and pages of channels."""
        depth = self.lengths[position].z
        places = (Place(position, time, page, z) for page in pages for z in range(depth))
        return [place for place in places if place not in self.planes]

    def all_missing(self) -> list[Place]:
        """Every place without a plane."""
        return [
            place
            for position, lengths in enumerate(self.lengths)
            for time in range(lengths.t)
            for place in self.missing(position, time, range(lengths.c))
        ]

    def described(self, places: Sequence[Place]) -> str:
        """Places for a person: the z of each channel, time and position that there is more than one of."""
        groups: dict[tuple[int, int, int], list[Label]] = {}
        for place in places:
            groups.setdefault((place.p, place.t, place.c), []).append(self._label("z", place.z))
        shown = [self._described(group, labels) for group, labels in list(groups.items())[:4]]
        return "; ".join(shown) + (f"; and {len(groups) - 4} more" if len(groups) > 4 else "")

    def select(self, choice: Choice, *, tolerant: bool = False) -> Stack:
        """The stack of the chosen channels, time and position.

        Raises InvalidInput for what cannot be chosen, SourceError naming the first file that is unreadable or
        different, and planes that lack or are there twice. A `tolerant` caller gets planes that cannot be read.
        """
        if self.unreadable and not tolerant:
            raise SourceError(self.unreadable[0])
        position, time = self.chosen_one("p", choice.position), self.chosen_one("t", choice.time)
        channels = self.chosen_channels(choice)
        pages = sorted({channel // self.samples for channel in channels})
        self._check_places(position, time, pages, tolerant)
        planes = tuple(
            tuple(
                self._page(Place(position, time, page, z), samples) for page, samples in _runs(channels, self.samples)
            )
            for z in range(self.lengths[position].z)
        )
        for plane in (plane for of_z in planes for plane in of_z):
            check_alike(plane, planes[0][0])
        return Stack(planes, self.metadata, tuple(self.channels[channel] for channel in channels))

    def _check_places(self, position: int, time: int, pages: Sequence[int], tolerant: bool) -> None:
        for place, several in self.duplicates.items():
            if place[:2] == (position, time) and place.c in pages:
                raise SourceError(
                    f"{several[0].name} and {several[1].name} are both {self.described([place])}; move one away."
                )
        missing = self.missing(position, time, pages)
        if missing and not tolerant:
            raise SourceError(self._lacking(missing))
        if gaps := self.axes["z"].gaps:
            raise SourceError(
                f"{self.name} has no file with z = {abbreviated(gaps)}; copy what is missing, or number the files anew."
            )

    def _lacking(self, missing: Sequence[Place]) -> str:
        of = self.elsewhere.get(missing[0])
        where = f", which should be in {of}" if of else ""
        return f"{self.name} lacks {self.described(missing)}{where}; copy what is missing."

    def _stand_in(self, place: Place) -> Plane:
        """A plane like the others for a place that has none."""
        example = next(iter(self.planes.values()))
        where = self.elsewhere.get(place, self.name)
        return replace(example, path=where, version=None, unreadable=self._lacking([place]))

    def _page(self, place: Place, samples: tuple[int, ...]) -> Plane:
        plane = self.planes.get(place) or self._stand_in(place)
        if samples == tuple(range(plane.shape[0])):
            return plane
        return replace(plane, shape=(len(samples), *plane.shape[1:]), samples=samples)

    def _label(self, axis: str, index: int) -> Label:
        labels = self.axes[axis].labels
        return labels[index] if index < len(labels) else index

    def _described(self, group: tuple[int, int, int], labels: Sequence[Label]) -> str:
        parts = [f"{axis} = {self._label(axis, at)}" for axis, at in zip("ptc", group, strict=True)]
        parts = [part for part, axis in zip(parts, "ptc", strict=True) if len(self.axes[axis].labels) > 1]
        return " ".join([*parts, f"z = {abbreviated(labels)}"])


def check_alike(plane: Plane, first: Plane) -> None:
    """Raise SourceError for a plane that does not fit the first of the stack."""
    if plane.shape[1:] != first.shape[1:]:
        raise SourceError(
            f"{plane.name} is {_extent(plane)}, but {first.name} is {_extent(first)}; "
            "convert only planes of one shape together."
        )
    if plane.file_samples != first.file_samples:
        raise SourceError(
            f"{plane.name} has {plane.file_samples} samples a pixel, but {first.name} has {first.file_samples}; "
            "convert only files with the same channels together."
        )
    if plane.dtype.newbyteorder("=") != first.dtype.newbyteorder("="):
        raise SourceError(
            f"{plane.name} is {plane.dtype.name}, but {first.name} is {first.dtype.name}; "
            "convert only planes of one data type together."
        )


def _extent(plane: Plane) -> str:
    _, rows, columns = plane.shape
    return f"{columns} × {rows}"


def _runs(channels: Sequence[int], samples: int) -> list[tuple[int, tuple[int, ...]]]:
    """Channels as pages and samples of them; neighbours that lie in one page are read together."""
    runs: list[tuple[int, tuple[int, ...]]] = []
    for channel in channels:
        page, sample = divmod(channel, samples)
        if runs and runs[-1][0] == page:
            runs[-1] = page, (*runs[-1][1], sample)
        else:
            runs.append((page, (sample,)))
    return runs


def _chosen(labels: Sequence[Label], wanted: str | int, called: str) -> int:
    """The index of a label by its name, with or without leading zeros, else by its index; raises InvalidInput."""
    if isinstance(wanted, int):
        return wanted
    texts = [str(label) for label in labels]
    for spelling in (wanted, wanted.lstrip("0") or "0"):
        if spelling in texts:
            return texts.index(spelling)
    if wanted.isascii() and wanted.isdigit() and int(wanted) < len(labels) and not _all_numbers(labels):
        return int(wanted)
    named = _listed(labels)
    raise InvalidInput(f"There is no {called} {wanted}; there {'is' if len(labels) == 1 else 'are'} {named}.")


def _all_numbers(labels: Sequence[Label]) -> bool:
    """Whether the labels are the acquisition's own numbers, beside which an index would only confuse."""
    return all(str(label).isdigit() for label in labels)


def _listed(labels: Sequence[Label]) -> str:
    if _all_numbers(labels):
        return abbreviated(int(label) for label in labels)
    return ", ".join(f"{index} ({label})" if label != "" else str(index) for index, label in enumerate(labels))
