"""The process that worker processes are forked from: a server started afresh that loads what they need by itself.

Forking the process of a command or of a library's user is not safe once it has threads, numpy's among them, and Python
3.12 and later warn of it. Source: the contexts and start methods of Python's `multiprocessing`.
"""

from __future__ import annotations

import multiprocessing
import signal
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext

_ENDING = (signal.SIGINT, signal.SIGTERM)
_LOADED = "converter.pyramid.tasks"
"""What workers need: only conversions have any."""


def begin_forking() -> ForkServerContext:
    """Start what workers are forked from, unless that is done; it imports what they need while this goes on.

    It is started with Ctrl-C and SIGTERM blocked: it ends when this process has ended, however that comes about.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([_LOADED])
    resource_tracker.ensure_running()  # first, because it unblocks them
    held = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, held)
    return context
