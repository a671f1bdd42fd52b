"""Corrections without converting again: what they change, what they leave, and what a kill leaves of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore
from click.testing import CliRunner, Result

from annotation_store.slices import slice_naming
from converter import convert
from converter.describe import Corrections, describe, described
from converter.output.destination import Destination, locked
from converter.stacks.source_options import source_options
from converter.stacks.voxel_size import parse_edges
from converter.verify import verify
from precomputed_server.cli_describe import describe_command
from precomputed_server.errors import InvalidInput, NotFound, PrecomputedError
from precomputed_server.files import Tree
from precomputed_server.readers.chunks import find_chunk
from precomputed_server.readers.volumes import Volumes
from tests.converter.stacks import options, read_info, read_level, read_record, volume, write_planes
from tests.data import write_dataset

FORMATS = ("tiff", "raw", "sharded", "zarr", "ngff")


class Killed(BaseException):
    """Stands for kill -9 within this process."""


@pytest.fixture
def source(tmp_path: Path) -> str:
    return str(write_planes(tmp_path / "planes", volume(40, 30, 12)))


@pytest.fixture
def made(tmp_path: Path, source: str) -> Path:
    convert(source, tmp_path / "made", options(chunk_size=(16, 16, 8)))
    return tmp_path / "made"


def corrected(*arguments: object) -> Result:
    return CliRunner().invoke(describe_command, [str(argument) for argument in arguments])


def contents(dataset: Path) -> dict[str, str]:
    """A digest of every file but those that conversions and corrections keep for themselves."""
    return {
        str(path.relative_to(dataset)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(dataset.rglob("*"))
        if path.is_file() and path.name not in ("lock", "events.jsonl")
    }


def annotate(dataset: Path, leaf: str, z: float) -> Path:
    block = dataset / "annotations" / "x0y0z0"
    block.mkdir(exist_ok=True)
    contour = {"id": "a", "type": "polygon", "points": [[1, 1, z], [5, 1, z], [5, 5, z]]}
    (block / f"{leaf}.json").write_text(json.dumps([contour]))
    return block / f"{leaf}.json"


def test_the_voxel_size_of_every_scale_changes_and_nothing_else(made: Path) -> None:
    before, info = contents(made), read_info(made)
    result = corrected(made, "--voxel-size", "0.325,,2")
    assert result.exit_code == 0, result.output
    after = contents(made)
    assert {name for name in after if after[name] != before.get(name)} == {"info", ".precomputed/dataset.json"}
    assert before.keys() == after.keys()
    scales = read_info(made)["scales"]
    assert [scale["resolution"] for scale in scales] == [[325, 1000, 2000], [650, 2000, 4000], [1300, 4000, 8000]]
    assert [{**scale, "resolution": None} for scale in scales] == [
        {**scale, "resolution": None} for scale in info["scales"]
    ]
    assert read_record(made, "dataset.json")["voxel_size"] == {
        "micrometres": [0.325, 1.0, 2.0],
        "source": ["corrected", "given", "corrected"],
    }
    assert "0.325 × 1 × 2 µm" in result.stdout


def test_what_people_say_is_in_the_record_and_without_options_it_is_printed(made: Path) -> None:
    flags = ("--title", "A brain", "--tags", "mouse,, cleared,mouse", "--description", "Light-sheet")
    assert corrected(made, *flags, "--channel-names", "GFP", "--colors", "Green").exit_code == 0
    before = contents(made)
    printed = corrected(made, "--json")
    found = json.loads(printed.stdout)
    record = read_record(made, "dataset.json")
    assert found["channels"] == record["channels"] == [{"name": "GFP", "color": "#00ff00"}]
    assert (found["title"], found["tags"], found["description"]) == ("A brain", ["mouse", "cleared"], "Light-sheet")
    assert (found["id"], found["size"], found["data_type"]) == (record["id"], [40, 30, 12], "uint16")
    for shown in ("A brain", "mouse, cleared", "Light-sheet", "40 × 30 × 12 voxels, uint16", "GFP #00ff00"):
        assert shown in corrected(made).stdout
    assert contents(made) == before
    assert corrected(made, "--tags", "", "--title", "", "--colors", "").exit_code == 0
    assert json.loads(corrected(made, "--json").stdout)["title"] == "made"
    assert read_record(made, "dataset.json")["tags"] == []
    assert read_record(made, "dataset.json")["channels"] == [{"name": "GFP", "color": "#00ff00"}]


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ("--voxel-size 0,1,1", "greater than zero"),
        ("--voxel-size 1,1", "is not X,Y,Z"),
        ("--offset 1,2", "is not X,Y,Z"),
        ("--offset -1,2,3", "0 or more"),
        ("--channel-names a,b", "2 entries for 1 channels"),
        ("--colors octarine", "octarine is no colour"),
        ("--colors #12345", "#12345 is no colour"),
    ],
)
def test_bad_input_is_one_sentence_and_changes_nothing(made: Path, flags: str, error: str) -> None:
    before = contents(made)
    result = corrected(made, *flags.split())
    assert isinstance(result.exception, InvalidInput)
    assert error in str(result.exception)
    assert contents(made) == before


def test_what_is_no_dataset_is_said_to_be_none(tmp_path: Path) -> None:
    for flags in ((), ("--title", "x")):
        assert isinstance(corrected(tmp_path, *flags).exception, NotFound)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("format", FORMATS)
def test_a_volume_that_is_given_another_offset_is_read_there(tmp_path: Path, source: str, format: str) -> None:
    made = tmp_path / "made"
    convert(source, made, options(chunk_size=(16, 16, 8), format=format))
    voxels = volume(40, 30, 12)
    for offset in ((16, 0, 8), (0, 0, 0), (101, 7, 3)):
        describe(made, Corrections(offset=offset), slice_naming)
        assert read_info(made)["scales"][0]["voxel_offset"] == list(offset)
        assert verify(made).is_sound
        assert sorted(os.listdir(made / ".precomputed")) == [
            "conversion.json",
            "dataset.json",
            "events.jsonl",
            "lock",
            "manifest",
        ]
        if format not in ("zarr", "ngff"):
            opened = _open_tensorstore(made, format)
            x, y, z = offset
            assert opened.domain.origin == (x, y, z, 0)
            np.testing.assert_array_equal(opened.read().result()[..., 0].T, voxels)
    assert (made / "annotations" / "block_info.csv").read_text() == "141,37,15\n"


def _open_tensorstore(made: Path, format: str) -> Any:  # noqa: ANN401
    if format == "tiff":  # which tensorstore does not read: the same chunks as raw files
        for path in made.glob("*/*.tiff"):
            path.with_suffix("").write_bytes(_voxels_of(made, path))
    return tensorstore.open({"driver": "neuroglancer_precomputed", "kvstore": f"file://{made}/"}).result()


def _voxels_of(made: Path, path: Path) -> bytes:
    tree = Tree(made)
    chunk = find_chunk(tree, Volumes(tree), str(path.relative_to(made)))
    assert chunk is not None
    with chunk.stored:
        data = chunk.decode(1 << 30)
    tree.close()
    return data


def test_offsets_of_coarser_scales_are_rounded_once_and_not_again_and_again(made: Path) -> None:
    first = [scale["voxel_offset"] for scale in read_info(made)["scales"]]
    for x in range(1, 8):
        describe(made, Corrections(offset=(x, 0, 0)), slice_naming)
    assert [scale["voxel_offset"][0] for scale in read_info(made)["scales"]] == [7, round(7 / 2), round(7 / 4)]
    describe(made, Corrections(offset=(0, 0, 0)), slice_naming)
    assert [scale["voxel_offset"] for scale in read_info(made)["scales"]] == first


def test_a_part_of_a_stack_keeps_its_levels_where_they_were_beside_each_other(tmp_path: Path, source: str) -> None:
    made = tmp_path / "made"
    convert(source, made, options(chunk_size=(8, 8, 8), source=source_options(crop="5:,3:,1:")))
    assert [scale["voxel_offset"][0] for scale in read_info(made)["scales"]][:2] == [5, 2]
    describe(made, Corrections(offset=(7, 3, 1)), slice_naming)
    assert [scale["voxel_offset"][0] for scale in read_info(made)["scales"]][:2] == [7, 3]


def test_a_dataset_with_annotations_keeps_its_offset(made: Path) -> None:
    annotate(made, "fibers", 3)
    before = contents(made)
    result = corrected(made, "--offset", "1,2,3")
    assert isinstance(result.exception, InvalidInput)
    assert "would no longer lie on what they mark" in str(result.exception)
    assert contents(made) == before
    assert corrected(made, "--offset", "0,0,0", "--voxel-size", "2,2,2").exit_code == 0


def test_how_slices_are_named_is_written_down_before_their_height_changes(made: Path) -> None:
    leaf = annotate(made, "z-0003", 3.5)
    before = leaf.read_bytes()
    assert corrected(made, "--voxel-size", "2,2,").exit_code == 0
    assert "annotation_z" not in read_record(made, "dataset.json")
    assert corrected(made, "--voxel-size", ",,3").exit_code == 0
    assert read_record(made, "dataset.json")["annotation_z"] == "voxel"
    assert leaf.read_bytes() == before


def test_slices_that_are_named_by_nanometres_keep_their_height(made: Path) -> None:
    annotate(made, "z-3000", 3.0)
    before = contents(made)
    result = corrected(made, "--voxel-size", ",,3")
    assert isinstance(result.exception, InvalidInput)
    assert "--voxel-size X,Y,." in str(result.exception)
    assert contents(made) == before
    assert corrected(made, "--voxel-size", "2,2,").exit_code == 0


def test_a_dataset_of_other_programs_keeps_what_we_do_not_know(tmp_path: Path) -> None:
    voxels = volume(70, 65, 20)[np.newaxis]
    write_dataset(tmp_path / "foreign", voxels, resolution_nm=(162.5, 162.5, 1000))
    path = tmp_path / "foreign" / "info"
    info = json.loads(path.read_text())
    info |= {"mesh": "mesh_mip_0", "skeletons": "s"}
    info["scales"][0]["hidden"] = True
    path.write_text(json.dumps(info))
    result = corrected(tmp_path / "foreign", "--voxel-size", "0.325,0.325,", "--offset", "64,0,0", "--title", "t")
    assert result.exit_code == 0, result.output
    changed = json.loads(path.read_text())
    assert (changed["mesh"], changed["skeletons"], changed["scales"][0]["hidden"]) == ("mesh_mip_0", "s", True)
    assert [scale["resolution"][0] for scale in changed["scales"]] == [
        2 * scale["resolution"][0] for scale in info["scales"]
    ]
    np.testing.assert_array_equal(_moved(tmp_path / "foreign", (64, 0, 0)), voxels)
    assert read_record(tmp_path / "foreign", "dataset.json")["title"] == "t"


def _moved(dataset: Path, offset: tuple[int, int, int]) -> Any:  # noqa: ANN401
    opened = tensorstore.open({"driver": "neuroglancer_precomputed", "kvstore": f"file://{dataset}/"}).result()
    assert opened.domain.origin[:3] == offset
    return np.transpose(opened.read().result(), (3, 2, 1, 0))


def test_blockfs_and_scales_outside_the_dataset_are_not_moved(made: Path) -> None:
    (made / "1_1_1" / "precomputed.blockfs").write_bytes(b"")
    with pytest.raises(InvalidInput, match="BlockFS"):
        describe(made, Corrections(offset=(1, 0, 0)), slice_naming)
    (made / "1_1_1" / "precomputed.blockfs").unlink()
    info = read_info(made)
    info["scales"][0]["key"] = "../made/1_1_1"
    (made / "info").write_text(json.dumps(info))
    before = contents(made)
    with pytest.raises(InvalidInput, match="does not lie in the dataset"):
        describe(made, Corrections(offset=(1, 0, 0)), slice_naming)
    assert contents(made) == before


@pytest.mark.parametrize("format", ["zarr", "ngff"])
def test_ome_zarr_says_the_same(tmp_path: Path, source: str, format: str) -> None:
    made = tmp_path / "made"
    convert(source, made, options(chunk_size=(16, 16, 8), format=format))
    corrections = Corrections(voxel_size=parse_edges("2,3,4"), channel_names=("GFP",), colors=("#00ff00",))
    describe(made, corrections, slice_naming)
    attributes = json.loads((made / ".zattrs").read_text())
    scale = attributes["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale[-3:] == [4.0, 3.0, 2.0]
    shown = attributes["omero"]["channels"][0]
    assert (shown["label"], shown["color"]) == ("GFP", "00FF00")
    figures = json.loads((made / "statistics.json").read_text())["channels"][0]
    assert (shown["window"]["start"], shown["window"]["end"]) == (figures["p01"], figures["p998"])


def test_a_kill_at_any_call_is_ended_by_the_next_command_and_never_half_seen(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrections = Corrections(offset=(100, 0, 9), voxel_size=parse_edges("2,2,2"), title="after")
    whole = tmp_path / "whole" / "made"
    convert(source, whole, options(chunk_size=(16, 16, 8), levels=2))
    describe(whole, corrections, slice_naming)
    wanted = contents(whole)
    killed_at = 0
    for number in count(1):
        made = tmp_path / str(number) / "made"
        convert(source, made, options(chunk_size=(16, 16, 8), levels=2))
        with monkeypatch.context() as patch:
            _kill_at(patch, number)
            try:
                describe(made, corrections, slice_naming)
                break
            except Killed:
                killed_at = number
        begun = (made / ".precomputed" / "swap.json").exists()
        if not begun and read_info(made)["scales"][0]["voxel_offset"] == [0, 0, 0]:
            assert verify(made).is_sound
            np.testing.assert_array_equal(read_level(made, 0)[0], volume(40, 30, 12))
        describe(made, Corrections(description="d"), slice_naming)  # any command ends what was begun
        describe(made, corrections if described(made).title != "after" else Corrections(title="after"), slice_naming)
        found = contents(made)
        assert _without(found) == _without(wanted)
        assert verify(made).is_sound
        assert not list((made / ".precomputed").glob("staging*"))
    assert killed_at > 20


def test_a_kill_between_any_two_writes_leaves_the_old_or_the_new_and_never_half(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is the old or the new one whole; where one is still to follow, the plan that says so is there."""
    corrections = Corrections(voxel_size=parse_edges("2,2,3"), channel_names=("GFP",), title="after")
    template, whole = tmp_path / "template" / "made", tmp_path / "whole" / "made"
    convert(source, template, options(chunk_size=(16, 16, 8), levels=2, format="zarr"))
    leaf = annotate(template, "fibers", 3).read_bytes()
    shutil.copytree(template, whole)
    describe(whole, corrections, slice_naming)
    old, new = _said(template), _said(whole)
    seen = set()
    for number in count(1):
        made = tmp_path / str(number) / "made"
        shutil.copytree(template, made)
        with monkeypatch.context() as patch:
            _kill_at(patch, number, ("mkdir", "write", *CHANGES))
            try:
                describe(made, corrections, slice_naming)
                break
            except Killed:
                pass
        states = [a if said == a else b for said, a, b in zip(_said(made), old, new, strict=True)]
        assert states == _said(made)
        begun = (made / ".precomputed" / "swap.json").exists()
        assert begun or states in (old, new)
        assert described(made).title == ("after" if begun or states == new else "made")
        seen.add((begun, tuple(said == a for said, a in zip(states, old, strict=True))))
        assert corrected(made, "--tags", "any").exit_code == 0
        ended = new if begun or states == new else old
        assert _said(made)[1:] == ended[1:]
        assert {**read_record(made, "dataset.json"), "tags": None} == {**json.loads(ended[0]), "tags": None}
        assert (made / "annotations" / "x0y0z0" / "fibers.json").read_bytes() == leaf
        assert verify(made).is_sound
    assert {(False, (True,) * 3), (True, (True,) * 3), (True, (False, True, True)), (True, (False,) * 3)} <= seen


def _said(dataset: Path) -> list[bytes]:
    """What a correction rewrites, in this order."""
    return [(dataset / name).read_bytes() for name in (".precomputed/dataset.json", ".zattrs", "info")]


def _without(found: dict[str, str]) -> dict[str, str]:
    """Without what has times, paths and ids in it."""
    names = ("provenance", "provenance.json", ".precomputed/conversion.json", ".precomputed/dataset.json")
    return {name: digest for name, digest in found.items() if name not in names}


CHANGES = ("link", "rename", "replace", "unlink", "rmdir", "fsync")


def _kill_at(patch: pytest.MonkeyPatch, wanted: int, names: Sequence[str] = CHANGES) -> None:
    """Raise Killed before the `wanted`th call that changes a name in a file system."""
    calls = count(1)
    for name in names:
        real = getattr(os, name)

        def called(*given: Any, real: Any = real, **named: Any) -> Any:  # noqa: ANN401
            if next(calls) == wanted:
                raise Killed
            return real(*given, **named)

        patch.setattr(os, name, called)


def test_corrections_are_refused_while_a_conversion_runs(made: Path) -> None:
    with locked(Destination(made)), pytest.raises(PrecomputedError, match="wait until it has ended"):
        describe(made, Corrections(title="x"), slice_naming)


def test_exact_edges_stay_exact(made: Path) -> None:
    describe(made, Corrections(voxel_size=(Fraction("0.1625"), None, Fraction("8.8"))), slice_naming)
    assert [scale["resolution"] for scale in read_info(made)["scales"]][0] == [162.5, 1000, 8800]
