"""Slurm on this machine alone: a controller and a node as unprivileged as they can be, below one directory.

Sources: https://slurm.schedmd.com/slurm.conf.html, https://github.com/dun/munge/wiki/Installation-Guide
"""

from __future__ import annotations

import os
import platform
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import component, free_port, missing
from tests.converter.dask_workers import wait_until

_CPUS, _MEMORY_MIB = 4, 8000  # what the node says it has: the jobs of tests are small
_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
PropagateResourceLimits=NONE
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=10
StateSaveLocation={place}/controller
SlurmdSpoolDir={place}/node
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A running Slurm; its programs find it by a variable of `environment`."""

    place: Path
    environment: Mapping[str, str]

    def ask(self, *command: str) -> str:
        """What a program of Slurm prints."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout

    def submit(self, directory: Path, *arguments: str, **variables: str) -> str:
        """`sbatch` in a directory; returns the job's number."""
        command = ["sbatch", "--parsable", *arguments]
        environment = {**self.environment, **variables}
        done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """Such as RUNNING, COMPLETED or FAILED."""
        return self._member(job, "JobState")

    def exit_code(self, job: str) -> str:
        """Of the script, and the signal that ended it: `0:0`."""
        return self._member(job, "ExitCode")

    def wait_for(self, job: str, within_s: float = 120) -> str:
        """Wait until a job has ended; returns its state."""
        wait_until(lambda: self.state(job) not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING"), job, within_s)
        return self.state(job)

    def _member(self, job: str, name: str) -> str:
        words = self.ask("scontrol", "show", "job", job).split()
        return next(word.partition("=")[2] for word in words if word.startswith(f"{name}="))


@contextmanager
def running() -> Iterator[Slurm]:
    """Start Slurm; skips where it is not installed, and fails there when CI=true."""
    munged, controller, node = component("munge"), component("slurmctld"), component("slurmd")
    if os.geteuid() != 0:
        missing("Slurm's daemons are started as root here")
    place = Path(tempfile.mkdtemp(prefix="slurm-"))  # not below tmp_path: everybody has to reach the socket
    place.chmod(0o755)
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        environment = {**os.environ, "SLURM_CONF": str(_configure(place))}
        for command in (
            [munged, "--foreground", "--force", *_munge_options(place)],
            [controller, "-D"],
            [node, "-D"],
        ):
            with (place / f"{Path(command[0]).name}.out").open("wb") as log:
                daemons.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            if len(daemons) == 1:
                wait_until((place / "munge.socket").exists, "munged listens", 10)
        slurm = Slurm(place, environment)
        wait_until(lambda: _is_idle(slurm), f"the node is idle; see {place}", 30)
        yield slurm
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(20)
        for pid in processes_with(f"SLURM_CONF={place}/slurm.conf"):  # what watches over a job that has not ended
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(place)


def processes_with(*variables: str) -> list[int]:
    """The processes that were started with all these variables, `NAME=VALUE`."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = (place / "environ").read_bytes().split(b"\0")
            if all(variable.encode() in environment for variable in variables):
                found.append(int(place.name))
    return found


def _configure(place: Path) -> Path:
    (place / "munge.key").write_bytes(secrets.token_bytes(128))
    (place / "munge.key").chmod(0o400)
    for directory in ("controller", "node"):
        (place / directory).mkdir()
    conf = place / "slurm.conf"
    conf.write_text(
        _CONF.format(
            place=place,
            host=platform.node().partition(".")[0],
            controller_port=free_port(),
            node_port=free_port(),
            cpus=_CPUS,
            memory=_MEMORY_MIB,
        )
    )
    return conf


def _munge_options(place: Path) -> list[str]:
    return [
        f"--socket={place}/munge.socket",
        f"--key-file={place}/munge.key",
        f"--log-file={place}/munge.log",
        f"--pid-file={place}/munge.pid",
        f"--seed-file={place}/munge.seed",
    ]


def _is_idle(slurm: Slurm) -> bool:
    done = subprocess.run(["sinfo", "-h", "-o", "%T"], env=slurm.environment, capture_output=True, text=True)
    return done.stdout.strip() == "idle"
