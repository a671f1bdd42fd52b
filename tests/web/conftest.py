"""A client of one worker's application over a root that tests fill."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, AppRunner, Request

from precomputed_server import settings
from precomputed_server.web.app import create_app, create_runner

Client = TestClient[Request, Application]
AiohttpClient = Callable[..., Awaitable[Client]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory that is served."""
    directory = tmp_path / "root"
    directory.mkdir()
    return directory


@pytest.fixture
def app(root: Path) -> Application:
    """The application, made before a loop runs, as a worker does."""
    return create_app(settings.load(root, {"workers": 1, "state": str(root.parent / "state")}, environ={}))


class ServerAsRun(TestServer):
    """Serves the application as a worker does, with the short way before it."""

    async def _make_runner(self, **given: Any) -> AppRunner:
        return create_runner(self.app, **given)


@pytest.fixture
async def client(app: Application, aiohttp_client: AiohttpClient) -> Client:
    """A client that decompresses nothing by itself, so that tests see what is on the wire."""
    return await aiohttp_client(ServerAsRun(app), auto_decompress=False)
