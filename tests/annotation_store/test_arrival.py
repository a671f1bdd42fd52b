"""When a save came: whatever its process was busy with, in the order in which people sent them."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from annotation_store.web.request import arrival_of


class Kernel:
    """A connection of which the kernel tells that its newest bytes came so many milliseconds ago."""

    def __init__(self, ago_ms: int) -> None:
        self.ago_ms = ago_ms

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
        return (b"\0" * 52 + self.ago_ms.to_bytes(4, "little")).ljust(size, b"\0")[:size]


def arrived(kernel: Kernel) -> int:
    transport = SimpleNamespace(get_extra_info=lambda _: kernel)
    return arrival_of(cast("web.Request", cast("Any", SimpleNamespace(transport=transport))))


def test_a_busy_process_counts_a_save_from_when_it_came() -> None:
    before = time.monotonic_ns()
    assert before - 500_000_000 <= arrived(Kernel(500)) <= before - 450_000_000


@pytest.mark.parametrize("ticks_ms", [1, 4, 10])
def test_a_save_that_was_sent_after_an_answer_counts_as_later(ticks_ms: int) -> None:
    """The kernel counts in ticks of its own: what came this moment may be told as a tick ago."""
    first = arrived(Kernel(0))
    assert arrived(Kernel(ticks_ms)) >= first
