"""Verification finds every chunk that is not as it was written, and repair mends those and no others."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner, Result

from annotation_store.slices import slice_naming
from converter import convert
from converter.cli_verify import verify as command
from converter.describe import Corrections, describe, described
from converter.split import convert_split
from converter.stacks.source_options import source_options
from converter.stacks.voxel_size import parse_edges
from converter.verify import verify
from precomputed_server.errors import InvalidInput, NotFound, PrecomputedError, SourceError
from tests.converter.stacks import files_of, options, volume, write_planes

MANY: dict[str, Any] = {"levels": 3, "downsample": (2, 2, 2), "chunk_size": (16, 16, 16)}


@pytest.fixture(params=["tiff", "raw", "sharded", "zarr"])
def made(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A finished dataset of every kind of format."""
    source = write_planes(tmp_path / "planes", volume(70, 40, 33))
    convert(str(source), tmp_path / "made", options(**MANY, format=request.param))
    return tmp_path / "made"


def test_a_dataset_as_it_was_written_is_sound(made: Path) -> None:
    found = verify(made)
    assert (found.problems, found.is_sound) == ((), True)
    assert found.chunks == 5 * 3 * 3 + 3 * 2 * 2 + 2 * 1 * 1
    assert verify(made, []).is_sound


def _chunk_files(dataset: Path) -> list[Path]:
    keys = [path for path in sorted(dataset.iterdir()) if path.is_dir() and path.name[0].isdigit()]
    return [path for key in keys for path in sorted(key.rglob("*")) if path.is_file() and path.name[0] != "."]


@pytest.mark.parametrize("made", ["tiff", "raw", "zarr"], indirect=True)
def test_every_flipped_bit_is_found_and_repaired(made: Path) -> None:
    before = files_of(made)
    chance = random.Random(1)
    files = _chunk_files(made)
    for path in (damaged := chance.sample(files, 10)):
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
    found = verify(made)
    assert len(found.problems) == len(damaged)
    assert {problem.what for problem in found.problems} == {"altered"}
    untouched = {path: path.stat().st_mtime_ns for path in files if path not in damaged}
    assert verify(made, repair=True).is_sound
    assert files_of(made) == before
    assert {path: path.stat().st_mtime_ns for path in untouched} == untouched
    assert not (made / ".precomputed" / "verifying").exists()
    assert verify(made).problems == ()


@pytest.mark.parametrize("made", ["tiff", "raw"], indirect=True)
def test_missing_and_truncated_chunks_are_told_apart(made: Path) -> None:
    before = files_of(made)
    coarsest, *_, finest = sorted((made / key) for key in ("4_4_4", "1_1_1"))[::-1]
    gone, torn = next(coarsest.iterdir()), next(finest.iterdir())
    gone.unlink()
    os.truncate(torn, 20)
    assert {(problem.key, problem.what) for problem in verify(made).problems} == {
        ("4_4_4", "missing"),
        ("1_1_1", "truncated"),
    }
    assert verify(made, repair=True).is_sound
    assert files_of(made) == before


@pytest.mark.parametrize("made", ["sharded"], indirect=True)
def test_a_damaged_shard_is_mended(made: Path) -> None:
    before = files_of(made)
    (shard, *_) = _chunk_files(made)
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert verify(made).problems
    assert verify(made, repair=True).is_sound
    assert verify(made).problems == ()
    assert files_of(made) == before


@pytest.mark.parametrize("made", ["tiff", "sharded"], indirect=True)
def test_chunks_that_are_as_they_were_written_are_never_replaced_by_another_stack(made: Path, tmp_path: Path) -> None:
    before, other = files_of(made), write_planes(tmp_path / "other", volume(70, 40, 33, seed=9))
    for source in ([], [str(other)]):
        if not source:
            write_planes(tmp_path / "planes", volume(70, 40, 33, seed=9))
        assert verify(made).is_sound
        found = verify(made, source, repair=True)
        assert len(found.problems) == found.chunks
        assert {problem.what for problem in found.problems} == {"not what the source gives now"}
        assert not found.is_sound
        assert "Nothing was written" in found.remedy
        assert files_of(made) == before
    (tmp_path / "planes").rename(tmp_path / "moved")
    with pytest.raises(InvalidInput, match="planes"):
        verify(made, [])


@pytest.mark.parametrize("made", ["tiff", "raw", "sharded", "zarr"], indirect=True)
def test_a_chunk_is_mended_only_as_it_was_written(made: Path, tmp_path: Path) -> None:
    """One plane is another one now: what is made of it is not written, and the sentence names its file."""
    _damage(made)
    changed = tmp_path / "planes" / "img_20.tif"
    tifffile.imwrite(changed, volume(70, 40, 1, seed=9)[0], compression="deflate")
    os.utime(changed, (1, 1))
    before, found = files_of(made), verify(made)
    assert found.problems
    mended = verify(made, repair=True)
    after = {name: data for name, data in files_of(made).items() if data != before.get(name)}
    assert not mended.is_sound
    of_changed = {problem.chunk for problem in mended.problems if problem.differs}
    assert of_changed == {problem.chunk for problem in mended.problems if not problem.mended} != set()
    assert mended.changed == (str(changed),)
    assert mended.remedy.startswith(f"The source is not what the dataset was made of: {changed} changed since. Nothing")
    left = verify(made).problems
    assert {problem.chunk for problem in left} == of_changed
    assert bool(after) == any(problem.mended for problem in mended.problems)
    kept = {f"{problem.key}/{problem.chunk}" for problem in left}
    assert kept.isdisjoint(name.removesuffix(".tiff") for name in after)
    write_planes(tmp_path / "planes", volume(70, 40, 33))
    assert verify(made, repair=True).is_sound
    assert verify(made, []).is_sound


@pytest.mark.parametrize("made", ["tiff"], indirect=True)
def test_with_the_manifest_of_an_older_version_chunks_are_checked_but_not_mended(made: Path) -> None:
    for path in (made / ".precomputed" / "manifest").iterdir():
        entries = np.load(path)
        np.save(path, entries[["size", "crc32"]].astype([("size", "<u8"), ("crc32", "<u4")]))
    assert verify(made, []).is_sound
    _damage(made)
    before = files_of(made)
    assert len(verify(made).problems) == 59
    with pytest.raises(InvalidInput, match="older version"):
        verify(made, repair=True)
    assert files_of(made) == before


def _damage(dataset: Path) -> None:
    """Flip a bit of every file of chunks."""
    for path in _chunk_files(dataset):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("made", ["tiff"], indirect=True)
def test_another_stack_is_refused(made: Path, tmp_path: Path) -> None:
    other = write_planes(tmp_path / "other", volume(71, 40, 33))
    with pytest.raises(InvalidInput, match="71 × 40 × 33 voxels of uint16 instead of 70 × 40 × 33 .*--from"):
        verify(made, [str(other)])


@pytest.mark.parametrize("made", ["tiff"], indirect=True)
def test_what_was_not_converted_here_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        verify(tmp_path / "nothing")
    with pytest.raises(NotFound, match="no info"):
        verify(tmp_path)
    with pytest.raises(NotFound, match="is a file"):
        verify(made / "info")
    (made / ".precomputed" / "conversion.json").unlink()
    with pytest.raises(InvalidInput, match="no manifest"):
        verify(made)


@pytest.mark.parametrize("made", ["tiff"], indirect=True)
def test_a_source_that_is_gone_cannot_repair(made: Path, tmp_path: Path) -> None:
    _chunk_files(made)[0].unlink()
    (tmp_path / "planes" / "img_3.tif").write_bytes(b"no TIFF")
    with pytest.raises(SourceError, match=r"img_3.tif"):
        verify(made, repair=True)


@pytest.mark.parametrize("format_name", ["tiff", "raw", "sharded", "zarr", "ngff"])
@pytest.mark.parametrize("offset", [(0, 0, 0), (30, 7, 500)])
def test_the_source_is_read_where_it_was_whatever_the_offset_is_now(
    tmp_path: Path, format_name: str, offset: tuple[int, int, int]
) -> None:
    source, made = write_planes(tmp_path / "planes", volume(140, 130, 24)), tmp_path / "made"
    cropped = options(
        format=format_name, chunk_size=(32, 32, 8), levels=3, source=source_options(crop="20:120,21:120,1:20")
    )
    convert(str(source), made, cropped)
    describe(made, Corrections(offset=offset, voxel_size=parse_edges("1,1,4")), slice_naming)
    before = files_of(made)
    assert verify(made, []).is_sound
    for path in _chunk_files(made)[:3]:
        path.unlink()
    assert verify(made, repair=True).is_sound
    assert files_of(made) == before
    assert verify(made, []).problems == ()


@pytest.mark.parametrize("format_name", ["tiff", "sharded", "zarr"])
@pytest.mark.parametrize("on_error", ["skip", "blank"])
def test_planes_that_were_left_out_are_left_out_again(tmp_path: Path, on_error: str, format_name: str) -> None:
    source, made = write_planes(tmp_path / "planes", volume(70, 40, 33), compression="zlib"), tmp_path / "made"
    os.truncate(source / "img_3.tif", 3000)
    (source / "img_20.tif").write_bytes(b"no TIFF")
    convert(str(source), made, options(**MANY, format=format_name, on_error=on_error))
    before = files_of(made)
    assert verify(made).is_sound
    assert verify(made, []).problems == ()
    for older in (False, True):
        _damage(made)
        assert verify(made, repair=True).repaired
        assert files_of(made) == before
        if not older:
            record = _forget(made, "on_error", "lost")
    (made / ".precomputed" / "conversion.json").write_text(record)
    good, broken = (source / "img_5.tif").read_bytes(), (source / "img_20.tif").read_bytes()
    (source / "img_5.tif").write_bytes(broken)
    with pytest.raises(SourceError, match="img_5.tif"):
        verify(made, [], repair=True)
    (source / "img_5.tif").write_bytes(good)
    (source / "img_20.tif").write_bytes(good)
    found = verify(made, [], repair=True)
    assert str(source / "img_20.tif") in found.changed
    assert found.problems == ()
    assert files_of(made) == before


def test_a_chunk_that_was_left_out_is_to_be_absent(tmp_path: Path) -> None:
    source, made = write_planes(tmp_path / "planes", volume(40, 40, 33)), tmp_path / "made"
    (source / "img_20.tif").write_bytes(b"no TIFF")
    convert(str(source), made, options(**MANY, on_error="skip"))
    (made / "1_1_1" / "0-16_0-16_16-32.tiff").write_bytes(b"x")
    (problem,) = verify(made, [], repair=True).problems
    assert str(problem) == "1_1_1/0-16_0-16_16-32 is there, though the conversion left it out"


@pytest.mark.parametrize("format_name", ["tiff", "zarr", "ngff"])
@pytest.mark.parametrize("damage", ["remove", "replace", "move"])
def test_files_beside_the_chunks_are_checked_and_made_again(tmp_path: Path, format_name: str, damage: str) -> None:
    source, made = write_planes(tmp_path / "planes", volume(70, 40, 33)), tmp_path / "first"
    convert(str(source), made, options(**MANY, format=format_name))
    describe(made, Corrections(voxel_size=parse_edges("0.65,0.65,2"), colors=("#ff8000",)), slice_naming)
    assert verify(made).is_sound
    if damage == "move":
        made.rename(tmp_path / "second")
        assert verify(tmp_path / "second").is_sound
        return
    before = files_of(made)
    names = {name for name in before if Path(name).name[:2] == ".z"} | {"statistics.json"}
    assert len(names) == (1 if format_name == "tiff" else 6)
    for name in names:
        (made / name).unlink()
        if damage == "replace":
            (made / name).write_text("{}")
    found = verify(made, repair=False)
    assert {problem.file for problem in found.problems} == names
    assert {problem.what for problem in found.problems} == {"missing" if damage == "remove" else "altered"}
    repaired = verify(made, repair=True)
    assert (repaired.repaired, {problem.file for problem in repaired.problems}) == (True, names)
    assert files_of(made) == before


@pytest.mark.parametrize("made", ["tiff"], indirect=True)
def test_what_cannot_be_made_again_is_told(made: Path) -> None:
    for name in ("provenance.json", "provenance"):
        (made / name).unlink()
    found = _run(made, "--repair")
    assert "provenance.json is missing" in found.output
    assert "0 of 59 chunks and 2 other files are wrong" in found.output
    assert "cannot be made again" in str(found.exception)
    assert json.loads(_run(made, "--json").output)["problems"][0] == {
        "file": "provenance",
        "what": "missing",
        "mended": False,
    }


@pytest.mark.parametrize("made", ["tiff"], indirect=True)
def test_statistics_of_another_stack_are_not_written(made: Path, tmp_path: Path) -> None:
    write_planes(tmp_path / "planes", volume(70, 40, 33, seed=4))
    (made / "statistics.json").unlink()
    assert not verify(made, repair=True).is_sound
    assert not (made / "statistics.json").exists()


@pytest.mark.parametrize("made", ["tiff"], indirect=True)
@pytest.mark.parametrize("damage", [None, b"", b'{"type": "ima', b"{}", b"[1]"])
def test_a_lost_or_damaged_info_is_told_with_the_remedy_which_works(
    made: Path, tmp_path: Path, damage: bytes | None
) -> None:
    before = files_of(made)
    (made / "info").unlink()
    if damage is not None:
        (made / "info").write_bytes(damage)
    said = f"{made}/info is {'gone' if damage is None else 'damaged'}.*precomputed convert --overwrite"
    for command_of in (verify, described):
        with pytest.raises(PrecomputedError, match=said):
            command_of(made)
    leaf = made / "annotations" / "x0y0z0" / "fibers.json"
    leaf.parent.mkdir(parents=True)
    leaf.write_text("[]")
    with pytest.raises(InvalidInput, match="--annotations keep"):
        convert(str(tmp_path / "planes"), made, options(**MANY, overwrite=True))
    convert(str(tmp_path / "planes"), made, options(**MANY, overwrite=True, annotations="keep"))
    assert files_of(made) == {**before, "annotations/x0y0z0/fibers.json": b"[]"}


def test_an_interrupted_conversion_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "made" / ".precomputed" / "staging" / "1").mkdir(parents=True)
    with pytest.raises(NotFound, match="interrupted conversion; the same `precomputed convert`"):
        verify(tmp_path / "made")


def test_the_layers_of_a_dataset_are_checked_and_mended_each(tmp_path: Path) -> None:
    source, made = tmp_path / "stack.tif", tmp_path / "made"
    tifffile.imwrite(source, volume(70, 40, 66).reshape(33, 2, 40, 70), imagej=True, metadata={"axes": "ZCYX"})
    convert_split([str(source)], made, options(**MANY), lambda path, asked: convert(str(source), path, asked))
    layers = [path for path in sorted(made.iterdir()) if (path / "info").exists()]
    assert len(layers) == 2
    before = files_of(made)
    assert (verify(made, []).chunks, verify(made).problems) == (2 * 59, ())
    chunk = next((layers[1] / "4_4_4").iterdir())
    chunk.unlink()
    (layers[0] / "statistics.json").unlink()
    assert [str(problem) for problem in verify(made).problems] == [
        f"{layers[0].name}/statistics.json is missing",
        f"{layers[1].name}/4_4_4/{chunk.name.removesuffix('.tiff')} is missing",
    ]
    assert verify(made, repair=True).repaired
    assert files_of(made) == before


def _forget(dataset: Path, *names: str) -> str:
    """Make the record of the conversion one that says less; returns what it said."""
    path = dataset / ".precomputed" / "conversion.json"
    text = path.read_text()
    path.write_text(json.dumps({name: value for name, value in json.loads(text).items() if name not in names}))
    return text


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.mark.parametrize("made", ["tiff"], indirect=True)
def test_the_command_lists_problems_and_fails(made: Path) -> None:
    assert _run(made).output == f"{made}: all 59 chunks are as they were written\n"
    gone = next((made / "4_4_4").iterdir())
    gone.unlink()
    result = _run(made)
    assert f"4_4_4/{gone.name.removesuffix('.tiff')} is missing" in result.output
    assert result.exception is not None
    assert json.loads(_run(made, "--json").output)["problems"][0]["what"] == "missing"
    repaired = _run(made, "--repair")
    assert (repaired.exit_code, repaired.output.splitlines()[-1]) == (
        0,
        f"{made}: 1 of 59 chunks are wrong, all mended",
    )
