"""Edits as they are made, told by real servers: nothing is missed when processes are killed, and nobody waits long."""

from __future__ import annotations

import asyncio
import http.client
import os
import random
import signal
import socket
import threading
import time
from contextlib import suppress

import pytest

from precomputed_server.format.geometry import Vector
from tests.annotation_store.conftest import ROOMY
from tests.annotation_store.followers import EVENTS, Follower, Key, following, until
from tests.annotation_store.support import Editor, Place
from tests.annotation_store.test_concurrency import Annotator, children, together
from tests.conftest import RunningServer, StartServer
from tests.data import point

pytestmark = pytest.mark.component

STOPS_WITHIN_S = 5.0
LEAVES = ("fibers", "centroids", "z-0003")


@pytest.fixture
def extent() -> Vector:
    """These tests draw anywhere."""
    return ROOMY


class Editing:
    """Annotators who edit until they have made `count` edits each; `acknowledged` says when each edit was answered."""

    def __init__(self, ports: list[int], annotators: int, count: int) -> None:
        self.ports = ports
        self.annotators = annotators
        self.count = count
        self.acknowledged: dict[Key, float] = {}
        self.pause_s = 0.0

    def all(self) -> None:
        """Make all edits."""
        together(self.annotators, self._edit)

    def _edit(self, who: int) -> None:
        dice = random.Random(who)
        with Annotator(self.ports[who % len(self.ports)]) as client:
            for number in range(self.count):
                leaf = dice.choice(LEAVES)
                item = point(who * 100 + number % 7, number, who, 3, number=number)
                version = self._insist(client, leaf, item, f"{who}-{number}")
                self.acknowledged[("x0y0z0", leaf, version, item["id"])] = time.monotonic()
                time.sleep(self.pause_s)

    def _insist(self, client: Annotator, leaf: str, item: dict[str, object], key: str) -> int:
        url = f"/~annotator/brain/annotations/x0y0z0/{leaf}.json?id={item['id']}"
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError, http.client.HTTPException):
                status, headers, _ = client.ask("PATCH", url, item, **{"Idempotency-Key": key})
                if status == 200:
                    return int(headers["Precomputed-Version"])
                assert status == 503, status
            time.sleep(0.02)
        raise AssertionError("an edit was not answered")


class Killer:
    """Kills a random process of a server again and again, as long as edits are made."""

    def __init__(self, servers: list[RunningServer], kills: int, pause_s: float) -> None:
        self.kills = kills
        self.servers = servers
        self.pause_s = pause_s
        self.over = threading.Event()
        self.killed = 0

    def run(self) -> None:
        """Kill until there were enough."""
        dice = random.Random(1)
        while self.killed < self.kills and not self.over.wait(self.pause_s):
            processes = children(dice.choice(self.servers).pid)
            if len(processes) > 3:  # the others are still starting
                with suppress(ProcessLookupError):
                    os.kill(dice.choice(processes), signal.SIGKILL)
                    self.killed += 1


async def tell_all(servers: list[RunningServer], followers: int, edits: int, kills: int) -> tuple[list[Follower], int]:
    """Have edits made while processes are killed; asserts that each follower is told of every one."""
    annotators = 8
    editing = Editing([server.port for server in servers], annotators, edits // annotators)
    killer = Killer(servers, kills, pause_s=0.25)
    urls = [servers[number % len(servers)].url for number in range(followers)]
    async with following(urls) as listening:
        killing = asyncio.create_task(asyncio.to_thread(killer.run))
        await asyncio.to_thread(editing.all)
        while killer.killed < kills:  # the rest of the kills while nobody edits
            await asyncio.sleep(0.1)
        await killing
        wanted = set(editing.acknowledged)
        assert len(wanted) == edits // annotators * annotators
        await until(lambda: all(wanted <= follower.seen.keys() for follower in listening), 30)
    for follower in listening:
        assert wanted - follower.seen.keys() == set()
        assert follower.differing == []
    return listening, killer.killed


async def test_killed_processes_keep_nobody_from_being_told(start_server: StartServer, place: Place) -> None:
    server = await asyncio.to_thread(start_server, place.root, workers=4)
    followers, _ = await tell_all([server], followers=32, edits=2000, kills=10)
    versions = {key[:3] for key in followers[0].seen}
    assert len(versions) == len(followers[0].seen)
    assert sum(follower.torn for follower in followers) > 0


@pytest.mark.nightly
async def test_fifty_kills_while_ten_thousand_edits_are_told(start_server: StartServer, place: Place) -> None:
    server = await asyncio.to_thread(start_server, place.root, workers=4)
    followers, killed = await tell_all([server], followers=32, edits=10_000, kills=50)
    assert killed == 50


async def test_two_hundred_clients_are_told_within_half_a_second_and_hold_no_stop_up(
    start_server: StartServer, place: Place
) -> None:
    server = await asyncio.to_thread(start_server, place.root, workers=4)
    editing = Editing([server.port], annotators=2, count=50)
    editing.pause_s = 0.1
    async with following([server.url] * 200) as listening:
        await asyncio.to_thread(editing.all)
        assert await until(lambda: all(len(follower.seen) == 100 for follower in listening), 20)
        late = sorted(
            told - editing.acknowledged[key] for follower in listening for key, told in follower.times.items()
        )
        assert late[len(late) * 99 // 100] <= 0.5, late[:: len(late) // 20]
        begun = time.monotonic()
        await asyncio.to_thread(server.stop)
        assert time.monotonic() - begun < STOPS_WITHIN_S
    assert sum(follower.torn for follower in listening) >= 200


async def test_edits_of_another_host_are_told(start_server: StartServer, place: Place) -> None:
    """Two servers of one root that know nothing of each other."""
    servers = [
        await asyncio.to_thread(start_server, place.root, "--state", str(place.root.parent / f"host-{number}"))
        for number in range(2)
    ]
    listening, _ = await tell_all(servers, followers=4, edits=400, kills=0)
    first, *others = listening
    assert len(first.seen) == 400
    for other in others:
        assert other.seen == first.seen  # the ids of events as well


async def test_a_stop_does_not_wait_for_a_client_that_takes_nothing(start_server: StartServer, place: Place) -> None:
    server = await asyncio.to_thread(start_server, place.root, workers=1)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(f"GET {EVENTS} HTTP/1.1\r\nHost: here\r\n\r\n".encode())
        assert client.recv(12).startswith(b"HTTP/1.1 200")
        await asyncio.to_thread(write_much, place)
        await asyncio.sleep(2)
        begun = time.monotonic()
        await asyncio.to_thread(server.stop)
        assert time.monotonic() - begun < STOPS_WITHIN_S


def write_much(place: Place) -> None:
    """Make edits of 12 MB together, which no socket holds."""
    editor = Editor(place)
    for number in range(200):
        editor.put(point(1, 1, 1, 1, text="x" * 60_000, number=number))
    editor.close()
