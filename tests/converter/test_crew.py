"""What --scheduler is refused for, with or without Dask."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from converter import convert
from precomputed_server.errors import InvalidInput, MissingExtra
from tests.converter.stacks import options, volume, write_planes


def test_without_dask_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    stack = write_planes(tmp_path / "planes", volume(8, 8, 8))
    with pytest.raises(MissingExtra, match=r"pip install 'precomputed-server\[hpc\]'"):
        convert(str(stack), tmp_path / "made", options(jobs=None, scheduler="tcp://127.0.0.1:8786"))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "address", ["node1", "node1:8786", "foo://127.0.0.1:1", "tcp://127.0.0.1", "tcp://", "tcp://:x"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidInput, match=r"is no address such as tcp://node1:8786"):
        options(scheduler=address)
