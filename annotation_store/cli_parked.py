"""`precomputed annotations parked`: saves that were not applied, or not whole, and what becomes of them."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from annotation_store.cli_author import author_name
from annotation_store.model import serialize
from annotation_store.orders import Order, Outcome, Part
from annotation_store.pages.journal import Journal
from annotation_store.pages.refused import RefusedSaves
from annotation_store.reader import ParkedSave
from annotation_store.store import PAGES, REFUSED, AnnotationStore
from annotation_store.volume import volume_of
from precomputed_server import settings
from precomputed_server.errors import InvalidInput, NotFound
from precomputed_server.files import Tree
from precomputed_server.format.names import ANNOTATIONS
from precomputed_server.local_state import states_of_dataset
from precomputed_server.setting_options import setting_options


@dataclass(frozen=True)
class Refused:
    """A refused save that is kept on this host: where, the dataset's name there, and what is known of it."""

    state: Path
    dataset: str
    row: dict[str, Any]

    @property
    def saves(self) -> RefusedSaves:
        """Where its body lies."""
        return RefusedSaves(self.state / REFUSED, sys.maxsize)


@click.command("parked", short_help="List the saves that were not applied, or decide one.")
@click.argument("dataset", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--apply", metavar="ID", help="Do, after all, what this save wanted.")
@click.option("--discard", metavar="ID", help="Forget what this save wanted.")
@click.option("--show", metavar="ID", help="Print what the page sent.")
@setting_options("state")
@click.option(
    "--author", type=author_name, metavar="NAME", default="parked", show_default=True, help="Who the log says did it."
)
def parked(dataset: Path, config: Path | None, state: str | None, author: str, **deeds: str | None) -> None:
    """List the saves of DATASET that were not applied, or not whole, newest first; or decide one of them.

    Parked deletions lie in the dataset. Saves that were refused lie in the state directory of the host that refused
    them, and are listed there.
    """
    given = [(how, id) for how, id in deeds.items() if id is not None]
    if not (dataset / ANNOTATIONS).is_dir():
        raise InvalidInput(f"{dataset} has no annotations; name the directory of a dataset.")
    if len(given) > 1:
        raise InvalidInput("Decide one save at a time: --apply, --discard or --show.")
    become_owner(dataset)
    store = AnnotationStore(Tree(dataset))
    directory = settings.load(None, {"state": state}, config=config).state
    refused = list(_refused(dataset, directory))
    if not any(True for _ in states_of_dataset(directory, dataset)):
        click.echo(
            f"No server of this host has kept anything for this dataset in {directory}; where it runs with another"
            " state directory, refused saves are listed with --state DIR.",
            err=True,
        )
    if not given:
        _list(store, refused)
        return
    how, id = given[0]
    save = store.find_parked("", id)
    kept = next((found for found in refused if found.row["id"] == id), None)
    if save is not None:
        _decide_parked(store, save, how, author)
    elif kept is not None:
        _decide_refused(dataset, kept, how, author)
    else:
        raise NotFound("Nothing is parked under that id; it may have been applied or discarded.")


def become_owner(dataset: Path) -> None:
    """Where root works on the files of somebody else, go on as that user: the server has to write them afterwards."""
    status = (dataset / ANNOTATIONS).stat()
    if os.geteuid() == 0 and status.st_uid != 0:
        os.setgroups([])
        os.setegid(status.st_gid)
        os.seteuid(status.st_uid)


def _refused(dataset: Path, state: Path) -> Iterator[Refused]:
    for directory, name in states_of_dataset(state, dataset):
        for row in RefusedSaves(directory / REFUSED, sys.maxsize).list(name):
            yield Refused(directory, name, row)


def _list(store: AnnotationStore, refused: list[Refused]) -> None:
    rows = [(save.to_json(), "removes " + ", ".join(save.record.remove)) for save in store.parked("")]
    rows += [(found.row, f"refused with {found.row['status']}") for found in refused]
    for row, wanted in sorted(rows, key=lambda each: str(each[0]["time"]), reverse=True):
        click.echo(
            f"{row['id']}  {row['time']}  {row['block']}/{row['leaf']}  {row['author']}  {row['reason']} ({wanted})"
        )
    if not rows:
        click.echo("Nothing waits to be applied or discarded.")


def _decide_parked(store: AnnotationStore, save: ParkedSave, how: str, author: str) -> None:
    if how == "show":
        click.echo(serialize(store.parked_body(save)).decode(), nl=False)
        return
    part = Part(save.location.leaf, "apply" if how == "apply" else "discard", save.record.parked)
    order = Order(save.location.directory, (part,), author, "", secrets.token_hex(16))
    outcome = store.carry_out(order)[0]
    if how == "apply":
        click.echo(f"{save.block}/{part.leaf}: {outcome.edits} deleted, version {outcome.version}.")
    else:
        click.echo(f"{save.block}/{part.leaf}: discarded; the annotations stay as they are.")


def _decide_refused(dataset: Path, found: Refused, how: str, author: str) -> None:
    id, name = found.row["id"], f"{found.row['block']}/{found.row['leaf']}"
    if how == "show":
        click.echo(found.saves.body(id, found.dataset), nl=False)
        return
    if how == "apply":
        outcome = _apply_refused(dataset, found, author)
        if outcome.parked is None:
            click.echo(f"{name}: {outcome.said}, version {outcome.version}.")
        else:
            click.echo(
                f"{name}: {outcome.edits} added or changed, version {outcome.version}. What it removes is parked anew,"
                f" as a save of {author}: --apply {outcome.parked} removes it, --discard {outcome.parked} forgets that."
            )
    else:
        click.echo(f"{name}: discarded; the annotations stay as they are.")
    found.saves.discard(id)


def _apply_refused(dataset: Path, found: Refused, author: str) -> Outcome:
    """Carry out what a refused save wanted, as that of a page of which nothing is known."""
    id, row = found.row["id"], found.row
    body = found.saves.body(id, found.dataset)
    # From the root that was served, so that the page's earlier saves are known by the same names.
    root = Path(*dataset.resolve().parts[: len(dataset.resolve().parts) - len(Path(found.dataset).parts)])
    with contextlib.closing(Tree(root)) as tree:
        store = AnnotationStore(tree, journal=Journal(found.state / PAGES))
        bounds = volume_of(dataset).scales[0].bounds
        directory = store.blocks(found.dataset, bounds).directory(row["block"])
        location = store.locate(found.dataset, directory, row["leaf"])
        part = Part(location.leaf, "put", body=body)
        order = Order(location.directory, (part,), author, f"refused {id}", secrets.token_hex(16))
        return store.carry_out(order)[0]
