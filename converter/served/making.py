"""Making the coarser levels of one stack: the program that the server runs for it, so that it can be ended at any time.

Its standard input has one line of JSON, a `Job`, and then stays open for as long as whoever asked lives.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from converter.convert import convert_prepared
from converter.pyramid.crew import ThisMachine
from converter.served.cache import StackCache, levels_bytes, levels_name
from converter.served.stacks import Keeping, PublishedStacks
from precomputed_server.errors import PrecomputedError, SourceError, StorageFull, Unreadable
from precomputed_server.files import Tree
from precomputed_server.format.info import VolumeInfo

_KEPT_FREE = 1.05
"""What is left of the disk, beside the levels: directories and the journal take some."""

_LAST_IN_LINE = 19


@dataclass(frozen=True)
class Job:
    """Make the `levels` of that name, from `first` on, of a dataset beneath `root`, holding `memory` bytes at most."""

    root: str
    directory: str
    dataset: str
    levels: str
    memory: int

    @property
    def first(self) -> int:
        """The finest level that is kept."""
        return int(self.levels.rpartition("-")[2])

    def to_line(self) -> bytes:
        """As it is handed over."""
        return json.dumps(asdict(self)).encode() + b"\n"


def make(job: Job) -> None:
    """Do it; raises SourceError where a plane cannot be read: a level with holes would be taken for tissue."""
    tree = Tree(Path(job.root))
    keeping = Keeping(Path(job.directory), 0, 0, counts_use=False)
    with closing(PublishedStacks(tree, Path(job.root), keeping, lambda path: path == job.dataset)) as stacks:
        stack = stacks.at(job.dataset)
        if stack is None:
            raise Unreadable("it is not served any more.")
        conversion = stack.finest.conversion
        if levels_name(conversion, job.first) != job.levels:
            return  # it has changed since it was asked for, and will be asked for again
        lost = next(iter(conversion.source.unreadable.values()), "")
        if lost:
            raise SourceError(lost)
        directory = StackCache.of(keeping.directory or Path(), job.dataset).levels(job.levels)
        _check_space(directory.parent, conversion.info, job.first)
        convert_prepared(replace(conversion, first_kept=job.first), directory, ThisMachine(1, job.memory))
    tree.close()


def _check_space(directory: Path, info: VolumeInfo, first: int) -> None:
    status = os.statvfs(directory)
    if levels_bytes(info, first) * _KEPT_FREE > status.f_bavail * status.f_frsize:
        raise StorageFull("the disk of the state directory has no room for its coarser levels.")


def _end_with_parent() -> None:
    while os.read(0, 1):  # not by a buffer, whose lock would be held when this process ends
        pass
    os._exit(1)


def main() -> None:
    """Read what is to be done, do it, and say why it could not be done."""
    os.nice(_LAST_IN_LINE)
    job = Job(**json.loads(sys.stdin.buffer.readline()))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        make(job)
    except PrecomputedError as error:
        sys.exit(str(error))
    finally:
        sys.stderr.flush()


if __name__ == "__main__":
    main()
