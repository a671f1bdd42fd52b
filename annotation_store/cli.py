"""`precomputed annotations`: the time machine, parked saves, and the upkeep of edit logs, on the files themselves."""

from __future__ import annotations

import contextlib
import functools
import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from annotation_store.blocks import BlockOf
from annotation_store.cli_author import author_name
from annotation_store.cli_exchange import export, link
from annotation_store.cli_import import import_file
from annotation_store.cli_parked import become_owner, parked
from annotation_store.cli_review import progress, review
from annotation_store.events.following import follow, moment_of
from annotation_store.events.past import Past
from annotation_store.history.instants import read_instant
from annotation_store.history.records import EXTERNAL
from annotation_store.model import Item, Items
from annotation_store.orders import Order, Part
from annotation_store.store import AnnotationStore
from annotation_store.upkeep import compact_block, verify_block
from precomputed_server.errors import InvalidInput, NotFound, Unreadable
from precomputed_server.files import Tree
from precomputed_server.format.names import ANNOTATIONS


@dataclass(frozen=True)
class Chosen:
    """What a command is about: a dataset on disk, and of it one block, leaf or annotation."""

    store: AnnotationStore
    block: str | None
    leaf: str | None
    id: str | None

    def places(self) -> Iterator[tuple[BlockOf, str]]:
        """The chosen leaves that have ever been edited; raises NotFound when there are none."""
        found = False
        for block in self.store.logged_blocks(""):
            if self.block in (None, block.name):
                for leaf in self.store.logged_leaves(block.location("")):
                    if self.leaf in (None, leaf):
                        found = True
                        yield block, leaf
        if not found:
            raise NotFound("No annotation file of that name has ever been edited in this dataset.")

    def only_place(self) -> tuple[BlockOf, str]:
        """The one leaf that is chosen; raises InvalidInput when there are several."""
        places = list(self.places())
        if len(places) > 1:
            names = ", ".join(f"{block.name}/{leaf}" for block, leaf in places[:6])
            raise InvalidInput(f"Say which file is meant by --leaf (and --block): there are {names}.")
        return places[0]


def _choosing(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments that choose a dataset, block, leaf and annotation."""
    options = (
        click.argument("dataset", type=click.Path(exists=True, file_okay=False, path_type=Path)),
        click.option("--block", metavar="NAME", help="Only this block, by its directory's name."),
        click.option("--leaf", metavar="NAME", help="Only this file: fibers, centroids, z-0020."),
        click.option("--id", metavar="ID", help="Only this annotation."),
    )

    @functools.wraps(command)
    def chosen(dataset: Path, block: str | None, leaf: str | None, id: str | None, **given: Any) -> None:
        if not (dataset / ANNOTATIONS).is_dir():
            raise InvalidInput(f"{dataset} has no annotations; name the directory of a dataset.")
        become_owner(dataset)
        store = AnnotationStore(Tree(dataset))
        command(Chosen(store, block, None if leaf is None else leaf.removesuffix(".json"), id), **given)

    wrapped: Callable[..., None] = chosen
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


@click.group("annotations")
def annotation_commands() -> None:
    """See and bring back earlier versions of annotations, and look after their logs.

    DATASET is a dataset's directory on disk. A moment is an RFC 3339 instant such as 2026-01-31T17:05:00Z, or a version
    number of a file. The server may go on running.
    """


for _command in (parked, export, import_file, link, progress, review):
    annotation_commands.add_command(_command)


@annotation_commands.command()
@_choosing
@click.option("--author", metavar="NAME", help="Only what this author did.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most this many edits a file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with the annotation before and after.")
def history(chosen: Chosen, author: str | None, limit: int, as_json: bool) -> None:
    """Who changed what and when, newest first."""
    for block, leaf in chosen.places():
        with chosen.store.versions(block.location(leaf)) as versions:
            entries, _ = versions.entries(leaf, limit, None, chosen.id, author)
        for entry in entries:
            if as_json:
                click.echo(json.dumps({"block": block.name, "leaf": leaf, **entry.to_json()}))
            else:
                click.echo(
                    f"{entry.time}  {block.name}/{leaf} version {entry.version}  {entry.author}  "
                    f"{entry.operation}  {entry.id or ''}"
                )


@annotation_commands.command(short_help="Bring back an annotation, a file or a whole dataset.")
@_choosing
@click.option("--version", type=click.IntRange(0), help="Bring back this version of the one file that is chosen.")
@click.option("--at", metavar="INSTANT", help="Bring back what was at this instant, of one file or of all.")
@click.option(
    "--author", type=author_name, metavar="NAME", default="restore", show_default=True, help="Who the log says did it."
)
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
def restore(chosen: Chosen, version: int | None, at: str | None, author: str, dry_run: bool) -> None:
    """Bring back an annotation, a file or a whole dataset as it was: an edit like any other, which can be undone."""
    if (version is None) == (at is None):
        raise InvalidInput("Say what to bring back: --version N or --at INSTANT.")
    places = [chosen.only_place()] if version is not None else list(chosen.places())
    for place in places:
        wanted = (version or 0) if at is None else _version_at(chosen, place, read_instant(at))
        if dry_run:
            _say_differences(chosen, place, _now(chosen, place), _of_version(chosen, place, wanted))
            continue
        block, leaf = place
        part = Part(leaf, "restore", chosen.id, None, wanted)
        order = Order(block.directory, (part,), author, "", secrets.token_hex(16))
        outcome = chosen.store.carry_out(order)[0]
        if outcome.edits:
            click.echo(f"{block.name}/{leaf}: {_counted(outcome.edits)} restored, version {outcome.version}.")
        else:
            click.echo(f"{block.name}/{leaf}: already as it was.")


@annotation_commands.command()
@_choosing
@click.argument("earlier")
@click.argument("later", required=False)
def diff(chosen: Chosen, earlier: str, later: str | None) -> None:
    """What changed between two moments; without LATER, until now."""
    for place in [chosen.only_place()] if earlier.isdigit() else chosen.places():
        after = _now(chosen, place) if later is None else _said(chosen, place, later)
        _say_differences(chosen, place, _said(chosen, place, earlier), after)


@annotation_commands.command(short_help="Print every edit as it is made, one JSON object a line.")
@_choosing
@click.option("--since", metavar="MOMENT", help="Begin with what was made since this instant, or event id.")
def watch(chosen: Chosen, since: str | None) -> None:
    """Print every edit as it is made, one JSON object a line, until interrupted; no server is needed.

    After an interruption go on with --since and the `event` of the last line: what was made in the 5 s before comes
    again.
    """
    wanted = Past("", moment_of(since) if since else "", _named(chosen.block), _named(chosen.leaf))
    with contextlib.suppress(KeyboardInterrupt):
        for event in follow(chosen.store, wanted):
            if chosen.id in (None, event.annotation):
                click.echo(event.data)


def _named(name: str | None) -> tuple[str, ...]:
    return () if name is None else (name,)


@annotation_commands.command()
@_choosing
def blame(chosen: Chosen) -> None:
    """Who changed each annotation last, and when."""
    for block, leaf in chosen.places():
        with chosen.store.versions(block.location(leaf)) as versions:
            last = versions.blame(leaf)
        for id in _now(chosen, (block, leaf)):
            if chosen.id in (None, id) and id in last:
                entry = last[id]
                click.echo(f"{entry.time}  {block.name}/{leaf} version {entry.version}  {entry.author}  {id}")


@annotation_commands.command(short_help="Replay the logs against the files and check them.")
@_choosing
def verify(chosen: Chosen) -> None:
    """Replay the logs against the files and check that nobody and nothing has changed a line of them."""
    wrong = 0
    for block in chosen.store.logged_blocks(""):
        if chosen.block in (None, block.name):
            findings = verify_block(chosen.store, block)
            wrong += len(findings)
            for finding in findings:
                click.echo(f"{block.name}: {finding.told()}")
            if not findings:
                click.echo(f"{block.name}: the log is whole and says what the files hold.")
    if wrong:
        raise Unreadable(
            f"Not all is as it should be ({wrong} {'line' if wrong == 1 else 'lines'} above). What a log says can still"
            " be read; a file that is not what its log says is adopted or set aside by the next edit."
        )


@annotation_commands.command(short_help="Make logs smaller without losing what stood for 10 s.")
@_choosing
@click.option("--history-days", type=click.IntRange(1), default=90, show_default=True, help="Days to keep.")
def compact(chosen: Chosen, history_days: int) -> None:
    """Make logs smaller: movements of one drag become one, and what is older than the kept days goes.

    Every version that stood for 10 s within the kept days can still be had back. What is younger than a day stays.
    """
    for block in chosen.store.logged_blocks(""):
        if chosen.block in (None, block.name):
            report = compact_block(chosen.store, block, history_days)
            click.echo(f"{block.name}: {report.before} bytes before, {report.after} after.")


Found = tuple[BlockOf, str]


def _counted(count: int) -> str:
    return f"{count} annotation{'' if count == 1 else 's'}"


def _version_at(chosen: Chosen, place: Found, moment: datetime) -> int:
    """The version in force at a moment; before the first one what another tool had left, else nothing (0)."""
    with chosen.store.versions(place[0].location(place[1])) as versions:
        try:
            return versions.at(place[1], moment)
        except NotFound:
            return 1 if versions.content(place[1], 1).author == EXTERNAL else 0


def _now(chosen: Chosen, place: Found) -> Items:
    """What a leaf holds now."""
    return _of_version(chosen, place, chosen.store.version(place[0].location(place[1])))


def _of_version(chosen: Chosen, place: Found, version: int) -> Items:
    """What a leaf held in a version; raises NotFound, Gone."""
    return chosen.store.version_at(place[0].location(place[1]), version, None).items if version else {}


def _at(chosen: Chosen, place: Found, moment: datetime) -> Items:
    """What a leaf held at a moment; nothing where it did not exist."""
    try:
        return _of_version(chosen, place, _version_at(chosen, place, moment))
    except NotFound:
        return {}


def _said(chosen: Chosen, place: Found, text: str) -> Items:
    """What a leaf held in the version or at the instant that somebody has written."""
    return _of_version(chosen, place, int(text)) if text.isdigit() else _at(chosen, place, read_instant(text))


def _say_differences(chosen: Chosen, place: Found, before: Items, after: Items) -> None:
    name = f"{place[0].name}/{place[1]}"
    for id in dict.fromkeys([*before, *after]):
        if chosen.id in (None, id) and before.get(id) != after.get(id):
            sign = "+" if id not in before else "-" if id not in after else "~"
            click.echo(f"{sign} {name}  {id}{_fields(before.get(id), after.get(id))}")


def _fields(before: Item | None, after: Item | None) -> str:
    """Which fields of an annotation differ, where it is in both."""
    if before is None or after is None:
        return ""
    names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    return "  " + ", ".join(names)
