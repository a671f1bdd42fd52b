"""Running what `precomputed convert` was asked for, and telling of it: to a person, or with --json to a program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from converter.convert import convert
from converter.event_log import events_of, told
from converter.options import ConvertOptions, Summary
from converter.output.destination import Destination
from converter.output.provenance import request
from converter.output.swap import TransformAnnotations
from converter.pyramid.progress import every, progress_on
from converter.report import figures, headline, summary_lines
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
    """Convert each channel of a stack into a layer."""

    def one(path: Path, options: ConvertOptions) -> Summary:
        return convert_one(replace(asked, dest=path, options=options))

    convert_split(asked.sources, asked.dest, asked.options, one)


def say(summary: Summary) -> None:
    """Print the end of a conversion."""
    for line in summary_lines(summary):
        click.echo(line)
    for reason in summary.unreadable:
        click.echo(f"Left out: {reason}", err=True)


def write_event(line: str) -> None:
    """An event to standard output, at once."""
    click.echo(line, nl=False)
