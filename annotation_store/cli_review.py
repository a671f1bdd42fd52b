"""`precomputed annotations progress` and `review`: how far a dataset is, and confirming what lies in it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from annotation_store.cli_author import author_name
from annotation_store.cli_exchange import opened
from annotation_store.cli_parked import become_owner
from annotation_store.orders import Order, reviewing
from annotation_store.progress.listing import After, Wanted
from annotation_store.progress.survey import Leaf, Survey, sentence_of, survey_of
from annotation_store.progress.tally import Counted, progress_of, rows_of_blocks
from annotation_store.review import Review
from annotation_store.store import AnnotationStore
from precomputed_server.errors import InvalidInput, NotFound, PrecomputedError
from precomputed_server.files import Tree
from precomputed_server.format.names import ANNOTATIONS

_MEMORY = 64 << 20
_AT_ONCE = 10_000
"""How many annotations are confirmed in one step of a block."""
_TABLES = {"authors": "author", "types": "anntype", "blocks": "block", "slices": "slice"}
_COLUMNS = {
    "total": "drawn",
    "reviewed": "confirmed",
    "visited": "looked at",
    "confirmed_by_them": "confirmed by them",
    "confirmed_own": "of own",
}
_DATASET = click.argument("dataset", type=click.Path(exists=True, file_okay=False, path_type=Path))

Choice = list[tuple[Leaf, list[dict[str, Any]]]]
"""Leaves, and rows of the annotations of each that are meant."""


@click.command(short_help="How many annotations are drawn, looked at and confirmed.")
@_DATASET
@click.option("--by", "tables", type=click.Choice(list(_TABLES)), multiple=True, help="Only this table; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="What the server answers: one JSON object.")
def progress(dataset: Path, tables: tuple[str, ...], as_json: bool) -> None:
    """How many annotations of DATASET there are, somebody looked at, and a person has confirmed.

    An annotation belongs to whoever drew it, and is counted in the slice in which it begins.
    """
    survey, leaves = _surveyed(dataset)
    found = progress_of([_counted(survey, leaf) for leaf in leaves], rows_of_blocks(opened(dataset).blocks()))
    if as_json:
        click.echo(json.dumps(found))
        return
    percent = 100 * found["reviewed"] / found["total"] if found["total"] else 0.0
    click.echo(
        f"{found['reviewed']} of {found['total']} annotations confirmed ({percent:.1f} %), {found['visited']} looked at"
    )
    for row in found["unreadable"]:
        click.echo(f"{row['block']}/{row['leaf']} is not counted: {row['detail']}")
    for table in tables or _TABLES:
        click.echo()
        _show(_TABLES[table], found[table])


def _choosing(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which annotations are meant."""
    options = (
        click.option("--id", "ids", metavar="ID", multiple=True, help="This annotation; repeatable."),
        click.option("--block", metavar="NAME", help="Those of this block, by its directory's name."),
        click.option("--leaf", metavar="NAME", help="Those of this file: fibers, centroids, z-0020."),
        click.option("--slice", "slice_number", type=int, metavar="Z", help="Those that begin in this slice."),
        click.option("--author", metavar="NAME", help="Those that this author drew."),
        click.option("--anntype", metavar="NAME", help="Those of this kind: neuron, axon."),
        click.option("--type", "shape", metavar="NAME", help="Those of this shape: point, linestring, polygon."),
        click.option("--all", "everything", is_flag=True, help="All of the dataset."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(short_help="Confirm annotations, or withdraw that.")
@_DATASET
@_choosing
@click.option("--reviewer", type=author_name, metavar="NAME", required=True, help="Who confirms them.")
@click.option("--withdraw", is_flag=True, help="Nobody confirms them any longer.")
@click.option("--dry-run", is_flag=True, help="Only list what would be confirmed, or withdrawn.")
def review(dataset: Path, reviewer: str, withdraw: bool, dry_run: bool, **chosen: Any) -> None:
    """Confirm annotations of DATASET as they lie there now: an edit like any other, which can be undone.

    What is moved later is no longer confirmed.
    """
    if not any(value not in (None, (), False) for value in chosen.values()):
        raise InvalidInput("Say which annotations are meant, for instance --leaf fibers, --slice 20 or --all.")
    choice = _chosen(dataset, chosen, withdraw=withdraw)
    if dry_run:
        for leaf, rows in choice:
            for row in rows:
                click.echo(f"{leaf.block}/{leaf.name}  {row['id']}  {row['state']}")
        return
    store = AnnotationStore(Tree(dataset))
    for leaf, rows in choice:
        for start in range(0, len(rows), _AT_ONCE):
            _decide(store, leaf, rows[start : start + _AT_ONCE], reviewer, withdraw=withdraw)
    if not choice:
        click.echo("Nothing to withdraw." if withdraw else "Nothing is left to confirm.")


def _chosen(dataset: Path, chosen: dict[str, Any], *, withdraw: bool) -> Choice:
    """What the options mean; raises NotFound where no annotation is like that, or an id is nowhere."""
    survey, leaves = _surveyed(dataset)
    ids = frozenset(chosen["ids"]) or None
    names = {"slice": "slice_number", "author": "author", "anntype": "anntype", "type": "shape"}
    kind = frozenset((name, chosen[option]) for name, option in names.items() if chosen[option] is not None)
    wanted = Wanted(kind, "all", None, ids)
    choice: Choice = []
    found: set[str] = set()
    for leaf in leaves:
        if chosen["block"] in (None, leaf.block) and chosen["leaf"] in (None, leaf.name, f"{leaf.name}.json"):
            rows = _rows(survey, leaf, wanted)
            found |= {row["id"] for row in rows}
            meant = rows if ids and not withdraw else [row for row in rows if _is_open(row, withdraw=withdraw)]
            choice += [(leaf, meant)] if meant else []
    missing = sorted((ids or frozenset()) - found)
    if missing:
        done = "withdrawn" if withdraw else "confirmed"
        raise NotFound(f"There is no annotation with the id {missing[0]!r} there; nothing was {done}.")
    if not found and not chosen["everything"]:
        raise NotFound("No annotation of this dataset is like that; precomputed annotations progress says which are.")
    return choice


def _is_open(row: dict[str, Any], *, withdraw: bool) -> bool:
    """Whether there is something to confirm, or to withdraw."""
    return row["review"] is not None if withdraw else row["state"] != "reviewed"


def _rows(survey: Survey, leaf: Leaf, wanted: Wanted) -> list[dict[str, Any]]:
    try:
        return survey.rows(leaf.location, wanted, After(), leaf.state[-1] + 1)[0]  # no annotation without a byte
    except (PrecomputedError, OSError) as error:  # the others can be confirmed all the same
        click.echo(f"{leaf.block}/{leaf.name} is passed over: {sentence_of(error)}", err=True)
        return []


def _decide(store: AnnotationStore, leaf: Leaf, rows: list[dict[str, Any]], reviewer: str, *, withdraw: bool) -> None:
    seen = {row["id"]: row["geometry"] for row in rows}
    part = reviewing(leaf.location.leaf, Review(seen, not withdraw))
    outcome = store.carry_out(Order(leaf.location.directory, (part,), reviewer, "", secrets.token_hex(16)))[0]
    done = "withdrawn" if withdraw else "confirmed"
    count = f"{outcome.edits} annotation{'' if outcome.edits == 1 else 's'}"
    click.echo(f"{leaf.block}/{leaf.name}: {count} {done}, version {outcome.version}.")
    for id, reason in (outcome.refused or {}).items():
        became = "removed" if reason == "missing" else "moved"
        click.echo(f"{leaf.block}/{leaf.name}: somebody has {became} {id} in the meantime; it is not {done}.")


def _surveyed(dataset: Path) -> tuple[Survey, list[Leaf]]:
    if not (dataset / ANNOTATIONS).is_dir():
        raise InvalidInput(f"{dataset} has no annotations; name the directory of a dataset.")
    become_owner(dataset)
    store = AnnotationStore(Tree(dataset))
    survey = survey_of(store, _MEMORY)
    directories = [entry.name for entry in store.tree.listing(ANNOTATIONS) if entry.is_directory]
    return survey, survey.leaves("", directories)


def _counted(survey: Survey, leaf: Leaf) -> Counted:
    try:
        return Counted(leaf.block, leaf.name, survey.count(leaf))
    except (PrecomputedError, OSError) as error:
        return Counted(leaf.block, leaf.name, None, sentence_of(error))


def _show(name: str, rows: list[dict[str, Any]]) -> None:
    """A table, as wide as its cells."""
    members = [member for member in _COLUMNS if rows and member in rows[0]]
    lines = [[name, *(_COLUMNS[member] for member in members)]]
    lines += [["-" if row[name] is None else str(row[name]), *(str(row[member]) for member in members)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        click.echo("  ".join(_padded(line, widths)).rstrip())


def _padded(line: list[str], widths: list[int]) -> Iterator[str]:
    yield line[0].ljust(widths[0])
    for cell, width in zip(line[1:], widths[1:], strict=True):
        yield cell.rjust(width)
