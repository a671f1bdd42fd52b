"""The voxel size of a stack: given, or read from a TIFF's metadata, never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from converter.stacks.metadata import CENTIMETRE, INCH, Metadata
from converter.stacks.view import View
from precomputed_server.errors import InvalidInput

AXES = ("x", "y", "z")
GIVEN, CORRECTED, ASSUMED = "given", "corrected", "assumed"

_LEAST, _MOST = Fraction(1, 10**4), Fraction(1000)
"""Edges in micrometres that a voxel may have; others are likely to have been given in nm or mm."""

_MICROMETRES = {
    "pm": Fraction(1, 10**6),
    "å": Fraction(1, 10**4),
    "angstrom": Fraction(1, 10**4),
    "nm": Fraction(1, 1000),
    "nanometer": Fraction(1, 1000),
    "nanometre": Fraction(1, 1000),
    "um": Fraction(1),
    "µm": Fraction(1),
    "μm": Fraction(1),  # the Greek letter mu; the one above is the micro sign
    "micron": Fraction(1),
    "microns": Fraction(1),
    "micrometer": Fraction(1),
    "micrometre": Fraction(1),
    "mm": Fraction(1000),
    "millimeter": Fraction(1000),
    "millimetre": Fraction(1000),
    "cm": Fraction(10**4),
    "centimeter": Fraction(10**4),
    "centimetre": Fraction(10**4),
    "m": Fraction(10**6),
    "meter": Fraction(10**6),
    "metre": Fraction(10**6),
}

Edges = tuple[Fraction | None, Fraction | None, Fraction | None]
"""The edges of a voxel x, y, z in micrometres; None for one that is not known."""

UNKNOWN: Edges = (None, None, None)

GivenEdges = tuple[float | Fraction | None, float | Fraction | None, float | Fraction | None]
"""The same as a program gives them."""


@dataclass(frozen=True)
class VoxelSize:
    """The edges of a voxel x, y, z in micrometres, exact, and where each came from."""

    micrometres: tuple[Fraction, Fraction, Fraction]
    source: tuple[str, str, str]

    @property
    def nanometres(self) -> tuple[Fraction, Fraction, Fraction]:
        """The edges x, y, z in nanometres."""
        x, y, z = self.micrometres
        return x * 1000, y * 1000, z * 1000

    def seen(self, view: View) -> VoxelSize:
        """The edges along the axes of the dataset that a view makes of the stack."""
        x, y, z = (self.source[axis] for axis in view.order)
        return VoxelSize(view.permuted_edges(self.micrometres), (x, y, z))

    def to_json(self) -> dict[str, Any]:
        """The `voxel_size` of a dataset's record."""
        return {"micrometres": [float(edge) for edge in self.micrometres], "source": list(self.source)}

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> VoxelSize:
        """Read it from a record that this program wrote."""
        x, y, z = (Fraction(str(edge)) for edge in members["micrometres"])
        from_x, from_y, from_z = members["source"]
        return cls((x, y, z), (from_x, from_y, from_z))


@dataclass(frozen=True)
class _Found:
    """What metadata says: known edges by axis with their source, and remarks about what could not be used."""

    edges: Mapping[str, tuple[Fraction, str]]
    remarks: tuple[str, ...]


def exact_edges(edges: GivenEdges) -> Edges:
    """The edges as fractions: 0.65 is 13/20, as it is written. Raises InvalidInput for what is no length."""
    x, y, z = (edge if edge is None or isinstance(edge, Fraction) else _exact(edge) for edge in edges)
    return x, y, z


def _exact(edge: float) -> Fraction:
    try:
        return Fraction(str(edge))
    except ValueError as error:
        raise InvalidInput("The voxel size must be greater than zero in every axis, in µm.") from error


def parse_edges(text: str) -> Edges:
    """Read `X,Y,Z` in micrometres, exact; an empty part is left to the metadata. Raises InvalidInput."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3:
        raise InvalidInput(f"The voxel size {text!r} is not X,Y,Z in µm, such as 0.65,0.65,2 or ,,2.")
    x, y, z = (_edge(part, text) if part else None for part in parts)
    return x, y, z


def voxel_size(
    metadata: Metadata, given: GivenEdges, assumed: GivenEdges = UNKNOWN, corrected: Edges = UNKNOWN
) -> VoxelSize:
    """Choose each edge: what was given, else what it was corrected to, what the metadata says, what is assumed.

    Raises InvalidInput, with what was found and what to type, when an edge is still missing.
    """
    chosen, remarks = known_edges(metadata, given, assumed, corrected)
    if len(chosen) < len(AXES):
        raise InvalidInput(_incomplete(chosen, remarks))
    (x, y, z) = (chosen[axis] for axis in AXES)
    return VoxelSize((x[0], y[0], z[0]), (x[1], y[1], z[1]))


def known_edges(
    metadata: Metadata, given: GivenEdges, assumed: GivenEdges = UNKNOWN, corrected: Edges = UNKNOWN
) -> tuple[dict[str, tuple[Fraction, str]], tuple[str, ...]]:
    """The edges in micrometres that are known, by axis, with their source; and remarks on what could not be used."""
    found = _found(metadata)
    chosen: dict[str, tuple[Fraction, str]] = {}
    edges = zip(AXES, exact_edges(given), corrected, exact_edges(assumed), strict=True)
    for axis, wanted, said, fallback in edges:
        if wanted is not None:
            chosen[axis] = (wanted, GIVEN)
        elif said is not None:
            chosen[axis] = (said, CORRECTED)
        elif axis in found.edges:
            chosen[axis] = found.edges[axis]
        elif fallback is not None:
            chosen[axis] = (fallback, ASSUMED)
    return chosen, found.remarks


def edge_remarks(edges: Mapping[str, Fraction]) -> tuple[str, ...]:
    """What is to be said of edges in micrometres, by axis, that no microscope has."""
    odd = [f"{axis} = {float(edge):g} µm" for axis, edge in edges.items() if not _LEAST <= edge <= _MOST]
    if not odd:
        return ()
    return (f"The voxel size {', '.join(odd)} is below 0.1 nm or above 1 mm; --voxel-size is in µm.",)


def _edge(part: str, text: str) -> Fraction:
    try:
        edge = Decimal(part)
    except InvalidOperation as error:
        raise InvalidInput(f"The voxel size {text!r} is not three numbers in µm; {part!r} is none.") from error
    if not edge.is_finite() or edge <= 0:
        raise InvalidInput(f"The voxel size {text!r} must be greater than zero in every axis, in µm.")
    return Fraction(edge)


def _found(metadata: Metadata) -> _Found:
    """Metadata from the least to the most trusted, so that the later replace the earlier."""
    edges: dict[str, tuple[Fraction, str]] = {}
    remarks: list[str] = []
    for found in (_from_tags(metadata), _from_imagej(metadata), _from_ome(metadata)):
        edges.update(found.edges)
        remarks.extend(found.remarks)
    return _Found(edges, tuple(remarks))


def _from_ome(metadata: Metadata) -> _Found:
    edges, remarks = {}, []
    images = metadata.ome.images if metadata.ome else ()
    for axis, (size, unit) in (images[0].physical_sizes if images else {}).items():
        factor, number = _micrometres(unit), _number(size)
        if factor is not None and number is not None:
            edges[axis.lower()] = (number * factor, "OME")
        else:
            remarks.append(f"OME says {axis.lower()} = {size} {unit}")
    return _Found(edges, tuple(remarks))


def _from_imagej(metadata: Metadata) -> _Found:
    if not metadata.imagej:
        return _Found({}, ())
    unit = str(metadata.imagej.get("unit", "none"))
    units = {"x": unit, "y": str(metadata.imagej.get("yunit", unit)), "z": str(metadata.imagej.get("zunit", unit))}
    edges: dict[str, tuple[Fraction, str]] = {}
    remarks = []
    for axis, pixels in zip("xy", metadata.pixels_per_unit, strict=True):
        factor = _micrometres(units[axis])
        if pixels is not None and pixels != 1 and factor is not None:
            edges[axis] = (factor / pixels, "ImageJ")
        elif pixels is not None:
            remarks.append(f"ImageJ says {_plain(pixels)} pixels per {units[axis]} in {axis}")
    spacing, factor = _number(str(metadata.imagej.get("spacing", ""))), _micrometres(units["z"])
    if spacing is not None and factor is not None:
        edges["z"] = (spacing * factor, "ImageJ")
    elif spacing is not None:
        remarks.append(f"ImageJ says z = {_plain(spacing)} {units['z']}")
    return _Found(edges, tuple(remarks))


def _from_tags(metadata: Metadata) -> _Found:
    """Resolution tags in centimetres; inches are what image editors write without knowing."""
    edges: dict[str, tuple[Fraction, str]] = {}
    remarks = []
    unit = {INCH: "inch", CENTIMETRE: "cm"}.get(metadata.resolution_unit, "unknown unit")
    for axis, pixels in zip("xy", metadata.pixels_per_unit, strict=True):
        if pixels is None:
            continue
        if unit == "cm" and pixels != 1:
            edges[axis] = (10**4 / pixels, "resolution tag")
        elif not metadata.imagej:
            remarks.append(f"the resolution tag says {_plain(pixels)} pixels per {unit} in {axis}")
    return _Found(edges, tuple(remarks))


def _incomplete(chosen: Mapping[str, tuple[Fraction, str]], remarks: tuple[str, ...]) -> str:
    known = [f"{axis} = {_plain(edge)} µm ({source})" for axis, (edge, source) in chosen.items()]
    missing = [axis for axis in AXES if axis not in chosen]
    typed = ",".join("" if axis in chosen else axis.upper() for axis in AXES)
    facts = "; ".join([*known, *remarks]) or "the TIFF's metadata has none"
    return (
        f"The voxel size of {', '.join(missing)} is not known (found: {facts}); "
        f"add --voxel-size {typed} with {' and '.join(axis.upper() for axis in missing)} in µm."
    )


def _micrometres(unit: str) -> Fraction | None:
    # ImageJ writes the micro sign as an escape of six ASCII characters
    return _MICROMETRES.get(unit.replace("\\u00B5", "µ").strip().lower())


def _number(text: str) -> Fraction | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return Fraction(number) if number.is_finite() and number > 0 else None


def _plain(value: Fraction) -> str:
    return f"{float(value):.10g}"
