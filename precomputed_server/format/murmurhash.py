"""MurmurHash3_x86_128 of a chunk's number, by which other writers may spread chunks over shards.

Source: https://github.com/aappleby/smhasher (public domain), for keys of eight bytes and the seed 0.
"""

from __future__ import annotations

_MASK = 0xFFFFFFFF
_FIRST, _SECOND, _THIRD = 0x239B961B, 0xAB0E9789, 0x38B34AE5
_KEY_BYTES = 8


def murmurhash3_x86_128(key: bytes) -> int:
    """The low 64 bits of the hash of eight bytes."""
    low, high = int.from_bytes(key[:4], "little"), int.from_bytes(key[4:_KEY_BYTES], "little")
    second = _times(_rotated(_times(high, _SECOND), 16), _THIRD)
    first = _times(_rotated(_times(low, _FIRST), 15), _SECOND)
    state = [first ^ _KEY_BYTES, second ^ _KEY_BYTES, _KEY_BYTES, _KEY_BYTES]
    state = _mixed([_finished(word) for word in _mixed(state)])
    return state[0] | state[1] << 32


def _mixed(state: list[int]) -> list[int]:
    """The first word plus all others, each other plus that."""
    total = sum(state) & _MASK
    return [total, *((word + total) & _MASK for word in state[1:])]


def _finished(word: int) -> int:
    word = _times(word ^ word >> 16, 0x85EBCA6B)
    word = _times(word ^ word >> 13, 0xC2B2AE35)
    return word ^ word >> 16


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & _MASK


def _times(word: int, factor: int) -> int:
    return word * factor & _MASK
