"""Moments as the command line takes them."""

from __future__ import annotations

from datetime import datetime

import click

from annotation_store.history.instants import has_zone, read_instant


def moment(text: str) -> datetime:
    """The instant that somebody has typed; one without a time zone is UTC, and that is told. Raises InvalidInput."""
    found = read_instant(text)
    if not has_zone(text):
        zoned = "2026-01-31T17:05:00+01:00"
        click.echo(f"{text} names no time zone and is taken as UTC; another one is written like {zoned}.", err=True)
    return found
