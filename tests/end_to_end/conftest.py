"""One server for the tests of a module: to start and stop one takes longer than most of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import RunningServer, launch, wait_until_healthy

WORKERS = 4


@dataclass(frozen=True)
class Served:
    """A directory and the server of it."""

    root: Path
    server: RunningServer


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A directory that is served by WORKERS processes until the module's last test is done: each test takes a dataset
    of its own in it. A test that stops, breaks or sets up the server asks for `start_server` instead.
    """
    root = tmp_path_factory.mktemp("root")
    server = launch(root, (), WORKERS, tmp_path_factory.mktemp("server") / "log")
    try:
        wait_until_healthy(server)
        yield Served(root, server)
    finally:
        server.stop()
