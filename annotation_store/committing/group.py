"""Carrying out orders on a locked block: what each means, the records that say so, and one write for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import orjson

from annotation_store.blocks import Location
from annotation_store.committing.block import LockedBlock
from annotation_store.committing.leaf import Content
from annotation_store.committing.memory import Memory
from annotation_store.committing.preconditions import check_part
from annotation_store.committing.working import PageSave, Working
from annotation_store.digests import etag_of_hash
from annotation_store.edits import Edit, EditSeveral, RestoreTo
from annotation_store.extent import check_places
from annotation_store.history.instants import read_instant
from annotation_store.history.records import (
    EditRecord,
    Head,
    NoteRecord,
    OrderRecord,
    ParkedRecord,
    Record,
    ResolvedRecord,
    holds_of,
)
from annotation_store.history.versions import Versions
from annotation_store.merging.saves import decide
from annotation_store.merging.shadows import WHOLE, Parking
from annotation_store.orders import Answer, Order, Outcome, Part, Resolve, Restore, Said, Save, left_out
from annotation_store.pages.candidates import Pages
from annotation_store.pages.journal import Journal
from annotation_store.pages.origins import Holding
from annotation_store.review import Review
from precomputed_server.errors import KeyReused, NotFound, PrecomputedError

_WHOLE = frozenset({WHOLE})
_SINGLE = ("patch", "merge", "add")
_LONGEST_HOLDS = 1024
"""Bytes: what a page holds is in the log only for a crash between its line and that of the journal."""
_JOURNALED: Mapping[Said, Literal["parked", "unchanged"]] = {"parked": "parked", "unchanged": "unchanged"}


class Group:
    """Orders of one block that are committed together."""

    def __init__(self, block: LockedBlock, directory: str, memory: Memory, journal: Journal) -> None:
        self._block = block
        self._directory = directory
        self._memory = memory
        self._journal = journal
        self._versions = Versions(block.history)
        self._pages = Pages(journal, self._versions)
        self._working: dict[str, Working] = {}
        self._records: list[Record] = []
        self._saves: list[PageSave] = []
        self._set: list[tuple[Working, int, Mapping[str, frozenset[str]]]] = []
        self._keys: dict[str, tuple[str | None, list[Outcome]]] = {}
        self._ops: dict[str, list[Outcome]] = {}

    def recover_journal(self) -> None:
        """Note the saves of the newest group that were committed, but not noted because their process ended."""
        group = self._block.log.newest_group()
        files = group[-1]["files"] if group else {}
        for members in group:
            holds, leaf = members.get("holds"), members.get("leaf", "")
            if holds is None or self._journal.knows(members["op"]):
                continue
            after = files[leaf]["after"] if leaf in files else members.get("etag")
            self._journal.note_save(
                members["session"],
                Location(self._directory, leaf).path,
                number=members["op"],
                replaces=holds.get("base"),
                held=Holding.from_json(holds, None if holds.get("nothing") or after is None else etag_of_hash(after)),
                outcome="saved" if leaf in files else "parked",
                version=members["version"],
            )

    def carry_out(self, orders: Sequence[Order]) -> list[Answer]:
        """Commit what can be of `orders`, in the order in which they arrived; raises OSError, and then nothing is."""
        ends: dict[int, Answer] = {}
        for number in sorted(range(len(orders)), key=lambda number: orders[number].arrived):
            try:
                ends[number] = self._order(orders[number])
            except PrecomputedError as error:
                ends[number] = error
        contents = {name: working.content() for name, working in self._working.items() if working.changed}
        self._describe_saves(contents)
        if self._records:
            versions = {name: self._working[name].version for name in contents}
            self._block.write(self._records, contents, versions)
        self._remember()
        return [self._answer(ends[number]) for number in range(len(orders))]

    def _order(self, order: Order) -> list[Outcome]:
        if order.op in self._ops:
            return self._ops[order.op]
        if order.key is not None and order.key in self._keys:
            request, known = self._keys[order.key]
            check_same_request(order, request)
            return known
        ended = self._done_before(order)
        if ended is None:
            ended = self._all_or_nothing(order) if len(order.parts) > 1 else self._parts(order)
        if order.key is not None:
            self._keys[order.key] = order.request, ended
        self._ops[order.op] = ended
        return ended

    def _done_before(self, order: Order) -> list[Outcome] | None:
        """How the order ended when it was carried out already."""
        log = self._block.log
        done = log.done_key(order.key) if order.key is not None else log.done(order.op) if order.repeated else None
        if done is None:
            return None
        check_same_request(order, done.request)
        outcomes = []
        for part in order.parts:
            newest = self._at_work(part.leaf).version  # what a crash left undone is done before it is answered
            made = [edit for edit in done.edits if edit[0] == part.leaf]
            version = made[-1][1] if made else newest
            said: Said = "parked" if done.parked else "applied" if made else "unchanged"
            id = made[0][3] if part.kind == "add" and made else part.id
            refused = left_out(part, self._at_work(part.leaf).items, [edit[3] for edit in made])
            outcomes.append(Outcome(part.leaf, len(made), version, None, said, done.parked, id, refused))
        return outcomes

    def _all_or_nothing(self, order: Order) -> list[Outcome]:
        before = {name: working.copied() for name, working in self._working.items()}
        records, saves, made = len(self._records), len(self._saves), len(self._set)
        try:
            return self._parts(order)
        except PrecomputedError:
            self._working = before
            del self._records[records:], self._saves[saves:], self._set[made:]
            raise

    def _parts(self, order: Order) -> list[Outcome]:
        outcomes = []
        log = self._block.log
        head = Head(log.time(), order.author, order.session, order.op, order.key, order.request, None, log.clock())
        for part in order.parts:
            working = self._at_work(part.leaf)
            check_part(part, working, self._versions)
            outcomes.append(self._part(order, part, head, working))
        if order.key is not None and not any(outcome.edits or outcome.parked for outcome in outcomes):
            # Later on this request would mean something else: that it was made has to be known.
            self._records.append(NoteRecord(order.parts[0].leaf, outcomes[0].version, head))
        return outcomes

    def _part(self, order: Order, part: Part, head: Head, working: Working) -> Outcome:
        wish = part.wish()
        if isinstance(wish, Save):
            return self._save(order, part, wish, head, working)
        if isinstance(wish, Resolve):
            return self._resolve(part, wish, head, working)
        if isinstance(wish, Review):
            return self._review(part, wish, head, working)
        change = self._restored(part, wish) if isinstance(wish, Restore) else wish
        several = change if isinstance(change, EditSeveral) and change.passes_over else None
        passed_over = None if several is None else several.overtaken(working.items)
        edits = change.edits(working.items)
        if order.extent is not None and part.kind in _SINGLE:
            check_places(edits, working.items, order.extent)
        outcome = replace(self._edit(part, head, working, edits), refused=passed_over)
        if isinstance(change, RestoreTo) and outcome.edits:
            self._reorder(change, head, working, outcome)
        if outcome.edits and outcome.id is not None:
            self._set.append((working, order.arrived, {outcome.id: _WHOLE}))
        return outcome

    def _edit(self, part: Part, head: Head, working: Working, edits: Sequence[Edit]) -> Outcome:
        if not edits:
            return Outcome(part.leaf, 0, working.version, None, "unchanged", None, part.id)
        for edit in edits:
            before = working.items.get(edit.id)
            self._records.append(
                EditRecord(part.leaf, working.version + 1, head, edit.operation, edit.id, before, edit.after)
            )
        working.apply(edits)
        id = edits[0].id if len(edits) == 1 else part.id
        return Outcome(part.leaf, len(edits), working.version, None, "applied", None, id)

    def _reorder(self, change: RestoreTo, head: Head, working: Working, outcome: Outcome) -> None:
        """Let a whole leaf that is restored be the same bytes again."""
        if change.id is None and list(working.items) != list(change.items):
            working.reorder(change.items)
            self._records.append(OrderRecord(outcome.leaf, outcome.version, head, tuple(change.items)))

    def _save(self, order: Order, part: Part, save: Save, head: Head, working: Working) -> Outcome:
        path = order.location(part).path
        page = self._pages.page(order, path, working)
        decision = decide(save.items, working.items, page, part.leaf, order.edges_nm)
        first, parked = len(self._records), None
        outcome = self._edit(part, head, working, decision.edits)
        if decision.parking is not None:
            known = self._parked_before(order, part, decision.parking)
            if known is None:
                parked, known = len(self._records), order.op[:16]
                reason, remove = decision.parking.reason, decision.parking.remove
                self._records.append(
                    ParkedRecord(part.leaf, working.version, head, known, reason, remove, None, (), ())
                )
            outcome = replace(outcome, said="parked", parked=known)
        self._set.append((working, order.arrived, decision.touched))
        records = (first if len(self._records) > first else None, parked)
        origin = self._pages.origin(order, path, decision.base)
        self._saves.append(PageSave(order, path, save.items, decision.base, outcome, records, origin))
        self._pages.saved(order, path, save.items, decision.base)
        return outcome

    def _parked_before(self, order: Order, part: Part, parking: Parking) -> str | None:
        """The id under which the same page has parked the same already."""
        wanted = (part.leaf, order.session, parking.reason, set(parking.remove))
        for known in self._block.log.open_parked().values():
            if (known.leaf, known.head.session, known.reason, set(known.remove)) == wanted:
                return known.parked
        return None

    def _describe_saves(self, contents: Mapping[str, Content]) -> None:
        """Say in the records of saves what their pages hold, counted from the files that readers will see."""
        for save in self._saves:
            content = contents.get(save.outcome.leaf) or self._working[save.outcome.leaf].leaf.content
            save.hold(content)
            first, parked = save.records
            if parked is not None:
                record = self._records[parked]
                assert isinstance(record, ParkedRecord)
                held = save.held
                self._records[parked] = replace(record, etag=held.etag, missing=held.missing, differing=held.differing)
            if first is not None:
                record = self._records[first]
                holds = holds_of(save.base, save.noted.etag is None, save.noted.to_json())
                if len(orjson.dumps(holds)) <= _LONGEST_HOLDS:
                    self._records[first] = replace(record, head=replace(record.head, holds=holds))

    def _resolve(self, part: Part, wish: Resolve, head: Head, working: Working) -> Outcome:
        parked = self._block.log.open_parked().get(wish.parked)
        if parked is None or parked.leaf != part.leaf:
            raise NotFound("Nothing is parked under that id; it may have been applied or discarded.")
        removed = [Edit("delete", id) for id in parked.remove if id in working.items]
        outcome = self._edit(part, head, working, removed if wish.how == "applied" else [])
        self._records.append(ResolvedRecord(part.leaf, working.version, head, wish.parked, wish.how))
        return outcome

    def _review(self, part: Part, wish: Review, head: Head, working: Working) -> Outcome:
        refused = wish.refused(working.items)
        edits = wish.edits(working.items, head.author, read_instant(head.time))
        return replace(self._edit(part, head, working, edits), id=None, refused=refused)

    def _restored(self, part: Part, wish: Restore) -> RestoreTo:
        """The restoration of a version; version 0 is what was before the first: nothing."""
        version = wish.version if wish.at is None else self._versions.at(part.leaf, read_instant(wish.at))
        leaf = self._at_work(part.leaf).leaf
        if version == leaf.version:
            return RestoreTo(leaf.content.items, wish.id)
        return RestoreTo(self._versions.content(part.leaf, version).items if version else {}, wish.id)

    def _at_work(self, name: str) -> Working:
        if name not in self._working:
            leaf = self._block.leaf(name)
            memory = self._memory.leaf(Location(self._directory, name).path)
            content = leaf.content
            self._working[name] = Working(leaf, memory, dict(content.items), dict(content.lines), leaf.version)
        return self._working[name]

    def _remember(self) -> None:
        """After the write: what this process and the journal of pages know of it."""
        for working in self._working.values():
            working.memory.remember(working.leaf.content)
        for working, arrived, touched in self._set:
            working.memory.note(arrived, touched)
        for save in self._saves:
            outcome = _JOURNALED.get(save.outcome.said, "saved")
            self._journal.note_save(
                save.order.session,
                save.path,
                number=save.order.op,
                replaces=save.base,
                held=save.noted,
                outcome=outcome,
                version=save.outcome.version,
                kept=save.outcome.parked,
                arrived=save.order.arrived,
            )

    def _answer(self, ended: Answer) -> Answer:
        if isinstance(ended, PrecomputedError):
            return ended
        return [self._told(outcome) for outcome in ended]

    def _told(self, outcome: Outcome) -> Outcome:
        """The outcome as the client is told it, with the ETag where that says something of its body."""
        working = self._working.get(outcome.leaf)
        if working is None or outcome.version != working.leaf.version:
            return outcome
        save = next((save for save in self._saves if save.outcome is outcome), None)
        if save is not None and not save.is_stored:
            return replace(outcome, said="merged") if outcome.said == "applied" else outcome
        return replace(outcome, etag=working.leaf.content.etag)


def check_same_request(order: Order, request: str | None) -> None:
    """Raise KeyReused when the Idempotency-Key of an order came with a request of another digest."""
    if order.request != request:
        raise KeyReused("That Idempotency-Key came with another request before; take a new one.")
