"""What is answered to bytes that are no HTTP request: a problem document, as for every other mistake."""

from __future__ import annotations

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from precomputed_server.web.respond import COMMON_HEADERS, NO_CACHE, problem

_TOO_LONG = "The address of the request, or a header of it, is too long; send what is long as a body."
_MALFORMED = "This is no well-formed HTTP request."


def answer_to_malformed(status: int, error: BaseException | None) -> web.Response:
    """The answer, after which the connection ends: where the next request begins, nobody knows."""
    sentence = _TOO_LONG if isinstance(error, LineTooLong) else _MALFORMED
    answer = problem(status, sentence, {**COMMON_HEADERS, "Cache-Control": NO_CACHE})
    answer.force_close()
    return answer
