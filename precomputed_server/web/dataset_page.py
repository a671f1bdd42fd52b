"""The page of a dataset: a look at it, what it consists of, and the ways to open it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aiohttp import web

from precomputed_server.catalog.entries import STACK, VANISHED
from precomputed_server.catalog.rows import shown_now
from precomputed_server.catalog.survey import Surveyor
from precomputed_server.errors import Busy, InvalidInput, NotFound
from precomputed_server.format.names import PROVENANCE
from precomputed_server.web.addresses import api_url
from precomputed_server.web.gallery import Around, card_of
from precomputed_server.web.pages import page_of, source_of
from precomputed_server.web.respond import NO_CACHE
from precomputed_server.web.state import STATE, State
from precomputed_server.web.targets import Target, tree_url
from precomputed_server.web.wording import bytes_text, kind_text, lengths_text, size_text

_LONGEST_VALUE = 500
_MOST_VALUES = 40


@dataclass(frozen=True)
class ScaleRow:
    """A line of the table of scales: texts, sizes in voxels x, y, z."""

    key: str
    size: str
    voxel_size: str
    chunk_size: str
    encoding: str


@dataclass(frozen=True)
class LayerPart:
    """A layer as the page shows it; `opener` is its own way to the viewer, "" without one."""

    name: str
    kind: str
    bytes: str
    format: str
    state: str
    reason: str
    opener: str
    scales: Sequence[ScaleRow]


async def get_dataset_page(request: web.Request, target: Target) -> web.StreamResponse:
    """The page of the dataset at a path; at the root, where no dataset is, the way to the list of them."""
    state = request.app[STATE]
    path, around = target.parts["dataset"], Around.of(request, target.session)
    try:
        known = await _known(state, path)
    except NotFound:
        if path:
            raise
        return web.Response(status=302, headers={"Location": around.home, "Cache-Control": NO_CACHE})
    card = card_of(known, around)
    place = tree_url(path)
    first = _first(known)
    return await page_of(
        request,
        "dataset.html",
        home=around.home,
        base=around.base,
        origin=around.origin,
        card=card,
        known=known,
        is_there=known["state"] not in (VANISHED, STACK),
        api=f"{around.home}{api_url(path)}",
        files=f"{around.base}{place}/" if place else f"{around.base}~/",
        pages=f"{around.base}datasets/{place}/" if place else f"{around.base}datasets/",
        depth=None if first is None or not first["scales"] else _depth(first),
        layers=[_layer(layer, path, around) for layer in known["layers"]],
        snippets=_snippets(first, source_of(path, around.origin)) if first and card.thumbnail else [],
        place=place,
        neurotrale=state.settings.neurotrale_url,
        own_name="" if target.session is None else target.session.name,
        directory=await state.far(_directory, state, path),
        provenance=await state.far(_provenance, state, path, first),
        viewer=around.viewer,
    )


async def _known(state: State, path: str) -> dict[str, Any]:
    """What the catalog has of a dataset; what it does not know yet is looked at. Raises NotFound."""
    try:
        found = await state.page(state.catalog.get, path)
    except (Busy, InvalidInput, NotFound):
        found = None
    if found is None or found["state"] == VANISHED:
        try:
            entry = await state.far(Surveyor(state.tree, state.volumes).entry, path)
        except NotFound:
            entry = None
        found = found if entry is None else shown_now(entry)
    if found is None:
        raise NotFound(f"/{path} is not a dataset: it has no info file of a volume.")
    return found


def _first(known: dict[str, Any]) -> dict[str, Any] | None:
    """The first layer that has scales, which a damaged one has not; where none has any, the first."""
    layers = known["layers"]
    return next((layer for layer in layers if layer["scales"]), layers[0] if layers else None)


def _depth(layer: dict[str, Any]) -> tuple[int, int]:
    """The first and last slice of a layer."""
    start, count = layer["voxel_offset"][2], layer["scales"][0]["size"][2]
    return start, start + count - 1


def _layer(layer: dict[str, Any], path: str, around: Around) -> LayerPart:
    place = f"{path}/{layer['path']}".strip("/")
    return LayerPart(
        layer["name"],
        kind_text(layer),
        "" if layer["bytes"] is None else bytes_text(layer["bytes"]),
        layer["format"],
        layer["state"],
        layer["reason"],
        around.opener(place) if layer["path"] and layer["scales"] else "",
        [
            ScaleRow(
                scale["key"],
                size_text(scale["size"]),
                lengths_text(scale["resolution_nm"]),
                size_text(scale["chunk_size"]),
                scale["encoding"],
            )
            for scale in layer["scales"]
        ],
    )


def _snippets(layer: dict[str, Any], source: str) -> list[tuple[str, str]]:
    """What one copies to open a layer, which has scales, elsewhere: a heading and the text."""
    url = "/".join(part for part in (source, quote(layer["path"])) if part)
    edges = ", ".join(f"{edge / 1000:g}" for edge in reversed(layer["scales"][0]["resolution_nm"]))
    opened = f"""\
import tensorstore

store = {{"driver": "neuroglancer_precomputed", "kvstore": "{url}/"}}
volume = tensorstore.open(store).result()  # [x, y, z, channel]"""
    shown = "add_labels" if layer["type"] == "segmentation" else "add_image"
    return [
        ("Source for Neuroglancer and others", f"precomputed://{url}"),
        ("Python with tensorstore", opened),
        (
            "Python with cloud-volume",
            f'from cloudvolume import CloudVolume\n\nvolume = CloudVolume("precomputed://{url}", mip=0)',
        ),
        (
            "napari",
            f"{opened}\n\nimport napari\n\nviewer = napari.Viewer()\n"
            f"viewer.{shown}(volume[..., 0].T, scale=({edges}))  # z, y, x in µm\nnapari.run()",
        ),
    ]


def _directory(state: State, path: str) -> str:
    """Where the dataset lies on the server's disk; "" where that is not to be told."""
    return os.path.join(os.path.abspath(state.settings.root), path) if state.settings.show_paths else ""


def _provenance(state: State, path: str, layer: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What a dataset was made of, as names and texts; nothing where nobody has written that down."""
    below = "" if layer is None else layer["path"]
    try:
        members = json.loads(state.tree.read("/".join(part for part in (path, below, PROVENANCE) if part)))
    except (OSError, ValueError, RecursionError):
        return []
    if not isinstance(members, dict):
        return []
    rows = [(name, _value(value)) for name, value in members.items() if name != "format"]
    return [(name, value) for name, value in rows if value][:_MOST_VALUES]


def _value(value: object) -> str:
    if isinstance(value, list) and any(isinstance(each, (dict, list)) for each in value):
        return f"{len(value)} entries"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = "" if text in ("null", "{}", "[]") else text
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + " …"
