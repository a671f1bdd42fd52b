"""Ending a long command when somebody asks for it: Ctrl-C, or SIGTERM from Slurm, systemd or `kill`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from types import FrameType
from typing import ParamSpec

import click

Parameters = ParamSpec("Parameters")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """Somebody asked this process to end; `exit_code` is what a shell shows for that signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


@dataclass
class _Asked:
    """The signal that came, if any, and whether something is under way that has to be done as a whole."""

    number: int | None = None
    held: bool = False

    def stop(self, number: int, _frame: FrameType | None) -> None:
        """The handler of a signal; it is called in the main thread, whichever the signal came to."""
        self.number = number
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        if not self.held:
            raise Stopped(number)


_asked = _Asked()


@contextmanager
def stopping() -> Iterator[None]:
    """Within it, in the main thread, Ctrl-C and SIGTERM raise Stopped, once: then the process is about to end anyway.

    A signal that this process was started to ignore stays ignored, as in a background job of a shell.
    """
    _asked.number = None
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _asked.stop)
    try:
        yield
    finally:
        if _asked.number is None:
            for number, handler in before.items():
                signal.signal(number, handler)


def stoppable(command: Callable[Parameters, None]) -> Callable[Parameters, None]:
    """A command that can be stopped: it then says so in one sentence and exits with the signal's code."""

    @wraps(command)
    def run(*arguments: Parameters.args, **options: Parameters.kwargs) -> None:
        try:
            with stopping():
                command(*arguments, **options)
        except Stopped as stop:
            click.echo("Stopped. What is done is kept: run the same command again to go on from there.", err=True)
            sys.exit(stop.exit_code)

    return run


@contextmanager
def held_back() -> Iterator[None]:
    """Do what is within as a whole, in the main thread: Stopped is raised behind it.

    Blocking the signals would not do: another thread would take them.
    """
    _asked.held = True
    try:
        yield
    finally:
        _asked.held = False
    if _asked.number is not None:
        raise Stopped(_asked.number)
