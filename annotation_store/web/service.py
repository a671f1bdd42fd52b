"""What the annotation handlers of one worker share: where leaves lie, the store to read, and who commits."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

from aiohttp import web

from annotation_store.blocks import Blocks, Location
from annotation_store.committing.leaf import Snapshot
from annotation_store.extent import Extent
from annotation_store.orders import EdgesNm, Order, Outcome
from annotation_store.pages.refused import RefusedSaves
from annotation_store.store import REFUSED, AnnotationStore
from annotation_store.web.feeds import Feeds
from annotation_store.web.gatherer import Committer, Gatherer, within
from annotation_store.web.large import LargeProcess, check_large
from annotation_store.web.writer_client import WriterClient
from precomputed_server.errors import Busy, NotFound, PrecomputedError, WritesRefused
from precomputed_server.files import Tree, typed
from precomputed_server.format.names import SWAP
from precomputed_server.local_state import usable_state
from precomputed_server.mounts import is_local, read_mounts, why_not_writable
from precomputed_server.readers.volumes import Volumes
from precomputed_server.recent import Recent
from precomputed_server.settings import Settings
from precomputed_server.web.body import Budget
from precomputed_server.web.targets import Target

Result = TypeVar("Result")

_PLACES = 4096
_PLACE_S = 1.0
"""For how long a name in a URL means the same file without looking again."""
_EXPORTERS = 2
_CHECKED_HERE = 1 << 20
"""Bytes up to which a file that is not known is checked in a thread: the interpreter is held for 10 ms."""


@dataclass(frozen=True)
class Place:
    """Where a leaf of a URL lies, the edges of its volume's voxel, x, y, z, and about how many bytes it has.

    `extent` is the volume's, where single annotations are held against it.
    """

    dataset: str
    block: str
    location: Location
    edges_nm: EdgesNm
    size: int
    extent: Extent | None = None


class AnnotationService:
    """The annotations of one worker; with `remote`, another process of this host commits."""

    def __init__(self, settings: Settings, tree: Tree, volumes: Volumes, *, remote: bool = False) -> None:
        self.settings = settings
        self._volumes = volumes
        self.state = state = usable_state(settings.state, settings.root)
        self.store = AnnotationStore.of(settings, state, tree)
        self.refused = RefusedSaves(None if state is None else state / REFUSED, settings.kept_saves)
        self.large = LargeProcess(settings)
        self.bodies = Budget(settings.body_memory)
        # Who commits may wait for a lock; who reads must not wait for them.
        self._readers = ThreadPoolExecutor(settings.write_threads, "annotations")
        # Nor must they wait for those who have whole datasets read.
        self._exporters = ThreadPoolExecutor(_EXPORTERS, "exports")
        self._committer: Committer = (
            WriterClient(settings) if remote else Gatherer(self.store, settings, self.large.commit)
        )
        self.feeds = Feeds(self.store, self._committer.watch, settings.streams_per_address)
        self._places: Recent[tuple[str, str, str], tuple[float, Place]] = Recent(_PLACES)
        self._inline = is_local(read_mounts(settings.root))
        self.refusal: str | None = None

    async def close(self) -> None:
        """Finish the commits that are under way."""
        await self.feeds.close()
        await self._committer.close()
        await asyncio.to_thread(self._close_threads)

    def _close_threads(self) -> None:
        self.large.close()
        self._readers.shutdown()
        self._exporters.shutdown()

    async def probe(self) -> None:
        """Find out whether edits are safe on this mount."""
        root, single = self.settings.root, self.settings.single_host
        mounts = await self.call(read_mounts, root)
        self.refusal = await self.call(functools.partial(why_not_writable, root, single_host=single, mounts=mounts))

    async def blocks(self, dataset: str) -> Blocks:
        """The blocks of the dataset at `dataset`; raises NotFound where there is none."""
        return await self.call(self._find_blocks, dataset)

    async def place(self, target: Target) -> Place:
        """The leaf that a path names; raises NotFound, InvalidInput."""
        parts = target.parts
        key = (parts["dataset"], parts["block"], parts["leaf"])
        now = asyncio.get_running_loop().time()
        known = self._places.get(key)
        if known is not None and now < known[0]:
            return known[1]
        place = await self.call(self._find_place, parts)
        self._places.put(key, (now + _PLACE_S, place))
        return place

    async def snapshot(self, location: Location) -> Snapshot:
        """The leaf's newest bytes, known to be JSON; raises NotFound, Unreadable."""
        found = await self._load(location)
        if found is None:
            raise NotFound("There are no annotations in this file yet.")
        if self.store.is_good(found):
            return found
        if len(found.data) > _CHECKED_HERE:
            found = await self.large.call(check_large, location)
            self.store.mark_good(found.etag)
            return found
        return await self.call(self.store.check, location)

    async def commit(self, order: Order, size: int = 0) -> list[Outcome]:
        """Carry out an order that edits a file of `size` bytes; raises the error that it ended with."""
        if self.refusal is not None:
            raise WritesRefused(f"This server takes no edits because {self.refusal}.")
        answer = await self._committer.submit(replace(order, stored=size))
        if isinstance(answer, PrecomputedError):
            raise answer
        return answer

    async def call(self, function: Callable[..., Result], *given: object) -> Result:
        """Call `function`, which waits for no lock, in a thread for annotations; OSErrors become the project's."""
        return await self._within(self._readers, function, *given)

    async def export(self, function: Callable[..., Result], *given: object) -> Result:
        """Call `function`, which reads many leaves, in one of a few threads of its own; errors as of `call`."""
        return await self._within(self._exporters, function, *given)

    async def _within(self, threads: ThreadPoolExecutor, function: Callable[..., Result], *given: object) -> Result:
        try:
            return await within(threads, function, *given)
        except OSError as error:
            raise typed(error, "The annotation file") from error

    async def _load(self, location: Location) -> Snapshot | None:
        if self._inline:
            try:
                return self.store.load(location, cached=True)
            except (BlockingIOError, IsADirectoryError):
                pass
            except OSError as error:
                raise typed(error, "The annotation file") from error
        return await self.call(self.store.load, location)

    def _absent(self, dataset: str) -> PrecomputedError:
        """Why a dataset has no `info`: for moments of a conversion it is away."""
        try:
            os.close(self.store.tree.open(f"{dataset}/{SWAP}" if dataset else SWAP, os.O_PATH))
        except OSError:
            return NotFound(f"/{dataset} is not a dataset: it has no info file of a volume.")
        return Busy(
            f"/{dataset} is being put in place by a conversion; try again in a moment. If that was killed, "
            "`precomputed verify` ends it."
        )

    def _find_blocks(self, dataset: str) -> Blocks:
        volume = self._volumes.at(dataset)
        if volume is None:
            raise self._absent(dataset)
        return self.store.blocks(dataset, volume.info.scales[0].bounds)

    def _find_place(self, parts: Mapping[str, str]) -> Place:
        dataset = parts["dataset"]
        blocks = self._find_blocks(dataset)
        directory = blocks.directory(parts["block"])
        location = self.store.locate(dataset, directory, parts["leaf"])
        volume = self._volumes.at(dataset)
        edges_nm = volume.info.scales[0].resolution_nm if volume is not None else (1.0, 1.0, 1.0)
        extent = (blocks.bounds.start, blocks.bounds.stop)
        return Place(dataset, directory, location, edges_nm, self.store.size(location), extent)


STORE = web.AppKey("annotations", AnnotationService)
