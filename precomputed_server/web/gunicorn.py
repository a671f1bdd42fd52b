"""The pool of serving processes: gunicorn with aiohttp workers on one listening socket."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from aiohttp import web
from gunicorn.app.base import BaseApplication

from precomputed_server.errors import InvalidInput
from precomputed_server.settings import Settings
from precomputed_server.web.app import create_app

_HEARTBEATS = "/dev/shm"
"""Where workers show that they live: in memory, so that a slow disk never looks like a hung worker."""


class _Pool(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    def __init__(self, settings: Settings, listener: socket.socket, ready: Callable[[], None]) -> None:
        self._settings = settings
        self._listener = listener
        self._ready = ready
        super().__init__()

    def load_config(self) -> None:
        values: dict[str, Any] = {
            "bind": f"fd://{self._listener.fileno()}",
            "workers": self._settings.workers,
            "worker_class": "aiohttp.GunicornUVLoopWebWorker",
            "worker_tmp_dir": _HEARTBEATS if os.access(_HEARTBEATS, os.W_OK) else None,
            "timeout": self._settings.timeout,
            "graceful_timeout": 8,
            "keepalive": 75,
            "control_socket_disable": True,
            "loglevel": "warning",
            "when_ready": lambda _: self._ready(),
        }
        for name, value in values.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> web.Application:
        os.umask(self._settings.umask)
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
        return create_app(self._settings)


def serve(settings: Settings, listener: socket.socket, ready: Callable[[str], None]) -> None:
    """Serve on `listener` until a signal ends it; `ready` is told the URL once workers are being started.

    Raises InvalidInput when the root is no directory.
    """
    if not settings.root.is_dir():
        raise InvalidInput(f"{settings.root} is not a directory; name the one that holds your datasets.")
    port = listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    _Pool(settings, listener, lambda: ready(f"http://{host}:{port}/")).run()


def listen(host: str, port: int) -> socket.socket:
    """Take the address to serve on; raises InvalidInput when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise InvalidInput(f"Port {port} of {host} is taken or not yours; choose another --port.") from error
        raise InvalidInput(f"{host} is not an address of this machine; choose another --host.") from error
