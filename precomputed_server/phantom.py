"""A made-up piece of light-sheet tissue for the demo, with annotations that lie on what it shows.

Three channels: the nuclei of all cells, the bodies of glia, and nerve fibres. Cells lie in layers below a curved
surface, vessels are dark, the light weakens on its way from the left. Everything follows from the seed.

Positions are continuous voxel coordinates x, y, z: voxel i reaches from i to i + 1, its centre is i + 0.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
Points = NDArray[np.float64]
"""Positions "(N, 3)", x, y, z."""

VOXEL_SIZE_UM = (1.8, 1.8, 2.0)

_BRIGHTEST = 4095  # of a 12-bit camera
_DARK_LEVEL = 100  # what the camera records without light
_READ_NOISE = 6  # standard deviation
_CONTOUR_CORNERS = 16
_SLICES_WITH_CONTOURS = 5
_VOXELS_BETWEEN_FIBRE_POINTS = 8


@dataclass(frozen=True)
class Tissue:
    """`planes` are uint16 "(C=3, Z, Y, X)"; `annotations` are lists of annotation objects by leaf name."""

    planes: NDArray[np.uint16]
    annotations: dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class _Cell:
    """An ellipsoid; `axes` has one row for each half axis, a unit vector divided by its length in voxels."""

    centre: Points
    axes: Points
    brightness: float
    is_glia: bool


def tissue(shape_zyx: tuple[int, int, int] = (96, 512, 512), seed: int = 7) -> Tissue:
    """Make tissue of `shape_zyx` voxels (each axis from 32); the same seed gives the same tissue."""
    generator = np.random.default_rng(seed)
    surface = _surface(shape_zyx)
    cells = _cells(generator, shape_zyx, surface)
    fibres = [_fibre(generator, shape_zyx, surface) for _ in range(max(8, shape_zyx[0] * shape_zyx[1] // 200))]
    light = _illumination(shape_zyx)
    ground = _ground(generator, shape_zyx, surface)
    planes = np.empty((3, *shape_zyx), np.uint16)
    for channel, background in enumerate((90, 35, 55)):
        signal = background * ground
        if channel == 2:
            _draw_fibres(generator, signal, fibres)
        else:
            _draw_cells(signal, [cell for cell in cells if cell.is_glia or channel == 0])
        for z, plane in enumerate(signal):
            planes[channel, z] = _exposed(generator, plane * light[z])
    return Tissue(planes, _annotations(generator, shape_zyx, cells, fibres))


def _surface(shape: tuple[int, int, int]) -> Floats:
    """How deep each voxel lies below the curved surface of the tissue, in voxels, "(1, Y, X)"."""
    _, rows, columns = shape
    x = np.arange(columns, dtype=np.float32) / columns
    y = np.arange(rows, dtype=np.float32)[:, None]
    edge = rows * (0.10 + 0.06 * np.sin(2.6 * x + 0.4) + 0.015 * np.sin(11 * x))
    return np.asarray((y - edge)[None], np.float32)


def _illumination(shape: tuple[int, int, int]) -> Floats:
    """The light sheet enters from the left and is brightest at mid-height, "(Z, Y, X)" by broadcasting."""
    depth, rows, columns = (np.arange(length, dtype=np.float32) / length for length in shape)
    sheet = 0.72 + 0.28 * np.exp(-(((rows - 0.5) / 0.32) ** 2))
    return np.asarray((1 - 0.2 * depth)[:, None, None] * sheet[:, None] * np.exp(-0.55 * columns), np.float32)


def _ground(generator: np.random.Generator, shape: tuple[int, int, int], surface: Floats) -> Floats:
    """The unstained tissue around 1 "(Z, Y, X)": cloudy, dark in the vessels, almost black outside."""
    ground = 0.22 * _clouds(generator, shape, 64)
    ground += 0.14 * _clouds(generator, shape, 14)
    np.exp(ground, out=ground)
    ground *= 0.06 + 0.94 / (1 + np.exp(-surface / 2.5))
    vessels = np.zeros(shape, np.float32)
    for _ in range(max(2, shape[1] // 80)):
        path = _path(generator, shape, generator.uniform(0.1, 0.9, 3), generator.normal(0, (1, 1, 0.2)))[::2]
        _draw_tube(vessels, path, float(generator.uniform(2, 6)), np.ones(len(path)))
    vessels *= 1.6
    ground *= 1 - 0.7 * np.minimum(1, vessels)
    return ground


def _clouds(generator: np.random.Generator, shape: tuple[int, int, int], period: int) -> Floats:
    """Smooth noise "(Z, Y, X)" with deviations about 1 that changes over `period` voxels."""
    field = generator.normal(0, 1.6, [length // period + 3 for length in shape]).astype(np.float32)
    for length in shape:
        places = np.arange(length)[:, None] / period + 1 - np.arange(length // period + 3)
        weights = np.exp(-(places**2) / 0.7).astype(np.float32)
        weights /= weights.sum(axis=1, keepdims=True)
        field = np.tensordot(field, weights, axes=(0, 1))  # the new axis goes last: after three turns z is first
    return field


def _cells(generator: np.random.Generator, shape: tuple[int, int, int], surface: Floats) -> list[_Cell]:
    """Cells that do not touch, denser in some layers below the surface, none outside the tissue."""
    wanted = shape[0] * shape[1] * shape[2] // 13_000
    margin = 8.0
    low, high = np.full(3, margin), np.array(shape[::-1]) - margin
    kept = np.empty((0, 3))
    for centre in generator.uniform(low, high, (6 * wanted, 3)):
        depth = float(surface[0, int(centre[1]), int(centre[0])])
        layer = 0.35 + 0.65 * np.cos(depth / shape[1] * 17) ** 2
        crowded = bool(len(kept)) and float(np.min(np.sum((kept - centre) ** 2, axis=1))) < 11**2
        if depth > margin and generator.random() < layer and not crowded:
            kept = np.vstack([kept, centre])
    return [_cell(generator, centre) for centre in kept[:wanted]]


def _cell(generator: np.random.Generator, centre: Points) -> _Cell:
    is_glia = bool(generator.random() < 0.3)
    lengths = generator.uniform(2.4, 3.4, 3) if is_glia else generator.uniform(3.2, 5.2, 3)
    directions, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    return _Cell(centre, directions.T / lengths[:, None], float(generator.uniform(900, 2200)), is_glia)


def _draw_cells(signal: Floats, cells: list[_Cell], reach: int = 8) -> None:
    """Add soft ellipsoids to `signal` "(Z, Y, X)"; each lies within `reach` voxels of its centre."""
    for cell in cells:
        first = np.floor(cell.centre).astype(int) - reach
        x, y, z = (slice(max(0, start), start + 2 * reach + 1) for start in first)
        part = signal[z, y, x]
        box = np.indices(part.shape[::-1], np.float32).T + np.array([x.start, y.start, z.start]) + 0.5
        distance = np.sqrt(np.sum(((box - cell.centre) @ cell.axes.T) ** 2, axis=-1))
        part += cell.brightness / (1 + np.exp(7 * (distance - 0.95)))


def _fibre(generator: np.random.Generator, shape: tuple[int, int, int], surface: Floats) -> Points:
    """The way of one fibre inside the tissue: half run along a deep tract, half rise from it to the surface."""
    depth = generator.uniform(0.1, 0.9)
    if generator.random() < 0.5:
        path = _path(generator, shape, (0.01, generator.normal(0.82, 0.05), depth), (1, -0.15, 0))
    else:
        heading = (generator.normal(0, 0.25), -1, generator.normal(0, 0.08))
        path = _path(generator, shape, (generator.uniform(0.05, 0.95), generator.uniform(0.5, 0.8), depth), heading)
    columns, rows = path[:, :2].astype(int).T
    outside = np.flatnonzero(surface[0, rows, columns] < 6)
    return path[: outside[0]] if len(outside) else path


def _path(generator: np.random.Generator, shape: tuple[int, int, int], start: ArrayLike, heading: ArrayLike) -> Points:
    """A smooth way that bends at random, one position a voxel, until it comes near a side of the volume.

    `start` is a fraction of each axis, `heading` a direction, both x, y, z.
    """
    size, steps = np.array(shape[::-1], float), 2 * max(shape)
    pushes = generator.normal(0, (0.0017, 0.0017, 0.0005), (steps, 3))
    fading = 0.96 ** np.arange(100)
    bends = np.stack([np.convolve(push, fading)[:steps] for push in pushes.T], axis=1)
    directions = np.asarray(heading) / np.linalg.norm(heading) + np.cumsum(bends, axis=0)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    path: Points = np.clip(np.asarray(start) * size, 3, size - 3) + np.cumsum(directions, axis=0)
    outside = np.flatnonzero(np.any((path < 2) | (path > size - 2), axis=1))
    return path[: outside[0]] if len(outside) else path


def _draw_fibres(generator: np.random.Generator, signal: Floats, fibres: list[Points]) -> None:
    """Add fibres to `signal` "(Z, Y, X)": thin, with the thicker beads of axons."""
    drawn = np.zeros_like(signal)
    for path in fibres:
        beads = 1 + 0.45 * np.sin(np.arange(len(path)) * generator.uniform(0.2, 0.5)) ** 6
        _draw_tube(drawn, path, float(generator.uniform(0.8, 1.3)), beads * generator.uniform(500, 1700))
    signal += drawn


def _draw_tube(target: Floats, path: Points, radius: float, brightness: Points) -> None:
    """Raise `target` "(Z, Y, X)" to a tube along `path` whose brightness falls off as a bell curve of that radius."""
    reach = int(np.ceil(2.5 * radius))
    offsets = np.arange(-reach, reach + 1)
    for some in np.array_split(np.arange(len(path)), 1 + len(path) * len(offsets) ** 3 // 500_000):
        voxels = np.floor(path[some]).astype(int)[:, :, None] + offsets
        falloff = np.exp(-((voxels + 0.5 - path[some][:, :, None]) ** 2) / (2 * radius**2)).astype(np.float32)
        limits = np.array(target.shape[::-1])[:, None]
        falloff[(voxels < 0) | (voxels >= limits)] = 0
        (x, y, z), (at_x, at_y, at_z) = falloff.swapaxes(0, 1), np.clip(voxels, 0, limits - 1).swapaxes(0, 1)
        y *= brightness[some][:, None]
        values = z[:, :, None, None] * y[:, None, :, None] * x[:, None, None]
        rows = at_z[:, :, None, None] * target.shape[1] + at_y[:, None, :, None]
        np.maximum.at(
            target.reshape(-1), (rows * target.shape[2] + at_x[:, None, None]).reshape(-1), values.reshape(-1)
        )


def _exposed(generator: np.random.Generator, signal: Floats) -> NDArray[np.uint16]:
    """What a camera records of `signal` (photons, about): shot noise that grows with its root, and read noise."""
    noise = np.sqrt(2 * signal + _READ_NOISE**2) * generator.standard_normal(signal.shape, np.float32)
    counts: Floats = np.clip(np.rint(signal + noise + _DARK_LEVEL), 0, _BRIGHTEST)
    return counts.astype(np.uint16)


def _annotations(
    generator: np.random.Generator, shape: tuple[int, int, int], cells: list[_Cell], fibres: list[Points]
) -> dict[str, list[dict[str, Any]]]:
    """Some cell centres, some fibres, and the outlines of the cells that some slices cut; by leaf."""

    def annotation(kind: str, anntype: str, **where: Any) -> dict[str, Any]:
        identifier = generator.bytes(20).hex()
        return {"type": kind, "id": identifier, "anntype": anntype, **where, "reviewed": False, "visited": False}

    leaves = {
        "centroids": [annotation("point", _anntype(cell), point=_listed(cell.centre)) for cell in cells[::5]],
        "fibers": [
            annotation("linestring", "axon", points=[_listed(at) for at in points], length=_length_um(points))
            for points in (path[::_VOXELS_BETWEEN_FIBRE_POINTS] for path in fibres[::5])
            if len(points) > 4
        ],
    }
    for z in np.linspace(0, shape[0], _SLICES_WITH_CONTOURS + 2).astype(int)[1:-1]:
        leaves[f"z-{z:04d}"] = [
            annotation("polygon", _anntype(cell), points=corners) for cell, corners in _outlines(cells, int(z))
        ]
    return leaves


def _anntype(cell: _Cell) -> str:
    return "glia" if cell.is_glia else "neuron"


def _listed(position: Points) -> list[float]:
    return [round(float(number), 3) for number in position]


def _length_um(points: Points) -> float:
    steps = np.diff(points, axis=0) * VOXEL_SIZE_UM
    return round(float(np.sum(np.linalg.norm(steps, axis=1))), 1)


def _outlines(cells: list[_Cell], z: int) -> Iterator[tuple[_Cell, list[list[float]]]]:
    """Each cell that the middle of slice `z` cuts well, and the corners of its outline there."""
    turns = np.linspace(0, 2 * np.pi, _CONTOUR_CORNERS, endpoint=False)
    around = np.stack([np.cos(turns), np.sin(turns), np.zeros_like(turns)], axis=1)
    for cell in cells:
        height = np.array([0, 0, z + 0.5 - cell.centre[2]])
        if abs(height[2]) > 1.5:
            continue
        # On each ray from the cell's middle: |axes·(height + t·around)| = 1, a quadratic equation in t.
        constant, slopes = cell.axes @ height, around @ cell.axes.T
        a, b, c = np.sum(slopes**2, axis=1), slopes @ constant, constant @ constant - 1
        reach = (-b + np.sqrt(b**2 - a * c)) / a
        corners = cell.centre + height + reach[:, None] * around
        yield cell, [_listed(corner) for corner in corners]
