"""The store against a dict: any sequence of edits, saves of pages, restorations, restarts, crashes, other tools."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from annotation_store.committing.block import LockedBlock
from annotation_store.committing.leaf import Content, LockedLeaf
from annotation_store.edits import DeleteOne, ReplaceAll, RestoreTo
from annotation_store.history.records import Record
from annotation_store.merging.merge import merged
from annotation_store.merging.saves import JUST_OPENED_S
from annotation_store.merging.shadows import Decision
from annotation_store.model import Item, Items, serialize
from annotation_store.orders import Outcome, Restore
from precomputed_server.errors import NotFound
from precomputed_server.writing import atomic_write
from tests.annotation_store.drawn import saved, through_the_client
from tests.annotation_store.support import BLOCK, Editor, Place, by_id, check_log, some, written
from tests.data import point

LEAVES = st.sampled_from(["fibers", "z-0003"])
OTHER_SLICE = "z-0007"
PAGES = st.sampled_from(["alice", "bob"])
NUMBERS = st.integers(0, 5)
SIZES = settings(max_examples=100, stateful_step_count=30, deadline=None)


class Copy:
    """What a page holds of one leaf: what it was answered, as the client would send it, and what it did to it.

    `earlier` is everything else that its key may be taken to hold: the store cannot know that it is one page only.
    """

    def __init__(self, items: Items) -> None:
        self.items = items
        self.opened_at = time.time()
        self.earlier: list[Items] = []
        self.has_saved = False  # something that was applied
        self.saves = 0  # since it has read the leaf

    def might_be_news(self, sent: Items) -> bool:
        """Whether nothing tells this save from one of a page whose reading was cut off, and which knows nothing."""
        known = set().union(*self.earlier, self.items)
        return self.saves == 0 and bool(sent) and known.isdisjoint(sent)

    def may_be_of_another(self, lost: set[str]) -> bool:
        """Whether another page of the key may have removed that."""
        return len(lost) == 1 and any(lost <= items.keys() for items in self.earlier)

    def reads(self, items: Items) -> None:
        """The page, or another one of its key, is answered that."""
        self.earlier.append(self.items)
        self.items = items
        self.saves = 0

    def sends(self, items: Items, *, doubtful: bool) -> None:
        """The page holds that instead of what it held before, unless nobody can know which it was."""
        if doubtful:
            self.earlier.append(self.items)
        self.items = items
        self.saves += 1


class StoreAgainstDict(RuleBasedStateMachine):
    """`wanted` is what each leaf must hold; the files, the log and what readers see are compared after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.wanted: dict[str, dict[str, Item]] = {"fibers": {}, "z-0003": {}}
        self.versions: dict[str, int] = {}
        self.past: dict[str, dict[int, dict[str, Item]]] = {"fibers": {}, "z-0003": {}}
        self.copies: dict[tuple[str, str], Copy] = {}
        self.last_slice: dict[str, str] = {}
        self.count = 0

    @initialize()
    def open(self) -> None:
        place = Place(self.directory / "data")
        place.block.mkdir(parents=True)
        self.editor = Editor(place)

    def teardown(self) -> None:
        self.editor.close()
        shutil.rmtree(self.directory)

    def item(self, number: int) -> Item:
        """Annotation `number` as nobody has written it before."""
        self.count += 1
        return point(number, self.count, 0.1 * self.count, 1, colour=self.count)

    @rule(leaf=LEAVES, number=NUMBERS)
    def add_or_change(self, leaf: str, number: int) -> None:
        item = self.item(number)
        ended = self.editor.put(item, leaf=leaf)
        self.wanted[leaf][item["id"]] = item
        self.check_tag(leaf, ended)

    @rule(leaf=LEAVES, number=NUMBERS)
    def delete(self, leaf: str, number: int) -> None:
        id = point(number, 0, 0, 0)["id"]
        ended = self.editor.ends(DeleteOne(id), leaf=leaf)[0]
        assert isinstance(ended, Outcome) == (id in self.wanted[leaf])
        assert isinstance(ended, (Outcome, NotFound))
        self.wanted[leaf].pop(id, None)

    @rule(leaf=LEAVES, numbers=st.sets(NUMBERS))
    def replace(self, leaf: str, numbers: set[int]) -> None:
        sent = by_id(self.item(number) for number in numbers)
        ended = self.editor.replace(sent.values(), leaf=leaf)
        self.wanted[leaf] = in_place(self.wanted[leaf], sent)
        if ended.version:
            self.check_tag(leaf, ended)

    @rule(leaf=LEAVES, page=PAGES)
    def a_page_reads(self, leaf: str, page: str) -> None:
        self.note_read(page, leaf)
        answered = saved(self.wanted[leaf])
        if (page, leaf) in self.copies:
            self.copies[page, leaf].reads(answered)
        else:
            self.copies[page, leaf] = Copy(answered)

    @rule(page=PAGES)
    def a_page_scrolls_away(self, page: str) -> None:
        self.note_read(page, OTHER_SLICE)

    def note_read(self, page: str, leaf: str) -> None:
        """What serving does before it answers."""
        snapshot = self.editor.store.load(self.editor.store.locate("brain", BLOCK, leaf))
        path = f"brain/annotations/{BLOCK}/{leaf}.json"
        self.editor.store.journal.note_read(page, path, None if snapshot is None else snapshot.etag)
        if leaf.startswith("z-"):
            self.last_slice[page] = leaf

    @rule(
        leaf=LEAVES,
        page=PAGES,
        edits=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=4),
        data=st.data(),
    )
    def a_page_saves(self, leaf: str, page: str, edits: list[tuple[int, int]], data: st.DataObject) -> None:
        """Several times in a row, each time with so many drawn and so many removed."""
        if (page, leaf) not in self.copies:
            self.a_page_reads(leaf, page)
        for drawn, removed in edits:
            self.save_once(leaf, page, drawn, removed, data)

    def save_once(self, leaf: str, page: str, drawn: int, removed: int, data: st.DataObject) -> None:
        """Everything that it drew and changed is there, what it did not touch stays, and a removal may be parked."""
        copy = self.copies[page, leaf]
        touched = data.draw(st.sets(st.sampled_from(sorted(copy.items)), max_size=2)) if copy.items else set()
        gone = [id for id in data.draw(st.permutations(sorted(copy.items)))[:removed] if id not in touched]
        sent = {id: item for id, item in copy.items.items() if id not in gone}
        for id in touched:
            self.count += 1
            field = data.draw(st.sampled_from(["point", "description"]))
            sent[id] = sent[id] | {field: [self.count, 0.5, 0] if field == "point" else f"text {self.count}"}
        for _ in range(drawn):
            self.count += 1
            sent |= by_id([point(1000 + self.count, self.count, 2, 3)])
        sent = {id: through_the_client(item) for id, item in sent.items()}
        news = copy.might_be_news(sent)
        if news:
            gone = []
        before = self.wanted[leaf]
        kept = before | {
            id: changed(before.get(id, {}), copy.items.get(id, {}), item)
            for id, item in sent.items()
            if id in touched or id not in copy.items
        }
        ended = self.editor.save(sent.values(), leaf=leaf, session=page)
        left = {id: item for id, item in kept.items() if id not in gone}
        stored = self.editor.place.stored(leaf)
        parked = self.must_be_parked(leaf, page, sent, [id for id in gone if id in before], left)
        if parked is not None:
            assert (ended.said == "parked") == parked
            assert stored.keys() == (kept if parked else left).keys()
        lost = kept.keys() - stored.keys()
        assert lost <= set(gone) or (parked is None and copy.may_be_of_another(lost))
        assert json.dumps(stored) == json.dumps({id: item for id, item in kept.items() if id in stored})
        self.wanted[leaf] = stored
        if ended.etag is not None:
            self.check_tag(leaf, ended)
            assert saved(stored) == saved(sent), "a tag of what the body did not say"
        copy.has_saved = copy.has_saved or ended.said in ("applied", "merged")
        copy.sends(sent, doubtful=news or parked is None)

    def must_be_parked(self, leaf: str, page: str, sent: Items, gone: list[str], left: Items) -> bool | None:
        """Whether removals wait for a person; None where both are right."""
        copy = self.copies[page, leaf]
        if not gone:
            return False
        others = [items for items in copy.earlier if items != copy.items]
        if any(len(items.keys() - sent.keys()) <= 1 for items in others):
            return None  # another page of the key, or a repetition, would explain the body as well
        if len(gone) > 1 or (leaf != "fibers" and self.last_slice[page] != leaf):
            return True
        if any(through_the_client(self.wanted[leaf][id]) != copy.items[id] for id in gone):
            return True  # somebody has changed it since
        if not left and not copy.has_saved:
            age = time.time() - copy.opened_at
            return True if age < JUST_OPENED_S else None
        return False

    @rule(leaf=LEAVES, page=PAGES)
    def a_page_saves_what_it_holds_again(self, leaf: str, page: str) -> None:
        """A repetition, and a save of somebody who changed nothing, is no edit, whatever happened meanwhile."""
        if (page, leaf) in self.copies:
            sent = self.copies[page, leaf].items
            ended = self.editor.save(sent.values(), leaf=leaf, session=page)
            assert ended.edits == 0
            assert ended.said in ("unchanged", "merged")
            self.copies[page, leaf].sends(sent, doubtful=False)

    @rule(leaf=LEAVES, count=st.integers(1, 2))
    def a_page_whose_reading_failed_draws(self, leaf: str, count: int) -> None:
        """It takes every error for an empty file."""
        self.count += 1
        page = f"page {self.count}"
        self.editor.store.journal.note_read(page, f"brain/annotations/{BLOCK}/{leaf}.json", None)
        drawn = [point(1000 + self.count, self.count, number, 3) for number in range(1)]
        for _ in range(count):
            self.editor.save(drawn, leaf=leaf, session=page)
            self.wanted[leaf] |= by_id(drawn)
            self.count += 1
            drawn.append(point(1000 + self.count, self.count, 4, 3))

    @rule(leaf=LEAVES, data=st.data(), number=st.none() | NUMBERS)
    def restore(self, leaf: str, data: st.DataObject, number: int | None) -> None:
        """The whole leaf, or one annotation, as it was in any version."""
        if not self.past[leaf]:
            return
        version = data.draw(st.sampled_from(sorted(self.past[leaf])))
        earlier, now = self.past[leaf][version], self.wanted[leaf]
        id = None if number is None else point(number, 0, 0, 0)["id"]
        ended = self.editor.ends(Restore(version, None, id), leaf=leaf)[0]
        if id is None:
            self.wanted[leaf] = dict(earlier) if now != earlier else now  # in its order, to the byte
        elif id in earlier:
            now[id] = earlier[id]
        else:
            assert isinstance(ended, Outcome) == (id in now)
            now.pop(id, None)
        if isinstance(ended, Outcome) and self.editor.place.file(leaf).exists():
            self.check_tag(leaf, ended)

    @rule(leaf=LEAVES, numbers=st.sets(NUMBERS, max_size=3))
    def restore_to(self, leaf: str, numbers: set[int]) -> None:
        wanted = by_id(self.item(number) for number in numbers)
        self.editor.commit(RestoreTo(wanted), leaf=leaf)
        self.wanted[leaf] = wanted

    @rule(leaf=LEAVES, data=st.data())
    def read_an_earlier_version(self, leaf: str, data: st.DataObject) -> None:
        if self.past[leaf]:
            version = data.draw(st.sampled_from(sorted(self.past[leaf])))
            found = self.editor.store.version_at(self.editor.store.locate("brain", BLOCK, leaf), version, None)
            assert json.dumps(found.items) == json.dumps(self.past[leaf][version])
            assert hashlib.sha256(found.data).hexdigest().startswith(found.etag)

    @rule(leaf=LEAVES, numbers=st.lists(NUMBERS, max_size=4))
    def replace_with_what_is_there(self, leaf: str, numbers: list[int]) -> None:
        before = self.editor.place.log.read_bytes() if self.editor.place.log.exists() else b""
        assert self.editor.replace(reversed(self.wanted[leaf].values()), leaf=leaf).edits == 0
        after = self.editor.place.log.read_bytes() if self.editor.place.log.exists() else b""
        assert after.startswith(before)

    @rule()
    def restart(self) -> None:
        self.editor.restart()

    @rule(leaf=LEAVES, numbers=st.sets(NUMBERS, min_size=1))
    def another_tool_writes(self, leaf: str, numbers: set[int]) -> None:
        """As JSON of another shape; the next edit makes it a version."""
        self.wanted[leaf] = by_id(self.item(number) for number in numbers)
        self.editor.place.file(leaf).write_text(json.dumps(list(self.wanted[leaf].values()), indent=1))
        self.add_or_change(leaf, 0)
        assert b'"author":"external"' in self.editor.place.log.read_bytes()

    @precondition(lambda self: any(self.versions.values()))
    @rule(leaf=LEAVES, garbage=st.sampled_from([b"[{", b"{}", b"\x00" * 40, b"[1]"]))
    def a_file_is_damaged(self, leaf: str, garbage: bytes) -> None:
        if not self.versions.get(leaf):
            return
        self.editor.place.file(leaf).write_bytes(garbage)
        assert by_id(json.loads(self.editor.seen(leaf))) == self.wanted[leaf]
        self.add_or_change(leaf, 0)

    @rule(leaf=LEAVES, number=NUMBERS)
    def a_crash_before_the_file_is_written(self, leaf: str, number: int) -> None:
        """The log has the edit: nobody was told so, but it is done."""
        item = self.item(number)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "rename", crash_at(os.rename, f"{leaf}.json"))
            with pytest.raises(KeyboardInterrupt):
                self.editor.put(item, leaf=leaf)
        (self.editor.place.block / f".{leaf}.json.0123456789abcdef.tmp").write_bytes(b"[")
        self.wanted[leaf][item["id"]] = item
        self.editor.restart()
        self.add_or_change(leaf, (number + 1) % 6)
        assert self.editor.place.left_behind() == []

    @precondition(lambda self: any(self.versions.values()))
    @rule(leaf=LEAVES, keep=st.floats(0, 0.99))
    def a_crash_while_the_log_is_written(self, leaf: str, keep: float) -> None:
        """A torn record never happened."""
        log = self.editor.place.log
        whole = log.read_bytes()
        self.editor.put(self.item(9), leaf="torn")
        torn = log.read_bytes()[len(whole) :]
        log.write_bytes(whole + torn[: int(len(torn) * keep)])
        self.editor.place.file("torn").unlink()
        self.editor.restart()
        self.add_or_change(leaf, 0)
        assert self.editor.version("torn") == 0

    @invariant()
    def files_readers_and_log_say_the_same(self) -> None:
        place = self.editor.place
        versions = check_log(place)
        for leaf, wanted in self.wanted.items():
            stored = place.stored(leaf)
            assert json.dumps(stored) == json.dumps(wanted)
            version = self.editor.version(leaf)
            assert version >= self.versions.get(leaf, 0)
            assert version == versions.get(leaf, 0)
            self.versions[leaf] = version
            if version:
                self.past[leaf][version] = dict(wanted)

    def check_tag(self, leaf: str, ended: Outcome) -> None:
        """The tag is the hash of the content."""
        content = written(self.wanted[leaf].values())
        assert ended.etag is not None
        assert hashlib.sha256(content).hexdigest().startswith(ended.etag)
        assert len(ended.etag) == 32


def changed(stored: Item, held: Item, sent: Item) -> Item:
    """An annotation after a save of a page that held it as `held` and changed it; empty ones do not exist."""
    if not stored or not held:
        return merged(stored, sent) if stored else sent
    return stored | {name: value for name, value in sent.items() if value != held.get(name)}


def in_place(before: Items, after: Items) -> Items:
    """`after` in the order that a file has which held `before`: what stays keeps its place, what is new comes last."""
    return {id: after[id] for id in before if id in after} | after


def crash_at(rename: Any, name: str) -> Any:  # noqa: ANN401  # os.rename, whose types are many
    """os.rename, except that the process ends when it is about to give a file that name."""

    def renamed(source: str, target: str, **given: int) -> None:
        if target == name:
            raise KeyboardInterrupt
        rename(source, target, **given)

    return renamed


def test_the_store_is_a_dict_that_survives() -> None:
    run_state_machine_as_test(StoreAgainstDict, settings=SIZES)


@pytest.mark.nightly
def test_the_store_is_a_dict_that_survives_for_hours() -> None:
    run_state_machine_as_test(StoreAgainstDict, settings=settings(SIZES, max_examples=5_000, stateful_step_count=60))


def forgets_crashes(leaf: LockedLeaf) -> tuple[Content, int]:
    """Instead of recovery: what lies there counts."""
    tail = leaf._log.tail(leaf.leaf_name)
    path = Path(f"/proc/self/fd/{leaf._directory}") / leaf.name
    content = path.read_bytes() if path.exists() else None
    hash = None if content is None else hashlib.sha256(content).hexdigest()
    return Content.read(content, hash), tail.version if tail else 0


def writes_no_log(
    block: LockedBlock, records: Sequence[Record], changed: Mapping[str, Content], versions: Mapping[str, int]
) -> None:
    """Instead of the write sequence: only the files."""
    for name, content in changed.items():
        leaf = block.leaf(name)
        atomic_write(block._directory, leaf.name, serialize(content.items))
        leaf.content, leaf.version = content, versions[name]


@pytest.mark.parametrize(
    ("where", "name", "other"),
    [(LockedLeaf, "_recovered", forgets_crashes), (LockedBlock, "write", writes_no_log)],
    ids=["recovery", "log"],
)
def test_the_machine_finds_a_store_that_forgets(
    where: type, name: str, other: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, other)
    found_wrong()


def found_wrong() -> None:
    """The machine fails."""
    quick = settings(SIZES, max_examples=60, report_multiple_bugs=False, database=None, phases=[Phase.generate])
    with pytest.raises((AssertionError, pytest.fail.Exception)):  # the latter from a crash that did not come
        run_state_machine_as_test(StoreAgainstDict, settings=quick)


def as_it_is(sent: Items, stored: Items, *_: object) -> Decision:
    """What the predecessor made of a save: the body is the file."""
    return Decision(ReplaceAll(sent).edits(stored), touched={})


def test_the_machine_finds_a_store_that_does_not_merge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annotation_store.committing.group.decide", as_it_is)
    found_wrong()


def test_the_log_checker_fails(editor: Editor, place: Place) -> None:
    for item in some(5):
        editor.put(item)
    check_log(place)
    log, content = place.log.read_bytes(), place.file().read_bytes()
    lines = log.splitlines(keepends=True)
    for wrong in (
        lines[:-1],
        lines[1:],
        [lines[1], lines[0], *lines[2:]],
        [*lines[:4], lines[4][:-9]],
        [*lines, lines[-1]],
        [line.replace(b"0.5", b"0.6") for line in lines],
    ):
        place.log.write_bytes(b"".join(wrong))
        with pytest.raises((AssertionError, ValueError)):
            check_log(place)
    place.log.write_bytes(log)
    place.file().write_bytes(content[:-1])
    with pytest.raises(AssertionError):
        check_log(place)
    os.unlink(place.file())
    with pytest.raises(AssertionError):
        check_log(place)
