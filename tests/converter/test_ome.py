"""OME-TIFF: one file or several, in every order of the dimensions, with planes and files that lack."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tifffile

from converter.stacks.channels import Channel
from converter.stacks.source import read_acquisition
from converter.stacks.source_options import SourceOptions
from precomputed_server.errors import InvalidInput, SourceError
from tests.converter.acquisitions import block, ome_xml, plane, stack, voxels, write_pages

SIZES = {"SizeT": 2, "SizeC": 3, "SizeZ": 4}


@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("ZCT")])
@pytest.mark.parametrize("data", ["", "<TiffData/>", '<TiffData IFD="0" PlaneCount="24"/>'])
def test_every_order_of_the_dimensions(tmp_path: Path, order: str, data: str) -> None:
    lengths = {"T": 2, "C": 3, "Z": 4}
    slowest_first = order[::-1]
    pages = []
    for at in itertools.product(*(range(lengths[axis]) for axis in slowest_first)):
        pages.append(plane(**{axis.lower(): index for axis, index in zip(slowest_first, at, strict=True)}))
    xml = ome_xml({"DimensionOrder": f"XY{order}", **SIZES}, data)
    source = write_pages(tmp_path / "stack.ome.tif", pages, xml)
    np.testing.assert_array_equal(voxels(source, time="1"), block(t=[1], c=range(3), z=range(4))[0, 0])
    with pytest.raises(InvalidInput, match=r"holds 2 time points \(0–1\); choose one with --time\.$"):
        stack(source)


def test_pages_in_any_order(tmp_path: Path) -> None:
    places = list(itertools.product(range(2), range(3), range(4)))
    shuffled = [places[index] for index in np.random.default_rng(0).permutation(len(places))]
    data = "".join(
        f'<TiffData IFD="{ifd}" FirstT="{t}" FirstC="{c}" FirstZ="{z}"/>' for ifd, (t, c, z) in enumerate(shuffled)
    )
    pages = [plane(t=t, c=c, z=z) for t, c, z in shuffled]
    source = write_pages(tmp_path / "stack.ome.tif", pages, ome_xml(SIZES, data))
    np.testing.assert_array_equal(voxels(source, time="0"), block(c=range(3), z=range(4))[0, 0])


def test_what_tifffile_writes_with_names_and_colours(tmp_path: Path) -> None:
    source = tmp_path / "stack.ome.tif"
    channels = {"Name": ["DAPI", "GFP"], "Color": [0x0000FFFF, -1]}
    pixels = block(c=range(2), z=range(3))[0]
    tifffile.imwrite(
        source, pixels, ome=True, photometric="minisblack", metadata={"axes": "TCZYX", "Channel": channels}
    )
    assert stack(source).channels == (Channel("DAPI", "#0000ff"), Channel("GFP"))
    np.testing.assert_array_equal(voxels(source, channel=["GFP"]), pixels[0, 1:])
    with pytest.raises(InvalidInput, match=r"There is no channel RFP; there are 0 \(DAPI\), 1 \(GFP\)"):
        stack(source, channel=["RFP"])


def test_images_are_positions(tmp_path: Path) -> None:
    source = tmp_path / "stack.ome.tif"
    with tifffile.TiffWriter(source, ome=True) as writer:
        for p, name in enumerate(("left", "right")):
            pages = block(p=[p], z=range(2 + p))[0, 0, 0]
            writer.write(pages, photometric="minisblack", metadata={"axes": "ZYX", "Name": name})
    with pytest.raises(InvalidInput, match=r"holds 2 positions \(left, right\); choose one with --position\.$"):
        stack(source)
    np.testing.assert_array_equal(voxels(source, position="left"), block(z=range(2))[0, 0])
    np.testing.assert_array_equal(voxels(source, position="1"), block(p=[1], z=range(3))[0, 0])


@pytest.mark.parametrize("photometric", ["rgb", "minisblack"])
def test_samples_are_channels_of_ome_too(tmp_path: Path, photometric: str) -> None:
    pixels = np.stack([block(z=range(4))[0, 0, 0] + channel for channel in range(3)], -1)
    source = tmp_path / "rgb.ome.tif"
    tifffile.imwrite(
        source, pixels, ome=True, photometric=photometric, planarconfig="contig", metadata={"axes": "ZYXS"}
    )
    np.testing.assert_array_equal(voxels(source), pixels.transpose(3, 0, 1, 2))


def test_planes_that_the_metadata_does_not_place_are_missing(tmp_path: Path) -> None:
    data = "".join(f'<TiffData IFD="{ifd}" FirstZ="{z}"/>' for ifd, z in enumerate((0, 1, 3)))
    source = write_pages(tmp_path / "stack.ome.tif", block(z=[0, 1, 3])[0, 0, 0], ome_xml({"SizeZ": 5}, data))
    with pytest.raises(SourceError, match=r"stack\.ome\.tif lacks z = 2, 4; copy what is missing"):
        stack(source)


def test_pages_that_lack_at_the_end_are_missing(tmp_path: Path) -> None:
    source = write_pages(tmp_path / "stack.ome.tif", block(z=range(3))[0, 0, 0], ome_xml({"SizeZ": 5}))
    with pytest.raises(SourceError, match=r"lacks z = 3–4, which should be in .*stack\.ome\.tif; copy"):
        stack(source)


def test_pages_that_the_metadata_does_not_know_are_refused(tmp_path: Path) -> None:
    source = write_pages(tmp_path / "stack.ome.tif", block(z=range(3))[0, 0, 0], ome_xml({"SizeZ": 2}))
    with pytest.raises(SourceError, match="holds 3 pages, of which its OME metadata names 2; say with --axes"):
        stack(source)
    assert stack(source, axes="z").size[2] == 3


def _several(directory: Path, names: Sequence[str], *, written: Sequence[str] | None = None) -> list[Path]:
    """A file for each channel of 2 × 3 z; all of them describe the whole."""
    data = "".join(
        f'<TiffData FirstC="{c}" FirstZ="{z}" IFD="{z}" PlaneCount="1">'
        f'<UUID FileName="{name}">urn:uuid:{c}</UUID></TiffData>'
        for c, name in enumerate(names)
        for z in range(3)
    )
    directory.mkdir(exist_ok=True)
    return [
        write_pages(
            directory / name,
            block(c=[c], z=range(3))[0, 0, 0],
            ome_xml({"SizeC": len(names), "SizeZ": 3}, data, uuid=f"urn:uuid:{c}"),
        )
        for c, name in enumerate(written or names)
    ]


EXPECTED = block(c=range(2), z=range(3))[0, 0]


def test_a_set_of_files_is_found_by_any_of_them(tmp_path: Path) -> None:
    paths = _several(tmp_path / "set", ["b.ome.tif", "a.ome.tif"])
    sources: list[Path | list[Path]] = [*paths, tmp_path / "set", tmp_path / "set" / "*.tif", paths, paths[::-1]]
    for source in sources:
        np.testing.assert_array_equal(voxels(source), EXPECTED)


def test_file_names_are_preferred_to_the_metadata_of_a_set(tmp_path: Path) -> None:
    _several(tmp_path / "set", ["b.ome.tif", "a.ome.tif"])
    chosen = stack(tmp_path / "set", pattern="{c}.ome.tif")
    assert [channel.name for channel in chosen.channels] == ["a", "b"]
    np.testing.assert_array_equal(voxels(tmp_path / "set", pattern="{c}.ome.tif"), EXPECTED[::-1])


def test_files_of_a_set_that_were_renamed_are_found_by_their_identity(tmp_path: Path) -> None:
    paths = _several(tmp_path / "set", ["a.ome.tif", "b.ome.tif"], written=["y.tif", "x.tif"])
    np.testing.assert_array_equal(voxels(tmp_path / "set"), EXPECTED)
    np.testing.assert_array_equal(voxels(paths[0], channel=["0"]), EXPECTED[:1])
    with pytest.raises(SourceError, match=r"lacks c = 1 z = 0–2, which should be in .*b\.ome\.tif; copy"):
        stack(paths[0])


def test_a_single_file_that_was_renamed_is_its_own(tmp_path: Path) -> None:
    data = '<TiffData IFD="0" PlaneCount="3"><UUID FileName="old.ome.tif">urn:uuid:7</UUID></TiffData>'
    source = write_pages(tmp_path / "new.tif", block(z=range(3))[0, 0, 0], ome_xml({"SizeZ": 3}, data, "urn:uuid:7"))
    np.testing.assert_array_equal(voxels(source), block(z=range(3))[0, 0])
    write_pages(tmp_path / "old.ome.tif", [plane(t=5)] * 3)
    np.testing.assert_array_equal(voxels(source), block(z=range(3))[0, 0])


def test_a_file_of_a_set_that_lacks_is_named(tmp_path: Path) -> None:
    paths = _several(tmp_path / "set", ["a.ome.tif", "b.ome.tif"])
    paths[1].unlink()
    with pytest.raises(SourceError, match=r"lacks c = 1 z = 0–2, which should be in .*b\.ome\.tif; copy"):
        stack(tmp_path / "set")
    paths[1].write_bytes(b"II*\0")
    with pytest.raises(SourceError, match=r"b\.ome\.tif is not a readable TIFF"):
        stack(tmp_path / "set")


def test_a_file_that_is_none_of_the_set_is_named(tmp_path: Path) -> None:
    _several(tmp_path / "set", ["a.ome.tif", "b.ome.tif"])
    write_pages(tmp_path / "set" / "overview.tif", [plane()])
    with pytest.raises(SourceError, match=r"overview\.tif is none of the files that .*a\.ome\.tif names"):
        stack(tmp_path / "set")


def test_a_name_in_the_metadata_leads_nowhere_else(tmp_path: Path) -> None:
    _several(tmp_path, ["secret.tif", "other.tif"])
    data = (
        '<TiffData IFD="0" PlaneCount="1"/>'
        '<TiffData IFD="0" FirstZ="1" PlaneCount="2"><UUID FileName="../secret.tif">urn:uuid:0</UUID></TiffData>'
    )
    source = write_pages(tmp_path / "set" / "a.ome.tif", [plane()], ome_xml({"SizeZ": 3}, data, "urn:uuid:9"))
    with pytest.raises(SourceError, match=r"lacks z = 1–2, which should be in .*set/secret\.tif; copy"):
        stack(source)


def test_each_file_of_several_has_to_know_its_pages(tmp_path: Path) -> None:
    for z in range(2):
        write_pages(tmp_path / f"{z}.ome.tif", [plane(), plane()], ome_xml({"SizeZ": 1}))
    with pytest.raises(SourceError, match=r"0\.ome\.tif holds 2 pages, of which its OME metadata names 1"):
        stack(tmp_path)


def test_planes_that_each_describe_only_themselves_are_a_stack(tmp_path: Path) -> None:
    for z in range(12):
        tifffile.imwrite(tmp_path / f"z{z}.ome.tif", plane(z=z), ome=True, photometric="minisblack")
    np.testing.assert_array_equal(voxels(tmp_path), block(z=range(12))[0, 0])
    np.testing.assert_array_equal(voxels(tmp_path, pattern="z{z}.ome.tif"), block(z=range(12))[0, 0])


@pytest.mark.parametrize("where", ["tiff", "companion"])
def test_metadata_that_lies_in_another_file(tmp_path: Path, where: str) -> None:
    data = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="z{z}.tif">urn:uuid:{z}</UUID></TiffData>'
        for z in range(3)
    )
    whole, name = ome_xml({"SizeZ": 3}, data), "m.companion.ome" if where == "companion" else "z0.tif"
    binary = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{z}">'
        f'<BinaryOnly MetadataFile="{name}" UUID="urn:uuid:m"/></OME>'
    )
    for z in range(3):
        master = where == "tiff" and z == 0
        write_pages(tmp_path / f"z{z}.tif", [plane(z=z)], whole if master else binary.format(z=z))
    if where == "companion":
        with pytest.raises(SourceError, match=r"m\.companion\.ome, which has the metadata, cannot be read; copy"):
            stack(tmp_path / "z1.tif")
        (tmp_path / name).write_text(whole, encoding="utf-8")
    for source in (tmp_path / "z1.tif", tmp_path):
        np.testing.assert_array_equal(voxels(source), block(z=range(3))[0, 0])


def test_everything_is_known_before_something_is_chosen(tmp_path: Path) -> None:
    _several(tmp_path / "set", ["a.ome.tif", "b.ome.tif"])
    acquisition = read_acquisition(str(tmp_path / "set"), SourceOptions())
    assert {axis: acquisition.length(axis) for axis in "ptcz"} == {"p": 1, "t": 1, "c": 2, "z": 3}
    assert acquisition.axes["z"].origin == "OME"
