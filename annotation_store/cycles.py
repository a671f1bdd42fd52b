"""Parsing without Python's search for cycles, which JSON has none of."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Look for no cycles meanwhile: where millions of lists are made or held, that takes most of the time."""
    if not gc.isenabled():  # another thread is at it, and will enable it
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
