"""Many annotators on one leaf of a real server with several workers, and processes that are killed meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from annotation_store.model import Item
from precomputed_server import writing
from precomputed_server.format.geometry import Vector
from tests.annotation_store.conftest import ROOMY
from tests.annotation_store.support import Editor, Place, by_id, check_log, some, written
from tests.conftest import RunningServer, StartServer
from tests.data import point

URL = "/brain/annotations/x0y0z0/fibers.json"


@pytest.fixture
def extent() -> Vector:
    """These tests draw anywhere."""
    return ROOMY


class Annotator:
    """One client on a connection of its own; reconnects when a worker was killed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def ask(self, method: str, url: str, body: object = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body; raises OSError or HTTPException when the connection broke."""
        try:
            self.connection.request(method, url, None if body is None else json.dumps(body), headers)
            answer = self.connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise

    def __enter__(self) -> Annotator:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def patch(self, item: Item) -> int:
        """Add or change one annotation."""
        return self.ask("PATCH", f"{URL}?id={item['id']}", item)[0]


def children(pid: int) -> list[int]:
    """The processes that the threads of a process began."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, path.read_text().split())
    return found


def together(count: int, work: Callable[[int], object]) -> None:
    """Run `work(0)` to `work(count - 1)` in threads; the first failure is raised."""
    with ThreadPoolExecutor(count) as pool:
        for done in [pool.submit(work, number) for number in range(count)]:
            done.result()


@pytest.mark.component
def test_eight_annotators_on_four_workers_lose_nothing(start_server: StartServer, place: Place) -> None:
    server = start_server(place.root, workers=4)
    each, annotators = 40, 8

    def annotate(who: int) -> None:
        with Annotator(server.port) as client:
            for number in range(each):
                item = point(who * 1000 + number, who, number, 1)
                assert client.patch(item) == 200
                if number % 4 == 3:
                    assert client.ask("DELETE", f"{URL}?id={item['id']}")[0] == 200

    together(annotators, annotate)
    wanted = {
        item["id"]: item
        for who in range(annotators)
        for number in range(each)
        if number % 4 != 3
        for item in [point(who * 1000 + number, who, number, 1)]
    }
    assert place.stored() == wanted
    edits = annotators * each * 5 // 4
    assert check_log(place) == {"fibers": edits}
    assert [path.name for path in place.block.iterdir()] == ["fibers.json"]


@pytest.mark.component
def test_of_saves_with_the_same_if_match_one_wins(start_server: StartServer, place: Place) -> None:
    server = start_server(place.root, workers=4)
    rounds, annotators = 12, 6
    barrier = threading.Barrier(annotators)
    won: Counter[str] = Counter()
    Editor(place).replace(some(1))

    def annotate(who: int) -> None:
        with Annotator(server.port) as client:
            for number in range(rounds):
                barrier.wait(20)
                _, headers, body = client.ask("GET", URL)
                barrier.wait(20)
                wanted = [*json.loads(body), point(who * 1000 + number + 1, who, number, 1)]
                status, answered, _ = client.ask("PUT", URL, wanted, **{"If-Match": headers["ETag"]})
                assert status in (200, 412)
                if status == 200:
                    won[headers["ETag"]] += 1
                    assert answered["Precomputed-Version"] == str(number + 2)

    together(annotators, annotate)
    assert len(won) == rounds
    assert set(won.values()) == {1}
    assert len(place.stored()) == rounds + 1
    check_log(place)


@pytest.mark.component
def test_readers_see_whole_versions_whose_tag_is_their_hash(start_server: StartServer, place: Place) -> None:
    server = start_server(place.root, workers=2)
    versions = [some(number % 50 + 1) for number in range(60)]
    known = {written(items) for items in versions}
    Editor(place).replace(versions[0])
    tags: dict[str, bytes] = {}
    over = threading.Event()

    def read(_: int) -> None:
        with Annotator(server.port) as client:
            while not over.is_set():
                status, headers, body = client.ask("GET", URL)
                assert status == 200
                assert body in known
                assert tags.setdefault(headers["ETag"], body) == body

    def write(_: int) -> None:
        try:
            with Annotator(server.port) as client:
                for items in versions:
                    assert client.ask("PUT", URL, items, **{"If-Match": "*"})[0] == 200
        finally:
            over.set()

    together(4, lambda number: (read if number else write)(number))
    assert len(tags) > 10


class Torture:
    """Annotators who note what was acknowledged, and what may have been done."""

    def __init__(self, server: RunningServer, seed: int = 0) -> None:
        self.server = server
        self.acknowledged = self.parked = 0
        self.over = threading.Event()
        self.dice = random.Random(seed)
        self.possible: list[dict[str, list[Item | None]]] = []

    def annotate(self, who: int) -> None:
        """Add, change and delete annotations of one's own; `possible` holds each one's last known and later states."""
        with Annotator(self.server.port) as client:
            if who % 4 == 3:
                self.save_with(client, who)
            else:
                self.annotate_with(client, who)

    def save_with(self, client: Annotator, who: int) -> None:
        """The same as a page does it: it reads once, and saves whole files, whatever it is answered."""
        mine, dice, number = self.possible[who], random.Random(who), 0
        held, gone = self.read_by(client, who), set[str]()
        while not self.over.is_set():
            number += 1
            item = point(who * 1000 + dice.randrange(20), who, number, 1)
            id = item["id"]
            if id in held and dice.random() < 0.2:
                del held[id]
                gone.add(id)
            else:
                held[id] = item
                gone.discard(id)
            mine.setdefault(id, [None]).append(held.get(id))
            try:
                status, headers, _ = client.ask("PUT", f"/~page{who}{URL}", list(held.values()))
            except (OSError, http.client.HTTPException):
                continue  # its next save says the same once more
            assert status in (200, 503), status
            if status == 200:
                self.acknowledged += 1
                parked = headers["Precomputed-Edit"].startswith("parked")
                self.parked += parked
                for id in mine:
                    if id not in gone or not parked:
                        mine[id] = [held.get(id)]

    def read_by(self, client: Annotator, who: int) -> dict[str, Item]:
        """What the page is answered."""
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, _, body = client.ask("GET", f"/~page{who}{URL}")
                return by_id(json.loads(body)) if status == 200 else {}

    def annotate_with(self, client: Annotator, who: int) -> None:
        """The same on that connection."""
        mine, dice, number = self.possible[who], random.Random(who), 0
        while not self.over.is_set():
            number += 1
            item = point(who * 1000 + dice.randrange(20), who, number, 1)
            id, delete = item["id"], dice.random() < 0.2
            states = mine.setdefault(id, [None])
            states.append(None if delete else item)
            try:
                status = client.ask("DELETE", f"{URL}?id={id}")[0] if delete else client.patch(item)
            except (OSError, http.client.HTTPException):
                continue  # unknown: it may have been done
            if status == 200 or (delete and status == 404):
                self.acknowledged += 1
                mine[id] = [states[-1]]
            else:
                assert status == 503, status

    def kill_workers(self, count: int, seconds: float) -> None:
        """Send SIGKILL to that many processes of the pool, the writer among them, one after the other."""
        for _ in range(count):
            time.sleep(seconds / count)
            workers = children(self.server.pid)
            if workers:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.dice.choice(workers), signal.SIGKILL)

    def run(self, annotators: int, kills: int, seconds: float) -> None:
        """Annotate while workers are killed."""
        self.possible = [{} for _ in range(annotators)]
        with ThreadPoolExecutor(annotators) as pool:
            done = [pool.submit(self.annotate, who) for who in range(annotators)]
            try:
                self.kill_workers(kills, seconds)
            finally:
                self.over.set()
            for ended in done:
                ended.result()

    def lost(self, stored: dict[str, Item]) -> list[str]:
        """Ids whose stored state is none of those it may be in."""
        return [id for mine in self.possible for id, states in mine.items() if stored.get(id) not in states] + [
            id for id in stored if not any(id in mine for mine in self.possible)
        ]


@pytest.mark.component
def test_no_acknowledged_edit_is_lost_when_workers_are_killed(start_server: StartServer, place: Place) -> None:
    server = start_server(place.root, workers=3)
    torture = Torture(server)
    torture.run(annotators=8, kills=50, seconds=15)
    last = point(1_000_000, 0, 0, 0)
    Editor(place).put(last)  # finishes what the last kill interrupted
    stored = place.stored()
    assert stored.pop(last["id"]) == last
    assert torture.lost(stored) == []
    assert check_log(place)["fibers"] > 0
    assert torture.acknowledged > 1000
    assert place.left_behind() == []
    # The checker sees one that is missing, one that came back, and one that nobody made.
    some_id = next(id for id, states in torture.possible[1].items() if states[-1] is not None and len(states) == 1)
    assert torture.lost({id: item for id, item in stored.items() if id != some_id}) == [some_id]
    assert torture.lost(stored | {some_id: {"id": some_id}}) == [some_id]
    assert torture.lost(stored | {"nobody's": {"id": "nobody's"}}) == ["nobody's"]
    print(f"{torture.acknowledged} edits acknowledged while 50 workers were killed")  # noqa: T201


def writer_of(server: RunningServer) -> int | None:
    """The process of the pool that commits the edits: it has the lock file open."""
    for pid in children(server.pid):
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                if os.readlink(descriptor).endswith("/writer.lock"):
                    return pid
    return None


@pytest.mark.component
def test_a_writer_that_is_killed_is_replaced_before_anybody_is_refused(start_server: StartServer, place: Place) -> None:
    server = start_server(place.root, workers=2)
    waits: list[float] = []
    over = threading.Event()

    def annotate(who: int) -> None:
        with Annotator(server.port) as client:
            number = 0
            while not over.is_set():
                number += 1
                begun = time.monotonic()
                assert client.patch(point(who * 100_000 + number, who, number, 1)) == 200
                waits.append(time.monotonic() - begun)

    def kill(_: int) -> None:
        try:
            for _ in range(8):
                time.sleep(0.7)
                writer = writer_of(server)
                assert writer is not None
                os.kill(writer, signal.SIGKILL)
            time.sleep(0.7)
        finally:
            over.set()

    together(4, lambda number: (annotate if number else kill)(number))
    assert len(place.stored()) == len(waits)  # each once, the repeated ones too
    assert check_log(place) == {"fibers": len(waits)}
    assert max(waits) < 2


@pytest.mark.component
def test_the_process_for_large_leaves_ends_with_its_worker(start_server: StartServer, place: Place) -> None:
    """Stopping the server checks that nothing of its session is left."""
    server = start_server(place.root, "--large-body", "1000", workers=1)
    with Annotator(server.port) as client:
        kill_helper_and_worker(server, client)
    assert place.stored() == by_id(some(21))


def kill_helper_and_worker(server: RunningServer, client: Annotator) -> None:
    """Kill the process for large leaves, and then the worker that has another one."""
    assert client.ask("PUT", URL, some(20))[0] == 200
    worker = next(pid for pid in children(server.pid) if children(pid))  # the writer needs none
    helpers = children(worker)
    assert helpers
    # Killed itself, it is begun anew; nothing acknowledged is lost.
    for helper in helpers:
        os.kill(helper, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (status := client.ask("PUT", URL, some(21))[0]) == 503 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert status == 200
    helpers = children(worker)
    assert helpers
    os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while any(alive(helper) for helper in helpers) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(alive(helper) for helper in helpers)


def alive(pid: int) -> bool:
    """Whether a process runs and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except OSError:
        return False


def edit_in_threads(place: Place, count: int = 8, each: int = 25) -> None:
    """Threads with a store of their own add points to one leaf; none may be lost."""

    def edit(who: int) -> None:
        editor = Editor(place)
        for number in range(each):
            editor.put(point(who * 1000 + number, 1, 1, 1))

    together(count, edit)
    assert len(place.stored()) == count * each
    check_log(place)


def test_threads_exclude_each_other(place: Place) -> None:
    edit_in_threads(place)


def test_threads_share_one_store(editor: Editor, place: Place) -> None:
    def edit(who: int) -> None:
        for number in range(25):
            editor.put(point(number, who, 1, 1), leaf=f"z-{who:04d}")
            editor.put(point(who * 1000 + number, who, 1, 1))

    together(6, edit)
    assert len(place.stored()) == 150
    assert check_log(place) == {"fibers": 150} | {f"z-{who:04d}": 25 for who in range(6)}


@contextlib.contextmanager
def no_lock(*_: object) -> Iterator[None]:
    """What exclusive_lock would be if it did nothing."""
    yield


def test_without_the_lock_edits_are_lost(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annotation_store.committing.block.exclusive_lock", no_lock)
    rename = writing.Replacement.rename

    def slowly(replacement: writing.Replacement) -> None:
        time.sleep(0.002)
        rename(replacement)

    monkeypatch.setattr(writing.Replacement, "rename", slowly)
    with pytest.raises((AssertionError, OSError, ValueError, KeyError)):
        edit_in_threads(place, 4, 10)


def test_a_leaf_is_found_while_it_is_replaced(editor: Editor, place: Place) -> None:
    editor.replace(some(1))
    over = threading.Event()

    def replace(_: int) -> None:
        while not over.is_set():
            (place.block / "other").write_bytes(b"[]")
            os.rename(place.block / "other", place.file())

    def look(_: int) -> None:
        try:
            end = time.monotonic() + 0.5
            while time.monotonic() < end:
                assert editor.store.locate("brain", "x0y0z0", "fibers").leaf == "fibers"
        finally:
            over.set()

    together(2, lambda number: (look if number else replace)(number))
