"""Where served stacks join the server: its readers know volumes, the converter knows planes, and this both.

The converter is loaded when the first stack is met: most servers have none.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from precomputed_server.catalog.indexer import Hints
from precomputed_server.errors import Busy, InvalidInput
from precomputed_server.files import Tree, join
from precomputed_server.format.names import RECORD
from precomputed_server.limits import memory_limit
from precomputed_server.local_state import STACKS, WANTED, state_of
from precomputed_server.readers.base import ServedStack, Stacks
from precomputed_server.readers.stored import open_stored
from precomputed_server.settings import Settings
from precomputed_server.writing import exclusive_lock

_log = logging.getLogger("precomputed_server")

_LOCK = "lock"
_AGAIN_S = 1.0
_BUILDER_BYTES = 512 << 20
_SAID = b'"stack"'
"""What the record of a stack that is served as it is has in it, and others hardly ever have."""


def open_stacks(settings: Settings, tree: Tree, *, counts_use: bool = True) -> Stacks:
    """The stacks beneath the root of `settings` that are served as they are; the caller closes them.

    Looking at a stack is using it, unless it is said not to count.
    """

    def load() -> Stacks:
        from converter.served.stacks import Keeping, PublishedStacks

        memory = min(settings.stack_memory, memory_limit() // 4) // max(1, settings.workers)
        keeping = Keeping(_directory(settings), memory, settings.stack_cache, counts_use)
        return PublishedStacks(tree, settings.root, keeping, unasked)

    unasked = matching(settings.serve_stacks)
    return _WhenMet(tree, unasked, load)


class _WhenMet:
    """Stacks that are loaded when there is one."""

    def __init__(self, tree: Tree, unasked: Callable[[str], bool], load: Callable[[], Stacks]) -> None:
        self._tree, self._unasked, self._load = tree, unasked, load
        self._loading = threading.Lock()
        self._stacks: Stacks | None = None

    def at(self, path: str, *, cached: bool = False) -> ServedStack | None:
        """See `Stacks`."""
        found = self._stacks
        if found is None:
            if not self._unasked(path) and not self._is_said(path, cached=cached):
                return None
            if cached:
                raise BlockingIOError(errno.EAGAIN, "the reader of stacks is not loaded yet")
            found = self._loaded()
        return found.at(path, cached=cached)

    def close(self) -> None:
        """See `Stacks`."""
        if self._stacks is not None:
            self._stacks.close()

    def _loaded(self) -> Stacks:
        with self._loading:
            if self._stacks is None:
                self._stacks = self._load()
            return self._stacks

    def _is_said(self, path: str, *, cached: bool) -> bool:
        try:
            with open_stored(self._tree, join(path, RECORD), cached=cached) as stored:
                return _SAID in bytes(stored.read(cached=cached))
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False


def keep_levels(settings: Settings, hints: Hints) -> None:
    """Make coarser levels of stacks that people look at until the hints are stopped, if no other process does."""
    said = ""
    while not hints.is_stopped:
        try:
            directory = _directory(settings)
            if directory is not None:
                _keep_levels(settings, directory, hints)
        except Busy:
            pass
        except OSError as error:
            if str(error) != said:
                said = str(error)
                _log.warning("coarser levels of stacks are not made: %s", said)
        hints.wait(_AGAIN_S)  # nobody gives any: for the end


def _keep_levels(settings: Settings, directory: Path, hints: Hints) -> None:
    """Do so while the directory of the state is there; raises Busy when another process does."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with exclusive_lock(opened, _LOCK, 0):
            while not any(directory.glob(f"*/{WANTED}")):
                hints.wait(_AGAIN_S)
                if hints.is_stopped or not directory.exists():
                    return
            from converter.served.keeping import LevelKeeper  # here: it loads the converter

            memory = min(_BUILDER_BYTES, memory_limit() // 4)
            keeper = LevelKeeper(settings.root.absolute(), directory, settings.stack_cache, memory)
            while not hints.is_stopped:
                if not keeper.turn(lambda: hints.is_stopped):
                    hints.wait(_AGAIN_S)
    finally:
        os.close(opened)


def _directory(settings: Settings) -> Path | None:
    """Where headers and levels are kept; None where there is no state directory: others have said why."""
    with contextlib.suppress(InvalidInput, OSError):
        directory = state_of(settings.state, settings.root) / STACKS
        directory.mkdir(0o700, exist_ok=True)
        return directory
    return None


def matching(pattern: str) -> Callable[[str], bool]:
    """Tells the paths that a pattern means: `*` stands for a part of a name, `**` for any directories, none included.

    An empty pattern means none.
    """
    wanted = tuple(part for part in pattern.split("/") if part)
    return lambda path: bool(wanted) and _matches(tuple(path.split("/")) if path else (), wanted)


def _matches(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
    if not wanted:
        return not parts
    if wanted[0] == "**":
        return any(_matches(parts[count:], wanted[1:]) for count in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0]) and _matches(parts[1:], wanted[1:])
