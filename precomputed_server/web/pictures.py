"""Pictures of datasets, and figures that were sampled of them, over HTTP: made once, off the event loop, and kept."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import orjson
from aiohttp import web

from precomputed_server.catalog.kept import KeptFiles
from precomputed_server.catalog.pictures import SEGMENTATION, Plane, coarsest_plane, draw, plane_of, version_of
from precomputed_server.catalog.records import (
    Contrast,
    Dataset,
    contrast_of,
    recorded_figures,
    shown_layers,
)
from precomputed_server.catalog.sampling import sampled_figures
from precomputed_server.errors import Busy, InvalidInput, NotFound, PrecomputedError
from precomputed_server.files import typed
from precomputed_server.local_state import state_of
from precomputed_server.settings import Settings
from precomputed_server.web.respond import check_preconditions, check_query, json_answer, quoted
from precomputed_server.web.send import Described, send_bytes
from precomputed_server.web.state import STATE, State
from precomputed_server.web.targets import Target

THUMBNAIL_PIXELS, PREVIEW_PIXELS = 256, 512
FEWEST_PIXELS, MOST_PIXELS = 16, 2048
_WAITING = 256
_DIRECTORY = "pictures"
_PNG = "image/png"
_LONGEST_NUMBER = 18
SLICE_HEADER = "Precomputed-Slice"
"""The slice that a picture shows, in voxels of the finest scale counted from the volume's beginning."""


class Pictures:
    """What one worker draws and measures, one thing at a time, and once for all who wait for it."""

    def __init__(self, settings: Settings, state: State) -> None:
        self._state = state
        self._limit = settings.max_decoded
        self._kept: KeptFiles | None = None
        with contextlib.suppress(InvalidInput):  # nothing is kept then; who edits is told why
            directory = state_of(settings.state, settings.root) / _DIRECTORY
            self._kept = KeptFiles(directory, settings.kept_pictures, settings.workers)
        self._flights: dict[str, asyncio.Task[bytes]] = {}
        self._pool = ThreadPoolExecutor(1, "pictures")

    def close(self) -> None:
        """Stop the thread."""
        self._pool.shutdown(cancel_futures=True)

    async def drawn(self, plane: Plane, version: str, contrast: Sequence[Contrast] | None) -> bytes:
        """The PNG file of a plane in that version; raises as `draw` does, and Busy."""
        chosen = contrast or (await self.with_contrast(plane.dataset)).contrast
        state = self._state
        make = functools.partial(draw, state.tree, state.volumes, plane, chosen, self._limit)
        # A contrast that somebody is trying out is soon another one.
        return await self._made(f"{version}.png", make, self._kept if contrast is None else None)

    async def with_contrast(self, dataset: Dataset) -> Dataset:
        """The dataset with the contrast of a sample where nobody counted its voxels, and as it is where none helps."""
        if dataset.contrast is not None or dataset.volume.info.volume_type == SEGMENTATION:
            return dataset
        try:
            figures = await self.sampled(dataset)
        except PrecomputedError:  # who draws it says what is wrong
            return dataset
        return replace(dataset, contrast=contrast_of(figures, dataset.volume.info.num_channels))

    async def sampled(self, dataset: Dataset) -> list[dict[str, Any]]:
        """The figures of each channel of a part of the volume; raises as `sampled_figures` does, and Busy."""
        state = self._state
        plane = await state.far(coarsest_plane, state.tree, dataset)
        version = await state.far(version_of, state.tree, plane)
        make = functools.partial(_sampled, state, dataset, self._limit)
        figures: list[dict[str, Any]] = orjson.loads(await self._made(f"{version}.json", make, self._kept))
        return figures

    async def _made(self, name: str, make: Callable[[], bytes], kept: KeptFiles | None) -> bytes:
        """The file `name` of `kept`, or what `make` gives; it goes on when the one who asked first goes away."""
        flight = self._flights.get(name)
        if flight is None:
            if len(self._flights) >= _WAITING:
                raise Busy("Too many pictures wait to be drawn; try again.", 1)
            flight = asyncio.create_task(self._recalled_or_made(name, make, kept))
            self._flights[name] = flight
            flight.add_done_callback(functools.partial(self._landed, name))
        return await asyncio.shield(flight)

    async def _recalled_or_made(self, name: str, make: Callable[[], bytes], kept: KeptFiles | None) -> bytes:
        recalled = None if kept is None else await self._state.far(kept.get, name)
        if recalled is not None:
            return recalled
        made = await asyncio.get_running_loop().run_in_executor(self._pool, _typed, make)
        if kept is not None:
            await self._state.far(kept.put, name, made)
        return made

    def _landed(self, name: str, flight: asyncio.Task[bytes]) -> None:
        del self._flights[name]
        if not flight.cancelled():
            flight.exception()  # heard, though nobody may wait for it any more


PICTURES = web.AppKey("pictures", Pictures)


async def get_thumbnail(request: web.Request, target: Target) -> web.StreamResponse:
    """A small picture of the middle of a dataset's first layer."""
    check_query(request, "layer")
    dataset = await layer_of(request, target)
    return await _send_picture(request, dataset, THUMBNAIL_PIXELS)


async def get_preview(request: web.Request, target: Target) -> web.StreamResponse:
    """A picture of one slice of a layer, under the contrast that the query asks for or the dataset's own."""
    check_query(request, "z", "size", "layer", "range")
    z, pixels = _whole(request, "z"), _whole(request, "size")
    if pixels is not None and not FEWEST_PIXELS <= pixels <= MOST_PIXELS:
        raise InvalidInput(f"size is a number of pixels from {FEWEST_PIXELS} to {MOST_PIXELS}; not {pixels}.")
    dataset = await layer_of(request, target)
    contrast = _ranges(request, dataset)
    return await _send_picture(request, dataset, PREVIEW_PIXELS if pixels is None else pixels, z, contrast)


async def get_histogram(request: web.Request, target: Target) -> web.StreamResponse:
    """The range and histogram of each channel of a layer, as the conversion counted them or of a sample."""
    check_query(request, "layer")
    state = request.app[STATE]
    dataset = await layer_of(request, target)
    figures = await state.far(recorded_figures, state.tree, dataset.volume)
    if figures is None:
        figures = await request.app[PICTURES].sampled(dataset)
    return json_answer({"channels": figures})


async def layer_of(request: web.Request, target: Target) -> Dataset:
    """The layer of a dataset that `?layer=` names, else its first; raises NotFound, Unreadable."""
    state = request.app[STATE]
    layers = await state.far(shown_layers, state.tree, state.volumes, target.parts["dataset"])
    name = request.query.get("layer", layers[0].title)
    for layer in layers:
        if layer.title == name:
            return layer
    raise NotFound(f"There is no layer {name[:80]!r} here; there is {', '.join(layer.title for layer in layers)}.")


async def _send_picture(
    request: web.Request,
    dataset: Dataset,
    longest: int,
    z: int | None = None,
    contrast: tuple[Contrast, ...] | None = None,
) -> web.StreamResponse:
    state, pictures = request.app[STATE], request.app[PICTURES]
    plane = await state.far(plane_of, state.tree, dataset, longest, z)
    version = await state.far(version_of, state.tree, plane, contrast)
    shown = {SLICE_HEADER: str(plane.shown_z)}
    described = Described(version, _PNG)
    if check_preconditions(request, version):
        headers = {"ETag": quoted(version), "Cache-Control": described.cache_control, **shown}
        return web.Response(status=304, headers=headers)
    answer = await send_bytes(request, await pictures.drawn(plane, version, contrast), described)
    answer.headers.update(shown)
    return answer


def _sampled(state: State, dataset: Dataset, limit: int) -> bytes:
    return orjson.dumps(sampled_figures(state.tree, state.volumes, dataset, limit))


def _typed(make: Callable[[], bytes]) -> bytes:
    try:
        return make()
    except OSError as error:
        raise typed(error, "The dataset") from error


def _whole(request: web.Request, name: str) -> int | None:
    """The whole number of a parameter, None where it is not given; raises InvalidInput."""
    text = request.query.get(name)
    if text is None:
        return None
    digits = text.removeprefix("-")
    if not digits.isascii() or not digits.isdigit() or len(digits) > _LONGEST_NUMBER:
        raise InvalidInput(f"{name} is a whole number; not {text[:40]!r}.")
    return int(text)


def _ranges(request: web.Request, dataset: Dataset) -> tuple[Contrast, ...] | None:
    """The contrast that the query asks for, `range=LOW,HIGH` for each channel; None where it does not."""
    texts = request.query.getall("range", ())
    if not texts:
        return None
    count = dataset.volume.info.num_channels
    figures = [dict(zip(("p01", "p998"), map(_number, text.split(",")), strict=False)) for text in texts]
    contrast = contrast_of(figures, count) if all(text.count(",") == 1 for text in texts) else None
    if contrast is None:
        raise InvalidInput(f"range is LOW,HIGH in the volume's values, once for each of the {count} channels.")
    return contrast


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
