"""Pictures and samples of datasets whose `info` promises very many chunks, very large ones, or slow ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from precomputed_server.format.geometry import Box
from precomputed_server.readers.base import Place
from precomputed_server.readers.chunks import read_box
from tests.data import volume, write_dataset
from tests.web.conftest import Client
from tests.web.test_pictures import picture, problem


def write_small_chunks(dataset: Path, size: int, depth: int, chunk: int) -> None:
    """A volume whose `info` promises very many chunks, of which one is there at most."""
    write_dataset(dataset, volume((1, 1, 8, 8), "uint8"))
    info = json.loads((dataset / "info").read_text())
    info["scales"][0].update(size=[size, size, depth], chunk_sizes=[[chunk] * 3])
    (dataset / "info").write_text(json.dumps(info))


async def test_a_sample_of_small_chunks_is_a_few_of_them(
    root: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes: list[Box] = []

    def counted(place: Place, box: Box, *given: Any) -> Any:  # noqa: ANN401
        boxes.append(box)
        assert len(boxes) < 1000
        return read_box(place, box, *given)

    monkeypatch.setattr("precomputed_server.catalog.sampling.read_box", counted)
    write_small_chunks(root / "tiny", 10**6, 10**6, 8)
    assert (await client.get("/api/v1/datasets/tiny/histogram")).status == 200
    assert len(set(boxes)) == len(boxes) == 256
    for few in (boxes[:16], boxes):  # they are spread over the depth, those read first as well
        assert min(box.start[2] for box in few) < 10**5
        assert max(box.start[2] for box in few) > 9 * 10**5


async def test_a_sample_takes_a_bounded_time(root: Path, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("precomputed_server.catalog.sampling._LONGEST_S", 0)
    write_small_chunks(root / "tiny", 1000, 1000, 8)
    told = json.loads(await (await client.get("/api/v1/datasets/tiny/histogram")).read())
    assert sum(told["channels"][0]["counts"]) == 8**3


async def test_chunks_that_are_too_large_to_be_decoded_have_no_histogram(root: Path, client: Client) -> None:
    write_small_chunks(root / "huge", 10**5, 10**5, 10**5)
    assert "larger" in await problem(client, "huge/histogram", 404)


async def test_a_plane_of_too_many_chunks_is_drawn_of_a_coarser_scale(root: Path, client: Client) -> None:
    write_dataset(root / "brain", volume((1, 2, 300, 300), "uint8"), levels=2)
    for size in ([1, 1, 1], [4, 4, 4]):
        info = json.loads((root / "brain" / "info").read_text())
        info["scales"][0]["chunk_sizes"] = [size]
        (root / "brain" / "info").write_text(json.dumps(info))
        assert (await picture(client, "brain/preview.png?size=300")).shape == (150, 150)
    info["scales"] = info["scales"][:1]
    (root / "brain" / "info").write_text(json.dumps(info))
    assert "too many chunks" in await problem(client, "brain/thumbnail.png", 404)


async def test_drawing_takes_a_bounded_time(root: Path, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dataset(root / "brain", volume((1, 4, 8, 8), "uint8"))
    with monkeypatch.context() as patched:
        patched.setattr("precomputed_server.catalog.pictures._LONGEST_S", 0)
        assert "too long" in await problem(client, "brain/thumbnail.png", 503)
    await picture(client, "brain/thumbnail.png")
