"""A bar for a person, few lines for a log."""

from __future__ import annotations

from io import StringIO

import pytest

from converter.progress import progress_on


class Terminal(StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_line_that_ends_even_after_an_error() -> None:
    terminal = Terminal()

    def fail_midway() -> None:
        with progress_on(terminal) as progress:
            progress(1, 4)
            progress(4, 4)
            raise ValueError("midway")

    with pytest.raises(ValueError, match="midway"):
        fail_midway()
    text = terminal.getvalue()
    assert text.endswith("100 %  4/4 chunks\n")
    assert text.count("\n") == 1
    assert text.count("\r") == 2


def test_a_terminal_where_nothing_was_drawn_stays_clean() -> None:
    terminal = Terminal()
    with progress_on(terminal):
        pass
    assert terminal.getvalue() == ""


def test_a_log_gets_a_line_every_few_percent() -> None:
    log = StringIO()
    with progress_on(log) as progress:
        for done in range(1, 1001):
            progress(done, 1000)
    assert len(log.getvalue().splitlines()) == 20
    assert log.getvalue().endswith("100 %: 1000 of 1000 chunks\n")
