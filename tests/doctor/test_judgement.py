"""What cannot be had on every machine, judged by the facts alone."""

from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from precomputed_server.doctor.judgement.datasets import DatasetFacts, Problem, judge_datasets
from precomputed_server.doctor.judgement.finding import Finding
from precomputed_server.doctor.judgement.host import PortFacts, WatchFacts, judge_port, judge_watches
from precomputed_server.doctor.judgement.program import NEWEST_PYTHON, OLDEST_PYTHON, ProgramFacts, judge_program
from precomputed_server.doctor.judgement.storage import RootFacts, Trial, judge_root, judge_trial
from tests.conftest import REPOSITORY

SOUND = RootFacts("/data", "directory", is_readable=True, is_writable=True, user="lab", mount="nfs4", is_local=False)
WATCHED = WatchFacts(8192, "fs.inotify.max_user_watches", 100, 5000, True, "", True, False, 60)


def named(findings: list[Finding], name: str) -> Finding:
    """The one of that name."""
    (found,) = (finding for finding in findings if finding.name == name)
    return found


@pytest.mark.parametrize(("version", "level"), [((3, 10, 9), "fail"), ((3, 11, 0), "ok"), ((3, 15, 0), "fail")])
def test_pythons(version: tuple[int, int, int], level: str) -> None:
    found = named(list(judge_program(ProgramFacts(version, (), {}, True))), "python")
    assert found.level == level
    assert level == "ok" or "3.11 to 3.14" in found.sentence


def test_the_pythons_are_those_of_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    oldest, newest = OLDEST_PYTHON, NEWEST_PYTHON
    assert project["requires-python"] == f">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"


def test_locks_that_hold_on_one_host_only() -> None:
    facts = replace(SOUND, locks="it is mounted with nolock, so locks hold on this host only")
    found = named(list(judge_root(facts)), "mount")
    assert found.level == "fail"
    assert "nolock" in found.sentence
    assert "--single-host" in found.sentence
    assert named(list(judge_root(replace(facts, single_host=True))), "mount").level == "ok"


def test_a_network_mount_that_is_sound() -> None:
    assert [found.level for found in judge_root(SOUND)] == ["ok", "ok"]
    assert judge_watches(replace(WATCHED, is_local=False, directories=10**6)).level == "ok"


def test_a_quota_that_is_used_up() -> None:
    (found,) = judge_trial(Trial(refused="Disk quota exceeded", is_full=True), "/data")
    assert found.level == "fail"
    assert "quota" in found.sentence


def test_a_clock_that_jumps() -> None:
    found = named(list(judge_trial(Trial(jumped_s=-90), "/data")), "clock")
    assert found.level == "warn"
    assert "chrony" in found.sentence


def test_a_file_that_is_replaced_but_keeps_its_content() -> None:
    trial = Trial(rename="A file that was replaced keeps its old content")
    assert named(list(judge_trial(trial, "/data")), "rename").level == "fail"


def test_watches_that_others_use_and_those_of_a_server_that_runs() -> None:
    assert judge_watches(WATCHED).level == "ok"
    assert judge_watches(replace(WATCHED, used=6000)).level == "warn"
    assert judge_watches(replace(WATCHED, used=6000, is_kept=True)).level == "ok"
    assert judge_watches(replace(WATCHED, directories=9000, is_kept=True)).level == "warn"


def test_a_port_of_the_system() -> None:
    found = judge_port(PortFacts("0.0.0.0", 80, "forbidden"))
    assert found.level == "fail"
    assert "above 1023" in found.sentence


def test_many_problems_are_counted_and_not_all_printed() -> None:
    problems = tuple(Problem(f"brain-{number}", "unusable", "its info is damaged.") for number in range(50))
    found = list(judge_datasets(DatasetFacts(60, problems)))
    assert len(found) == 21
    assert found[-1].sentence.startswith("30 more have problems")


def test_datasets_that_could_not_all_be_looked_at() -> None:
    (found,) = judge_datasets(DatasetFacts(400, stopped_after_s=10.0))
    assert found.level == "warn"
    assert "precomputed index" in found.sentence


def test_a_line_is_one_line() -> None:
    assert Finding("warn", "dataset", "a\nb  c.").line == "warn  dataset: a b c."
