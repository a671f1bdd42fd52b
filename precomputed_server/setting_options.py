"""The settings as options of a command."""

from __future__ import annotations

from collections.abc import Callable

import click

from precomputed_server.settings import SETTINGS, Setting


def setting_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add one option for each row of the table of settings; the command is given None for those that were not typed."""
    for setting in reversed(SETTINGS):
        explained = f"{setting.help}  [{setting.variable}; default: {setting.shown_default}]"
        if isinstance(setting.default, bool):
            option = click.option(setting.flag, is_flag=True, default=None, help=explained)
        else:
            kind = "NUMBER" if isinstance(setting.default, int) else "TEXT"
            option = click.option(setting.flag, metavar=kind, callback=_parsed_by(setting), help=explained)
        command = option(command)
    return command


def _parsed_by(setting: Setting) -> Callable[..., int | str | bool | None]:
    """A click callback that reads an option as its setting's row of the table says."""

    def parsed(context: click.Context, parameter: click.Parameter, text: str | None) -> int | str | bool | None:
        return None if text is None else setting.parsed(text, setting.flag)

    return parsed
