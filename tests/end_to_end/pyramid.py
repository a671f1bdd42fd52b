"""numpy's own idea of a pyramid and of its chunks, written without the project's code. Arrays are "(C, Z, Y, X)"."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.end_to_end.wire import Connection

Voxels = NDArray[Any]


def pyramid(voxels: Voxels, keys: Sequence[str], *, labels: bool = False) -> dict[str, Voxels]:
    """Each level by its key (`2_2_1`, factors x, y, z from full resolution), made from the level before it."""
    levels = {}
    factors = (1, 1, 1)
    for key in keys:
        wanted = tuple(int(number) for number in key.split("_"))
        x, y, z = (whole // before for whole, before in zip(wanted, factors, strict=True))
        neighbours = _neighbours(voxels, (z, y, x))
        voxels = (_most_frequent if labels else _average)(neighbours, voxels.dtype)
        levels[key] = voxels
        factors = (wanted[0], wanted[1], wanted[2])
    return levels


def fetch_level(
    connection: Connection, dataset: str, info: dict[str, Any], key: str, *, suffix: str = "", encoding: str = ""
) -> Voxels:
    """Every chunk of a level, each by a request of its own, put together.

    `suffix` goes behind each chunk's name, `encoding` is the one value of Accept-Encoding.
    """
    scale = next(scale for scale in info["scales"] if scale["key"] == key)
    dtype = np.dtype(info["data_type"]).newbyteorder("<")
    width, height, depth = scale["size"]
    level = np.zeros((info["num_channels"], depth, height, width), dtype)
    for (x0, x1), (y0, y1), (z0, z1) in _boxes(scale["size"], scale["chunk_sizes"][0]):
        name = f"{x0}-{x1}_{y0}-{y1}_{z0}-{z1}{suffix}"
        answer = connection.get(f"{dataset}/{key}/{name}", **({"accept_encoding": encoding} if encoding else {}))
        assert answer.status == 200, f"{name}: {answer.status} {answer.body[:200]!r}"
        found = answer.headers.get("content-encoding", "")
        assert found in ("", encoding), f"{name} came as {found}, which was not asked for"
        body = zlib.decompress(answer.body) if found == "deflate" else answer.body
        shape = (info["num_channels"], z1 - z0, y1 - y0, x1 - x0)
        level[:, z0:z1, y0:y1, x0:x1] = np.frombuffer(body, dtype).reshape(shape)
    return level


def _boxes(size: Sequence[int], step: Sequence[int]) -> Iterator[tuple[tuple[int, int], ...]]:
    """First and last + 1 voxel of every chunk in x, y and z."""
    ranges = ([(at, min(at + s, n)) for at in range(0, n, s)] for n, s in zip(size, step, strict=True))
    return product(*ranges)


def _neighbours(voxels: Voxels, step: tuple[int, int, int]) -> np.ma.MaskedArray[Any, Any]:
    """The voxels that become one, along a new first axis; masked where the volume ends before."""
    channels, *size = voxels.shape
    padded_size = [-(-length // s) * s for length, s in zip(size, step, strict=True)]
    padded = np.ma.array(np.zeros((channels, *padded_size), voxels.dtype), mask=True)
    padded[:, : size[0], : size[1], : size[2]] = voxels
    return np.ma.stack([padded[:, z :: step[0], y :: step[1], x :: step[2]] for z, y, x in product(*map(range, step))])


def _average(neighbours: np.ma.MaskedArray[Any, Any], dtype: np.dtype[Any]) -> Voxels:
    """Over those that exist and are numbers, in float64, halves to even."""
    there = ~np.ma.getmaskarray(neighbours)
    values = neighbours.filled(0).astype(np.float64)
    there &= ~np.isnan(values)
    count = there.sum(axis=0)
    total = np.where(there, values, 0).sum(axis=0)
    average = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    rounded: Voxels = average if dtype.kind == "f" else np.rint(average)
    return rounded.astype(dtype)


def _most_frequent(neighbours: np.ma.MaskedArray[Any, Any], dtype: np.dtype[Any]) -> Voxels:
    """The label that most of those have that exist; of several the smallest."""
    there = ~np.ma.getmaskarray(neighbours)
    values = neighbours.filled(0)
    votes = np.stack([((values == value) & there).sum(axis=0) for value in values])
    winners = (votes == votes.max(axis=0)) & there
    highest = np.iinfo(dtype).max
    smallest: Voxels = np.where(winners, values, highest).min(axis=0)
    return smallest.astype(dtype, copy=False)
