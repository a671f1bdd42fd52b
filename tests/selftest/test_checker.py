"""The checker on histories written by hand: it sees what contradicts every order, and nothing else."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from precomputed_server.selftest.checker import (
    BACKWARDS,
    CLOBBERED,
    LOST,
    MISSING,
    PHANTOM,
    RESURRECTED,
    STALE,
    check,
    check_reads,
)
from precomputed_server.selftest.history import NEVER_ENDED, History, Item, Items, Operation, Read, Violation, Write
from precomputed_server.selftest.replay import LOG, UNLOGGED, UNWANTED, Replay, compare, replay, unwanted
from precomputed_server.selftest.verdict import judged, longest_pause

LEAF = "fibers"


def item(description: str = "first", **members: Any) -> Item:
    """The one annotation that most histories are about."""
    return {"id": "a", "description": description, "reviewed": False, **members}


def edit(invoked: int, ended: int, *writes: Write, **members: Any) -> Operation:
    """An acknowledged edit, or one without an answer when `ended` is 0."""
    if not ended:
        members = {"result": "info", **members}
    given: dict[str, Any] = {"who": f"w{invoked}", "leaf": LEAF, "result": "ok", **members}
    return Operation(writes=writes, invoked=invoked, ended=ended or NEVER_ENDED, **given)


def put(invoked: int, ended: int, description: str, **members: Any) -> Operation:
    """The annotation replaced or added as a whole."""
    wanted = item(description)
    return edit(invoked, ended, Write("a", wanted, wanted, whole=True), **members)


def save(invoked: int, ended: int, held: Item, fields: Item, **members: Any) -> Operation:
    """A page that holds `held` changes some of its fields."""
    return edit(invoked, ended, Write("a", fields, {**held, **fields}), page=True, **members)


def delete(invoked: int, ended: int, **members: Any) -> Operation:
    """The annotation deleted."""
    return edit(invoked, ended, removes=("a",), **members)


def kinds(operations: Sequence[Operation], final: Item | None, initial: Item | None = None) -> list[str]:
    """The kinds of what the checker finds when the leaf holds `final` at the end."""
    begun: dict[str, Items] = {LEAF: {} if initial is None else {"a": initial}}
    ended: dict[str, Items] = {LEAF: {} if final is None else {"a": final}}
    return [violation.kind for violation in check(operations, begun, ended)]


PRESENCE = [
    ("an acknowledged addition that is absent is lost", [put(1, 2, "x")], None, [LOST]),
    ("an addition without an answer may be absent", [put(1, 0, "x")], None, []),
    ("and may be there", [put(1, 0, "x")], item("x"), []),
    ("a refused one is a phantom", [put(1, 2, "x", result="fail")], item("x"), [PHANTOM]),
    ("what nobody sent is a phantom", [], item("x"), [PHANTOM]),
    ("deleted is absent", [put(1, 2, "x"), delete(3, 4)], None, []),
    ("a deletion without an answer may be the last", [put(1, 2, "x"), delete(3, 0)], None, []),
    ("or not have happened", [put(1, 2, "x"), delete(3, 0)], item("x"), []),
    ("a deletion that began before an edit ended may come later", [delete(1, 4), put(3, 5, "x")], None, []),
    ("a deletion that ended before it may not", [delete(1, 2), put(3, 5, "x")], None, [LOST]),
    ("a refused deletion deletes nothing", [put(1, 2, "x"), delete(3, 4, result="fail")], None, [LOST]),
    ("a parked one neither", [put(1, 2, "x"), delete(3, 4, said="parked")], None, [LOST]),
    ("one that changed nothing neither", [put(1, 2, "x"), delete(3, 4, said="unchanged")], None, [LOST]),
    ("deleted and there is resurrected", [put(1, 2, "x"), delete(3, 4)], item("x"), [RESURRECTED]),
    ("a parked deletion may be undone", [put(1, 2, "x"), delete(3, 4, said="parked")], item("x"), []),
    ("in doubt it may as well", [put(1, 2, "x"), delete(3, 4, doubtful=True)], item("x"), []),
    ("an edit that ended later may have added it", [put(1, 5, "x"), delete(3, 4)], item("x"), []),
    ("an edit without an answer may come at any time", [put(1, 0, "x"), delete(3, 4)], item("x"), []),
    (
        "a later edit of a page that held it adds it again",
        [put(1, 2, "x"), delete(3, 4), save(5, 6, item("x"), {"reviewed": True})],
        item("x", reviewed=True),
        [],
    ),
    (
        "such an edit must not be lost",
        [put(1, 2, "x"), delete(3, 4), save(5, 6, item("x"), {"reviewed": True})],
        None,
        [LOST],
    ),
    (
        "a repetition need not",
        [put(1, 2, "x"), delete(3, 4), save(5, 6, item("x"), {"reviewed": True}, repeats=True)],
        None,
        [],
    ),
    (
        "a page with a shared key that still held it may bring it back",
        [put(1, 2, "x"), put(1, 2, "y"), delete(3, 4), edit(5, 6, page=True, doubtful=True, held={"a": item("w")})],
        item("w"),
        [],
    ),
    (
        "a page of its own may not",
        [put(1, 2, "x"), delete(3, 4), edit(5, 6, page=True)],
        item("x"),
        [RESURRECTED],
    ),
]


@pytest.mark.parametrize(
    ("operations", "final", "expected"), [case[1:] for case in PRESENCE], ids=[case[0] for case in PRESENCE]
)
def test_presence(operations: list[Operation], final: Item | None, expected: list[str]) -> None:
    assert kinds(operations, final) == expected


VALUES = [
    ("the last value stands", [put(1, 2, "x"), put(3, 4, "y")], item("y"), []),
    ("an earlier one does not", [put(1, 2, "x"), put(3, 4, "y")], item("x"), [CLOBBERED]),
    ("what was there at first does not", [put(1, 2, "x")], item("first"), [CLOBBERED]),
    ("of two at once either may", [put(1, 4, "x"), put(2, 3, "y")], item("x"), []),
    ("or the other", [put(1, 4, "x"), put(2, 3, "y")], item("y"), []),
    ("one without an answer may be the last", [put(1, 0, "x"), put(3, 4, "y")], item("x"), []),
    ("one without an answer undoes nothing for sure", [put(1, 2, "x"), put(3, 0, "y")], item("x"), []),
    ("a value that nobody sent", [put(1, 2, "x")], item("z"), [PHANTOM]),
    ("a refused value", [put(1, 2, "x"), put(3, 4, "z", result="fail")], item("z"), [PHANTOM]),
    ("a field that nobody removed is gone", [], {"id": "a", "description": "first"}, [CLOBBERED]),
    ("a field that nobody gave is there", [], item(length=1), [PHANTOM]),
    ("1 is not true", [], item(reviewed=0), [PHANTOM]),
    (
        "a page's save of one field keeps another's value of another",
        [put(1, 2, "x"), save(3, 4, item("first"), {"reviewed": True})],
        item("x", reviewed=True),
        [],
    ),
    (
        "a page's save that undoes it clobbers",
        [put(1, 2, "x"), save(3, 4, item("first"), {"reviewed": True})],
        item("first", reviewed=True),
        [CLOBBERED],
    ),
    (
        "a page's value that was acknowledged must stand",
        [save(3, 4, item("first"), {"description": "x"})],
        item("first"),
        [CLOBBERED],
    ),
    (
        "a page that edits what was deleted adds it as it held it",
        [put(1, 2, "x"), delete(3, 4), save(5, 6, item("first"), {"reviewed": True})],
        item("first", reviewed=True),
        [],
    ),
    (
        "a flag that a page set again to what it was may be a repetition",
        [save(1, 2, item(), {"reviewed": True}, said="unchanged")],
        item(),
        [],
    ),
    (
        "a repetition of what the page said undoes nothing",
        [
            save(1, 2, item(), {"description": "x"}),
            put(3, 4, "y"),
            save(5, 6, item(), {"description": "x"}, repeats=True),
        ],
        item("y"),
        [],
    ),
    (
        "but it may say it again",
        [
            save(1, 2, item(), {"description": "x"}),
            put(3, 4, "y"),
            save(3, 6, item(), {"description": "x"}, repeats=True),
        ],
        item("x"),
        [],
    ),
    (
        "a text may not",
        [save(1, 2, item(), {"description": "x"}, said="unchanged")],
        item(),
        [CLOBBERED],
    ),
]


@pytest.mark.parametrize(
    ("operations", "final", "expected"), [case[1:] for case in VALUES], ids=[case[0] for case in VALUES]
)
def test_values(operations: list[Operation], final: Item, expected: list[str]) -> None:
    assert kinds(operations, final, initial=item("first")) == expected


def test_versions_must_not_go_back() -> None:
    first, second = put(1, 2, "x", version=5), put(3, 4, "y", version=4)
    assert kinds([first, second], item("y")) == [BACKWARDS]
    assert kinds([first, replace(second, version=5)], item("y")) == []
    assert kinds([first, replace(second, invoked=2)], item("y")) == []


def read(invoked: int, ended: int, *seen: str, gone: Sequence[str] = (), etag: str | None = None) -> Read:
    """A GET that saw `seen` come and `gone` go since the one before."""
    return Read("reader", LEAF, invoked, ended, etag, frozenset(seen), frozenset(gone))


def seen_wrong(reads: Sequence[Read], operations: Sequence[Operation]) -> list[str]:
    """The kinds of what readers must not have seen, where version 1 has the tag one and version 2 the tag two."""
    found = check_reads(reads, operations, {LEAF: {}}, {LEAF: {"one": 1, "two": 2}})
    return [violation.kind for violation in found]


def test_a_reader_must_see_what_was_acknowledged_before() -> None:
    assert seen_wrong([read(3, 4)], [put(1, 2, "x")]) == [MISSING]
    assert seen_wrong([read(3, 4, "a")], [put(1, 2, "x")]) == []
    assert seen_wrong([read(1, 4)], [put(2, 3, "x")]) == []
    assert seen_wrong([read(3, 4)], [put(1, 0, "x")]) == []


def test_a_reader_need_not_see_what_somebody_deletes() -> None:
    assert seen_wrong([read(3, 6)], [put(1, 2, "x"), delete(5, 8)]) == []
    assert seen_wrong([read(3, 4)], [put(1, 2, "x"), delete(5, 8)]) == [MISSING]
    assert seen_wrong([read(3, 4, "a"), read(5, 6, gone=["a"])], [put(1, 2, "x"), delete(7, 8)]) == [MISSING]
    assert seen_wrong([read(3, 6)], [put(1, 2, "x"), delete(5, 8, said="parked")]) == [MISSING]


def test_a_reader_must_not_see_an_old_version_or_an_unknown_one() -> None:
    edits = [put(1, 2, "x", version=2)]
    assert seen_wrong([read(3, 4, "a", etag="two")], edits) == []
    assert seen_wrong([read(3, 4, "a", etag="one")], edits) == [STALE]
    assert seen_wrong([read(1, 4, "a", etag="one")], edits) == []
    assert seen_wrong([read(3, 4, "a", etag="three")], edits) == [STALE]


def test_an_operation_that_never_came_back_counts_as_unknown() -> None:
    history = History()
    with contextlib.suppress(RuntimeError), history.invoked(put(0, 0, "x")):
        assert [each.result for each in history.all_operations()] == ["info"]
        raise RuntimeError
    with history.invoked(put(0, 0, "y")) as attempt:
        attempt.result, attempt.version, attempt.said = "ok", 7, "applied"
    unknown, done = history.all_operations()
    assert (unknown.result, unknown.ended) == ("info", NEVER_ENDED)
    assert (done.result, done.version, done.said) == ("ok", 7, "applied")
    assert history.acknowledged() == [done.ended]


def test_the_longest_pause_is_from_a_kill_to_the_next_acknowledgement() -> None:
    second = 1_000_000_000
    assert longest_pause([2 * second, 5 * second], [second, 3 * second, 9 * second]) == 4
    assert longest_pause([5 * second], [second]) == 0
    assert longest_pause([second], [second, 3 * second]) == 2


# The log.


class Log:
    """A log of the current format, written line by line."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.history = directory / "annotations" / ".history" / "x0y0z0"
        self.block = directory / "annotations" / "x0y0z0"
        self.history.mkdir(parents=True)
        self.block.mkdir(parents=True)
        self.previous = ""
        self.segment = self.history / "log-000001.jsonl"
        self.line({"format": 2, "operation": "segment", "number": 1, "time": "", "leaves": {}, "parked": []})

    def line(self, members: Mapping[str, Any]) -> None:
        """Append one line, chained to the one before."""
        start = orjson.dumps({**members, "previous": self.previous})[:-1]
        self.previous = hashlib.sha256(start).hexdigest()[:32]
        with self.segment.open("ab") as log:
            log.write(start + b',"digest":"' + self.previous.encode() + b'"}\n')

    def edit(self, version: int, before: Items | None, after: Items | None, /, **members: Any) -> None:
        """Append a group of one record that brings the leaf from `before` to `after`."""
        files = {LEAF: {"before": sha(before), "after": sha(after)}}
        self.line({"leaf": LEAF, "version": version, "id": "a", **members, "files": files})

    def write(self, items: Items) -> None:
        """Write the leaf's file."""
        (self.block / f"{LEAF}.json").write_bytes(file_of(items))

    def replayed(self) -> Replay:
        """What the checker reads of it."""
        return replay(self.history)

    def wrong(self) -> list[Violation]:
        """What the checker finds of log and files."""
        return compare(self.replayed(), self.block)


def file_of(items: Items) -> bytes:
    lines = [json.dumps(item, separators=(",", ":"), ensure_ascii=False) for item in items.values()]
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode() if lines else b"[]\n"


def sha(items: Items | None) -> str | None:
    return None if items is None else hashlib.sha256(file_of(items)).hexdigest()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_the_log_gives_the_file(log: Log) -> None:
    points = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    first = {"a": item("x", points=points)}
    moved = {"a": item("é", points=[[1, 2, 3], [4.5, 5, 6], [4.6, 5, 6], [7, 8, 9]])}
    bare = {"a": {"id": "a", "reviewed": False}}
    log.edit(1, None, first, operation="add", after=first["a"])
    change = {"set": {"description": "é"}, "unset": [], "splice": {"points": [1, 1, [[4.5, 5, 6], [4.6, 5, 6]]]}}
    log.edit(2, first, moved, operation="change", change=change)
    log.write(moved)
    assert log.wrong() == []
    log.edit(3, moved, bare, operation="change", change={"unset": ["description", "points"]})
    log.write(bare)
    assert log.wrong() == []
    log.edit(4, bare, {}, operation="delete")
    log.edit(5, {}, first, operation="restore", after=first["a"])
    log.write(first)
    assert log.wrong() == []
    assert log.replayed().leaves[LEAF].tags[(sha(moved) or "")[:32]] == 2


def test_another_file_is_found(log: Log) -> None:
    log.edit(1, None, {"a": item()}, operation="add", after=item())
    log.write({"a": item("another")})
    assert [violation.kind for violation in log.wrong()] == [LOG]
    (log.block / f"{LEAF}.json").unlink()
    assert [violation.kind for violation in log.wrong()] == [LOG]
    log.write({"a": item()})
    (log.block / "z-0001.json").write_bytes(b"[]")
    assert [violation.leaf for violation in log.wrong()] == ["z-0001"]


def test_what_another_tool_wrote_is_kept_byte_for_byte(log: Log) -> None:
    text = '[ {"id":"a"} ]'
    after = hashlib.sha256(text.encode()).hexdigest()
    external = {"leaf": LEAF, "version": 1, "operation": "external", "author": "external", "text": text}
    log.line({**external, "files": {LEAF: {"before": None, "after": after}}})
    (log.block / f"{LEAF}.json").write_text(text)
    assert log.wrong() == []
    log.line({**external, "version": 2, "text": None, "files": {LEAF: {"before": after, "after": None}}})
    (log.block / f"{LEAF}.json").unlink()
    assert log.wrong() == []


def test_a_torn_group_never_happened(log: Log) -> None:
    log.edit(1, None, {"a": item()}, operation="add", after=item())
    log.write({"a": item()})
    log.line({"leaf": LEAF, "version": 2, "operation": "delete", "id": "a"})
    with log.segment.open("ab") as file:
        file.write(b'{"leaf":"fib')
    assert log.wrong() == []


def test_parked_records_make_no_version(log: Log) -> None:
    log.edit(1, None, {"a": item()}, operation="add", after=item())
    log.write({"a": item()})
    parked = {"leaf": LEAF, "version": 1, "operation": "parked", "parked": "p1", "remove": ["a"], "files": {}}
    log.line(parked)
    assert log.wrong() == []


def test_a_new_segment_goes_on_where_the_last_one_ended(log: Log) -> None:
    first, second = {"a": item("x")}, {"a": item("y")}
    log.edit(1, None, first, operation="add", after=item("x"))
    log.segment = log.history / "log-000002.jsonl"
    leaves = {LEAF: {"version": 1, "after": sha(first)}}
    log.line({"format": 2, "operation": "segment", "number": 2, "leaves": leaves, "parked": []})
    log.line({"operation": "content", "leaf": LEAF, "version": 1, "items": [item("x")]})
    log.edit(2, first, second, operation="change", change={"set": {"description": "y"}})
    log.write(second)
    assert log.wrong() == []
    log.line({"operation": "content", "leaf": LEAF, "version": 2, "items": [item("z")]})
    log.edit(3, second, second, operation="change", after=item("y"))
    assert [violation.sentence.partition(": ")[2] for violation in log.wrong()] == [
        "a leaf's content is another one than what led to it"
    ]


def _flip(log: Log) -> None:
    log.segment.write_bytes(log.segment.read_bytes().replace(b"first", b"fIrst", 1))


def _flip_what_the_file_has_not(log: Log) -> None:
    log.segment.write_bytes(log.segment.read_bytes().replace(b"somebody", b"sOmebody", 1))


def _forge(log: Log) -> None:
    """Change a line in the middle and give it the digest that fits."""
    end = {LEAF: {"before": sha({"a": item()}), "after": sha({"a": item()})}}
    log.line({"leaf": LEAF, "version": 2, "operation": "change", "id": "a", "after": item(), "files": end})
    first, forged, *rest = log.segment.read_bytes().splitlines(keepends=True)
    start = forged.replace(b"somebody", b"nobody")[: -len(b',"digest":""}\n') - 32]
    digest = hashlib.sha256(start).hexdigest()[:32].encode()
    log.segment.write_bytes(b"".join([first, start + b',"digest":"' + digest + b'"}\n', *rest]))


def _claim_another_file(log: Log) -> None:
    log.edit(2, {"a": item()}, {"a": item("another")}, operation="change", after=item())


def _begin_a_segment_elsewhere(log: Log) -> None:
    leaves = {LEAF: {"version": 7, "after": sha({"a": item()})}}
    log.line({"format": 2, "operation": "segment", "number": 2, "leaves": leaves, "parked": []})


def _cut_line(log: Log) -> None:
    lines = log.segment.read_bytes().splitlines(keepends=True)
    log.segment.write_bytes(b"".join(lines[:1] + lines[2:]))


def _reuse_version(log: Log) -> None:
    log.edit(1, {"a": item()}, {"a": item()}, operation="change", after=item())


def _begin_elsewhere(log: Log) -> None:
    log.edit(2, {}, {"a": item()}, operation="change", after=item())


def _repeat_key(log: Log) -> None:
    for version in (2, 3):
        log.edit(version, {"a": item()}, {"a": item()}, operation="change", after=item(), key="k", op=f"o{version}")


def _spoil(log: Log) -> None:
    log.edit(2, {"a": item()}, {"a": item()}, operation="change", change={"splice": {"points": [0, 1, []]}})


DAMAGES = (
    _flip,
    _flip_what_the_file_has_not,
    _forge,
    _claim_another_file,
    _begin_a_segment_elsewhere,
    _cut_line,
    _reuse_version,
    _begin_elsewhere,
    _repeat_key,
    _spoil,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_log_is_found(log: Log, damage: Callable[[Log], None]) -> None:
    log.edit(1, None, {"a": item()}, operation="add", after=item(), author="somebody")
    log.write({"a": item()})
    assert log.wrong() == []
    damage(log)
    assert {violation.kind for violation in log.wrong()} == {LOG}


def test_the_first_format_is_read(log: Log) -> None:
    log.segment.unlink()
    after, previous = {"a": item("x")}, ""
    text = b'[{"id": "a"}]'
    hashes = [None, hashlib.sha256(text).hexdigest(), sha(after), sha({})]
    edits: list[Item] = [
        {"operation": "external", "items": [{"id": "a"}]},
        {"operation": "change", "id": "a", "after": item("x")},
        {"operation": "delete", "id": "a"},
    ]
    written = [text, file_of(after), file_of({})]
    for number, members in enumerate(edits):
        file = {"before": hashes[number], "after": hashes[number + 1]}
        record = {"format": 1, "leaf": LEAF, "version": number + 1, **members, "previous": previous, "file": file}
        line = orjson.dumps(record)
        previous = hashlib.sha256(line).hexdigest()
        with (log.history / "log.jsonl").open("ab") as segment:
            segment.write(line + b"\n")
        (log.block / f"{LEAF}.json").write_bytes(written[number])
        assert log.wrong() == []
        (log.block / f"{LEAF}.json").write_bytes(b'[{"id": "b"}]')
        assert [violation.kind for violation in log.wrong()] == [LOG]
    log.previous = previous  # a newer program went on after it, with a shorter hash
    log.previous = previous[:32]
    (log.block / f"{LEAF}.json").write_bytes(file_of({}))
    leaves = {LEAF: {"version": 3, "after": sha({})}}
    log.line({"format": 2, "operation": "segment", "number": 1, "leaves": leaves, "parked": []})
    assert log.wrong() == []


def test_deletions_and_returns_that_nobody_wished_are_found_in_the_log(log: Log) -> None:
    states = ["x", "y", "x"]
    before: Items | None = None
    for version, description in enumerate(states, 1):
        after = {"a": item(description)}
        log.edit(version, before, after, operation="change" if before else "add", after=after["a"])
        before = after
    log.edit(4, before, {}, operation="delete")
    log.write({})
    found = list(unwanted(log.replayed(), {}, lambda *_: False))
    assert [(violation.kind, violation.id) for violation in found] == [(UNWANTED, "a"), (UNWANTED, "a")]
    assert list(unwanted(log.replayed(), {LEAF: {"a"}}, lambda *_: True)) == []
    # After a deletion it may hold what it held.
    log.edit(5, {}, {"a": item("y")}, operation="add", after=item("y"))
    log.edit(6, {"a": item("y")}, {"a": item("x")}, operation="change", after=item("x"))
    assert len(list(unwanted(log.replayed(), {LEAF: {"a"}}, lambda *_: False))) == 1


def verdict(log: Log, *operations: Operation) -> list[str]:
    """The kinds of everything that is wrong with a run that began without annotations."""
    return [violation.kind for violation in judged(operations, [], {LEAF: b"[]"}, log.block)]


def test_a_value_may_come_back_from_a_save_without_an_answer(log: Log) -> None:
    """Its page cannot know that it was carried out, so its next save may carry it out again."""
    before: Items | None = {}
    for version, description in enumerate(["w", "x", "y", "x"], 1):
        after = {"a": item(description)}
        log.edit(version, before, after, operation="change" if version > 1 else "add", after=after["a"])
        before = after
    log.write({"a": item("x")})
    unanswered = save(1, 0, item("w"), {"description": "x"})
    assert verdict(log, put(1, 2, "w"), unanswered, put(3, 4, "y")) == []
    assert verdict(log, put(1, 2, "w"), replace(unanswered, ended=9, result="ok"), put(3, 4, "y")) == [UNWANTED]


def test_an_acknowledged_edit_that_the_log_does_not_have_is_found(log: Log) -> None:
    log.edit(1, {}, {"a": item("y")}, operation="add", after=item("y"))
    log.write({"a": item("y")})
    assert verdict(log, put(3, 4, "y")) == []
    assert verdict(log, put(1, 2, "x"), put(3, 4, "y")) == [UNLOGGED]
    assert verdict(log, put(1, 0, "x"), put(3, 4, "y")) == []
    assert (
        verdict(log, save(1, 2, item(), {"description": "x"}), put(3, 4, "y")) == []
    )  # two moves of a drag may be one


def test_a_file_that_is_no_json_at_the_end_is_found(log: Log) -> None:
    (log.block / f"{LEAF}.json").write_bytes(b"[")
    assert "damaged" in verdict(log)
