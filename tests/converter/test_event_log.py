"""What a conversion tells programs: on standard output, and in the file that the catalog reads."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from converter import convert
from converter.cli import convert as command
from converter.event_log import EventLog
from converter.options import Summary
from converter.output.destination import Destination
from converter.output.swap import SwapPlan
from converter.pyramid.progress import Status
from precomputed_server.errors import SourceError
from tests.converter.stacks import options, volume, write_planes

SMALL = ("--voxel-size", "1,1,1", "--chunk-size", "8,8,8", "--jobs", "1")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_planes(tmp_path / "planes", volume(20, 17, 9))


def events(dataset: Path) -> list[dict[str, Any]]:
    return list(EventLog(Destination(dataset).events).read())


def states(dataset: Path) -> list[tuple[str, int]]:
    return [(event["state"], event["attempt"]) for event in events(dataset)]


def spoil(source: Path) -> None:
    """Damage the pixels of a plane in the middle, which its header does not show."""
    plane = source / "img_5.tif"
    data = plane.read_bytes()
    plane.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def test_json_prints_events_and_nothing_else(tmp_path: Path, source: Path) -> None:
    made = tmp_path / "made"
    result = CliRunner().invoke(command, [str(source), str(made), *SMALL, "--json"])
    assert result.exit_code == 0, result.output
    said = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["state"] for event in said] == ["began", "progress", "done"]
    done = said[-1]
    assert [(level["key"], level["size"], level["chunks"]) for level in done["levels"]] == [
        ("1_1_1", [20, 17, 9], 18),
        ("2_2_2", [10, 9, 5], 4),
        ("4_4_4", [5, 5, 3], 1),
    ]
    stored = sum(path.stat().st_size for path in made.glob("[124]_*/*"))
    assert (done["chunks"], done["bytes"]) == (23, stored)
    assert done["source_bytes"] == 20 * 17 * 9 * 2
    assert done["peak_memory"] > 10 << 20
    assert (done["done"], done["total"]) == (23, 23)


def test_json_ends_with_why_a_conversion_failed(tmp_path: Path, source: Path) -> None:
    made = str(tmp_path / "made")
    result = CliRunner().invoke(command, [str(tmp_path / "absent"), made, *SMALL, "--json"])
    assert [json.loads(line)["state"] for line in result.stdout.splitlines()] == ["began", "failed"]
    assert json.loads(result.stdout.splitlines()[-1])["message"] == str(result.exception)


def test_a_dataset_keeps_the_events_of_its_conversion(tmp_path: Path, source: Path) -> None:
    made = tmp_path / "made"
    summary = convert(str(source), made, options(chunk_size=(8, 8, 8)))
    kept = events(made)
    assert [event["state"] for event in kept] == ["began", "progress", "done"]
    assert {event["job"] for event in kept} == {kept[0]["job"]}
    assert kept[-1]["levels"] == [level.to_json() for level in summary.levels]
    assert {event["dataset"] for event in kept} == {str(made)}


def test_attempts_are_counted_until_one_succeeds(tmp_path: Path) -> None:
    source = write_planes(tmp_path / "deflated", volume(20, 17, 9), compression="zlib")
    made, whole = tmp_path / "made", (source / "img_5.tif").read_bytes()
    for _ in range(2):
        spoil(source)
        with pytest.raises(SourceError, match="img_5"):
            convert(str(source), made, options())
        (source / "img_5.tif").write_bytes(whole)
    assert not (made / "info").exists()
    assert states(made) == [("began", 1), ("failed", 1), ("began", 2), ("failed", 2)]
    assert "img_5.tif" in events(made)[-1]["message"]
    convert(str(source), made, options())
    convert(str(source), made, options(overwrite=True))
    assert [attempt for state, attempt in states(made) if state == "began"] == [1, 2, 3, 1]


def test_a_conversion_that_ctrl_c_ended_says_so(tmp_path: Path, source: Path) -> None:
    def stop(status: Status) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(str(source), tmp_path / "made", options(), progress=stop)
    assert [event["state"] for event in events(tmp_path / "made")][-1] == "failed"
    assert "the same command goes on" in events(tmp_path / "made")[-1]["message"]


def test_a_swap_that_a_later_run_ends_is_done_in_its_events_too(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(destination: Destination, plan: SwapPlan) -> None:
        raise KeyboardInterrupt

    made = tmp_path / "made"
    with monkeypatch.context() as patch:
        patch.setattr("converter.output.swap._exchange_scales", killed)
        with pytest.raises(KeyboardInterrupt):
            convert(str(source), made, options(chunk_size=(8, 8, 8)))
    summary = convert(str(source), made, options(chunk_size=(8, 8, 8)))
    last = events(made)[-1]
    assert (last["state"], last["job"]) == ("done", events(made)[0]["job"])
    assert sum(level.chunks for level in summary.levels) == 23
    assert last["levels"] == [level.to_json() for level in summary.levels]


@pytest.mark.parametrize("left", ["events.jsonl", "events.1.jsonl", ".swap.json.0123456789abcdef.tmp"])
def test_what_a_kill_leaves_does_not_occupy_a_destination(tmp_path: Path, source: Path, left: str) -> None:
    private = tmp_path / "made" / ".precomputed"
    private.mkdir(parents=True)
    (private / left).write_bytes(b"{}\n")
    assert convert(str(source), tmp_path / "made", options()).chunks == 1


def test_the_file_of_events_is_bounded_and_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append('{"torn"')
    for number in range(30_000):
        log.append(json.dumps({"number": number, "message": "x" * 40}) + "\n")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 1 << 20
    numbers = [event["number"] for event in log.read()]
    assert numbers == list(range(numbers[0], 30_000))
    assert len(numbers) > 5_000
    (tmp_path / "events.jsonl").write_text('{"number": 1}\n{"torn"')
    log.append('{"number": 2}\n')
    assert [event["number"] for event in log.read()][-2:] == [1, 2]


def test_a_directory_that_takes_no_events_is_no_reason_to_fail(tmp_path: Path) -> None:
    EventLog(tmp_path / "absent" / "events.jsonl").append("{}\n")
    assert os.listdir(tmp_path) == []


def test_a_person_reads_every_level_and_the_memory(tmp_path: Path, source: Path) -> None:
    result = CliRunner().invoke(command, [str(source), str(tmp_path / "made"), *SMALL])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{tmp_path / 'made'}: 3 levels, 23 chunks, ")
    assert [line.split("  ")[1:3] for line in lines[1:4]] == [
        ["1_1_1", "20 × 17 × 9"],
        ["2_2_2", "10 × 9 × 5"],
        ["4_4_4", "5 × 5 × 3"],
    ]
    assert lines[4].startswith("Memory: ")
    assert lines[5] == f"Look at it: precomputed serve {tmp_path}"


def test_the_memory_counts_every_process(tmp_path: Path) -> None:
    source = write_planes(tmp_path / "planes", volume(1024, 1024, 24))
    alone = _converted(source, tmp_path / "alone", 1)
    together = _converted(source, tmp_path / "together", 2)
    assert together.peak_memory > alone.peak_memory + (40 << 20)


def _converted(source: Path, dest: Path, jobs: int) -> Summary:
    return convert(str(source), dest, options(jobs=jobs))
