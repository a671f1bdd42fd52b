"""Serve Neuroglancer-precomputed volumes and their annotations from a directory on disk; convert TIFF stacks to them.

`from precomputed_server import convert, ConvertOptions` converts from Python. The converter is imported when it is
asked for: serving needs none of it. What type checkers see stands in `__init__.pyi`.
"""

import importlib

__version__ = "0.1.0"

_OF_THE_CONVERTER = ("ConvertOptions", "Summary", "convert", "source_options")


def __getattr__(name: str) -> object:
    if name in _OF_THE_CONVERTER:
        return getattr(importlib.import_module("converter"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_OF_THE_CONVERTER})
