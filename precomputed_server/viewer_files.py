"""Where the files of the Neuroglancer client lie that the `viewer` extra brings."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def client_directory() -> Path | None:
    """The built client that the `neuroglancer` package carries; None where it is not installed."""
    try:
        found = importlib.util.find_spec("neuroglancer")
    except ImportError:
        return None
    if found is None or found.origin is None:
        return None
    directory = Path(found.origin).parent / "static" / "client"
    return directory if directory.is_dir() else None
