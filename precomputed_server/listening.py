"""The addresses that a server listens on: TCP ports and sockets in the file system."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from precomputed_server.errors import InvalidInput
from precomputed_server.settings import Settings

_BACKLOG = 2048
_TURN_S = 5.0
_UNIX = "unix:"
_TCP = re.compile(r"(?:\[([^\[\]]+)\]|([^\[\]:/]+)):(\d{1,5})")
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""Hosts that stand for all addresses → one at which this machine reaches itself."""


@dataclass(frozen=True)
class TcpAddress:
    """A host, by name or address, and a port; 0 is any that is free."""

    host: str
    port: int

    def url(self, port: int = 0) -> str:
        """`http://HOST:PORT/`, with the `port` that was got where it was any."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{port or self.port}/"

    def listen(self) -> socket.socket:
        """Take it; raises InvalidInput when it cannot be had."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            return socket.create_server((self.host, self.port), family=family, backlog=_BACKLOG)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                told = f"Port {self.port} of {self.host} is taken or not yours; choose another --port."
                raise InvalidInput(told) from error
            raise InvalidInput(f"{self.host} is not an address of this machine; choose another --host.") from error


@dataclass(frozen=True)
class SocketFile:
    """A socket in the file system with these permission bits."""

    path: Path
    mode: int

    def listen(self) -> socket.socket:
        """Take it, in the place of one that nobody listens on; raises InvalidInput when it cannot be had."""
        listener = socket.socket(socket.AF_UNIX)
        try:
            with _alone_in(self.path.parent):
                self._make_way()
                before = os.umask(0o777)  # nobody connects before it has its permissions
                try:
                    listener.bind(str(self.path))
                finally:
                    os.umask(before)
                listener.listen(_BACKLOG)
                self.path.chmod(self.mode)
        except OSError as error:
            listener.close()
            # A path that is too long for the kernel has no number.
            reason = error.strerror or str(error)
            raise InvalidInput(f"{self.path} cannot be listened on ({reason}); choose another --bind.") from error
        except InvalidInput:
            listener.close()
            raise
        return listener

    def _make_way(self) -> None:
        """Remove a socket that a killed server left behind, and nothing else."""
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise InvalidInput(f"{self.path} is there and no socket; choose another --bind.")
        with socket.socket(socket.AF_UNIX) as asking:
            asking.setblocking(False)
            code = asking.connect_ex(str(self.path))
        if code != errno.ECONNREFUSED:
            raise InvalidInput(f"Somebody listens on {self.path}; stop that server or choose another --bind.")
        self.path.unlink()


Address = TcpAddress | SocketFile


def addresses(settings: Settings) -> tuple[Address, ...]:
    """Where a server of these settings listens; raises InvalidInput for a `bind` that names no address."""
    if not settings.bind:
        return (TcpAddress(settings.host, settings.port),)
    return tuple(_address(each.strip(), settings.socket_mode) for each in settings.bind.split(","))


def _address(text: str, mode: int) -> Address:
    if text.startswith(_UNIX) and len(text) > len(_UNIX):
        return SocketFile(Path(text.removeprefix(_UNIX)).absolute(), mode)
    match = _TCP.fullmatch(text)
    if match is None or int(match[3]) > 65_535:
        raise InvalidInput(f"--bind {text!r} is no address; write HOST:PORT, [::]:PORT or unix:PATH.")
    return TcpAddress(match[1] or match[2], int(match[3]))


def listen(settings: Settings) -> list[socket.socket]:
    """Take every address to serve on; raises InvalidInput when one cannot be had, and takes none then."""
    with contextlib.ExitStack() as taken:
        listeners = []
        for address in addresses(settings):
            listener = address.listen()
            taken.callback(give_back, listener)
            listeners.append(listener)
        taken.pop_all()
    return listeners


def give_back(listener: socket.socket) -> None:
    """Listen no longer, and leave no file behind."""
    name = listener.getsockname()
    listener.close()
    if isinstance(name, str):
        Path(name).unlink(missing_ok=True)


def told(settings: Settings, listeners: list[socket.socket]) -> list[str]:
    """What is listened on, as a person reads it: URLs, and `unix:PATH`."""
    lines = []
    for address, listener in zip(addresses(settings), listeners, strict=True):
        if isinstance(address, SocketFile):
            lines.append(f"{_UNIX}{address.path}")
        else:
            lines.append(address.url(listener.getsockname()[1]))
    return lines


def own_url(settings: Settings) -> str:
    """Where this machine reaches a server of these settings; raises InvalidInput where it listens on no known port."""
    for address in addresses(settings):
        if isinstance(address, TcpAddress) and address.port:
            return TcpAddress(_EVERYWHERE.get(address.host, address.host), address.port).url()
    raise InvalidInput("The settings name no TCP port at which a server is reached; name its address by an option.")


@contextlib.contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Keep other servers from taking a socket in that directory meanwhile: each could take the other's for stale."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = time.monotonic() + _TURN_S
        while not _locked(descriptor):
            if time.monotonic() > deadline:
                raise InvalidInput(f"Another program holds {directory} locked; choose another --bind.")
            time.sleep(_TURN_S / 100)
        yield
    finally:
        os.close(descriptor)


def _locked(directory: int) -> bool:
    """Lock it; False where another one has it, True also where the file system has no locks of directories."""
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True
