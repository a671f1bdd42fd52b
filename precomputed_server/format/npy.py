"""The header of a `.npy` file.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np


def npy_header(shape: Sequence[int], dtype: np.dtype[Any]) -> bytes:
    """Everything of the file of a C-order array that comes before its values."""
    header = io.BytesIO()
    described = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(header, described)
    return header.getvalue()
