"""Every call of an edit as the last one, and every call failing: by strace, in processes of their own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from annotation_store.digests import etag_of
from annotation_store.edits import apply
from annotation_store.model import Item
from annotation_store.orders import Save
from annotation_store.pages.journal import Journal
from tests.annotation_store.edit_once import JOURNAL, OPERATIONS
from tests.annotation_store.support import BLOCK, Editor, Place, by_id, check_log, some, written
from tests.conftest import REPOSITORY, StartServer, component

pytestmark = pytest.mark.component

CALLS = {
    "openat": "openat",
    "openat2": "openat2",
    "write": "/^p?write(v|64)?$",
    "fdatasync": "fdatasync",
    "fsync": "fsync",
    "rename": "/^rename",
    "truncate": "ftruncate",
    "link": "linkat",
    "unlink": "unlinkat",
}
AT_MOST = 25
UNFELT = 6
"""How many faults in a row may cost nothing, because they met what is noted of pages, before no more are tried."""
TORN = b'{"leaf":"fibers","version":5,"ti'


class Editing:
    """The program `edit_once`, and strace on what it forks."""

    def __init__(self) -> None:
        self.strace = component("strace")
        command = [sys.executable, "-m", "tests.annotation_store.edit_once"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )

    def run(self, root: Path, operation: str, inject: str) -> list[object]:
        """How the edit ended: ["killed"], or the names of what it and one more edit ended with."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{root} {operation}\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        calls = inject.partition(":")[0]
        with subprocess.Popen(
            [self.strace, "-p", str(child), "-e", f"trace={calls}", "-e", f"inject={inject}", "-o", os.devnull],
            stderr=subprocess.PIPE,
        ) as tracer:
            assert tracer.stderr is not None
            assert b"attached" in tracer.stderr.readline()
            os.kill(child, signal.SIGCONT)
            ended: list[object] = json.loads(self.process.stdout.readline())
        return ended

    def close(self) -> None:
        """End the program."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def editing() -> Iterator[Editing]:
    """The program that edits once, started once."""
    found = Editing()
    yield found
    found.close()


def stored_leaf(place: Place) -> None:
    """Three versions, of which the page that saves holds the newest."""
    editor = Editor(place)
    for item in some(3):
        editor.put(item)
    page_reads(place)


def page_reads(place: Place) -> None:
    """What serving notes before it answers a page."""
    journal = Journal(place.root / JOURNAL)
    journal.note_read("page", f"brain/annotations/{BLOCK}/fibers.json", etag_of(place.file().read_bytes()))
    journal.close()


def empty_block(_: Place) -> None:
    """Neither file nor log."""


def unfinished_edit(place: Place) -> None:
    """The log is ahead of the file: the next edit finishes what a crash interrupted."""
    stored_leaf(place)
    before = place.file().read_bytes()
    Editor(place).put(some(1, first=3)[0])
    place.file().write_bytes(before)
    with place.log.open("ab") as log:
        log.write(TORN)


def damaged_file(place: Place) -> None:
    """The next edit sets the file aside."""
    stored_leaf(place)
    place.file().write_bytes(b"[{")


def external_file(place: Place) -> None:
    """The next edit makes what another tool wrote a version."""
    stored_leaf(place)
    place.file().write_text(json.dumps(some(2), indent=1))


SITUATIONS: dict[str, tuple[Callable[[Place], None], int]] = {
    "stored": (stored_leaf, 3),
    "empty": (empty_block, 0),
    "unfinished": (unfinished_edit, 4),
    "damaged": (damaged_file, 3),
    "external": (external_file, 2),
}
CASES = [("stored", operation) for operation in OPERATIONS] + [
    (situation, "add") for situation in SITUATIONS if situation != "stored"
]


def after(operation: str, before: dict[str, Item]) -> dict[str, Item]:
    """What the leaf holds once the edit was made."""
    wish = OPERATIONS[operation]()
    if isinstance(wish, Save):  # of a page that held `before`
        return {id: wish.items[id] for id in before if id in wish.items} | wish.items
    return apply(before, wish.edits(before))


def fresh(template: Path, number: int) -> Place:
    """A copy of the prepared root."""
    root = template.parent / f"{template.name}-{number}"
    shutil.copytree(template, root)
    return Place(root)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("situation", "operation"), CASES)
def test_a_kill_before_any_call_loses_and_tears_nothing(
    editing: Editing, tmp_path: Path, situation: str, operation: str, call: str
) -> None:
    prepare, count = SITUATIONS[situation]
    template = Place(tmp_path / "data")
    template.block.mkdir(parents=True)
    prepare(template)
    before = by_id(some(count))
    wanted = after(operation, before)
    for number in range(1, AT_MOST + 1):
        place = fresh(template.root, number)
        ended = editing.run(place.root, operation, f"{CALLS[call]}:signal=KILL:when={number}")
        content = place.file().read_bytes() if place.file().exists() else None
        editor = Editor(place)
        editor.put(some(1, first=30)[0])
        left = place.stored()
        extra = [item["id"] for item in (*some(1, first=20), *some(1, first=30))]
        kept = {id: item for id, item in left.items() if id not in extra}
        if ended != ["killed"]:
            assert ended == ["Outcome", "Outcome", True]
            assert kept == wanted
            return
        assert content in possible(template, before, wanted, extra[0])
        assert kept in (before, wanted)
        check_log(place)
        assert place.left_behind() == []
    raise AssertionError(f"more than {AT_MOST} calls")


def possible(template: Place, before: dict[str, Item], wanted: dict[str, Item], second: str) -> list[bytes | None]:
    """What the file may be at any moment: as it was, recovered, after the edit, or after the one more edit."""
    old = template.file().read_bytes() if template.file().exists() else None
    last = {**wanted, second: some(1, first=20)[0]}
    return [old, *(written(items.values()) for items in (before, wanted, last))]


ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EROFS", "ESTALE", "EINTR")
TYPED = {"Unreadable", "StorageFull", "WritesRefused", "NotPermitted", "NotFound", "Busy"}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("operation", ["put", "restore", "save"])
@pytest.mark.parametrize("call", ["openat", "openat2", "write", "fdatasync", "fsync", "rename"])
def test_a_call_that_fails_is_told_and_costs_nothing(
    editing: Editing, tmp_path: Path, call: str, operation: str, error: str
) -> None:
    template = Place(tmp_path / "data")
    template.block.mkdir(parents=True)
    stored_leaf(template)
    before = by_id(some(3))
    wanted = after(operation, before)
    second = by_id(some(1, first=20))
    refused = unfelt = 0
    for number in range(1, AT_MOST + 1):
        place = fresh(template.root, number)
        first, again, made = editing.run(place.root, operation, f"{CALLS[call]}:error={error}:when={number}")
        check_log(place)
        stored = place.stored()
        if made:
            assert stored.keys() >= wanted.keys()
        else:
            refused += 1
            assert first in TYPED
            assert stored in ({**before, **second}, {**wanted, **second}, before, wanted)
        if again == "Outcome":
            assert stored.keys() >= second.keys()
        else:
            assert made, f"the fault of call {number} is over and still felt: {first}, {again}"
        Editor(place).put(some(1, first=30)[0])
        check_log(place)
        unfelt = unfelt + 1 if made and again == "Outcome" else 0
        if unfelt == UNFELT:
            break
    if error == "EINTR" and call != "rename":
        assert refused == 0  # it is called again
    else:
        assert refused > 0


PUT_STEPS = ("temporary", "fsync", "log", "fdatasync", "rename", "directory", "answer")


def steps_of(trace: str) -> list[str]:
    """The steps of the write sequence in the order in which they ended, from the output of `strace -f -y`."""
    patterns = (
        (r"write\(\d+<[^>]*/log-\d+\.jsonl>", "log"),
        (r"fdatasync\(\d+<[^>]*/log-\d+\.jsonl>", "fdatasync"),
        (r"write\(\d+<[^>]*\.tmp>", "temporary"),
        (r"fsync\(\d+<[^>]*\.tmp>", "fsync"),
        (r"rename[a-z0-9]*\(.*fibers\.json", "rename"),
        (r"fsync\(\d+<[^>]*/x0y0z0>", "directory"),
        (r"(write|writev|sendto|sendmsg)\(\d+<(socket|TCP)[^>]*>.*HTTP/1\.1 200", "answer"),
    )
    found, open_calls = [], {}
    for line in trace.splitlines():
        thread, _, text = line.partition(" ")
        step = next((name for pattern, name in patterns if re.search(pattern, text)), None)
        if "<unfinished" in text:
            open_calls[thread] = step
            if step == "answer":
                found.append(step)  # what counts is when it begins
            continue
        if "resumed>" in text:
            step = open_calls.pop(thread, None)
            step = None if step == "answer" else step
        if step is not None:
            found.append(step)
    return found


def in_order(steps: list[str]) -> bool:
    """Whether whole write sequences follow each other."""
    return len(steps) > 0 and steps == list(PUT_STEPS) * (len(steps) // len(PUT_STEPS))


def test_what_is_answered_is_on_disk(start_server: StartServer, place: Place, tmp_path: Path) -> None:
    """temporary < fsync < log < fdatasync < rename < fsync of the directory < the answer, of a real server."""
    strace = component("strace")
    server = start_server(place.root, workers=1)
    url = f"{server.url}/brain/annotations/x0y0z0/fibers.json"
    send(url, 1)  # block, history and log are there
    trace = tmp_path / "trace"
    command = [strace, "-f", "-y", "-s", "100", "-o", str(trace)]
    command += ["-e", "trace=write,writev,sendto,sendmsg,fsync,fdatasync,/rename"]
    workers = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()  # and the writer
    for worker in workers:
        command += ["-p", worker]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        for _ in workers:
            assert b"attached" in tracer.stderr.readline()
        for number in range(2, 12):
            send(url, number)
        tracer.terminate()
        tracer.stderr.read()
    steps = steps_of(trace.read_text())
    assert len(steps) == 10 * len(PUT_STEPS), steps
    assert in_order(steps), steps
    for number in range(len(PUT_STEPS) - 1):  # and the check would see any two that change places
        wrong = list(PUT_STEPS)
        wrong[number : number + 2] = reversed(wrong[number : number + 2])
        assert not in_order([*steps, *wrong])


def send(url: str, count: int) -> None:
    """PUT that many points."""
    request = urllib.request.Request(url, json.dumps(some(count)).encode(), method="PUT")
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
