"""The least that aiohttp on uvloop can do: a peer that reads a file inline and sends it, and knows nothing else.

`python -m benchmarks.bare_aiohttp ROOT PORT WORKERS`: processes that share the port; it ends with SIGTERM.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from types import FrameType

import uvloop
from aiohttp import web


def serve(root: str, listener: socket.socket) -> None:
    """Serve the files beneath `root` until a signal ends the process."""

    async def answer(request: web.Request) -> web.Response:
        descriptor = os.open(root + request.path, os.O_RDONLY)
        try:
            body = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        finally:
            os.close(descriptor)
        return web.Response(body=body, content_type="application/octet-stream")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    web.run_app(app, sock=listener, print=None, access_log=None, loop=uvloop.new_event_loop())


def main() -> None:
    """Start the workers and end them with this process."""
    root, port, workers = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    listener = socket.create_server(("127.0.0.1", port), backlog=2048)
    children = []
    for _ in range(workers):
        child = os.fork()
        if not child:
            serve(root, listener)
            os._exit(0)
        children.append(child)

    def end(_signal: int, _frame: FrameType | None) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
