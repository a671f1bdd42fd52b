"""Labels by small blocks, each with a table of the labels in it and as few bits a voxel as the table needs.

Source: https://github.com/google/neuroglancer/blob/master/src/sliceview/compressed_segmentation/README.md
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from precomputed_server.errors import Unreadable
from precomputed_server.format.geometry import Vector, ceil_divide

Array = NDArray[Any]
Words = NDArray[np.uint32]

_WORD_BITS = 32
_BITS = np.array([0, 1, 2, 4, 8, 16, 32])
_OFFSET_BITS = 24
_OFFSETS = (1 << _OFFSET_BITS) - 1


def longest(chunk_size: Vector, block: Vector, label_bytes: int) -> int:
    """The bytes of a chunk in which no two voxels of a block have the same label, one channel."""
    blocks = prod(ceil_divide(chunk_size, block))
    voxels = prod(block)
    bits = int(_bits_for(np.array([voxels]))[0])
    return blocks * (8 + voxels * label_bytes + 4 * -(-voxels * bits // _WORD_BITS))


MAXIMUM_BYTES = 4 << _OFFSET_BITS
"""What a channel of a chunk may have: tables are found by 24 bits that count words of 4 bytes."""


def encode(labels: Array, block: Vector) -> bytes:
    """Encode "(C, Z, Y, X)" of uint32 or uint64; `block` is x, y, z. At most MAXIMUM_BYTES a channel come out right."""
    channels = [_encode_channel(np.ascontiguousarray(channel), block) for channel in labels]
    starts = np.cumsum([len(channels), *(len(words) for words in channels[:-1])])
    return np.concatenate([starts.astype(np.uint32), *channels]).astype("<u4").tobytes()


def decode(data: bytes, shape: tuple[int, int, int, int], dtype: np.dtype[Any], block: Vector) -> Array:
    """Decode to `shape` "(C, Z, Y, X)"; raises Unreadable."""
    try:
        words = np.frombuffer(data, "<u4").astype(np.uint32)
        channels = [_decode_channel(words[words[number] :], shape[1:], dtype, block) for number in range(shape[0])]
    except (ValueError, IndexError) as error:
        raise Unreadable("a chunk of compressed_segmentation is damaged.") from error
    return np.stack(channels)


def _encode_channel(labels: Array, block: Vector) -> Words:
    """Headers, then indices and table of each block: `labels` "(Z, Y, X)"."""
    blocks = _blocks(labels, block)
    order, table, counts = _tables(blocks)
    bits = _bits_for(counts)
    index_words = -(-bits * prod(block) // _WORD_BITS)
    label_words = labels.dtype.itemsize // 4
    lengths = index_words + counts * label_words
    starts = 2 * len(blocks) + np.cumsum(lengths) - lengths
    words = np.zeros(2 * len(blocks) + int(lengths.sum()), np.uint32)
    words[0 : 2 * len(blocks) : 2] = (starts + index_words) | bits << _OFFSET_BITS
    words[1 : 2 * len(blocks) : 2] = starts
    for width in np.unique(bits[bits > 0]):
        chosen = np.flatnonzero(bits == width)
        packed = _packed(order[chosen], int(width))
        words[starts[chosen, None] + np.arange(packed.shape[1])] = packed
    entries = counts * label_words
    first = np.repeat(starts + index_words - (np.cumsum(entries) - entries), entries)
    words[first + np.arange(int(entries.sum()))] = table.astype(table.dtype.newbyteorder("<")).view("<u4")
    return words


def _decode_channel(words: Words, shape: tuple[int, ...], dtype: np.dtype[Any], block: Vector) -> Array:
    grid = tuple(-(-length // edge) for length, edge in zip(shape, block[::-1], strict=True))
    count, voxels, label_words = prod(grid), prod(block), dtype.itemsize // 4
    headers = words[: 2 * count].reshape(count, 2).astype(np.int64)
    tables, bits, starts = headers[:, 0] & _OFFSETS, headers[:, 0] >> _OFFSET_BITS, headers[:, 1]
    if not np.isin(bits, _BITS).all():
        raise ValueError("no number of bits")
    blocks = np.empty((count, voxels), dtype.newbyteorder("="))
    for width in np.unique(bits):
        chosen = np.flatnonzero(bits == width)
        order = np.zeros((len(chosen), voxels), np.int64)
        if width:
            packed = words[starts[chosen, None] + np.arange(-(-width * voxels // _WORD_BITS))]
            order = _unpacked(packed, int(width))[:, :voxels]
        places = (tables[chosen, None] + order * label_words)[..., None] + np.arange(label_words)
        blocks[chosen] = words[places].astype("<u4").view(dtype.newbyteorder("<"))[..., 0]
    whole = blocks.reshape(*grid, *block[::-1]).transpose(0, 3, 1, 4, 2, 5)
    whole = whole.reshape([length * edge for length, edge in zip(grid, block[::-1], strict=True)])
    return whole[: shape[0], : shape[1], : shape[2]]


def _blocks(labels: Array, block: Vector) -> Array:
    """The blocks of "(Z, Y, X)", x fastest: "(blocks, voxels)"; partial ones are filled up with labels of theirs."""
    edges = block[::-1]
    padded = np.pad(labels, [(0, -length % edge) for length, edge in zip(labels.shape, edges, strict=True)], "edge")
    (z, y, x), (depth, rows, columns) = edges, padded.shape
    cut = padded.reshape(depth // z, z, rows // y, y, columns // x, x)
    return cut.transpose(0, 2, 4, 1, 3, 5).reshape(-1, prod(block))


def _tables(blocks: Array) -> tuple[Array, Array, Array]:
    """For each voxel the place of its label in the table of its block; all tables, ascending; how long each is."""
    places = np.zeros(blocks.shape, np.uint32)
    begins = np.zeros(blocks.shape, bool)
    begins[:, 0] = True
    ascending = blocks.copy()
    mixed = np.flatnonzero((blocks != blocks[:, :1]).any(axis=1))  # most blocks hold one label
    if len(mixed):
        by_label = np.argsort(blocks[mixed], axis=1, kind="stable")
        ascending[mixed] = np.take_along_axis(blocks[mixed], by_label, axis=1)
        begins[mixed, 1:] = ascending[mixed, 1:] != ascending[mixed, :-1]
        found = np.empty(by_label.shape, np.uint32)
        np.put_along_axis(found, by_label, (np.cumsum(begins[mixed], axis=1) - 1).astype(np.uint32), axis=1)
        places[mixed] = found
    return places, ascending[begins], begins.sum(axis=1)


def _bits_for(counts: Array) -> Array:
    """The least of the allowed numbers of bits that tell so many labels apart."""
    return _BITS[np.searchsorted(2.0**_BITS, counts)]


def _packed(places: Array, bits: int) -> Words:
    """Rows of numbers as words, the first in the lowest bits."""
    per_word = _WORD_BITS // bits
    padded = np.pad(places, [(0, 0), (0, -places.shape[1] % per_word)])
    shifted = padded.reshape(len(places), -1, per_word) << (bits * np.arange(per_word, dtype=np.uint32))
    words: Words = np.bitwise_or.reduce(shifted, axis=2)
    return words


def _unpacked(words: Words, bits: int) -> Array:
    """The numbers in rows of words."""
    shifts = bits * np.arange(_WORD_BITS // bits)
    return (words[..., None].astype(np.int64) >> shifts & ((1 << bits) - 1)).reshape(len(words), -1)
