"""Moments as the log writes them: RFC 3339 in UTC with milliseconds, which sort as texts do."""

from __future__ import annotations

from datetime import UTC, datetime

from precomputed_server.errors import InvalidInput


def instant_of(seconds: float) -> str:
    """The moment so many seconds after 1970."""
    return instant(datetime.fromtimestamp(seconds, UTC))


def instant(moment: datetime) -> str:
    """The moment as the log writes it; one without a time zone is taken as UTC."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def read_instant(text: str) -> datetime:
    """The moment that RFC 3339 `text` names; raises InvalidInput."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{text[:40]!r} is no moment; write it as 2026-03-01T12:00:00Z.") from error


def milliseconds_of(text: str) -> int:
    """Milliseconds from 1970 to a moment of the log."""
    return round(seconds_of(text) * 1000)


def seconds_of(text: str) -> float:
    """Seconds from 1970 to a moment of the log."""
    return read_instant(text).timestamp()


def has_zone(text: str) -> bool:
    """Whether RFC 3339 `text`, which `read_instant` could read, names its time zone."""
    return datetime.fromisoformat(text).tzinfo is not None
