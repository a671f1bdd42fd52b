"""`apptainer/convert.sbatch` in a real Slurm of one node: its result is that of one machine, though a worker dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from converter import convert
from tests.conftest import REPOSITORY, component
from tests.converter import dask_workers, slurm
from tests.converter.dask_workers import wait_until
from tests.converter.slurm import Slurm
from tests.converter.stacks import files_of, options, volume, write_planes

pytestmark = pytest.mark.component

SCRIPT = REPOSITORY / "apptainer" / "convert.sbatch"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    """Slurm on this machine."""
    component("openssl")
    dask_workers.needed()
    with slurm.running() as started:
        yield started


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Planes that take some thirty tasks, below a directory to submit jobs in."""
    return write_planes(tmp_path_factory.mktemp("jobs") / "planes", volume(1024, 1024, 96, "uint8"))


@pytest.fixture(scope="module")
def expected(stack: Path) -> dict[str, bytes]:
    """The files that one machine writes."""
    convert(str(stack), stack.parent / "expected" / "made", options())
    return files_of(stack.parent / "expected" / "made")


def submit(cluster: Slurm, stack: Path, dest: str, **variables: str) -> str:
    """A job of three workers in the directory of the stack, with relative paths."""
    resources = ["--ntasks=3", "--mem-per-cpu=1G", "--output=job-%j.log"]
    return cluster.submit(
        stack.parent, *resources, str(SCRIPT), "planes", dest, "--voxel-size", "1,1,1", **variables
    )  # fmt: skip


def wait_until_midway(dataset: Path) -> None:
    """Wait until the first task is recorded."""
    wait_until(lambda: any(dataset.glob(".precomputed/staging/*/journal/[!.]*")), "a task is done", 90)


def processes_of(cluster: Slurm, job: str, task: int | None = None) -> list[int]:
    """The processes of a job, or of one of its workers, by what Slurm tells them."""
    marks = [f"SLURM_CONF={cluster.environment['SLURM_CONF']}", f"SLURM_JOB_ID={job}"]
    marks += [] if task is None else ["SLURM_STEP_ID=0", f"SLURM_PROCID={task}"]
    return slurm.processes_with(*marks)


def test_a_worker_that_is_killed_midway_changes_nothing(
    cluster: Slurm, stack: Path, expected: dict[str, bytes]
) -> None:
    """All of one task of srun is stopped, so that it surely holds tasks, and then killed."""
    job = submit(cluster, stack, "first", CONVERT_VENV=sys.prefix)
    wait_until_midway(stack.parent / "first")
    victims = processes_of(cluster, job, task=1)
    assert len(victims) >= 2  # the worker and what watches over it
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in victims]
    assert any(b"--memory-limit" in words and b"854MiB" in words for words in commands)  # 1 GiB less a third of 512 MiB
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in victims:
            os.kill(pid, number)
        time.sleep(1)
    state = cluster.wait_for(job)
    log = (stack.parent / f"job-{job}.log").read_text()
    assert (state, cluster.exit_code(job)) == ("COMPLETED", "0:0"), log
    assert files_of(stack.parent / "first") == expected
    assert "Traceback" not in log
    assert list(stack.parent.glob(".convert-*")) == []
    wait_until(lambda: processes_of(cluster, job) == [], "the job's processes have ended", 30)


def test_a_job_that_is_told_to_end_is_gone_on_with_by_the_next(
    cluster: Slurm, stack: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """Here in an image, that is by a program named apptainer that stands for it; Slurm ends jobs by SIGTERM."""
    apptainer = tmp_path / "apptainer"
    apptainer.write_text(
        f'#!/bin/sh\n[ "$1 $2" = "exec some.sif" ] && shift 2 && PATH={sys.prefix}/bin:$PATH exec "$@"\n'
    )
    apptainer.chmod(0o755)
    image = {"CONVERT_IMAGE": "some.sif", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    job = submit(cluster, stack, "second", **image)
    wait_until_midway(stack.parent / "second")
    cluster.ask("scancel", "--batch", "--signal=TERM", job)
    state = cluster.wait_for(job)
    log = (stack.parent / f"job-{job}.log").read_text()
    assert (state, cluster.exit_code(job)) == ("FAILED", "143:0"), log
    assert "Stopped. What is done is kept" in log
    assert files_of(stack.parent / "second") == {}
    recorded = len(list((stack.parent / "second").glob(".precomputed/staging/*/journal/[!.]*")))
    assert recorded > 0
    job = submit(cluster, stack, "second", **image)
    assert cluster.wait_for(job) == "COMPLETED", (stack.parent / f"job-{job}.log").read_text()
    assert files_of(stack.parent / "second") == expected
    assert list(stack.parent.glob(".convert-*")) == []


def test_a_job_whose_workers_all_end_ends_too(cluster: Slurm, stack: Path) -> None:
    job = submit(cluster, stack, "third", CONVERT_VENV=sys.prefix)
    wait_until_midway(stack.parent / "third")
    for task in range(3):
        for pid in processes_of(cluster, job, task):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert cluster.wait_for(job, 60) == "FAILED"
    assert cluster.exit_code(job) == "143:0"


@pytest.mark.parametrize(("arguments", "variables"), [((), {"SLURM_JOB_ID": "1"}), (("planes", "made"), {})])
def test_what_is_missing_is_said(arguments: tuple[str, ...], variables: dict[str, str], tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run(["bash", SCRIPT, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "sbatch convert.sbatch SOURCE... DEST" in done.stderr
    assert done.stderr.count("\n") == 1
