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
from converter.pyramid.progress import every, progress_on
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


def convert_one(asked: Asked) -> Summary:
    """Convert a stack; its end, or its events, go to standard output and its progress to standard error."""
    sources, dest, options, transform = asked.sources, asked.dest, asked.options, asked.transform
    with progress_on() as progress:
        if not asked.as_json:
            summary = convert(sources, dest, options, progress, transform)
        else:
            events = events_of(Destination(dest), request(sources, options), write_event)
            with told(events):
                summary = convert(sources, dest, options, every(progress, events), transform)
            events.done(headline(summary), **figures(summary))
    if not asked.as_json:
        say(summary)
    return summary


def convert_layers(asked: Asked) -> None:
    """Convert each channel of a stack into a layer, but for those that an earlier run has finished."""

    def one(path: Path, options: ConvertOptions) -> Summary:
        destination = Destination(path)
        if not options.overwrite and _is_finished(destination, request(asked.sources, options), options):
            click.echo(f"{path} was converted before", err=True)
            return finished_summary(destination)
        return convert_one(replace(asked, dest=path, options=options))

    convert_split(asked.sources, asked.dest, asked.options, one)


def _is_finished(destination: Destination, wanted: dict[str, Any], options: ConvertOptions) -> bool:
    """Whether the destination holds what is wanted, made of the files that the source has now."""
    if not destination.info.exists() or destination.swap.exists():
        return False
    return recorded_request(destination) == wanted and is_made_of_its_source(destination, options)


def say(summary: Summary) -> None:
    """Print the end of a conversion."""
    for line in summary_lines(summary):
        click.echo(line)
    for reason in summary.unreadable:
        click.echo(f"Left out: {reason}", err=True)


def write_event(line: str) -> None:
    """An event to standard output, at once."""
    click.echo(line, nl=False)
