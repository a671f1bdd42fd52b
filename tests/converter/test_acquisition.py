"""What a source holds, by file names, metadata or --axes, and what is chosen of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from converter.stacks.channels import Channel
from converter.stacks.planes import read_rows
from converter.stacks.source import read_acquisition, read_stack
from converter.stacks.source_options import SourceOptions, source_options
from precomputed_server.errors import InvalidInput, SourceError
from tests.converter.acquisitions import block, plane, stack, voxels, write_pages

PATTERN = "img_{c}_t{t}_z{z}.tif"


def _named(directory: Path, names: str, c: list[Any], t: list[int], z: Iterable[int]) -> Path:
    for (i, channel), (j, time), depth in itertools.product(enumerate(c), enumerate(t), z):
        write_pages(directory / names.format(c=channel, t=time, z=depth), [plane(t=j, c=i, z=depth)])
    return directory


@pytest.mark.parametrize("names", ["img_{c}_t{t}_z{z}.tif", "img_{c}_t{t:03}_z{z:04}.tif"])
def test_file_names_say_channel_time_and_z(tmp_path: Path, names: str) -> None:
    _named(tmp_path, names, ["DAPI", "GFP"], [1, 2, 10], [8, 9, 10, 11])
    chosen = stack(tmp_path, pattern=PATTERN, time="10")
    assert [channel.name for channel in chosen.channels] == ["DAPI", "GFP"]
    np.testing.assert_array_equal(
        voxels(tmp_path, pattern=PATTERN, time="10"), block(t=[2], c=[0, 1], z=range(8, 12))[0, 0]
    )
    for channel in ("GFP", "1"):
        np.testing.assert_array_equal(
            voxels(tmp_path, pattern=PATTERN, time="002", channel=[channel]), block(t=[1], c=[1], z=range(8, 12))[0, 0]
        )
    both = voxels(tmp_path, pattern=PATTERN, time="1", channel=["GFP", "DAPI"])
    np.testing.assert_array_equal(both, block(c=[1, 0], z=range(8, 12))[0, 0])


def test_directories_in_the_pattern(tmp_path: Path) -> None:
    _named(tmp_path, "{c}/t_{t}/slice {z}.tiff", [561, 488], [0], [3, 20])
    (tmp_path / "overview.tif").write_bytes(b"")
    (tmp_path / ".hidden" / "t_0").mkdir(parents=True)
    pattern = "{c}/t_{t}/slice {z}.tiff"
    chosen = stack(tmp_path, pattern=pattern)
    assert [channel.name for channel in chosen.channels] == ["488", "561"]
    np.testing.assert_array_equal(voxels(tmp_path, pattern=pattern), block(c=[1, 0], z=[3, 20])[0, 0])
    np.testing.assert_array_equal(voxels(tmp_path, pattern=pattern, channel=["561"]), block(z=[3, 20])[0, 0])
    with pytest.raises(InvalidInput, match="There is no channel 0; there are 488, 561"):
        stack(tmp_path, pattern=pattern, channel=["0"])


def test_an_axis_may_be_in_the_pattern_twice(tmp_path: Path) -> None:
    _named(tmp_path, "c{c}/c{c}_z{z}.tif", [0, 1], [0], [1, 2])
    np.testing.assert_array_equal(voxels(tmp_path, pattern="c{c}/c{c}_z{z}.tif"), block(c=[0, 1], z=[1, 2])[0, 0])
    write_pages(tmp_path / "c0" / "c1_z3.tif", [plane()])
    with pytest.raises(SourceError, match=r"c0/c1_z3\.tif does not match"):
        stack(tmp_path, pattern="c{c}/c{c}_z{z}.tif")


def test_pages_run_through_what_the_name_does_not_say(tmp_path: Path) -> None:
    for c, t in itertools.product(range(2), range(2)):
        write_pages(tmp_path / f"c{c}_t{t}.tif", block(t=[t], c=[c], z=range(5))[0, 0, 0])
    np.testing.assert_array_equal(
        voxels(tmp_path, pattern="c{c}_t{t}.tif", time="1"), block(t=[1], c=[0, 1], z=range(5))[0, 0]
    )
    (tmp_path / "all").mkdir()
    for c in range(2):
        tifffile.imwrite(
            tmp_path / "all" / f"{c}.tif",
            block(t=range(3), c=[c], z=range(2))[0][:, 0],
            imagej=True,
            metadata={"axes": "TZYX"},
        )
    np.testing.assert_array_equal(
        voxels(tmp_path / "all", pattern="{c}.tif", time="2"), block(t=[2], c=[0, 1], z=range(2))[0, 0]
    )
    with pytest.raises(SourceError, match="has a t in its name and 3 inside"):
        stack(tmp_path / "all", pattern="{t}.tif")


def test_z_in_names_and_pages_follow_each_other(tmp_path: Path) -> None:
    for part in range(3):
        write_pages(tmp_path / f"part{part}.tif", [plane(z=2 * part), plane(z=2 * part + 1)])
    for texts in ({}, {"pattern": "part{z}.tif"}):
        np.testing.assert_array_equal(voxels(tmp_path, **texts), block(z=range(6))[0, 0])


def test_what_does_not_match_is_named(tmp_path: Path) -> None:
    _named(tmp_path, PATTERN, ["a"], [0], [1, 2, 3])
    (tmp_path / "thumb.tif").write_bytes(b"")
    with pytest.raises(SourceError, match=r"thumb\.tif does not match --pattern img_\{c\}"):
        stack(tmp_path, pattern=PATTERN)
    (tmp_path / "zoom.tif").write_bytes(b"")
    with pytest.raises(SourceError, match=r"thumb\.tif and 1 more do not match"):
        stack(tmp_path, pattern=PATTERN)
    assert stack(tmp_path / "img_*.tif", pattern=PATTERN).size[2] == 3


@pytest.mark.parametrize(
    ("removed", "sentence"),
    [
        (["img_a_t0_z2.tif", "img_b_t0_z2.tif"], r"has no file with z = 2; copy"),
        (["img_b_t0_z2.tif", "img_b_t0_z5.tif", "img_b_t0_z6.tif"], r"lacks c = b z = 2, 5–6; copy"),
        (["img_a_t0_z1.tif", "img_b_t0_z4.tif"], r"lacks c = a z = 1; c = b z = 4; copy"),
    ],
)
def test_a_missing_plane_is_named(tmp_path: Path, removed: list[str], sentence: str) -> None:
    _named(tmp_path, PATTERN, ["a", "b"], [0], [1, 2, 3, 4, 5, 6, 7])
    for name in removed:
        (tmp_path / name).unlink()
    with pytest.raises(SourceError, match=sentence):
        stack(tmp_path, pattern=PATTERN)


def test_a_channel_that_is_whole_can_be_taken_alone(tmp_path: Path) -> None:
    _named(tmp_path, PATTERN, ["a", "b"], [0], [1, 2, 3])
    (tmp_path / "img_b_t0_z2.tif").unlink()
    np.testing.assert_array_equal(voxels(tmp_path, pattern=PATTERN, channel=["a"]), block(z=[1, 2, 3])[0, 0])


def test_regular_steps_are_no_gaps(tmp_path: Path) -> None:
    _named(tmp_path, "{z}.tif", [0], [0], [0, 25, 50, 75])
    assert stack(tmp_path, pattern="{z}.tif").size[2] == 4
    (tmp_path / "25.tif").unlink()
    write_pages(tmp_path / "100.tif", [plane()])
    with pytest.raises(SourceError, match="no file with z = 25;"):
        stack(tmp_path, pattern="{z}.tif")


def test_planes_that_are_there_twice_are_named(tmp_path: Path) -> None:
    _named(tmp_path, "{z}.tif", [0], [0], [1, 2, 3])
    write_pages(tmp_path / "002.tif", [plane()])
    with pytest.raises(SourceError, match=r"2\.tif and .*2\.tif are both z = 2"):
        stack(tmp_path, pattern="{z}.tif")


def test_numbers_and_texts_do_not_mix_along_z(tmp_path: Path) -> None:
    _named(tmp_path, "{z}.tif", [0], [0], [1, 2, 3])
    write_pages(tmp_path / "max.tif", [plane()])
    with pytest.raises(SourceError, match=r"max\.tif has z = max, no number, unlike the others"):
        stack(tmp_path, pattern="{z}.tif")


@pytest.mark.parametrize("pattern", ["img.tif", "img_{q}.tif", "{c}{z}.tif", "/a/{z}.tif", "../{z}.tif", "{}.tif"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput, match="--pattern"):
        source_options(pattern=pattern)


def test_positions_are_chosen(tmp_path: Path) -> None:
    for p, z in itertools.product(range(2), range(3)):
        write_pages(tmp_path / f"pos{p}" / f"{z}.tif", [plane(p=p, z=z)])
    with pytest.raises(InvalidInput, match=r"holds 2 positions \(0–1\); choose one with --position\.$"):
        stack(tmp_path, pattern="pos{p}/{z}.tif")
    np.testing.assert_array_equal(
        voxels(tmp_path, pattern="pos{p}/{z}.tif", position="1"), block(p=[1], z=range(3))[0, 0]
    )


@pytest.mark.parametrize("order", ["TZCYX", "TZYX", "ZCYX", "TCYX"])
def test_imagej_hyperstacks(tmp_path: Path, order: str) -> None:
    lengths = {"t": 3, "z": 4, "c": 2}
    present = {axis: range(length) if axis.upper() in order else range(1) for axis, length in lengths.items()}
    hyperstack = block(**present)[0].transpose(0, 2, 1, 3, 4)
    source = tmp_path / "stack.tif"
    tifffile.imwrite(source, hyperstack, imagej=True, metadata={"axes": "TZCYX"})
    time = "2" if "T" in order else None
    expected = block(t=[2 if time else 0], c=present["c"], z=present["z"])[0, 0]
    np.testing.assert_array_equal(voxels(source, time=time), expected)
    np.testing.assert_array_equal(voxels(source, time=time, channel=[str(len(expected) - 1)]), expected[-1:])
    if time:
        with pytest.raises(InvalidInput, match=r"stack\.tif holds 3 time points \(0–2\); choose one with --time"):
            stack(source)
        with pytest.raises(InvalidInput, match="There is no time point 3; there are 0–2"):
            stack(source, time="3")


def test_slices_that_imagej_calls_frames_can_be_taken_as_such(tmp_path: Path) -> None:
    source = tmp_path / "stack.tif"
    tifffile.imwrite(source, block(z=range(5))[0, 0, 0], imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(InvalidInput, match="choose one with --time, or add --axes z if they are slices"):
        stack(source)
    np.testing.assert_array_equal(voxels(source, axes="z"), block(z=range(5))[0, 0])


@pytest.mark.parametrize("axes", ["tzc", "TZCYX", "t=2,z,c=3", "t,z=4,c=3", "t=2,z=4,c=3"])
def test_axes_say_what_the_pages_are(tmp_path: Path, axes: str) -> None:
    pages = block(t=range(2), c=range(3), z=range(4))[0].transpose(0, 2, 1, 3, 4)
    source = tmp_path / "stack.tif"
    if "=" in axes:
        write_pages(source, pages.reshape(-1, *pages.shape[-2:]))
    else:
        tifffile.imwrite(source, pages, photometric="minisblack")
    np.testing.assert_array_equal(voxels(source, axes=axes, time="1"), block(t=[1], c=range(3), z=range(4))[0, 0])


def test_axes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    source = write_pages(tmp_path / "stack.tif", block(z=range(6))[0, 0, 0])
    with pytest.raises(SourceError, match="declares 4 z × 2 c but holds 6 pages; correct them"):
        stack(source, axes="z=4,c=2")
    with pytest.raises(SourceError, match="has 6 pages, which --axes does not divide"):
        stack(source, axes="zc")
    with pytest.raises(SourceError, match="has 6 pages, which --axes does not divide"):
        stack(source, axes="z,c=4")
    for text in ("", "q", "zz", "z=0,c", "yx", "z-c"):
        with pytest.raises(InvalidInput, match="--axes"):
            stack(source, axes=text or "!")


def test_samples_and_pages_are_both_channels(tmp_path: Path) -> None:
    """Two files of two samples: four channels; chosen samples are read in the order that was asked for."""
    for c in range(2):
        pixels = np.stack([plane(c=2 * c), plane(c=2 * c + 1)], -1 if c else 0)
        planar = "contig" if c else "separate"
        tifffile.imwrite(
            tmp_path / f"{'ab'[c]}.tif", pixels, photometric="minisblack", planarconfig=planar, metadata=None
        )
    np.testing.assert_array_equal(voxels(tmp_path, pattern="{c}.tif"), block(c=range(4))[0, 0])
    assert [channel.name for channel in stack(tmp_path, pattern="{c}.tif").channels] == ["a 0", "a 1", "b 0", "b 1"]
    for wanted in ([3], [1], [3, 2], [2, 0, 3], [0, 1, 2, 3]):
        made = voxels(tmp_path, pattern="{c}.tif", channel=[str(channel) for channel in wanted])
        np.testing.assert_array_equal(made, block(c=wanted)[0, 0])
    assert len(stack(tmp_path, pattern="{c}.tif", channel=["3", "2", "0"]).planes[0]) == 2  # each page is read once


def test_files_may_have_different_numbers_of_channels(tmp_path: Path) -> None:
    for c, inside in (("a", 1), ("b", 2)):
        pages = block(t=[ord(c) - 97], c=range(inside), z=range(3))[0, 0].transpose(1, 0, 2, 3)
        tifffile.imwrite(tmp_path / f"{c}.tif", pages, imagej=True, metadata={"axes": "ZCYX"})
    assert [channel.name for channel in stack(tmp_path, pattern="{c}.tif").channels] == ["a 0", "b 0", "b 1"]
    made = voxels(tmp_path, pattern="{c}.tif", channel=["b 1", "a 0"])
    np.testing.assert_array_equal(made[0], block(t=[1], c=[1], z=range(3))[0, 0, 0])
    np.testing.assert_array_equal(made[1], block(z=range(3))[0, 0, 0])


def test_colours_are_channels_with_names(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "rgb.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb", metadata=None)
    chosen = stack(tmp_path / "rgb.tif", channel=["green", "0"])
    assert chosen.channels == (Channel("green", "#00ff00"), Channel("red", "#ff0000"))
    assert chosen.num_channels == 2


def test_imagej_look_up_tables_are_colours(tmp_path: Path) -> None:
    ramp, off = np.arange(256, dtype=np.uint8), np.zeros(256, np.uint8)
    tables = [np.stack([ramp, off, off]), np.stack([ramp, ramp, ramp])]
    source = tmp_path / "lut.tif"
    tifffile.imwrite(source, block(c=range(2))[0, 0, :, 0], imagej=True, metadata={"axes": "CYX", "LUTs": tables})
    assert [channel.color for channel in stack(source).channels] == ["#ff0000", None]


def test_reduced_copies_in_subdirectories_are_no_planes(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "pyramid.tif") as writer:
        for z in range(3):
            writer.write(plane(z=z), metadata=None, subifds=2, contiguous=False, photometric="minisblack")
            for step in (2, 4):
                writer.write(plane(z=z)[::step, ::step], metadata=None, subfiletype=1, photometric="minisblack")
    np.testing.assert_array_equal(voxels(tmp_path / "pyramid.tif"), block(z=range(3))[0, 0])


EXPECTED = [
    ({"c": "ab", "z": range(1, 8)}, "z=7,c=2", None),
    ({"c": "ab", "z": range(1, 8)}, "z=7,c=2,t=1,p=1,x=8,y=6", None),
    ({"c": "ab", "z": range(1, 6)}, "z=7", r"z is 5, not 7 \(2 are missing before 1 or after 5\)"),
    ({"c": "ab", "z": [1, 2, 4, 5]}, "z=5", r"z is 4, not 5 \(number 3 is missing\)"),
    ({"c": "ab", "z": [1, 2, 4, 5]}, "z=6", r"z is 4, not 6 \(number 3 is missing and 1 more is missing before 1 or"),
    ({"c": "ab", "z": [1, 2, 5, 7]}, "z=7", r"z is 4, not 7 \(numbers 3–4, 6 are missing\)"),
    ({"c": "a", "z": range(1, 8)}, "z=7,c=2", "c is 1, not 2"),
    ({"c": "ab", "z": range(1, 8)}, "z=6", r"z is 7, not 6\."),
    ({"c": "ab", "z": range(1, 8)}, "x=9,y=6", r"x is 8, not 9\."),
]


@pytest.mark.parametrize(("made", "expected", "sentence"), EXPECTED)
def test_a_half_copied_acquisition_is_refused(
    tmp_path: Path, made: dict[str, Any], expected: str, sentence: str | None
) -> None:
    _named(tmp_path, PATTERN, list(made["c"]), [0], list(made["z"]))
    if sentence is None:
        stack(tmp_path, pattern=PATTERN, expect=expected)
    else:
        with pytest.raises(SourceError, match=f"is not what --expect says: {sentence}"):
            stack(tmp_path, pattern=PATTERN, expect=expected)


@pytest.mark.parametrize("pattern", [None, "img_{z}.tif"])
def test_a_tolerant_caller_gets_what_cannot_be_read_in_its_place(tmp_path: Path, pattern: str | None) -> None:
    """Damage that shows in the header is met when the plane is read, as all other damage is."""
    _named(tmp_path, "img_{z}.tif", [0], [0], range(8))
    (tmp_path / "img_0.tif").write_bytes(b"II*\0")
    (tmp_path / "img_3.tif").write_bytes((tmp_path / "img_3.tif").read_bytes()[:60])
    chosen = read_stack(str(tmp_path), source_options(pattern=pattern), tolerant=True)
    assert chosen.size == (8, 6, 8)
    for z, (page,) in enumerate(chosen.planes):
        if z in (0, 3):
            with pytest.raises(SourceError, match=rf"img_{z}\.tif is not a readable TIFF"):
                list(read_rows([page], 0, 6))
        else:
            np.testing.assert_array_equal(next(read_rows([page], 0, 6))[0], plane(z=z))


def test_a_tolerant_caller_gets_a_place_for_what_is_missing(tmp_path: Path) -> None:
    _named(tmp_path, PATTERN, ["a", "b"], [0], range(4))
    (tmp_path / "img_b_t0_z2.tif").unlink()
    chosen = read_stack(str(tmp_path), source_options(pattern=PATTERN), tolerant=True)
    assert (chosen.size, chosen.num_channels) == ((8, 6, 4), 2)
    with pytest.raises(SourceError, match="lacks c = b z = 2; copy what is missing"):
        list(read_rows(chosen.planes[2], 0, 6))
    assert len(list(read_rows(chosen.planes[3], 0, 6))) == 2


def test_what_lacks_is_named_without_a_pattern_too(tmp_path: Path) -> None:
    _named(tmp_path, "run2_{z:04}.tif", [0], [0], [z for z in range(20) if z not in (3, 4, 11)])
    with pytest.raises(SourceError, match=r"z is 17, not 20 \(numbers 3–4, 11 are missing\)"):
        stack(tmp_path, expect="z=20")
    (tmp_path / "run2_0007.tif").write_bytes(b"II*\0")
    with pytest.raises(SourceError, match=r"run2_0007\.tif is not a readable TIFF"):
        stack(tmp_path)
    with pytest.raises(
        SourceError, match=r"z is 17, not 20 \(numbers 3–4, 11 are missing\); \S*run2_0007\.tif is not a readable TIFF"
    ):
        stack(tmp_path, expect="z=20")


def test_planes_that_lack_in_the_middle_are_counted(tmp_path: Path) -> None:
    _named(tmp_path, PATTERN, ["a", "b"], [0, 1], [1, 2, 3])
    for name in ("img_b_t1_z2.tif", "img_b_t1_z3.tif"):
        (tmp_path / name).unlink()
    with pytest.raises(SourceError, match=r"2 planes lack: t = 1 c = b z = 2–3\.$"):
        stack(tmp_path, pattern=PATTERN, time="0", expect="z=3,c=2,t=2")


@pytest.mark.parametrize("text", ["z", "z=", "q=3", "z=3;c=2", "z=-1", ""])
def test_what_is_no_expectation_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="--expect"):
        source_options(expect=text or " ")


def test_options_are_recorded_without_defaults() -> None:
    assert SourceOptions().to_json() == {}
    options = source_options(channel=["a"], time="3", pattern="{z}.tif", crop="1:2", flip="z", transpose="yxz")
    assert options.to_json() == {
        "pattern": "{z}.tif",
        "channels": ["a"],
        "time": "3",
        "crop": [[1, 2], [None, None], [None, None]],
        "flip": [False, False, True],
        "transpose": [1, 0, 2],
    }


def test_files_that_are_read_at_the_same_time_keep_their_order(tmp_path: Path) -> None:
    first = write_pages(tmp_path / "z0.tif", [plane()])
    for z in range(1, 300):
        (tmp_path / f"z{z}.tif").write_bytes(first.read_bytes())
    acquisition = read_acquisition(str(tmp_path), source_options(pattern="z{z}.tif"))
    assert acquisition.axes["z"].labels == tuple(range(300))
