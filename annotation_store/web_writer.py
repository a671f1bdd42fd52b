"""The writer: the one process of a host that commits edits of a root, and how serving processes reach it.

Whoever holds the lock `writer.lock` in the state directory is the writer and listens on the socket beside it; others
wait to take its place. A message is two lengths (32 bit, big-endian), a JSON object, and the bodies that belong to it.
A serving process that loses the writer sends what was not answered to the next one, marked as repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import itertools
import os
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson

from annotation_store import upkeep
from annotation_store.orders import Answer, Order, answer_from_json, answer_to_json, order_from_json, order_to_json
from annotation_store.store import AnnotationStore
from annotation_store.web_commit import Gatherer
from annotation_store.web_large import LargeProcess
from precomputed_server.errors import Busy, Defect, PrecomputedError
from precomputed_server.local_state import state_of
from precomputed_server.settings import Settings

_LOCK = "writer.lock"
_SOCKET = "writer"
_LENGTHS = struct.Struct(">II")
_ELECTION_S = 0.02
_RECONNECT_S = 0.02
_PATIENCE_S = 8.0
"""For how long an edit waits for a writer to be there before it is refused."""
_UPKEEP_S = 3600.0
_UPKEEP_AT_ONCE = 500
_DRAIN_S = 6.0
"""For how long a writer that is to stop waits for those who still use it."""


class _Frames(asyncio.Protocol):
    """Messages over a stream."""

    def __init__(self, received: Callable[[_Frames, dict[str, Any], bytes], None]) -> None:
        self._received = received
        self._buffer = bytearray()
        self._unsent: list[bytes] = []
        self.transport: asyncio.Transport | None = None
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance

    def connection_lost(self, error: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= _LENGTHS.size:
            header, body = _LENGTHS.unpack_from(self._buffer, start)
            begin = start + _LENGTHS.size
            if len(self._buffer) - begin < header + body:
                break
            start = begin + header + body
            members = orjson.loads(self._buffer[begin : begin + header])
            self._received(self, members, bytes(self._buffer[begin + header : start]))
        del self._buffer[:start]

    def send(self, message: bytes) -> None:
        """Send a message, together with what else is sent in this turn of the loop, unless the other end has gone."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self.flush)
        self._unsent.append(message)

    def flush(self) -> None:
        """Hand what is to be sent to the transport."""
        messages, self._unsent = self._unsent, []
        if messages and self.transport is not None and not self.transport.is_closing():
            self.transport.write(b"".join(messages))

    def close(self) -> None:
        """Send what is left, and close."""
        self.flush()
        if self.transport is not None:
            self.transport.close()


def _message(members: dict[str, Any], bodies: list[bytes]) -> bytes:
    header = orjson.dumps(members)
    return b"".join([_LENGTHS.pack(len(header), sum(map(len, bodies))), header, *bodies])


async def run_writer(settings: Settings, is_wanted: Callable[[], bool]) -> None:
    """Commit the edits of this host for as long as `is_wanted` says so, which is asked many times a second.

    Raises InvalidInput when the state directory cannot be used.
    """
    store = AnnotationStore.of(settings)
    large = LargeProcess(settings)
    looking_after = asyncio.create_task(_look_after(store, settings))
    try:
        await WriterServer(Gatherer(store, settings, large.commit)).serve(
            state_of(settings.state, settings.root), is_wanted
        )
    finally:
        looking_after.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking_after
        await asyncio.to_thread(large.close)


async def _look_after(store: AnnotationStore, settings: Settings) -> None:
    """From time to time compact the logs of what was edited, in a process of its own."""
    while True:
        await asyncio.sleep(_UPKEEP_S)
        directories = store.edited()
        for start in range(0, len(directories), _UPKEEP_AT_ONCE):
            some = directories[start : start + _UPKEEP_AT_ONCE]
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", upkeep.__name__, str(settings.root), str(settings.history_days), *some)
            )
            try:
                await process.wait()
            except asyncio.CancelledError:  # whatever it was doing is done whole or not at all
                process.kill()
                await process.wait()
                raise


class WriterServer:
    """Takes orders from the serving processes of this host and commits them by a gatherer."""

    def __init__(self, gatherer: Gatherer) -> None:
        self._gatherer = gatherer
        self._connections: set[_Frames] = set()
        self._is_leaving = False

    async def serve(self, state: Path, is_wanted: Callable[[], bool]) -> None:
        """Wait to be the writer of the state directory, then be it until `is_wanted` says no."""
        with _open_directory(state) as directory:
            lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=directory)
            try:
                while not _take(lock):
                    if not is_wanted():
                        return
                    await asyncio.sleep(_ELECTION_S)
                await self._serve_as_writer(directory, is_wanted)
            finally:
                os.close(lock)

    async def _serve_as_writer(self, directory: int, is_wanted: Callable[[], bool]) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_SOCKET, dir_fd=directory)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(self._connected, _socket_path(directory))
        try:
            while is_wanted():
                await asyncio.sleep(_ELECTION_S)
            deadline = loop.time() + _DRAIN_S
            while self._connections and loop.time() < deadline:
                await asyncio.sleep(_ELECTION_S)
            server.close()
            self._is_leaving = True
            await self._gatherer.close()
            await asyncio.sleep(0)  # the answers of the last commits are handed to their connections
            for connection in list(self._connections):
                connection.close()
        finally:
            with contextlib.suppress(OSError):
                os.unlink(_SOCKET, dir_fd=directory)

    def _connected(self) -> _Frames:
        connection = _Frames(self._received)
        self._connections.add(connection)
        connection.lost.add_done_callback(lambda _: self._connections.discard(connection))
        return connection

    def _received(self, connection: _Frames, members: dict[str, Any], bodies: bytes) -> None:
        if self._is_leaving:
            return  # once the connection is closed, its other end sends what was not answered to the next writer
        try:
            order = order_from_json(members["order"], bodies)
        except (KeyError, TypeError, ValueError) as error:  # of another version of this program
            asyncio.get_running_loop().call_exception_handler({"message": "an order is not read", "exception": error})
            connection.send(_message({"number": members["number"], "answer": {"failed": True}}, []))
            return
        ended = self._gatherer.begin(order)
        ended.add_done_callback(functools.partial(self._answer, connection, members["number"]))

    def _answer(self, connection: _Frames, number: int, ended: asyncio.Future[Answer]) -> None:
        if ended.cancelled() or ended.exception() is not None:
            error = None if ended.cancelled() else ended.exception()
            asyncio.get_running_loop().call_exception_handler({"message": "a commit failed", "exception": error})
            answer: dict[str, Any] = {"failed": True}
        else:
            answer = answer_to_json(ended.result())
        connection.send(_message({"number": number, "answer": answer}, []))


class WriterClient:
    """Sends the orders of one serving process to the writer, whoever that is at the time."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._numbers = itertools.count()
        self._pending: dict[int, tuple[Order, asyncio.Future[Answer]]] = {}
        self._connection: _Frames | None = None
        self._keeper: asyncio.Task[None] | None = None

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
            for number, (order, _) in list(self._pending.items()):
                self._send(number, replace(order, repeated=True) if repeated else order)
            await self._connection.lost
            self._connection, repeated = None, True

    async def _connect(self) -> _Frames:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_S
        while True:
            with contextlib.suppress(OSError), _open_directory(self._state) as directory:
                _, connection = await loop.create_unix_connection(
                    functools.partial(_Frames, self._received), _socket_path(directory)
                )
                return connection
            if loop.time() > deadline:
                self._refuse(Busy("The process that writes annotations is not there; try again."))
            await asyncio.sleep(_RECONNECT_S)

    def _send(self, number: int, order: Order) -> None:
        members, bodies = order_to_json(order)
        if self._connection is not None:
            self._connection.send(_message({"number": number, "order": members}, bodies))

    def _received(self, connection: _Frames, members: dict[str, Any], _bodies: bytes) -> None:
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


@contextlib.contextmanager
def _open_directory(path: Path) -> Iterator[int]:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield directory
    finally:
        os.close(directory)


def _socket_path(directory: int) -> str:
    """The socket's path, short enough for the kernel however long that of the directory is."""
    return f"/proc/self/fd/{directory}/{_SOCKET}"


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
