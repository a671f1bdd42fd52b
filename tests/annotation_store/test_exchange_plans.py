"""What an import means by its edits, on the store itself."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from annotation_store.exchange.formats import FORMATS
from annotation_store.exchange.importing import Importer, Wishes
from annotation_store.exchange.plans import LISTED, BlockPlan, Plan
from annotation_store.exchange.report import Ended, Report
from annotation_store.history.lines import Group
from annotation_store.history.segments import Segment
from annotation_store.orders import Order, Outcome
from precomputed_server.errors import Conflict, InvalidInput
from precomputed_server.format.geometry import Box
from tests.annotation_store.support import BLOCK, Editor, Place, check_log
from tests.data import point


def test_an_import_that_is_sent_again_says_again_what_it_left_out(editor: Editor, place: Place) -> None:
    """Nobody knows whether a writer that died had carried it out."""
    cells = {id: point(1, 1, 1, 1) | {"id": id} for id in "abcde"}
    editor.replace([cells[id] for id in "abc"])
    plan = BlockPlan(BLOCK)
    for id in "abc":
        plan.remember("fibers", id, cells[id])
    edits = plan.edits("fibers")
    edits.changed |= {id: cells[id] | {"description": "mine"} for id in "ab"}
    edits.added |= {id: cells[id] for id in "de"}
    edits.deleted.append("c")
    for id in "ad":
        editor.put(cells[id] | {"description": "theirs"})
    directory = editor.store.locate("brain", BLOCK, "fibers").directory
    strict, lenient = (
        Order(directory, plan.step(passes_over=passes_over).parts, "alice", "", f"op{passes_over}")
        for passes_over in (False, True)
    )
    (refused,) = editor.store.commit([strict])
    assert isinstance(refused, Conflict)
    for order in (lenient, replace(lenient, repeated=True)):
        (answer,) = editor.store.commit([order])
        assert not isinstance(answer, Exception), answer
        (outcome,) = answer
        assert isinstance(outcome, Outcome)
        assert (outcome.edits, outcome.refused) == (3, {"a": "changed", "d": "added"})
    assert {id: item.get("description") for id, item in place.stored().items()} == {
        "a": "theirs",
        "b": "mine",
        "d": "theirs",
        "e": None,
    }
    check_log(place)


def test_the_log_is_read_once_for_a_table_of_many_versions(
    editor: Editor, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(40):
        editor.put(point(number, 1, 1, 1))
    blocks = editor.store.blocks("brain", Box((0, 0, 0), (10, 8, 6)))
    reads: list[int] = []
    whole = Segment.groups

    def counted(*given: Any, **named: Any) -> Iterator[Group]:
        reads.append(len(reads))
        return whole(*given, **named)

    monkeypatch.setattr(Segment, "groups", counted)

    def planned(count: int) -> Plan:
        rows = "".join(f"{point(n, 1, 1, 1)['id']},1,2,1,{BLOCK},fibers,{n + 1}\n" for n in range(count))
        reading = FORMATS["csv"].read(iter([f"id,x,y,z,block,leaf,version\n{rows}".encode()]), (1.0, 1.0, 1.0))
        return Importer(editor.store, "brain", reading, Wishes(), (1.0, 1.0, 1.0)).plan(blocks, reading.rows)

    (block,) = planned(16).blocks.values()
    assert (block.counts["changed"], len(reads)) == (16, 1)
    with pytest.raises(InvalidInput, match="more than 16 versions of x0y0z0/fibers"):
        planned(17)


def test_a_worker_is_handed_bytes_and_counts(editor: Editor, place: Place) -> None:
    """To unpickle 95,000 annotations and findings held its loop for more than a second."""
    rows = "".join(f"cell-{number},{number % 10},1,{number / 1e4}\n" for number in range(5000))
    reading = FORMATS["csv"].read(iter([f"id,x,y,z\n{rows}".encode()]), (1.0, 1.0, 1.0))
    blocks = editor.store.blocks("brain", Box((0, 0, 0), (10, 8, 6)))
    plan = Importer(editor.store, "brain", reading, Wishes(), (1.0, 1.0, 1.0)).plan(blocks, reading.rows)
    (block,) = plan.blocks.values()
    step = block.step()
    assert (step.counts["added"], len(step.findings)) == (5000, LISTED)
    assert [type(part.body) for part in step.parts] == [bytes]
    assert len(pickle.dumps(replace(step, parts=()))) < 100_000
    report = Report([Ended(block.step(is_dry=True))], 0, (), is_dry=True).to_json()
    assert (report["counts"]["added"], len(report["added"])) == (5000, LISTED)
