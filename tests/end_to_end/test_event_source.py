"""The browser's own EventSource follows a dataset from a page of another origin, whatever becomes of its stream."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.annotation_store.support import Editor, Place, some
from tests.annotation_store.test_concurrency import children
from tests.conftest import RunningServer, StartServer
from tests.data import volume, write_dataset
from tests.end_to_end.browser import Visit, visit

FOLLOW = """url => {
    window.told = [];
    window.opened = 0;
    const events = new EventSource(url);
    events.onopen = () => { window.opened += 1; };
    events.onmessage = message => {
        const edit = JSON.parse(message.data);
        window.told.push([message.lastEventId === edit.event, edit.leaf, edit.version, edit.id, edit.after]);
    };
}"""

A, B, C = some(3)


@pytest.mark.component
def test_a_browser_misses_nothing_when_its_server_process_is_killed(start_server: StartServer, tmp_path: Path) -> None:
    place = Place(tmp_path / "data")
    write_dataset(place.root / "brain", volume((1, 6, 8, 10), "uint8"), chunk_size=(16, 16, 16))
    server = start_server(place.root, workers=1)
    with visit(200, 200) as seen:
        seen.page.evaluate(FOLLOW, f"{server.url}/brain/annotations/events")
        assert seen.until(lambda: opened(seen), lambda times: times == 1) == 1
        kill_all(server)  # before anything was told
        edit(place, lambda editor: editor.put(A))
        assert told(seen, 1) == [[True, "fibers", 1, A["id"], A]]
        edit(place, lambda editor: editor.put({**A, "reviewed": True}))
        edit(place, lambda editor: editor.delete(A["id"]))
        assert [edit[4] for edit in told(seen, 3)] == [A, {**A, "reviewed": True}, None]
        kill_all(server)
        edit(place, lambda editor: editor.put(B))
        edit(place, lambda editor: editor.put(C, leaf="centroids"))
        known = told(seen, 5)
        assert {edit[3] for edit in known[3:]} >= {B["id"], C["id"]}
        assert all(edit[0] for edit in known)


def edit(place: Place, made: Callable[[Editor], object]) -> None:
    """Edit as another process would, in a thread: the browser's driver has a loop in this one."""

    def in_thread() -> None:
        editor = Editor(place)
        made(editor)
        editor.close()

    with ThreadPoolExecutor(1) as threads:
        threads.submit(in_thread).result()


def opened(seen: Visit) -> int:
    """How often the stream was opened."""
    return int(seen.page.evaluate("window.opened"))


def told(seen: Visit, count: int) -> list[list[Any]]:
    """What the page was told, each edit once, when that many are known."""

    def known() -> list[list[Any]]:
        return list({tuple(map(str, edit[1:4])): edit for edit in seen.page.evaluate("window.told")}.values())

    return seen.until(known, lambda edits: len(edits) >= count)


def kill_all(server: RunningServer) -> None:
    """Kill every process of the pool, and wait until none of them lives."""
    killed = children(server.pid)
    for process in killed:
        os.kill(process, signal.SIGKILL)
    while set(killed) & set(children(server.pid)):
        time.sleep(0.01)
