"""The program: its Python, the libraries that decode, the viewer, and the variables that set it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from precomputed_server.doctor.judgement.finding import FAIL, OK, WARN, Finding, some

_ALIKE = 0.85
"""Of the letters of two names: PRECOMPUTED_ alone is half of most."""

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 14)


@dataclass(frozen=True)
class ProgramFacts:
    """`missing` are libraries that cannot be found; `codecs` what can be decoded, "" or why it cannot."""

    python: tuple[int, int, int]
    missing: tuple[str, ...]
    codecs: Mapping[str, str]
    has_viewer: bool


@dataclass(frozen=True)
class VariableFacts:
    """The PRECOMPUTED_ variables there are, those that mean something, and what is wrong with their values.

    `links` are those whose value looks like an address that Docker or Kubernetes put there (`tcp://…`).
    """

    there: tuple[str, ...]
    known: tuple[str, ...]
    links: tuple[str, ...]
    wrong: tuple[str, ...]


def judge_program(facts: ProgramFacts) -> Iterator[Finding]:
    """Python, libraries, codecs and viewer."""
    yield _python(facts.python)
    if facts.missing:
        names = ", ".join(facts.missing)
        yield Finding(
            FAIL, "libraries", f"{names} cannot be loaded. Install the program anew: pip install precomputed-server."
        )
    else:
        yield Finding(OK, "libraries", "All libraries that the server needs are installed.")
    yield _codecs(facts.codecs)
    if facts.has_viewer:
        yield Finding(OK, "viewer", "Neuroglancer is installed, and links open in it.")
    else:
        yield Finding(
            WARN,
            "viewer",
            "Neuroglancer is not installed, so links lead to the viewer of --viewer-url, which is elsewhere."
            " Install it by pip install 'precomputed-server[viewer]'.",
        )


def _python(version: tuple[int, int, int]) -> Finding:
    said = ".".join(map(str, version))
    if OLDEST_PYTHON <= version[:2] <= NEWEST_PYTHON:
        return Finding(OK, "python", f"Python {said} is one that this program is made for.")
    oldest, newest = (".".join(map(str, each)) for each in (OLDEST_PYTHON, NEWEST_PYTHON))
    return Finding(
        FAIL, "python", f"Python {said} is not supported. Install the program with Python {oldest} to {newest}."
    )


def _codecs(codecs: Mapping[str, str]) -> Finding:
    broken = {name: reason for name, reason in codecs.items() if reason}
    if not broken:
        return Finding(OK, "codecs", f"Data of these codecs is decoded: {', '.join(codecs)}.")
    return Finding(
        FAIL,
        "codecs",
        f"Data of these codecs cannot be decoded: {', '.join(broken)} ({next(iter(broken.values()))})."
        " Install them anew: pip install --force-reinstall imagecodecs isal.",
    )


def judge_variables(facts: VariableFacts) -> Iterator[Finding]:
    """The settings that come from the environment: wrong ones, unknown ones and what a container engine put there."""
    well = True
    links = [name for name in facts.links if name in facts.known]
    if links:
        well = False
        yield Finding(
            WARN,
            "settings",
            f"{some(links)} is an address that Docker or Kubernetes set for a service named precomputed, and is not"
            " taken for a setting. Set enableServiceLinks: false, or rename the service.",
        )
    for sentence in facts.wrong:
        well = False
        yield Finding(FAIL, "settings", f"{sentence} The server does not start with it.")
    unknown = [name for name in facts.there if name not in facts.known and name not in facts.links]
    for name in unknown:
        well = False
        yield Finding(WARN, "settings", f"{name} sets nothing. {_meant(name, facts.known)}")
    strangers = [name for name in facts.links if name not in facts.known]
    if strangers and not links:
        well = False
        yield Finding(
            WARN,
            "settings",
            f"{some(strangers)} come from Docker or Kubernetes and set nothing here. Set enableServiceLinks: false.",
        )
    if well:
        count = len(facts.there)
        yield Finding(OK, "settings", f"{count or 'No'} PRECOMPUTED_ variable{'' if count == 1 else 's'}, none wrong.")


def _meant(name: str, known: tuple[str, ...]) -> str:
    alike = difflib.get_close_matches(name, known, 1, _ALIKE)
    return f"Did you mean {alike[0]}?" if alike else "Remove it; README.md lists the settings."
