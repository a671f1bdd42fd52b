"""What a source was understood to be, without converting it: for a person and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from converter.estimate import Estimate, estimate
from converter.options import ConvertOptions
from converter.pyramid.scales import levels
from converter.stacks.acquisition import Acquisition, Choice, Stack
from converter.stacks.data_type import label_remarks
from converter.stacks.expectation import check_expected, remarks
from converter.stacks.place import AXES, Place, abbreviated
from converter.stacks.source import read_acquisition
from converter.stacks.stack_source import StackSource, stack_source
from converter.stacks.voxel_size import edge_remarks, known_edges
from precomputed_server.errors import InvalidInput, SourceError
from precomputed_server.format.geometry import Vector, ceil_divide

Known = tuple[Fraction, str]
"""An edge in micrometres and where it came from."""

_LISTED = 1000
"""How many missing or duplicate planes JSON lists one by one."""


@dataclass(frozen=True)
class Inspection:
    """What was understood; `problems` are what is wrong with the source, `needed` what a conversion has to be told.

    `plane_size` is the x, y of the first plane, `storage` how many planes are stored in which way; `edges` are the
    known edges of a voxel of the stack in micrometres with their source. `source` and `estimated` are None where a
    problem prevents them.
    """

    acquisition: Acquisition
    plane_size: tuple[int, int]
    data_type: str
    storage: Mapping[str, int]
    edges: Mapping[str, Known]
    remarks: tuple[str, ...]
    problems: tuple[str, ...]
    needed: tuple[str, ...]
    source: StackSource | None
    estimated: Estimate | None

    def to_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        found = self.acquisition
        missing = found.all_missing()
        axes: dict[str, dict[str, Any]] = {
            axis: {"length": found.length(axis), "from": origin_of(found, axis)} for axis in AXES
        }
        for axis in "ptz":
            axes[axis]["labels"] = list(found.axes[axis].labels[:_LISTED])
        for axis, length in zip("xy", self.plane_size, strict=True):
            axes[axis] = {"length": length, "from": "pages"}
        return {
            "format": 1,
            "source": found.name,
            "files": len({plane.path for plane in found.planes.values()}),
            "planes": len(found.planes),
            "axes": axes,
            "data_type": self.data_type,
            "storage": dict(self.storage),
            "voxel_size": {
                axis: {"micrometres": float(edge), "from": origin} for axis, (edge, origin) in self.edges.items()
            },
            "channels": [{"index": index, **channel.to_json()} for index, channel in enumerate(found.channels)],
            "missing": [self._place(place) for place in missing[:_LISTED]],
            "missing_count": len(missing),
            "duplicates": [[plane.name for plane in several] for several in found.duplicates.values()][:_LISTED],
            "unreadable": list(found.unreadable),
            "dataset": None if self.source is None else self._dataset(self.source),
            "estimate": None if self.estimated is None else self.estimated.to_json(),
            "remarks": list(self.remarks),
            "problems": list(self.problems),
            "needed": list(self.needed),
        }

    def _place(self, place: Place) -> dict[str, Any]:
        axes = self.acquisition.axes
        labels = {axis: axes[axis].labels for axis in AXES}
        return {axis: labels[axis][at] if at < len(labels[axis]) else at for axis, at in zip(AXES, place, strict=True)}

    def _dataset(self, source: StackSource) -> dict[str, Any]:
        return {
            "size": list(source.size),
            "voxel_offset": list(source.bounds.start),
            "data_type": source.dtype.name,
            "num_channels": source.num_channels,
        }


def inspect_source(source: Sequence[str] | str, options: ConvertOptions) -> Inspection:
    """Understand a source as a conversion with these options would, reading headers and three chunks of voxels.

    Raises InvalidInput when no file matches, SourceError when no file is readable or pages cannot be placed.
    """
    acquisition = read_acquisition(source, options.source)
    planes = list(acquisition.planes.values())
    edges, voxel_remarks = known_edges(acquisition.metadata, options.voxel_size)
    problems, needed = [], _undecided(acquisition, options, edges)
    chosen, estimated = None, None
    try:
        check_expected(acquisition, options.source.expected)
    except SourceError as error:
        problems.append(str(error))
    try:
        chosen = stack_source(_stack(acquisition, options), options.source, options.dtype, options.segmentation)
        estimated = _estimated(chosen, edges, options)
    except SourceError as error:
        problems.append(str(error))
    except InvalidInput as error:
        needed.append(str(error))
    _, rows, columns = planes[0].shape
    return Inspection(
        acquisition,
        (columns, rows),
        planes[0].dtype.name,
        Counter(plane.storage for plane in planes if not plane.unreadable),
        edges,
        (*voxel_remarks, *_remarks(acquisition, edges), *(() if chosen is None else label_remarks(chosen.dtype))),
        tuple(problems),
        tuple(needed),
        chosen,
        estimated,
    )


def _remarks(acquisition: Acquisition, edges: Mapping[str, Known]) -> tuple[str, ...]:
    lengths = {axis: edge for axis, (edge, _) in edges.items()}
    return (*edge_remarks(lengths), *acquisition.metadata.remarks, *remarks(acquisition))


def _undecided(acquisition: Acquisition, options: ConvertOptions, edges: Mapping[str, Known]) -> list[str]:
    """What a conversion would ask for: a position, a time, and the edges of a voxel."""
    needed = []
    choice = options.source.choice
    for axis, wanted in (("p", choice.position), ("t", choice.time)):
        try:
            acquisition.chosen_one(axis, wanted)
        except InvalidInput as error:
            needed.append(str(error))
    lacking = [axis for axis in "xyz" if axis not in edges]
    if lacking:
        typed = ",".join("" if axis in edges else axis.upper() for axis in "xyz")
        needed.append(f"The voxel size of {', '.join(lacking)} is not known; add --voxel-size {typed} in µm.")
    return needed


def _stack(acquisition: Acquisition, options: ConvertOptions) -> Stack:
    """The stack that is chosen, or that of the first time and position for one who has not chosen yet."""
    choice = options.source.choice
    first = {axis: str(acquisition.axes[axis].labels[0]) for axis in "pt"}
    time = first["t"] if choice.time is None else choice.time
    position = first["p"] if choice.position is None else choice.position
    return acquisition.select(Choice(choice.channels, time, position))


def _estimated(source: StackSource, edges: Mapping[str, Known], options: ConvertOptions) -> Estimate:
    x, y, z = (edges[axis][0] if axis in edges else Fraction(1) for axis in "xyz")
    edges_um = source.view.permuted_edges((x, y, z))
    pyramid = levels(source.size, edges_um, options.pyramid, source.bounds.start)
    return estimate(source, pyramid, options.processes)


def lines(found: Inspection) -> list[str]:
    """The inspection as a person reads it."""
    acquisition, rows = found.acquisition, []
    columns, height = found.plane_size
    files = len({plane.path for plane in acquisition.planes.values()})
    rows.append(
        ("source", f"{acquisition.name}: {_counted(files, 'file')}, {_counted(len(acquisition.planes), 'plane')}")
    )
    rows.append(("x, y", f"{columns} × {height} pixels, {found.data_type}"))
    rows += [(axis, _axis(acquisition, axis)) for axis in "zctp" if axis in "zc" or acquisition.length(axis) > 1]
    for index, channel in enumerate(acquisition.channels):
        if len(acquisition.channels) > 1 or channel.name:
            described = " ".join(filter(None, (channel.name or "unnamed", channel.color)))
            rows.append((f"channel {index}", described))
    rows += [("stored", f"{name} ({_counted(count, 'plane')})") for name, count in found.storage.items()]
    known = [f"{axis} = {float(edge):g} µm ({origin})" for axis, (edge, origin) in found.edges.items()]
    rows.append(("voxel size", ", ".join(known) or "not known"))
    rows += _trouble(acquisition)
    if found.source is not None:
        rows.append(("dataset", _dataset(found.source)))
    if found.estimated is not None:
        rows.append(("takes about", _takes(found.estimated)))
    rows += [("note", remark) for remark in found.remarks]
    rows += [("needed", sentence) for sentence in found.needed]
    rows += [("problem", problem) for problem in found.problems]
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {text}" for name, text in rows]


def origin_of(acquisition: Acquisition, axis: str) -> str:
    """Who says how long an axis is, for a person."""
    origin = acquisition.axes[axis].origin
    if axis != "c" or acquisition.samples == 1:
        return origin
    return "samples of a pixel" if len(acquisition.axes["c"].labels) == 1 else f"{origin} and samples of a pixel"


def _counted(number: int, name: str) -> str:
    return f"{number} {name}" + ("" if number == 1 else "s")


def _axis(acquisition: Acquisition, axis: str) -> str:
    length, origin = acquisition.length(axis), origin_of(acquisition, axis)
    labels = acquisition.axes[axis].labels
    named = f": {abbreviated(labels)}" if axis != "c" and len(labels) > 1 else ""
    return f"{length}" + (f", from {origin}{named}" if length > 1 else "")


def _trouble(acquisition: Acquisition) -> list[tuple[str, str]]:
    missing = acquisition.all_missing()
    rows = [("missing", f"{_counted(len(missing), 'plane')}: {acquisition.described(missing)}")] if missing else []
    if gaps := acquisition.axes["z"].gaps:
        rows.append(("missing", f"no file has z = {abbreviated(gaps)}"))
    for several in list(acquisition.duplicates.values())[:_LISTED]:
        rows.append(("twice", " and ".join(plane.name for plane in several)))
    return rows + [("unreadable", sentence) for sentence in acquisition.unreadable]


def _dataset(source: StackSource) -> str:
    offset = "" if not any(source.bounds.start) else f" from {_text(source.bounds.start)} on"
    channels = f", {source.num_channels} channels" if source.num_channels > 1 else ""
    return f"{_text(source.size)} voxels{offset}, {source.dtype.name}{channels}"


def _takes(estimated: Estimate) -> str:
    processes = f"{estimated.processes} process" + ("es" if estimated.processes > 1 else "")
    return (
        f"{_bytes(estimated.deflated_bytes)} as tiff, {_bytes(estimated.raw_bytes)} as raw, all levels; "
        f"{_duration(estimated.seconds)} with {processes}"
    )


def _text(vector: Vector) -> str:
    return " × ".join(map(str, vector))


def _bytes(number: int) -> str:
    value, unit = float(number), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 0.1):.2g} s"
    minutes = ceil_divide((round(seconds), 1, 1), (60, 1, 1))[0]
    return f"{minutes} min" if minutes < 120 else f"{minutes / 60:.1f} h"
