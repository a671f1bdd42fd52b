"""From values and errors to HTTP answers: conditional requests, ranges, content negotiation, problem documents."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

import orjson
from aiohttp import web
from aiohttp.helpers import ETAG_ANY

from precomputed_server import errors
from precomputed_server.errors import InvalidInput, PrecomputedError, PreconditionFailed, RangeNotSatisfiable

STATUS: Mapping[type[PrecomputedError], int] = {
    errors.InvalidInput: 400,
    errors.InvalidPath: 400,
    errors.InvalidJson: 400,
    errors.InvalidAnnotation: 422,
    errors.KeyReused: 422,
    errors.TooLarge: 413,
    errors.TooSlow: 408,
    errors.UnsupportedMediaType: 415,
    errors.MethodNotAllowed: 405,
    errors.NotFound: 404,
    errors.Gone: 410,
    errors.Conflict: 409,
    errors.PreconditionFailed: 412,
    errors.RangeNotSatisfiable: 416,
    errors.Unreadable: 500,
    errors.MissingExtra: 404,
    errors.WritesRefused: 503,
    errors.NotPermitted: 403,
    errors.StorageFull: 507,
    errors.Busy: 503,
    errors.Defect: 500,
}
"""Which status each error of the project is."""

TITLES: Mapping[int, str] = {
    400: "Bad request",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    409: "Conflict",
    410: "Gone",
    412: "Precondition failed",
    413: "Too large",
    415: "Unsupported media type",
    416: "Range not satisfiable",
    422: "Cannot be done",
    500: "Damaged or unreadable",
    503: "Not now",
    507: "Storage full",
}

COMMON_HEADERS: Mapping[str, str] = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "*",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Server": "precomputed-server",
}
"""What every answer says, errors included."""

NO_CACHE = "no-cache"
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)
_QUALITY = re.compile(r"q\s*=\s*([01](?:\.\d{0,3})?)")

VARY = "Accept-Encoding, User-Agent"
"""What `accepts` looks at."""

_NAMED_ONLY = {"deflate": "python-requests/"}
"""A content encoding → the beginning of the User-Agent of a client that names it and may not decode it: cloud-volume
takes the raw body from the requests library, which names deflate for it, and knows gzip, br and zstd."""


def status_of(error: PrecomputedError) -> int:
    """The HTTP status of an error: that of its nearest class in STATUS."""
    return next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), 500)


def problem(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> web.Response:
    """An RFC 9457 problem document."""
    body = {"type": "about:blank", "title": TITLES.get(status, "Error"), "status": status, "detail": sentence}
    return web.Response(
        status=status, body=orjson.dumps(body), headers={**(headers or {}), "Content-Type": "application/problem+json"}
    )


def problem_of(error: PrecomputedError) -> web.Response:
    """The problem document of an error of the project, with the headers its status asks for."""
    headers = {"Cache-Control": NO_CACHE}
    if isinstance(error, errors.MethodNotAllowed):
        headers["Allow"] = ", ".join((*error.allowed, "OPTIONS"))
    if isinstance(error, errors.Busy):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, errors.StorageFull):
        headers["Retry-After"] = "60"
    if isinstance(error, RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.length}"
    if isinstance(error, PreconditionFailed) and error.etag:
        headers["ETag"] = quoted(error.etag)
    return problem(status_of(error), str(error), headers)


def origin_of(request: web.BaseRequest) -> str:
    """How the client names this server: scheme, host and port."""
    return f"{request.scheme}://{request.host}"


def quoted(etag: str) -> str:
    """An entity tag as the header writes it."""
    return f'"{etag}"'


def check_preconditions(request: web.BaseRequest, etag: str) -> bool:
    """Whether a GET or HEAD is answered 304 (RFC 9110 §13.2.2); raises PreconditionFailed for If-Match.

    `etag` is the strong tag, unquoted, of what would be sent.
    """
    check_if_match(request, etag)
    known = request.if_none_match
    return known is not None and any(tag.value in (ETAG_ANY, etag) for tag in known)


def check_if_match(request: web.BaseRequest, etag: str | None) -> None:
    """Raise PreconditionFailed unless If-Match is absent or names `etag` (None: there is nothing stored)."""
    wanted = request.if_match
    if wanted is None:
        return
    if etag is None or not any(not tag.is_weak and tag.value in (ETAG_ANY, etag) for tag in wanted):
        raise PreconditionFailed("The stored version is not the one that If-Match names; read it again.", etag)


def requested_range(headers: Mapping[str, str], etag: str, length: int) -> tuple[int, int] | None:
    """First byte and count of the one range asked for; None when the whole is to be sent.

    `headers` are the request's, found by lower-case names.
    Several ranges, unknown units and malformed values are answered with the whole (RFC 9110 §14.2), and so is a range
    whose If-Range names another version. Raises RangeNotSatisfiable.
    """
    match = _RANGE.fullmatch(headers.get("range", "").strip())
    if match is None or match[1] == match[2] == "":
        return None
    if headers.get("if-range", quoted(etag)) != quoted(etag):
        return None
    if match[1] == "":
        first = max(0, length - int(match[2]))
        last = length - 1 if int(match[2]) else -1
    else:
        first = int(match[1])
        last = min(length - 1, int(match[2])) if match[2] else length - 1
        if match[2] and int(match[2]) < first:
            return None
    if first > last:
        raise RangeNotSatisfiable(length)
    return first, last - first + 1


def accepts(headers: Mapping[str, str], encoding: str) -> bool:
    """Whether the client says that it decodes the content `encoding`; without Accept-Encoding it does not."""
    if encoding in _NAMED_ONLY and headers.get("user-agent", "").startswith(_NAMED_ONLY[encoding]):
        return False
    qualities: dict[str, float] = {}
    for item in headers.get("accept-encoding", "").lower().split(","):
        name, _, parameter = item.partition(";")
        match = _QUALITY.search(parameter)
        qualities[name.strip().removeprefix("x-")] = float(match[1]) if match else 1.0
    return qualities.get(encoding, qualities.get("*", 0.0)) > 0


def json_answer(value: object, headers: dict[str, str] | None = None, status: int = 200) -> web.Response:
    """A value as JSON that is not kept by anybody."""
    return web.Response(
        status=status,
        body=orjson.dumps(value),
        content_type="application/json",
        headers={"Cache-Control": NO_CACHE, **(headers or {})},
    )


def check_query(request: web.BaseRequest, *known: str) -> None:
    """Raise InvalidInput when the query has a member of another name: a misspelt one would go by unheard."""
    for name in request.query:
        if name not in known:
            takes = f"it takes {', '.join(known)}." if known else "it takes none."
            raise InvalidInput(f"{name[:40]!r} is no parameter of this request; {takes}")


def attachment(name: str) -> str:
    """The header that gives a download its name, in both ways of RFC 6266: old programs know only the first."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name)}"
