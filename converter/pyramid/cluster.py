"""Running tasks on the workers of a Dask cluster: the only module that knows Dask.

What Dask does for us: it hands tasks out, and does those of a worker that died again on another one. What it does not:
it gives a task up when its worker died a few times, which workers of a cluster do for many reasons, and it waits for
ever for workers that do not come.

Sources: https://distributed.dask.org/en/stable/killed.html (allowed-failures), worker-memory.html (at which part of its
limit a worker is paused or killed).
"""

from __future__ import annotations

import logging
import pickle
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

from converter.pyramid.executor import WAITING_PER_JOB, Executor, Result, Work
from converter.pyramid.worker import Answer, Call, Worker, check_versions, describe, versions
from precomputed_server.errors import MissingExtra, PrecomputedError

WORKER_BYTES = 128 << 20
"""What a worker holds before it has any voxels: the interpreter, Dask, numpy and the codecs."""
_USED = 0.6
"""The part of its limit that a worker may fill: at 80 % Dask takes it for full and gives it nothing to do."""
_CONNECTS_WITHIN_S, _CLOSES_WITHIN_S = 30, 2
_LOOKS_EVERY_S = 0.05
_COUNTS_EVERY_S = 2.0
_SAYS_AFTER_S = 10.0
_GIVES_UP_AFTER_S = 300.0
_MOST_LOSSES = 4
_LOST = "what is done is kept: run the same command again, with --scheduler or without, to go on from there"

_log = logging.getLogger(__name__)


@dataclass
class Cluster:
    """The workers that are connected to the scheduler at `address` when the conversion is planned.

    `planned_jobs` is how many tasks are to run side by side, by default as many as there are threads; `memory` is the
    most that each worker may hold, if it is less than what it has.
    """

    client: Any
    address: str
    planned_jobs: int | None = None
    memory: int | None = None

    @property
    def jobs(self) -> int:
        """How many tasks may run side by side."""
        return self.planned_jobs or sum(worker.threads for worker in self.workers.values())

    @cached_property
    def workers(self) -> Mapping[str, Worker]:
        """What is known of each worker, by its address; waits for the first one and raises PrecomputedError."""
        watch = _Watch(self.client, self.address)
        while True:
            while watch.threads() == 0:
                time.sleep(_LOOKS_EVERY_S)
            found = {address: answer for address, answer in self._answers().items() if not isinstance(answer, OSError)}
            if found:
                break
        for address, answer in found.items():
            if isinstance(answer, BaseException):
                raise PrecomputedError(f"The worker {address} {_cannot(answer)}") from answer
            check_versions(address, answer.versions, versions())
        return found

    def _answers(self) -> Mapping[str, Any]:
        """What each worker says of itself; an OSError for one that has died meanwhile."""
        try:
            answers: Mapping[str, Any] = self.client.run(describe, on_error="return")
        except OSError as error:
            raise _scheduler_lost(self.address) from error
        return answers

    def budget(self, processes: int) -> int:
        """The share of a thread in the smallest worker: that does not depend on how many others there are."""
        return min(self._share(worker) for worker in self.workers.values())

    def too_little(self, needed: int) -> str:
        """With the bytes of a worker of as many threads as the largest has."""
        threads = max(worker.threads for worker in self.workers.values())
        least = -(-int(WORKER_BYTES + threads * needed) >> 20)
        return (
            f"The workers of {self.address} have too little memory for planes and chunks of this size: each needs "
            f"--max-memory {least}MiB and a memory limit of {int(least / _USED) + 1}MiB at least"
        )

    @contextmanager
    def executor(self, processes: int) -> Iterator[Executor]:
        """Something that runs tasks on the workers, however many there are by then."""
        yield OnCluster(self.client, self.address)

    def _share(self, worker: Worker) -> int:
        beside = sum(other.host == worker.host for other in self.workers.values())
        limit = min(worker.memory or worker.host_memory, worker.host_memory // beside)
        usable = int(_USED * limit)
        return (min(usable, self.memory or usable) - WORKER_BYTES) // worker.threads


@contextmanager
def cluster(address: str, jobs: int | None = None, memory: int | None = None) -> Iterator[Cluster]:
    """Connect to a scheduler such as tcp://node1:8786; raises MissingExtra or PrecomputedError."""
    distributed = _distributed()
    with _silent("distributed", "tornado", "asyncio"), _client(distributed, address) as client:
        yield Cluster(client, address, jobs, memory)


@contextmanager
def _client(distributed: Any, address: str) -> Iterator[Any]:  # noqa: ANN401
    try:
        client = distributed.Client(address, timeout=_CONNECTS_WITHIN_S, set_as_default=False)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise PrecomputedError(
            f"No Dask scheduler answers at {address} ({_reason(error)}); check that it runs and can be reached, or "
            "convert on this machine without --scheduler."
        ) from error
    try:
        yield client
    finally:
        with suppress(OSError, TimeoutError):
            client.close(timeout=_CLOSES_WITHIN_S)


@contextmanager
def _silent(*packages: str) -> Iterator[None]:
    """Keep what these log to themselves: what they say of a lost connection, we say in one sentence."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in packages]
    levels = {name: logging.getLogger(name).level for name in (*packages, *names)}
    for name in levels:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


@dataclass
class _Watch:
    """Counts the threads of the workers now and then; raises PrecomputedError when there are none for long."""

    client: Any
    address: str
    _count: int = 0
    _counted: float = field(default=float("-inf"))
    _seen: float = field(default_factory=time.monotonic)
    _said: bool = False

    def threads(self) -> int:
        """How many tasks the workers can run at a time, or could a moment ago."""
        now = time.monotonic()
        if now - self._counted < _COUNTS_EVERY_S and self._count:
            return self._count
        self._counted, self._count = now, sum(_asked(self.client, self.address).values())
        if self._count:
            self._seen, self._said = now, False
        elif now - self._seen > _GIVES_UP_AFTER_S:
            raise PrecomputedError(
                f"No worker has been connected to {self.address} for {_GIVES_UP_AFTER_S / 60:.0f} minutes; start "
                f"workers; {_LOST}."
            )
        elif now - self._seen > _SAYS_AFTER_S and not self._said:
            self._said = True
            _log.warning("Waiting for workers: none is connected to %s.", self.address)
        return self._count


@dataclass
class _Submitted:
    future: Any
    task: Work[Any]
    losses: int = 0


class OnCluster:
    """Runs tasks on workers that come and go, and keeps only a few for each of their threads waiting."""

    def __init__(self, client: Any, address: str) -> None:  # noqa: ANN401  # Dask's types are not installed everywhere
        self._client = client
        self._address = address
        self._distributed = _distributed()

    def run(self, tasks: Iterable[Work[Result]], report: Callable[[Result], None]) -> None:
        """Run every task; raises PrecomputedError when the scheduler, all workers or one task's workers are lost."""
        queue, watch = iter(tasks), _Watch(self._client, self._address)
        running: dict[str, _Submitted] = {}
        ended = self._distributed.as_completed(loop=self._client.loop, with_results=True, raise_errors=False)
        while True:
            room = WAITING_PER_JOB * max(1, watch.threads()) - len(running)
            for task in islice(queue, max(0, room)):
                self._submit(_Submitted(None, task), running, ended)
            if not running:
                return
            batch = ended.next_batch(block=False)
            for future, result in batch:
                one = running.pop(future.key)
                if isinstance(result, Answer):
                    report(result.value)
                else:
                    self._check_lost(one, result)
                    self._submit(one, running, ended)
            if not batch:
                self._check_connection()
                time.sleep(_LOOKS_EVERY_S)

    def _submit(self, one: _Submitted, running: dict[str, _Submitted], ended: Any) -> None:  # noqa: ANN401
        self._check_connection()
        call, key = Call(pickle.dumps(one.task), versions()), f"{type(one.task).__name__}-{uuid.uuid4().hex}"
        one.future = self._client.submit(pickle.loads, pickle.dumps(call), key=key, pure=False)
        running[key] = one
        ended.add(one.future)

    def _check_lost(self, one: _Submitted, result: Any) -> None:  # noqa: ANN401
        """Raise what the task itself raised; do nothing when Dask gave it up because its workers died, not too often.

        The future's status does not count, which goes on changing: also what is done is lost for Dask when the worker
        that has it dies.
        """
        error = result[1] if isinstance(result, tuple) else result
        if isinstance(error, ImportError):
            raise PrecomputedError(f"A worker {_cannot(error)}") from error
        if not isinstance(error, (self._distributed.KilledWorker, self._distributed.CancelledError)):
            raise error
        self._check_connection()
        one.losses += 1
        if one.losses == _MOST_LOSSES:
            raise PrecomputedError(
                "Workers were killed again and again over the same task, most often because memory ran out; start "
                f"workers with more memory each, or fewer on a machine; {_LOST}."
            ) from error

    def _check_connection(self) -> None:
        if self._client.status != "running":
            raise _scheduler_lost(self._address)


def _asked(client: Any, address: str) -> Mapping[str, int]:  # noqa: ANN401
    """The threads of each worker, from the scheduler."""
    try:
        threads: Mapping[str, int] = client.nthreads()
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise _scheduler_lost(address) from error
    return threads


def _scheduler_lost(address: str) -> PrecomputedError:
    return PrecomputedError(f"The Dask scheduler at {address} was lost; {_LOST}.")


def _distributed() -> Any:  # noqa: ANN401
    try:
        import distributed
    except ImportError as error:
        raise MissingExtra("--scheduler needs Dask; install it with pip install 'precomputed-server[hpc]'.") from error
    return distributed


def _cannot(error: BaseException) -> str:
    return f"cannot run this program ({_reason(error)}); install the same precomputed-server[hpc] there."


def _reason(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
