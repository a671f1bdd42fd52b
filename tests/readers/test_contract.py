"""What every layout promises: the same voxels by chunk and by box, absent told from damaged, nothing beyond bounds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from precomputed_server.errors import Busy, NotFound, Unreadable
from precomputed_server.files import Tree
from precomputed_server.format.geometry import Box
from precomputed_server.format.grid import cell_box, cells
from precomputed_server.format.names import chunk_name
from precomputed_server.readers.chunks import find_chunk, read_box, scale_place
from precomputed_server.readers.volumes import Volumes
from precomputed_server.readers.voxels import voxels_of
from tests.readers.layouts import ABSENT, KEY, LAYOUTS, OFFSET, Phantom

LIMIT = 1 << 20
KINDS = [(name, kind) for name, layout in LAYOUTS.items() for kind in layout.data_types]
SEVERAL = [name for name, layout in LAYOUTS.items() if layout.channels > 1]


class Reading:
    """A phantom in a layout, and the readings of it."""

    def __init__(self, root: Path, layout: str, data_type: str = "", channels: int = 1) -> None:
        self.made: Phantom = LAYOUTS[layout].phantom(data_type, channels)
        LAYOUTS[layout].write(root / "brain", self.made)
        self.level = root / "brain" / KEY
        self.tree = Tree(root)
        self.volumes = Volumes(self.tree)
        self.scale = self.made.info.scales[0]

    def chunk(self, box: Box, suffix: str = "") -> np.ndarray[Any, Any] | None:
        """The voxels of a chunk; None where it is absent."""
        try:
            found = find_chunk(self.tree, self.volumes, f"brain/{KEY}/{chunk_name(box)}{suffix}")
        except NotFound:
            return None
        assert found is not None
        with found.stored:
            assert len(found.stored.read()) == found.stored.length
            data = found.decode(LIMIT)
        return voxels_of(data, scale_place(self.tree, self.volumes, f"brain/{KEY}"), box)

    def box(self, box: Box) -> np.ndarray[Any, Any]:
        """The voxels of any box."""
        return read_box(scale_place(self.tree, self.volumes, f"brain/{KEY}"), box, LIMIT)


Read = Callable[..., Reading]


@pytest.fixture
def reading(tmp_path: Path) -> Iterator[Read]:
    """A function that writes a phantom and opens it."""
    opened: list[Reading] = []

    def write(layout: str, data_type: str = "", channels: int = 1) -> Reading:
        opened.append(Reading(tmp_path, layout, data_type, channels))
        return opened[-1]

    yield write
    for each in opened:
        each.tree.close()


def assert_every_chunk(seen: Reading) -> None:
    for cell in cells(seen.scale):
        box = cell_box(seen.scale, cell)
        for suffix in ("", ".tiff"):
            found = seen.chunk(box, suffix)
            if found is None:
                assert cell == ABSENT
            else:
                assert found.dtype == seen.made.info.dtype
                np.testing.assert_array_equal(found, seen.made.part(box), chunk_name(box))


@pytest.mark.parametrize(("layout", "data_type"), KINDS)
def test_every_chunk_of_every_data_type(layout: str, data_type: str, reading: Read) -> None:
    assert_every_chunk(reading(layout, data_type))


@pytest.mark.parametrize("layout", SEVERAL)
def test_several_channels(layout: str, reading: Read) -> None:
    assert_every_chunk(reading(layout, channels=3))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_not_stored_is_absent(layout: str, reading: Read) -> None:
    seen = reading(layout)
    if "other" in layout or "small" in layout or "large" in layout:
        return  # its cells are stored in part
    absent = cell_box(seen.scale, ABSENT)
    assert seen.chunk(absent) is None
    assert (seen.box(absent) == seen.made.fill).all()
    assert seen.chunk(cell_box(seen.scale, (0, 0, 0))) is not None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_box(layout: str, reading: Read) -> None:
    seen = reading(layout)
    starts = st.tuples(*(st.integers(low - 9, low + 45) for low in OFFSET))

    @settings(max_examples=15, deadline=None)
    @given(starts, st.tuples(*[st.integers(1, 30)] * 3))
    def is_cut_out(start: tuple[int, int, int], size: tuple[int, int, int]) -> None:
        box = Box(start, (start[0] + size[0], start[1] + size[1], start[2] + size[2]))
        found = seen.box(box)
        inside = box.clipped(seen.scale.bounds)
        if min(inside.size) > 0:
            np.testing.assert_array_equal(found, seen.made.part(box))
        else:
            assert (found == seen.made.fill).all()

    is_cut_out()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("damage", ["cut", "junk", "empty", "flipped"])
def test_damage_is_told_from_absence_and_never_gives_another_length(layout: str, damage: str, reading: Read) -> None:
    seen = reading(layout)
    complaints = 0
    for path in sorted(each for each in seen.level.rglob("*") if each.is_file()):
        sound = path.read_bytes()
        seen.volumes = Volumes(seen.tree)  # what is remembered of a file is known to be its own by the time of change
        path.write_bytes(damaged(sound, damage))
        for cell in cells(seen.scale):
            box = cell_box(seen.scale, cell)
            try:
                found = seen.chunk(box)
            except Unreadable:
                complaints += 1
            else:
                assert found is None or found.shape == seen.made.part(box).shape
                if damage != "flipped":
                    assert found is None or (found == seen.made.part(box)).all()
        path.write_bytes(sound)
    assert complaints > 0 or damage == "flipped"


def damaged(sound: bytes, damage: str) -> bytes:
    if damage == "cut":
        return sound[: len(sound) // 2]
    if damage == "junk":
        return b"junk" * 200
    if damage == "empty":
        return b""
    broken = bytearray(sound)
    for at in np.random.default_rng(len(sound)).integers(0, len(sound), 20):
        broken[at] ^= 255
    return bytes(broken)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_file_is_left_open(layout: str, reading: Read) -> None:
    seen = reading(layout)
    before = open_files()
    for damage in ("", "cut", "empty"):
        for path in (each for each in seen.level.rglob("*") if each.is_file()):
            path.write_bytes(damaged(path.read_bytes(), damage) if damage else path.read_bytes())
        for cell in cells(seen.scale):
            with suppress(Unreadable):
                seen.chunk(cell_box(seen.scale, cell))
    assert open_files() == before


def test_a_directory_in_the_place_of_a_cell_is_damage_and_a_file_in_that_of_a_directory_is_absence(
    reading: Read,
) -> None:
    seen = reading("zarr")
    box = cell_box(seen.scale, (0, 0, 0))
    (seen.level / "0/0/0").unlink()
    (seen.level / "0/0/0").mkdir()
    with pytest.raises(Unreadable):
        seen.chunk(box)
    shutil.rmtree(seen.level / "0")
    (seen.level / "0").write_bytes(b"")
    assert seen.chunk(box) is None


def open_files() -> set[str]:
    """What this process has open beneath the directories of tests."""
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.add(f"{each.name} {os.readlink(each)}")
    return {text for text in found if "brain" in text}


def test_cells_that_change_between_the_look_and_the_reading_are_not_mixed(reading: Read) -> None:
    """What a chunk was put together from would not be what its version says."""
    seen = reading("zarr_small_chunks")
    box = cell_box(seen.scale, (0, 0, 0))
    found = find_chunk(seen.tree, seen.volumes, f"brain/{KEY}/{chunk_name(box)}")
    assert found is not None
    os.utime(seen.level / "0.0.0", ns=(1, 1))
    with found.stored, pytest.raises(Busy):
        found.decode(LIMIT)
