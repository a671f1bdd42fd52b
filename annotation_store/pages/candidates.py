"""What the pages that save in one group hold: the journal's shadows with their content, and what the group adds."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import overload

from annotation_store.committing.working import Working
from annotation_store.history.delta import same
from annotation_store.history.instants import instant_of, seconds_of
from annotation_store.history.versions import Versions
from annotation_store.merging.saves import materialised
from annotation_store.merging.shadows import Candidate, Page, is_prefix, succeeded
from annotation_store.model import Item, Items
from annotation_store.orders import Order
from annotation_store.pages.journal import Journal, PageMemory
from annotation_store.pages.origins import Origin

_SHADOWS_LIVE_S = 86_400


class Pages:
    """The pages of one group of orders."""

    def __init__(self, journal: Journal, versions: Versions) -> None:
        self._journal = journal
        self._versions = versions
        self._known: dict[tuple[str, str], PageMemory] = {}
        self._candidates: dict[tuple[str, str], list[Candidate]] = {}
        self._saved: set[tuple[str, str]] = set()
        self._origins: dict[tuple[str, str], dict[str, tuple[Item, ...]]] = {}

    def page(self, order: Order, path: str, working: Working) -> Page:
        """What is known of the page that sent `order`, whose leaf lies at `path`."""
        key = (order.session, path)
        if key not in self._known:
            self._known[key] = self._journal.page(*key)
            self._candidates[key] = list(self._of_shadows(self._known[key], working, order.arrived))
            known = self._known[key]
            held = known.origins & _held(known, order.arrived)
            self._origins[key] = {each.number: each.differing for each in known.shadows if each.number in held}
        known, candidates = self._known[key], self._candidates[key]
        return Page(
            candidates=candidates,
            stored_candidates=_Asked(lambda: list(self._of_versions(working))),
            last_slice=known.last_slice,
            first_read=known.first_read,
            has_saved=known.has_saved or key in self._saved,
            now=time.time(),
            arrived=order.arrived,
            later=working.memory.set_later(order.arrived),
            prefixed=is_prefix(order.session),
        )

    def origin(self, order: Order, path: str, base: str | None) -> Origin | None:
        """From what the page's next shadow may be counted: `base`, which it replaces, or else the newest."""
        key = (order.session, path)
        known = [each for each in self._candidates[key] if each.number in self._origins[key]]
        found = next((each for each in known if each.number == base), known[0] if known else None)
        if found is None or found.number is None:
            return None
        return Origin(found.number, found.items, self._origins[key][found.number])

    def saved(self, order: Order, path: str, sent: Items, base: str | None) -> None:
        """The page now holds what it sent; whoever of it comes later in this group is compared with that."""
        key = (order.session, path)
        self._saved.add(key)
        held = Candidate(order.op, time.time(), "saved", sent, arrived=order.arrived)
        self._candidates[key] = succeeded(self._candidates[key], held, base)
        self._origins[key][order.op] = ()

    def _of_shadows(self, known: PageMemory, working: Working, arrived: int) -> Iterator[Candidate]:
        held = _held(known, arrived)
        etags = {shadow.etag for shadow in known.shadows if shadow.number in held}
        contents = self._contents({etag for etag in etags if etag is not None}, working)
        for shadow in known.shadows:
            version = contents.get(shadow.etag) if shadow.number in held and shadow.etag is not None else {}
            if version is not None:
                items = materialised(shadow, version) if shadow.number in held else {}
                yield Candidate(
                    shadow.number,
                    shadow.time,
                    shadow.source,
                    items,
                    shadow.replaced_at,
                    shadow.arrived,
                    shadow.holders,
                )

    def _contents(self, etags: set[str], working: Working) -> dict[str, Items]:
        """The stored versions of these entity tags that are still known."""
        content, versions = working.leaf.content, working.memory.versions
        found = {etag: versions[etag] for etag in etags if etag in versions}
        for etag in found:
            versions.move_to_end(etag)  # pages that hold it will save again
        if content.etag is not None:
            found[content.etag] = content.items
        missing = etags - found.keys()
        if missing:
            older = self._versions.by_etags(working.leaf.leaf_name, missing)
            for etag, items in older.items():
                found[etag] = _sharing(items, content.items)
                own = sum(item is not content.items.get(id) for id, item in found[etag].items())
                working.memory.keep(etag, found[etag], own * len(content.data or b"") // max(1, len(content.items)))
        return found

    def _of_versions(self, working: Working) -> Iterator[Candidate]:
        """The versions that were stored within the last day, newest first."""
        since = instant_of(time.time() - _SHADOWS_LIVE_S)
        for version in self._versions.recent(working.leaf.leaf_name, since):
            yield Candidate(None, seconds_of(version.time), "stored", version.items)


def _sharing(items: Items, current: Items) -> Items:
    """The annotations, those that the current version has as well being its objects."""
    return {id: current[id] if id in current and same(item, current[id]) else item for id, item in items.items()}


def _held(known: PageMemory, arrived: int) -> frozenset[str]:
    """The shadows that a save may have been made from; of what was replaced before it arrived only the time counts."""
    shadows = (each for each in known.shadows if each.replaced_at is None or arrived < each.replaced_at)
    return frozenset(each.number for each in shadows)


class _Asked(Sequence[Candidate]):
    """Candidates that are only looked for when somebody asks for them."""

    def __init__(self, look: Callable[[], Sequence[Candidate]]) -> None:
        self._found = functools.cache(look)

    @overload
    def __getitem__(self, place: int) -> Candidate: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Candidate]: ...

    def __getitem__(self, place: int | slice) -> Candidate | Sequence[Candidate]:
        return self._found()[place]

    def __len__(self) -> int:
        return len(self._found())
