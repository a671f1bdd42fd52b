"""`precomputed demo` of one's own stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from precomputed_server import demo
from precomputed_server.errors import InvalidInput


@pytest.mark.parametrize("is_there", [False, True])
def test_a_source_that_cannot_be_converted_leaves_nothing(tmp_path: Path, is_there: bool) -> None:
    directory = tmp_path / "demo"
    if is_there:
        directory.mkdir()
    with pytest.raises(InvalidInput):
        demo.of_stack(str(tmp_path / "nothing"), None, directory / "data", lambda _: None)
    assert [path.name for path in tmp_path.rglob("*")] == (["demo"] if is_there else [])
