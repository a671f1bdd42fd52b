"""kill -9 of conversions over a dataset that has annotations: no byte of them changes, and `info` is always whole."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from converter.output.destination import Destination
from converter.output.swap import interrupted_swap
from converter.verify import verify
from tests.annotation_store.support import Editor, Place, some
from tests.converter.command import running_in, start
from tests.converter.dask_workers import wait_until
from tests.converter.stacks import files_of, volume, write_planes

pytestmark = pytest.mark.component

WAYS = {
    "coarse": ["--voxel-size", "1,1,1", "--chunk-size", "64,64,32", "--levels", "2"],
    "fine": ["--voxel-size", "2,2,3", "--chunk-size", "64,64,16", "--levels", "1", "--format", "raw"],
}
"""Two conversions of one stack that have nothing in common: other voxels, chunks, levels and files."""

LEAVES = ("axons", "cells", "dendrites", "vessels")

Reached = Callable[[], bool]


def test_no_byte_of_1000_annotations_changes_when_conversions_are_killed_at_20_points(tmp_path: Path) -> None:
    source, place = write_planes(tmp_path / "planes", volume(512, 256, 128)), Place(tmp_path / "root")
    wanted = {}
    for name in WAYS:
        assert _run(source, tmp_path / name / "brain", name) == 0
        wanted[name] = files_of(tmp_path / name / "brain")
    made = place.root / "brain"
    assert _run(source, made, "coarse") == 0
    _annotate(place)
    before, infos = _bytes_of(made / "annotations"), {files["info"]: name for name, files in wanted.items()}

    swap, following, points, swapping = made / ".precomputed" / "swap.json", "fine", _points(made), 0
    while points:
        if _killed(source, made, following, points[0]):
            points.pop(0)
            swapping += swap.exists()
        assert _bytes_of(made / "annotations") == before
        assert not (made / "info").exists() or (made / "info").read_bytes() in infos
        if not swap.exists():
            assert verify(made).is_sound
        following = _following(made, infos)
    assert swapping >= 5

    assert _run(source, made, following) == 0
    assert _pyramid(files_of(made)) == _pyramid(wanted[following])
    assert _bytes_of(made / "annotations") == before
    assert not [path for path in (made / ".precomputed").iterdir() if path.name in ("staging", "old", "swap.json")]
    assert sum(len(place.stored(leaf)) for leaf in LEAVES) == 1000


def _points(made: Path) -> list[Reached]:
    """20 moments of a conversion: from its first file to its swap, and ever later in that."""
    private = made / ".precomputed"

    def tasks(count: int) -> Reached:
        return lambda: len(list(private.glob("staging/*/journal/[!.]*"))) >= count

    def after_plan(delay_s: float) -> Reached:
        def reached() -> bool:
            if not (private / "swap.json").exists():
                return False
            time.sleep(delay_s)
            return True

        return reached

    began = [lambda: (private / "staging").exists(), lambda: any(private.glob("staging/*/plan.json"))]
    building = [tasks(count) for count in (1, 2, 3, 5, 8, 12, 18, 24)]
    return [*began, *building, *(after_plan(number * 0.002) for number in range(10))]


def _run(source: Path, made: Path, way: str) -> int:
    with start(source.parent, *_arguments(source, made, way)) as process:
        process.communicate(timeout=60)
    return process.returncode


def _killed(source: Path, made: Path, way: str, reached: Reached) -> bool:
    """Convert and kill everybody when a moment is `reached`; False where it ended before.

    What a run before has left to do is done first and does not count.
    """
    left = _planned(made)
    with start(source.parent, *_arguments(source, made, way)) as process:
        while process.poll() is None and ((left is not None and _planned(made) == left) or not reached()):
            time.sleep(0.0002)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    wait_until(lambda: running_in(process.pid) == [], "every process has ended", 10)
    assert process.returncode in (0, -signal.SIGKILL)
    return process.returncode != 0


def _arguments(source: Path, made: Path, way: str) -> list[str]:
    over = ["--overwrite", "--annotations", "keep", "--jobs", "2"]
    return ["convert", str(source), str(made), *WAYS[way], *over]


def _planned(made: Path) -> str | None:
    """The id of the swap that is to be carried out."""
    with suppress(FileNotFoundError):
        return str(json.loads((made / ".precomputed" / "swap.json").read_text())["operation"])
    return None


def _following(made: Path, infos: dict[bytes, str]) -> str:
    """The way that the dataset is not made in, also when what was interrupted has been ended."""
    plan = interrupted_swap(Destination(made))
    info = (made / "info").read_bytes() if plan is None else plan.info.to_bytes()
    return "fine" if infos[info] == "coarse" else "coarse"


def _annotate(place: Place) -> None:
    """Write 1,000 annotations as clients do, one of them again and again, so that there is history too."""
    editor = Editor(place)
    for number, leaf in enumerate(LEAVES):
        editor.replace(some(250, first=250 * number), leaf=leaf)
    for x in range(10):
        editor.put({**some(1)[0], "point": [x, 1, 1]}, leaf=LEAVES[0])
    editor.close()


def _pyramid(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if not name.startswith("annotations/")}


def _bytes_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
