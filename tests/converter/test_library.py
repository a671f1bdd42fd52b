"""Converting from Python: what is imported from the package, and the example of the README."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import converter
import precomputed_server
from precomputed_server import ConvertOptions, Summary, convert, source_options
from precomputed_server.errors import InvalidInput
from tests.conftest import REPOSITORY
from tests.converter.stacks import read_info, read_level, volume, write_planes


def _python(*arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=directory, env=environment, check=False
    )


def test_the_example_of_the_readme_runs_as_a_script_in_several_processes(tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    assert example is not None
    voxels = volume(1024, 1024, 17)  # more than one process is used for 32 MiB and more
    write_planes(tmp_path / "planes", voxels)
    script = tmp_path / "script.py"
    script.write_text("print('begun')\n" + example[1].replace("/data/", f"{tmp_path}/data/"))
    ran = _python(str(script), directory=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.count("begun") == 1
    assert "100 %" in ran.stdout
    assert re.search(r"\d+ chunks, \d+ bytes; left out: \(\)$", ran.stdout)
    np.testing.assert_array_equal(read_level(tmp_path / "data" / "brain", 0)[0], voxels)


def test_a_conversion_with_processes_leaves_the_main_module_as_it_was(tmp_path: Path) -> None:
    main = sys.modules["__main__"]
    write_planes(tmp_path / "planes", volume(1024, 1024, 17))
    convert(tmp_path / "planes", tmp_path / "made", ConvertOptions(voxel_size=(1, 1, 1), jobs=2))
    assert sys.modules["__main__"] is main


def test_paths_and_numbers_are_taken_as_they_come(tmp_path: Path) -> None:
    planes = write_planes(tmp_path / "planes", volume(20, 17, 9))
    wanted = ConvertOptions(voxel_size=(0.65, Fraction(1, 3), 2), jobs=1, source=source_options(crop="2:,,"))
    summary: Summary = convert([planes / f"img_{z}.tif" for z in range(9)], str(tmp_path / "made"), wanted)
    assert summary.unreadable == ()
    finest = read_info(tmp_path / "made")["scales"][0]
    assert finest["resolution"] == [650, 1000 / 3, 2000]
    assert finest["voxel_offset"] == [2, 0, 0]
    assert ConvertOptions(voxel_size=(0.65, None, 2)).voxel_size == (Fraction(13, 20), None, 2)


@pytest.mark.parametrize("edge", [float("nan"), float("inf"), 0, -1.0])
def test_what_is_no_length_is_refused(edge: float) -> None:
    with pytest.raises(InvalidInput, match="greater than zero"):
        ConvertOptions(voxel_size=(edge, 1, 1))


def test_what_type_checkers_see_is_what_there_is() -> None:
    stub = ast.parse((REPOSITORY / "precomputed_server" / "__init__.pyi").read_text())
    names = {alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert {name: getattr(precomputed_server, str(name)) for name in names} == {
        name: getattr(converter, str(name)) for name in names
    }
    assert names <= set(dir(precomputed_server))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = precomputed_server.nothing  # type: ignore[attr-defined]


def test_the_converter_is_imported_only_when_it_is_asked_for(tmp_path: Path) -> None:
    asked = "import sys, precomputed_server; before = 'converter' in sys.modules; precomputed_server.convert"
    ran = _python("-c", f"{asked}; print(before, 'converter' in sys.modules)", directory=tmp_path)
    assert ran.stdout == "False True\n"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"levels": "2"}, "levels is '2', but has to be a whole number, or None."),
        ({"levels": True}, "levels is True, but has to be a whole number, or None."),
        ({"chunk_size": 64}, "chunk_size is 64, but has to be three whole numbers x, y, z."),
        ({"chunk_size": (64, 64)}, r"chunk_size is \(64, 64\), but has to be three whole numbers x, y, z."),
        ({"chunk_size": None}, "chunk_size is None, but has to be three whole numbers x, y, z."),
        ({"downsample": "auto"}, "downsample is 'auto', but has to be three whole numbers x, y, z, or None."),
        ({"voxel_size": 1.0}, "voxel_size is 1.0, but has to be three lengths"),
        ({"voxel_size": "1,1,1"}, "voxel_size is '1,1,1', but has to be three lengths"),
        ({"voxel_size": (1, 1)}, r"voxel_size is \(1, 1\), but has to be three lengths"),
        ({"max_memory": "2GiB"}, "max_memory is '2GiB', but has to be a whole number, or None."),
        ({"format": None}, "format is None, but has to be a text."),
        ({"segmentation": "yes"}, "segmentation is 'yes', but has to be True or False."),
        ({"scheduler": 8786}, "scheduler is 8786, but has to be a text, or None."),
        ({"source": {"time": 3}}, "source is {'time': 3}, but has to be what source_options"),
    ],
)
def test_options_of_another_kind_are_refused_in_a_sentence(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{sentence}"):
        ConvertOptions(**given)


def test_numbers_and_lists_of_numpy_are_options_too() -> None:
    given: dict[str, Any] = {"levels": np.int64(2), "chunk_size": np.array([64, 64, 32]), "voxel_size": [1, 0.5, None]}
    made = ConvertOptions(**given)
    assert made == ConvertOptions(levels=2, chunk_size=(64, 64, 32), voxel_size=(1, 0.5, None))
    assert json.dumps(made.to_json())
