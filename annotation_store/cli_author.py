"""Who the log says made an edit, as the command line takes it."""

from __future__ import annotations

import re

import click

from precomputed_server.format.names import SESSION


def author_name(text: str) -> str:
    """The name itself, if a session may have it as well: one that can be searched for, and that a link can carry."""
    if re.fullmatch(SESSION, text) is None:
        raise click.BadParameter(f"{text!r} is no name: it has 3 to 64 letters, digits, '-' or '_'.")
    return text
