"""`precomputed annotations`: the time machine, parked saves, and the upkeep of edit logs, on the files themselves."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from annotation_store.cli_chosen import EVERYTHING, Chosen, choosing
from annotation_store.cli_exchange import export, link
from annotation_store.cli_history import blame, diff, history, restore
from annotation_store.cli_import import import_file
from annotation_store.cli_instant import moment
from annotation_store.cli_parked import parked
from annotation_store.cli_review import progress, review
from annotation_store.events.following import follow, moment_of
from annotation_store.events.past import Past
from annotation_store.upkeep import compact_block, verify_block
from precomputed_server import settings
from precomputed_server.errors import InvalidInput, Unreadable
from precomputed_server.setting_options import setting_options

_NO_LOG = "Nothing of this dataset has ever been edited: there is no log."


@click.group("annotations", invoke_without_command=True)
@click.pass_context
def annotation_commands(context: click.Context) -> None:
    """See and bring back earlier versions of annotations, and look after their logs.

    DATASET is a dataset's directory on disk. A moment is an RFC 3339 instant such as 2026-01-31T17:05:00Z (UTC, where
    it names no time zone), or a version number of a file. The server may go on running.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for _command in (blame, diff, export, history, import_file, link, parked, progress, restore, review):
    annotation_commands.add_command(_command)


@annotation_commands.command(short_help="Print every edit as it is made, one JSON object a line.")
@choosing(*EVERYTHING)
@click.option("--since", metavar="MOMENT", help="Begin with what was made since this instant, or event id.")
def watch(chosen: Chosen, since: str | None) -> None:
    """Print every edit as it is made, one JSON object a line, until interrupted; no server is needed.

    After an interruption go on with --since and the `event` of the last line: what was made in the 5 s before comes
    again.
    """
    if since:
        with contextlib.suppress(InvalidInput):  # the id of an event
            moment(since)
    wanted = Past("", moment_of(since) if since else "", _named(chosen.block), _named(chosen.leaf))
    with contextlib.suppress(KeyboardInterrupt):
        for event in follow(chosen.store, wanted):
            if chosen.id in (None, event.annotation):
                click.echo(event.data)


def _named(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


@annotation_commands.command(short_help="Replay the logs against the files and check them.")
@choosing("block", "leaf")
def verify(chosen: Chosen) -> None:
    """Replay the logs against the files and check that nobody and nothing has changed a line of them."""
    wrong = 0
    blocks = list(chosen.blocks() if chosen.leaf is None else dict.fromkeys(block for block, _ in chosen.places()))
    for block in blocks:
        findings = [
            each for each in verify_block(chosen.store, block) if chosen.leaf in (None, each.leaf or chosen.leaf)
        ]
        wrong += len(findings)
        for finding in findings:
            click.echo(f"{block.name}: {finding.told()}")
        if not findings and chosen.leaf is None:
            click.echo(f"{block.name}: the log is whole and says what the files hold.")
        elif not findings:
            click.echo(f"{block.name}/{chosen.leaf}: the log is whole and says what the file holds.")
    if not blocks:
        click.echo(_NO_LOG)
    if wrong:
        raise Unreadable(
            f"Not all is as it should be ({wrong} {'line' if wrong == 1 else 'lines'} above). What a log says can still"
            " be read; a file that is not what its log says is adopted or set aside by the next edit."
        )


@annotation_commands.command(short_help="Make logs smaller without losing what stood for 10 s.")
@choosing("block")
@setting_options("history_days")
def compact(chosen: Chosen, config: Path | None, history_days: int | None) -> None:
    """Make logs smaller: movements of one drag become one, and what is older than the kept days goes.

    Every version that stood for 10 s within the kept days can still be had back. What is younger than a day stays.
    """
    blocks = list(chosen.blocks())
    days = settings.load(None, {"history_days": history_days}, config=config).history_days
    for block in blocks:
        report = compact_block(chosen.store, block, days)
        click.echo(f"{block.name}: {report.before} bytes before, {report.after} after.")
    if not blocks:
        click.echo(_NO_LOG)
