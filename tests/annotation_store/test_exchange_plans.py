"""What an import means by its edits, on the store itself."""

from __future__ import annotations

from dataclasses import replace

from annotation_store.exchange.plans import BlockPlan
from annotation_store.orders import Order, Outcome
from precomputed_server.errors import Conflict
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
