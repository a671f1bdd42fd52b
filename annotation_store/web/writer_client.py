"""How a serving process hands orders to the writer of its host, whoever that is at the time.

What a lost writer has not answered is sent to the next one, marked as repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
from dataclasses import replace
from typing import Any

from annotation_store.orders import Answer, Order, answer_from_json, order_to_json
from annotation_store.web.frames import NO_ORDER, Frames, message_of, open_state, socket_path
from annotation_store.web.gatherer import Told
from precomputed_server.errors import Busy, Defect, InvalidInput, PrecomputedError
from precomputed_server.local_state import state_of
from precomputed_server.settings import Settings

_RECONNECT_S = 0.02
_PATIENCE_S = 8.0
"""For how long an edit waits for a writer to be there before it is refused."""


class WriterClient:
    """Sends the orders of one serving process to the writer, whoever that is at the time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._numbers = itertools.count()
        self._pending: dict[int, tuple[Order, asyncio.Future[Answer]]] = {}
        self._connection: Frames | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._told: Told | None = None

    def watch(self, told: Told) -> None:
        """Have the writer tell of every commit; what was committed while there was none may be anywhere."""
        self._told = told
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_connected())
        else:
            self._send_watch()

    async def submit(self, order: Order) -> Answer:
        """Have the order carried out; raises Busy when there is no writer for too long."""
        number = next(self._numbers)
        ended: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._pending[number] = (order, ended)
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep_connected())
        elif self._connection is not None:
            self._send(number, order)
        try:
            return await ended
        finally:
            self._pending.pop(number, None)

    async def close(self) -> None:
        """Leave the writer."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._connection is not None:
            self._connection.close()

    async def _keep_connected(self) -> None:
        """Be connected for as long as this process serves, and send again what a lost writer did not answer."""
        repeated = False
        while True:
            self._connection = await self._connect()
            if self._told is not None:
                self._send_watch()
                self._told("")
            for number, (order, _) in list(self._pending.items()):
                self._send(number, replace(order, repeated=True) if repeated else order)
            await self._connection.lost
            self._connection, repeated = None, True

    async def _connect(self) -> Frames:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_S
        while True:
            state = functools.partial(state_of, self._settings.state, self._settings.root)
            with contextlib.suppress(OSError, InvalidInput), open_state(state()) as directory:
                _, connection = await loop.create_unix_connection(
                    functools.partial(Frames, self._received), socket_path(directory)
                )
                return connection
            if loop.time() > deadline:
                self._refuse(Busy("The process that writes annotations is not there; try again."))
            await asyncio.sleep(_RECONNECT_S)

    def _send_watch(self) -> None:
        if self._connection is not None:
            self._connection.send(message_of({"number": NO_ORDER, "watch": True}, []))

    def _send(self, number: int, order: Order) -> None:
        members, bodies = order_to_json(order)
        if self._connection is not None:
            self._connection.send(message_of({"number": number, "order": members}, bodies))

    def _received(self, connection: Frames, members: dict[str, Any], _bodies: bytes) -> None:
        if self._told is not None:
            for directory in members.get("changed", ()):
                self._told(directory)
        _, ended = self._pending.get(members["number"], (None, None))
        if ended is None or ended.done():
            return
        if "failed" in members["answer"]:
            ended.set_result(Defect("The server failed; its log says why."))
        else:
            ended.set_result(answer_from_json(members["answer"]))

    def _refuse(self, error: PrecomputedError) -> None:
        for _, ended in self._pending.values():
            if not ended.done():
                ended.set_result(error)
