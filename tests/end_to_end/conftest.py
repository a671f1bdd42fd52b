"""One server for the tests of a module: to start and stop one takes longer than most of them."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import RunningServer, launch, wait_until_healthy

WORKERS = 4

_LIBRARIES = tempfile.mkdtemp()
"""What cloud-volume keeps in the home directory otherwise; it looks for the place when it is imported."""
atexit.register(shutil.rmtree, _LIBRARIES, ignore_errors=True)
os.environ |= {"CLOUD_VOLUME_DIR": f"{_LIBRARIES}/volume", "CLOUD_FILES_DIR": f"{_LIBRARIES}/files"}


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
