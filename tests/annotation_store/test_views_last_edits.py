"""Who edited what last: what is read on says the same as all read anew, and as the blame of the whole log."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from annotation_store.history.versions import Versions
from annotation_store.views.last_edits import LastEdits, stamp_of
from tests.annotation_store.history_writer import Writer, some
from tests.annotation_store.test_history_compaction import run, scribble
from tests.data import point

LEAVES = ("fibers", "z-0001")


pytestmark = pytest.mark.usefixtures("no_waiting_for_the_disk")


@pytest.fixture
def segment_bytes() -> int:
    """Small segments."""
    return 8_000


def stamps(edits: LastEdits, writer: Writer, leaf: str) -> dict[str, int]:
    """The stamp of each annotation that the leaf holds."""
    return {id: edits.of(leaf).get(id, 0) for id in writer.items.get(leaf, {})}


def blamed(writer: Writer, leaf: str) -> dict[str, int]:
    """The same by the code that tells people."""
    entries = Versions(writer.history).blame(leaf)
    known = {id: entry for id, entry in entries.items() if entry.operation != "external"}
    return {id: stamp_of(known[id].time, known[id].author) if id in known else 0 for id in writer.items.get(leaf, {})}


def assert_current(edits: LastEdits, writer: Writer) -> None:
    """What is known after reading on is right."""
    edits.refresh(writer.history)
    assert edits.refresh(writer.history) is False
    anew = LastEdits()
    anew.refresh(writer.history)
    for leaf in LEAVES:
        assert stamps(edits, writer, leaf) == stamps(anew, writer, leaf) == blamed(writer, leaf)


@pytest.mark.parametrize("seed", range(6))
def test_reading_on_is_as_good_as_reading_anew(writer: Writer, seed: int) -> None:
    edits = LastEdits()
    assert edits.refresh(writer.history) is False
    for step in range(12):
        scribble(writer, 10, 100 * seed + step)
        assert_current(edits, writer)
    assert len(writer.segments()) > 2
    run(writer, 2)
    assert_current(edits, writer)
    scribble(writer, 5, seed)
    assert_current(edits, writer)


def test_what_is_not_kept_any_longer_is_unknown_to_all(writer: Writer) -> None:
    """A process that knew it before the log was thinned out answers as one that begins then."""
    edits = LastEdits()
    scribble(writer, 100)
    assert_current(edits, writer)
    run(writer, 100)
    writer.edit(("put", point(50, 1, 2, 3)))
    assert_current(edits, writer)


def test_what_goes_from_closed_segments_only_is_unknown_as_well(writer: Writer) -> None:
    edits = LastEdits()
    scribble(writer, 100)
    writer.now += 100 * 86_400
    writer.edit(("put", point(50, 1, 2, 3)))
    assert_current(edits, writer)
    known = stamps(edits, writer, "fibers")
    assert run(writer, 0).dropped
    assert_current(edits, writer)
    assert stamps(edits, writer, "fibers") != known


def test_a_group_that_was_taken_back_was_never_there(writer: Writer) -> None:
    edits = LastEdits()
    writer.edit(("put", point(1, 1, 2, 3)), session="one")
    edits.refresh(writer.history)
    with writer.log() as log:
        kept = dict(writer.items["fibers"])
        writer.append(log, writer.records(log, [("put", point(1, 5, 5, 5))], "fibers", "two"))
        edits.refresh(writer.history)
        log.undo()
        writer.items["fibers"] = writer.stored["fibers"] = kept
        writer.versions["fibers"] -= 1
    assert_current(edits, writer)


def test_a_log_that_was_replaced_is_read_anew(writer: Writer, tmp_path: Path) -> None:
    edits = LastEdits()
    writer.external(json.dumps(some(2)).encode())
    scribble(writer, 30)
    assert_current(edits, writer)
    for segment in writer.segments():
        segment.unlink()
    other = Writer(tmp_path, 8_000)
    scribble(other, 40, 9)
    assert_current(edits, other)
    os.close(other.history)
