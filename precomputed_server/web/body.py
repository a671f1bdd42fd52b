"""Reading the bodies of saves: no longer than a setting allows, not for longer, and not too many bytes at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

from aiohttp import web

from precomputed_server.errors import Busy, InvalidInput, PrecomputedError, TooLarge, TooSlow
from precomputed_server.settings import Settings

_PIECE = 1 << 16


class Budget:
    """A number of bytes that may be held at a time."""

    def __init__(self, bound: int) -> None:
        self._free = bound

    @contextlib.contextmanager
    def hold(self) -> Iterator[Share]:
        """A share of it that grows with what is read and ends with the block."""
        share = Share(self)
        try:
            yield share
        finally:
            self._free += share.taken

    def take(self, count: int) -> None:
        """Take that many bytes; raises Busy when they are not free."""
        if count > self._free:
            raise Busy("Too many saves are arriving at a time; try again.", retry_after=5)
        self._free -= count


class Share:
    """What one body has taken of a budget."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.taken = 0

    def grow_to(self, count: int) -> None:
        """Take what is missing to `count` bytes; raises Busy."""
        if count > self.taken:
            missing = max(count - self.taken, _PIECE)
            self._budget.take(missing)
            self.taken += missing


Spill = Callable[[bytes, AsyncIterator[bytes], PrecomputedError], Awaitable[None]]
"""Takes what has arrived of a body that memory has no place for, what is still to arrive, and why it is refused."""


@contextlib.asynccontextmanager
async def body_of(
    request: web.Request, settings: Settings, budget: Budget, longest: int | None = None, spill: Spill | None = None
) -> AsyncIterator[bytes]:
    """The request's body; raises TooLarge for more than `longest` bytes or the setting's, Busy, TooSlow.

    One that is too large, or comes when too many arrive, is given to `spill` first.
    """
    bound = settings.max_body if longest is None else min(longest, settings.max_body)
    hint = " (setting --max-body)" if bound == settings.max_body else "; send it in parts"
    with budget.hold() as share:
        arriving = _pieces(request, settings.body_timeout)
        read = bytearray()
        async for piece in arriving:
            read += piece
            try:
                if len(read) > bound:
                    raise TooLarge(f"The body has more than the {bound} bytes that it may have here{hint}.")
                # Only what has arrived takes a place: a client that announces much and sends nothing takes none.
                share.grow_to(len(read))
            except PrecomputedError as error:
                if spill is not None:
                    await spill(bytes(read), arriving, error)
                raise
        body = bytes(read)
        del read
        yield body


async def _pieces(request: web.Request, timeout: float) -> AsyncIterator[bytes]:
    """The body as it arrives; raises TooSlow when it has not arrived after `timeout` seconds."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                piece = await request.content.readany()
        except TimeoutError as error:
            raise TooSlow("The body did not arrive in time (setting --body-timeout); send it again.") from error
        except web.RequestPayloadError as error:
            raise InvalidInput("The body is cut short, or is not what its Content-Encoding says.") from error
        if not piece:
            return
        yield piece
