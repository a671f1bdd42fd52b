"""A bar for a person, few lines for a log."""

from __future__ import annotations

import json
from io import StringIO

import pytest

from converter.pyramid.progress import Events, Lines, Status, progress_on


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_line_that_ends_even_after_an_error() -> None:
    terminal = Terminal()

    def fail_midway() -> None:
        with progress_on(terminal) as progress:
            progress(_status(1))
            progress(_status(4))
            raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        fail_midway()
    text = terminal.getvalue()
    assert text.endswith("\n")
    assert text.rstrip().endswith("] 100 %, 4.0 of 4.0 GB, 400 MB/s")
    assert text.count("\n") == 1
    assert text.count("\r") == 2


def test_a_terminal_where_nothing_was_drawn_stays_clean() -> None:
    terminal = Terminal()
    with progress_on(terminal):
        pass
    assert terminal.getvalue() == ""


def test_a_log_gets_a_line_a_minute_and_one_at_the_end() -> None:
    log, now = StringIO(), [0.0]
    lines = Lines(log, lambda: now[0])
    for second in range(601):
        now[0] = float(second)
        lines(Status(second + 1, 601, second * 10**7, 6 * 10**9, second))
    lines(Status(601, 601, 6 * 10**9, 6 * 10**9, 601))
    said = log.getvalue().splitlines()
    assert len(said) == 10
    assert said[0] == "10 %, 0.6 of 6.0 GB, 10 MB/s, 8:51 left"
    assert said[-1].startswith("100 %")


def test_what_earlier_runs_did_does_not_count_in_the_rate() -> None:
    status = Status(60, 100, 6 * 10**9, 10**10, 100.0, kept_chunks=50, kept_bytes=5 * 10**9)
    assert status.rate == 10**7
    assert status.seconds_left == 400
    assert Status(50, 100, 5, 10, 0.1, kept_chunks=50, kept_bytes=5).seconds_left is None


def test_small_volumes_are_told_in_megabytes() -> None:
    assert str(Status(1, 2, 3_700_000, 7_400_000, 0.1)) == "50 %, 3.7 of 7.4 MB, 37 MB/s, 0:00 left"


def test_events_are_lines_of_json_and_not_more_than_one_a_second() -> None:
    said: list[str] = []
    now = [0.0]
    events = Events(said.append, "j", "brain", lambda: now[0])
    events.began()
    for tenth in range(50):
        now[0] = tenth / 10
        events(Status(tenth, 100, tenth, 100, now[0]))
    events.failed("img_3.tif cannot be read")
    members = [json.loads(line) for line in said]
    assert [event["state"] for event in members] == ["began", *["progress"] * 5, "failed"]
    assert members[-1]["message"] == "img_3.tif cannot be read"
    assert (members[-1]["done"], members[-1]["total"]) == (49, 100)
    assert {"time", "job", "dataset", "step", "state", "done", "total", "message"} <= set(members[0])


def _status(done: int) -> Status:
    return Status(done, 4, done * 10**9, 4 * 10**9, 10.0)
