"""What is wrong is said in one sentence that names the remedy."""

from __future__ import annotations

import builtins
import errno
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from converter import convert
from converter.cli import convert as convert_command
from converter.cli_inspect import inspect
from converter.cli_verify import verify
from precomputed_server.errors import InvalidInput, SourceError, WritesRefused
from tests.converter.stacks import options, volume, write_planes

RIGHTS = r"cannot be read \(Permission denied\); ask its owner for the right to read it"


@pytest.fixture
def planes(tmp_path: Path) -> Path:
    return write_planes(tmp_path / "planes", volume(8, 8, 4))


def test_a_plane_without_the_right_to_read_it(tmp_path: Path, planes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = builtins.open

    def refused(path: Any, *arguments: Any, **others: Any) -> Any:  # noqa: ANN401
        if str(path).endswith("img_2.tif"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **others)

    monkeypatch.setattr(builtins, "open", refused)  # whoever runs the tests may be root, who may read everything
    with pytest.raises(SourceError, match=rf"img_2\.tif {RIGHTS}"):
        convert(planes, tmp_path / "made", options())


def test_a_directory_without_the_right_to_list_it(
    tmp_path: Path, planes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != planes)
    monkeypatch.setattr("glob.iglob", lambda *_arguments, **_others: iter(()))
    with pytest.raises(InvalidInput, match=f"^{planes} {RIGHTS}"):
        convert(planes, tmp_path / "made", options())


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (errno.EROFS, "made lies on a read-only file system; choose another destination"),
        (errno.ENOLCK, "made/.precomputed/lock cannot be locked"),
    ],
)
def test_a_lock_that_cannot_be_made_is_named_with_its_path(
    tmp_path: Path, planes: Path, monkeypatch: pytest.MonkeyPatch, number: int, sentence: str
) -> None:
    def read_only(*_arguments: object) -> None:
        raise OSError(number, os.strerror(number), "lock")

    monkeypatch.setattr("converter.output.destination.exclusive_lock", read_only)
    with pytest.raises(WritesRefused, match=f"^{tmp_path}/{sentence}"):
        convert(planes, tmp_path / "made", options())


def test_memory_needs_a_unit(tmp_path: Path, planes: Path) -> None:
    given = [str(planes), str(tmp_path / "made"), "--voxel-size", "1,1,1", "--max-memory"]
    result = CliRunner().invoke(convert_command, [*given, "4"])
    assert result.exit_code == 2
    assert "'4' has no unit; give one, such as 4GiB." in result.stderr
    assert CliRunner().invoke(convert_command, [*given, "2GiB"]).exit_code == 0


def test_an_empty_source_is_not_the_working_directory(
    tmp_path: Path, planes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(planes)
    for command, arguments in ((convert_command, ["", str(tmp_path / "made")]), (inspect, [""])):
        error = CliRunner().invoke(command, [*arguments, "--voxel-size", "1,1,1"]).exception
        assert isinstance(error, InvalidInput)
        assert str(error).startswith("A source is empty; give")


def test_what_is_no_stack_is_told_from_one(tmp_path: Path, planes: Path) -> None:
    made = tmp_path / "made"
    convert(planes, made, options())
    with pytest.raises(InvalidInput, match=f"1_1_1 is a level of the dataset {made}; give the stack"):
        convert(made / "1_1_1", tmp_path / "other", options())
    with pytest.raises(InvalidInput, match="absent does not exist"):  # rather than that there is a dataset
        convert(tmp_path / "absent", made, options())
    error = CliRunner().invoke(verify, [str(made / "info")]).exception
    assert str(error) == f"{made}/info is a file; give the directory of the dataset: {made}."
