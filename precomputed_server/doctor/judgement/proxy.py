"""What arrives of requests that go through a reverse proxy, and of their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from precomputed_server.doctor.judgement.finding import FAIL, OK, WARN, Finding, Level


@dataclass(frozen=True)
class ProxyFacts:
    """What a server answered that was asked at `url`; None where something could not be asked.

    `refused` says why it could not be reached. `slash` is the status of a path that ends in a slash, `range` of a
    request for ten bytes, `encoded` of a dataset whose path was written with %2F; `body` of a request that announces
    the largest save, with `largest` bytes; `tag` is the ETag of what may be compressed; `origins` are the values of
    Access-Control-Allow-Origin; `source` is where links say that the data lies; `events_after_s` says after how many
    seconds a stream of edits began (infinite: not while it was waited for).
    """

    url: str
    refused: str = ""
    slash: int | None = None
    range: int | None = None
    encoded: int | None = None
    body: int | None = None
    largest: int = 0
    tag: str | None = None
    origins: tuple[str, ...] = field(default=())
    source: str | None = None
    events_after_s: float | None = None


_SLOW_EVENTS_S = 2.0


def judge_proxy(facts: ProxyFacts) -> Iterator[Finding]:
    """Reaching the server, and each thing that proxies are known to change."""
    if facts.refused:
        yield Finding(
            FAIL,
            "proxy",
            f"No server of this kind answers at {facts.url}: {facts.refused}."
            " Start it, and let the proxy pass all paths on to it.",
        )
        return
    findings = [found for check in _CHECKS for found in check(facts)]
    yield from findings
    untried = "" if facts.source else "; for want of a dataset not tried: addresses in links, %2F and streams of edits"
    if not findings:
        yield Finding(
            OK, "proxy", f"What is asked at {facts.url} arrives, and the answers come back unchanged{untried}."
        )


def _slash(facts: ProxyFacts) -> Iterator[Finding]:
    if facts.slash is not None and facts.slash != 200:
        yield _found(
            FAIL,
            f"A path that ends in a slash does not arrive as it was asked (status {facts.slash})",
            "Let the proxy pass the path on as it is (nginx: proxy_pass without a path behind the server's name).",
        )


def _encoded(facts: ProxyFacts) -> Iterator[Finding]:
    if facts.encoded is not None and facts.encoded != 200:
        yield _found(
            WARN,
            f"A path with %2F in it does not arrive (status {facts.encoded}), so some programs do not find datasets",
            "Let the proxy pass it on undecoded (Apache: AllowEncodedSlashes NoDecode, and nocanon behind ProxyPass).",
        )


def _range(facts: ProxyFacts) -> Iterator[Finding]:
    if facts.range is not None and facts.range != 206:
        yield _found(
            FAIL,
            f"Ten bytes of a file were asked for and answered {facts.range}, not 206, so shards cannot be read",
            "Let the proxy pass the Range header on, and neither filter nor cache answers.",
        )


def _body(facts: ProxyFacts) -> Iterator[Finding]:
    if facts.body == 413:
        megabytes = facts.largest >> 20
        yield _found(
            FAIL,
            f"The proxy refuses saves that the server takes, of {megabytes} MiB",
            f"Let it take them (nginx: client_max_body_size {megabytes + 1}m; Apache: LimitRequestBody).",
        )


def _tag(facts: ProxyFacts) -> Iterator[Finding]:
    if facts.tag is None or facts.tag.startswith("W/"):
        what = "removed" if facts.tag is None else "weakened"
        yield _found(
            WARN,
            f"The ETag of an answer was {what}, because the proxy compresses it, so saves that name a version fail",
            "Turn compression off in the proxy for this server (nginx: gzip off).",
        )


def _origins(facts: ProxyFacts) -> Iterator[Finding]:
    if len(facts.origins) == 1 and "," not in facts.origins[0]:
        return
    said = "is missing" if not facts.origins else "is there twice"
    yield _found(
        FAIL,
        f"The header Access-Control-Allow-Origin {said}, so viewers of other sites are not shown the data",
        "Let the proxy neither add nor remove it: the server sends it itself.",
    )


def _source(facts: ProxyFacts) -> Iterator[Finding]:
    if facts.source is None or f"{facts.source}/".startswith(f"{facts.url.rstrip('/')}/"):
        return
    asked, told = urlsplit(facts.url), urlsplit(facts.source)
    if asked.netloc != told.netloc:
        remedy = "Let the proxy pass the Host header on (nginx: proxy_set_header Host $http_host; haproxy does)."
    elif asked.scheme != told.scheme:
        remedy = f"Let the proxy speak {asked.scheme} to the server too, or tell people the {told.scheme} address."
    else:
        remedy = f"Give the server a name of its own instead of the path {asked.path}."
    yield _found(FAIL, f"Links say that the data lies at {facts.source}, which is not below {facts.url}", remedy)


def _events(facts: ProxyFacts) -> Iterator[Finding]:
    if facts.events_after_s is not None and facts.events_after_s > _SLOW_EVENTS_S:
        yield _found(
            WARN,
            "The stream of edits is held back, so people do not see what others draw",
            "Turn buffering off in the proxy (nginx: proxy_buffering off), and let answers take hours"
            " (proxy_read_timeout 1h).",
        )


def _found(level: Level, what: str, remedy: str) -> Finding:
    return Finding(level, "proxy", f"{what}. {remedy}")


_CHECKS: tuple[Callable[[ProxyFacts], Iterator[Finding]], ...] = (
    _slash,
    _encoded,
    _range,
    _body,
    _tag,
    _origins,
    _source,
    _events,
)
