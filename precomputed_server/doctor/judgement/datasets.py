"""The state directory, the catalog in it, and the datasets of the root."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from precomputed_server.doctor.judgement.finding import FAIL, OK, WARN, Finding, some

_SHOWN = 20


@dataclass(frozen=True)
class StateFacts:
    """The state directory; `refused` says why it cannot be used, `foreign` on which file system that is not local."""

    path: str
    refused: str = ""
    foreign: str = ""


@dataclass(frozen=True)
class CatalogFacts:
    """`damage` says why an existing catalog cannot be read; `scanned` is when and in how many seconds it was made."""

    path: str
    state: Literal["absent", "readable", "damaged"]
    is_kept: bool = False
    damage: str = ""
    scanned: tuple[str, float] | None = None


@dataclass(frozen=True)
class Problem:
    """A dataset that is not whole: unusable, incomplete, or forbidden to this user."""

    path: str
    state: str
    reason: str


@dataclass(frozen=True)
class DatasetFacts:
    """How many datasets there are, those with problems, and those whose annotations this user may not write.

    `stopped_after_s` is set where looking took too long, `refused` where nothing could be looked at.
    """

    count: int
    problems: tuple[Problem, ...] = ()
    unwritable: tuple[str, ...] = ()
    user: str = ""
    stopped_after_s: float | None = None
    refused: str = ""


def judge_state(facts: StateFacts) -> Finding:
    """Whether the state directory can be used."""
    if facts.refused:
        return Finding(
            FAIL,
            "state",
            f"The state directory {facts.path} cannot be used: {facts.refused}. Name another one on a local disk by"
            " --state; without it the server does not start.",
        )
    if facts.foreign:
        return Finding(
            FAIL,
            "state",
            f"The state directory {facts.path} is on {facts.foreign}, where a database is not safe, so there will be"
            " no catalog of datasets. Name a directory on a local disk by --state.",
        )
    return Finding(OK, "state", f"The state directory {facts.path} is on a local disk.")


def judge_catalog(facts: CatalogFacts) -> Finding:
    """What the catalog is like."""
    if facts.state == "absent":
        return Finding(OK, "catalog", "There is no catalog yet: the server makes it when it is started.")
    if facts.state == "damaged":
        return Finding(
            WARN,
            "catalog",
            f"The catalog {facts.path} cannot be read ({facts.damage}). Start the server, which makes it anew, or run"
            " precomputed index.",
        )
    if facts.scanned is None:
        return Finding(OK, "catalog", "The catalog is being made." if facts.is_kept else "The catalog is still empty.")
    when, seconds = facts.scanned
    kept = "and a running process keeps it up to date" if facts.is_kept else "and no server keeps it now"
    return Finding(OK, "catalog", f"The catalog was brought up to date {when}, in {seconds:.1f} s, {kept}.")


def judge_datasets(facts: DatasetFacts) -> Iterator[Finding]:
    """The datasets that are damaged or unfinished, and those whose annotations cannot be saved."""
    if facts.refused:
        yield Finding(WARN, "datasets", f"The datasets were not looked at: {facts.refused}")
        return
    for problem in facts.problems[:_SHOWN]:
        yield _problem(problem, facts.user)
    more = len(facts.problems) - _SHOWN
    if more > 0:
        yield Finding(WARN, "datasets", f"{more} more have problems: precomputed datasets --is unusable lists them.")
    if facts.unwritable:
        yield Finding(
            WARN,
            "annotations",
            f"User {facts.user} may not save annotations of {some(facts.unwritable)}. Start the server as their owner,"
            f" or give {facts.user} the right by setfacl -R -m u:{facts.user}:rwX on them.",
        )
    if facts.stopped_after_s is not None:
        yield Finding(
            WARN,
            "datasets",
            f"There are more datasets than could be looked at in {facts.stopped_after_s:.0f} s, {facts.count} of them"
            " were. precomputed index goes through all of them.",
        )
    elif not facts.problems:
        yield Finding(OK, "datasets", f"{facts.count} dataset{'' if facts.count == 1 else 's'}, none with problems.")


def _problem(problem: Problem, user: str) -> Finding:
    path, reason = problem.path or "the root", problem.reason.rstrip(".")
    if problem.state == "forbidden":
        return Finding(
            WARN,
            "dataset",
            f"User {user} may not read {path}, so it is not shown. If it is to be, give {user} the right:"
            f" setfacl -R -m u:{user}:rX {path}.",
        )
    if problem.state == "unusable":
        return Finding(
            FAIL,
            "dataset",
            f"{path} cannot be read: {reason}. Mend or restore that file (from a backup, or by converting again), or"
            " move the dataset out of the root.",
        )
    return Finding(
        WARN,
        "dataset",
        f"{path} is not complete: {reason}. Run the command that converts it again, which goes on from there.",
    )
