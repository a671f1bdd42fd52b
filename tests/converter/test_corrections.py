"""What `describe` corrected, when the dataset is converted again: the record never says otherwise than `info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from annotation_store.slices import slice_naming
from converter import convert
from converter.cli import convert as command
from converter.describe import Corrections, describe
from converter.stacks.planes import write_plane
from converter.stacks.source_options import source_options
from converter.stacks.voxel_size import parse_edges
from converter.verify import verify
from precomputed_server.errors import InvalidInput
from tests.converter.stacks import options, read_info, read_record, volume

UNSAID = {"voxel_size": (None, None, None), "overwrite": True}
NAMES = [{"name": "DAPI", "color": "#0000ff"}, {"name": "GFP", "color": None}]


def _write(directory: Path, edges: tuple[float, float, float]) -> str:
    """A stack of two channels whose files tell the voxel size."""
    directory.mkdir()
    for z, plane in enumerate(volume(40, 30, 12)):
        write_plane(directory / f"img_{z}.tif", plane[None].repeat(2, axis=0), edges)
    return str(directory)


@pytest.fixture
def source(tmp_path: Path) -> str:
    return _write(tmp_path / "planes", (0.5, 0.5, 0.5))


@pytest.fixture
def made(tmp_path: Path, source: str) -> Path:
    """A dataset whose z and channels were corrected after it was converted."""
    dataset = tmp_path / "made"
    convert(source, dataset, options(**{**UNSAID, "overwrite": False}))
    corrections = Corrections(
        voxel_size=parse_edges(",,2"), channel_names=("DAPI", "GFP"), colors=("#0000ff", ""), title="Brain 3"
    )
    describe(dataset, corrections, slice_naming)
    return dataset


def _check(dataset: Path, edges: list[float], sources: list[str]) -> Any:  # noqa: ANN401
    """Whether `info`, the record of the dataset and that of the conversion say the same; returns the first of these."""
    record = read_record(dataset, "dataset.json")
    assert read_info(dataset)["scales"][0]["resolution"] == [1000 * edge for edge in edges]
    assert record["voxel_size"] == {"micrometres": edges, "source": sources}
    assert read_record(dataset, "conversion.json")["voxel_size"] == record["voxel_size"]
    assert verify(dataset, ()).is_sound
    return record


def test_what_was_corrected_stays_when_the_same_stack_is_converted_again(made: Path, source: str) -> None:
    for changes in ({"format": "zarr"}, {"chunk_size": (16, 16, 8)}, {"source": source_options(crop="4:,,", flip="z")}):
        convert(source, made, options(**UNSAID, **changes))
        record = _check(made, [0.5, 0.5, 2.0], ["ImageJ", "ImageJ", "corrected"])
        assert record["channels"] == NAMES
        assert record["title"] == "Brain 3"
        if changes.get("format") == "zarr":
            shown = json.loads((made / ".zattrs").read_text())["omero"]["channels"]
            assert [(channel["label"], channel["color"]) for channel in shown][0] == ("DAPI", "0000FF")
            assert shown[1]["label"] == "GFP"


def test_a_correction_is_of_the_axes_of_the_dataset(tmp_path: Path, source: str) -> None:
    """Where y of the stack became z, it is y of the stack that z of the dataset was corrected to."""
    made, turned = tmp_path / "turned", source_options(transpose="xzy")
    convert(source, made, options(**{**UNSAID, "overwrite": False}, source=turned))
    describe(made, Corrections(voxel_size=parse_edges(",,2")), slice_naming)
    convert(source, made, options(**UNSAID, source=turned, levels=1))
    _check(made, [0.5, 0.5, 2.0], ["ImageJ", "ImageJ", "corrected"])
    convert(source, made, options(**UNSAID, levels=1))
    _check(made, [0.5, 2.0, 0.5], ["ImageJ", "corrected", "ImageJ"])


def test_a_voxel_size_that_is_given_counts_more_than_a_correction(made: Path, source: str) -> None:
    convert(source, made, options(**{**UNSAID, "voxel_size": parse_edges(",,4")}))
    record = _check(made, [0.5, 0.5, 4.0], ["ImageJ", "ImageJ", "given"])
    assert record["channels"] == NAMES
    convert(source, made, options(**UNSAID))
    _check(made, [0.5, 0.5, 0.5], ["ImageJ"] * 3)


def test_corrections_do_not_count_for_another_stack(made: Path, tmp_path: Path, source: str) -> None:
    other = _write(tmp_path / "others", (0.25, 0.25, 1))
    convert(other, made, options(**UNSAID))
    record = _check(made, [0.25, 0.25, 1.0], ["ImageJ"] * 3)
    assert record["channels"] == [{"name": "", "color": None}] * 2
    assert record["title"] == "Brain 3"


def test_one_channel_of_several_has_its_own_name(made: Path, source: str) -> None:
    convert(source, made, options(**UNSAID, source=source_options(channel=["1"])))
    record = _check(made, [0.5, 0.5, 2.0], ["ImageJ", "ImageJ", "corrected"])
    assert record["channels"] == [{"name": "", "color": None}]
    convert(source, made, options(**UNSAID, source=source_options(channel=["0"])))
    assert read_record(made, "dataset.json")["channels"] == [{"name": "", "color": None}]


def test_annotations_lie_on_the_same_voxels_without_a_question(made: Path, source: str) -> None:
    (made / "annotations" / "x0y0z0").mkdir()
    (made / "annotations" / "x0y0z0" / "fibers.json").write_text("[]")
    convert(source, made, options(**UNSAID, format="raw"))
    _check(made, [0.5, 0.5, 2.0], ["ImageJ", "ImageJ", "corrected"])
    with pytest.raises(InvalidInput, match="--annotations keep"):
        convert(source, made, options(**{**UNSAID, "voxel_size": parse_edges(",,4")}))


def test_the_offset_is_that_of_the_stack_again(made: Path, source: str) -> None:
    describe(made, Corrections(offset=(100, 0, 0)), slice_naming)
    convert(source, made, options(**UNSAID))
    assert read_info(made)["scales"][0]["voxel_offset"] == [0, 0, 0]
    assert "offset" not in read_record(made, "dataset.json")


def test_a_person_is_told(made: Path, source: str) -> None:
    result = CliRunner().invoke(command, [source, str(made), "--overwrite"])
    assert result.exit_code == 0, result.output
    assert "Voxel size: z = 2 µm as corrected before; --voxel-size gives another" in result.stdout.splitlines()
    result = CliRunner().invoke(command, [source, str(made), "--overwrite", "--voxel-size", "1,1,1"])
    assert "as corrected before" not in result.stdout
