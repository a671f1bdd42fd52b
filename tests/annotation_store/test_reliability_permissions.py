"""A root that may not be written for a while: edits are refused with a reason, reads go on, nothing sent is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from annotation_store.model import Item
from tests.annotation_store.conftest import MountDataset
from tests.annotation_store.support import BLOCK, Place, by_id, check_log, some
from tests.annotation_store.test_concurrency import URL, Annotator
from tests.conftest import RunningServer, StartServer, free_port, missing, wait_until_healthy
from tests.data import point

pytestmark = pytest.mark.component

LEAF = URL.removesuffix(".json")
PARKED = "/brain/annotations/parked"
NO_RIGHTS = "--bounding-set=-dac_override,-dac_read_search,-fowner"
"""Root without the rights by which it passes over the modes of files."""


def one(number: int) -> Item:
    """An annotation of its own."""
    return point(1000 + number, number, 1, 1)


def begin(client: Annotator) -> None:
    """Two versions, so that restoring the first would change something."""
    for count in (2, 3):
        assert client.ask("PUT", URL, some(count))[0] == 200


def assert_refused(client: Annotator, place: Place, status: int, word: bytes) -> None:
    """Every kind of edit is refused with that status and reason, and reading goes on."""
    before = place.stored()
    tag = client.ask("GET", URL)[1]["ETag"]
    first = next(iter(before))
    edits = {"edits": [{"block": BLOCK, "leaf": "fibers", "operation": "put", "annotation": one(7)}]}
    for method, url, body in (
        ("PATCH", f"{URL}?id={one(7)['id']}", one(7)),
        ("POST", URL, {"type": "point", "point": [1, 2, 3]}),
        ("DELETE", f"{URL}?id={first}", None),
        ("POST", f"{LEAF}/restore", {"version": 1}),
        ("POST", "/brain/annotations/edits", edits),
    ):
        answered, headers, read = client.ask(method, url, body)
        if answered == 207:
            (row,) = json.loads(read)["blocks"]
            answered, read = row["status"], row["detail"].encode()
        else:
            assert headers["Content-Type"] == "application/problem+json"
        assert (answered, word in read, str(place.root).encode() in read) == (status, True, False), (method, url, read)
        answered, headers, read = client.ask("GET", URL)
        assert (answered, headers["ETag"], by_id(json.loads(read))) == (200, tag, before)
    assert client.ask("GET", URL, **{"If-None-Match": tag})[0] == 304
    assert client.ask("GET", f"{URL}?version=1")[0] == 200
    assert client.ask("GET", f"{LEAF}/history")[0] == 200
    assert place.stored() == before


def refused_save(client: Annotator, items: list[Item], status: int) -> str:
    """A page saves the whole leaf, which is refused and kept; returns its id."""
    answered, headers, read = client.ask("PUT", f"/~page{URL}", items)
    assert answered == status, read
    kept = headers["Precomputed-Edit"].removeprefix("refused; id=")
    answered, _, body = client.ask("GET", f"{PARKED}/{kept}")
    assert (answered, json.loads(body)) == (200, items)
    (row,) = json.loads(client.ask("GET", "/~page/brain/annotations/saves")[2])["saves"]
    assert (row["outcome"], row["kept"]) == ("refused", kept)
    return kept


def assert_works_again(client: Annotator, place: Place, kept: str) -> None:
    """Edits go well without a restart, the refused save among them."""
    assert client.patch(one(1)) == 200
    status, _, read = client.ask("POST", f"{PARKED}/{kept}/apply")
    assert status == 200, read
    assert json.loads(client.ask("GET", PARKED)[2])["parked"] == []
    assert place.stored() == by_id([*some(5), one(1)])
    check_log(place)
    assert place.left_behind() == []


def remount(place: Place, mode: str) -> None:
    """Make the file system of the root `ro` or `rw`."""
    subprocess.run(["mount", "-o", f"remount,{mode}", str(place.root)], check=True)


def test_a_mount_that_becomes_read_only(start_server: StartServer, mount_dataset: MountDataset) -> None:
    place = mount_dataset("size=2m")
    server = start_server(place.root, workers=2)
    with Annotator(server.port) as client:
        begin(client)
        remount(place, "ro")
        assert_refused(client, place, 503, b"read-only")
        kept = refused_save(client, some(5), 503)
        remount(place, "rw")
        assert_works_again(client, place, kept)


def test_a_mount_that_is_read_only_at_first(start_server: StartServer, mount_dataset: MountDataset) -> None:
    place = mount_dataset("size=2m")
    with Annotator(start_server(place.root, workers=1).port) as client:
        begin(client)
    remount(place, "ro")
    with Annotator(start_server(place.root, workers=2).port) as client:
        assert_refused(client, place, 503, b"read-only")
        kept = refused_save(client, some(5), 503)
        remount(place, "rw")
        assert_works_again(client, place, kept)


@pytest.fixture
def plain_user(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server on `place` that the modes of files bind, even where the tests run as root."""
    prefix: list[str] = []
    if os.getuid() == 0:
        program = shutil.which("setpriv")
        if program is None:
            missing("setpriv is not installed")
        prefix = [str(program), NO_RIGHTS]
    log, port = tmp_path_factory.mktemp("server") / "log", free_port()
    command = [*prefix, str(Path(sys.executable).with_name("precomputed")), "serve", str(place.root), "--workers", "2"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--state", str(log.with_name("state"))]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    server = RunningServer(process, port, log)
    try:
        wait_until_healthy(server)
        yield server
    finally:
        server.stop()


def test_a_right_that_is_taken_away(plain_user: RunningServer, place: Place) -> None:
    with Annotator(plain_user.port) as client:
        begin(client)
        for path, mode in (
            (place.block, 0o555),
            (place.history, 0o555),
            (place.history / "lock", 0o444),
            (place.log, 0o444),
        ):
            had = path.stat().st_mode
            path.chmod(mode)
            if path == place.history and client.patch(one(0)) == 200:
                # Files that are there already may be written: that is an edit as any other.
                assert client.ask("DELETE", f"{URL}?id={one(0)['id']}")[0] == 200
            else:
                assert_refused(client, place, 403, b"not accessible")
            path.chmod(had)
            assert client.patch(one(0)) == 200
            assert client.ask("DELETE", f"{URL}?id={one(0)['id']}")[0] == 200
        take_all_rights(client, place)


def take_all_rights(client: Annotator, place: Place) -> None:
    """No directory beneath the dataset may be written, and a page saves a leaf, and one of a new block."""
    annotations = place.block.parent
    for directory in (place.block, place.history, annotations):
        directory.chmod(0o555)
    kept = refused_save(client, some(5), 403)
    assert client.ask("PUT", URL.replace(BLOCK, "b1,1,1"), some(1))[0] == 403
    (row,) = [row for row in json.loads(client.ask("GET", PARKED)[2])["parked"] if row["block"] == "b1,1,1"]
    for directory in (place.block, place.history, annotations):
        directory.chmod(0o755)
    assert client.ask("POST", f"{PARKED}/{row['id']}/apply")[0] == 200
    assert json.loads(client.ask("GET", URL.replace(BLOCK, "b1,1,1"))[2]) == some(1)
    assert_works_again(client, place, kept)
