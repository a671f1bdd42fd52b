"""The settings as options of the command line: every command that reads settings takes them in the same way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from precomputed_server.settings import SETTINGS, Setting
from precomputed_server.settings.setting import Value
from precomputed_server.settings.sources import CONFIG_VARIABLE
from precomputed_server.settings.toml_file import SYSTEM_FILE

Command = Callable[..., None]


def setting_options(*names: str) -> Callable[[Command], Command]:
    """Add the option --config, and one for each of the settings named, or for all; the command hands on what is given.

    An option that is not given is None: it may be in the environment or the file of settings.
    """
    rows = [setting for setting in SETTINGS if not names or setting.name in names]

    def decorated(command: Command) -> Command:
        for setting in reversed(rows):
            command = _option(setting)(command)
        return click.option(
            "--config",
            metavar="FILE",
            type=click.Path(path_type=Path),
            help=f"File of settings in TOML  [{CONFIG_VARIABLE}; default: {SYSTEM_FILE}, if it is there]",
        )(command)

    return decorated


def _option(setting: Setting) -> Callable[[Command], Command]:
    explained = f"{setting.help}  [{setting.variable}; default: {setting.shown_default}]"
    if isinstance(setting.default, bool):
        return click.option(setting.flag, is_flag=True, default=None, help=explained)
    return click.option(setting.flag, metavar=setting.kind, callback=_parsed_by(setting), help=explained)


def _parsed_by(setting: Setting) -> Callable[..., Value | None]:
    """A click callback that reads an option as its setting's row of the table says."""

    def parsed(context: click.Context, parameter: click.Parameter, text: str | None) -> Value | None:
        return None if text is None else setting.parsed(text, setting.flag)

    return parsed
