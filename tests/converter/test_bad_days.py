"""What goes wrong while a conversion runs: one sentence, exit code 1, no dataset, and the same command goes on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile

from tests.conftest import Mount
from tests.converter.command import sentences, start
from tests.converter.dask_workers import wait_until
from tests.converter.stacks import Array, files_of, read_level, read_record, volume, write_planes

pytestmark = pytest.mark.component

FLAGS = ("--voxel-size", "1,1,1", "--levels", "2", "--chunk-size", "64,64,16", "--jobs", "2")


@pytest.fixture
def voxels() -> Array:
    """Enough for two processes and a dozen tasks; each of its halves compresses to nothing or not at all."""
    return np.concatenate([np.zeros((80, 512, 512), np.uint16), volume(512, 512, 80)])


def _run(directory: Path, dest: Path, *flags: str) -> tuple[int, str, str]:
    """Exit code, standard output, and standard error without its progress."""
    with start(directory, "convert", "planes", str(dest), *FLAGS, *flags) as process:
        out, said = process.communicate(timeout=120)
    return process.returncode, out, "\n".join(sentences(said))


def _tasks(dest: Path) -> dict[str, int]:
    """The tasks that are recorded as done, and when."""
    found = dest.glob(".precomputed/staging/*/journal/[!.]*")
    return {path.name: path.stat().st_mtime_ns for path in found}


def _whole(tmp_path: Path) -> dict[str, bytes]:
    """The files of a conversion that nothing happened to."""
    assert _run(tmp_path, tmp_path / "whole" / "made")[0] == 0
    return files_of(tmp_path / "whole" / "made")


def _damage(plane: Path) -> None:
    with tifffile.TiffFile(plane) as tiff:
        offset = tiff.pages[0].dataoffsets[0]
    data = bytearray(plane.read_bytes())
    data[offset + 20 : offset + 400] = bytes(380)
    plane.write_bytes(data)


def test_a_damaged_plane_in_the_middle(tmp_path: Path, voxels: Array) -> None:
    planes, made = write_planes(tmp_path / "planes", voxels, compression="zlib"), tmp_path / "made"
    expected = _whole(tmp_path)
    good = (planes / "img_120.tif").read_bytes()
    _damage(planes / "img_120.tif")
    code, out, said = _run(tmp_path, made)
    assert (code, out) == (1, "")
    assert said.startswith(f"Error: {planes}/img_120.tif cannot be decoded (")
    assert said.endswith("); replace the file.")
    assert files_of(made) == {}
    done = _tasks(made)
    assert done
    (planes / "img_120.tif").write_bytes(good)
    assert _run(tmp_path, made)[0] == 0
    assert files_of(made) == expected

    _damage(planes / "img_120.tif")
    for on_error in ("skip", "blank"):
        code, out, said = _run(tmp_path, tmp_path / on_error, "--on-error", on_error)
        assert code == 0
        assert said.startswith(f"Left out: {planes}/img_120.tif cannot be decoded (")
        assert len(read_record(tmp_path / on_error, "../provenance.json")["unreadable"]) == 1
    voxels[120] = 0
    np.testing.assert_array_equal(read_level(tmp_path / "blank", 0)[0], voxels)
    kept = {path.name.split("_")[2] for path in (tmp_path / "skip" / "1_1_1").iterdir()}
    assert kept == {f"{z}-{z + 16}.tiff" for z in range(0, 160, 16) if z != 112}


def test_a_disk_that_is_too_small_is_said_before_anything_is_written(
    tmp_path: Path, voxels: Array, mount: Mount
) -> None:
    write_planes(tmp_path / "planes", voxels)
    root = mount("size=40m,nr_inodes=100")
    code, _, said = _run(tmp_path, root / "made", "--format", "raw")
    assert (code, said.split(" and ")[0]) == (1, "Error: The dataset takes 0.1 GB")
    assert said.endswith("make room, or choose --format tiff, which is compressed.")
    code, _, said = _run(tmp_path, root / "made")
    assert code == 1
    assert said.startswith("Error: The dataset takes 720 files until it is finished")
    assert said.endswith("choose a larger --chunk-size or another file system.")
    assert sorted(os.listdir(root / "made")) == [".precomputed"]
    assert sorted(os.listdir(root / "made" / ".precomputed")) == ["events.jsonl", "lock"]


def test_a_disk_that_becomes_full_is_said_and_what_was_done_is_kept(
    tmp_path: Path, voxels: Array, mount: Mount
) -> None:
    write_planes(tmp_path / "planes", voxels)
    expected, root = _whole(tmp_path), mount("size=30m")
    code, out, said = _run(tmp_path, root / "made")
    assert (code, out) == (1, "")
    assert said == (
        f"Error: {root}/made could not be written: the disk or a quota is full; make room and run the same command "
        "again: what is done is kept."
    )
    assert files_of(root / "made") == {}
    done = _tasks(root / "made")
    assert len(done) >= 4
    subprocess.run(["mount", "-o", "remount,size=200m", str(root)], check=True)
    assert _run(tmp_path, root / "made")[0] == 0
    assert files_of(root / "made") == expected


def test_a_source_that_changes_during_the_run(tmp_path: Path, voxels: Array) -> None:
    planes, made = write_planes(tmp_path / "planes", voxels), tmp_path / "made"
    with start(tmp_path, "convert", "planes", "made", *FLAGS) as process:
        wait_until(lambda: bool(_tasks(made)) or process.poll() is not None, "a task is done", 60)
        tifffile.imwrite(planes / "img_159.tif", voxels[159] // 2, metadata=None)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert sentences(said) == [
        f"Error: {planes}/img_159.tif has changed since its header was read; wait until nothing writes it, then "
        "convert again."
    ]
    assert files_of(made) == {}
    done = _tasks(made)
    with start(tmp_path, "convert", "planes", "made", *FLAGS) as process:
        wait_until(lambda: len(_tasks(made)) > len(done) or process.poll() is not None, "a task is done", 60)
        again = _tasks(made)
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert {name for name in done if name in again and again[name] != done[name]} == set()
    assert files_of(made) == _whole(tmp_path)


def test_a_destination_on_a_read_only_mount(tmp_path: Path, voxels: Array, mount: Mount) -> None:
    write_planes(tmp_path / "planes", voxels[:96])
    expected, root = _whole(tmp_path), mount("size=200m")
    (root / "begun" / ".precomputed").mkdir(parents=True)
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
    for name in ("made", "begun"):
        code, out, said = _run(tmp_path, root / name)
        assert (code, out) == (1, "")
        assert said == f"Error: {root}/{name} lies on a read-only file system; choose another destination."
    subprocess.run(["mount", "-o", "remount,rw", str(root)], check=True)
    assert _run(tmp_path, root / "begun")[0] == 0
    assert files_of(root / "begun") == expected
