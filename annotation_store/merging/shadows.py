"""What pages hold of a leaf, and what a save of theirs is decided to mean, as values.

A page is one open view of a whole-file client. It reads a leaf, changes its copy and saves the copy whole; what it
holds, its shadow, is therefore what its next save has to be compared with. A key (a session's prefix, else the peer)
stands for a page and may be shared by several, so it has several shadows, and one shadow may be held by several pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

from annotation_store.edits import Edit
from annotation_store.model import Item, Items

Source = Literal["answered", "saved", "stored"]
WHOLE = "*"
"""In place of a field's name: the whole annotation."""


@dataclass(frozen=True)
class Shadow:
    """What a page may hold: the stored version of `etag` without `missing` and with `differing`.

    `etag` is None where the page was answered that there is nothing. `time` is in seconds since 1970; `replaced_at` is
    when the save that took its place arrived, `arrived` when the save that it is of did (0: none), both in nanoseconds
    of the monotonic clock. `holders` is how many pages may hold it.
    """

    number: str
    time: float
    source: Source
    etag: str | None
    missing: tuple[str, ...] = ()
    differing: tuple[Item, ...] = ()
    replaced_at: int | None = None
    arrived: int = 0
    holders: int = 1


@dataclass(frozen=True)
class Candidate:
    """A shadow with its content: what a save may have been made from."""

    number: str | None
    time: float
    source: Source
    items: Items
    replaced_at: int | None = None
    arrived: int = 0
    holders: int = 1


Held = TypeVar("Held", Shadow, Candidate)


def succeeded(held: Sequence[Held], new: Held, base: str | None) -> list[Held]:
    """What a key holds, newest first, once a save made from `base` left one of its pages with `new`.

    The page no longer holds `base`; other pages that read the same still do. A save that arrived before one that is
    known already is older than that, and if that one was made from the same base, it has been replaced as well: the
    base by this save, and this save by that one.
    """
    result = []
    for each in held:
        if each.number != base:
            result.append(each)
        elif each.replaced_at is not None:
            new = replace(new, replaced_at=each.replaced_at)
            result.append(replace(each, replaced_at=min(each.replaced_at, new.arrived or each.replaced_at)))
        elif each.holders > 1:
            result.append(replace(each, holders=each.holders - 1))
        else:
            result.append(replace(each, replaced_at=new.arrived))
    later = [number for number, each in enumerate(result) if each.arrived > new.arrived > 0]
    result.insert(later[-1] + 1 if later else 0, new)
    return result


def is_prefix(key: str) -> bool:
    """Whether a key is a session's prefix, which one page has; a peer, an address and a browser, may be many pages."""
    return " " not in key


@dataclass(frozen=True)
class Page:
    """What is known of the page that saves: `candidates` are its key's, newest first; `prefixed` as `is_prefix` says.

    `last_slice` is the z-NNNN leaf that it read last, `first_read` when it first asked for this leaf, `arrived` when
    the save did, in nanoseconds of the monotonic clock. `later` are the annotations' fields, as (id, field), that saves
    have set which arrived after this one.
    """

    candidates: Sequence[Candidate] = ()
    stored_candidates: Sequence[Candidate] = ()
    last_slice: str | None = None
    first_read: float | None = None
    has_saved: bool = False
    now: float = 0.0
    arrived: int = 0
    later: frozenset[tuple[str, str]] = frozenset()
    prefixed: bool = False


@dataclass(frozen=True)
class Parking:
    """Removals that are kept for a person to decide instead of being applied."""

    reason: str
    remove: tuple[str, ...]


@dataclass(frozen=True)
class Decision:
    """What a request comes to: `base` is the number of the shadow that the page no longer holds, None for none."""

    edits: Sequence[Edit]
    parking: Parking | None = None
    base: str | None = None
    touched: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The fields of each annotation that the request sets or confirms; WHOLE for an addition or a removal."""
