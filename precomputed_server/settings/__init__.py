"""The settings that are in force, and the only code that reads the environment.

Defaults < one TOML file < environment < flags: the later wins. `table` has the settings themselves.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from precomputed_server.settings.setting import Setting
from precomputed_server.settings.sources import CONFIG_VARIABLE, Chosen, choose, ignored_variables
from precomputed_server.settings.table import MEBIBYTE, ROOT, SETTINGS, TABLE, Settings
from precomputed_server.settings.toml_file import SYSTEM_FILE, check_names, read_file

__all__ = [
    "MEBIBYTE",
    "ROOT",
    "SETTINGS",
    "TABLE",
    "Collected",
    "Setting",
    "Settings",
    "collect",
    "default_workers",
    "environment",
    "file_in_force",
    "load",
    "without_idle_threads",
]

_log = logging.getLogger(__name__)

_STATE = "precomputed"


@dataclass(frozen=True)
class Collected:
    """Where the value of each setting comes from, the settings they amount to, and the variables not taken → why."""

    chosen: Mapping[str, Chosen]
    settings: Settings
    file: Path | None
    ignored: Mapping[str, str]

    def warn(self) -> None:
        """Log one warning if there are variables that are not taken."""
        if self.ignored:
            named = ", ".join(f"{name} ({why})" for name, why in self.ignored.items())
            _log.warning("Not taken from the environment: %s. `precomputed config` lists the settings.", named)


def load(
    root: Path | None = None,
    given: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> Settings:
    """The settings in force, as `collect` finds them, with its warning logged; raises InvalidInput."""
    collected = collect(root, given, environ, config)
    collected.warn()
    return collected.settings


def collect(
    root: Path | None = None,
    given: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> Collected:
    """Combine flags (`root` and `given`; None counts as not given), the environment, a file and the defaults.

    The file is `config`, else $PRECOMPUTED_CONFIG, else /etc/precomputed.toml if it is there; the last does not count
    where `environ` is given, which stands for all that the machine says. Raises InvalidInput for what cannot be, in the
    file also where a later source hides it.
    """
    check_names(given or {})
    file = file_in_force(config, environ)
    environ = os.environ if environ is None else environ
    flags = {**(given or {}), "root": None if root is None else str(root)}
    chosen = choose(flags, environ, file, {} if file is None else read_file(file))
    return Collected(chosen, _settings(chosen, environ), file, ignored_variables(environ))


def file_in_force(config: Path | None = None, environ: Mapping[str, str] | None = None) -> Path | None:
    """The file of settings that counts, as `collect` says; None where there is none."""
    named = config or (os.environ if environ is None else environ).get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    return SYSTEM_FILE if environ is None and SYSTEM_FILE.exists() else None


def _settings(chosen: Mapping[str, Chosen], environ: Mapping[str, str]) -> Settings:
    values: dict[str, Any] = {name: each.value for name, each in chosen.items()}
    values["root"] = Path(values["root"] or str(ROOT.default))
    values["workers"] = values["workers"] or default_workers()
    values["state"] = Path(values["state"]) if values["state"] else _default_state(environ)
    for name in ("shared", "log_file"):
        values[name] = Path(values[name]) if values[name] else None
    return Settings(**values)


def _default_state(environ: Mapping[str, str]) -> Path:
    """Where the XDG base directory specification puts state."""
    base = environ.get("XDG_STATE_HOME")
    return Path(base) / _STATE if base else Path(environ.get("HOME") or "/") / ".local/state" / _STATE


def default_workers() -> int:
    """The CPUs this process may use, at most 8."""
    return max(1, min(8, len(os.sched_getaffinity(0))))


def without_idle_threads() -> None:
    """Let numpy start no threads in this process and those that it starts; to be called before it is imported.

    They multiply matrices, which no command does in earnest, and spin a while before they sleep.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def environment() -> Mapping[str, str]:
    """The variables that other programs set for this process, such as Slurm for a job."""
    return os.environ
