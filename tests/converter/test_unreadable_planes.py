"""Planes that are missing or damaged, of which a person has said that the conversion is to go on without them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from converter import convert
from converter.cli import convert as convert_command
from converter.stacks.source_options import source_options
from precomputed_server.errors import SourceError
from tests.converter.acquisitions import COLUMNS, ROWS, block, plane, write_pages
from tests.converter.stacks import options, read_level, volume, write_planes

PATTERN = "img_{c}_z{z}.tif"
CHANNELS, DEPTH = ("GFP", "RFP"), 5
PLACES = st.tuples(st.integers(0, len(CHANNELS) - 1), st.integers(0, DEPTH - 1))
DAMAGE = st.sampled_from(["absent", "cut off", "pixels"])


def _write(directory: Path, compression: str | None = None) -> Path:
    for (c, name), z in itertools.product(enumerate(CHANNELS), range(DEPTH)):
        write_pages(directory / f"img_{name}_z{z}.tif", [plane(c=c, z=z) + 1], compression=compression)
    return directory


def _converted(*arguments: object) -> Result:
    given = [*map(str, arguments), *["--voxel-size", "1,1,1", "--jobs", "1"]]
    result = CliRunner().invoke(convert_command, given)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def _damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "absent":
        path.unlink()
    elif how == "cut off":
        path.write_bytes(content[:60])
    else:
        path.write_bytes(content[:-40] + bytes(40))


@settings(max_examples=20, deadline=None)
@example(lost={(0, 2): "absent", (1, 2): "absent"}, decoded_first=False)
@given(lost=st.dictionaries(PLACES, DAMAGE, max_size=2 * DEPTH), decoded_first=st.booleans())
def test_exactly_the_planes_that_cannot_be_read_are_0(
    tmp_path_factory: pytest.TempPathFactory, lost: dict[tuple[int, int], str], decoded_first: bool
) -> None:
    found = {z for c, z in itertools.product(range(2), range(DEPTH)) if lost.get((c, z)) != "absent"}
    assume({c for c, z in itertools.product(range(2), range(DEPTH)) if lost.get((c, z)) != "absent"} == {0, 1})
    assume({0, DEPTH - 1} <= found and len(found) > 2)  # else the numbers do not tell that one lacks
    assume(sum(how != "pixels" for how in lost.values()) < len(CHANNELS) * DEPTH)  # else no header can be read
    directory = tmp_path_factory.mktemp("lost")
    source = _write(directory / "planes", "zlib")
    expected = block(c=range(2), z=range(DEPTH))[0, 0] + 1
    for (c, z), how in lost.items():
        _damage(source / f"img_{CHANNELS[c]}_z{z}.tif", how)
        expected[c, z] = 0
    taken = source_options(pattern=PATTERN, transpose="zyx" if decoded_first else None)
    wanted = options(levels=1, chunk_size=(COLUMNS, ROWS, 3), on_error="blank", source=taken)
    summary = convert(source, directory / "made", wanted)
    assert len(summary.unreadable) == len(lost)
    if decoded_first:
        expected = expected.transpose(0, 3, 2, 1)
    np.testing.assert_array_equal(read_level(directory / "made", 0), expected)


def test_what_is_left_out_with_skip_is_said(tmp_path: Path) -> None:
    source, made = _write(tmp_path / "planes"), tmp_path / "made"
    (source / "img_RFP_z1.tif").unlink()
    flags = f"--pattern {PATTERN} --levels 1 --chunk-size 8,6,3 --format raw --on-error skip"
    result = CliRunner().invoke(
        convert_command, [str(source), str(made), *flags.split(), *["--voxel-size", "1,1,1", "--jobs", "1"]]
    )
    assert result.exit_code == 0, result.output
    assert [path.name for path in (made / "1_1_1").iterdir()] == ["0-8_0-6_3-5"]
    left_out, skipped = result.stderr.splitlines()[-2:]
    assert left_out == f"Left out: {source} lacks c = RFP z = 1; copy what is missing."
    assert skipped == "Chunks of full resolution that need these planes are absent, with all of their channels."


@pytest.mark.parametrize("source", ["planes", "planes/*.tif"])
def test_a_link_that_leads_nowhere_is_a_plane_that_cannot_be_read(tmp_path: Path, source: str) -> None:
    voxels = volume(COLUMNS, ROWS, 5)
    write_planes(tmp_path / "planes", voxels)
    link = tmp_path / "planes" / "img_2.tif"
    link.unlink()
    link.symlink_to("../elsewhere/img_2.tif")
    found, made = str(tmp_path / source), tmp_path / "made"
    with pytest.raises(SourceError, match=r"img_2\.tif is a link to \.\./elsewhere/img_2\.tif, which does not exist"):
        convert(found, made, options())
    _converted(found, made, "--levels", 1, "--on-error", "blank")
    voxels[2] = 0
    np.testing.assert_array_equal(read_level(made, 0)[0], voxels)


def test_numbers_that_lack_without_a_pattern_are_warned_of(tmp_path: Path) -> None:
    planes, made = write_planes(tmp_path / "planes", volume(COLUMNS, ROWS, 5)), tmp_path / "made"
    (planes / "img_3.tif").unlink()
    result = _converted(planes, made)
    warning = "The file names lack 3; without --pattern the planes on either side become neighbours."
    assert f"Warning: {warning}" in result.stderr.splitlines()
    as_json = _converted(planes, made, "--overwrite", "--json")
    assert json.loads(as_json.stdout.splitlines()[-1])["warnings"] == [warning]
    (planes / "img_4.tif").unlink()
    assert "Warning" not in _converted(planes, made, "--overwrite").stderr
