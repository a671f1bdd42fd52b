"""The catalog of a running server: new datasets are listed soon, whatever is done to the process and the database."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from precomputed_server.catalog.database import Catalog, Query
from precomputed_server.catalog.indexer import catalog_path, only_indexer
from precomputed_server.errors import Busy
from tests.catalog.trees import make_dataset, write_record
from tests.conftest import StartServer, missing

pytestmark = [pytest.mark.component, pytest.mark.timeout(120)]


def listed(path: Path) -> dict[str, str]:
    """The titles in a catalog by path; empty while it is being made."""
    try:
        with closing(Catalog(path)) as catalog:
            return {dataset["path"]: dataset["title"] for dataset in catalog.search(Query()).datasets}
    except sqlite3.Error:
        return {}


def within(seconds: float, is_so: Callable[[], bool]) -> None:
    """Wait until it is so."""
    until = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < until, "it did not become so in time"
        time.sleep(0.05)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    make_dataset(directory / "first", title="First")
    return directory


def test_changes_are_listed_soon_on_a_local_disk(start_server: StartServer, root: Path) -> None:
    server = start_server(root, "--index-period", "3600")
    path = catalog_path(server.log.with_name("state"), root)
    within(10, lambda: listed(path) == {"first": "First"})
    time.sleep(1)  # until the tree is watched
    make_dataset(root / "mouse" / "second", title="Second")
    within(2, lambda: listed(path) == {"first": "First", "mouse/second": "Second"})
    write_record(root / "first", title="Renamed")
    within(2, lambda: listed(path).get("first") == "Renamed")
    shutil.rmtree(root / "first")
    within(2, lambda: "first" not in listed(path))


def test_what_nobody_tells_of_is_listed_within_a_period(root: Path, start_server: StartServer) -> None:
    """The chunks of a tree are not listened to: that one is gone is seen by going through the tree."""
    server = start_server(root, "--index-period", "1")
    path = catalog_path(server.log.with_name("state"), root)
    within(10, lambda: "first" in listed(path))
    (root / "first" / "1_1_1" / "0-64_0-64_0-64").unlink()
    within(5, lambda: _state(path, "first") == "incomplete")


def _state(path: Path, dataset: str) -> str | None:
    with closing(Catalog(path)) as catalog:
        found = catalog.get(dataset)
        return None if found is None else str(found["state"])


@pytest.mark.parametrize("damage", ["removed", "overwritten"])
def test_a_catalog_that_is_damaged_under_a_server_is_made_anew(
    start_server: StartServer, root: Path, damage: str
) -> None:
    server = start_server(root, "--index-period", "1")
    path = catalog_path(server.log.with_name("state"), root)
    within(10, lambda: "first" in listed(path))
    if damage == "removed":
        for file in path.parent.glob("catalog.sqlite*"):
            file.unlink()
    else:
        path.write_bytes(os.urandom(path.stat().st_size))
        path.with_name(path.name + "-wal").write_bytes(b"")
    make_dataset(root / "second", title="Second")
    within(10, lambda: listed(path) == {"first": "First", "second": "Second"})


def test_one_process_of_all_servers_of_a_root_indexes(start_server: StartServer, root: Path) -> None:
    server = start_server(root, "--index-period", "1")
    path = catalog_path(server.log.with_name("state"), root)
    within(10, lambda: "first" in listed(path))
    with pytest.raises(Busy), only_indexer(path):
        pass
    holder = _holder(path.with_name("catalog.lock"), server.pid)
    os.kill(holder, signal.SIGKILL)
    make_dataset(root / "second", title="Second")
    within(15, lambda: "second" in listed(path))
    assert _holder(path.with_name("catalog.lock"), server.pid) != holder
    assert server.is_healthy()


def _holder(lock: Path, session: int) -> int:
    """The process of a server that has the lock file open."""
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            if int((directory / "stat").read_text().rpartition(")")[2].split()[3]) == session and any(
                os.path.realpath(each) == str(lock.resolve()) for each in (directory / "fd").iterdir()
            ):
                return int(directory.name)
        except OSError:
            continue
    raise AssertionError(f"nobody holds {lock}")


def test_what_the_kernel_dropped_is_looked_for_everywhere(start_server: StartServer, root: Path) -> None:
    """While the process that listens stands still, more happens elsewhere than the queue of its events holds."""
    (root / "notes").mkdir()
    (root / "mouse").mkdir()
    server = start_server(root, "--index-period", "3600")
    path = catalog_path(server.log.with_name("state"), root)
    within(10, lambda: "first" in listed(path))
    holder = _holder(path.with_name("catalog.lock"), server.pid)
    within(10, lambda: _is_watching(holder))
    time.sleep(1)  # until all of the tree is watched
    os.kill(holder, signal.SIGSTOP)
    try:
        _fill_queue(root / "notes")
        make_dataset(root / "mouse" / "second", title="Second")
    finally:
        os.kill(holder, signal.SIGCONT)
    within(20, lambda: "mouse/second" in listed(path))


def _fill_queue(directory: Path) -> None:
    """Make two events of each file: that it was made and that it was written."""
    for number in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text()) // 2 + 1):
        (directory / f"note-{number}").touch()


def _is_watching(process: int) -> bool:
    return any("inotify wd" in file.read_text() for file in Path(f"/proc/{process}/fdinfo").iterdir())


def test_at_the_limit_of_watches_the_periodic_scan_does_it_and_the_limit_is_named(root: Path, tmp_path: Path) -> None:
    state, log = tmp_path / "state", tmp_path / "log"
    program = str(Path(sys.executable).with_name("precomputed"))
    command = [program, "index", str(root), "--watch", "--state", str(state), "--period", "1"]
    limited = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    limited += ['echo 2 > /proc/sys/user/max_inotify_watches && exec "$@"', "sh"]
    if subprocess.run([*limited, "true"], capture_output=True).returncode != 0:
        missing("no user namespace with a limit of its own can be made here")
    with log.open("wb") as output:
        process = subprocess.Popen([*limited, *command], stdout=output, stderr=subprocess.STDOUT)
    try:
        within(10, lambda: "fs.inotify.max_user_watches" in log.read_text())
        make_dataset(root / "mouse" / "second", title="Second")
        within(10, lambda: "mouse/second" in listed(catalog_path(state, root)))
    finally:
        process.terminate()
        process.wait(10)
