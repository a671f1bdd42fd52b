"""How much memory and how many CPUs this process may use, whoever set the limit: cgroup, Slurm, affinity or machine.

Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html (memory.max, cpu.max), cgroup-v1/memory.html
(memory.limit_in_bytes) and the variables that https://slurm.schedmd.com/sbatch.html sets in a job.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from precomputed_server.settings import environment

_CGROUPS = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 60  # version 1 writes a number near 2^63 where there is no limit


def memory_limit(environ: Mapping[str, str] | None = None, cgroups: Path = _CGROUPS) -> int:
    """The bytes of memory that this process and its children may use together."""
    variables = environment() if environ is None else environ
    return min([_physical_memory(), *_cgroup_memory(cgroups), *_slurm_memory(variables)])


def usable_cpus(cgroups: Path = _CGROUPS) -> int:
    """How many CPUs this process may use: those of its affinity, or fewer where a cgroup gives less; at least 1."""
    available = len(os.sched_getaffinity(0))
    return max(1, min([available, *(math.ceil(cpus) for cpus in _cgroup_cpus(cgroups))]))


def _physical_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cgroup_memory(cgroups: Path) -> Iterator[int]:
    for directory in _own_cgroups(cgroups, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            text = _content(directory / name)
            if text.isdigit() and int(text) < _UNLIMITED:
                yield int(text)


def _cgroup_cpus(cgroups: Path) -> Iterator[float]:
    for directory in _own_cgroups(cgroups, "cpu"):
        quota, _, period = _content(directory / "cpu.max").partition(" ")
        if not quota:
            quota, period = _content(directory / "cpu.cfs_quota_us"), _content(directory / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            yield int(quota) / int(period)


def _own_cgroups(cgroups: Path, controller: str) -> Iterator[Path]:
    """The directories of this process's cgroup and of those above it, each of which may set a limit."""
    for line in _content(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = cgroups / controller if controllers else cgroups
        below = root / path.lstrip("/")
        yield from (directory for directory in (below, *below.parents) if directory.is_relative_to(root))


def _slurm_memory(environ: Mapping[str, str]) -> Iterator[int]:
    """What a job of Slurm may use on this node, which it gives in MiB; 0 stands for all of it."""
    per_node, per_cpu = environ.get("SLURM_MEM_PER_NODE", ""), environ.get("SLURM_MEM_PER_CPU", "")
    cpus = environ.get("SLURM_CPUS_ON_NODE", "")
    if per_node.isdigit() and int(per_node):
        yield int(per_node) << 20
    elif per_cpu.isdigit() and cpus.isdigit() and int(per_cpu):
        yield int(per_cpu) * int(cpus) << 20


def _content(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
