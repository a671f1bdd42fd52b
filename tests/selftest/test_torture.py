"""The self-test against the real server with its real processes, and against servers that break their promises."""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from precomputed_server.errors import Busy
from precomputed_server.selftest import cli
from precomputed_server.selftest.checker import CLOBBERED, LOST, MISSING, RESURRECTED, STALE
from precomputed_server.selftest.cli import described, described_mount
from precomputed_server.selftest.history import Violation
from precomputed_server.selftest.mount import measure
from precomputed_server.selftest.replay import UNLOGGED, UNWANTED
from precomputed_server.selftest.torture import Plan, Report, torture
from tests.conftest import REPOSITORY

SABOTAGED = (sys.executable, str(REPOSITORY / "tests" / "selftest" / "sabotaged.py"))


def sabotaged(what: str, seconds: float = 4, **members: Any) -> Plan:
    """A run against a server in which `what` is broken; nothing is killed."""
    variables = {"SABOTAGE": what, "PYTHONPATH": str(REPOSITORY)}
    return Plan(seconds=seconds, pause_s=None, command=SABOTAGED, variables=variables, **members)


def kinds(report: Report) -> set[str]:
    """The kinds of what was found."""
    return {violation.kind for violation in report.violations}


def shown(report: Report) -> str:
    """What an administrator reads."""
    return "\n".join(described(report))


@pytest.mark.component
def test_no_promise_is_broken_while_processes_are_killed(tmp_path: Path) -> None:
    report = torture(tmp_path, Plan(seconds=20, pause_s=(0.2, 0.5), whole_share=0.08))
    print(shown(report))  # noqa: T201
    assert report.passed, shown(report)
    assert report.kills >= 20
    assert report.whole_kills >= 1
    assert report.acknowledged >= 500
    assert list(tmp_path.iterdir()) == []


@pytest.mark.component
def test_two_servers_of_one_root_undo_nothing_of_each_other(tmp_path: Path) -> None:
    report = torture(tmp_path, Plan(seconds=4, servers=2, workers=2, bare_pages=0, pause_s=None))
    assert report.passed, shown(report)


@pytest.mark.component
def test_without_locks_edits_are_lost_and_it_is_found(tmp_path: Path) -> None:
    report = torture(tmp_path, sabotaged("lock", servers=2, workers=1, pages=0, bare_pages=0, editors=8))
    assert kinds(report) & {LOST, CLOBBERED, MISSING, UNLOGGED}, shown(report)


@pytest.mark.component
def test_an_acknowledgement_without_a_write_is_found(tmp_path: Path) -> None:
    report = torture(tmp_path, sabotaged("answer", pages=0, bare_pages=0))
    assert {CLOBBERED, UNLOGGED} <= kinds(report), shown(report)
    assert report.directory is not None
    assert json.loads((report.directory / "violations.jsonl").read_bytes().splitlines()[0])["sentence"]
    assert (report.directory / "operations.jsonl").exists()


@pytest.mark.component
def test_whole_file_saves_that_are_not_merged_are_found(tmp_path: Path) -> None:
    report = torture(tmp_path, sabotaged("merge"))
    assert {LOST, CLOBBERED, UNWANTED} <= kinds(report), shown(report)


@pytest.mark.component
def test_the_command_prints_a_table_and_passes(tmp_path: Path) -> None:
    given = ["--torture", str(tmp_path), "--minutes", "0.05", "--no-kill", "--workers", "2"]
    ended = CliRunner().invoke(cli.selftest, given)
    assert ended.exit_code == 0, ended.output
    for part in ("flock      a locked file cannot", "rename     300", "fsync      file", "Edits ", "PASS"):
        assert part in ended.output
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(Busy, match=r"did not start; see .*server-0\.log"):
        torture(tmp_path, Plan(seconds=1, command=("false",)))


def test_a_failure_is_told_with_a_few_examples_and_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = [Violation(LOST, "fibers", f"id{number}", "gone") for number in range(8)]
    stale = [Violation(STALE, "", "", "old"), Violation(RESURRECTED, "z-0003", "b", "back")]
    report = Report(100, 1, 4, 50, 2, 3, 1, 0.5, 1.25, 10, [*lost, *stale], tmp_path / "kept")
    monkeypatch.setattr(cli, "torture", lambda *_: report)
    ended = CliRunner().invoke(cli.selftest, ["--torture", str(tmp_path)])
    assert ended.exit_code == 1
    assert ended.output.count("lost: fibers") == 5
    for part in ("lost: 3 more", "stale: : old", "FAIL: 8 lost, 1 stale, 1 resurrected.", str(tmp_path / "kept")):
        assert part in ended.output


def test_this_mount_is_sound(tmp_path: Path) -> None:
    report = measure(tmp_path)
    assert report.is_sound
    assert report.fsync_us > 0
    assert list(tmp_path.iterdir()) == []


def test_locks_that_do_not_hold_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    report = measure(tmp_path)
    assert not report.lock_excludes
    assert not report.is_sound
    assert any("LOCKS DO NOT HOLD" in line for line in described_mount(report))


def test_a_rename_that_is_not_atomic_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "rename", lambda new, path: shutil.copyfile(new, path))
    report = measure(tmp_path)
    assert report.torn > 0
    assert not report.is_sound
    assert any("READINGS WERE NO WHOLE FILE" in line for line in described_mount(report))


@pytest.mark.component
@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_a_thousand_kills(tmp_path: Path) -> None:
    report = torture(tmp_path, Plan(seconds=1800, editors=5, whole_share=0))
    print(shown(report))  # noqa: T201
    assert report.passed, shown(report)
    assert report.kills >= 1000
    assert report.acknowledged >= 100_000
    assert report.recovery_s <= 2


@pytest.mark.component
@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_two_hundred_kills_of_the_whole_server(tmp_path: Path) -> None:
    report = torture(tmp_path, Plan(seconds=900, whole_share=1, seed=2))
    print(shown(report))  # noqa: T201
    assert report.passed, shown(report)
    assert report.whole_kills >= 200
