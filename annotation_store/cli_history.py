"""`precomputed annotations history`, `blame`, `diff` and `restore`: what was before, and having it back."""

from __future__ import annotations

import heapq
import itertools
import json
import secrets
from collections.abc import Iterator
from datetime import datetime

import click

from annotation_store.blocks import BlockOf
from annotation_store.cli_author import author_name
from annotation_store.cli_chosen import EVERYTHING, Chosen, choosing
from annotation_store.cli_instant import moment
from annotation_store.history.records import EXTERNAL
from annotation_store.history.versions import Entry
from annotation_store.model import Item, Items
from annotation_store.orders import Order, Part
from precomputed_server.errors import InvalidInput, NotFound

Found = tuple[BlockOf, str]
"""A leaf: its block, and its name."""


@click.command()
@choosing(*EVERYTHING)
@click.option("--author", metavar="NAME", help="Only what this author did.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most this many edits in all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with the annotation before and after.")
def history(chosen: Chosen, author: str | None, limit: int, as_json: bool) -> None:
    """Who changed what and when, newest first, in all files or in the one that is chosen."""
    files = [[(place, entry) for entry in _entries(chosen, place, limit, author)] for place in chosen.places()]
    newest = heapq.merge(*files, key=lambda found: found[1].time, reverse=True)
    found = list(itertools.islice(newest, limit))
    for (block, leaf), entry in found:
        if as_json:
            click.echo(json.dumps({"block": block.name, "leaf": leaf, **entry.to_json()}))
        else:
            click.echo(
                f"{entry.time}  {block.name}/{leaf} version {entry.version}  {entry.author}  "
                f"{entry.operation}  {entry.id or ''}{_fields(entry.before, entry.after)}"
            )
    if not found:
        click.echo("The log has no such edit.", err=True)


def _entries(chosen: Chosen, place: Found, limit: int, author: str | None) -> list[Entry]:
    block, leaf = place
    with chosen.store.versions(block.location(leaf)) as versions:
        return versions.entries(leaf, limit, None, chosen.id, author)[0]


@click.command()
@choosing(*EVERYTHING)
def blame(chosen: Chosen) -> None:
    """Who changed each annotation last, and when."""
    found = False
    for block, leaf in chosen.places():
        with chosen.store.versions(block.location(leaf)) as versions:
            last = versions.blame(leaf)
        for id in _now(chosen, (block, leaf)):
            if chosen.id in (None, id) and id in last:
                entry, found = last[id], True
                click.echo(f"{entry.time}  {block.name}/{leaf} version {entry.version}  {entry.author}  {id}")
    if not found:
        click.echo("There is no such annotation now of which the log knows the last edit.", err=True)


@click.command()
@choosing(*EVERYTHING)
@click.argument("earlier")
@click.argument("later", required=False)
def diff(chosen: Chosen, earlier: str, later: str | None) -> None:
    """What changed between two moments; without LATER, until now."""
    before, after = _moment(earlier), None if later is None else _moment(later)
    told = False
    for place in [chosen.only_place()] if isinstance(before, int) else chosen.places():
        items = _now(chosen, place) if after is None else _said(chosen, place, after)
        told |= _say_differences(chosen, place, _said(chosen, place, before), items)
    if not told:
        click.echo("Nothing differs.", err=True)


@click.command(short_help="Bring back an annotation, a file or a whole dataset.")
@choosing(*EVERYTHING)
@click.option("--version", type=click.IntRange(1), help="Bring back this version of the one file that is chosen.")
@click.option("--at", metavar="INSTANT", help="Bring back what was at this instant, of one file or of all.")
@click.option(
    "--author", type=author_name, metavar="NAME", default="restore", show_default=True, help="Who the log says did it."
)
@click.option("--dry-run", is_flag=True, help="Only say what would change.")
def restore(chosen: Chosen, version: int | None, at: str | None, author: str, dry_run: bool) -> None:
    """Bring back an annotation, a file or a whole dataset as it was: an edit like any other, which can be undone."""
    if version is not None and at is not None:
        raise InvalidInput("Give --version or --at, not both.")
    told = False
    for place, wanted in _to_restore(chosen, version, at):
        if dry_run:
            told |= _say_differences(chosen, place, _now(chosen, place), _of_version(chosen, place, wanted))
        else:
            _restore(chosen, place, wanted, author)
    if dry_run and not told:
        click.echo("Nothing would change: all of it is as it was.")


def _to_restore(chosen: Chosen, version: int | None, at: str | None) -> list[tuple[Found, int]]:
    """The leaves that are meant, and to which version each goes back; raises InvalidInput, NotFound, Gone."""
    if version is not None:
        return [(chosen.only_place(), version)]
    if at is None:
        raise InvalidInput("Say what to bring back: --version N or --at INSTANT.")
    since = moment(at)
    found = [(place, _version_at(chosen, place, since)) for place in chosen.places()]
    if chosen.id is None:
        return found
    having = [
        (place, wanted)
        for place, wanted in found
        if chosen.id in _now(chosen, place) or chosen.id in _of_version(chosen, place, wanted)
    ]
    if not having:
        raise NotFound(f"There is no annotation with the id {chosen.id!r}, neither now nor at that instant.")
    return having


def _restore(chosen: Chosen, place: Found, wanted: int, author: str) -> None:
    block, leaf = place
    part = Part(leaf, "restore", chosen.id, None, wanted)
    outcome = chosen.store.carry_out(Order(block.directory, (part,), author, "", secrets.token_hex(16)))[0]
    if outcome.edits:
        count = f"{outcome.edits} annotation{'' if outcome.edits == 1 else 's'}"
        click.echo(f"{block.name}/{leaf}: {count} restored, version {outcome.version}.")
    else:
        click.echo(f"{block.name}/{leaf}: already as it was.")


def _version_at(chosen: Chosen, place: Found, since: datetime) -> int:
    """The version in force at a moment; before the first one what another tool had left, else nothing (0)."""
    with chosen.store.versions(place[0].location(place[1])) as versions:
        try:
            return versions.at(place[1], since)
        except NotFound:
            return 1 if versions.content(place[1], 1).author == EXTERNAL else 0


def _now(chosen: Chosen, place: Found) -> Items:
    """What a leaf holds now."""
    return _of_version(chosen, place, chosen.store.version(place[0].location(place[1])))


def _of_version(chosen: Chosen, place: Found, version: int) -> Items:
    """What a leaf held in a version; raises NotFound, Gone."""
    return chosen.store.version_at(place[0].location(place[1]), version, None).items if version else {}


def _moment(text: str) -> int | datetime:
    """The version or the instant that somebody has written; raises InvalidInput."""
    return int(text) if text.isdigit() else moment(text)


def _said(chosen: Chosen, place: Found, when: int | datetime) -> Items:
    """What a leaf held in a version or at an instant; nothing where it did not exist then."""
    if isinstance(when, int):
        return _of_version(chosen, place, when)
    try:
        return _of_version(chosen, place, _version_at(chosen, place, when))
    except NotFound:
        return {}


def _say_differences(chosen: Chosen, place: Found, before: Items, after: Items) -> bool:
    """Print them; whether there was one."""
    name = f"{place[0].name}/{place[1]}"
    told = False
    for id in _differing(before, after):
        if chosen.id in (None, id):
            told = True
            sign = "+" if id not in before else "-" if id not in after else "~"
            click.echo(f"{sign} {name}  {id}{_fields(before.get(id), after.get(id))}")
    return told


def _differing(before: Items, after: Items) -> Iterator[str]:
    return (id for id in dict.fromkeys([*before, *after]) if before.get(id) != after.get(id))


def _fields(before: Item | None, after: Item | None) -> str:
    """Which fields of an annotation differ, where it is in both."""
    if before is None or after is None:
        return ""
    names = [name for name in dict.fromkeys([*before, *after]) if before.get(name) != after.get(name)]
    return f"  {', '.join(names)}" if names else ""
