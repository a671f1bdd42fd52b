"""Chunks, `info` and every other file and directory of the tree."""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web

from precomputed_server.errors import NotFound
from precomputed_server.format.names import STATISTICS
from precomputed_server.readers.chunks import find_chunk
from precomputed_server.readers.stored import find_stored
from precomputed_server.readers.zarr import describes
from precomputed_server.web.pages import listing
from precomputed_server.web.send import Described, send_bytes, send_chunk, send_stored
from precomputed_server.web.state import STATE
from precomputed_server.web.targets import Target

_INFO, _JSON = "info", "application/json"
_OF_STACKS = (_INFO, STATISTICS)


async def get_chunk(request: web.Request, target: Target) -> web.StreamResponse:
    """Answer a path that is spelled like a chunk: the chunk, else the file of that name."""
    state = request.app[STATE]
    chunk = await state.near(find_chunk, state.tree, state.volumes, target.path)
    if chunk is None:
        return await get_file(request, target)
    with chunk.stored:
        described = Described.of_chunk(chunk.stored, state.settings.chunk_max_age)
        return await send_chunk(request, target.path, chunk, described)


async def get_file(request: web.Request, target: Target) -> web.StreamResponse:
    """Answer with a stored file, the listing of a directory, or a redirect to its trailing slash."""
    state = request.app[STATE]
    if target.directory:
        return await listing(request, target)
    name = target.path.rpartition("/")[2]
    if name == _INFO and target.session is not None and target.session.voxel_view:
        voxels = await _voxel_info(request, target.path)
        if voxels is not None:
            return voxels
    if name.startswith(".") and not await state.near(describes, state.tree, state.volumes, target.path):
        raise NotFound("Names that begin with a dot are not served.")
    try:
        stored = await state.near(find_stored, state.tree, target.path)
    except IsADirectoryError:
        return web.Response(status=308, headers={"Location": quote(name) + "/"})
    if stored is None:
        made = await _of_stack(request, target.path) if name in _OF_STACKS else None
        if made is None:
            raise NotFound("Nothing is stored under this path.")
        return made
    with stored:
        described = Described.of_file(stored, target.path, state.settings.chunk_max_age)
        return await send_stored(request, stored, described)


async def _voxel_info(request: web.Request, path: str) -> web.StreamResponse | None:
    """`info` with its lengths in voxels of the finest z; None when it is not a volume's."""
    state = request.app[STATE]
    volume = await state.near(state.volumes.at, path.rpartition("/")[0])
    if volume is None:
        return None
    body = volume.info.in_voxels().to_bytes()
    return await send_bytes(request, body, Described(f"{volume.fingerprint}-voxel", _JSON))


async def _of_stack(request: web.Request, path: str) -> web.StreamResponse | None:
    """A file that a stack which is served as it is has nowhere in the tree; None where there is no such stack."""
    state = request.app[STATE]
    directory, _, name = path.rpartition("/")
    volume = await state.near(state.volumes.at, directory)
    if volume is None or volume.stack is None:
        return None
    body = volume.info.to_bytes() if name == _INFO else await state.far(volume.stack.statistics)
    return None if body is None else await send_bytes(request, body, Described(str(volume.fingerprint), _JSON))
