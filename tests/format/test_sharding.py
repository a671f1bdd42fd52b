"""Shards: the arithmetic against the specification's own words, and against tensorstore's shards."""

from __future__ import annotations

import gzip
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import tensorstore
from hypothesis import given, settings
from hypothesis import strategies as st

from precomputed_server.errors import Unreadable
from precomputed_server.format.geometry import Vector
from precomputed_server.format.sharding import (
    Listed,
    Sharding,
    chunk_cell,
    chunk_number,
    code_bits,
    listed_chunks,
    minishard_index,
    minishard_range,
    shard_index,
)

grids = st.tuples(*[st.integers(1, 70)] * 3)


def by_the_specification(cell: Vector, grid: Vector) -> int:
    """The compressed Morton code, step by step as volume.md has it."""
    code = place = 0
    for bit in range(64):
        for axis in range(3):
            if 2**bit < grid[axis]:
                code |= ((cell[axis] // 2**bit) % 2) << place
                place += 1
    return code


@given(grids, st.data())
def test_numbers_of_chunks_are_compressed_morton_codes(grid: Vector, data: st.DataObject) -> None:
    x, y, z = (data.draw(st.integers(0, length - 1)) for length in grid)
    number = chunk_number((x, y, z), grid)
    assert number == by_the_specification((x, y, z), grid)
    assert number < 1 << len(code_bits(grid))
    assert chunk_cell(number, grid) == (x, y, z)


@given(st.tuples(*[st.integers(1, 9)] * 3))
def test_no_two_chunks_have_the_same_number(grid: Vector) -> None:
    numbers = {chunk_number((x, y, z), grid) for x, y, z in product(*map(range, grid))}
    assert len(numbers) == grid[0] * grid[1] * grid[2]


def test_the_example_of_the_specification() -> None:
    """An axis of 42,943 cells has 16 bits, one of 24 bits goes on alone."""
    bits = code_bits((42_943, 1 << 14, 1 << 24))
    assert [sum(axis == each for axis, _ in bits) for each in range(3)] == [16, 14, 24]
    assert bits[-8:] == [(2, bit) for bit in range(16, 24)]


@given(st.lists(st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)), unique_by=lambda pair: pair[0]))
def test_an_index_tells_what_was_put_into_it(chunks: list[tuple[int, int]]) -> None:
    listed, offset = [], 17
    for number, length in sorted(chunks):
        listed.append(Listed(number, offset, length))
        offset += length + number % 3  # gaps are allowed
    assert list(listed_chunks(minishard_index(listed))) == listed


@given(st.lists(st.integers(0, 2**63), min_size=2, max_size=6), st.permutations(range(6)))
def test_chunks_may_lie_in_any_order(numbers: list[int], order: list[int]) -> None:
    listed = [Listed(number, 1000 * place, 10) for number, place in zip(sorted(set(numbers)), order, strict=False)]
    assert list(listed_chunks(minishard_index(listed))) == listed


def test_damaged_indices_are_told_from_empty_ones() -> None:
    assert list(listed_chunks(b"")) == []
    assert minishard_range(shard_index([(0, 0)])) == (0, 0)
    with pytest.raises(Unreadable):
        list(listed_chunks(bytes(23)))
    with pytest.raises(Unreadable):
        minishard_range(bytes(15))
    with pytest.raises(Unreadable):
        minishard_range(shard_index([(8, 7)]))


@st.composite
def shardings(draw: st.DrawFn) -> Sharding:
    encoding = st.sampled_from(["raw", "gzip"])
    return Sharding(
        preshift_bits=draw(st.integers(0, 8)),
        minishard_bits=draw(st.integers(0, 5)),
        shard_bits=draw(st.integers(0, 9)),
        hash=draw(st.sampled_from(["identity", "murmurhash3_x86_128"])),
        minishard_index_encoding=draw(encoding),
        data_encoding=draw(encoding),
    )


@settings(deadline=None, max_examples=60)
@given(shardings(), st.sets(st.integers(0, 2**64 - 1), min_size=1, max_size=12))
def test_what_tensorstore_packed_is_found(
    tmp_path_factory: pytest.TempPathFactory, sharding: Sharding, numbers: set[int]
) -> None:
    directory = tmp_path_factory.mktemp("shards")
    spec = {"driver": "neuroglancer_uint64_sharded", "metadata": sharding.to_json(), "base": f"file://{directory}/"}
    store = tensorstore.KvStore.open(spec).result()
    for number in numbers:
        store[number.to_bytes(8, "big")] = b"chunk %d" % number
    assert Sharding.from_json(sharding.to_json()) == sharding
    for number in numbers:
        assert found(directory, sharding, number) == b"chunk %d" % number


def found(directory: Path, sharding: Sharding, number: int) -> bytes:
    shard, minishard = sharding.place(number)
    content = (directory / sharding.file_name(shard)).read_bytes()
    start, end = minishard_range(content[16 * minishard : 16 * minishard + 16])
    index, base = content[sharding.index_bytes + start : sharding.index_bytes + end], sharding.index_bytes
    if sharding.minishard_index_encoding == "gzip":
        index = gzip.decompress(index)
    (listed,) = (listed for listed in listed_chunks(index) if listed.number == number)
    stored = content[base + listed.offset : base + listed.offset + listed.length]
    return gzip.decompress(stored) if sharding.data_encoding == "gzip" else stored


GOOD: dict[str, Any] = Sharding(6, 3, 2).to_json()


@pytest.mark.parametrize(
    "changes",
    [
        {"@type": "neuroglancer_uint64_sharded_v2"},
        {"hash": "md5"},
        {"preshift_bits": "6"},
        {"minishard_bits": -1},
        {"shard_bits": None},
        {"shard_bits": 65},
        {"data_encoding": "zstd"},
    ],
)
def test_sharding_of_another_kind_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        Sharding.from_json({**GOOD, **changes})
    assert Sharding.from_json(GOOD) == Sharding(6, 3, 2)
