"""`precomputed config`: the settings that are in force, and where each comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from precomputed_server import settings
from precomputed_server.setting_options import setting_options
from precomputed_server.settings import Collected, Setting


@click.command("config", short_help="Print the settings in force, and where each comes from.")
@click.argument("root", required=False, type=click.Path(path_type=Path))
@setting_options()
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def config_command(root: Path | None, config: Path | None, as_json: bool, **given: Any) -> None:
    """Print the settings with which `precomputed serve` would serve ROOT, and where each comes from.

    What is printed is a file of settings: save it, edit it, and name it by --config.
    """
    collected = settings.collect(root, given, config=config)
    if as_json:
        click.echo(json.dumps(_json(collected), indent=2, ensure_ascii=False))
        return
    for line in _toml(collected):
        click.echo(line)


def _json(collected: Collected) -> dict[str, Any]:
    """Values as they are in force, by key; of variables that are not taken only the names."""
    rows = {}
    for setting in settings.TABLE:
        chosen = collected.chosen[setting.name]
        value = getattr(collected.settings, setting.name)
        row = {"value": str(value) if isinstance(value, Path) else value, "from": chosen.source}
        rows[setting.key] = {**row, "where": chosen.where} if chosen.where else row
    file = None if collected.file is None else str(collected.file)
    return {"file": file, "settings": rows, "ignored": dict(collected.ignored)}


def _toml(collected: Collected) -> Iterator[str]:
    """A line for each setting; what is worked out on each machine is said in the comment, so that it is not pinned."""
    yield "# The settings in force and where each comes from: default < file < environment < flag."
    for name, why in collected.ignored.items():
        yield f"# Not taken from the environment: {name} ({why})."
    for setting in settings.TABLE:
        line = (
            f"{setting.key} = {setting.to_toml(collected.chosen[setting.name].value)}  # {_origin(setting, collected)}"
        )
        try:
            line.encode()
        except UnicodeEncodeError:
            line = f"# {setting.key} is no text and cannot be written here"
        yield line


def _origin(setting: Setting, collected: Collected) -> str:
    """Where a setting comes from, and what it amounts to here if it does not say so itself."""
    chosen = collected.chosen[setting.name]
    told = str(chosen)
    here = getattr(collected.settings, setting.name)
    if not chosen.value and setting.computed:
        told += f"; {setting.computed}"
    if isinstance(here, Path | int) and not isinstance(here, bool) and str(here) != str(chosen.value):
        told += f"; here {here}"
    return "".join(letter if letter.isprintable() else "?" for letter in told)
