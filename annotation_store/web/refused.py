"""What becomes of a whole-file save that is refused: its body is kept, and its page and any person can see it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from annotation_store.history.instants import instant_of
from annotation_store.web.request import EDIT_HEADER, Arrival, author_of, page_of
from annotation_store.web.service import STORE
from precomputed_server.errors import NotFound, PrecomputedError
from precomputed_server.files import join
from precomputed_server.format.names import ANNOTATIONS
from precomputed_server.web.body import body_of
from precomputed_server.web.respond import problem_of, status_of
from precomputed_server.web.targets import Target


class PutBody:
    """The body of a PUT from its first byte until the save is applied or kept as refused."""

    def __init__(self, request: web.Request, target: Target, arrival: Arrival) -> None:
        self._request = request
        self._target = target
        self._arrival = arrival
        self._service = request.app[STORE]
        self._body: bytes | None = None
        self._kept: str | None = None

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[bytes]:
        """The whole body; raises TooLarge or Busy once one that memory has no place for has been kept, TooSlow."""
        service = self._service
        async with body_of(self._request, service.settings, service.bodies, spill=self._spill) as body:
            self._body = body
            yield body

    async def refused(self, error: PrecomputedError) -> web.StreamResponse:
        """Keep the body, and answer the error with where the body is."""
        if self._kept is None and self._body is not None and await self._is_in_a_dataset():
            self._kept = await self._service.call(self._service.refused.keep, self._description(error), self._body)
            self._body = None
        response = problem_of(error)
        if self._kept is not None:
            response.headers[EDIT_HEADER] = f"refused; id={self._kept}"
            await self._service.call(self._note, error)
        return response

    async def _spill(self, read: bytes, arriving: AsyncIterator[bytes], error: PrecomputedError) -> None:
        """Keep a body that does not fit memory piece by piece."""
        if not await self._is_in_a_dataset():
            return
        service = self._service
        writer = await service.call(service.refused.begin, self._description(error))
        if writer is None:
            return
        try:
            await service.call(writer.write, read)
            async for piece in arriving:
                await service.call(writer.write, piece)
        except BaseException:
            await asyncio.shield(service.call(writer.abandon))
            raise
        self._kept = await service.call(writer.finish)

    async def _is_in_a_dataset(self) -> bool:
        with contextlib.suppress(NotFound):
            await self._service.blocks(self._target.parts["dataset"])
            return True
        return False

    def _place(self) -> str:
        parts = self._target.parts
        return f"{join(parts['dataset'], ANNOTATIONS)}/{parts['block']}/{parts['leaf']}.json"

    def _description(self, error: PrecomputedError) -> dict[str, Any]:
        parts = self._target.parts
        return {
            "dataset": parts["dataset"],
            "block": parts["block"],
            "leaf": parts["leaf"],
            "place": self._place(),
            "time": instant_of(time.time()),
            "author": author_of(self._target.session),
            "session": page_of(self._request, self._target.session),
            "reason": str(error),
            "status": status_of(error),
        }

    def _note(self, error: PrecomputedError) -> None:
        page = page_of(self._request, self._target.session)
        self._service.store.journal.note_save(
            page, self._place(), outcome="refused", kept=self._kept, reason=str(error), arrived=self._arrival.moment
        )
