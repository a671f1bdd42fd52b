"""A real file system that is full, out of inodes or read-only while a server edits on it."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from annotation_store.edits import PutOne
from tests.annotation_store.conftest import MountDataset
from tests.annotation_store.support import BLOCK, Editor, Place, check_log, some
from tests.annotation_store.test_concurrency import URL, Annotator
from tests.conftest import StartServer
from tests.data import point

pytestmark = pytest.mark.component


def fill(path: Path) -> None:
    """Write a file until there is no space left."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(descriptor, b"x" * 4096)
    os.close(descriptor)


def test_a_full_disk_refuses_edits_and_serves_reads(start_server: StartServer, mount_dataset: MountDataset) -> None:
    place = mount_dataset("size=1m")
    with Annotator(start_server(place.root, workers=2).port) as client:
        edit_on_a_full_disk(place, client)


def edit_on_a_full_disk(place: Place, client: Annotator) -> None:
    """Fill the disk, edit, make room, edit."""
    assert client.ask("PUT", URL, some(20))[0] == 200
    _, _, body = client.ask("GET", URL)
    filler = place.root / "filler"
    fill(filler)
    refusals = 0
    for number in range(30):  # the last blocks of log and file may still take some
        status, answered, _ = client.ask("PATCH", f"{URL}?id=i{number}", {"type": "point", "point": [1, 2, 3]})
        assert status in (200, 507)
        if status == 507:
            refusals += 1
            assert answered["Retry-After"] == "60"
            assert answered["Content-Type"] == "application/problem+json"
            assert f"i{number}" not in place.stored()
        else:
            assert f"i{number}" in place.stored()
        assert client.ask("GET", URL)[0] == 200
        check_log(place)
    assert refusals > 0
    assert client.ask("PUT", URL.replace("fibers", "others"), some(500))[0] == 507
    assert client.ask("PUT", URL.replace("x0y0z0", "b1,1,1"), some(500))[0] == 507
    filler.unlink()
    assert client.patch(point(99, 1, 1, 1)) == 200
    assert client.ask("PUT", URL.replace("fibers", "others"), some(50))[0] == 200
    assert check_log(place)["others"] == 1
    assert place.left_behind() == []
    assert body != client.ask("GET", URL)[2]


def test_no_inodes_left(mount_dataset: MountDataset) -> None:
    place = mount_dataset("size=4m,nr_inodes=60")
    editor = Editor(place)
    editor.replace(some(3))
    before = place.file().read_bytes()
    fillers = [place.root / f"filler{number}" for number in range(60)]
    with contextlib.suppress(OSError):
        for filler in fillers:
            filler.touch()
    ended = editor.ends(PutOne(some(1, first=9)[0]))[0]
    assert type(ended).__name__ == "StorageFull"
    assert place.file().read_bytes() == before
    check_log(place)
    fillers[0].unlink()
    editor.put(some(1, first=9)[0])
    check_log(place)


def test_a_file_system_that_becomes_read_only(start_server: StartServer, mount_dataset: MountDataset) -> None:
    place = mount_dataset("size=1m")
    with Annotator(start_server(place.root, workers=2).port) as client:
        edit_while_read_only(place, client)


def edit_while_read_only(place: Place, client: Annotator) -> None:
    """Make the mount read-only, edit, make it writable, edit."""
    assert client.ask("PUT", URL, some(3))[0] == 200
    before = client.ask("GET", URL)[2]
    subprocess.run(["mount", "-o", "remount,ro", str(place.root)], check=True)
    for method, url, body in (
        ("PUT", URL, some(5)),
        ("PATCH", f"{URL}?id=a", {"type": "point", "point": [1, 2, 3]}),
        ("DELETE", f"{URL}?id={some(1)[0]['id']}", None),
        ("PUT", URL.replace(BLOCK, "b1,1,1"), some(5)),
    ):
        status, headers, answered = client.ask(method, url, body)
        assert (status, headers["Content-Type"]) == (503, "application/problem+json")
        assert b"read-only" in answered
        assert str(place.root).encode() not in answered
    assert client.ask("GET", URL)[2] == before
    subprocess.run(["mount", "-o", "remount,rw", str(place.root)], check=True)
    assert client.ask("PUT", URL, some(5))[0] == 200
    check_log(place)
