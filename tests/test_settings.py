"""Settings: a flag wins over the environment, which wins over the default."""

from __future__ import annotations

from pathlib import Path

import pytest

from precomputed_server.errors import InvalidInput
from precomputed_server.settings import SETTINGS, default_workers, load


def test_the_defaults_are_those_of_the_table() -> None:
    chosen = load(environ={})
    assert chosen.root == Path("/data")
    assert chosen.workers == default_workers() >= 1
    for setting in SETTINGS:
        computed = setting.name in ("workers", "state", "shared", "log_file")
        assert computed or getattr(chosen, setting.name) == setting.default


@pytest.mark.parametrize(
    ("environ", "state"),
    [
        ({"HOME": "/home/her"}, "/home/her/.local/state/precomputed"),
        ({"HOME": "/home/her", "XDG_STATE_HOME": "/var/state"}, "/var/state/precomputed"),
        ({"XDG_STATE_HOME": "/var/state", "PRECOMPUTED_STATE": "/mine"}, "/mine"),
    ],
)
def test_where_state_lies(environ: dict[str, str], state: str) -> None:
    assert load(environ=environ).state == Path(state)


@pytest.mark.parametrize(
    ("given", "environ", "port"),
    [
        ({}, {}, 9000),
        ({}, {"PRECOMPUTED_PORT": "9001"}, 9001),
        ({"port": 9002}, {"PRECOMPUTED_PORT": "9001"}, 9002),
        ({"port": None}, {"PRECOMPUTED_PORT": "9001"}, 9001),
    ],
)
def test_who_wins(given: dict[str, object], environ: dict[str, str], port: int) -> None:
    assert load(given=given, environ=environ).port == port


def test_the_old_name_of_the_root_still_counts() -> None:
    assert load(environ={"PRECOMPUTED_PATH": "/brains"}).root == Path("/brains")
    assert load(Path("/given"), environ={"PRECOMPUTED_PATH": "/brains"}).root == Path("/given")


@pytest.mark.parametrize(("text", "value"), [("1", True), ("on", True), ("TRUE", True), ("0", False), ("no", False)])
def test_switches(text: str, value: bool) -> None:
    assert load(environ={"PRECOMPUTED_SINGLE_HOST": text}).single_host is value


def test_a_umask_is_written_in_octal() -> None:
    for text in ("0o022", "022", "22"):
        assert load(environ={"PRECOMPUTED_UMASK": text}).umask == 0o022


def test_a_flag_hides_a_wrong_variable_and_an_empty_one_is_none() -> None:
    assert load(given={"port": 9002}, environ={"PRECOMPUTED_PORT": "http"}).port == 9002
    assert load(environ={"PRECOMPUTED_PORT": ""}).port == 9000


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"PRECOMPUTED_PORT": "http"}, "PRECOMPUTED_PORT is 'http'; use a whole number"),
        ({"PRECOMPUTED_UMASK": "9"}, "PRECOMPUTED_UMASK is '9'; use an octal number"),
        ({"PRECOMPUTED_DECODE_THREADS": "0"}, "PRECOMPUTED_DECODE_THREADS is 0; use a number from 1 to 256"),
        ({"PRECOMPUTED_SINGLE_HOST": "maybe"}, "PRECOMPUTED_SINGLE_HOST is 'maybe'; use 1 or 0"),
        ({"PRECOMPUTED_MAX_BODY": "-1"}, "PRECOMPUTED_MAX_BODY is -1; use a size from 1"),
    ],
)
def test_a_wrong_variable_is_named(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        load(environ=environ)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(InvalidInput, match="colour"):
        load(given={"colour": "blue"}, environ={})
