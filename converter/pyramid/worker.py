"""What runs in a worker of a cluster: it says what it is, checks that it is the same program, and does tasks."""

from __future__ import annotations

import pickle
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

import precomputed_server
from converter.pyramid.executor import keep_freed_memory
from precomputed_server.errors import PrecomputedError
from precomputed_server.limits import memory_limit

_LIBRARIES = ("numpy", "isal", "imagecodecs", "tifffile")


@dataclass(frozen=True)
class Worker:
    """A worker as it describes itself: `memory` is what it may hold, None when nobody said."""

    host: str
    threads: int
    memory: int | None
    host_memory: int
    versions: Mapping[str, str]


@cache
def versions() -> dict[str, str]:
    """What has to be the same everywhere for the same bytes to be written."""
    return {
        "precomputed-server": precomputed_server.__version__,
        "Python": ".".join(platform.python_version_tuple()[:2]),
        **{name: version(name) for name in _LIBRARIES},
    }


def describe(dask_worker: Any) -> Worker:  # noqa: ANN401
    """Called on each worker, which Dask hands over."""
    return Worker(
        host=platform.node(),
        threads=dask_worker.state.nthreads,
        memory=dask_worker.memory_manager.memory_limit,
        host_memory=memory_limit(),
        versions=versions(),
    )


@dataclass(frozen=True)
class Call:
    """What a task is sent as: to unpickle it is to do it.

    A worker that came without this program can so say what it lacks; Dask would give up the worker instead.
    """

    task: bytes
    versions: Mapping[str, str]

    def __reduce__(self) -> tuple[Any, ...]:
        return _do, (self.task, self.versions)


@dataclass(frozen=True)
class Answer:
    """What a task gave, told from whatever else may come instead."""

    value: Any


def _do(task: bytes, wanted: Mapping[str, str]) -> Answer:
    """Called on a worker for each task; a worker that came later is asked for its versions here."""
    _prepare()
    check_versions(platform.node(), versions(), wanted)
    return Answer(pickle.loads(task).run())


@cache
def _prepare() -> None:
    keep_freed_memory()


def check_versions(worker: str, there: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Raise PrecomputedError naming what is not the same in a worker."""
    differing = [name for name in here if there.get(name) != here[name]]
    if differing:
        listed = ", ".join(f"{name} {there.get(name, 'not at all')} instead of {here[name]}" for name in differing)
        raise PrecomputedError(f"The worker {worker} has {listed}; install the same precomputed-server[hpc] there.")
