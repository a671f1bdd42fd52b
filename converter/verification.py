"""What was found wrong with a dataset, and what has become of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

MISSING, TRUNCATED, ALTERED = "missing", "truncated", "altered"
_NAMED = 3
CHANGED = "not what the source gives now"
UNASKED = "there, though the conversion left it out"


@dataclass(frozen=True)
class Problem:
    """A chunk, or a `file` beside the chunks, that is not as it should be: `what` says how.

    `mended`: it has been written anew. `differs`: what the source gives now is not what the conversion wrote, and so
    nothing was written. `lost`: it cannot be made again.
    """

    key: str
    chunk: str
    what: str
    mended: bool = False
    differs: bool = False
    file: str = ""
    lost: bool = False

    def __str__(self) -> str:
        """`1_1_1/0-64_0-64_0-64 is altered`."""
        return f"{self.file or f'{self.key}/{self.chunk}'} is {self.what}"


@dataclass(frozen=True)
class Verification:
    """How many chunks were looked at, what was wrong with which, and whether these were mended.

    `changed` are the files of the source that are not those of the conversion, by size and time.
    """

    chunks: int
    problems: tuple[Problem, ...]
    changed: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether everything is as it should be by now."""
        return all(problem.mended for problem in self.problems)

    @property
    def repaired(self) -> bool:
        """Whether there was something to mend, and all of it was."""
        return bool(self.problems) and self.is_sound

    @property
    def remedy(self) -> str:
        """What is to be done about what is still wrong, in a sentence."""
        if any(problem.what == UNASKED for problem in self.problems):
            return "Chunks are there that the conversion left out; remove them, or convert again with --overwrite."
        left = [problem for problem in self.problems if not problem.mended]
        if all(problem.lost for problem in left):
            names = " and ".join(problem.file for problem in left)
            return f"{names} cannot be made again; convert again with --overwrite, or live without."
        if not any(problem.differs for problem in self.problems):
            return "The dataset is damaged; mend it with `precomputed verify --repair`, or convert again."
        if self.changed:
            files = ", ".join(self.changed[:_NAMED]) + (" …" if len(self.changed) > _NAMED else "")
            cause = f"The source is not what the dataset was made of: {files} changed since"
        else:
            cause = (
                "The source is not what the dataset was made of, or another version of this program made it: other "
                "chunks come out"
            )
        return (
            f"{cause}. Nothing was written in their place; to take the source as it is, convert again with --overwrite."
        )


def together(layers: Sequence[tuple[str, Verification]]) -> Verification:
    """What was found in all layers of a dataset; places are told with the layer's directory."""
    problems = [_in_layer(name, problem) for name, found in layers for problem in found.problems]
    changed = dict.fromkeys(path for _, found in layers for path in found.changed)
    return Verification(sum(found.chunks for _, found in layers), tuple(problems), tuple(changed))


def _in_layer(name: str, problem: Problem) -> Problem:
    if problem.file:
        return replace(problem, file=f"{name}/{problem.file}")
    return replace(problem, key=f"{name}/{problem.key}")
