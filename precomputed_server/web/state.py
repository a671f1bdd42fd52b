"""What the handlers of one worker share, and the rule that nothing waits for a disk on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from aiohttp import web

from precomputed_server.catalog.reading import CatalogReader
from precomputed_server.files import Tree, typed
from precomputed_server.mounts import is_local, read_mounts
from precomputed_server.readers.base import Place, Stacks
from precomputed_server.readers.volumes import Volumes
from precomputed_server.recent import Recent
from precomputed_server.settings import Settings
from precomputed_server.web.decoding import Decoder
from precomputed_server.web.turns import Turns

Result = TypeVar("Result")

_REMEMBERED_PLACES = 1024


class State:
    """The tree, its volumes and the thread pools of one worker; `viewer` holds the built Neuroglancer client.

    `open_stacks` finds the stacks of the tree that are served as they are.
    """

    def __init__(
        self, settings: Settings, viewer: Tree | None, open_stacks: Callable[[Tree], Stacks] | None = None
    ) -> None:
        self.settings = settings
        self.viewer = viewer
        self.stopping = asyncio.Event()
        self.tree = Tree(settings.root)
        self._stacks = None if open_stacks is None else open_stacks(self.tree)
        self.volumes = Volumes(self.tree, self._stacks, settings.header_memory // settings.workers // 2)
        self.catalog = CatalogReader(settings.state, settings.root)
        self.inline = is_local(read_mounts(settings.root))
        self.turns = Turns()
        self.places: Recent[str, tuple[float, Place]] = Recent(_REMEMBERED_PLACES)
        self.decoder = Decoder(settings, self.near)
        self._file_pool = ThreadPoolExecutor(settings.file_threads, "files")
        self._page_pool = ThreadPoolExecutor(1, "pages")

    def close(self) -> None:
        """Stop the threads and give the root back."""
        self._file_pool.shutdown(cancel_futures=True)
        self.decoder.close()
        self._page_pool.submit(self.catalog.close)
        self._page_pool.shutdown()
        if self._stacks is not None:
            self._stacks.close()
        self.tree.close()

    async def near(self, function: Callable[..., Result], *given: object) -> Result:
        """Call `function(*given, cached=True)` here when what it needs is in the page cache, else in a thread.

        OSErrors become the project's errors, except IsADirectoryError.
        """
        if self.inline:
            with contextlib.suppress(BlockingIOError), _typed_errors():
                return function(*given, cached=True)
        return await self.far(function, *given)

    async def far(self, function: Callable[..., Result], *given: object) -> Result:
        """Call `function` in a thread for file reads; errors as `near`."""
        with _typed_errors():
            return await asyncio.get_running_loop().run_in_executor(self._file_pool, function, *given)

    async def page(self, function: Callable[..., Result], *given: object) -> Result:
        """Call `function` in the one thread that asks the catalog, walks the tree, renders; errors as `near`."""
        with _typed_errors():
            return await asyncio.get_running_loop().run_in_executor(self._page_pool, function, *given)


@contextlib.contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except (BlockingIOError, IsADirectoryError):
        raise
    except OSError as error:
        raise typed(error, "What this path names") from error


STATE = web.AppKey("state", State)
