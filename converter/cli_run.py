"""Running what `precomputed convert` was asked for, and telling of it: to a person, or with --json to a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from converter.convert import convert
from converter.event_log import events_of, told
from converter.options import ConvertOptions, Summary
from converter.output.destination import Destination
from converter.output.finished import finished_summary, recorded_request
from converter.output.provenance import request
from converter.output.swap import TransformAnnotations
from converter.pyramid.progress import Events, Progress, every, progress_on
from converter.pyramid.tasks import SKIP
from converter.report import figures, headline, summary_lines
from converter.source_version import is_made_of_its_source
from converter.split import convert_split


@dataclass(frozen=True)
class Asked:
    """What a person typed: a stack, or the patterns of many, where it goes, and how."""

    sources: Sequence[str]
    dest: Path
    options: ConvertOptions
    transform: TransformAnnotations | None
    as_json: bool
    layer: str | None = None

    @property
    def destination(self) -> Destination:
        """What is written."""
        return Destination(self.dest, self.layer)

    @property
    def events(self) -> Events:
        """What a program is told."""
        return events_of(self.destination, request(self.sources, self.options), write_event)


def convert_one(asked: Asked) -> Summary:
    """Convert a stack; its end, or its events, go to standard output and its progress to standard error."""
    with progress_on() as progress:
        if not asked.as_json:
            summary = _convert(asked, progress)
        else:
            events = asked.events
            with told(events):
                summary = _convert(asked, every(progress, events))
            events.done(headline(summary), **figures(summary))
    if not asked.as_json:
        say(summary, skipped=asked.options.on_error == SKIP)
    return summary


def _convert(asked: Asked, progress: Progress) -> Summary:
    return convert(asked.sources, asked.dest, asked.options, progress, asked.transform, asked.layer)


def convert_layers(asked: Asked) -> None:
    """Convert each channel of a stack into a layer, but for those that an earlier run has finished."""

    def one(path: Path, options: ConvertOptions) -> Summary:
        layer = replace(asked, dest=path, options=options, layer=path.name)
        if options.overwrite or not _is_finished(layer.destination, request(asked.sources, options), options):
            return convert_one(layer)
        if asked.as_json:
            events = layer.events
            events.began()
            events.skipped("converted before")
        else:
            click.echo(f"{path} was converted before", err=True)
        return finished_summary(layer.destination)

    convert_split(asked.sources, asked.dest, asked.options, one)


def _is_finished(destination: Destination, wanted: dict[str, Any], options: ConvertOptions) -> bool:
    """Whether the destination holds what is wanted, made of the files that the source has now."""
    if not destination.info.exists() or destination.swap.exists():
        return False
    return recorded_request(destination) == wanted and is_made_of_its_source(destination, options)


def say(summary: Summary, *, skipped: bool = False) -> None:
    """Print the end of a conversion; `skipped` says that chunks were left out where planes could not be read."""
    for line in summary_lines(summary):
        click.echo(line)
    for warning in summary.warnings:
        click.echo(f"Warning: {warning}", err=True)
    for reason in summary.unreadable:
        click.echo(f"Left out: {reason}", err=True)
    if summary.unreadable and skipped:
        click.echo("Chunks of full resolution that need these planes are absent, with all of their channels.", err=True)


def write_event(line: str) -> None:
    """An event to standard output, at once."""
    click.echo(line, nl=False)
