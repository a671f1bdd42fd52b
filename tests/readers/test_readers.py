"""Inflating within a bound, and finding the volume and scale that a path belongs to."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import imagecodecs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from precomputed_server.errors import Unreadable
from precomputed_server.files import Tree, read_at
from precomputed_server.readers.compression import inflate
from precomputed_server.readers.stored import find_stored
from precomputed_server.readers.volumes import Volumes
from tests.data import volume, write_dataset

DEFLATE: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda data: bytes(imagecodecs.brotli_encode(data)),
    "zstd": lambda data: bytes(imagecodecs.zstd_encode(data)),
}


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    """An open tree."""
    opened = Tree(tmp_path)
    yield opened
    opened.close()


@pytest.mark.parametrize("encoding", DEFLATE)
@given(data=st.binary(max_size=2000))
def test_what_is_deflated_is_inflated(encoding: str, data: bytes) -> None:
    packed = DEFLATE[encoding](data)
    assert inflate(encoding, packed, len(data)) == data
    assert inflate(encoding, packed, len(data) + 1000) == data


@pytest.mark.parametrize("encoding", DEFLATE)
def test_a_byte_more_than_the_bound_is_refused(encoding: str) -> None:
    packed = DEFLATE[encoding](bytes(100_000))
    assert len(inflate(encoding, packed, 100_000)) == 100_000
    with pytest.raises(Unreadable):
        inflate(encoding, packed, 99_999)


@pytest.mark.parametrize("encoding", DEFLATE)
@pytest.mark.parametrize("damage", [lambda packed: packed[:-1], lambda packed: b"", lambda packed: b"junk" + packed])
def test_damage_is_noticed(encoding: str, damage: Callable[[bytes], bytes]) -> None:
    packed = DEFLATE[encoding](bytes(range(256)) * 100)
    with pytest.raises(Unreadable):
        inflate(encoding, damage(packed), 1 << 20)


def test_a_file_wins_over_its_compressed_siblings(tmp_path: Path, tree: Tree) -> None:
    for suffix in ("", ".gz", ".br", ".zstd"):
        (tmp_path / f"name{suffix}").write_bytes(suffix.encode() or b"plain")
    for expected in ("identity", "gzip", "br", "zstd"):
        stored = find_stored(tree, "name")
        assert stored is not None
        with stored:
            assert stored.encoding == expected
        suffix = {"identity": "", "gzip": ".gz", "br": ".br", "zstd": ".zstd"}[expected]
        (tmp_path / f"name{suffix}").unlink()
    assert find_stored(tree, "name") is None


def test_a_key_of_several_segments_belongs_to_the_volume_above(tmp_path: Path, tree: Tree) -> None:
    info = write_dataset(tmp_path / "lab" / "brain", volume((1, 20, 64, 64)))
    (tmp_path / "lab" / "brain" / "info").write_bytes(info.to_bytes().replace(b'"1_1_1"', b'"a/b/c"'))
    found = Volumes(tree).scale_at("lab/brain/a/b/c")
    assert found is not None
    assert (found[0].path, found[1].key) == ("lab/brain", "a/b/c")
    assert Volumes(tree).scale_at("lab/brain/a/b") is None
    assert Volumes(tree).scale_at("lab") is None


def test_an_info_is_read_again_when_it_changes(tmp_path: Path, tree: Tree) -> None:
    volumes = Volumes(tree)
    assert volumes.at("brain") is None
    write_dataset(tmp_path / "brain", volume((1, 20, 64, 64)))
    first = volumes.at("brain")
    write_dataset(tmp_path / "brain", volume((3, 20, 64, 64)))
    second = volumes.at("brain")
    assert first is not None
    assert second is not None
    assert (first.info.num_channels, second.info.num_channels) == (1, 3)


def test_a_damaged_info_of_a_volume_is_unreadable_and_another_is_no_volume(tmp_path: Path, tree: Tree) -> None:
    for name, text in (("damaged", '{"scales": ['), ("mesh", '{"@type": "neuroglancer_legacy_mesh"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "info").write_text(text)
    with pytest.raises(Unreadable):
        Volumes(tree).at("damaged")
    assert Volumes(tree).at("mesh") is None


def test_a_cached_read_never_waits_for_a_disk(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(1 << 20))
    os.sync()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert bytes(read_at(descriptor, 10, 100, cached=True)) == path.read_bytes()[10:110]
        with pytest.raises(BlockingIOError):
            read_at(descriptor, (1 << 20) - 10, 20, cached=True)  # there is no such part in the cache
        with pytest.raises(Unreadable):
            read_at(descriptor, (1 << 20) - 10, 20)
    finally:
        os.close(descriptor)
