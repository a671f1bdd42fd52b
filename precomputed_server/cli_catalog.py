"""`precomputed index` and `precomputed datasets`: bringing the catalog of a root up to date, and asking it."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import click

from converter.report import counted, table
from precomputed_server import settings
from precomputed_server.catalog.database import SORTS, Catalog, Query
from precomputed_server.catalog.entries import COMPLETE, STACK, STATES, VANISHED
from precomputed_server.catalog.indexer import Found, Hints, catalog_path, only_indexer
from precomputed_server.catalog_keeper import keep_catalog, open_indexer
from precomputed_server.errors import Busy, InvalidInput
from precomputed_server.setting_options import setting_options

_PAGE = 500


def _root_option(command: Any) -> Any:  # noqa: ANN401
    return click.option(
        "--root",
        type=click.Path(path_type=Path),
        help="The directory that is served  [default: `root` of the settings, /data]",
    )(command)


@click.command("index", short_help="Bring the catalog of datasets up to date.")
@click.argument("root", required=False, type=click.Path(path_type=Path))
@setting_options("state")
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C, and look where something changes.")
@click.option("--period", type=click.IntRange(1), help="Seconds from one look at everything to the next.")
def index(root: Path | None, config: Path | None, state: str | None, watch: bool, period: int | None) -> None:
    """Go through ROOT, as `precomputed serve` does by itself, and put what lies there into the catalog.

    The catalog is an index: it may be deleted at any time, and is made anew from the tree.
    """
    chosen = settings.load(root, {"state": state, "index_period": period}, config=config)
    path = _catalog_of(chosen)
    with only_indexer(path):
        if not watch:
            with open_indexer(chosen, path) as indexer:
                found = indexer.scan()
            click.echo(_said(chosen.root, found, path))
            return
        hints = Hints()

        def stop(number: int, frame: FrameType | None) -> None:
            hints.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        keep_catalog(chosen, path, hints)


@click.command("datasets", short_help="Find datasets: by words, state, type or tag.")
@click.argument("query", nargs=-1)
@_root_option
@setting_options("state")
@click.option("--is", "states", multiple=True, type=click.Choice(STATES), help="Only datasets in this state.")
@click.option("--type", "types", multiple=True, metavar="TYPE", help="Only these: image or segmentation.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only datasets that have this tag.")
@click.option("--sort", type=click.Choice(list(SORTS)), default="path", show_default=True, help="Their order.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON, all that is known of each.")
def datasets(
    query: tuple[str, ...], root: Path | None, config: Path | None, state: str | None, as_json: bool, **wanted: Any
) -> None:
    """List the datasets beneath a root whose title, path, description or tags have words that begin with each QUERY."""
    chosen = settings.load(root, {"state": state}, config=config)
    path = _catalog_of(chosen)
    try:
        with only_indexer(path), open_indexer(chosen, path) as indexer:
            indexer.scan()
    except Busy:
        pass  # a server does so all the time
    asked = Query(" ".join(query), wanted["states"], wanted["types"], wanted["tags"], wanted["sort"], limit=_PAGE)
    with closing(Catalog(path)) as catalog:
        found = list(_all(catalog, asked))
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    if not found:
        click.echo(f"No dataset beneath {chosen.root} is like that.")
        return
    for line in table([_line(dataset) for dataset in found]):
        click.echo(line)


def _all(catalog: Catalog, query: Query) -> Iterator[dict[str, Any]]:
    while True:
        page = catalog.search(query)
        yield from page.datasets
        if page.next is None:
            return
        query = replace(query, after=page.next)


def _line(dataset: dict[str, Any]) -> tuple[str, ...]:
    size = " × ".join(map(str, dataset["size"] or ()))
    told = f"{dataset['state']}: {dataset['reason']}" if dataset["reason"] else dataset["state"]
    return dataset["path"], size, dataset["data_type"], dataset["format"], told


def _catalog_of(chosen: settings.Settings) -> Path:
    if not chosen.root.is_dir():
        raise InvalidInput(f"{chosen.root} is not a directory; name the one that holds your datasets.")
    return catalog_path(chosen.state, chosen.root)


def _said(root: Path, found: Found, path: Path) -> str:
    with closing(Catalog(path)) as catalog:
        states = catalog.search(Query(states=STATES, limit=1)).facets["state"]
    whole, stacks = states.get(COMPLETE, 0), states.get(STACK, 0)
    others = sum(count for state, count in states.items() if state not in (COMPLETE, STACK, VANISHED))
    parts = [counted(whole, "dataset")]
    parts += [f"{others} not complete"] if others else []
    parts += [f"{counted(stacks, 'folder')} of planes, not published"] if stacks else []
    return f"{root}: {', '.join(parts)} ({found.changed} new or changed, {found.gone} gone, {found.seconds:.1f} s)"
