"""SIGTERM and Ctrl-C end a conversion within seconds, in one sentence, and the same command goes on."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from converter.pyramid.stopping import SIGNALS, Stopped, held_back, stopping
from precomputed_server.cli import run
from tests.converter import command, dask_workers
from tests.converter.dask_workers import wait_until
from tests.converter.stacks import files_of, volume, write_planes

SENTENCE = "Stopped. What is done is kept: run the same command again to go on from there."
SECONDS = 10
"""Far more than it takes on an idle machine."""


def stopped(directory: Path, where: Sequence[str], number: int, *, group: bool) -> None:
    """Convert, send a signal midway and check how it ends; then convert again."""
    arguments = ["convert", "planes", "made", "--voxel-size", "1,1,1", *where]
    with command.start(directory, *arguments) as process:
        journal = "made/.precomputed/staging/*/journal/[!.]*"
        wait_until(lambda: any(directory.glob(journal)) or process.poll() is not None, "a task is done", 90)
        send = os.killpg if group else os.kill
        send(process.pid, number)
        sent = time.monotonic()
        with suppress(ProcessLookupError):
            send(process.pid, number)  # timeout(1) sends it twice
        _, said = process.communicate(timeout=60)
        took = time.monotonic() - sent
    assert process.returncode == 128 + number, said
    assert command.sentences(said) == [SENTENCE]
    assert took < SECONDS
    wait_until(lambda: command.running_in(process.pid) == [], "every process has ended", 5)
    assert files_of(directory / "made") == {}
    assert any(directory.glob(journal))


@pytest.mark.component
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("jobs", "group"), [("1", False), ("2", False), ("2", True)])
def test_a_signal_ends_a_conversion_on_this_machine(tmp_path: Path, number: int, jobs: str, group: bool) -> None:
    """`group`: everybody gets the signal, as with Ctrl-C at a terminal."""
    write_planes(tmp_path / "planes", volume(1024, 1024, 96, "uint8"))
    stopped(tmp_path, ["--jobs", jobs], number, group=group)


@pytest.mark.component
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_to_all_while_the_workers_start(tmp_path: Path, number: int, workers: int) -> None:
    """What workers are forked from is there before the command is loaded, which a signal then ends as any program."""
    write_planes(tmp_path / "planes", volume(1024, 1024, 96, "uint8"))
    with command.start(tmp_path, "convert", "planes", "made", "--voxel-size", "1,1,1", "--jobs", "2") as process:
        wait_until(lambda: _forked(process.pid) > workers, "it begins", 30)
        if not workers:
            time.sleep(0.1)
        os.killpg(process.pid, number)
        _, said = process.communicate(timeout=60)
    loading = [(-number, []), (128 + number, ["Stopped."])] if not workers else []
    assert (process.returncode, command.sentences(said)) in [(128 + number, [SENTENCE]), *loading]
    wait_until(lambda: command.running_in(process.pid) == [], "every process has ended", 5)


def _forked(group: int) -> int:
    """How many processes there are of what workers are forked from, itself included."""
    return sum("forkserver" in line for line in command.running_in(group))


LOADED = "from precomputed_server.entry import run; print('it begins', flush=True); run()"


@pytest.mark.component
@pytest.mark.parametrize("after_ms", [0, 30, 80, 150, 250, 400, 600, 900])
def test_ctrl_c_while_a_command_is_loaded(tmp_path: Path, after_ms: int) -> None:
    write_planes(tmp_path / "planes", volume(1024, 1024, 96, "uint8"))
    arguments = ["convert", "planes", "made", "--voxel-size", "1,1,1", "--jobs", "1"]
    with command.start(tmp_path, *arguments, program=LOADED) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "it begins\n"
        time.sleep(after_ms / 1000)
        os.kill(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    # Where a command has just begun, an empty line ends that of the terminal's ^C.
    assert [line for line in command.sentences(said) if line] in (["Stopped."], [SENTENCE])


def test_a_command_that_is_interrupted_answers_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["precomputed", "verify", "made"])
    monkeypatch.setattr("converter.cli_verify.verify_chunks", interrupted)
    with pytest.raises(SystemExit) as ended:
        run()
    assert ended.value.code == 130


LONG = """
from converter.pyramid.executor import executor
from converter.pyramid.stopping import Stopped, stopping
from tests.converter.dask_workers import Pause
try:
    with stopping(), executor(2) as workers:
        workers.run([Pause(0.1), Pause(60), Pause(60)], lambda done: print("one", flush=True))
except Stopped as stop:
    raise SystemExit(stop.exit_code)
"""


@pytest.mark.component
def test_tasks_that_take_long_are_given_up(tmp_path: Path) -> None:
    with command.start(tmp_path, program=LONG) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "one\n"
        process.terminate()
        sent = time.monotonic()
        _, said = process.communicate(timeout=100)
    assert (process.returncode, said) == (143, "")
    assert time.monotonic() - sent < SECONDS
    wait_until(lambda: command.running_in(process.pid) == [], "every process has ended", 5)


@pytest.mark.component
def test_a_signal_ends_a_conversion_on_a_cluster_which_goes_on_here(tmp_path: Path) -> None:
    write_planes(tmp_path / "planes", volume(1024, 1024, 96, "uint8"))
    with dask_workers.running(tmp_path) as cluster:
        stopped(tmp_path, ["--scheduler", cluster.address], signal.SIGTERM, group=False)
    for dest, jobs in (("made", "2"), ("other", "1")):
        with command.start(tmp_path, "convert", "planes", dest, "--voxel-size", "1,1,1", "--jobs", jobs) as process:
            process.communicate(timeout=120)
        assert process.returncode == 0
    assert files_of(tmp_path / "made") == files_of(tmp_path / "other")


@pytest.fixture
def _signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def _send(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.mark.usefixtures("_signals_as_before")
def test_a_signal_waits_for_what_has_to_be_done_as_a_whole() -> None:
    done = []

    def start_something() -> None:
        with stopping(), held_back():
            _send(signal.SIGTERM)
            done.append("all of it")

    with pytest.raises(Stopped) as raised:
        start_something()
    assert done == ["all of it"]
    assert raised.value.exit_code == 143


@pytest.mark.usefixtures("_signals_as_before")
def test_only_the_first_signal_counts() -> None:
    done = []

    def clear_up_afterwards() -> None:
        with stopping():
            try:
                _send(signal.SIGINT)
            finally:
                _send(signal.SIGTERM)
                done.append("cleared up")

    with pytest.raises(Stopped) as raised:
        clear_up_afterwards()
    assert done == ["cleared up"]
    assert raised.value.exit_code == 130


def test_signals_are_as_before_when_nobody_sent_one() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with stopping():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
