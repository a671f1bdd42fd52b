"""`precomputed annotations import`: files of other programs and Neuroglancer states merged in, on the files."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import orjson

from annotation_store.cli_author import author_name
from annotation_store.cli_exchange import Dataset, of_dataset, opened
from annotation_store.exchange.formats import FORMATS, NEUROGLANCER, Format, format_named, format_of
from annotation_store.exchange.importing import Importer, Wishes
from annotation_store.exchange.plans import LISTED, BlockStep
from annotation_store.exchange.report import Ended, Report, unchanged
from annotation_store.exchange.rows import Row
from annotation_store.exchange.viewer_reading import remote_state
from annotation_store.orders import Order
from precomputed_server.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    PrecomputedError,
    PreconditionFailed,
    TooLarge,
)

_PART = 50_000
"""How many annotations are planned and written at a time."""
_ATTEMPTS = 5
_PIECE = 1 << 17
_FETCH_S, _LONGEST_STATE = 30, 64 << 20
_SIGNS = {"added": "+", "changed": "~", "removed": "-", "conflict": "!"}


@click.command("import", short_help="Merge a file or a Neuroglancer state into the annotations.")
@of_dataset
@click.argument("file")
@click.option("--format", "name", help=f"{', '.join(FORMATS)}  [default: what the file looks like]")
@click.option("--dry-run", is_flag=True, help="Only say what would be added, changed and removed.")
@click.option("--yes", is_flag=True, help="Write it.")
@click.option(
    "--author", type=author_name, metavar="NAME", default="import", show_default=True, help="Who the log says did it."
)
@click.option("--remove/--keep", "removes", default=None, help="What to do with what the file has no more.")
@click.option("--conflicts", type=click.Choice(["stored", "file"]), default="stored", help="Who wins: stored or file.")
@click.option("--json", "as_json", is_flag=True, help="Say it as JSON.")
def import_file(dataset: Path, file: str, name: str | None, author: str, **given: Any) -> None:
    """Merge FILE into the annotations of DATASET: CSV, SWC, GeoJSON, JSON lines, or a Neuroglancer state or link.

    FILE may be - for what is piped in, or a link in quotes. Nothing is written without --yes. Where the file and
    somebody else have changed the same since the file was made, what is stored stays, and is told.
    """
    found = opened(dataset)
    wishes = Wishes(given["removes"], given["conflicts"] == "file")
    with _source(file, name) as source:
        format = format_named(name or source.format)
        work = _Work(found, source, format, wishes, author)
        report = work.carry_out(is_dry=True)
        if given["yes"] and not given["dry_run"]:
            report = work.carry_out(is_dry=False)
    click.echo(orjson.dumps(report.to_json()).decode()) if given["as_json"] else _say(report)
    error = next((each.error for each in report.ended if each.error is not None), None)
    if error is not None:
        raise error
    if report.is_dry and not given["dry_run"]:
        raise InvalidInput("Nothing was written yet: add --yes to write this, or --dry-run only to look.")


@dataclass(frozen=True)
class _Source:
    """A file that can be read several times."""

    path: Path

    def pieces(self) -> Iterator[bytes]:
        """Its bytes."""
        with self.path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    @property
    def format(self) -> str:
        """What it looks like."""
        return format_of(next(self.pieces(), b""))


@contextlib.contextmanager
def _source(file: str, name: str | None) -> Iterator[_Source]:
    """The file of that name, what is piped in, or the state that a link carries or names."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "copy"
        if file == "-":
            with copy.open("wb") as target:
                shutil.copyfileobj(sys.stdin.buffer, target)
        elif "#!" in file:
            copy.write_text(file)
        elif not Path(file).is_file():
            raise NotFound(f"{file[:200]} is no file; give a file, - or a Neuroglancer link.")
        else:
            copy = Path(file)
        source = _Source(copy)
        if (name or source.format).lower() == NEUROGLANCER:
            url = remote_state(b"".join(source.pieces()).decode(errors="replace"))
            if url is not None:
                source = _Source(Path(directory) / "state")
                source.path.write_bytes(_fetched(url))
        yield source


def _fetched(url: str) -> bytes:
    """A saved state; raises InvalidInput."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise InvalidInput(f"{url[:100]} cannot be fetched; save the state as a file and give that.")
    try:
        with urllib.request.urlopen(url, timeout=_FETCH_S) as answer:
            state: bytes = answer.read(_LONGEST_STATE + 1)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{url[:100]} could not be fetched ({_why(error)}); save the state as a file.") from error
    if len(state) > _LONGEST_STATE:
        raise TooLarge(f"The state at {url[:100]} has more than {_LONGEST_STATE} bytes.")
    return state


def _why(error: OSError | ValueError) -> str:
    """Why a URL could not be fetched, as a person says it."""
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code}"
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return (reason.strerror if isinstance(reason, OSError) else None) or str(reason)


@dataclass(frozen=True)
class _Work:
    """The import of one file, part by part."""

    dataset: Dataset
    source: _Source
    format: Format
    wishes: Wishes
    author: str

    def carry_out(self, *, is_dry: bool) -> Report:
        """Plan every part, and unless it is dry commit it; a block that refuses its edits does not stop the others."""
        edges_nm = self.dataset.edges_nm
        reading = self.format.read(self.source.pieces(), edges_nm)
        importer = Importer(self.dataset.store, "", reading, self.wishes, edges_nm)
        ended: list[Ended] = []
        unchanged, notes = 0, list[str]()
        size = _PART if self.format.in_parts else sys.maxsize
        for rows, is_last in _parts(reading.rows, size):
            report = self._part(importer, rows, is_last=is_last, is_dry=is_dry)
            ended += [_shortened(each) for each in report.ended]
            unchanged, notes = unchanged + report.unchanged, notes + list(report.notes)
        return Report(ended, unchanged, [*reading.notes, *notes], is_dry)

    def _part(self, importer: Importer, rows: list[Row], *, is_last: bool, is_dry: bool) -> Report:
        ended: dict[str, Ended] = {}
        for attempt in range(_ATTEMPTS):
            before = list(ended.values())
            plan = importer.plan(self.dataset.blocks(), rows, last=is_last)
            for directory, block in plan.blocks.items():
                known = ended.get(directory)
                if known is None or isinstance(known.error, (PreconditionFailed, Conflict)):
                    step = block.step(is_dry=is_dry, passes_over=attempt == _ATTEMPTS - 1)
                    ended[directory] = self._commit(directory, step)
            if not any(isinstance(each.error, (PreconditionFailed, Conflict)) for each in ended.values()):
                break
        return Report(list(ended.values()), unchanged(plan.unchanged, before), plan.notes, is_dry)

    def _commit(self, directory: str, step: BlockStep) -> Ended:
        if not step.parts:
            return Ended(step)
        order = Order(directory, step.parts, self.author, "", secrets.token_hex(16), edges_nm=self.dataset.edges_nm)
        answer = self.dataset.store.commit([order])[0]
        return Ended(step, error=answer) if isinstance(answer, PrecomputedError) else Ended(step, answer)


def _shortened(ended: Ended) -> Ended:
    """The same without the annotations themselves, which a long import has no room for."""
    return replace(ended, step=replace(ended.step, parts=()))


def _parts(rows: Iterable[Row], size: int) -> Iterator[tuple[list[Row], bool]]:
    """The rows in parts, and whether each is the last; one empty part where there are none."""
    iterator = iter(rows)
    part = list(itertools.islice(iterator, size))
    while True:
        following = list(itertools.islice(iterator, size))
        yield part, not following
        if not following:
            return
        part = following


def _say(report: Report) -> None:
    members = report.to_json()
    told = dict.fromkeys(_SIGNS, 0)
    for finding in report.findings():
        told[finding.kind] += 1
        if told[finding.kind] <= LISTED:
            row = finding.to_json()
            fields = ", ".join(row.get("fields", ())) if finding.kind in ("changed", "conflict") else ""
            why = f"  ({finding.why})" if finding.why else ""
            sign = f"{_SIGNS[finding.kind]} {finding.block}/{finding.leaf}  {finding.id}"
            click.echo(f"{sign}{'  ' if fields else ''}{fields}{why}")
    for kind, count in told.items():
        if count > LISTED:
            click.echo(f"{_SIGNS[kind]} … and {count - LISTED} more")
    for note in members["notes"]:
        click.echo(note)
    counts = ", ".join(f"{count} {name}" for name, count in members["counts"].items())
    click.echo(f"{'This would be' if report.is_dry else 'Done'}: {counts}.")
