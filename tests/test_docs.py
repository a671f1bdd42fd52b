"""What a user can set, call or run is written down, and what is written down exists."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from converter.cli import precomputed_tif
from precomputed_server.cli import main
from precomputed_server.settings import SETTINGS, TABLE
from precomputed_server.settings.sources import CONFIG_VARIABLE
from precomputed_server.web.routes import ROUTES
from tests.conftest import REPOSITORY


@pytest.fixture(scope="module")
def readme() -> str:
    """The text of README.md."""
    return (REPOSITORY / "README.md").read_text()


@pytest.fixture(scope="module")
def documentation(readme: str) -> str:
    """README.md and everything in docs/."""
    return "\n".join([readme, *(path.read_text() for path in sorted((REPOSITORY / "docs").rglob("*.md")))])


def names(text: str, name: str) -> bool:
    """Whether `text` has `name` as a word of its own: `--level` is not in `--levels`."""
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None


def commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[str, click.Command]]:
    """A command and all below it that are not hidden, each with what one types to call it."""
    yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from commands(below, (*path, name))


def entry_points() -> list[tuple[str, click.Command]]:
    """What is typed → the command that runs."""
    return [("precomputed", main), ("precomputed-tif", precomputed_tif)]


def test_every_setting_is_in_the_readme(readme: str) -> None:
    wanted = [name for setting in SETTINGS for name in (setting.flag, setting.variable)]
    assert [name for name in wanted if not names(readme, name)] == []


def test_the_readme_has_the_default_of_every_size_as_people_write_it(readme: str) -> None:
    sizes = [setting for setting in SETTINGS if setting.size]
    assert len(sizes) >= 16
    rows = [f"| `{setting.flag}` | `{setting.variable}` | {setting.shown_default} |" for setting in sizes]
    assert [row for row in rows if row not in readme] == []


def test_every_variable_in_the_documentation_is_a_setting(documentation: str) -> None:
    known = {name for setting in TABLE for name in setting.variables} | {CONFIG_VARIABLE}
    assert set(re.findall(r"\bPRECOMPUTED_[A-Z_]+\b", documentation)) <= known


def test_every_command_and_option_is_documented(documentation: str) -> None:
    missing = []
    for root, group in entry_points():
        for call, command in commands(group, (root,)):
            options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
            wanted = [call, *(max(option.opts, key=len) for option in options)]
            missing += [f"{call}: {name}" for name in wanted if not names(documentation, name)]
    assert missing == []


def test_every_command_and_option_explains_itself() -> None:
    silent = []
    for call, command in (found for root, group in entry_points() for found in commands(group, (root,))):
        options = [option for option in command.params if isinstance(option, click.Option)]
        silent += [] if command.help else [call]
        silent += [f"{call} {option.opts[0]}" for option in options if not option.help]
    assert silent == []


def test_the_http_table_names_every_route_and_its_methods(readme: str) -> None:
    lines = [line for line in readme.splitlines() if line.startswith("|")]
    missing = []
    for route in ROUTES:
        rows = [line for line in lines if f"`{route.template}`" in line or f" {route.template}`" in line]
        missing += [route.template] if not rows else []
        missing += [f"{method} {route.template}" for method in route.methods if rows and not names(rows[0], method)]
    assert missing == []


def test_what_the_readme_asks_make_for_exists(readme: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`|\$ )make ([a-z-]+)", readme, re.MULTILINE)) <= targets
