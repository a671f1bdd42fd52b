"""The store against a dict: any sequence of edits, restarts, crashes and other tools' writes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

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

from annotation_store import leaf as leaf_module
from annotation_store.edits import DeleteOne
from annotation_store.leaf import LockedLeaf
from annotation_store.log import Record
from annotation_store.merge import merged
from annotation_store.model import Item, parse_stored, serialize
from annotation_store.store import Outcome
from precomputed_server.errors import NotFound
from precomputed_server.writing import atomic_write
from tests.annotation_store.support import Editor, Place, by_id, check_log, some, written
from tests.data import point

LEAVES = st.sampled_from(["fibers", "z-0003"])
NUMBERS = st.integers(0, 5)
SIZES = settings(max_examples=40, stateful_step_count=25, deadline=None)


class StoreAgainstDict(RuleBasedStateMachine):
    """`wanted` is what each leaf must hold; the files, the log and what readers see are compared after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.wanted: dict[str, dict[str, Item]] = {"fibers": {}, "z-0003": {}}
        self.versions: dict[str, int] = {}
        self.count = 0

    @initialize()
    def open(self) -> None:
        place = Place(self.root)
        place.block.mkdir(parents=True)
        self.editor = Editor(place)

    def teardown(self) -> None:
        shutil.rmtree(self.root)

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

    @rule(leaf=LEAVES, numbers=st.sets(NUMBERS), exact=st.booleans())
    def replace(self, leaf: str, numbers: set[int], exact: bool) -> None:
        sent = by_id(self.item(number) for number in numbers)
        ended = self.editor.replace(sent.values(), exact=exact, leaf=leaf)
        stored = self.wanted[leaf]
        kept = {id: sent[id] if exact else merged(stored[id], sent[id]) for id in stored if id in sent}
        self.wanted[leaf] = kept | {id: item for id, item in sent.items() if id not in kept}
        if ended.version:
            self.check_tag(leaf, ended)

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
            patch.setattr(leaf_module, "atomic_write", self.crash)
            with pytest.raises(KeyboardInterrupt):
                self.editor.put(item, leaf=leaf)
        (self.editor.place.block / f".{leaf}.json.0123456789abcdef.tmp").write_bytes(b"[")
        self.wanted[leaf][item["id"]] = item
        self.editor.restart()
        self.add_or_change(leaf, (number + 1) % 6)
        assert self.editor.place.left_behind() == []

    @staticmethod
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

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

    def check_tag(self, leaf: str, ended: Outcome) -> None:
        """The tag is the hash of the content."""
        content = written(self.wanted[leaf].values())
        assert ended.etag is not None
        assert hashlib.sha256(content).hexdigest().startswith(ended.etag)
        assert len(ended.etag) == 32


def test_the_store_is_a_dict_that_survives() -> None:
    run_state_machine_as_test(StoreAgainstDict, settings=SIZES)


def forgets_crashes(leaf: LockedLeaf) -> tuple[dict[str, Item], int]:
    """Instead of recovery: what lies there counts."""
    tail = leaf._log.tail(leaf._leaf)
    return parse_stored(leaf.data or b""), tail.version if tail else 0


def writes_no_log(leaf: LockedLeaf, records: Sequence[Record], items: dict[str, Item]) -> None:
    """Instead of the write sequence: only the file."""
    atomic_write(leaf._directory, leaf._name, serialize(items))
    leaf._data, leaf.items, leaf.version = serialize(items), items, records[-1].version


@pytest.mark.parametrize(("name", "other"), [("_recovered", forgets_crashes), ("write", writes_no_log)])
def test_the_machine_finds_a_store_that_forgets(name: str, other: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LockedLeaf, name, other)
    quick = settings(SIZES, max_examples=60, report_multiple_bugs=False, database=None, phases=[Phase.generate])
    with pytest.raises((AssertionError, pytest.fail.Exception)):  # the latter from a crash that did not come
        run_state_machine_as_test(StoreAgainstDict, settings=quick)


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
