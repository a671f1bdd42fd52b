"""What this process may use: the smallest of what the machine, cgroups and Slurm say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from precomputed_server.limits import memory_limit, usable_cpus

PHYSICAL = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_without_limits_it_is_the_machine(tmp_path: Path) -> None:
    assert memory_limit({}, tmp_path) == PHYSICAL
    assert usable_cpus(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("variables", "mebibytes"),
    [
        ({"SLURM_MEM_PER_NODE": "512"}, 512),
        ({"SLURM_MEM_PER_CPU": "100", "SLURM_CPUS_ON_NODE": "3"}, 300),
        ({"SLURM_MEM_PER_NODE": "0"}, PHYSICAL >> 20),
        ({"SLURM_MEM_PER_CPU": "100"}, PHYSICAL >> 20),
        ({"SLURM_MEM_PER_NODE": "nonsense"}, PHYSICAL >> 20),
    ],
)
def test_slurm_limits_memory(tmp_path: Path, variables: dict[str, str], mebibytes: int) -> None:
    assert memory_limit(variables, tmp_path) >> 20 == mebibytes


def _own(version: int, controller: str) -> str:
    """The path of this process's cgroup."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if (version == 2 and number == "0") or (version == 1 and controller in controllers.split(",")):
            return path.lstrip("/")
    pytest.skip(f"this machine has no cgroup of version {version} with {controller}")


@pytest.mark.parametrize(("version", "name"), [(2, "memory.max"), (1, "memory.limit_in_bytes")])
def test_the_own_cgroup_and_those_above_limit_memory(tmp_path: Path, version: int, name: str) -> None:
    root = tmp_path if version == 2 else tmp_path / "memory"
    own = root / _own(version, "memory")
    own.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("300000000\n")
    assert memory_limit({}, tmp_path) == 300_000_000
    if own != root:
        (own / name).write_text("200000000\n")
        assert memory_limit({}, tmp_path) == 200_000_000
        (own / name).write_text("max\n" if version == 2 else "9223372036854771712\n")
        assert memory_limit({}, tmp_path) == 300_000_000


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_limits_cpus(tmp_path: Path, version: int) -> None:
    root = tmp_path if version == 2 else tmp_path / "cpu"
    own = root / _own(version, "cpu")
    own.mkdir(parents=True, exist_ok=True)
    if version == 2:
        (own / "cpu.max").write_text("100000 100000\n")
    else:
        (own / "cpu.cfs_quota_us").write_text("100000\n")
        (own / "cpu.cfs_period_us").write_text("100000\n")
    assert usable_cpus(tmp_path) == 1
