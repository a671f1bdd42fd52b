"""The engine: divided, interrupted and limited as it may be, it writes what it writes without all that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from converter import convert
from converter.pyramid.decoding import DecodePlane
from converter.pyramid.executor import executor
from converter.pyramid.journal import Done, Journal
from converter.pyramid.plan import block_box, cells_below, plan_stage, pyramid_of, task_box, task_bytes, task_cells
from converter.pyramid.progress import Status
from converter.pyramid.scales import PyramidOptions, levels
from converter.pyramid.tasks import BuildBlock
from converter.stacks.source_options import source_options
from converter.stacks.voxel_size import parse_edges
from precomputed_server import writing
from precomputed_server.errors import InvalidInput, SourceError
from precomputed_server.format.geometry import Vector
from tests.converter import reference
from tests.converter.stacks import files_of, options, read_info, read_level, read_statistics, volume, write_planes

MANY = {"levels": 4, "downsample": (2, 2, 2), "chunk_size": (8, 8, 8)}


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide even the small volumes of tests into many tasks of several stages."""
    monkeypatch.setattr("converter.pyramid.plan._SMALL_BYTES", 0)
    monkeypatch.setattr("converter.pyramid.plan.READ_BYTES", 20_000)
    monkeypatch.setattr("converter.pyramid.plan._TASK_BYTES", 100_000)


class Stopped(Exception):
    """What a test raises in the middle of a conversion."""


def _stop_after(monkeypatch: pytest.MonkeyPatch, count: int) -> list[Vector]:
    """Let `count` tasks record what they did, then stop; returns the cells of all that were run."""
    done: list[Vector] = []
    record, run = Journal.record, BuildBlock.run

    def running(task: BuildBlock) -> Any:  # noqa: ANN401
        done.append((task.stage.first, *task.cell))  # type: ignore[arg-type]
        return run(task)

    def recording(journal: Journal, *arguments: Any) -> None:
        if len(done) > count:
            raise Stopped
        record(journal, *arguments)

    monkeypatch.setattr(Journal, "record", recording)
    monkeypatch.setattr(BuildBlock, "run", running)
    return done


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_an_interrupted_conversion_goes_on_and_does_one_task_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    source = str(write_planes(tmp_path / "planes", volume(70, 65, 40)))
    with monkeypatch.context() as whole:
        every = _stop_after(whole, 10**6)
        convert(source, tmp_path / "reference" / "made", options(**MANY))
    assert len(every) > 8
    with monkeypatch.context() as stopping:
        _stop_after(stopping, count)
        with pytest.raises(Stopped):
            convert(source, tmp_path / "made", options(**MANY))
    assert files_of(tmp_path / "made") == {}
    with monkeypatch.context() as going_on:
        rest = _stop_after(going_on, 10**6)
        convert(source, tmp_path / "made", options(**MANY, jobs=1))
    assert len(rest) == len(every) - count
    assert files_of(tmp_path / "made") == files_of(tmp_path / "reference" / "made")
    for key in ("1_1_1", "8_8_8"):
        manifest = f".precomputed/manifest/{key}.npy"
        assert (tmp_path / "made" / manifest).read_bytes() == (tmp_path / "reference/made" / manifest).read_bytes()
    assert not (tmp_path / "made/.precomputed/staging").exists()


def test_what_was_begun_goes_on_with_as_many_processes_as_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was begun by many, with much memory: the tasks stay as they are."""
    used: list[int] = []
    monkeypatch.setattr("converter.pyramid.crew.PROCESS_BYTES", 0)
    monkeypatch.setattr("converter.pyramid.build._TOO_LITTLE_FOR_PROCESSES", 0)

    def one_process(jobs: int) -> Any:  # noqa: ANN401
        used.append(jobs)
        return executor(1)

    monkeypatch.setattr("converter.pyramid.crew.executor", one_process)

    def stop(status: Status) -> None:
        raise Stopped

    source = str(write_planes(tmp_path / "planes", volume(70, 65, 40)))
    with pytest.raises(Stopped):
        convert(source, tmp_path / "made", options(**MANY, jobs=32, max_memory=1 << 30), stop)
    with pytest.raises(InvalidInput, match=r"--max-memory 1MiB is too little .* to go on with what was begun"):
        convert(source, tmp_path / "made", options(**MANY, jobs=2, max_memory=10_000))
    (plan,) = (tmp_path / "made").glob(".precomputed/staging/*/plan.json")
    assert json.loads(plan.read_text())["plan"]["processes"] == used[0] > 3
    convert(source, tmp_path / "made", options(**MANY, jobs=3, max_memory=1 << 30))
    assert used[1:] == [3]
    convert(source, tmp_path / "other", options(**MANY))
    assert files_of(tmp_path / "made") == files_of(tmp_path / "other")


def test_a_task_that_is_done_again_and_killed_midway_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that a cluster has lost sight of may be at work on what another has done meanwhile."""
    tasks: list[BuildBlock] = []
    run, write = BuildBlock.run, writing.write_all

    def watched(task: BuildBlock) -> Any:  # noqa: ANN401
        tasks.append(task)
        return run(task)

    def stop(status: Status) -> None:
        raise Stopped

    source = str(write_planes(tmp_path / "planes", volume(70, 65, 40)))
    with monkeypatch.context() as watching:
        watching.setattr(BuildBlock, "run", watched)
        with pytest.raises(Stopped):
            convert(source, tmp_path / "made", options(**MANY), stop)
    (staging,) = (tmp_path / "made/.precomputed/staging").iterdir()
    written = {path: path.read_bytes() for path in staging.rglob("*") if path.is_file()}
    assert {path.parent.name for path in written} >= {"1_1_1", "level-1", "journal"}
    for killed_at in range(0, len(written), 7):
        calls = iter(range(len(written)))

        def torn(descriptor: int, data: Any, calls: Any = calls, killed_at: int = killed_at) -> None:  # noqa: ANN401
            if next(calls) == killed_at:
                write(descriptor, memoryview(data)[: len(data) // 2])
                raise Stopped
            write(descriptor, data)

        with monkeypatch.context() as killing:
            killing.setattr(writing, "write_all", torn)
            with pytest.raises(Stopped):
                tasks[0].run()
        assert {path: path.read_bytes() for path in staging.rglob("*") if path.is_file()} == written


def test_another_conversion_or_a_changed_source_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planes = write_planes(tmp_path / "planes", volume(70, 65, 40))
    with monkeypatch.context() as stopping:
        _stop_after(stopping, 5)
        with pytest.raises(Stopped):
            convert(str(planes), tmp_path / "made", options(**MANY))
    write_planes(planes, volume(70, 65, 40, seed=1))
    Path(planes / "img_39.tif").touch()
    convert(str(planes), tmp_path / "made", options(**MANY))
    np.testing.assert_array_equal(read_level(tmp_path / "made", 0)[0], volume(70, 65, 40, seed=1))


def test_a_torn_entry_of_the_journal_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = str(write_planes(tmp_path / "planes", volume(70, 65, 40)))
    with monkeypatch.context() as stopping:
        _stop_after(stopping, 4)
        with pytest.raises(Stopped):
            convert(source, tmp_path / "made", options(**MANY))
    (torn, *_) = sorted((tmp_path / "made").glob(".precomputed/staging/*/journal/*"))
    torn.write_bytes(torn.read_bytes()[:40])
    convert(source, tmp_path / "made", options(**MANY))
    np.testing.assert_array_equal(read_level(tmp_path / "made", 0)[0], volume(70, 65, 40))


@pytest.mark.parametrize("chunk", [8, 7, 5])
@pytest.mark.parametrize("step", [(2, 2, 2), (2, 2, 1), (1, 2, 2), (2, 1, 1)])
def test_levels_are_equal_however_they_are_divided(tmp_path: Path, chunk: int, step: Vector) -> None:
    voxels = volume(61, 75, 43)
    source = str(write_planes(tmp_path / "planes", voxels))
    convert(source, tmp_path / "made", options(levels=5, downsample=step, chunk_size=(chunk,) * 3, format="raw"))
    expected = voxels
    for level in range(5):
        np.testing.assert_array_equal(read_level(tmp_path / "made", level)[0], expected)
        expected = reference.fast_average(expected, step)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_tasks_hold_every_cell_once_and_stay_within_the_budget(data: st.DataObject) -> None:
    size = data.draw(st.tuples(*[st.integers(1, 400)] * 3), label="size")
    chunk = data.draw(st.tuples(*[st.integers(3, 33)] * 3), label="chunk")
    budget = data.draw(st.integers(100_000, 5_000_000), label="budget")
    grain = data.draw(st.sampled_from((1, 40, 1000)), label="grain")
    made = levels(size, parse_edges("1,1,1"), PyramidOptions(chunk, 4, (2, 2, 2)))  # type: ignore[arg-type]
    scales, steps = tuple(level.scale for level in made), tuple(level.step for level in made)
    pyramid = pyramid_of(scales, steps, 1, np.dtype(np.uint16))
    stage = plan_stage(pyramid, 0, budget, 2, lambda box: 0, grain)
    if stage is None:
        return
    assert task_bytes(pyramid, stage, lambda box: 0) <= budget
    held = {level: np.zeros(scales[level].size, np.int8) for level in range(stage.last + 1)}

    def count(level: int, cell: Vector) -> None:
        box = block_box(pyramid.scales[level], cell, stage.block(level))
        held[level][tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))] += 1
        if level:
            for below in cells_below(pyramid, stage, level, cell):
                count(level - 1, below)

    for cell in task_cells(pyramid, stage):
        count(stage.last, cell)
        assert task_box(pyramid, stage, cell).voxels > 0
    assert all((voxels == 1).all() for voxels in held.values())


@pytest.mark.parametrize("storage", [{}, {"compression": "zlib"}, {"compression": "zlib", "rowsperstrip": 16}])
def test_too_little_memory_for_whole_planes_takes_a_scratch_file(
    tmp_path: Path, storage: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.pyramid.crew.PROCESS_BYTES", 0)
    voxels = volume(96, 200, 40)
    source = str(write_planes(tmp_path / "planes", voxels, **storage))
    convert(source, tmp_path / "made", options(**MANY, max_memory=200_000))
    expected = voxels
    for level in range(4):
        np.testing.assert_array_equal(read_level(tmp_path / "made", level)[0], expected)
        expected = reference.fast_average(expected, (2, 2, 2))


def test_far_too_little_memory_is_refused_with_what_it_takes(tmp_path: Path) -> None:
    source = str(write_planes(tmp_path / "planes", volume(64, 64, 8)))
    with pytest.raises(InvalidInput, match=r"--max-memory 1 ?MiB is too little .* it takes 9\d ?MiB"):
        convert(source, tmp_path / "made", options(max_memory=1 << 20))
    assert not (tmp_path / "made" / "info").exists()


def _damaged(directory: Path, voxels: Any, number: int) -> str:  # noqa: ANN401
    """A compressed stack whose plane `number` cannot be decoded."""
    source = write_planes(directory, voxels, compression="zlib")
    odd = source / f"img_{number}.tif"
    with tifffile.TiffFile(odd) as tiff:
        offset = tiff.pages[0].dataoffsets[0]
    data = bytearray(odd.read_bytes())
    data[offset + 20 : offset + 400] = bytes(380)
    odd.write_bytes(data)
    return str(source)


def test_a_damaged_plane_can_be_blank(tmp_path: Path) -> None:
    voxels = volume(64, 64, 20)
    source = _damaged(tmp_path / "planes", voxels, 11)
    summary = convert(source, tmp_path / "made", options(**MANY, on_error="blank"))
    (reason,) = summary.unreadable
    assert "img_11.tif" in reason
    expected = voxels.copy()
    expected[11] = 0
    np.testing.assert_array_equal(read_level(tmp_path / "made", 0)[0], expected)
    np.testing.assert_array_equal(read_level(tmp_path / "made", 1)[0], reference.fast_average(expected, (2, 2, 2)))
    assert "img_11.tif" in (tmp_path / "made" / "provenance.json").read_text()


def test_chunks_of_a_damaged_plane_can_be_left_out(tmp_path: Path) -> None:
    voxels = volume(64, 64, 40)
    source = _damaged(tmp_path / "planes", voxels, 11)
    summary = convert(source, tmp_path / "made", options(**{**MANY, "levels": 2}, on_error="skip", format="raw"))
    assert len(summary.unreadable) == 1
    names = {path.name for path in (tmp_path / "made" / "1_1_1").iterdir()}
    depths = {name.split("_")[2] for name in names}
    assert depths == {"0-8", "16-24", "24-32", "32-40"}
    coarser = voxels.copy()
    coarser[11] = 0
    np.testing.assert_array_equal(read_level(tmp_path / "made", 1)[0], reference.fast_average(coarser, (2, 2, 2)))
    readable = np.delete(voxels, 11, axis=0)
    found = read_statistics(tmp_path / "made")["channels"][0]
    assert (found["min"], found["max"], sum(found["counts"])) == (readable.min(), readable.max(), readable.size)
    assert read_info(tmp_path / "made")["scales"][0]["size"] == [64, 64, 40]


def test_what_was_stored_of_a_plane_that_is_damaged_now_is_left_out_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {**MANY, "levels": 2, "format": "raw"}
    voxels = volume(64, 64, 40)
    source = str(write_planes(tmp_path / "planes", voxels, compression="zlib"))
    with monkeypatch.context() as stopping:
        _stop_after(stopping, 4)
        with pytest.raises(Stopped):
            convert(source, tmp_path / "made", options(**few))
    _damaged(tmp_path / "planes", voxels, 3)
    convert(source, tmp_path / "made", options(**few, on_error="skip"))
    depths = {path.name.split("_")[2] for path in (tmp_path / "made" / "1_1_1").iterdir()}
    assert depths == {"8-16", "16-24", "24-32", "32-40"}


@pytest.mark.parametrize("mend", ["replace", "blank"])
def test_a_damaged_plane_ends_the_conversion_and_the_rest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mend: str
) -> None:
    """The plane is replaced by a good copy or given up: only the tasks that had not ended are done."""
    voxels = volume(64, 64, 40)
    source = _damaged(tmp_path / "planes", voxels, 35)
    with pytest.raises(SourceError, match=r"img_35.tif"):
        convert(source, tmp_path / "made", options(**MANY))
    kept = len(list((tmp_path / "made").glob(".precomputed/staging/*/journal/*")))
    if mend == "replace":
        write_planes(tmp_path / "good", voxels, compression="zlib")
        (tmp_path / "good" / "img_35.tif").replace(tmp_path / "planes" / "img_35.tif")
    with monkeypatch.context() as counting:
        rest = _stop_after(counting, 10**6)
        convert(source, tmp_path / "made", options(**MANY, on_error="fail" if mend == "replace" else "blank"))
    with monkeypatch.context() as counting:
        every = _stop_after(counting, 10**6)
        convert(source, tmp_path / "other", options(**MANY, on_error="blank"))
    assert kept > 0
    assert len(rest) == len(every) - kept
    voxels[35] = voxels[35] if mend == "replace" else 0
    np.testing.assert_array_equal(read_level(tmp_path / "made", 0)[0], voxels)


@pytest.mark.parametrize("damage", ["pixels", "file"])
@pytest.mark.parametrize("on_error", ["skip", "blank"])
def test_planes_that_cannot_be_read_when_planes_are_decoded_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_error: str, damage: str
) -> None:
    """They lie across the dataset's z and are compressed: all are decoded into a scratch file."""
    voxels, few = volume(64, 64, 40), {**MANY, "levels": 2, "format": "raw"}
    source = _damaged(tmp_path / "planes", voxels, 11)
    if damage == "file":
        (tmp_path / "planes" / "img_11.tif").write_bytes(b"II*")
    decoded, run = set(), DecodePlane.run

    def running(task: DecodePlane) -> Done:
        decoded.add(task.path)
        return run(task)

    monkeypatch.setattr(DecodePlane, "run", running)
    summary = convert(
        source, tmp_path / "made", options(**few, source=source_options(transpose="zyx"), on_error=on_error)
    )
    assert len(decoded) == 40
    (reason,) = summary.unreadable
    assert "img_11.tif" in reason
    if on_error == "skip":
        columns = {path.name.split("_")[0] for path in (tmp_path / "made" / "1_1_1").iterdir()}
        assert columns == {"0-8", "16-24", "24-32", "32-40"}
    else:
        voxels[11] = 0
        np.testing.assert_array_equal(read_level(tmp_path / "made", 0)[0], voxels.transpose(2, 1, 0))


def test_a_damaged_plane_that_is_decoded_first_ends_the_conversion_which_goes_on_with_a_good_copy(
    tmp_path: Path,
) -> None:
    voxels, few = volume(64, 64, 40), options(**MANY, source=source_options(transpose="zyx"))
    source, made = _damaged(tmp_path / "planes", voxels, 11), tmp_path / "made"
    with pytest.raises(SourceError, match=r"img_11\.tif cannot be decoded"):
        convert(source, made, few)
    assert not (made / "info").exists()
    assert not list(made.glob(".precomputed/staging/*/planes/*.*"))
    write_planes(tmp_path / "planes", voxels, compression="zlib")
    convert(source, made, few)
    np.testing.assert_array_equal(read_level(made, 0)[0], voxels.transpose(2, 1, 0))


@pytest.mark.parametrize("on_error", ["skip", "blank"])
@pytest.mark.parametrize("flip", ["z", None])
def test_a_plane_of_which_one_strip_is_damaged_cannot_be_read_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_error: str, flip: str | None
) -> None:
    """However the work is divided, and also when it is interrupted once tasks have read the other strips."""
    voxels = volume(64, 64, 40)
    source = write_planes(tmp_path / "planes", voxels, compression="zlib", rowsperstrip=16)
    odd = source / "img_11.tif"
    with tifffile.TiffFile(odd) as tiff:
        start, length = tiff.pages[0].dataoffsets[2], tiff.pages[0].databytecounts[2]
    data = bytearray(odd.read_bytes())
    data[start : start + length] = bytes(length)
    odd.write_bytes(data)
    view = source_options(flip=flip, crop=",,3:")
    wanted = options(**{**MANY, "levels": 3}, format="raw", on_error=on_error, source=view)
    with monkeypatch.context() as whole:
        whole.setattr("converter.pyramid.plan._SMALL_BYTES", 64 << 20)
        summary = convert(str(source), tmp_path / "whole", wanted)
    assert len(summary.unreadable) == 1
    for done in range(0, 12, 3):
        made = tmp_path / str(done)
        with monkeypatch.context() as stopping:
            _stop_after(stopping, done)
            with pytest.raises(Stopped):
                convert(str(source), made, wanted)
        convert(str(source), made, wanted)
        assert files_of(made) == files_of(tmp_path / "whole")
    voxels[11] = 0
    if on_error == "blank":
        np.testing.assert_array_equal(_opened(made, 0).read().result()[..., 0].T, voxels[:: -1 if flip else 1][3:])


@pytest.mark.parametrize("storage", [{}, {"compression": "zlib"}])
@pytest.mark.parametrize(
    "flags", [{"crop": ",,3:"}, {"crop": ",,3:35"}, {"crop": "5:,3:,7:"}, {"crop": "1:33,1:49,1:", "flip": "z"}]
)
@pytest.mark.parametrize("transpose", [None, "zyx"])
def test_levels_of_a_part_are_right_where_one_task_ends_and_the_next_begins(
    tmp_path: Path, flags: dict[str, str], transpose: str | None, storage: dict[str, Any]
) -> None:
    """A voxel of a coarser level may be made from voxels that lie in two blocks."""
    source = str(write_planes(tmp_path / "planes", volume(56, 60, 50), **storage))
    seen = source_options(**flags, transpose=transpose)
    convert(source, tmp_path / "made", options(**MANY, format="raw", source=seen))
    for level in range(1, 4):
        finer = tensorstore.downsample(_opened(tmp_path / "made", level - 1), [2, 2, 2, 1], "mean")
        ours = _opened(tmp_path / "made", level)
        assert ours.domain == finer.domain
        np.testing.assert_array_equal(ours.read().result(), finer.read().result())


def _opened(dataset: Path, level: int) -> Any:  # noqa: ANN401
    store = {"driver": "neuroglancer_precomputed", "kvstore": f"file://{dataset}/", "scale_index": level}
    return tensorstore.open(store).result()
