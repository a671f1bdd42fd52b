"""Reading the headers of many files: several at a time where the disk, or a network, answers each slowly."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from converter.stacks.planes import TiffContent, read_content
from precomputed_server.errors import SourceError

_THREADS = 8
_FEW = 16

Admit = Callable[[str], None]
"""Raises SourceError for a file that may not be opened; asked before anything of it is read."""


def admit_all(path: str) -> None:
    """Let each file be opened: who converts may read what he names."""


def read_each(paths: Sequence[str], with_metadata: bool = True, admit: Admit = admit_all) -> list[TiffContent | str]:
    """The content of each file in turn, or the sentence that says why it cannot be read."""
    read = partial(_content_or_reason, with_metadata=with_metadata, admit=admit)
    began, worked = time.perf_counter(), time.thread_time()
    found = [read(path) for path in paths[:_FEW]]
    worked = time.thread_time() - worked
    waited = time.perf_counter() - began - worked
    rest = paths[_FEW:]
    if waited < worked:  # threads would only wait for each other
        return [*found, *map(read, rest)]
    with ThreadPoolExecutor(_THREADS) as pool:
        return [*found, *pool.map(read, rest)]


def _content_or_reason(path: str, with_metadata: bool, admit: Admit) -> TiffContent | str:
    try:
        admit(path)
        return read_content(path, with_metadata)
    except SourceError as error:
        return str(error)
