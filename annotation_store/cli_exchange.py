"""`precomputed annotations export` and `link`: annotations written for other programs, on the files."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode, urlsplit

import click

from annotation_store.blocks import Blocks
from annotation_store.cli_instant import moment
from annotation_store.cli_parked import become_owner
from annotation_store.exchange.collect import Collection
from annotation_store.exchange.formats import FORMATS, WRITTEN, format_named
from annotation_store.exchange.rows import Export, Lines, Placed
from annotation_store.exchange.selection import Selection, read_selection
from annotation_store.exchange.swc import UM, VOXEL
from annotation_store.model import GEOMETRY, Item
from annotation_store.store import AnnotationStore
from annotation_store.views.export import write_precomputed
from annotation_store.volume import volume_of
from precomputed_server import settings
from precomputed_server.errors import InvalidInput
from precomputed_server.files import Tree
from precomputed_server.format.info import VolumeInfo
from precomputed_server.format.names import ANNOTATIONS, VIEWER_PATH
from precomputed_server.listening import own_url
from precomputed_server.setting_options import setting_options

_PRECOMPUTED = "precomputed"


@dataclass(frozen=True)
class Dataset:
    """A dataset on disk: the store of its directory, and its volume."""

    directory: Path
    store: AnnotationStore
    info: VolumeInfo

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.directory.resolve().name

    @property
    def edges_nm(self) -> tuple[float, float, float]:
        """The edges of a voxel x, y, z."""
        return self.info.scales[0].resolution_nm

    def holds(self, path: Path) -> bool:
        """Whether a path lies among the annotations."""
        return path.resolve().is_relative_to((self.directory / ANNOTATIONS).resolve())

    def blocks(self) -> Blocks:
        """The blocks that there are now."""
        return self.store.blocks("", self.info.scales[0].bounds)


def opened(directory: Path) -> Dataset:
    """The dataset at `directory`; raises InvalidInput where there is none."""
    info = volume_of(directory)
    if (directory / ANNOTATIONS).is_dir():
        become_owner(directory)
    return Dataset(directory, AnnotationStore(Tree(directory)), info)


of_dataset = click.argument("dataset", type=click.Path(exists=True, file_okay=False, path_type=Path))


def _choosing(command: Callable[..., None]) -> Callable[..., None]:
    """The options that choose annotations, handed on as one selection."""
    options = (
        click.option("--box", metavar="X0,X1,Y0,Y1,Z0,Z1", help="Only what overlaps this box of voxels."),
        click.option("--type", "types", multiple=True, help=f"Only this type: {', '.join(GEOMETRY)}. May be repeated."),
        click.option("--leaf", "leaves", multiple=True, help="Only this leaf: fibers, centroids, contours, z-0020."),
        click.option("--author", "authors", multiple=True, help="Only what this author edited last."),
        click.option("--reviewed", is_flag=True, help="Only what a person has confirmed."),
    )

    @functools.wraps(command)
    def chosen(
        box: str | None,
        types: tuple[str, ...],
        leaves: tuple[str, ...],
        authors: tuple[str, ...],
        reviewed: bool,
        **given: Any,
    ) -> None:
        command(selection=read_selection(box, types, leaves, authors, reviewed=reviewed), **given)

    wrapped: Callable[..., None] = chosen
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


@click.command("export", short_help="Write annotations as CSV, SWC, GeoJSON or JSON lines.")
@of_dataset
@click.option("--format", "name", help=f"{', '.join(WRITTEN)} or {_PRECOMPUTED}  [default: by -o's ending, else csv]")
@_choosing
@click.option("--at", metavar="INSTANT", help="As they were at this instant.")
@click.option("--unit", type=click.Choice([UM, VOXEL]), default=UM, show_default=True, help="Lengths of SWC.")
@click.option("--output", "-o", metavar="FILE", default="-", help="Where to write; - is the terminal or a pipe.")
def export(dataset: Path, name: str | None, selection: Selection, at: str | None, unit: str, output: str) -> None:
    """Write the annotations of DATASET, or those that the options choose, each leaf in one version.

    The file says of which version it is, so that it can be edited and imported again. `--format precomputed` writes
    Neuroglancer's own format into the directory OUTPUT.
    """
    found = opened(dataset)
    if name is not None and name.lower() == _PRECOMPUTED:
        _export_precomputed(found, selection, at, output)
        return
    if output != "-" and found.holds(Path(output)):
        raise InvalidInput(f"{output} lies among the annotations of the dataset; write the export somewhere else.")
    format = format_named(name or _format_by_ending(output), WRITTEN)
    collection = Collection(found.store, "", found.blocks(), selection, None if at is None else moment(at))
    leaves = collection.found()
    for leaf in collection.unreadable:
        click.echo(f"{leaf} is left out: its file is damaged; precomputed annotations verify says how.", err=True)
    counted = _Counted(format.holds)
    whole = counted.of(collection.export(leaves, found.name, found.edges_nm, unit))
    with _written(output) as file:
        for piece in format.write(whole) if format.write is not None else ():
            file.write(piece)
    counted.tell()


def _format_by_ending(output: str) -> str:
    """The format that the name of a file tells; raises InvalidInput where it tells none."""
    if output == "-":
        return WRITTEN[0]
    ending = Path(output).suffix.lower()
    for name in WRITTEN:
        if FORMATS[name].suffix == ending:
            return name
    endings = ", ".join(FORMATS[name].suffix for name in WRITTEN)
    raise InvalidInput(f"The ending of {output} tells no format; let it be one of {endings}, or give --format.")


class _Counted:
    """How many annotations there were on their way into a file, and how many that it does not hold."""

    def __init__(self, holds: Callable[[Item], bool] | None) -> None:
        self._holds = holds
        self._all = self._left = 0

    def of(self, whole: Export) -> Export:
        """The same export, counted while it is written."""
        lines = None if whole.lines is None else self._lines(whole.lines)
        return replace(whole, annotations=self._annotations(whole.annotations), lines=lines)

    def _annotations(self, annotations: Iterable[Placed]) -> Iterator[Placed]:
        for placed in annotations:
            self._all += 1
            if self._holds is not None and not self._holds(placed.item):
                self._left += 1
            yield placed

    def _lines(self, written: Iterable[Lines]) -> Iterator[Lines]:
        for some in written:
            self._all += len(some.lines)
            yield some

    def tell(self) -> None:
        """Say beside the output what one would not see in it."""
        if not self._all:
            click.echo("There is no such annotation: the export is empty.", err=True)
        if self._left:
            click.echo(
                f"{self._left} of {self._all} annotations left out: SWC holds fibres (linestrings and lines) only.",
                err=True,
            )


def _export_precomputed(found: Dataset, selection: Selection, at: str | None, output: str) -> None:
    if output == "-" or selection != Selection() or at is not None:
        raise InvalidInput("The precomputed format is written whole and into a directory: give only -o DIRECTORY.")
    count = write_precomputed(found.store, "", found.info, Path(output))
    click.echo(f"{count} annotations written to {output}.")


@contextlib.contextmanager
def _written(output: str) -> Iterator[BinaryIO]:
    """A file that takes its name once it is whole; - is the standard output."""
    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(output)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            yield file
        os.replace(part, path)
    except OSError as error:
        if error.filename == str(part):  # a name that nobody has given
            raise OSError(error.errno, error.strerror, output) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


@click.command("link", short_help="Print the link that opens the annotations in Neuroglancer.")
@of_dataset
@click.option("--url", metavar="URL", help="The dataset's address  [default: as the settings of this machine say]")
@setting_options("host", "port", "bind")
@_choosing
def link(dataset: Path, url: str | None, selection: Selection, config: Path | None, **given: Any) -> None:
    """Print the link that opens DATASET in the server's Neuroglancer with its annotations in layers to be edited.

    What is edited there comes back by `import` of the viewer's address, or of the state under its {} button.
    """
    found = opened(dataset)
    address = (url or _likely_address(found, settings.load(None, given, config=config))).rstrip("/")
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise InvalidInput(f"{address[:100]} is no address of a dataset; write it as http://HOST:9000/NAME.")
    if url is None:
        click.echo(f"The dataset is taken to be served at {address}; --url says where else.", err=True)
    members = selection.to_json()
    box = ",".join(f"{edge:g}" for edge in members.get("box", ()))
    query = [("box", box)] if box else []
    query += [(name, text) for name in ("type", "leaf", "author") for text in getattr(selection, _LISTS[name])]
    query += [("reviewed", "1")] if selection.reviewed else []
    asked = f"?{urlencode(query, safe=',')}" if query else ""
    click.echo(f"{parts.scheme}://{parts.netloc}/{VIEWER_PATH}#!{address}/{ANNOTATIONS}/state{asked}")


def _likely_address(found: Dataset, chosen: settings.Settings) -> str:
    """Where a server of this machine with these settings would have the dataset."""
    place = found.directory.resolve()
    root = chosen.root.resolve()
    path = place.relative_to(root).as_posix() if place.is_relative_to(root) else found.name
    return own_url(chosen) + quote("" if path == "." else path)


_LISTS = {"type": "types", "leaf": "leaves", "author": "authors"}
