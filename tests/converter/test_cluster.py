"""A Dask cluster writes what one machine does, whatever happens to its workers; without its scheduler we say so."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from converter import convert
from converter.cli import convert as convert_command
from converter.pyramid.cluster import cluster
from converter.pyramid.journal import Done
from converter.pyramid.progress import Status
from converter.report import summary_lines
from precomputed_server.errors import InvalidInput, PrecomputedError, SourceError
from tests.converter import command, dask_workers
from tests.converter.dask_workers import Pause, Poison, Running, wait_until
from tests.converter.stacks import files_of, options, volume, write_planes

pytestmark = [pytest.mark.component, pytest.mark.filterwarnings("ignore::ResourceWarning")]

MANY: dict[str, Any] = {"levels": 4, "downsample": (2, 2, 2), "chunk_size": (8, 8, 8)}


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Divide the small volumes of tests into many tasks: that is decided here and not by the workers."""
    dask_workers.needed()
    monkeypatch.setattr("converter.pyramid.plan._SMALL_BYTES", 0)
    monkeypatch.setattr("converter.pyramid.plan.READ_BYTES", 20_000)
    monkeypatch.setattr("converter.pyramid.plan._TASK_BYTES", 100_000)
    monkeypatch.setattr("converter.pyramid.cluster._GIVES_UP_AFTER_S", 40.0)


@pytest.fixture
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A cluster of two workers."""
    with dask_workers.running(tmp_path_factory.mktemp("cluster")) as started:
        yield started


@pytest.fixture
def no_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A cluster to which a test adds workers."""
    with dask_workers.running(tmp_path_factory.mktemp("cluster"), workers=0) as started:
        yield started


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stack whose conversion takes many tasks."""
    return write_planes(tmp_path_factory.mktemp("stack") / "planes", volume(120, 100, 96))


@pytest.fixture
def expected(stack: Path, tmp_path: Path) -> dict[str, bytes]:
    """The files that one process writes."""
    convert(str(stack), tmp_path / "expected" / "made", options(**MANY))
    return files_of(tmp_path / "expected" / "made")


def on(cluster: Running) -> dict[str, Any]:
    """The options of a conversion there."""
    return {**MANY, "jobs": None, "scheduler": cluster.address}


def journal(dataset: Path) -> list[Path]:
    """The tasks that an unfinished conversion has recorded."""
    return list(dataset.glob(".precomputed/staging/*/journal/[!.]*"))


class AtTask:
    """Does something once, after so many tasks; what `convert` reports its progress to."""

    def __init__(self, count: int, then: Callable[[], None]) -> None:
        self.count, self.then, self.calls = count, then, 0

    def __call__(self, status: Status) -> None:
        """Count a task."""
        self.calls += 1
        if self.calls == self.count:
            self.then()


def test_the_result_is_that_of_one_machine_with_relative_paths_and_levels_kept_aside(
    stack: Path, tmp_path: Path, expected: dict[str, bytes], two_workers: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(stack.parent)  # the workers' is another one
    heard = AtTask(0, lambda: None)
    summary = convert("planes", Path(os.path.relpath(tmp_path / "made")), options(**on(two_workers)), heard)
    (memory,) = (line for line in summary_lines(summary) if line.startswith("Memory"))
    assert memory.endswith(f"this process alone; what the workers of {two_workers.address} took is not counted")
    assert files_of(tmp_path / "made") == expected
    assert heard.calls > 8
    assert not (tmp_path / "made/.precomputed/staging").exists()


def test_compressed_planes_are_decoded_by_the_workers(
    tmp_path: Path, two_workers: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.pyramid.cluster.WORKER_BYTES", 0)
    monkeypatch.setattr("converter.pyramid.crew.PROCESS_BYTES", 0)
    source = str(write_planes(tmp_path / "planes", volume(96, 200, 40), compression="zlib"))
    convert(source, tmp_path / "expected" / "made", options(**MANY))
    convert(source, tmp_path / "made", options(**{**on(two_workers), "max_memory": 200_000}))
    assert files_of(tmp_path / "made") == files_of(tmp_path / "expected" / "made")


def test_the_tasks_of_a_worker_that_is_killed_midway_are_done_again(
    stack: Path, tmp_path: Path, expected: dict[str, bytes], two_workers: Running
) -> None:
    """The worker is stopped first, so that it surely holds tasks when it is killed."""
    victim = two_workers.workers[0]

    def stop_and_kill() -> None:
        os.kill(victim, signal.SIGSTOP)
        threading.Timer(1, os.kill, (victim, signal.SIGKILL)).start()

    convert(str(stack), tmp_path / "made", options(**on(two_workers)), AtTask(2, stop_and_kill))
    assert files_of(tmp_path / "made") == expected
    wait_until(lambda: len(two_workers.connected()) == 2, "the worker has come back")
    assert victim not in two_workers.connected()


def test_all_workers_may_be_killed_again_and_again(
    stack: Path, tmp_path: Path, expected: dict[str, bytes], no_workers: Running
) -> None:
    killer = threading.Thread(target=no_workers.replace_workers, args=(3,))
    killer.start()
    convert(str(stack), tmp_path / "made", options(**on(no_workers)))
    killer.join()
    assert files_of(tmp_path / "made") == expected


def test_a_task_that_kills_every_worker_ends_in_one_sentence(
    no_workers: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.pyramid.cluster._MOST_LOSSES", 1)
    no_workers.add_workers(5)
    with cluster(no_workers.address) as crew, crew.executor(2) as executor:
        with pytest.raises(PrecomputedError, match="killed again and again over the same task") as raised:
            executor.run([Poison()], lambda done: None)
        assert "\n" not in str(raised.value)


def test_a_task_given_up_by_dask_is_handed_out_again(no_workers: Running) -> None:
    """Dask gives a task up when its fourth worker has died: here all of them die for nothing that the task does."""
    reported: list[Done] = []
    killer = threading.Thread(target=no_workers.replace_workers, args=(4,))
    killer.start()
    with cluster(no_workers.address) as crew, crew.executor(2) as executor:
        executor.run([Pause(3.0) for _ in range(2)], reported.append)
    killer.join()
    assert len(reported) == 2


def test_what_has_come_from_a_worker_that_dies_afterwards_counts(no_workers: Running) -> None:
    """The workers are killed while the first result is looked at and the others have come too."""
    (pid,) = no_workers.add_workers(1)
    reported: list[Done] = []

    def report(done: Done) -> None:
        if not reported:
            threading.Event().wait(1.0)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: no_workers.connected() == [], "it is gone")
            no_workers.add_workers(1)
        reported.append(done)

    with cluster(no_workers.address) as crew, crew.executor(1) as executor:
        executor.run([Pause(0.1) for _ in range(4)], report)
    assert len(reported) == 4


def test_only_a_few_tasks_wait_and_one_that_fails_ends_all(two_workers: Running) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[Pause]:
        for number in range(200):
            taken.append(number)
            yield Pause(0.05, "plane 20 is broken." if number == 20 else "")

    seen: list[int] = []
    with (
        cluster(two_workers.address) as crew,
        crew.executor(2) as executor,
        pytest.raises(SourceError, match=r"^plane 20 is broken\.$"),
    ):
        executor.run(tasks(), lambda done: seen.append(len(taken)))
    assert max(taken_by_then - ended for ended, taken_by_then in enumerate(seen)) <= 8
    assert len(taken) < 40


def test_a_plane_that_cannot_be_read_is_named_and_the_rest_goes_on_here(
    stack: Path, tmp_path: Path, expected: dict[str, bytes], two_workers: Running
) -> None:
    plane = stack / "img_90.tif"
    good = plane.read_bytes()
    try:
        with pytest.raises(SourceError, match=r"img_90.tif"):
            convert(str(stack), tmp_path / "made", options(**on(two_workers)), AtTask(3, plane.unlink))
    finally:
        plane.write_bytes(good)
    assert journal(tmp_path / "made")
    convert(str(stack), tmp_path / "made", options(**MANY, max_memory=1 << 30))
    assert files_of(tmp_path / "made") == expected


def test_a_lost_scheduler_is_one_sentence_and_the_same_goes_on_here(
    stack: Path, tmp_path: Path, expected: dict[str, bytes], two_workers: Running
) -> None:
    with pytest.raises(PrecomputedError, match=r"scheduler at tcp://.* was lost; .* run the same command again"):
        convert(str(stack), tmp_path / "made", options(**on(two_workers)), AtTask(3, two_workers.kill))
    assert files_of(tmp_path / "made") == {}
    assert len(journal(tmp_path / "made")) >= 3
    rest = AtTask(0, lambda: None)
    convert(str(stack), tmp_path / "made", options(**{**MANY, "jobs": 2}), rest)
    assert files_of(tmp_path / "made") == expected


def test_nothing_but_that_sentence_is_said(stack: Path, tmp_path: Path, two_workers: Running) -> None:
    arguments = [str(stack), "made", "--voxel-size", "1,1,1", "--chunk-size", "8,8,8", "--scheduler"]
    with command.start(tmp_path, "convert", *arguments, two_workers.address) as process:
        wait_until(lambda: bool(journal(tmp_path / "made")), "a task is done")
        two_workers.kill()
        _, said = process.communicate(timeout=60)
    (sentence,) = command.sentences(said)
    assert sentence.startswith("Error: The Dask scheduler at tcp://")
    assert process.returncode == 1


def test_a_worker_with_another_version_is_named(two_workers: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.pyramid.cluster.versions", lambda: {"precomputed-server": "99.0", "numpy": "1"})
    with cluster(two_workers.address) as crew, pytest.raises(PrecomputedError, match=r"worker tcp://.* instead of 99"):
        _ = crew.jobs
    monkeypatch.undo()
    with cluster(two_workers.address) as crew, crew.executor(1) as executor:
        monkeypatch.setattr("converter.pyramid.cluster.versions", lambda: {"precomputed-server": "99.0"})
        with pytest.raises(PrecomputedError, match="has precomputed-server .* instead of 99"):
            executor.run([Pause(0)], lambda done: None)


def test_a_worker_without_this_program_is_named(no_workers: Running, tmp_path: Path) -> None:
    (tmp_path / "converter").mkdir()
    (tmp_path / "converter" / "__init__.py").write_text("raise ModuleNotFoundError('No module named converter')\n")
    no_workers.add_workers(1, PYTHONPATH=str(tmp_path))
    with cluster(no_workers.address) as crew, pytest.raises(PrecomputedError, match=r"worker tcp.* install the same"):
        _ = crew.jobs
    refused = pytest.raises(PrecomputedError, match=r"worker cannot run this program .* install the same")
    with cluster(no_workers.address) as crew, crew.executor(1) as executor, refused:  # one that came later
        executor.run([Pause(0)], lambda done: None)


def test_threads_and_memory_of_the_workers_decide(two_workers: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.pyramid.cluster.WORKER_BYTES", 100 << 20)
    with cluster(two_workers.address) as crew:
        assert crew.jobs == 2
        assert crew.budget(2) == int(0.6 * (1 << 30)) - (100 << 20)
        assert crew.budget(50) == crew.budget(1)
    with cluster(two_workers.address, jobs=16, memory=300 << 20) as crew:
        assert crew.jobs == 16
        assert crew.budget(16) == 200 << 20


def test_too_little_memory_in_the_workers_is_refused(stack: Path, tmp_path: Path, two_workers: Running) -> None:
    with pytest.raises(InvalidInput, match=r"workers of tcp://.* too little memory .* --max-memory 1[23]\d ?MiB"):
        convert(str(stack), tmp_path / "made", options(**{**on(two_workers), "max_memory": 1 << 20}))
    assert not (tmp_path / "made" / "info").exists()


def test_without_workers_one_waits_for_a_while_and_says_so(
    no_workers: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("converter.pyramid.cluster._SAYS_AFTER_S", 0.1)
    monkeypatch.setattr("converter.pyramid.cluster._COUNTS_EVERY_S", 0.1)
    monkeypatch.setattr("converter.pyramid.cluster._GIVES_UP_AFTER_S", 1.0)
    with cluster(no_workers.address) as crew:
        with pytest.raises(PrecomputedError, match="No worker has been connected"):
            _ = crew.jobs
        with crew.executor(1) as executor, pytest.raises(PrecomputedError, match="No worker has been connected"):
            executor.run([Pause(0)], lambda done: None)
    assert [record.getMessage() for record in caplog.records if "Waiting for workers" in record.getMessage()]


def test_an_address_without_a_scheduler_is_refused(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.pyramid.cluster._CONNECTS_WITHIN_S", 1)
    with pytest.raises(
        PrecomputedError, match=r"No Dask scheduler answers at tcp://127.0.0.1:1 .* without --scheduler"
    ):
        convert(str(stack), tmp_path / "made", options(**MANY | {"jobs": None, "scheduler": "tcp://127.0.0.1:1"}))
    assert not (tmp_path / "made").exists()


def test_every_stack_of_a_batch_is_converted_on_the_cluster(two_workers: Running, tmp_path: Path) -> None:
    for number in range(3):
        write_planes(tmp_path / "raw" / f"stack_{number}", volume(40, 30, 12, seed=number))
    flags = ("--scheduler", two_workers.address, "--voxel-size", "1,1,1", "--chunk-size", "16,16,8")
    result = CliRunner().invoke(convert_command, ["--each", f"{tmp_path}/raw/*/", str(tmp_path / "out"), *flags])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "3 stacks: 3 done, 0 skipped, 0 failed."
    for number in range(3):
        source, name = str(tmp_path / "raw" / f"stack_{number}"), f"stack_{number}"
        convert(source, tmp_path / "single" / name, options(chunk_size=(16, 16, 8)))
        assert files_of(tmp_path / "out" / name) == files_of(tmp_path / "single" / name)
