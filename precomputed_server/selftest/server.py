"""The server under test: the real command in a session of its own, its processes found and killed by their ids."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from precomputed_server.errors import Busy

COMMAND = (sys.executable, "-P", "-c", "from precomputed_server.cli import run; run()")
"""`precomputed`, wherever it is installed."""

STARTS_WITHIN_S = 60.0
STOPS_WITHIN_S = 20.0
_POLL_S = 0.02


class Server:
    """`precomputed serve` on a free port of 127.0.0.1, started anew on the same one whenever it was killed.

    `state` is a directory of its own for what this host keeps; what the server prints goes into a file beside it.
    """

    def __init__(
        self, command: Sequence[str], root: Path, state: Path, workers: int, variables: Mapping[str, str]
    ) -> None:
        self.port = _free_port()
        state.mkdir()
        self.log = state.with_suffix(".log")
        variables = {"PRECOMPUTED_STATE": str(state), **variables}
        settings = [f"{name}={value}" for name, value in variables.items()]
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", str(workers)]
        self._command = ["env", *settings, *command, "serve", str(root), *where]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers; raises Busy when it does not."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + STARTS_WITHIN_S
        while not self._answers():
            if time.monotonic() > deadline or self.has_ended():
                self.kill()
                raise Busy(f"the server did not start; see {self.log}.")
            time.sleep(_POLL_S)

    def has_ended(self) -> bool:
        """Whether its first process is gone."""
        return self._process is None or self._process.poll() is not None

    def kill_one(self, dice: random.Random) -> bool:
        """SIGKILL one of its processes, but not the first one; False when there is none now."""
        if self._process is None:
            return False
        others = sorted(set(_members(self._process.pid)) - {self._process.pid})
        if not others:
            return False
        return _kill(dice.choice(others))

    def kill(self) -> None:
        """SIGKILL all of its processes at once."""
        if self._process is None:
            return
        while members := _members(self._process.pid):
            for pid in members:
                _kill(pid)
            self._process.poll()
            time.sleep(_POLL_S)
        self._process.wait()

    def stop(self) -> str | None:
        """End it as an administrator does; returns what was wrong with how it ended."""
        if self._process is None:
            return None
        if self.has_ended():
            self.kill()
            return "the server ended by itself"
        self._process.send_signal(signal.SIGTERM)
        wrong = None
        try:
            self._process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            wrong = f"the server did not end within {STOPS_WITHIN_S:g} s of SIGTERM"
        if wrong is None and _members(self._process.pid):
            wrong = "the server left processes behind"
        self.kill()
        return wrong

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _kill(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False


def _members(session: int) -> list[int]:
    """The living processes of a session, by /proc/PID/stat; those that only wait to be collected aside."""
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _parent, _group, own = (entry / "stat").read_text().rpartition(") ")[2].split()[:4]
        except OSError:  # it ended meanwhile
            continue
        if int(own) == session and state not in "ZX":
            members.append(int(entry.name))
    return members
