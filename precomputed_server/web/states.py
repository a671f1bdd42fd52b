"""Saved viewer states over HTTP: `POST /states`, and the short address that it answers."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import orjson
from aiohttp import web

from precomputed_server.saved_states import SavedStates
from precomputed_server.settings import MEBIBYTE, Settings
from precomputed_server.web.body import Budget, body_of
from precomputed_server.web.respond import NO_CACHE, check_query, origin_of
from precomputed_server.web.routes import STATES
from precomputed_server.web.send import Described, send_bytes
from precomputed_server.web.state import STATE
from precomputed_server.web.targets import Target

LONGEST = MEBIBYTE
"""Bytes of a state."""

_JSON = "application/json"
_ARRIVING = 16 * MEBIBYTE
_FOREVER = "public, max-age=31536000, immutable"


class StateService:
    """The saved states of one worker; they are written one at a time, because that may wait for a lock."""

    def __init__(self, settings: Settings) -> None:
        self.states = SavedStates(settings.root, settings.shared, settings.saved_states)
        self.arriving = Budget(_ARRIVING)
        self._pool = ThreadPoolExecutor(1, "states")

    def close(self) -> None:
        """End when what is being written has been."""
        self._pool.shutdown()

    async def put(self, body: bytes) -> tuple[str, bool]:
        """As `SavedStates.put`."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self.states.put, body)


STATE_SERVICE = web.AppKey("state service", StateService)


async def post_states(request: web.Request, target: Target) -> web.StreamResponse:
    """Save a state; the answer is its address as a JSON string, 201, or 200 where it was saved before."""
    check_query(request)
    service, settings = request.app[STATE_SERVICE], request.app[STATE].settings
    async with body_of(request, settings, service.arriving, LONGEST) as body:
        id, is_new = await service.put(body)
    url = f"{origin_of(request)}{STATES.template}/{id}"
    return web.Response(
        status=201 if is_new else 200,
        body=orjson.dumps(url),
        content_type=_JSON,
        headers={"Location": url, "Cache-Control": NO_CACHE},
    )


async def get_saved_state(request: web.Request, target: Target) -> web.StreamResponse:
    """A saved state, byte for byte."""
    id = target.parts["id"]
    body = await request.app[STATE].far(request.app[STATE_SERVICE].states.get, id)
    return await send_bytes(request, body, Described(id, _JSON, _FOREVER))
