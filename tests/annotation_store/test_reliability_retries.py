"""Answers that are lost on their way after the edit was committed, and clients that send the request again."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from annotation_store.model import Item
from precomputed_server.format.geometry import Vector
from tests.annotation_store.conftest import ROOMY
from tests.annotation_store.support import Place, by_id, check_log
from tests.annotation_store.test_concurrency import Annotator, together
from tests.conftest import StartServer
from tests.data import point

BLOCKS = "/brain/annotations"
SHARED = f"{BLOCKS}/x0y0z0/fibers.json"
SECOND = "b1,0,0"
DROP = {"X-Drop": "1"}
CLIENTS = 8
NO_LINGERING = struct.pack("ii", 1, 0)


@pytest.fixture
def extent() -> Vector:
    """These tests draw anywhere."""
    return ROOMY


class DroppingProxy:
    """A TCP proxy that cuts the answer to every request with an X-Drop header short, at a random byte.

    It keeps its connections to the server, and reads an answer whole before it drops it: the edit is committed.
    """

    def __init__(self, port: int) -> None:
        self._upstream_port = port
        self._idle: list[socket.socket] = []
        self._taking = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.dropped = 0
        self._threads: list[threading.Thread] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop taking connections."""
        self._listener.close()
        for connection in self._idle:
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, ValueError):
            client.settimeout(30)
            while True:
                request = message(client)
                answer = self._answered(request)
                if b"\r\nX-Drop: 1\r\n" in request:
                    client.sendall(answer[: random.randrange(len(answer))])
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGERING)
                    with self._taking:
                        self.dropped += 1
                    return
                client.sendall(answer)

    def _answered(self, request: bytes) -> bytes:
        with self._taking:
            upstream = self._idle.pop() if self._idle else None
        if upstream is None:
            upstream = socket.create_connection(("127.0.0.1", self._upstream_port), timeout=30)
        upstream.sendall(request)
        answer = message(upstream)
        with self._taking:
            self._idle.append(upstream)
        return answer


def message(connection: socket.socket) -> bytes:
    """The next HTTP message with a Content-Length, whole; raises ValueError when the connection ends."""
    read = b""
    while (end := read.find(b"\r\n\r\n")) < 0:
        read += some_of(connection)
    head = read[:end].lower()
    start = head.find(b"\r\ncontent-length:")
    length = int(head[start + 17 :].partition(b"\r\n")[0]) if start >= 0 else 0
    while len(read) < end + 4 + length:
        read += some_of(connection)
    return read


def some_of(connection: socket.socket) -> bytes:
    piece = connection.recv(1 << 16)
    if not piece:
        raise ValueError("the connection ended")
    return piece


class Forgetful:
    """A client whose first request is answered into the void and who sends it again.

    `changed` counts the edits that changed something, by block and leaf: what the versions have to come to.
    """

    def __init__(self, who: int, proxy: DroppingProxy, server_port: int) -> None:
        self.who = who
        self.dice = random.Random(who)
        self.through = Annotator(proxy.port)
        self.other = Annotator(server_port)
        self.number = 0
        self.shared: dict[str, Item] = {}
        self.second: dict[str, Item] = {}
        self.own: dict[str, Item] = {}
        self.changed: Counter[tuple[str, str]] = Counter()
        self.answers: Counter[str] = Counter()

    def next_item(self) -> Item:
        """An annotation that there was never before."""
        self.number += 1
        return point(self.who * 1_000_000 + self.number, self.who, self.number, 1)

    def twice(
        self, method: str, url: str, body: object, key: bool = True, between: object = None
    ) -> tuple[dict[str, str], bytes]:
        """Send a request, lose its answer, let `between` happen, and send it again."""
        headers = {"Idempotency-Key": f"{self.who}-{self.number}"} if key else {}
        with pytest.raises((OSError, http.client.HTTPException)):
            self.through.ask(method, url, body, **headers, **DROP)
        if callable(between):
            between()
        status, answered, read = self.through.ask(method, url, body, **headers)
        assert status in (200, 201), (method, url, status, read)
        return answered, read

    def step(self) -> None:
        """One edit of a random kind."""
        self.dice.choice([self.create, self.put_one, self.delete_one, self.many, self.save])()

    def create(self) -> None:
        """POST without an id: the server gives one, and gives the same again."""
        item = self.next_item()
        del item["id"]
        _, read = self.twice("POST", SHARED, item)
        id = json.loads(read)
        assert id not in self.shared
        self.shared[id] = {**item, "id": id}
        self.changed["x0y0z0", "fibers"] += 1

    def put_one(self) -> None:
        """PATCH, and in between perhaps somebody who changes the same annotation."""
        item = self.next_item()
        if self.shared and self.dice.random() < 0.5:
            item["id"] = self.dice.choice(sorted(self.shared))
        url = f"{SHARED}?id={item['id']}"
        same = self.shared.get(item["id"]) if self.dice.random() < 0.2 else None
        if same is not None:
            item = same
        self.shared[item["id"]] = item
        self.changed["x0y0z0", "fibers"] += same is None
        others = {**item, "description": "another's"} if self.dice.random() < 0.4 else None

        def change() -> None:
            assert self.other.ask("PATCH", url, others)[0] == 200

        changes = others is not None and others != item
        answered, _ = self.twice("PATCH", url, item, between=change if changes else None)
        assert answered["Precomputed-Edit"] == ("applied" if same is None else "unchanged")
        if others is not None and changes:
            self.shared[item["id"]] = others
            self.changed["x0y0z0", "fibers"] += 1

    def delete_one(self) -> None:
        """DELETE, and in between perhaps somebody who adds it again."""
        if not self.shared:
            return self.create()
        self.number += 1
        item = self.shared.pop(self.dice.choice(sorted(self.shared)))
        url = f"{SHARED}?id={item['id']}"
        again = self.dice.random() < 0.4

        def add() -> None:
            assert self.other.ask("PATCH", url, item)[0] == 200

        self.twice("DELETE", url, None, between=add if again else None)
        if again:
            self.shared[item["id"]] = item
        self.changed["x0y0z0", "fibers"] += 1 + again
        return None

    def many(self) -> None:
        """Edits of two blocks in one request; each block's happen together."""
        first, second = self.next_item(), self.next_item()
        del second["id"]
        edits = [
            {"block": "x0y0z0", "leaf": "fibers", "operation": "put", "id": first["id"], "annotation": first},
            {"block": SECOND, "leaf": "fibers", "operation": "add", "annotation": second},
        ]
        _, read = self.twice("POST", f"{BLOCKS}/edits", {"edits": edits})
        rows = {row["block"]: row for row in json.loads(read)["blocks"]}
        self.shared[first["id"]] = first
        id = rows[SECOND]["edits"][0]["id"]
        assert id not in self.second
        self.second[id] = {**second, "id": id}
        self.changed["x0y0z0", "fibers"] += 1
        self.changed[SECOND, "fibers"] += 1

    def save(self) -> None:
        """A page saves its whole leaf and does so again as it is, without a key."""
        self.number += 1
        before = dict(self.own)
        kind = self.dice.random()
        if kind < 0.2 and len(self.own) > 1:
            del self.own[self.dice.choice(sorted(self.own))]
        elif kind < 0.5 and self.own:
            id = self.dice.choice(sorted(self.own))
            self.own[id] = self.own[id] | {"point": [self.number, 1, 1]}
        else:
            item = self.next_item()
            self.own[item["id"]] = item
        assert self.own != before
        url = f"/~page{self.who}{BLOCKS}/x0y0z0/own-{self.who}.json"
        answered, _ = self.twice("PUT", url, list(self.own.values()), key=False)
        assert answered["Precomputed-Edit"] == "unchanged"
        self.changed["x0y0z0", f"own-{self.who}"] += 1

    def close(self) -> None:
        """Close the connections."""
        self.through.connection.close()
        self.other.connection.close()


@contextlib.contextmanager
def dropping(port: int) -> Iterator[DroppingProxy]:
    """A proxy in front of a server."""
    proxy = DroppingProxy(port)
    try:
        yield proxy
    finally:
        proxy.close()


@pytest.mark.parametrize("drops", [1000, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_no_edit_whose_answer_was_lost_is_applied_twice(start_server: StartServer, place: Place, drops: int) -> None:
    server = start_server(place.root, workers=2)
    (place.block.parent / SECOND).mkdir()
    begun = time.monotonic()
    with dropping(server.port) as proxy:
        clients = [Forgetful(who, proxy, server.port) for who in range(CLIENTS)]

        def edit(who: int) -> None:
            while proxy.dropped < drops:
                clients[who].step()

        together(CLIENTS, edit)
        assert proxy.dropped >= drops
        print(f"{proxy.dropped} answers dropped in {time.monotonic() - begun:.1f} s")  # noqa: T201
    for client in clients:
        client.close()
    assert place.stored() == {id: item for client in clients for id, item in client.shared.items()}
    second = json.loads((place.block.parent / SECOND / "fibers.json").read_bytes())
    assert by_id(second) == {id: item for client in clients for id, item in client.second.items()}
    changed = sum((client.changed for client in clients), Counter[tuple[str, str]]())
    for client in clients:
        assert place.stored(f"own-{client.who}") == client.own
    first = {leaf: count for (block, leaf), count in changed.items() if block == "x0y0z0"}
    assert check_log(place) == first, "an edit made a version more than once, or none"
    with Annotator(server.port) as client_of_second:
        answer = client_of_second.ask("GET", f"{BLOCKS}/{SECOND}/fibers/history?limit=1")
        assert json.loads(answer[2])["version"] == changed[SECOND, "fibers"]
