"""A process of the pool that is told to end while it is still starting."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.annotation_store.test_concurrency import children
from tests.conftest import RunningServer, StartServer

pytestmark = pytest.mark.component

TIMES = 6
STOPS_AT_ONCE_S = 4
"""Half of what the pool waits for a process that has missed the signal."""


def test_a_stop_right_after_the_first_answer_is_missed_by_no_process(start_server: StartServer, tmp_path: Path) -> None:
    took = []
    for _ in range(TIMES):
        server = start_server(tmp_path, workers=2)
        begun = time.monotonic()
        server.stop()
        took.append(time.monotonic() - begun)
    assert max(took) < STOPS_AT_ONCE_S, took


def test_a_process_obeys_from_its_first_moment_on(start_server: StartServer, tmp_path: Path) -> None:
    """One is ended after the other, each a little later after its start than the one before."""
    server = start_server(tmp_path, workers=1)
    process = children(server.pid)[-1]
    for milliseconds in (*range(12), *range(12, 60, 4)):
        os.kill(process, signal.SIGTERM)
        process = successor(server, process)
        time.sleep(milliseconds / 1000)


def successor(server: RunningServer, process: int) -> int:
    """The process that the pool starts in the place of one that is to end."""
    others = set(children(server.pid)) - {process}
    deadline = time.monotonic() + STOPS_AT_ONCE_S
    while time.monotonic() < deadline:
        new = set(children(server.pid)) - others
        if new and process not in new:
            return new.pop()
        time.sleep(0.0005)
    raise AssertionError(f"{process} has missed the signal")
