"""What people say of a dataset in words, and how its record keeps it: pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FORMAT = 1
"""Of the record; one of another number was written by a newer version of this program."""


@dataclass(frozen=True)
class Words:
    """What a dataset is to be called from now on; None leaves it as it is, an empty title is its directory's name."""

    title: str | None = None
    description: str | None = None
    tags: tuple[str, ...] | None = None


def with_words(record: dict[str, Any], words: Words, title: str, new_id: str) -> dict[str, Any]:
    """The record with other words; what else is in it stays. A record without them gets `title` and `new_id`."""
    changed = {"format": FORMAT, "id": new_id, "title": title, **record}
    if words.title is not None:
        changed["title"] = words.title
    if words.description is not None:
        changed["description"] = words.description
    if words.tags is not None:
        changed["tags"] = list(dict.fromkeys(words.tags))
    return changed
