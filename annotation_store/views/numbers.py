"""The numbers by which Neuroglancer knows what we name by texts. Pure.

Its annotations have ids of 64 bits, and the values of our enumerations 31: both are the beginning of the text's
SHA-256, the most significant byte first, so that every server gives the same ones without asking another. What becomes
of two ids with the same number is said in `collisions`.
"""

from __future__ import annotations

import functools
import hashlib
import re

ID_BITS = 64
_NUMBER = re.compile(r"0|[1-9][0-9]{0,19}")
_LABELS = 1 << 14

NOBODY = 0
"""The number of the empty text: no such field, or an author whom nobody knows."""


def number_of(id: str) -> int:
    """The number of an annotation's id unless another one has it: the first 8 bytes of its SHA-256, big-endian."""
    return int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big")


@functools.lru_cache(_LABELS)
def label_number(text: str) -> int:
    """The number of an anntype or an author: the first 31 bits of its SHA-256 as a number, from 1; 0 for no text."""
    if not text:
        return NOBODY
    return max(1, int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1)


def parse_number(text: str) -> int | None:
    """The number of 64 bits that is spelled so, without leading zeros; None for any other text."""
    number = int(text) if _NUMBER.fullmatch(text) else 1 << ID_BITS
    return number if number < 1 << ID_BITS else None
