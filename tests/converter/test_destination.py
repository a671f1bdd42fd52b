"""What a conversion may replace, what it never touches, and what a kill at any point leaves."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotation_store.slices import slice_naming
from converter import convert
from converter.describe import Corrections, describe
from converter.output.destination import Destination, locked
from converter.pyramid.build import Build
from converter.stacks.voxel_size import VoxelSize, parse_edges
from converter.verify import verify
from precomputed_server.errors import Busy, DestinationExists, InvalidInput, StorageFull, Unreadable
from precomputed_server.format.geometry import Vector
from precomputed_server.format.info import VolumeInfo
from precomputed_server.writing import Replacement, replace_file
from tests.converter.stacks import files_of, options, read_info, read_level, read_record, volume, write_planes

SMALL = {"chunk_size": (8, 8, 8)}


class Killed(BaseException):
    """Stands for kill -9 within this process: nothing but `finally` could run, and the code under test has none."""


@pytest.fixture
def source(tmp_path: Path) -> str:
    return str(write_planes(tmp_path / "planes", volume(20, 17, 9)))


@pytest.fixture
def other(tmp_path: Path) -> str:
    return str(write_planes(tmp_path / "others", volume(30, 17, 9, seed=5)))


@pytest.fixture
def made(tmp_path: Path, source: str) -> Path:
    """A finished dataset."""
    convert(source, tmp_path / "made", options(**SMALL))
    return tmp_path / "made"


def _own(dataset: Path) -> dict[str, bytes]:
    """Put files of other hands into a dataset."""
    mine = {
        "annotations/x0y0z0/fibers.json": b'[{"id":"a"}]',
        "annotations/x0y0z0/.fibers.log": b"log",
        "tree.json": b"{}",
        "mesh/info": b"{}",
        "notes.txt": b"mine",
        "2_2_2_backup/x": b"mine",
    }
    for name, data in mine.items():
        (dataset / name).parent.mkdir(parents=True, exist_ok=True)
        (dataset / name).write_bytes(data)
    return mine


def test_a_destination_that_is_absent_or_empty_is_new(tmp_path: Path, source: str) -> None:
    (tmp_path / "empty").mkdir()
    convert(source, tmp_path / "empty", options())
    convert(source, tmp_path / "deep" / "new", options())
    assert files_of(tmp_path / "empty") == files_of(tmp_path / "deep" / "new")
    assert (tmp_path / "empty" / "annotations" / "block_info.csv").read_text() == "20,17,9\n"
    assert sorted(os.listdir(tmp_path / "empty" / ".precomputed")) == [
        "conversion.json",
        "dataset.json",
        "events.jsonl",
        "lock",
        "manifest",
    ]


@pytest.mark.parametrize("name", ["info", "notes.txt", "annotations/x0y0z0/fibers.json", ".precomputed/dataset.json"])
def test_a_destination_that_holds_anything_is_refused_untouched(tmp_path: Path, source: str, name: str) -> None:
    made = tmp_path / "made"
    (made / name).parent.mkdir(parents=True)
    (made / name).write_bytes(b"mine")
    with pytest.raises(DestinationExists, match="add --overwrite"):
        convert(source, made, options())
    assert [path for path in made.rglob("*") if path.is_file()] == [made / name]


def test_a_file_as_destination_is_refused(tmp_path: Path, source: str) -> None:
    (tmp_path / "made").write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(DestinationExists, match="is a file"):
            convert(source, tmp_path / "made", options(overwrite=overwrite))


def test_a_finished_dataset_is_refused_without_overwrite(source: str, made: Path) -> None:
    before = files_of(made)
    with pytest.raises(DestinationExists, match="add --overwrite"):
        convert(source, made, options(**SMALL))
    assert files_of(made) == before


def test_overwrite_replaces_the_pyramid_and_nothing_else(made: Path, source: str) -> None:
    mine = _own(made)
    record, block = (
        (made / ".precomputed/dataset.json").read_bytes(),
        (made / "annotations/block_info.csv").read_bytes(),
    )
    convert(source, made, options(overwrite=True))
    assert [scale["key"] for scale in read_info(made)["scales"]] == ["1_1_1"]
    assert not (made / "2_2_2").exists()
    np.testing.assert_array_equal(read_level(made, 0)[0], volume(20, 17, 9))
    assert {name: (made / name).read_bytes() for name in mine} == mine
    assert (made / ".precomputed/dataset.json").read_bytes() == record
    assert (made / "annotations/block_info.csv").read_bytes() == block
    assert read_record(made, "conversion.json")["scales"] == ["1_1_1"]
    assert not any((made / ".precomputed" / name).exists() for name in ("old", "staging", "swap.json"))


@pytest.mark.parametrize("format_name", ["tiff", "raw", "sharded", "zarr", "ngff"])
@pytest.mark.parametrize("name", ["notes.txt", "deep/er/x", "0-8_0-8_0-9.tiff", "link"])
def test_overwrite_refuses_while_a_level_holds_a_file_of_other_hands(
    tmp_path: Path, source: str, format_name: str, name: str
) -> None:
    made = tmp_path / "made"
    convert(source, made, options(format=format_name, **SMALL))
    foreign = made / read_info(made)["scales"][-1]["key"] / name
    foreign.parent.mkdir(parents=True, exist_ok=True)
    if name == "link":
        foreign.symlink_to(tmp_path)
    else:
        foreign.write_bytes(b"mine")
    before = files_of(made)
    with pytest.raises(DestinationExists, match="was not written by this program and would be removed"):
        convert(source, made, options(overwrite=True))
    assert files_of(made) == before
    foreign.unlink()
    with suppress(OSError):
        foreign.parent.rmdir()
    convert(source, made, options(overwrite=True, format=format_name))
    assert verify(made).is_sound


def test_what_is_put_into_a_level_while_it_is_converted_is_not_removed(
    made: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Build.run

    def put(*arguments: Any) -> None:
        run(*arguments)
        (made / "1_1_1" / "notes.txt").write_bytes(b"mine")

    monkeypatch.setattr(Build, "run", put)
    with pytest.raises(DestinationExists, match=r"notes\.txt"):
        convert(source, made, options(overwrite=True))
    monkeypatch.undo()
    assert (made / "1_1_1" / "notes.txt").read_bytes() == b"mine"
    (made / "1_1_1" / "notes.txt").unlink()
    convert(source, made, options(overwrite=True))
    assert verify(made).is_sound


def test_blocks_that_hold_annotations_keep_their_size(made: Path, source: str) -> None:
    _own(made)
    before = files_of(made)
    with pytest.raises(InvalidInput, match="lie in blocks of 20,17,9 voxels"):
        convert(source, made, options(overwrite=True, annotation_block=(1, 2, 3)))
    assert files_of(made) == before


@pytest.mark.parametrize(("asked", "written"), [(None, "30,17,9"), ((10, 10, 9), "10,10,9")])
def test_blocks_without_annotations_take_the_new_extent(
    made: Path, tmp_path: Path, asked: Vector | None, written: str
) -> None:
    wider = write_planes(tmp_path / "wider", volume(30, 17, 9))
    convert(str(wider), made, options(overwrite=True, annotation_block=asked))
    assert (made / "annotations/block_info.csv").read_text() == f"{written}\n"


def test_overwrite_keeps_members_of_info_that_it_does_not_know(made: Path, source: str) -> None:
    info = read_info(made)
    (made / "info").write_text(json.dumps({**info, "mesh": "mesh"}))
    convert(source, made, options(overwrite=True))
    assert read_info(made)["mesh"] == "mesh"


def test_overwrite_refuses_a_pyramid_that_it_did_not_write(made: Path, source: str) -> None:
    info = read_info(made)
    foreign = {**info, "scales": [*info["scales"], {**info["scales"][0], "key": "64_64_64"}]}
    (made / "info").write_text(json.dumps(foreign))
    before = files_of(made)
    with pytest.raises(DestinationExists, match="did not write"):
        convert(source, made, options(overwrite=True))
    (made / ".precomputed/conversion.json").unlink()
    (made / "info").write_text(json.dumps(info))
    with pytest.raises(DestinationExists, match="did not write"):
        convert(source, made, options(overwrite=True))
    (made / "info").write_text(json.dumps({"@type": "neuroglancer_annotations_v1"}))
    with pytest.raises(DestinationExists, match="did not write"):
        convert(source, made, options(overwrite=True))
    assert {**files_of(made), "info": b""} == {**before, "info": b""}


def test_overwrite_refuses_to_replace_a_foreign_directory_named_as_a_scale(made: Path, source: str) -> None:
    shutil.rmtree(made / "2_2_2")
    convert(source, made, options(overwrite=True))
    (made / "2_2_2").mkdir()
    with pytest.raises(DestinationExists, match="2_2_2 was not written"):
        convert(source, made, options(overwrite=True, **SMALL))


def test_overwrite_takes_a_directory_that_only_has_annotations(tmp_path: Path, source: str) -> None:
    mine = _own(tmp_path / "made")
    convert(source, tmp_path / "made", options(overwrite=True, **SMALL))
    assert {name: (tmp_path / "made" / name).read_bytes() for name in mine} == mine
    np.testing.assert_array_equal(read_level(tmp_path / "made", 0)[0], volume(20, 17, 9))


CHANGES: list[dict[str, Any]] = [{"source": "other"}, {"voxel_size": parse_edges("1,1,2")}]


@pytest.mark.parametrize("change", CHANGES, ids=["size", "voxel size"])
def test_annotations_and_another_grid_need_a_choice(
    made: Path, source: str, other: str, change: dict[str, Any]
) -> None:
    mine, before = _own(made), files_of(made)
    chosen = other if "source" in change else source
    changes = {name: value for name, value in change.items() if name != "source"}
    calls: list[tuple[Path, VolumeInfo, VolumeInfo, str]] = []
    with pytest.raises(InvalidInput, match="--annotations keep .*--annotations transform"):
        convert(chosen, made, options(overwrite=True, **changes))
    assert {**before, **mine} == files_of(made)
    convert(
        chosen, made, options(overwrite=True, annotations="keep", **changes), None, lambda *call: calls.append(call)
    )
    assert calls == []
    convert(source, made, options(overwrite=True, annotations="transform"), None, lambda *call: calls.append(call))
    ((dataset, old, new, operation),) = calls
    assert dataset == made
    assert (old.scales[0].size, old.scales[0].resolution_nm) != (new.scales[0].size, new.scales[0].resolution_nm)
    assert new == VolumeInfo.from_bytes((made / "info").read_bytes())
    assert len(operation) == 32
    assert (made / "annotations/x0y0z0/fibers.json").read_bytes() == mine["annotations/x0y0z0/fibers.json"]


def test_transforming_without_a_way_to_is_refused_before_any_work(made: Path, other: str) -> None:
    _own(made)
    before = files_of(made)
    with pytest.raises(InvalidInput, match="moved by the command line"):
        convert(other, made, options(overwrite=True, annotations="transform"))
    assert files_of(made) == before
    assert not (made / ".precomputed" / "swap.json").exists()


def test_a_plan_whose_scales_are_gone_never_becomes_a_dataset(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as killing:
        _kill_at(killing, PLAN_CALLS)
        with pytest.raises(Killed):
            convert(source, tmp_path / "made", options())
    shutil.rmtree(tmp_path / "made" / ".precomputed" / "staging")
    with pytest.raises(Unreadable, match="1_1_1 of an interrupted conversion is gone"):
        convert(source, tmp_path / "made", options())
    assert not (tmp_path / "made" / "info").exists()


def test_the_same_grid_needs_no_choice(made: Path, source: str) -> None:
    _own(made)
    convert(source, made, options(overwrite=True, format="raw"))
    np.testing.assert_array_equal(read_level(made, 0)[0], volume(20, 17, 9))


def test_two_conversions_into_one_destination_exclude_each_other(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.output.destination._LOCK_TIMEOUT_S", 0.05)
    with locked(Destination(tmp_path / "made")), pytest.raises(Busy, match="Another conversion"):
        convert(source, tmp_path / "made", options())


def test_a_full_disk_is_one_sentence_and_leaves_no_dataset(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("converter.writers.files.write_in_place", full)
    with pytest.raises(StorageFull):
        convert(source, tmp_path / "made", options())
    assert files_of(tmp_path / "made") == {}
    assert not (tmp_path / "made/.precomputed/staging").exists()


PLAN_CALLS = 2
"""Writing the plan is two of the calls that `_kill_at` counts: `replace_file` and the rename in it."""
ALL_CALLS = 26


def _kill_at(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Let the calls of the swap that change the disk succeed `count` times, then end the process."""
    left, swapping = count, False

    def dying(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:  # noqa: ANN401
            nonlocal left, swapping
            swapping = swapping or real is replace_file
            if not swapping:
                return real(*arguments, **keywords)
            if left == 0:
                raise Killed
            left -= 1
            return real(*arguments, **keywords)

        return call

    monkeypatch.setattr(os, "rename", dying(os.rename))
    monkeypatch.setattr(shutil, "rmtree", dying(shutil.rmtree))
    monkeypatch.setattr("converter.output.swap.replace_file", dying(replace_file))
    monkeypatch.setattr(Path, "unlink", dying(Path.unlink))


@pytest.mark.parametrize("count", range(PLAN_CALLS, ALL_CALLS + 1))
def test_a_swap_killed_at_any_step_is_finished_by_the_next_conversion(
    made: Path, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """The first call writes the plan: from then on the new pyramid is what the destination becomes."""
    mine, calls = _own(made), []
    wanted = options(overwrite=True, annotations="transform", levels=2, **SMALL)
    convert(other, tmp_path / "reference", options(levels=2, **SMALL))
    infos = [(dataset / "info").read_bytes() for dataset in (made, tmp_path / "reference")]

    def transform(*call: Any) -> None:
        calls.append(call)

    with monkeypatch.context() as killing:
        _kill_at(killing, count)
        try:
            convert(other, made, wanted, None, transform)
            assert count == ALL_CALLS
        except Killed:
            assert count < ALL_CALLS
            assert read_record(made, "swap.json")
    _check_what_readers_see(made, infos)
    if count % 2:
        assert verify(made, None, None, transform).is_sound
        assert not (made / ".precomputed/swap.json").exists()
    with pytest.raises(DestinationExists):  # what was interrupted is finished first, then this is refused
        convert(other, made, options(), None, transform)
    expected = {**files_of(tmp_path / "reference"), **mine, "annotations/block_info.csv": b"20,17,9\n"}
    assert files_of(made) == expected
    assert not any((made / ".precomputed" / name).exists() for name in ("old", "staging", "swap.json"))
    assert len({call[3] for call in calls}) == 1
    assert calls[-1][1].scales[0].size == (20, 17, 9)
    assert calls[-1][2].scales[0].size == (30, 17, 9)


def _check_what_readers_see(made: Path, infos: list[bytes]) -> None:
    """Either the old dataset or the new one, all of it; or none."""
    if not (made / "info").exists():
        return
    old = infos.index((made / "info").read_bytes()) == 0
    stack = volume(20, 17, 9) if old else volume(30, 17, 9, seed=5)
    np.testing.assert_array_equal(read_level(made, 0)[0], stack)
    read_level(made, 1)


@pytest.mark.parametrize("format_name", ["zarr", "raw"])
def test_readers_of_zarr_too_see_the_old_or_the_new_or_nothing(
    tmp_path: Path, source: str, other: str, monkeypatch: pytest.MonkeyPatch, format_name: str
) -> None:
    infos = set()
    for count in range(PLAN_CALLS, 60):
        made = tmp_path / str(count) / "made"
        convert(source, made, options(format="zarr", levels=2, **SMALL))
        old = json.loads((made / ".zattrs").read_text())
        with monkeypatch.context() as killing:
            _kill_at(killing, count)
            with suppress(Killed):
                convert(other, made, options(format=format_name, levels=1, chunk_size=(16, 16, 8), overwrite=True))
                break
        if (made / ".zattrs").exists():
            is_old = json.loads((made / ".zattrs").read_text()) == old
            for level in ("1_1_1", "2_2_2") if is_old else ("1_1_1",):
                shape = json.loads((made / level / ".zarray").read_text())["shape"]
                assert (shape[2] in (20, 10)) == is_old
                assert (made / level / "0" / "0" / "0").exists()
        infos.add((made / "info").exists())
        describe(made, Corrections(title="any command ends it"), slice_naming)
        assert verify(made, []).is_sound
        assert (made / ".zattrs").exists() == (format_name == "zarr")
    assert infos == {True, False}


@pytest.mark.parametrize("count", [PLAN_CALLS, 4, 7, 9, 15])
def test_a_new_dataset_killed_in_its_swap_is_finished_by_the_same_command(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    convert(source, tmp_path / "reference", options(**SMALL))
    with monkeypatch.context() as killing:
        _kill_at(killing, count)
        with pytest.raises(Killed):
            convert(source, tmp_path / "made", options(**SMALL))
    summary = convert(source, tmp_path / "made", options(**SMALL))
    assert summary.chunks == 0
    assert summary.voxel_size == VoxelSize((Fraction(1),) * 3, ("given",) * 3)
    assert files_of(tmp_path / "made") == files_of(tmp_path / "reference")


def test_info_is_the_last_file_of_a_new_dataset(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    names: list[str] = []

    def noting(path: Path, data: bytes) -> None:
        if path.name == "info":
            assert (tmp_path / "made" / "1_1_1").is_dir()
        names.append(path.name)
        replace_file(path, data)

    monkeypatch.setattr("converter.output.swap.replace_file", noting)
    convert(source, tmp_path / "made", options())
    assert names[0] == "swap.json"
    assert names[-1] == "info"


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _descendants(process: int) -> list[int]:
    """The ids of the processes below `process`."""
    try:
        children = [int(text) for text in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [*children, *(below for child in children for below in _descendants(child))]


@pytest.mark.parametrize("after_s", [0.05, 0.4, 0.8])
def test_kill_9_leaves_no_dataset_and_the_same_command_makes_it_whole(tmp_path: Path, after_s: float) -> None:
    source = write_planes(tmp_path / "planes", volume(512, 256, 128))
    made = tmp_path / "made"
    command = [sys.executable, "-c", "from converter.cli import convert; convert()", str(source), str(made)]
    command += ["--voxel-size", "1,1,1", "--jobs", "2"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (made / ".precomputed" / "staging").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(after_s)
    workers = _descendants(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while any(_runs(worker) for worker in workers):
        assert time.monotonic() < deadline, "workers outlive the conversion that started them"
        time.sleep(0.01)
    # The staging area is removed before the plan of the swap is: without both, the conversion had already ended.
    staged, swapping = ((made / ".precomputed" / name).exists() for name in ("staging", "swap.json"))
    assert staged or after_s > 0.05, "the kill came too late to show anything"
    if staged and not swapping:
        assert not (made / "info").exists()
        assert not (made / "1_1_1").exists()
    if staged or swapping:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    convert(str(source), tmp_path / "reference", options())
    assert files_of(made) == files_of(tmp_path / "reference")
    assert not (made / ".precomputed" / "staging").exists()


def test_files_that_a_kill_left_half_written_are_gone_in_the_end(
    tmp_path: Path, source: str, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each name that is put in place, with the new content under its temporary name beside it."""
    points = 0
    for number in itertools.count(1):
        again = tmp_path / str(number) / "made"
        calls, real = itertools.count(1), os.rename

        def rename(*given: Any, number: int = number, calls: Any = calls, real: Any = real, **named: Any) -> None:  # noqa: ANN401
            if next(calls) == number:
                raise Killed
            real(*given, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", rename)
            patch.setattr(Replacement, "discard", lambda replacement: None)
            try:
                convert(source, again, options(**SMALL))
                break
            except Killed:
                points = number
        convert(source, again, options(**SMALL))
        assert files_of(again) == files_of(made)
        assert not list((again / ".precomputed").glob(".*.tmp"))
    assert points > 10
