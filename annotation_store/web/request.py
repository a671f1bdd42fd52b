"""From HTTP requests to orders, and from outcomes to answers."""

from __future__ import annotations

import hashlib
import re
import secrets
import socket
import struct
import time
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.helpers import ETAG_ANY

from annotation_store.committing.preconditions import ANY_VERSION
from annotation_store.model import check_id
from annotation_store.orders import Order, Outcome, Part
from annotation_store.web.service import Place
from precomputed_server.errors import InvalidInput
from precomputed_server.web.respond import quoted
from precomputed_server.web.targets import Session, Target

JSON = "application/json"
VERSION_HEADER = "Precomputed-Version"
EDIT_HEADER = "Precomputed-Edit"

_ANONYMOUS = "anonymous"
_KEY = re.compile(r"[\x21-\x7e]{1,200}")
_LONGEST_PEER = 300
_LAST_DATA_AT, _LAST_DATA = 52, struct.Struct("=I")
"""Where linux/tcp.h has tcpi_last_data_recv in struct tcp_info, in milliseconds."""
_TICK_MS = 10
"""The longest tick of a kernel (CONFIG_HZ=100), in which it counts: what it tells may be one too many."""


def page_of(request: web.Request, session: Session | None) -> str:
    """Which page a request comes from: its prefix, else the peer, which several pages may share."""
    if session is not None:
        return session.name
    origin = request.headers.get("Origin", "")
    if origin and urlsplit(origin).netloc == request.host:
        origin = ""  # a browser leaves it out of the GETs of our own pages
    peer = f"{request.remote or '-'} {request.headers.get('User-Agent', '-')} {origin}"[:_LONGEST_PEER].rstrip()
    return peer.encode(errors="replace").decode()  # a header may hold bytes that are no text


def author_of(session: Session | None) -> str:
    """Who makes a request."""
    return session.name if session else _ANONYMOUS


def id_of(request: web.Request, what_for: str) -> str:
    """The annotation that the query names; raises InvalidInput, InvalidAnnotation."""
    id = request.query.get("id")
    if id is None:
        raise InvalidInput(f"Name the annotation {what_for}: ?id=….")
    check_id(id, "?id=")
    return id


def whole_number(request: web.Request, name: str, default: int | None) -> int | None:
    """The whole number of that name in the query; raises InvalidInput."""
    text = request.query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 16):
        raise InvalidInput(f"{name}={text[:20]} is no whole number.")
    return int(text)


def if_match_of(request: web.Request) -> tuple[str, ...] | None:
    """The strong entity tags of If-Match, None without it."""
    tags = request.if_match
    if tags is None:
        return None
    return tuple(ANY_VERSION if tag.value == ETAG_ANY else tag.value for tag in tags if not tag.is_weak)


def arrival_of(request: web.Request) -> int:
    """When the newest bytes of a request had come in, in nanoseconds of the monotonic clock.

    As the kernel says (TCP_INFO, tcpi_last_data_recv): a busy process looks at a request later than another one that
    has come after it. It is never earlier than they really came, so a request that was sent after the answer to another
    one always counts as the later of the two.
    """
    now = time.monotonic_ns()
    connection = None if request.transport is None else request.transport.get_extra_info("socket")
    if connection is None:
        return now
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA_AT + _LAST_DATA.size)
        (milliseconds,) = _LAST_DATA.unpack_from(told, _LAST_DATA_AT)
    except (OSError, struct.error):  # no TCP
        return now
    return now - max(0, int(milliseconds) - _TICK_MS) * 1_000_000


class Arrival:
    """What is known of a writing request before its body: when it came, from whom, and under which key."""

    def __init__(self, request: web.Request, target: Target) -> None:
        self.moment = arrival_of(request)
        self.request = request
        self.session = target.session
        self.key = request.headers.get("Idempotency-Key")
        self.asked = f"{request.method} {target.path} {request.query_string}".encode(errors="replace")
        self._page = page_of(request, target.session)

    def order(self, place: Place, parts: tuple[Part, ...], body: bytes = b"", page: str | None = None) -> Order:
        """The order of these parts, all in the block of `place`; `body` is that of the request, `page` whose save."""
        if self.key is not None and _KEY.fullmatch(self.key) is None:
            raise InvalidInput("An Idempotency-Key is 1 to 200 visible ASCII characters.")
        request = None if self.key is None else hashlib.sha256(self.asked + b"\n" + body).hexdigest()[:16]
        return Order(
            directory=place.location.directory,
            parts=parts,
            author=author_of(self.session),
            session=page or self._page,
            op=secrets.token_hex(16),
            # Clients that number their requests do not take each other's numbers.
            key=None if self.key is None else f"{self._page} {self.key}",
            request=request,
            arrived=self.moment,
            edges_nm=place.edges_nm,
            extent=place.extent,
        )


def told(outcome: Outcome) -> dict[str, str]:
    """The headers that say how an edit ended."""
    parked = f"; id={outcome.parked}" if outcome.parked else ""
    headers = {VERSION_HEADER: str(outcome.version), EDIT_HEADER: outcome.said + parked}
    if outcome.etag is not None:
        headers["ETag"] = quoted(outcome.etag)
    return headers
