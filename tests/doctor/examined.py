"""Runs the real command in surroundings that a test has spoilt."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPOSITORY, free_port, missing

NO_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")
"""Root without the rights by which it passes over the modes of files."""

_HIDING = """
import os, sys

class Hiding:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["HIDDEN"].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hiding())
"""


@dataclass(frozen=True)
class Examined:
    """What the command said: (level, sentence) by name, and its exit code."""

    findings: Sequence[tuple[str, str, str]]
    code: int

    def level(self, name: str, *words: str) -> str:
        """The level of the finding of that name whose sentence has all of these words."""
        found = [level for level, named, said in self.findings if named == name and all(word in said for word in words)]
        assert len(found) == 1, (name, words, self.findings)
        return found[0]

    def amiss(self) -> dict[str, str]:
        """What is not ok, by name."""
        return {name: f"{level}: {said}" for level, name, said in self.findings if level != "ok"}


@dataclass(frozen=True)
class Doctor:
    """Examines a root; `state` is the state directory, `prefix` what the command is run by."""

    root: Path
    state: Path
    prefix: Sequence[str] = ()

    def examine(self, *arguments: str, **variables: str) -> Examined:
        """Run `precomputed doctor` with these arguments and environment variables."""
        done = self.run("--port", str(free_port()), *arguments, "--json", **variables)
        assert done.returncode in (0, 1), done.stderr
        told = [(each["level"], each["name"], each["sentence"]) for each in json.loads(done.stdout)["findings"]]
        assert {name for _, name, _ in told} <= documented_checks()
        assert all(said.endswith((".", "?")) for _, _, said in told), told
        assert (done.returncode == 1) == any(level == "fail" for level, _, _ in told)
        return Examined(told, done.returncode)

    def run(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """The same, as it is printed."""
        if self.prefix and shutil.which(self.prefix[0]) is None:
            missing(f"{self.prefix[0]} is not installed")
        program = str(Path(sys.executable).with_name("precomputed"))
        command = [*self.prefix, program, "doctor", str(self.root), "--state", str(self.state), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=_environment(variables))


def documented_checks() -> set[str]:
    """The names in the table of docs/doctor.md."""
    rows = re.findall(r"^\| (`.*?) \|", (REPOSITORY / "docs" / "doctor.md").read_text(), re.MULTILINE)
    return {name for row in rows for name in re.findall("`([^`]+)`", row)}


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Ours, without settings that somebody has made."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PRECOMPUTED_")}
    return {**own, **variables}


def hiding(directory: Path, *modules: str) -> dict[str, str]:
    """The variables with which a program does not find these modules."""
    (directory / "sitecustomize.py").write_text(_HIDING)
    path = os.pathsep.join([str(directory), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "HIDDEN": ",".join(modules)}


def limited(*settings: str) -> tuple[str, ...]:
    """A user namespace with limits of its own, such as "max_inotify_watches=2"."""
    written = "".join(
        f"echo {value} > /proc/sys/user/{name} && " for name, _, value in (text.partition("=") for text in settings)
    )
    prefix = ("unshare", "--user", "--map-root-user", "sh", "-c", f'{written}exec "$@"', "sh")
    if subprocess.run([*prefix, "true"], capture_output=True).returncode != 0:
        missing("no user namespace with a limit of its own can be made here")
    return prefix
