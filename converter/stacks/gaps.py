"""Slices that no file of an acquisition has, though its file names count on: places for them among the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from converter.stacks.acquisition import Acquisition
from converter.stacks.place import Place

T = TypeVar("T")


def with_gaps(acquisition: Acquisition) -> Acquisition:
    """The acquisition in which numbers that lack among the z of file names are slices without a plane."""
    axis = acquisition.axes["z"]
    if not axis.gaps:
        return acquisition
    labels = tuple(sorted({*(label for label in axis.labels if isinstance(label, int)), *axis.gaps}))
    at = {label: index for index, label in enumerate(labels)}

    def moved(place: Place) -> Place:
        return place._replace(z=at[int(axis.labels[place.z])])

    return replace(
        acquisition,
        axes={**acquisition.axes, "z": replace(axis, labels=labels)},
        lengths=tuple(lengths._replace(z=len(labels)) for lengths in acquisition.lengths),
        planes=_moved(acquisition.planes, moved),
        duplicates=_moved(acquisition.duplicates, moved),
        elsewhere=_moved(acquisition.elsewhere, moved),
    )


def _moved(found: Mapping[Place, T], moved: Callable[[Place], Place]) -> dict[Place, T]:
    return {moved(place): value for place, value in found.items()}
