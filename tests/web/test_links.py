"""Links into Neuroglancer and what is in them, through HTTP and from the command line."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pytest
from click.testing import CliRunner
from yarl import URL

from precomputed_server.cli import main
from precomputed_server.format.viewer_state import COLOURS
from precomputed_server.settings import load
from precomputed_server.web.app import create_app
from precomputed_server.web.state import STATE
from tests.catalog.trees import write_record
from tests.data import point, volume, write_annotations, write_dataset
from tests.web.conftest import AiohttpClient, Client, ServerAsRun
from tests.web.test_pictures import HOSTILE, write_statistics


async def link(client: Client, path: str, status: int = 200) -> Any:  # noqa: ANN401
    """The JSON of an answer beneath the interface."""
    answer = await client.get(URL(f"/api/v1/{path}", encoded=True))
    body = json.loads(await answer.read())
    assert answer.status == status, body
    return body


async def test_a_link_shows_the_dataset_under_its_contrast_with_its_annotations(root: Path, client: Client) -> None:
    write_dataset(root / "brain", volume((2, 20, 30, 40)), resolution_nm=(100, 200, 300), voxel_offset=(10, 0, 0))
    write_statistics(root / "brain", (1, 200), (3, 4))
    write_record(root / "brain", title="My brain", channels=[{"name": "DAPI", "color": "#0000ff"}, {"name": "GFP"}])
    write_annotations(root / "brain", {"fibers": [point(1, 1, 2, 3)]})
    found = await link(client, "datasets/brain/link")
    base, _, fragment = found["url"].partition("#!")
    origin = f"http://127.0.0.1:{client.port}"
    assert (base, found["reason"]) == (f"{origin}/neuroglancer/v/1/", None)
    assert json.loads(unquote(fragment)) == found["state"]
    assert (await client.get("/neuroglancer/v/1/")).status == 200
    image, annotations = found["state"]["layers"]
    assert (image["name"], image["source"]) == ("My brain", f"precomputed://{origin}/brain")
    assert list(image["shaderControls"].values()) == [{"range": [1, 200]}, {"range": [3, 4]}]
    assert "#0000ff" in image["shader"]
    assert annotations["source"] == f"precomputed://{origin}/brain/annotations.precomputed/fibers-point"
    assert found["state"]["dimensions"] == {"x": [1e-7, "m"], "y": [2e-7, "m"], "z": [3e-7, "m"]}
    assert found["state"]["position"] == [30.5, 15.5, 10.5]


async def test_a_foreign_dataset_has_the_contrast_of_a_sample(root: Path, client: Client) -> None:
    write_dataset(root / "brain", np.arange(64, dtype=np.uint16).reshape(1, 4, 4, 4) * 10)
    found = await link(client, "datasets/brain/link")
    (control,) = found["state"]["layers"][0]["shaderControls"].values()
    assert control["range"] == [10, 630]
    opened = await client.get("/neuroglancer/open/brain", allow_redirects=False)
    assert json.loads(unquote(opened.headers["Location"].partition("#!")[2])) == found["state"]


async def test_several_datasets_are_added_up_in_one_link(root: Path, client: Client) -> None:
    for name in ("a", "lab/a", "cells"):
        (root / name).mkdir(parents=True)
    write_dataset(root / "a", volume((1, 4, 8, 8)))
    write_dataset(root / "lab/a", volume((1, 4, 8, 8)))
    write_dataset(root / "cells", volume((1, 4, 8, 8), "uint32"), volume_type="segmentation")
    write_annotations(root / "a", {"fibers": [point(1, 1, 2, 3)]})
    write_annotations(root / "lab/a", {"fibers": [point(1, 1, 2, 3)]})
    found = await link(client, "link?dataset=a&dataset=lab%2Fa&dataset=cells&dataset=a")
    layers = found["state"]["layers"]
    assert [layer["name"] for layer in layers] == ["a", "a 2", "cells", "a fibers-point", "a fibers-point 2"]
    assert [layer["type"] for layer in layers] == ["image", "image", "segmentation", "annotation", "annotation"]
    assert [layer.get("blend") for layer in layers] == ["additive", "additive", None, None, None]
    assert COLOURS[0] in layers[0]["shader"]
    assert COLOURS[1] in layers[1]["shader"]


async def test_the_layers_of_a_dataset_are_those_of_its_record(root: Path, client: Client) -> None:
    for name in ("image", "cells", "other"):
        (root / "brain" / name).mkdir(parents=True)
        write_dataset(root / "brain" / name, volume((1, 4, 8, 8)))
    write_record(root / "brain", layers=[{"name": "Image", "path": "image"}, {"path": "cells"}, {"path": "../secret"}])
    found = await link(client, "datasets/brain/link")
    assert [layer["name"] for layer in found["state"]["layers"]] == ["Image", "cells"]
    (root / "b").mkdir()
    write_dataset(root / "b", volume((1, 4, 8, 8)))
    found = await link(client, "link?dataset=brain&dataset=b")
    assert [layer["name"] for layer in found["state"]["layers"]] == ["brain Image", "brain cells", "b"]


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 400), ("dataset=a&other=1", 400), ("dataset=nothing", 404), ("dataset=..%2Fetc", 400), ("dataset=%00", 400),
     ("dataset=.", 404), ("dataset=.hidden", 404), ("dataset=a%5Cb", 400), ("dataset=" + "x" * 300, 404),
     ("&".join(f"dataset={number}" for number in range(101)), 400)],
)  # fmt: skip
async def test_links_that_cannot_be_made_are_explained(root: Path, client: Client, query: str, status: int) -> None:
    (root / ".hidden").mkdir()
    write_dataset(root / ".hidden", volume((1, 4, 8, 8)))
    assert (await link(client, f"link?{query}", status))["detail"]


@pytest.mark.parametrize("name", HOSTILE)
async def test_links_to_datasets_with_hostile_names(root: Path, client: Client, name: str) -> None:
    (root / name).mkdir()
    write_dataset(root / name, volume((1, 4, 8, 8)))
    one = await link(client, f"datasets/{quote(name, safe='')}/link")
    assert one == await link(client, f"link?dataset={quote(name, safe='')}")
    base, _, fragment = one["url"].partition("#!")
    assert not set("<>\"' \n") & set(one["url"].replace("'", "")), one["url"]
    assert json.loads(unquote(fragment)) == one["state"]
    assert one["state"]["layers"][0]["name"] == name
    source = one["state"]["layers"][0]["source"].removeprefix(f"precomputed://http://127.0.0.1:{client.port}")
    assert (await client.get(URL(f"{source}/info", encoded=True))).status == 200


async def test_the_root_may_be_the_dataset(root: Path, client: Client) -> None:
    write_dataset(root, volume((1, 4, 8, 8)))
    found = await link(client, "link?dataset=.")
    assert found == await link(client, "datasets/link")
    assert found["state"]["layers"][0]["source"] == f"precomputed://http://127.0.0.1:{client.port}"


@pytest.mark.parametrize(
    ("viewer", "reason"),
    [
        ("https://viewer.example/", "https page"),
        ("http://viewer.example/v/", None),
        ("javascript:alert(1)", "no address"),
    ],
)
async def test_without_the_viewer_links_lead_to_another(
    root: Path, aiohttp_client: AiohttpClient, viewer: str, reason: str | None
) -> None:
    write_dataset(root / "brain", volume((1, 4, 8, 8)))
    given = {"workers": 1, "state": str(root.parent / "state"), "viewer_url": viewer}
    app = await asyncio.to_thread(create_app, load(root, given, environ={}))
    app[STATE].viewer = None
    client = await aiohttp_client(ServerAsRun(app))
    found = await link(client, "datasets/brain/link")
    opened = await client.get("/neuroglancer/open/brain", allow_redirects=False)
    assert found["state"]["layers"]
    if reason is None:
        assert found["url"].startswith(f"{viewer}#!")
        assert (opened.status, opened.headers["Location"]) == (302, found["url"])
    else:
        assert found["url"] is None
        assert reason in found["reason"]
        assert opened.status == 404
        assert "precomputed-server[viewer]" in await opened.text()


async def typed(*arguments: str) -> tuple[int, str]:
    """The exit code and all that the command prints, or the sentence that it fails with."""
    result = await asyncio.to_thread(CliRunner().invoke, main, ["link", *arguments])
    return result.exit_code, result.output if result.exception is None else str(result.exception)


async def test_the_command_prints_what_the_server_answers(root: Path, client: Client) -> None:
    for name in ("a b", "c"):
        (root / name).mkdir()
        write_dataset(root / name, volume((1, 4, 8, 8)))
    server = f"http://127.0.0.1:{client.port}"
    code, printed = await typed("a b", "c/", "--server", f"{server}/")
    assert (code, printed.strip()) == (0, (await link(client, "link?dataset=a%20b&dataset=c"))["url"])
    assert "nothing is not a dataset" in (await typed("nothing", "--server", server))[1]
    assert "--server" in (await typed("c", "--server", "127.0.0.1:1"))[1]
    assert "does not answer" in (await typed("c", "--server", "http://127.0.0.1:1"))[1]
    client.app[STATE].viewer = None
    assert "https page" in (await typed("c", "--server", server))[1]
