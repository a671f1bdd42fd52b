"""Who looks at which stack: one thread at each, so that the other threads are left to other requests."""

from __future__ import annotations

import threading

from precomputed_server.errors import Busy

_PATIENT, _PATIENCE_S = 2, 1.0
"""So many threads wait so long for others: the headers of a small stack are read by then, and nobody is sent away."""


class Flights:
    """What is being done, by name, each by one thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flying: dict[str, threading.Event] = {}
        self._patient = threading.Semaphore(_PATIENT)

    def __contains__(self, name: str) -> bool:
        return name in self._flying

    def begin(self, name: str) -> bool:
        """Whether the caller is the one who does it, and then has to `end` it; False when somebody does it already."""
        with self._lock:
            if name in self._flying:
                return False
            self._flying[name] = threading.Event()
            return True

    def end(self, name: str) -> None:
        """Tell who waits for it."""
        with self._lock:
            self._flying.pop(name).set()

    def wait(self, name: str) -> None:
        """Wait a moment until it is done; raises Busy when that takes longer, and when others wait already."""
        landed = self._flying.get(name)
        if landed is None:
            return
        if self._patient.acquire(blocking=False):
            try:
                if landed.wait(_PATIENCE_S):
                    return
            finally:
                self._patient.release()
        raise Busy("The headers of this stack's planes are being read; try again in a moment.", 2)
