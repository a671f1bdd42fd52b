"""The writer: the one process of a host that commits edits of a root, and how serving processes reach it.

Whoever holds the lock `writer.lock` in the state directory is the writer and listens on the socket beside it; others
wait to take its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from annotation_store import upkeep
from annotation_store.orders import Answer, answer_to_json, order_from_json
from annotation_store.store import AnnotationStore
from annotation_store.web.frames import NO_ORDER, SOCKET, Frames, message_of, open_state, socket_path
from annotation_store.web.gatherer import Gatherer
from annotation_store.web.large import LargeProcess
from precomputed_server.local_state import usable_state
from precomputed_server.settings import Settings

_LOCK = "writer.lock"
_ELECTION_S = 0.02
_LOOK_S = 1.0
"""How often the writer looks whether it still is: somebody may have deleted the state directory."""
_UPKEEP_S = 3600.0
_UPKEEP_AT_ONCE = 500
_DRAIN_S = 6.0
"""For how long a writer that is to stop waits for those who still use it."""


async def run_writer(settings: Settings, is_wanted: Callable[[], bool]) -> None:
    """Commit the edits of this host for as long as `is_wanted` says so, which is asked many times a second."""
    while (state := usable_state(settings.state, settings.root)) is None:
        for _ in range(int(_LOOK_S / _ELECTION_S)):
            if not is_wanted():
                return
            await asyncio.sleep(_ELECTION_S)
    store = AnnotationStore.of(settings, state)
    large = LargeProcess(settings)
    looking_after = asyncio.create_task(_look_after(store, settings))
    try:
        await WriterServer(Gatherer(store, settings, large.commit)).serve(state, is_wanted)
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
            command = (sys.executable, "-m", upkeep.__name__, str(settings.root), str(settings.history_days), *some)
            try:
                process = await asyncio.create_subprocess_exec(*command)
            except OSError as error:  # another time
                asyncio.get_running_loop().call_exception_handler({"message": "no compaction", "exception": error})
                break
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
        self._connections: set[Frames] = set()
        self._watching: set[Frames] = set()
        self._changed: dict[str, None] = {}
        gatherer.watch(self._note_change)
        self._is_leaving = False

    async def serve(self, state: Path, is_wanted: Callable[[], bool]) -> None:
        """Wait to be the writer of the state directory, then be it until `is_wanted` says no."""
        with open_state(state) as directory:
            lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=directory)
            is_ours = _Now(functools.partial(_is_still, lock, state / _LOCK))

            def goes_on() -> bool:
                return is_wanted() and is_ours()

            try:
                while not _take(lock):
                    if not goes_on():
                        return
                    await asyncio.sleep(_ELECTION_S)
                await self._serve_as_writer(directory, goes_on)
            finally:
                os.close(lock)

    async def _serve_as_writer(self, directory: int, is_wanted: Callable[[], bool]) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET, dir_fd=directory)
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(self._connected, socket_path(directory))
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
                os.unlink(SOCKET, dir_fd=directory)

    def _connected(self) -> Frames:
        connection = Frames(self._received)
        self._connections.add(connection)
        connection.lost.add_done_callback(lambda _: self._leave(connection))
        return connection

    def _leave(self, connection: Frames) -> None:
        self._connections.discard(connection)
        self._watching.discard(connection)

    def _note_change(self, directory: str) -> None:
        """Tell those who watch of a block that was edited: once for all that happens in this turn of the loop."""
        if self._watching:
            if not self._changed:
                asyncio.get_running_loop().call_soon(self._tell_changes)
            self._changed[directory] = None

    def _tell_changes(self) -> None:
        message = message_of({"number": NO_ORDER, "changed": list(self._changed)}, [])
        self._changed.clear()
        for connection in self._watching:
            connection.send(message)

    def _received(self, connection: Frames, members: dict[str, Any], bodies: bytes) -> None:
        if self._is_leaving:
            return  # once the connection is closed, its other end sends what was not answered to the next writer
        if "watch" in members:
            self._watching.add(connection)
            return
        try:
            order = order_from_json(members["order"], bodies)
        except (KeyError, TypeError, ValueError) as error:  # of another version of this program
            asyncio.get_running_loop().call_exception_handler({"message": "an order is not read", "exception": error})
            connection.send(message_of({"number": members["number"], "answer": {"failed": True}}, []))
            return
        ended = self._gatherer.begin(order)
        ended.add_done_callback(functools.partial(self._answer, connection, members["number"]))

    def _answer(self, connection: Frames, number: int, ended: asyncio.Future[Answer]) -> None:
        if ended.cancelled() or ended.exception() is not None:
            error = None if ended.cancelled() else ended.exception()
            asyncio.get_running_loop().call_exception_handler({"message": "a commit failed", "exception": error})
            answer: dict[str, Any] = {"failed": True}
        else:
            answer = answer_to_json(ended.result())
        connection.send(message_of({"number": number, "answer": answer}, []))


class _Now:
    """The answer to a question that is asked anew from time to time."""

    def __init__(self, ask: Callable[[], bool]) -> None:
        self._ask = ask
        self._asked = 0.0
        self._answer = True

    def __call__(self) -> bool:
        now = time.monotonic()
        if now - self._asked >= _LOOK_S:
            self._asked, self._answer = now, self._ask()
        return self._answer


def _is_still(lock: int, path: Path) -> bool:
    """Whether the lock file is still the one of that name: those who come would take another one."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(path, follow_symlinks=False))
    except OSError:
        return False


def _take(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
