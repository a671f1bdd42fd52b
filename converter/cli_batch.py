"""`precomputed convert --each`: telling of many stacks, to a person or a program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import click

from converter.batch import DONE, FAILED, SKIPPED, Outcome, Stack, run_batch, stacks_of
from converter.cli_run import Asked, write_event
from converter.event_log import events_of
from converter.output.destination import Destination
from converter.output.provenance import request
from converter.pyramid.progress import Events, Progress, progress_on
from converter.report import counted, figures, headline, table

STEP = "convert --each"


def convert_each(asked: Asked) -> bool:
    """Convert every match into a dataset of its own beneath `asked.dest`, and end with a table; whether none failed."""
    stacks = stacks_of(asked.sources, asked.dest.absolute(), asked.options, asked.transform)
    with ExitStack() as shown:
        told = _Program(len(stacks), asked.dest) if asked.as_json else _Person(len(stacks), shown)
        outcomes = run_batch(stacks, told)
    told.finished(outcomes)
    return all(outcome.state != FAILED for outcome in outcomes)


class _Person:
    """Says a line of each stack to standard error, and the table to standard output; `shown` holds a bar."""

    def __init__(self, total: int, shown: ExitStack) -> None:
        self._total, self._over, self._shown = total, 0, shown

    def began(self, stack: Stack) -> None:
        """Nothing: its end is soon enough."""

    def progress(self, stack: Stack) -> Progress:
        """What shows how far one conversion is."""
        click.echo(f"{stack.name}:", err=True)
        return self._shown.enter_context(progress_on())

    def ended(self, outcome: Outcome) -> None:
        """Say what became of it."""
        self._shown.close()
        self._over += 1
        click.echo(f"{self._over} of {self._total}: {outcome.name} {outcome.state}", err=True)

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """Print the table: every stack, what became of it and why."""
        for line in table([[outcome.name, outcome.state, _remark(outcome)] for outcome in outcomes]):
            click.echo(line)
        click.echo(f"{counted(len(outcomes), 'stack')}: {_totals(outcomes)}.")


class _Program:
    """Prints the events of each stack, and at last one of all of them."""

    def __init__(self, total: int, out: Path) -> None:
        self._events: dict[str, Events] = {}
        self._whole = Events(write_event, "each", str(out.absolute()), step=STEP)
        self._total = total
        self._whole.began(done=0, total=total)

    def began(self, stack: Stack) -> None:
        """It has been handed to a process."""
        events = events_of(Destination(stack.dest), request((stack.source,), stack.options), write_event)
        self._events[stack.name] = events
        events.began()

    def progress(self, stack: Stack) -> Progress:
        """Its events."""
        return self._events[stack.name]

    def ended(self, outcome: Outcome) -> None:
        """Its last event."""
        events = self._events[outcome.name]
        if outcome.state == SKIPPED:
            events.skipped(outcome.message)
        elif outcome.summary is None:
            events.failed(outcome.message)
        else:
            chunks = sum(level.chunks for level in outcome.summary.levels)
            events.done(headline(outcome.summary), done=chunks, total=chunks, **figures(outcome.summary))

    def finished(self, outcomes: Sequence[Outcome]) -> None:
        """The event that holds the table."""
        datasets = [{"name": each.name, "state": each.state, "message": _remark(each)} for each in outcomes]
        done = sum(outcome.state != FAILED for outcome in outcomes)
        members = {"done": done, "total": self._total, "datasets": datasets}
        say = self._whole.done if done == self._total else self._whole.failed
        say(f"{_totals(outcomes)}.", **members)


def _remark(outcome: Outcome) -> str:
    """Why it was skipped or has failed, or what was made."""
    if outcome.summary is None:
        return outcome.message
    remarks = [f"left out: {reason}" for reason in outcome.summary.unreadable]
    remarks += [f"warning: {warning}" for warning in outcome.summary.warnings]
    return "; ".join([headline(outcome.summary).removeprefix(f"{outcome.summary.destination}: "), *remarks])


def _totals(outcomes: Sequence[Outcome]) -> str:
    numbers = Counter(outcome.state for outcome in outcomes)
    return ", ".join(f"{numbers[state]} {state}" for state in (DONE, SKIPPED, FAILED))
