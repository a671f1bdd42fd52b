"""A run: annotators edit one block of a dataset of its own while processes of the server are killed."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.format.names import ANNOTATIONS
from precomputed_server.selftest.annotators import FEWEST, LEAVES, Annotator, Desk, OneByOne, Reader, Values, first_item
from precomputed_server.selftest.history import History, Operation, Violation
from precomputed_server.selftest.pages import Page
from precomputed_server.selftest.server import COMMAND, Server
from precomputed_server.selftest.verdict import judged, longest_pause

DATASET, BLOCK = "torture", "x0y0z0"

UNUSABLE = "unusable"
"""The server ended, or did nothing at all."""

_EXTENT = (1 << 24, 4_096, 16)
_SETTLER, _BEGINNING = 998, 999
"""Numbers of those who write the last and the first annotations."""


@dataclass(frozen=True)
class Plan:
    """What a run consists of; several `servers` of one root are as on several hosts, each with its own `workers`.

    A kill comes every `pause_s` (seconds from … to; None: never) and is one of the whole server with the probability
    `whole_share`. Of the answers to single edits `drop_share` is dropped and the request repeated. `variables` go into
    the environment of the server, `command` is the program that has `serve`.
    """

    seconds: float = 60.0
    workers: int = 4
    servers: int = 1
    editors: int = 3
    pages: int = 3
    bare_pages: int = 2
    readers: int = 2
    pause_s: tuple[float, float] | None = (0.2, 1.0)
    whole_share: float = 0.05
    drop_share: float = 0.03
    seed: int = 0
    command: Sequence[str] = COMMAND
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """How a run ended; `recovery_s` and `whole_recovery_s` are the longest times from a kill to an acknowledgement.

    `directory` is where everything is kept when something failed, None when all is well and nothing is left.
    """

    acknowledged: int
    unknown: int
    dropped: int
    reads: int
    parked: int
    kills: int
    whole_kills: int
    recovery_s: float
    whole_recovery_s: float
    seconds: float
    violations: Sequence[Violation]
    directory: Path | None

    @property
    def passed(self) -> bool:
        """Whether every promise was kept."""
        return not self.violations


def torture(directory: Path, plan: Plan) -> Report:
    """Run `plan` in a new directory beneath `directory`, which is removed unless something failed.

    Raises OSError where that cannot be written, Busy when the server does not start.
    """
    place = Path(tempfile.mkdtemp(prefix="precomputed-selftest-", dir=directory))
    run = _Run(place, plan)
    report = run.carried_out()
    if report.passed:
        shutil.rmtree(place)
    return report


class _Run:
    def __init__(self, place: Path, plan: Plan) -> None:
        self._place = place
        self._plan = plan
        self._root = place / "data"
        self._block = self._root / DATASET / ANNOTATIONS / BLOCK
        self._initial = self._prepared()
        self._servers = [
            Server(plan.command, self._root, place / f"server-{number}", plan.workers, plan.variables)
            for number in range(plan.servers)
        ]
        self._history = History()
        self._desk = Desk(
            [server.port for server in self._servers], DATASET, BLOCK, self._history, threading.Event(), plan.drop_share
        )
        self._kills: list[tuple[int, bool]] = []
        """When, and whether it was the whole server."""

    def _prepared(self) -> dict[str, bytes]:
        """Write a dataset without voxels, and annotations as another tool would have left them."""
        scale = ScaleInfo("0", _EXTENT, (1.0, 1.0, 1.0), ((64, 64, 16),))
        self._block.mkdir(parents=True)
        (self._root / DATASET / "info").write_bytes(VolumeInfo("uint8", 1, (scale,)).to_bytes())
        dice, values = random.Random(self._plan.seed), Values(_BEGINNING, "beginning", exact=True)
        files = {}
        for leaf in LEAVES:
            files[leaf] = json.dumps([first_item(leaf, values, dice) for _ in range(2 * FEWEST)]).encode()
            (self._block / f"{leaf}.json").write_bytes(files[leaf])
        return files

    def carried_out(self) -> Report:
        begun = time.monotonic()
        try:
            for server in self._servers:
                server.start()
            self._edited()
            self._settled()
        finally:
            ends = [server.stop() for server in self._servers]
        for wrong in filter(None, ends):
            self._history.complain(UNUSABLE, "", wrong)
        return self._reported(time.monotonic() - begun)

    def _edited(self) -> None:
        annotators = self._annotators()
        with ThreadPoolExecutor(len(annotators) + 1) as pool:
            done: list[Future[None]] = [pool.submit(self._work, annotator) for annotator in annotators]
            try:
                self._kill_until(time.monotonic() + self._plan.seconds, done)
            finally:
                self._desk.over.set()
            for ended in done:
                ended.result()

    def _annotators(self) -> list[Annotator]:
        plan, desk, seed = self._plan, self._desk, self._plan.seed * 1000
        makers: list[tuple[int, Callable[[int], Annotator]]] = [
            (plan.editors, lambda number: OneByOne(desk, number, seed + number)),
            (plan.pages, lambda number: Page(desk, number, seed + number, shared=False)),
            (plan.bare_pages, lambda number: Page(desk, number, seed + number, shared=True)),
            (plan.readers, lambda number: Reader(desk, number, seed + number)),
        ]
        kinds = [make for count, make in makers for _ in range(count)]
        return [make(number) for number, make in enumerate(kinds, 1)]

    def _work(self, annotator: Annotator) -> None:
        try:
            while not self._desk.over.is_set():
                annotator.step()
        finally:
            annotator.close()

    def _kill_until(self, deadline: float, working: Sequence[Future[None]]) -> None:
        dice = random.Random(self._plan.seed + 1)
        while (left := deadline - time.monotonic()) > 0 and not any(future.done() for future in working):
            time.sleep(min(left, dice.uniform(*(self._plan.pause_s or (0.5, 0.5)))))
            server = dice.choice(self._servers)
            if server.has_ended():
                self._history.complain(UNUSABLE, "", "the server ended by itself")
                server.kill()
                server.start()
            elif self._plan.pause_s is not None:
                self._kill(server, dice)

    def _kill(self, server: Server, dice: random.Random) -> None:
        if dice.random() < self._plan.whole_share:
            server.kill()
            self._kills.append((time.monotonic_ns(), True))
            server.start()
        elif server.kill_one(dice):
            self._kills.append((time.monotonic_ns(), False))

    def _settled(self) -> None:
        """One more edit and one more GET of each leaf, so that what a kill interrupted is finished."""
        last = OneByOne(self._desk, _SETTLER, self._plan.seed + _SETTLER)
        reader = Reader(self._desk, _SETTLER, self._plan.seed + _SETTLER)
        for leaf in LEAVES:
            last.add(leaf)
            reader.read(leaf)
        last.close()
        reader.close()

    def _reported(self, seconds: float) -> Report:
        operations, reads = self._history.all_operations(), self._history.reads
        violations = [*self._history.violations, *judged(operations, reads, self._initial, self._block)]
        acknowledged = self._history.acknowledged()
        if not acknowledged:
            violations.append(Violation(UNUSABLE, "", "", "no edit was acknowledged"))
        if violations:
            self._keep(operations, violations)
        return Report(
            acknowledged=len(acknowledged),
            unknown=sum(operation.result == "info" for operation in operations),
            dropped=len(self._history.dropped),
            reads=len(reads),
            parked=sum(operation.said == "parked" for operation in operations),
            kills=len(self._kills),
            whole_kills=sum(whole for _, whole in self._kills),
            recovery_s=longest_pause([moment for moment, whole in self._kills if not whole], acknowledged),
            whole_recovery_s=longest_pause([moment for moment, whole in self._kills if whole], acknowledged),
            seconds=seconds,
            violations=violations,
            directory=self._place if violations else None,
        )

    def _keep(self, operations: Sequence[Operation], violations: Sequence[Violation]) -> None:
        """Write what happened beside the data, for whoever looks into it."""
        for name, rows in (("operations", operations), ("violations", violations), ("reads", self._history.reads)):
            lines = b"".join(orjson.dumps(row, default=list) + b"\n" for row in rows)
            (self._place / f"{name}.jsonl").write_bytes(lines)
