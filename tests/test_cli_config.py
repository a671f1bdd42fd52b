"""`precomputed config`: what is in force and from where, as a file of settings and as JSON."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from precomputed_server.cli import main
from precomputed_server.errors import InvalidInput, Unreadable
from precomputed_server.settings import SETTINGS, TABLE, load
from tests.conftest import free_port
from tests.data import write_dataset


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of settings; the environment has none."""
    for name in [name for name in os.environ if name.startswith(("PRECOMPUTED_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/home/her")
    path = tmp_path / "settings.toml"
    path.write_text('port = 9001\nmax-body = "1MiB"\nroot = "/in/file"\n')
    return path


def printed(*arguments: str, env: dict[str, str] | None = None) -> str:
    result = CliRunner().invoke(main, ["config", *arguments], env=env, catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_it_says_where_each_value_comes_from(file: Path) -> None:
    env = {"PRECOMPUTED_MAX_BODY": "2MiB", "PRECOMPUTED_SERVICE_HOST": "sesame", "PRECOMPUTED_PATH": "/old"}
    text = printed("--config", str(file), "--host", "::1", "--single-host", env=env)
    lines = text.splitlines()
    assert 'host = "::1"  # flag: --host' in lines
    assert "single-host = true  # flag: --single-host" in lines
    assert 'max-body = "2MiB"  # environment: PRECOMPUTED_MAX_BODY' in lines
    assert 'root = "/old"  # environment: PRECOMPUTED_PATH' in lines
    assert f"port = 9001  # file: {file}" in lines
    assert "timeout = 60  # default" in lines
    assert any(line.startswith('state = ""') and "here /home/her/.local/state/precomputed" in line for line in lines)
    assert "PRECOMPUTED_SERVICE_HOST" in text
    assert "sesame" not in text


def test_what_is_printed_is_a_file_of_the_same_settings(file: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"state": 'a "quoted"\\ \n\x7f é', "umask": 0o022, "max_cutout": 1001, "show_paths": True}
    flags = ["--state", given["state"], "--umask", "0o022", "--max-cutout", "1001", "--show-paths"]
    saved = tmp_path / "saved.toml"
    saved.write_text(printed("/brains", "--config", str(file), *flags), newline="")
    assert set(tomllib.loads(saved.read_text())) == {setting.key for setting in TABLE}
    environ = {"HOME": "/home/her"}
    assert load(environ=environ, config=saved) == load(Path("/brains"), given, environ, file)


def test_json_has_what_is_in_force(file: Path) -> None:
    text = printed("--json", "--config", str(file), env={"PRECOMPUTED_NOTHING": "sesame", "PRECOMPUTED_WORKERS": "3"})
    found = json.loads(text)
    assert found["file"] == str(file)
    assert found["settings"]["port"] == {"value": 9001, "from": "file", "where": str(file)}
    assert found["settings"]["workers"] == {"value": 3, "from": "environment", "where": "PRECOMPUTED_WORKERS"}
    assert found["settings"]["max-body"]["value"] == 1 << 20
    assert found["settings"]["state"] == {"value": "/home/her/.local/state/precomputed", "from": "default"}
    assert set(found["settings"]) == {"root", *(setting.key for setting in SETTINGS)}
    assert found["ignored"] == {"PRECOMPUTED_NOTHING": "no setting"}
    assert "sesame" not in text


def test_a_name_that_is_no_text_is_said_to_be_none(file: Path) -> None:
    lines = printed("--config", str(file), "--state", "caf\udce9").splitlines()
    assert "# state is no text and cannot be written here" in lines


@pytest.mark.parametrize(
    "command",
    [
        ["serve", "/absent"],
        ["config"],
        ["doctor"],
        ["index", "/absent"],
        ["datasets"],
        ["demo"],
        ["link", "brain"],
        ["annotations", "link", "{dataset}"],
        ["annotations", "parked", "{dataset}"],
        ["annotations", "compact", "{dataset}"],
    ],
)
def test_every_command_that_reads_settings_takes_the_file(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = tmp_path / "brain"
    write_dataset(dataset, np.zeros((1, 2, 2, 2), np.uint8))
    (dataset / "annotations").mkdir()
    (tmp_path / "wrong.toml").write_text("colour = 1\n")
    called = [word.format(dataset=dataset) for word in command]
    for arguments, env in (([*called, "--config", "wrong.toml"], {}), (called, {"PRECOMPUTED_CONFIG": "wrong.toml"})):
        result = CliRunner().invoke(main, arguments, env=env)
        assert isinstance(result.exception, InvalidInput)
        assert "wrong.toml sets 'colour', which is no setting" in str(result.exception)


def test_a_link_is_asked_of_the_server_that_the_settings_tell_of(tmp_path: Path) -> None:
    (tmp_path / "settings.toml").write_text(f'bind = "unix:/s,127.0.0.1:{free_port()}"\n')
    result = CliRunner().invoke(main, ["link", "brain", "--config", str(tmp_path / "settings.toml")])
    assert isinstance(result.exception, Unreadable)
    port = (tmp_path / "settings.toml").read_text().rpartition(":")[2].rstrip('"\n')
    assert str(result.exception).startswith(f"http://127.0.0.1:{port} does not answer")


def test_an_unknown_option_names_the_nearest() -> None:
    result = CliRunner().invoke(main, ["serve", "--prot", "1"])
    assert result.exit_code == 2
    assert "--port" in result.output
