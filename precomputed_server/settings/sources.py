"""Which source of settings wins: defaults < the file < the environment < flags."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from precomputed_server.errors import InvalidInput
from precomputed_server.settings.setting import Setting, Value
from precomputed_server.settings.table import BY_NAME, ROOT, TABLE

DEFAULT, FILE, ENVIRONMENT, FLAG = SOURCES = ("default", "file", "environment", "flag")
"""The sources; the later wins."""

CONFIG_VARIABLE = "PRECOMPUTED_CONFIG"
_PREFIX = "PRECOMPUTED_"
_SERVICE_LINK = re.compile("(?:tcp|udp|sctp)://", re.IGNORECASE)


@dataclass(frozen=True)
class Chosen:
    """A value, the source that won, and what it is called there: a flag, a variable or a file."""

    value: Value
    source: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.source}: {self.where}" if self.where else self.source

    @property
    def rank(self) -> int:
        """The higher of two wins."""
        return SOURCES.index(self.source)


def choose(
    given: Mapping[str, Any], environ: Mapping[str, str], file: Path | None, in_file: Mapping[str, Value]
) -> dict[str, Chosen]:
    """The value of each setting, in the order of the table; raises InvalidInput for one that cannot be.

    What is hidden by a later source is not looked at. `given` are the flags, where None is none.
    """
    chosen = {}
    for setting in TABLE:
        if given.get(setting.name) is not None:
            chosen[setting.name] = Chosen(given[setting.name], FLAG, "ROOT" if setting is ROOT else setting.flag)
        elif (variable := _variable(setting, environ)) is not None:
            value = setting.parsed(environ[variable], variable)
            chosen[setting.name] = Chosen(value, ENVIRONMENT, variable)
        elif setting.name in in_file:
            chosen[setting.name] = Chosen(in_file[setting.name], FILE, str(file))
        else:
            chosen[setting.name] = Chosen(setting.default, DEFAULT)
    return {**chosen, "bind": _bind(chosen)}


def _variable(setting: Setting, environ: Mapping[str, str]) -> str | None:
    """The variable that sets it, if any does: an empty one is none, and neither is a link to a service."""
    taken = (name for name in setting.variables if environ.get(name) and not _SERVICE_LINK.match(environ[name]))
    return next(taken, None)


def _bind(chosen: Mapping[str, Chosen]) -> Chosen:
    """Where to listen: host and port are its short form, so that they hide one of an earlier source."""
    bind, short = chosen["bind"], max(chosen["host"], chosen["port"], key=lambda each: each.rank)
    if bind.value and bind.rank == short.rank == SOURCES.index(FLAG):
        raise InvalidInput(f"Give either {bind.where} or {short.where}: --host and --port are its short form.")
    return Chosen("", short.source, short.where) if bind.value and short.rank > bind.rank else bind


def ignored_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that look like settings and are not taken → why; their values may be secrets and are not told."""
    known = {CONFIG_VARIABLE, *(name for setting in BY_NAME.values() for name in setting.variables)}
    reasons = {}
    for name in sorted(name for name in environ if name.startswith(_PREFIX)):
        if _SERVICE_LINK.match(environ[name]):
            reasons[name] = "the link of a container service"
        elif name not in known:
            alike = difflib.get_close_matches(name, known, 1, cutoff=0.85)
            reasons[name] = f"no setting; {alike[0]} is one" if alike else "no setting"
    return reasons
