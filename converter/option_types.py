"""Whether options that a program gives are of the kinds that they have to be, said in a sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

import numpy as np

from converter.stacks.source_options import SourceOptions
from precomputed_server.errors import InvalidInput


@dataclass(frozen=True)
class _Kind:
    text: str
    fits: Callable[[Any], bool]
    optional: bool = False


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_three_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def three(value: object) -> bool:
        if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, np.ndarray)):
            return False
        return len(value) == 3 and all(fits(each) for each in value)

    return three


def _is_length(value: object) -> bool:
    return value is None or (isinstance(value, (Real, Decimal, str)) and not isinstance(value, bool))


_WHOLE, _WHOLE_OR_NONE = (_Kind("a whole number", _is_whole, optional) for optional in (False, True))
_TEXT, _TEXT_OR_NONE = (_Kind("a text", lambda value: isinstance(value, str), optional) for optional in (False, True))
_FLAG = _Kind("True or False", lambda value: isinstance(value, (bool, np.bool_)))
_VECTOR, _VECTOR_OR_NONE = (
    _Kind("three whole numbers x, y, z", _is_three_of(_is_whole), optional) for optional in (False, True)
)
_EDGES = _Kind("three lengths x, y, z in µm, or None for what the TIFF says", _is_three_of(_is_length))

_KINDS: Mapping[str, _Kind] = {
    "voxel_size": _EDGES,
    "assumed_voxel_size": _EDGES,
    "levels": _WHOLE_OR_NONE,
    "downsample": _VECTOR_OR_NONE,
    "chunk_size": _VECTOR,
    "format": _TEXT,
    "compress": _TEXT_OR_NONE,
    "encoding": _TEXT,
    "jpeg_quality": _WHOLE,
    "shard_size": _WHOLE,
    "segmentation": _FLAG,
    "downsample_method": _TEXT_OR_NONE,
    "dtype": _TEXT_OR_NONE,
    "jobs": _WHOLE_OR_NONE,
    "max_memory": _WHOLE_OR_NONE,
    "scheduler": _TEXT_OR_NONE,
    "on_error": _TEXT,
    "overwrite": _FLAG,
    "annotations": _TEXT_OR_NONE,
    "annotation_block": _VECTOR_OR_NONE,
    "source": _Kind("what source_options(…) gives", lambda value: isinstance(value, SourceOptions)),
}


def plain(name: str, value: Any) -> Any:  # noqa: ANN401
    """The option as Python's own numbers and tuples; raises InvalidInput for one of another kind."""
    kind = _KINDS[name]
    if value is None and kind.optional:
        return None
    if not kind.fits(value):
        none = ", or None" if kind.optional else ""
        raise InvalidInput(f"{name} is {value!r}, but has to be {kind.text}{none}.")
    if kind.text == _VECTOR.text:
        return tuple(map(int, value))
    return int(value) if kind.text == _WHOLE.text else bool(value) if kind is _FLAG else value
