"""The command `precomputed selftest`: it parses, calls one function and prints a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from precomputed_server.selftest.history import Violation
from precomputed_server.selftest.mount import MountReport, measure
from precomputed_server.selftest.torture import Plan, Report, torture

_SHOWN = 5
"""Violations of one kind that are printed."""


@click.command(short_help="Try on your own mount whether edits survive killed processes.")
@click.option(
    "--torture",
    "directory",
    required=True,
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="An existing directory on the mount; a dataset of its own is made in it and removed again.",
)
@click.option(
    "--minutes", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True, help="How long."
)
@click.option("--no-kill", is_flag=True, help="Kill nothing.")
@click.option("--workers", type=click.IntRange(1, 64), default=4, show_default=True, help="Serving processes.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another number gives another run.")
@click.pass_context
def selftest(
    context: click.Context, /, directory: Path, minutes: float, no_kill: bool, workers: int, seed: int
) -> None:
    """Let simulated annotators edit a dataset in DIR while processes of a server are killed, and check the outcome.

    Says what locking, renaming and syncing do on the mount, and whether an acknowledged edit was lost, undone or came
    back. The exit code is 0 when every promise was kept.
    """
    mount = measure(directory)
    for line in described_mount(mount):
        click.echo(line)
    click.echo(f"Editing for {minutes:g} min …")
    pause_s = None if no_kill else Plan.pause_s
    report = torture(directory, Plan(seconds=60 * minutes, workers=workers, pause_s=pause_s, seed=seed))
    for line in described(report):
        click.echo(line)
    passed = report.passed and mount.is_sound
    click.echo("PASS: every promise was kept." if passed else f"FAIL: {_reason(report, mount)}")
    context.exit(0 if passed else 1)


def described_mount(mount: MountReport) -> Iterator[str]:
    """The lines that say what a mount does."""
    yield f"Mount      {mount.path}, {mount.kind} ({mount.options})"
    excludes = "a locked file cannot be locked again" if mount.lock_excludes else "LOCKS DO NOT HOLD"
    freed = "a closed file's lock is free" if mount.lock_is_freed else "A CLOSED FILE STAYS LOCKED"
    yield f"flock      {excludes}; {freed}"
    seen = "no reader saw a mixture" if not mount.torn else f"{mount.torn} READINGS WERE NO WHOLE FILE"
    yield f"rename     {mount.renames} replacements; {seen}"
    yield f"fsync      file {mount.fsync_us:.0f} µs, directory {mount.directory_fsync_us:.0f} µs (median)"
    if mount.warning is not None:
        yield f"Warning    {mount.warning}"


def described(report: Report) -> Iterator[str]:
    """The lines of a run's table, and what was wrong."""
    rate = report.acknowledged / max(report.seconds, 1e-9)
    yield f"Edits      {report.acknowledged} acknowledged ({rate:.0f}/s), {report.unknown} without an answer"
    yield f"Retries    {report.dropped} answers dropped on purpose, the requests repeated with their keys"
    yield f"Saves      {report.parked} with removals that were parked"
    yield f"GETs       {report.reads} checked"
    yield f"Kills      {report.kills}, of these {report.whole_kills} of the whole server"
    if report.kills > report.whole_kills:
        yield f"Recovery   at most {report.recovery_s:.2f} s to the next acknowledgement after a kill"
    if report.whole_kills:
        yield f"Restart    at most {report.whole_recovery_s:.2f} s to the next acknowledgement, start included"
    yield from _described_violations(report.violations)
    if report.directory is not None:
        yield f"Everything is kept in {report.directory}"


def _described_violations(violations: Sequence[Violation]) -> Iterator[str]:
    shown: Counter[str] = Counter()
    for violation in violations:
        shown[violation.kind] += 1
        if shown[violation.kind] <= _SHOWN:
            place = " ".join(part for part in (violation.leaf, violation.id) if part)
            yield f"  {violation.kind}: {place}: {violation.sentence}"
    for kind, count in shown.items():
        if count > _SHOWN:
            yield f"  {kind}: {count - _SHOWN} more"


def _reason(report: Report, mount: MountReport) -> str:
    counted = Counter(violation.kind for violation in report.violations)
    reasons = [f"{count} {kind}" for kind, count in counted.most_common()]
    if not mount.is_sound:
        reasons.append("the mount does not hold what edits need")
    return ", ".join(reasons) + "."
