"""What an event is called, and from where on events are sent to somebody who knows the id of one.

An id is `<ms>-<host>-<n>`: milliseconds from 1970 to the edit, the host that wrote it, and a number that tells it from
others of the same millisecond.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from annotation_store.history.instants import instant_of
from precomputed_server.errors import InvalidInput

OVERLAP_S = 5.0
"""By how much the edits are sent again that came before the one that is known: commits that were under way, and clocks
of hosts that are not the same."""

_CLOCK_WENT_BACK_S = 60.0
_ID = re.compile(r"([0-9]{1,15})-([A-Za-z0-9._]{1,64})-([0-9]{1,20})", re.ASCII)
_DIGITS = 6
_LATEST_MS = 253_402_300_799_999
"""The end of the year 9999."""


@dataclass(frozen=True, order=True)
class EventId:
    """The id of an event; ids sort by time."""

    milliseconds: int
    host: str
    number: int

    def __str__(self) -> str:
        return f"{self.milliseconds}-{self.host}-{self.number}"

    @classmethod
    def parse(cls, text: str) -> EventId:
        """Read an id; raises InvalidInput."""
        match = _ID.fullmatch(text)
        if match is None or int(match[1]) > _LATEST_MS:
            raise InvalidInput(f"{text[:80]!r} is not the id of an event, such as 1790000000123-host-17.")
        return cls(int(match[1]), match[2], int(match[3]))

    def resumed_from(self, now_s: float) -> str:
        """The moment of the log from which on events are sent to somebody who has got this one.

        An id from what is still to come says that the clock has gone back since: then a minute is sent again.
        """
        moment_s = self.milliseconds / 1000
        return instant_of(moment_s - OVERLAP_S if moment_s <= now_s else now_s - _CLOCK_WENT_BACK_S)


def number_of(*said: str | int | None) -> int:
    """The number in the id of an event of which `said` tells it from all others."""
    text = "\0".join("" if each is None else str(each) for each in said)
    return int.from_bytes(hashlib.sha256(text.encode(errors="surrogatepass")).digest()[:_DIGITS])
