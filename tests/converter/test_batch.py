"""Many stacks, one command: which they are, what becomes of each, and what kills leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result

from converter import convert
from converter.batch import stacks_of
from converter.cli import convert as command
from precomputed_server.errors import InvalidInput
from tests.converter.stacks import files_of, options, read_level, volume, write_planes

FLAGS = ("--voxel-size", "1,1,1", "--chunk-size", "16,16,16")
COMMAND = [sys.executable, "-c", "from precomputed_server.cli import run; run()", "convert", "--each"]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Three stacks, one of them a file."""
    for number in range(2):
        write_planes(tmp_path / "raw" / f"sub_{number}", volume(20, 17, 9, seed=number))
    tifffile.imwrite(tmp_path / "raw" / "sub_10.ome.tif", volume(20, 17, 9, seed=10), metadata={"axes": "ZYX"})
    return tmp_path / "raw"


@pytest.fixture
def here(raw: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(raw.parent)
    return raw


def each(*arguments: object) -> Result:
    return CliRunner().invoke(command, ["--each", *map(str, arguments), *FLAGS])


def rows(result: Result) -> list[list[str]]:
    """The table: name, state and remark of each stack."""
    return [line.split(maxsplit=2) for line in result.stdout.splitlines()[:-1]]


def names(result: Result) -> list[str]:
    return [row[0] for row in rows(result)]


def spoil(stack: Path) -> None:
    """Damage the pixels of a deflated plane, which its header does not show."""
    plane = stack / "img_3.tif"
    data = plane.read_bytes()
    plane.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_match_becomes_a_dataset_of_its_own(tmp_path: Path, raw: Path, jobs: int) -> None:
    result = each(f"{raw}/*", tmp_path / "out", "--jobs", jobs)
    assert result.exit_code == 0, result.output
    assert [row[:2] for row in rows(result)] == [["sub_0", "done"], ["sub_1", "done"], ["sub_10", "done"]]
    assert result.stdout.splitlines()[-1] == "3 stacks: 3 done, 0 skipped, 0 failed."
    assert result.stderr.count("100 %") == (3 if jobs == 1 else 0), "each that is converted alone shows how far it is"
    assert result.stderr.splitlines()[-1].startswith("3 of 3: sub_")
    for name, seed in {"sub_0": 0, "sub_1": 1, "sub_10": 10}.items():
        np.testing.assert_array_equal(read_level(tmp_path / "out" / name, 0)[0], volume(20, 17, 9, seed=seed))


def test_a_broken_stack_ends_no_other_and_a_second_run_does_only_the_rest(tmp_path: Path, raw: Path) -> None:
    broken = write_planes(raw / "sub_05", volume(20, 17, 9), compression="zlib")
    whole = (broken / "img_3.tif").read_bytes()
    spoil(broken)
    (raw / "sub_7").mkdir()
    result = each(f"{raw}/*", tmp_path / "out")
    assert result.exit_code == 1
    states = {row[0]: row[1:] for row in rows(result)}
    assert [states[name][0] for name in ("sub_0", "sub_1", "sub_10")] == ["done"] * 3
    assert states["sub_05"][0] == states["sub_7"][0] == "failed"
    assert "img_3.tif" in states["sub_05"][1]
    assert "holds no file that ends in .tif" in states["sub_7"][1]
    assert result.stdout.splitlines()[-1] == "5 stacks: 3 done, 0 skipped, 2 failed."
    (broken / "img_3.tif").write_bytes(whole)
    (raw / "sub_7").rmdir()
    result = each(f"{raw}/*", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert sorted(row[:2] for row in rows(result)) == [
        ["sub_0", "skipped"],
        ["sub_05", "done"],
        ["sub_1", "skipped"],
        ["sub_10", "skipped"],
    ]


@pytest.mark.parametrize("change", ["plane", "time", "new", "options"])
def test_what_has_changed_is_not_skipped_but_named(tmp_path: Path, raw: Path, change: str) -> None:
    assert each(f"{raw}/*", tmp_path / "out").exit_code == 0
    plane = raw / "sub_0" / "img_3.tif"
    before = files_of(tmp_path / "out" / "sub_0")
    new = volume(20, 17, 1, seed=99)[0]
    if change in ("plane", "new"):
        tifffile.imwrite(raw / "sub_0" / ("img_3.tif" if change == "plane" else "img_9.tif"), new, metadata=None)
    elif change == "time":
        os.utime(plane, ns=(0, plane.stat().st_mtime_ns + 1))
    more = ("--levels", 1) if change == "options" else ()
    result = each(f"{raw}/*", tmp_path / "out", *more)
    assert result.exit_code == 1
    assert rows(result)[0][1] == "failed"
    assert "add --overwrite to replace it" in rows(result)[0][2]
    assert files_of(tmp_path / "out" / "sub_0") == before
    result = each(f"{raw}/*", tmp_path / "out", *more, "--overwrite")
    assert result.exit_code == 0, result.output
    assert [row[1] for row in rows(result)] == ["done", *(["done" if change == "options" else "skipped"] * 2)]


def test_names_are_the_last_part_of_each_match(here: Path) -> None:
    (here / "notes.txt").write_text("none of them")
    (here / ".hidden").mkdir()
    for pattern in ("raw/*", "raw/*/", str(here / "sub_0")):
        found = stacks_of([pattern], Path("out").absolute(), options())
        assert [stack.name for stack in found] == ["sub_0", "sub_1", "sub_10"][: {"r": 3}.get(pattern[0], 1)][
            : 2 if pattern.endswith("*/") else 3
        ]
    twice = stacks_of(["raw/*", "raw/sub_1"], Path("out").absolute(), options())
    assert [stack.name for stack in twice] == ["sub_0", "sub_1", "sub_10"]


def test_two_matches_of_one_name_are_refused_before_any_work(tmp_path: Path, raw: Path) -> None:
    write_planes(tmp_path / "more" / "sub_1", volume(20, 17, 9))
    result = each(f"{raw}/*", f"{tmp_path}/more/*", tmp_path / "out")
    assert isinstance(result.exception, InvalidInput)
    assert str(tmp_path / "more" / "sub_1") in str(result.exception)
    assert str(raw / "sub_1") in str(result.exception)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("pattern", ["raw/x*", "absent", "raw/*.png", "", "raw/notes.txt*"])
def test_a_glob_that_matches_nothing_is_refused_before_any_work(here: Path, pattern: str) -> None:
    (here / "notes.txt").write_text("no stack")
    result = each("raw/*", pattern, "out")
    assert isinstance(result.exception, InvalidInput)
    assert "matches no directory and no TIFF file" in str(result.exception)
    assert not Path("out").exists()


def test_the_place_of_the_datasets_is_no_stack_and_no_dataset(here: Path) -> None:
    for _ in range(2):
        result = each("raw/*", "raw/out")
        assert result.exit_code == 0, result.output
        assert names(result) == ["sub_0", "sub_1", "sub_10"]
    refused = each("raw/*", "raw/out/sub_0")
    assert isinstance(refused.exception, InvalidInput)
    assert "is a dataset itself" in str(refused.exception)


def test_json_tells_of_every_stack_and_ends_with_the_table(tmp_path: Path, raw: Path) -> None:
    (raw / "sub_7").mkdir()
    assert each(raw / "sub_0", tmp_path / "out").exit_code == 0
    result = each(f"{raw}/*", tmp_path / "out", "--json", "--jobs", 2)
    assert result.exit_code == 1
    said = [json.loads(line) for line in result.stdout.splitlines()]
    states: dict[str, list[str]] = {}
    for event in said:
        states.setdefault(Path(event["dataset"]).name, []).append(event["state"])
    assert states == {
        "out": ["began", "failed"],
        "sub_0": ["began", "skipped"],
        "sub_1": ["began", "done"],
        "sub_7": ["began", "failed"],
        "sub_10": ["began", "done"],
    }
    done = [event for event in said if event["state"] == "done"]
    assert all(event["done"] == event["total"] == event["chunks"] > 0 for event in done)
    last = said[-1]
    assert (last["step"], last["done"], last["total"]) == ("convert --each", 3, 4)
    table = [(row["name"], row["state"]) for row in last["datasets"]]
    assert table == [("sub_0", "skipped"), ("sub_1", "done"), ("sub_7", "failed"), ("sub_10", "done")]


def test_a_stack_whose_share_of_the_memory_is_too_little_gets_all_of_it(
    tmp_path: Path, raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.batch._LEAST_SHARE", 64 << 20)
    write_planes(raw / "wide", np.zeros((2, 700, 14_000), np.uint16), compression="zlib", rowsperstrip=700)
    result = each(f"{raw}/*", tmp_path / "out", "--jobs", 2, "--max-memory", "350MiB", "--levels", 1)
    assert {row[1] for row in rows(result)} == {"done"}, result.output


def _begin(raw: Path, out: Path, *flags: str) -> subprocess.Popen[bytes]:
    arguments = [f"{raw}/*/", str(out), *FLAGS, "--jobs", "2", *flags]
    log = (out.parent / "log").open("ab")
    with log:
        return subprocess.Popen([*COMMAND, *arguments], stdout=log, stderr=log, start_new_session=True)


def _wait_until(true: Callable[[], Any], within: float = 120.0) -> None:
    end = time.monotonic() + within
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def _is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def _finished(out: Path) -> int:
    return sum(1 for _ in out.glob("*/info"))


def _wait_until_finished(out: Path, enough: int) -> None:
    _wait_until(lambda: _finished(out) >= enough)


def _wait_until_gone(group: int) -> None:
    _wait_until(lambda: _is_gone(group))


def test_200_stacks_of_which_3_are_broken_killed_twice_are_197_datasets(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    for number in range(200):
        voxels = volume(24, 20, 6, seed=number)
        write_planes(raw / f"stack_{number}", voxels, compression="zlib" if number == 150 else None)
    spoil(raw / "stack_150")
    (raw / "stack_7" / "img_2.tif").write_bytes(b"no TIFF")
    tifffile.imwrite(raw / "stack_90" / "img_2.tif", volume(10, 10, 1)[0], metadata=None)
    out.mkdir()
    for enough in (20, 90):
        running = _begin(raw, out)
        _wait_until_finished(out, enough)
        running.kill()
        running.wait()
        _wait_until_gone(running.pid)
        assert enough <= _finished(out) < 197
    running = _begin(raw, out)
    assert running.wait(timeout=200) == 1
    said = (tmp_path / "log").read_text().splitlines()
    done, skipped, failed = (int(part.split()[0]) for part in said[-1].removeprefix("200 stacks: ").split(", "))
    assert (done + skipped, failed) == (197, 3)
    assert skipped >= 90 - 2  # each process may have been killed between an `info` and the end of its swap
    assert {line.split()[0] for line in said if " failed  " in line} == {"stack_150", "stack_7", "stack_90"}
    assert _finished(out) == 197
    for info in sorted(out.glob("*/info")):
        name = info.parent.name
        convert(str(raw / name), tmp_path / "single" / name, options(chunk_size=(16, 16, 16)))
        assert files_of(info.parent) == files_of(tmp_path / "single" / name)


def test_a_worker_that_is_killed_costs_no_stack(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    for number in range(60):
        write_planes(raw / f"stack_{number}", volume(24, 20, 6, seed=number))
    out.mkdir()
    running = _begin(raw, out)
    _wait_until_finished(out, 10)
    os.kill(_workers(running.pid)[-1], signal.SIGKILL)
    assert running.wait(timeout=100) == 0
    said = (tmp_path / "log").read_text().splitlines()[-1]
    # what the worker had finished, but not yet told of, is found finished
    assert said in ("60 stacks: 60 done, 0 skipped, 0 failed.", "60 stacks: 59 done, 1 skipped, 0 failed.")
    assert _finished(out) == 60


def _workers(group: int) -> list[int]:
    """The processes of a session whose parent is not its first one: those that convert."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == group and int(fields[1]) not in (group, os.getpid()):
                found.append(int(entry.name))
    return sorted(found)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_a_batch_that_the_same_command_continues(tmp_path: Path, number: signal.Signals) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    for each in range(60):
        write_planes(raw / f"stack_{each}", volume(24, 20, 6, seed=each))
    out.mkdir()
    running = _begin(raw, out)
    _wait_until_finished(out, 5)
    os.killpg(running.pid, number)
    assert running.wait(timeout=60) == 128 + number
    _wait_until_gone(running.pid)
    ended_with = _finished(out)
    assert ended_with < 60
    assert "Stopped." in (tmp_path / "log").read_text()
    assert _begin(raw, out).wait(timeout=100) == 0
    assert _finished(out) == 60
