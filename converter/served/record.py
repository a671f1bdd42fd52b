"""What says that planes are served as they are: the member `stack` of a dataset's record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from converter.options import ConvertOptions, options_from_json
from precomputed_server.errors import PrecomputedError, Unreadable
from precomputed_server.format.info import VolumeInfo

STACK = "stack"
HERE = "."

FORMAT = "raw"
"""What a client gets of a stack is what it would get of its conversion into this format."""


@dataclass(frozen=True)
class Published:
    """Where the planes lie, relative to the dataset's directory, and what a conversion of them would be asked to do."""

    source: str = HERE
    options: ConvertOptions = field(default_factory=lambda: ConvertOptions(format=FORMAT))

    def to_json(self) -> dict[str, Any]:
        """What decides about the volume."""
        return {"format": 1, "source": self.source, "options": self.options.to_json()}

    def to_record(self, info: VolumeInfo) -> dict[str, Any]:
        """The member of the record, with all scales that there are to be, as the planes are now."""
        return {**self.to_json(), "info": info.to_json()}


def published(record: Mapping[str, Any]) -> Published | None:
    """What a record says of planes that are served as they are; None where it says nothing. Raises Unreadable."""
    members = record.get(STACK)
    if members is None:
        return None
    if not isinstance(members, dict) or members.get("format") != 1:
        raise Unreadable("its record speaks of a stack as a newer version of this program does; use that version.")
    try:
        options = options_from_json(members["options"])
        source = members["source"]
    except (PrecomputedError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise Unreadable("its record does not say how its stack is served; describe the stack again.") from error
    if not isinstance(source, str) or not source or options.format != FORMAT or options.encoding != "raw":
        raise Unreadable("its record does not say how its stack is served; describe the stack again.")
    return Published(source, options)
