"""Many stacks, one command: which they are, and converting them side by side or one after the other."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from converter.convert import convert
from converter.options import ConvertOptions, Summary
from converter.output.destination import Destination
from converter.output.finished import recorded_request
from converter.output.provenance import request
from converter.output.swap import TransformAnnotations
from converter.pyramid.executor import PROCESS_BYTES, executor
from converter.pyramid.progress import Progress
from converter.source_version import bytes_of, is_made_of_its_source
from converter.stacks.place import natural_key
from precomputed_server.errors import DestinationExists, InvalidInput, PrecomputedError

DONE, SKIPPED, FAILED = "done", "skipped", "failed"

_SUFFIXES = (".ome.tiff", ".ome.tif", ".tiff", ".tif")
_SMALL_BYTES = 256 << 20
"""Files of a stack that one process converts as fast as several, because there are others to convert beside it."""
_LEAST_SHARE = 256 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a stack: its state is DONE, SKIPPED or FAILED, and `message` says why.

    `again`: it may be different with all of the memory.
    """

    name: str
    state: str
    message: str
    summary: Summary | None = None
    again: bool = False


@dataclass(frozen=True)
class Stack:
    """A source and the dataset that is made of it."""

    source: str
    dest: Path
    options: ConvertOptions
    transform: TransformAnnotations | None = None

    @property
    def name(self) -> str:
        """What it is called in the table."""
        return self.dest.name

    def sharing(self, processes: int) -> Stack:
        """The same in one process, with one of so many shares of the memory."""
        share = (self.options.memory - PROCESS_BYTES) // processes
        return replace(self, options=replace(self.options, jobs=1, max_memory=share))

    def run(self, progress: Progress | None = None) -> Outcome:
        """Convert it, unless that was done before; nothing that is wrong with it is raised."""
        try:
            return self._run(progress)
        except (PrecomputedError, OSError) as error:
            return Outcome(self.name, FAILED, str(error), again=isinstance(error, InvalidInput))
        except Exception as error:  # one stack must not end the others
            _log.exception("%s", self.source)
            return Outcome(self.name, FAILED, f"This program failed: {error!r}.")

    def _run(self, progress: Progress | None) -> Outcome:
        destination = Destination(self.dest)
        if destination.info.exists() and not destination.swap.exists():
            same = recorded_request(destination) == request((self.source,), self.options)
            unchanged = same and is_made_of_its_source(destination, self.options)
            if unchanged:
                return Outcome(self.name, SKIPPED, "converted before")
            if not self.options.overwrite:
                what = "its source has changed since" if same else "from another source or with other options"
                raise DestinationExists(f"{self.dest} was converted before, {what}; add --overwrite to replace it.")
        summary = convert((self.source,), self.dest, self.options, progress, self.transform)
        return Outcome(self.name, DONE, "", summary)


class Told(Protocol):
    """Is told how a batch goes on."""

    def began(self, stack: Stack) -> None:
        """A stack is about to be converted."""

    def ended(self, outcome: Outcome) -> None:
        """A stack is done, skipped or failed."""

    def progress(self, stack: Stack) -> Progress | None:
        """What is told how far a stack is that is converted on its own."""


def stacks_of(
    patterns: Sequence[str], out: Path, options: ConvertOptions, transform: TransformAnnotations | None = None
) -> list[Stack]:
    """A stack for each directory and TIFF file that `patterns` match, in natural order.

    Raises InvalidInput when one matches nothing, or when two stacks would become one dataset.
    """
    if (out / "info").exists():
        raise InvalidInput(f"{out} is a dataset itself; name a directory in which each stack gets one of its own.")
    found: dict[str, Path] = {}
    for pattern in patterns:
        paths = [os.path.abspath(path) for path in _matches(pattern)]
        if not paths:
            raise InvalidInput(f"{pattern} matches no directory and no TIFF file; quote a glob such as 'raw/*/'.")
        found.update((path, out / _name(path)) for path in paths if path != os.path.abspath(out))
    if not found:
        raise InvalidInput(f"{out} is the only match; name the stacks, and where their datasets go.")
    by_dest: dict[Path, str] = {}
    for path, dest in found.items():
        if dest in by_dest:
            raise InvalidInput(f"{by_dest[dest]} and {path} would both become {dest}; convert them into two places.")
        by_dest[dest] = path
    return [Stack(path, found[path], options, transform) for path in sorted(found, key=natural_key)]


def run_batch(stacks: Sequence[Stack], told: Told) -> list[Outcome]:
    """Convert every stack and tell of each; what is wrong with one ends none of the others.

    Small ones are converted side by side, in one process each, the others one after the other with all processes; on a
    cluster all of them are.
    """
    outcomes: dict[str, Outcome] = {}

    def ended(outcome: Outcome) -> None:
        outcomes[outcome.name] = outcome
        told.ended(outcome)

    small, processes = _small(stacks)
    pooled = _SideBySide(processes, told.began, ended)
    if processes > 1:
        pooled.run(small)
    for stack in stacks:
        if stack.name not in outcomes:
            if stack.name not in pooled.again:
                told.began(stack)
            ended(stack.run(told.progress(stack)))
    return [outcomes[stack.name] for stack in stacks]


def _small(stacks: Sequence[Stack]) -> tuple[list[Stack], int]:
    """The stacks that can be converted side by side, and in how many processes."""
    if not stacks or stacks[0].options.scheduler is not None:  # a cluster has its own processes
        return [], 0
    options = stacks[0].options
    small = [stack for stack in stacks if bytes_of(stack.source, options, _SMALL_BYTES) <= _SMALL_BYTES]
    return small, min(options.processes, len(small), (options.memory - PROCESS_BYTES) // _LEAST_SHARE)


class _SideBySide:
    """Converts stacks in one pool of processes; those in `again` may want more memory than they got.

    When a process was killed, those that may have been the reason are done again, each in a process of its own.
    """

    def __init__(self, processes: int, began: Callable[[Stack], None], ended: Callable[[Outcome], None]) -> None:
        self._processes, self._began, self._ended = processes, began, ended
        self._handed_out: set[str] = set()
        self._over: set[str] = set()
        self.again: set[str] = set()

    def run(self, stacks: Sequence[Stack]) -> None:
        """Convert all of them."""
        waiting = [stack.sharing(self._processes) for stack in stacks]
        while waiting:
            try:
                with executor(self._processes) as pool:
                    pool.run(self._telling(waiting), self._report)
            except PrecomputedError:
                suspected = self._handed_out - self._over
                for stack in waiting:
                    if stack.name in suspected:
                        self._isolate(stack)
            waiting = [stack for stack in waiting if stack.name not in self._over]

    def _telling(self, stacks: Iterable[Stack]) -> Iterator[Stack]:
        for stack in stacks:
            self._handed_out.add(stack.name)
            self._began(stack)
            yield stack

    def _report(self, outcome: Outcome) -> None:
        self._over.add(outcome.name)
        if outcome.again:
            self.again.add(outcome.name)
        else:
            self._ended(outcome)

    def _isolate(self, stack: Stack) -> None:
        try:
            with executor(2) as pool:
                pool.run([stack], self._report)
        except PrecomputedError as error:
            self._report(Outcome(stack.name, FAILED, str(error)))


def _matches(pattern: str) -> list[str]:
    if os.path.exists(pattern):
        return [pattern]
    return [path for path in glob.glob(pattern, recursive=True) if os.path.isdir(path) or _is_tiff(path)]


def _is_tiff(path: str) -> bool:
    return (os.path.isfile(path) or os.path.islink(path)) and path.lower().endswith(_SUFFIXES)


def _name(path: str) -> str:
    name = os.path.basename(path)
    suffix = next((suffix for suffix in _SUFFIXES if name.lower().endswith(suffix)), "")
    return name if os.path.isdir(path) else name.removesuffix(name[len(name) - len(suffix) :])
