"""Stacks that are served as they are: the same bytes as their conversion, never unasked, never holes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from annotation_store.volume import volume_of
from converter.convert import convert
from converter.describe import Corrections
from converter.served.bands import band_of
from converter.served.cache import StackCache
from converter.served.keeping import remove
from converter.served.making import Job
from converter.stacks.voxel_size import parse_edges
from precomputed_server.catalog.records import describe
from precomputed_server.errors import Busy, InvalidInput, NotFound, SourceError, Unreadable
from precomputed_server.format.geometry import Box
from precomputed_server.format.info import ScaleInfo
from tests.converter.acquisitions import ome_xml, plane, write_pages
from tests.converter.command import start
from tests.converter.served import Serving, converted, published, serving
from tests.converter.stacks import files_of, options, read_info, read_record, volume, write_planes


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory that is served."""
    directory = tmp_path / "root"
    directory.mkdir()
    return directory


@pytest.fixture
def served(root: Path) -> Iterator[Serving]:
    """Who serves it."""
    with serving(root) as found:
        yield found


def in_place(path: Path, plane: Any) -> None:  # noqa: ANN401
    """Write other voxels into the file of a plane, which stays the same file of the same size."""
    before = path.stat()
    other = path.with_suffix(".other")
    tifffile.imwrite(other, plane, metadata=None)
    path.write_bytes(other.read_bytes())
    other.unlink()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


STACKS: dict[str, tuple[tuple[int, int, int], str, dict[str, Any]]] = {
    "uint8": ((130, 70, 9), "uint8", {}),
    "uint16, odd": ((129, 65, 67), "uint16", {}),
    "float32": ((70, 66, 5), "float32", {}),
    "deflate": ((150, 90, 66), "uint16", {"compression": "zlib", "rowsperstrip": 16}),
    "one strip": ((150, 90, 66), "uint16", {"compression": "zlib", "rowsperstrip": 90}),
    "tiles": ((150, 90, 5), "uint16", {"compression": "zlib", "tile": (32, 32)}),
    "big-endian": ((70, 66, 5), "uint16", {"byteorder": ">"}),
    "bool as labels": ((70, 66, 5), "uint32", {}),
}


@pytest.mark.parametrize("case", STACKS)
def test_every_level_is_what_a_conversion_writes(root: Path, served: Serving, case: str) -> None:
    (x, y, z), dtype, kept = STACKS[case]
    labels = case.endswith("labels")
    voxels = volume(x, y, z, dtype)
    planes = write_planes(root / "stack", voxels // 10**9 if labels else voxels, **kept)
    convert(planes, root / "converted", options(format="raw", segmentation=labels))
    published(planes, segmentation=labels)
    whole = read_info(root / "converted")
    first = served.chunks("stack")
    assert served.keys("stack") == [whole["scales"][0]["key"]]
    assert served.make_levels("stack")
    found = served.volume("stack")
    assert found is not None
    assert found.info.to_json() == whole
    assert served.chunks("stack") == converted(root / "converted")
    assert first.items() <= converted(root / "converted").items()


def test_colours_are_channels_as_in_a_conversion(root: Path, served: Serving) -> None:
    (root / "stack").mkdir()
    for z in range(3):
        pixels = volume(70, 66, 3, "uint8", seed=z).transpose(1, 2, 0)
        tifffile.imwrite(root / f"stack/img_{z}.tif", pixels, photometric="rgb", metadata=None)
    convert(root / "stack", root / "converted", options(format="raw"))
    published(root / "stack")
    served.make_levels("stack")
    assert served.chunks("stack") == converted(root / "converted")
    named = read_record(root / "stack", "dataset.json")["channels"]
    assert [channel["name"] for channel in named] == ["red", "green", "blue"]


def test_a_file_of_many_pages_becomes_the_dataset_of_its_name_beside_it(root: Path, served: Serving) -> None:
    tifffile.imwrite(root / "mouse.ome.tif", volume(70, 66, 5), metadata={"axes": "ZYX"})
    convert(root / "mouse.ome.tif", root / "converted", options(format="raw"))
    assert published(root / "mouse.ome.tif") == root / "mouse"
    served.make_levels("mouse")
    assert served.chunks("mouse") == converted(root / "converted")


def test_planes_can_become_a_dataset_elsewhere(root: Path, served: Serving) -> None:
    planes = write_planes(root / "raw" / "planes", volume(70, 66, 5))
    published(planes, root / "shown" / "mouse")
    assert not (planes / ".precomputed").exists()
    assert len(served.chunks("shown/mouse")) == 4
    assert served.volume("raw/planes") is None


def test_nothing_is_served_unasked(root: Path, served: Serving) -> None:
    write_planes(root / "planes", volume(70, 66, 5))
    assert served.volume("planes") is None
    assert served.volume("") is None
    assert not (root / "planes" / ".precomputed").exists()


def test_only_the_record_is_written(root: Path, served: Serving) -> None:
    planes = write_planes(root / "stack", volume(70, 66, 5))
    before = files_of(planes)
    published(planes)
    served.make_levels("stack")
    served.chunks("stack")
    assert files_of(planes) == before
    assert {path.name for path in (planes / ".precomputed").iterdir()} == {"dataset.json", "lock"}


def test_a_pattern_asks_for_stacks_that_tell_their_voxel_size(root: Path, served: Serving) -> None:
    write_planes(root / "unasked", volume(70, 66, 5))
    with pytest.raises(Unreadable, match=r"--voxel-size"):
        served.volume("unasked")
    (root / "unasked_empty").mkdir()
    assert served.volume("unasked_empty") is None
    tifffile.imwrite(
        root / "unasked" / "img_0.tif",
        volume(70, 66, 1)[0],
        imagej=True,
        resolution=(2, 2),
        metadata={"unit": "um", "spacing": 2},
    )
    assert served.keys("unasked") == ["1_1_1"]


def test_the_voxel_size_is_asked_for(root: Path) -> None:
    planes = write_planes(root / "stack", volume(70, 66, 5))
    with pytest.raises(InvalidInput, match=r"--voxel-size"):
        published(planes, asked=Corrections())
    assert not (planes / ".precomputed" / "dataset.json").exists()


def test_a_voxel_size_is_corrected_exactly(root: Path, served: Serving) -> None:
    planes = write_planes(root / "stack", volume(70, 66, 5))
    published(planes)
    served.volume("stack")
    published(planes, asked=Corrections(voxel_size=parse_edges(",,3"), title="Mouse"))
    found = served.volume("stack")
    assert found is not None
    assert found.info.scales[0].resolution_nm == (1000, 1000, 3000)
    record = read_record(planes, "dataset.json")
    assert record["title"] == "Mouse"
    assert record["voxel_size"] == {"micrometres": [1, 1, 3], "source": ["given", "given", "corrected"]}


def test_a_half_copied_stack_is_not_published(root: Path) -> None:
    planes = write_planes(root / "stack", volume(70, 66, 5))
    whole = (planes / "img_4.tif").read_bytes()
    (planes / "img_4.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SourceError, match="img_4"):
        published(planes)


def test_a_plane_that_cannot_be_read_is_no_empty_chunk(root: Path, served: Serving) -> None:
    planes = write_planes(root / "stack", volume(70, 66, 130))
    published(planes)
    whole = (planes / "img_70.tif").read_bytes()
    (planes / "img_70.tif").write_bytes(whole[: len(whole) // 2])
    served.volume("stack")
    with pytest.raises(Unreadable, match=r"^stack/img_70\.tif"):
        served.chunk("stack/1_1_1/0-64_0-64_64-128")
    assert len(served.chunk("stack/1_1_1/0-64_0-64_0-64")) == 64**3 * 2
    served.make_levels("stack")
    assert served.keys("stack") == ["1_1_1"], "a level with a hole would be taken for tissue"
    (planes / "img_70.tif").write_bytes(whole)
    with pytest.raises(Unreadable):  # and is looked at again for the next who asks
        served.chunk("stack/1_1_1/0-64_0-64_64-128")
    assert len(served.chunk("stack/1_1_1/0-64_0-64_64-128")) == 64**3 * 2
    served.make_levels("stack")
    assert len(served.keys("stack")) > 1


def test_a_changed_plane_makes_a_new_version(root: Path, served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converter.served.finest._LOOKED_S", 0)
    planes = write_planes(root / "stack", volume(70, 66, 5))
    published(planes)
    served.make_levels("stack")
    before, old = served.volume("stack"), served.chunks("stack")
    in_place(planes / "img_3.tif", volume(70, 66, 1, seed=9)[0])
    known = served.stacks.at("stack")
    assert known is not None
    with pytest.raises(Busy):  # until it has been looked at again, nobody gets a mixture
        served.read_known(known, "0-64_0-64_0-5")
    after = served.volume("stack")
    assert before is not None
    assert after is not None
    assert after.fingerprint != before.fingerprint
    assert served.keys("stack") == ["1_1_1"]
    with pytest.raises(Busy):
        served.chunk("stack/2_2_2/0-35_0-33_0-3")
    served.make_levels("stack")
    convert(planes, root / "converted", options(format="raw"))
    assert served.chunks("stack") == converted(root / "converted")
    assert served.chunks("stack") != old


def test_a_plane_more_makes_the_volume_deeper(root: Path, served: Serving) -> None:
    planes = write_planes(root / "stack", volume(70, 66, 5))
    published(planes)
    served.volume("stack")
    tifffile.imwrite(planes / "img_5.tif", volume(70, 66, 1)[0], metadata=None)
    found = served.volume("stack")
    assert found is not None
    assert found.info.scales[0].size == (70, 66, 6)


def test_a_plane_may_not_lead_out_of_the_root(root: Path, served: Serving, tmp_path: Path) -> None:
    planes = write_planes(root / "stack", volume(70, 66, 5))
    published(planes)
    (planes / "img_2.tif").rename(tmp_path / "outside.tif")
    (planes / "img_2.tif").symlink_to(tmp_path / "outside.tif")
    served.volume("stack")
    with pytest.raises(Unreadable, match="beneath"):
        served.chunk("stack/1_1_1/0-64_0-64_0-5")
    assert served.make_levels("stack")
    assert served.keys("stack") == ["1_1_1"]
    source = write_planes(tmp_path / "elsewhere", volume(70, 66, 5))
    published(source, root / "linked")
    with pytest.raises(Unreadable, match="beneath"):
        served.volume("linked")


def test_of_a_file_outside_the_root_no_header_is_read(root: Path, served: Serving, tmp_path: Path) -> None:
    outside = write_planes(tmp_path / "outside", volume(70, 66, 5))
    planes = root / "stack"
    published(write_planes(planes, volume(20, 10, 5)))
    for path in outside.iterdir():
        (planes / path.name).unlink()
        (planes / path.name).symlink_to(path)
    with pytest.raises(Unreadable, match=r"stack/img_0\.tif cannot be opened beneath") as told:
        served.volume("stack")
    assert "70" not in str(told.value)
    assert str(tmp_path) not in str(told.value)
    (planes / "img_0.tif").unlink()
    tifffile.imwrite(planes / "img_0.tif", np.zeros((10, 20), np.uint8), metadata=None)
    found = served.volume("stack")
    assert found is not None
    assert (found.info.scales[0].size, found.info.data_type) == ((20, 10, 5), "uint8")


def test_what_an_ome_tiff_names_is_not_opened_outside_the_root(root: Path, served: Serving, tmp_path: Path) -> None:
    planes, outside = root / "stack", tmp_path / "outside"
    planes.mkdir()
    outside.mkdir()
    uuid = '<UUID FileName="z{z}.tif">urn:uuid:{z}</UUID>'
    data = "".join(f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1">{uuid.format(z=z)}</TiffData>' for z in range(3))
    (planes / "m.companion.ome").write_text(ome_xml({"SizeZ": 3}, data), encoding="utf-8")
    namespace = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
    for z in range(3):
        binary = (
            f'<OME xmlns="{namespace}" UUID="urn:uuid:{z}"><BinaryOnly MetadataFile="m.companion.ome" UUID="m"/></OME>'
        )
        write_pages(planes / f"z{z}.tif", [plane(z=z)], binary)
    published(planes)
    whole = served.volume("stack")
    assert whole is not None
    (planes / "z1.tif").unlink()
    tifffile.imwrite(outside / "z1.tif", np.zeros((300, 300), np.uint8), metadata=None)
    (planes / "z1.tif").symlink_to(outside / "z1.tif")
    found = served.volume("stack")
    assert found is not None
    assert found.info == whole.info
    (planes / "m.companion.ome").rename(outside / "m.companion.ome")
    (planes / "m.companion.ome").symlink_to(outside / "m.companion.ome")
    os.utime(planes / "z0.tif")
    with pytest.raises(Unreadable, match=r"stack/m\.companion\.ome cannot be opened beneath"):
        served.volume("stack")


def test_a_link_that_is_swapped_after_its_header_was_read_is_not_followed(
    root: Path, served: Serving, tmp_path: Path
) -> None:
    planes = write_planes(root / "stack", volume(70, 66, 5))
    published(planes)
    known = served.stacks.at("stack")
    assert known is not None
    served.read_known(known, "64-70_64-66_0-5")  # its files were looked at, and are not for a second
    shutil.copy2(planes / "img_2.tif", tmp_path / "outside.tif")
    (planes / "img_2.tif").unlink()
    (planes / "img_2.tif").symlink_to(tmp_path / "outside.tif")
    with pytest.raises(Busy):
        served.read_known(known, "0-64_0-64_0-5")


def test_levels_beyond_the_bound_are_left_out_finest_first(root: Path) -> None:
    planes = write_planes(root / "stack", volume(200, 200, 5))
    published(planes)
    convert(planes, root / "converted", options(format="raw"))
    every = [scale["key"] for scale in read_info(root / "converted")["scales"]]
    sizes = [sum(map(len, _of(converted(root / "converted"), key).values())) for key in every]
    with serving(root, disk=sum(sizes[2:])) as served:
        served.make_levels("stack")
        assert served.keys("stack") == [every[0], *every[2:]]
        chunks = converted(root / "converted")
        assert served.chunks("stack") == {name: chunks[name] for name in chunks if not name.startswith(f"{every[1]}/")}
    with serving(root, disk=0) as served:
        assert not served.make_levels("stack")
        assert served.keys("stack") == every[:1]


def test_levels_that_nobody_looked_at_for_longest_make_room(root: Path) -> None:
    for name in ("a", "b", "c"):
        published(write_planes(root / name, volume(130, 66, 5)))
    convert(root / "a", root / "converted", options(format="raw"))
    chunks = converted(root / "converted")
    size = sum(len(chunks[name]) for name in chunks if not name.startswith("1_1_1/"))
    with serving(root, disk=2 * size + 1) as served:
        for hour, name in enumerate(("a", "b")):
            served.make_levels(name)
            os.utime(StackCache.of(root.parent / "state", name).path / "used", (hour, hour))
        served.make_levels("c")
        cached = {name: list(StackCache.of(root.parent / "state", name).path.glob("*-1")) for name in "abc"}
        assert [len(cached[name]) for name in "abc"] == [0, 1, 1]
        assert served.keys("a") == ["1_1_1"]
        os.utime(StackCache.of(root.parent / "state", "a").path / "used", (0, 0))
        assert not served.keeper.turn(lambda: False), "what others look at now makes no room for it"
        assert len(served.keys("b")) > 1


def test_levels_that_were_removed_are_not_empty(root: Path, served: Serving) -> None:
    published(write_planes(root / "stack", volume(130, 66, 5)))
    served.make_levels("stack")
    assert len(served.keys("stack")) > 1
    remove(next(StackCache.of(root.parent / "state", "stack").path.glob("*-1")))
    with pytest.raises(Busy):  # of whoever has read info before
        served.chunk("stack/2_2_2/0-64_0-33_0-3")
    assert served.keys("stack") == ["1_1_1"]
    with pytest.raises(Busy):
        served.chunk("stack/2_2_2/0-64_0-33_0-3")


def test_a_damaged_strip_damages_its_own_chunks(root: Path, served: Serving) -> None:
    voxels = volume(150, 90, 5)
    planes = write_planes(root / "stack", voxels, compression="zlib", tile=(32, 32))
    published(planes)
    with tifffile.TiffFile(planes / "img_2.tif") as tiff:
        page = tiff.pages.first
        first, length = page.dataoffsets[0], page.databytecounts[0]
    stored = bytearray((planes / "img_2.tif").read_bytes())
    stored[first : first + length] = bytes(length)
    (planes / "img_2.tif").write_bytes(stored)
    served.volume("stack")
    with pytest.raises(Unreadable, match="img_2"):
        served.chunk("stack/1_1_1/0-64_0-64_0-5")
    whole = np.frombuffer(served.chunk("stack/1_1_1/64-128_0-64_0-5"), "<u2").reshape(5, 64, 64)
    assert np.array_equal(whole, voxels[:, :64, 64:128])


def test_a_killed_builder_leaves_nothing_listed(root: Path, served: Serving) -> None:
    planes = write_planes(root / "stack", volume(300, 300, 130), compression="zlib")
    published(planes)
    served.volume("stack")
    wanted = next(served.keeper.wanted())
    job = Job(str(root), str(root.parent / "state"), "stack", wanted.levels, 256 << 20)
    builder = subprocess.Popen([sys.executable, "-m", "converter.served.making"], stdin=subprocess.PIPE)
    assert builder.stdin is not None
    builder.stdin.write(job.to_line())
    builder.stdin.flush()
    staging = wanted.cache.levels(wanted.levels) / ".precomputed" / "staging"
    while not list(staging.glob("*/2_2_2/*")):
        assert builder.poll() is None
        time.sleep(0.002)
    builder.send_signal(signal.SIGKILL)
    builder.communicate()
    assert served.keys("stack") == ["1_1_1"]
    served.make_levels("stack")
    convert(planes, root / "converted", options(format="raw"))
    assert served.chunks("stack") == converted(root / "converted")


def test_a_builder_ends_with_who_started_it(root: Path) -> None:
    builder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import converter.served.making as making, time\nmaking.make = lambda job: time.sleep(60)\nmaking.main()",
        ],
        stdin=subprocess.PIPE,
    )
    assert builder.stdin is not None
    builder.stdin.write(Job("", "", "", "x-1", 1).to_line())
    builder.stdin.flush()
    time.sleep(0.5)
    assert builder.poll() is None
    builder.stdin.close()
    assert builder.wait(10) == 1


def told(*arguments: object) -> tuple[int, str]:
    """What `precomputed describe` exits with and says."""
    process = start(Path.cwd(), "describe", *map(str, arguments))
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


def test_the_command_asks_publishes_and_corrects(root: Path, served: Serving) -> None:
    planes = write_planes(root / "stack", volume(70, 66, 5))
    code, said = told(planes)
    assert (code, "--voxel-size" in said) == (2, True), said
    code, said = told(planes, "--voxel-size", "0.65,0.65,2", "--title", "Mouse", "--channel-names", "DAPI")
    assert (code, "as it is" in said, "DAPI" in said) == (0, True, True), said
    code, said = told(planes, "--colors", "blue")
    assert (code, "Mouse" in said, "#0000ff" in said) == (0, True, True), said
    found = served.volume("stack")
    assert found is not None
    assert found.info.scales[0].resolution_nm == (650, 650, 2000)
    code, said = told(planes, "--offset", "64,0,0")
    assert (code, "--offset" in said) == (2, True), said
    code, said = told(planes, "--channel-names", "a,b")
    assert code == 2, said


def test_the_command_says_what_is_no_stack(root: Path) -> None:
    convert(write_planes(root / "stack", volume(70, 66, 5)), root / "converted", options())
    code, said = told(root / "converted", "--to", root / "other")
    assert (code, "--to" in said) == (2, True), said
    (root / "notes.txt").write_text("no planes")
    code, said = told(root / "notes.txt")
    assert (code, "Error: " in said) == (2, True), said
    (root / "empty").mkdir()
    code, said = told(root / "empty")
    assert (code, "not a dataset" in said) == (1, True), said


def test_annotations_of_a_stack_are_exported_by_the_command_line(root: Path) -> None:
    planes = published(write_planes(root / "stack", volume(70, 66, 5)))
    assert volume_of(planes).scales[0].bounds == Box((0, 0, 0), (70, 66, 5))


def test_the_contrast_of_a_stack_is_known_with_its_levels(root: Path, served: Serving) -> None:
    planes = published(write_planes(root / "stack", volume(70, 66, 5)))
    before = served.volume("stack")
    served.make_levels("stack")
    after = served.volume("stack")
    assert before is not None
    assert after is not None
    assert describe(served.tree, before).contrast is None
    convert(planes, root / "converted", options())
    converted_volume = served.volume("converted")
    assert converted_volume is not None
    assert describe(served.tree, after).contrast == describe(served.tree, converted_volume).contrast


def test_a_converted_dataset_is_not_published_over(root: Path) -> None:
    planes = write_planes(root / "stack", volume(70, 66, 5))
    convert(planes, root / "converted", options())
    with pytest.raises(Exception, match="converted already"):
        published(planes, root / "converted")


def test_headers_are_read_once_for_all_processes(root: Path, served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    published(write_planes(root / "stack", volume(70, 66, 5)))
    served.volume("stack")
    monkeypatch.setattr("converter.served.stacks.read_headers", None)
    with serving(root) as other:
        assert len(other.chunks("stack")) == 4


def test_a_stack_that_has_gone_is_said(root: Path, served: Serving) -> None:
    planes = write_planes(root / "raw", volume(70, 66, 5))
    published(planes, root / "stack")
    shutil.rmtree(planes)
    with pytest.raises((Unreadable, NotFound)):
        served.volume("stack")


def test_bands_are_the_same_for_every_chunk_in_them() -> None:
    scale = ScaleInfo("1_1_1", (1000, 700, 130), (1, 1, 1), ((64, 64, 64),))
    chunk = 64**3
    for most in (0, chunk, 4 * chunk, 16 * chunk, 100 * chunk):
        for grain in (1, 64, 65, 700):
            box = Box((512, 320, 64), (576, 384, 128))
            band = band_of(scale, box, grain, most)
            assert all(low <= at for low, at in zip(band.start, box.start, strict=True))
            assert all(high >= at for high, at in zip(band.stop, box.stop, strict=True))
            assert band.voxels <= max(most, chunk)
            corner = Box(band.start, tuple(at + 64 for at in band.start))  # type: ignore[arg-type]
            assert band_of(scale, corner, grain, most) == band


def _of(chunks: dict[str, bytes], key: str) -> dict[str, bytes]:
    return {name: chunks[name] for name in chunks if name.startswith(f"{key}/")}


def test_values_of_bands_are_not_shared_with_whoever_asks(root: Path, served: Serving) -> None:
    voxels = volume(150, 66, 5)
    published(write_planes(root / "stack", voxels))
    first = served.chunk("stack/1_1_1/0-64_0-64_0-5")
    assert np.array_equal(np.frombuffer(first, "<u2").reshape(5, 64, 64), voxels[:, :64, :64])
