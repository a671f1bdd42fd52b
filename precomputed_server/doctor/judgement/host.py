"""The machine: how many directories can be watched, how many files opened, and the port."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from precomputed_server.doctor.judgement.finding import FAIL, OK, WARN, Finding

_FILES_OF_A_PAGE = 8
"""A browser opens six connections; a page listens to edits, and a file is open for each answer."""

_TOO_FEW_FILES, _FEW_FILES = 256, 4096


@dataclass(frozen=True)
class WatchFacts:
    """`limit` of watches of this user, its name, and how many are in use.

    `refused` names the limit that the kernel says is reached, "" where it gave one more.
    `directories` are those beneath the root, at least so many where `is_whole` is false. `is_kept`: a server watches
    them already.
    """

    limit: int | None
    limit_name: str
    used: int
    directories: int
    is_whole: bool
    refused: str
    is_local: bool
    is_kept: bool
    period_s: int


@dataclass(frozen=True)
class FileFacts:
    """How many files and connections a process may have open (`limit`) and shall (`wanted`)."""

    limit: int
    wanted: int
    workers: int


@dataclass(frozen=True)
class PortFacts:
    """Who has the address that the server would take."""

    host: str
    port: int
    state: Literal["free", "ours", "taken", "forbidden", "foreign"]


def judge_watches(facts: WatchFacts) -> Finding:
    """Whether changes in the tree are told at once."""
    later = f"Until then new datasets are found only every {facts.period_s} s (--index-period)."
    if not facts.is_local:
        return Finding(
            OK, "watching", f"On a network disk nothing tells of changes: it is gone through every {facts.period_s} s."
        )
    if facts.refused == "max_user_instances":
        return Finding(
            WARN,
            "watching",
            "This user has as many watchers as fs.inotify.max_user_instances lets it, so changes cannot be watched."
            f" Raise it: sysctl fs.inotify.max_user_instances=1024. {later}",
        )
    needed = facts.directories + 2
    others = 0 if facts.is_kept else facts.used
    if not facts.refused and (facts.limit is None or needed + others <= facts.limit):
        limit = "" if facts.limit is None else f", and {facts.limit:,} may be watched for changes"
        least = "" if facts.is_whole else "at least "
        said = "1 directory" if facts.directories == 1 else f"{facts.directories:,} directories"
        return Finding(OK, "watching", f"The root has {least}{said}{limit}.")
    enough = max(524_288, 2 * (needed + others))
    return Finding(
        WARN,
        "watching",
        f"The root has {facts.directories:,} directories, and {facts.limit_name} lets"
        f" {'too few' if facts.limit is None else f'{facts.limit:,}'} be watched, {facts.used:,} of them in use."
        f" Raise it: sysctl {facts.limit_name}={enough}. {later}",
    )


def judge_files(facts: FileFacts) -> Finding:
    """The limit of open files against workers and their connections."""
    usable = min(facts.limit, facts.wanted)
    pages = max(0, usable - 100) * facts.workers // _FILES_OF_A_PAGE
    who = "The worker" if facts.workers == 1 else f"Each of {facts.workers} workers"
    said = f"{who} may have {usable:,} files and connections open, enough for about {pages:,} pages in browsers"
    remedy = "Raise the limit where it starts: ulimit -n 65536, systemd LimitNOFILE, docker --ulimit nofile."
    if facts.limit < _TOO_FEW_FILES:
        return Finding(FAIL, "open files", f"{said}: far too few. {remedy}")
    if usable < _FEW_FILES:
        if facts.wanted < facts.limit:
            remedy = f"Raise --open-files, which is {facts.wanted}."
        return Finding(WARN, "open files", f"{said}: few for many users. {remedy}")
    return Finding(OK, "open files", f"{said}.")


def judge_port(facts: PortFacts) -> Finding:
    """Whether the server can listen."""
    where = f"Port {facts.port} of {facts.host}"
    if facts.state == "ours":
        return Finding(OK, "port", f"{where} is answered by a server of this kind that runs already.")
    if facts.state == "taken":
        return Finding(
            FAIL, "port", f"{where} is taken by another program. Stop that one, or choose another port by --port."
        )
    if facts.state == "forbidden":
        return Finding(
            FAIL, "port", f"{where} may not be used by this user. Choose one above 1023 by --port, behind a proxy."
        )
    if facts.state == "foreign":
        return Finding(
            FAIL,
            "port",
            f"{facts.host} is no address of this machine. Choose another by --host, such as 0.0.0.0 for all.",
        )
    return Finding(OK, "port", f"{where} is free.")
