"""Numbers of bytes as people write them: `512MiB`, `2GiB`, `1.5GB`."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d{1,30}(?:\.\d{1,9})?)\s*([KMGT]?)(i?)(B?)", re.IGNORECASE)
_LETTERS = " KMGT"


def parse_size(text: str) -> int | None:
    """The bytes of `512MiB`, `2GiB`, `1.5GB`, or of a plain number; None for what is no size.

    Units with an i, and those of one letter, are powers of 1024; `KB`, `MB`, `GB` and `TB` are powers of 1000.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        return None
    number, letter, binary, unit = match.groups()
    if "." in number and not letter:
        return None  # a part of a byte
    step = 1000 if unit and not binary else 1024
    whole, _, part = number.partition(".")
    factor: int = step ** _LETTERS.index(letter.upper() or " ")
    return int(whole + part) * factor // int("1" + "0" * len(part))


def shown_size(size: int) -> str:
    """A number of bytes with the largest unit of which it is a whole number: `64MiB`, and `1000` for a thousand."""
    power = 0
    while size and size % 1024 == 0 and power < len(_LETTERS) - 1:
        size //= 1024
        power += 1
    return f"{size}{_LETTERS[power]}iB" if power else str(size)
