"""Defaults < the file of settings < the environment < flags, for every setting of the table."""

from __future__ import annotations

import logging
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from precomputed_server.errors import InvalidInput
from precomputed_server.settings import SETTINGS, TABLE, Setting, collect, load
from precomputed_server.settings.sources import SOURCES
from precomputed_server.settings.toml_file import read_file
from precomputed_server.sizes import parse_size, shown_size

ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)


def values(setting: Setting) -> st.SearchStrategy[Any]:
    """What a setting may be, within its bounds."""
    if isinstance(setting.default, bool):
        return st.booleans()
    if isinstance(setting.default, int):
        most = 1 << 50 if setting.maximum is None else setting.maximum
        return st.integers(setting.minimum, most)
    return ANY_TEXT


def in_force(setting: Setting, value: object) -> object:
    """How `Settings` has a value that was given."""
    if setting.name in ("root", "state", "shared", "log_file"):
        return Path(str(value))
    return value


@given(st.data())
def test_the_later_source_wins_for_every_setting(data: st.DataObject) -> None:
    setting = data.draw(st.sampled_from([row for row in TABLE if row.name != "bind"]))  # which host and port can hide
    there = data.draw(st.sets(st.sampled_from(SOURCES[1:]), min_size=1))
    drawn = {source: data.draw(values(setting)) for source in SOURCES[1:] if source in there}
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "settings.toml"
        lines = [f"{setting.key} = {setting.to_toml(drawn['file'])}\n"] if "file" in drawn else []
        file.write_text("".join(lines), newline="")
        environ = {setting.variable: setting.shown(drawn["environment"])} if "environment" in drawn else {}
        flag = drawn.get("flag")
        if flag is not None and not isinstance(setting.default, bool):
            flag = setting.parsed(setting.shown(flag), setting.flag)
        root = Path(str(flag)) if flag is not None and setting.name == "root" else None
        flags = {} if setting.name == "root" else {setting.name: flag}
        collected = collect(root, flags, environ, file)
    winner = max(there, key=SOURCES.index)
    assert collected.chosen[setting.name].source == winner
    if drawn[winner] != 0 or setting.name != "workers":
        assert getattr(collected.settings, setting.name) == in_force(setting, drawn[winner])
    others = [row.name for row in SETTINGS if row is not setting and row.name != "bind"]
    assert {collected.chosen[name].source for name in others} == {"default"}


@given(st.integers(0, 1 << 60))
def test_a_size_is_read_as_it_is_shown(size: int) -> None:
    assert parse_size(shown_size(size)) == size
    assert parse_size(str(size)) == size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 << 20),
        ("2GiB", 2 << 30),
        ("2 gib", 2 << 30),
        ("1.5G", 3 << 29),
        ("1.5GB", 1_500_000_000),
        ("10kB", 10_000),
        ("7B", 7),
        ("7", 7),
    ],
)
def test_sizes_as_people_write_them(tmp_path: Path, text: str, size: int) -> None:
    assert load(environ={"PRECOMPUTED_MAX_BODY": text}).max_body == size
    file = tmp_path / "settings.toml"
    file.write_text(f'max-body = "{text}"\n')
    assert load(environ={}, config=file).max_body == size


@pytest.mark.parametrize("text", ["", "MiB", "1.5", "1.5B", "-1MiB", "1 M i B", "1PiB", "0x10MiB", "1e3"])
def test_what_is_no_size(text: str) -> None:
    assert parse_size(text) is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("prto = 9000", "sets 'prto', which is no setting; the nearest is 'port'"),
        ("max_body = 1", "sets 'max_body', which is no setting; the nearest is 'max-body'"),
        ("[server]\nport = 1", "sets 'server', which is no setting"),
        ('port = "9000"', "port in .*settings.toml is '9000'; use a whole number without quotes"),
        ("port = true", "port in .*settings.toml is True; use a whole number"),
        ("port = 9000.0", "port in .*settings.toml is 9000.0; use a whole number"),
        ("port = 65536", "port in .*settings.toml is 65536; use a number from 0 to 65535"),
        ("host = 1", "host in .*settings.toml is 1; use text in quotes"),
        ("root = ['/data']", r"root in .*settings.toml is \['/data'\]; use text in quotes"),
        ("max-body = 1.5", "max-body in .*settings.toml is 1.5; use a size in quotes"),
        ('max-body = "big"', "max-body in .*settings.toml is 'big'; use a size such as 512MiB"),
        ("header-memory = 1", "header-memory in .*settings.toml is 1; use a size from 1MiB"),
        ("umask = 22", 'umask in .*settings.toml is 22; use an octal number in quotes, such as "0o002"'),
        ("single-host = 1", "single-host in .*settings.toml is 1; use true or false"),
        ("port = ", "settings.toml is not TOML: .*end of document"),
        ("port = 1\nport = 2\n", "settings.toml is not TOML: .*line 2"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_also_where_a_flag_hides_it(
    tmp_path: Path, content: str, sentence: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(content)
    flags = {"port": 1, "host": "here", "max_body": 1, "header_memory": 1 << 20, "umask": 0, "single_host": False}
    with pytest.raises(InvalidInput, match=sentence):
        load(Path("/given"), flags, {}, file)


def test_a_file_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff")
    with pytest.raises(InvalidInput, match="is not TOML"):
        load(environ={}, config=tmp_path / "binary")
    with pytest.raises(InvalidInput, match="absent cannot be read .*--config"):
        load(environ={"PRECOMPUTED_CONFIG": str(tmp_path / "absent")})
    assert load(environ={}, config=Path("/dev/null")) == load(environ={})


def test_which_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for port, name in enumerate(("system", "variable", "flag"), 1):
        (tmp_path / name).write_text(f"port = {port}\n")
    monkeypatch.setattr("precomputed_server.settings.SYSTEM_FILE", tmp_path / "system")
    monkeypatch.delenv("PRECOMPUTED_PORT", raising=False)
    monkeypatch.setenv("PRECOMPUTED_CONFIG", "")
    assert load().port == 1
    assert load(environ={}).port == 9000, "what is given stands for all that the machine says"
    monkeypatch.setenv("PRECOMPUTED_CONFIG", str(tmp_path / "variable"))
    assert load().port == 2
    assert load(config=tmp_path / "flag").port == 3
    monkeypatch.delenv("PRECOMPUTED_CONFIG")
    (tmp_path / "system").unlink()
    assert load().port == 9000


def test_the_old_variables_count_where_the_new_ones_are_not_set() -> None:
    old = {"PRECOMPUTED_PATH": "/brains", "PRECOMPUTED_LOGGING": "/var/log/brains"}
    assert (load(environ=old).root, load(environ=old).log_file) == (Path("/brains"), Path("/var/log/brains"))
    both = {**old, "PRECOMPUTED_ROOT": "/new", "PRECOMPUTED_LOG_FILE": "/new.log"}
    assert (load(environ=both).root, load(environ=both).log_file) == (Path("/new"), Path("/new.log"))


def test_variables_that_are_not_taken_are_named_in_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    environ = {
        "PRECOMPUTED_PORT": "tcp://10.0.0.7:9000",
        "PRECOMPUTED_PORT_9000_TCP_ADDR": "10.0.0.7",
        "PRECOMPUTED_SERVICE_HOST": "10.0.0.7",
        "PRECOMPUTED_MAX_BODDY": "sesame",
        "PRECOMPUTED_HOST": "0.0.0.0",
        "OTHER": "1",
    }
    with caplog.at_level(logging.WARNING):
        chosen = load(environ=environ)
    assert (chosen.port, chosen.host) == (9000, "0.0.0.0")
    assert len(caplog.records) == 1
    said = caplog.text
    assert all(name in said for name in environ if name not in ("PRECOMPUTED_HOST", "OTHER"))
    assert "PRECOMPUTED_HOST" not in said
    assert "OTHER" not in said
    assert "no setting; PRECOMPUTED_MAX_BODY is one" in said
    assert "PRECOMPUTED_PORT (the link of a container service)" in said
    assert "sesame" not in said, "the value may be a secret"


def test_an_unknown_flag_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(InvalidInput, match="named worker; the nearest is workers"):
        load(given={"worker": 1}, environ={})


@pytest.mark.parametrize(
    ("flags", "environ", "content", "bind"),
    [
        ({}, {}, 'bind = "unix:/s"', "unix:/s"),
        ({}, {}, 'bind = "unix:/s"\nport = 1', "unix:/s"),
        ({"port": 1}, {}, 'bind = "unix:/s"', ""),
        ({}, {"PRECOMPUTED_HOST": "::"}, 'bind = "unix:/s"', ""),
        ({"bind": "[::]:1"}, {"PRECOMPUTED_PORT": "1"}, 'bind = "unix:/s"', "[::]:1"),
    ],
)
def test_host_and_port_hide_the_addresses_of_an_earlier_source(
    tmp_path: Path, flags: dict[str, object], environ: dict[str, str], content: str, bind: str
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(content)
    assert load(None, flags, environ, file).bind == bind


def test_addresses_and_a_port_cannot_both_be_flags() -> None:
    with pytest.raises(InvalidInput, match="either --bind or --port"):
        load(given={"bind": "[::]:1", "port": 2}, environ={})


def test_the_example_of_the_documentation_is_a_file_of_settings(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text()
    example = page.partition("```toml\n")[2].partition("```")[0]
    file = tmp_path / "precomputed.toml"
    file.write_text(example)
    assert len(read_file(file)) == len(tomllib.loads(example)) >= 5
    assert load(environ={}, config=file).bind == "127.0.0.1:9000,unix:/run/precomputed/precomputed.sock"
