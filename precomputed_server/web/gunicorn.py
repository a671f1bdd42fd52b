"""The pool of processes: gunicorn with aiohttp workers on one listening socket, one that writes annotations, and one
that keeps the catalog.

Those two are workers of the pool too, so that gunicorn starts them anew, whatever ends them; they take no requests.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable
from logging.handlers import WatchedFileHandler
from pathlib import Path
from types import FrameType
from typing import Any

from aiohttp import GunicornUVLoopWebWorker, web
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger

from annotation_store.web.writer import run_writer
from precomputed_server.catalog.indexer import Hints
from precomputed_server.catalog_keeper import keep_when_possible
from precomputed_server.errors import InvalidInput
from precomputed_server.local_state import state_of
from precomputed_server.settings import Settings
from precomputed_server.stack_keeper import keep_levels
from precomputed_server.web.app import create_app, create_runner

_HEARTBEATS = "/dev/shm"
"""Where workers show that they live: in memory, so that a slow disk never looks like a hung worker."""

_APART = ("writer", "indexer")
"""The roles that one process of the pool has each; the others serve."""

_LOOK_S = 0.1
_KEEPALIVE_S, _GRACEFUL_S = 75, 8

_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
"""The signals that end a process. From its fork to its first turn of the loop they wait: nobody would obey them."""


class _Worker(GunicornUVLoopWebWorker):
    """A process of the pool: it serves, or it has one of the roles that are apart."""

    role = ""

    def load_wsgi(self) -> None:
        if self.role:
            self.app.prepare()
        else:
            super().load_wsgi()

    def run(self) -> None:
        """Do the work, and once everything is given back, end without taking the interpreter apart: that takes long."""
        try:
            super().run()
        except SystemExit as end:
            logging.shutdown()
            os._exit(end.code if isinstance(end.code, int) else 0)

    async def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
        if not self.role:
            await super()._run()
            return
        self.booted = True
        if self.role == "writer":
            await run_writer(self.app.chosen, self._is_wanted)
        else:
            await self._index()

    async def _index(self) -> None:
        hints, ending = Hints(), Hints()
        keeping = asyncio.create_task(asyncio.to_thread(keep_when_possible, self.app.chosen, hints))
        making = asyncio.create_task(asyncio.to_thread(keep_levels, self.app.chosen, ending))
        while self._is_wanted() and not keeping.done() and not making.done():
            await asyncio.sleep(_LOOK_S)
        hints.stop()
        ending.stop()
        await keeping
        await making

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Obey at once, and not only at the next of the turns that come every second."""
        super().handle_exit(sig, frame)
        self._notify_waiter_done()

    def _is_wanted(self) -> bool:
        """Whether a process that is apart is to go on; tells the pool that it lives."""
        self.notify()
        return bool(self.alive) and self.ppid == os.getppid()


class _Roles:
    """What each new process of the pool is to do: the first of a generation, and who takes their place, are apart."""

    def __init__(self) -> None:
        self._old: set[int] = set()

    def on_reload(self, arbiter: Arbiter) -> None:
        """The processes that there are will be replaced."""
        self._old |= set(arbiter.WORKERS)

    def pre_fork(self, arbiter: Arbiter, worker: _Worker) -> None:
        """Give a process that is about to be started its role."""
        taken = {other.role for pid, other in arbiter.WORKERS.items() if pid not in self._old}
        worker.role = next((role for role in _APART if role not in taken), "")


class _Arbiter(Arbiter):  # type: ignore[misc]
    LISTENERS: list[Any] = []

    def stop(self, graceful: bool = True) -> None:
        """End the processes; a socket file that somebody has removed meanwhile is not removed again."""
        names = {listener: listener.getsockname() for listener in self.LISTENERS}
        self.LISTENERS = [each for each, name in names.items() if not isinstance(name, str) or os.path.lexists(name)]
        super().stop(graceful)

    def spawn_worker(self) -> int:
        """Start a process, which does not come back from here, with the signals that it cannot obey yet held back."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            return int(super().spawn_worker())
        finally:
            if os.getpid() == self.pid:
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)


class _Log(Logger):  # type: ignore[misc]
    def setup(self, cfg: Config) -> None:
        """Log to where all others do."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class _Pool(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, settings: Settings, listeners: list[socket.socket], ready: Callable[[], None]) -> None:
        self.chosen = settings
        self._listeners = listeners
        self._ready = ready
        super().__init__()

    def load_config(self) -> None:
        roles = _Roles()
        values: dict[str, Any] = {
            "bind": [f"fd://{listener.fileno()}" for listener in self._listeners],
            "workers": self.chosen.workers + len(_APART),
            "worker_class": _Worker,
            "logger_class": _Log,
            "pre_fork": roles.pre_fork,
            "on_reload": roles.on_reload,
            "worker_tmp_dir": _HEARTBEATS if os.access(_HEARTBEATS, os.W_OK) else None,
            "timeout": self.chosen.timeout,
            "graceful_timeout": _GRACEFUL_S,
            "control_socket_disable": True,
            "loglevel": "warning",
            "when_ready": lambda _: self._ready(),
        }
        for name, value in values.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def prepare(self) -> None:
        """What every process of the pool does first."""
        os.umask(self.chosen.umask)
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = self.chosen.open_files
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if most < 0 else min(wanted, most), most))

    def run(self) -> None:
        _Arbiter(self).run()

    def load(self) -> Callable[[], Awaitable[web.AppRunner]]:
        """What the worker awaits once it has a loop: the application, and how it is run."""
        self.prepare()
        app = create_app(self.chosen, writer_apart=True)

        async def runner() -> web.AppRunner:
            return create_runner(app, keepalive_timeout=_KEEPALIVE_S, shutdown_timeout=_GRACEFUL_S / 100 * 95)

        return runner


def serve(settings: Settings, listeners: list[socket.socket], ready: Callable[[], None]) -> None:
    """Serve on `listeners` until a signal ends it; `ready` is called while workers are being started.

    Raises InvalidInput when the root is no directory.
    """
    if not settings.root.is_dir():
        raise InvalidInput(f"{settings.root} is not a directory; name the one that holds your datasets.")
    state_of(settings.state, settings.root)  # an error is said here, once, and not by every process
    _Pool(settings, listeners, ready).run()


def log_to(file: Path | None) -> None:
    """Send the log of this process, and of those that it starts, to a file or to standard error.

    Raises InvalidInput when the file cannot be written.
    """
    try:
        # It notices when the file was moved away to be kept, and begins another.
        handler = logging.StreamHandler() if file is None else WatchedFileHandler(file)
    except OSError as error:
        raise InvalidInput(f"{file} cannot be written ({error.strerror}); name another file by --log-file.") from error
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", handlers=[handler])
