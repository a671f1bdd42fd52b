"""A dataset with one block, the store on it, and the application that serves it."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient
from aiohttp.web import Application, Request

from annotation_store.history.log import SEGMENT_BYTES
from precomputed_server import settings
from precomputed_server.format.geometry import Vector
from precomputed_server.web.app import create_app
from tests.annotation_store.history_writer import Writer
from tests.annotation_store.support import Editor, Place
from tests.conftest import Mount
from tests.data import volume, write_dataset

ROOMY = (1 << 20, 1 << 20, 1 << 20)
Client = TestClient[Request, Application]
Connect = Callable[..., Awaitable[Client]]


@pytest.fixture
def extent() -> Vector:
    """The size of the volume of `place`; a module that draws anywhere has ROOMY in a fixture of that name."""
    return (10, 8, 6)


@pytest.fixture
def place(tmp_path: Path, extent: Vector) -> Place:
    """A dataset with an empty block; whatever its extent, it has 10 × 8 × 6 voxels."""
    found = Place(tmp_path / "data")
    write_dataset(found.root / "brain", volume((1, 6, 8, 10), "uint8"), chunk_size=(16, 16, 16))
    info = found.root / "brain" / "info"
    members = json.loads(info.read_bytes())
    members["scales"][0]["size"] = list(extent)
    info.write_text(json.dumps(members))
    found.block.mkdir(parents=True)
    return found


@pytest.fixture
def editor(place: Place) -> Editor:
    """The store on `place`."""
    return Editor(place)


@pytest.fixture
def connect(aiohttp_client: Callable[[Application], Awaitable[Client]], place: Place) -> Connect:
    """`await connect(max_body=1000)`: a client of the application with those settings."""

    async def connected(**given: object) -> Client:
        # In a thread, because a worker makes it before its loop runs.
        given = {"state": str(place.root.parent / "state"), **given}
        return await aiohttp_client(await asyncio.to_thread(create_app, settings.load(place.root, given, {})))

    return connected


@pytest.fixture
def segment_bytes() -> int:
    """How large segments of `writer` become; a module with a fixture of that name has smaller ones."""
    return SEGMENT_BYTES


@pytest.fixture
def writer(tmp_path: Path, segment_bytes: int) -> Iterator[Writer]:
    """An empty log."""
    made = Writer(tmp_path, segment_bytes)
    yield made
    os.close(made.history)


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which nothing depends on what is on disk when: thousands of edits would wait for it."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)


MountDataset = Callable[[str], Place]


@pytest.fixture
def mount_dataset(mount: Mount) -> MountDataset:
    """`mount_dataset("size=1m")`: a dataset on a file system of its own."""

    def mounted(options: str) -> Place:
        root = mount(options)
        place = Place(root)
        write_dataset(root / "brain", volume((1, 6, 8, 10), "uint8"), chunk_size=(16, 16, 16))
        place.block.mkdir(parents=True)
        return place

    return mounted
