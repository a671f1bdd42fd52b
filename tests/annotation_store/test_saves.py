"""What a whole-file save means: the difference to what its page holds, whoever else has saved meanwhile."""

from __future__ import annotations

import copy
import json
import time
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from annotation_store.edits import Edit, apply
from annotation_store.merging.saves import decide, holding, materialised
from annotation_store.merging.shadows import Candidate, Decision, Page, Parking, Shadow, Source, succeeded
from annotation_store.model import Item, Items
from tests.annotation_store.drawn import by_id, items, leaves, saved, through_the_client, unknown
from tests.data import point

DRAWN_OVER = [(0, "move", 0, 0.1), (1, "delete", 1, 0.1)]
"""One page moves an annotation while another one of its key removes its own from what it has read."""

QUICK = settings(max_examples=60, deadline=None)
NOW = 1_000_000.0
SECOND = 1_000_000_000

A, B, C, D = (point(number, 10 * number + 0.5, 2.25, 3) for number in range(4))
VESSEL = {**D, "anntype": "vessel", "colour": "red"}


def leaf(*listed: Item) -> Items:
    return by_id(listed)


def moved(item: Item, x: float) -> Item:
    return {**item, "point": [x, 2.25, 3]}


def held(
    items: Items, number: str = "1", ago: float = 1000.0, source: Source = "answered", **members: Any
) -> Candidate:
    return Candidate(number, NOW - ago, source, items, **members)


def page(*candidates: Candidate, **members: Any) -> Page:
    return Page(candidates, now=NOW, arrived=100 * SECOND, **members)


def after(stored: Items, decision: Decision) -> Items:
    return apply(stored, decision.edits)


def test_what_others_added_stays_and_what_this_page_added_comes_to_it() -> None:
    decision = decide(leaf(A, C), leaf(A, B), page(held(leaf(A))), "fibers")
    assert decision == Decision([Edit("add", C["id"], C)], None, "1", {C["id"]: frozenset("*")})


def test_one_annotation_less_is_a_removal() -> None:
    decision = decide(leaf(A), leaf(A, B, C), page(held(leaf(A, B))), "fibers")
    assert decision == Decision([Edit("delete", B["id"])], None, "1", {B["id"]: frozenset("*")})


def test_two_people_who_touched_one_annotation_both_keep_their_field() -> None:
    stored = leaf({**A, "description": "mine", "colour": "red"})
    decision = decide(leaf(moved(A, 7)), stored, page(held(leaf(A))), "fibers")
    assert after(stored, decision) == leaf({**moved(A, 7), "description": "mine", "colour": "red"})
    assert decision.touched == {A["id"]: frozenset({"point"})}


def test_the_last_writer_of_one_field_wins() -> None:
    stored = leaf(moved(A, 5))
    assert after(stored, decide(leaf(moved(A, 7)), stored, page(held(leaf(A))), "fibers")) == leaf(moved(A, 7))


def test_what_somebody_deleted_stays_deleted_for_a_page_that_did_not_touch_it() -> None:
    assert decide(leaf(A, B), leaf(A), page(held(leaf(A, B))), "fibers").edits == []


def test_what_somebody_deleted_while_this_page_changed_it_is_kept() -> None:
    decision = decide(leaf(A, moved(B, 7)), leaf(A), page(held(leaf(A, B))), "fibers")
    assert decision.edits == [Edit("add", B["id"], moved(B, 7))]


def test_what_this_page_deleted_while_somebody_changed_it_is_parked() -> None:
    decision = decide(leaf(A), leaf(A, moved(B, 7)), page(held(leaf(A, B))), "fibers")
    assert (decision.edits, decision.parking) == ([], Parking("changed since", (B["id"],)))


def test_a_length_that_was_measured_anew_is_no_change_by_somebody_else() -> None:
    fibre = {"id": "f", "type": "linestring", "points": [[0, 0, 0], [3, 4, 0]], "length": 5, "anntype": "neuron"}
    dragged = {**fibre, "points": [[0, 0, 0], [6, 8, 0]]}
    decision = decide(leaf(dragged), leaf(fibre), page(held(leaf(fibre))), "fibers")
    stored = after(leaf(fibre), decision)
    assert stored == leaf({**dragged, "length": 10})
    base = materialised(Shadow("2", NOW, "saved", "v2", *holding(leaf(dragged), stored)), stored)
    assert decide(leaf(dragged), stored, page(held(base)), "fibers").edits == []
    assert decide({}, stored, page(held(base)), "fibers").edits == [Edit("delete", "f")]


@pytest.mark.parametrize(("page_says", "expected"), [(None, 41), (12, 12)])
def test_a_length_in_no_known_unit_is_what_the_page_says(page_says: int | None, expected: int) -> None:
    fibre = {"id": "f", "type": "linestring", "points": [[0, 0, 0], [3, 4, 0]], "length": 41}
    sent = {**fibre, "points": [[0, 0, 0], [6, 8, 0]], "length": page_says or 41}
    decision = decide(leaf(sent), leaf(fibre), page(held(leaf(fibre))), "fibers", (1800.0, 1800.0, 2000.0))
    assert after(leaf(fibre), decision) == leaf({**sent, "length": expected})


def test_a_fraction_of_a_length_stays_while_the_points_do() -> None:
    fibre = {"id": "f", "type": "linestring", "points": [[0, 0, 0], [3, 4, 0]], "length": 5.75, "reviewed": False}
    decision = decide(leaf({**fibre, "length": 5, "reviewed": True}), leaf(fibre), page(held(leaf(fibre))), "fibers")
    assert after(leaf(fibre), decision) == leaf({**fibre, "reviewed": True})


def test_a_changed_type_brings_its_coordinates_and_no_others() -> None:
    line = {**A, "type": "line", "pointA": [1, 2, 3], "pointB": [4, 5, 6]}
    del line["point"]
    stored = leaf({**moved(A, 5), "colour": "red"})
    assert after(stored, decide(leaf(line), stored, page(held(leaf(A))), "fibers")) == leaf({**line, "colour": "red"})
    stored = leaf(line)
    assert after(stored, decide(leaf(moved(A, 7)), stored, page(held(leaf(A))), "fibers")) == leaf(moved(A, 7))


# The choice of what the body was made from.


def test_of_two_pages_that_share_a_key_each_is_compared_with_what_it_holds() -> None:
    old, new = held(leaf(A), "old", 500), held(leaf(A, B), "new", 5, "saved")
    decision = decide(leaf(A, C), leaf(A, B), page(new, old), "fibers")
    assert (decision.base, decision.edits) == ("old", [Edit("add", C["id"], C)])


def test_a_page_that_never_saw_an_annotation_cannot_have_sent_it() -> None:
    old, new = held(leaf(A), "old", 500), held(leaf(A, B, C), "new", 5)
    # From the old one it would be an addition of B, whose id nobody can have guessed; from the new one it removes C.
    assert decide(leaf(A, B), leaf(A, B, C), page(new, old), "fibers").edits == [Edit("delete", C["id"])]


def test_a_page_that_never_saw_a_position_cannot_have_sent_it() -> None:
    old, new = held(leaf(A, B), "old", 500), held(leaf(moved(A, 7.125), B, C), "new", 5)
    stored = leaf(moved(A, 7.125), B, C)
    assert decide(leaf(moved(A, 7.125), B), stored, page(new, old), "fibers").edits == [Edit("delete", C["id"])]


def test_a_body_that_the_key_held_a_moment_ago_may_be_a_repetition_and_the_doubt_is_logged() -> None:
    old, new = held(leaf(A), "old", 59), held(leaf(A, B), "new", 5)
    decision = decide(leaf(A), leaf(A, B), page(new, old), "fibers")
    assert decision == Decision([], Parking("doubt", (B["id"],)), "old")


def test_a_body_that_the_key_held_long_ago_is_a_removal() -> None:
    old, new = held(leaf(A), "old", 61), held(leaf(A, B), "new", 5)
    decision = decide(leaf(A), leaf(A, B), page(new, old), "fibers")
    assert decision == Decision([Edit("delete", B["id"])], None, "new", {B["id"]: frozenset("*")})


def test_that_the_key_has_held_a_body_before_is_no_reason_to_pass_it_over() -> None:
    reviewed = {**A, "reviewed": True}
    old, new = held(leaf(A), "old", 10), held(leaf(reviewed), "new", 5, "saved")
    decision = decide(leaf(A), leaf(reviewed), page(new, old), "fibers")
    assert (after(leaf(reviewed), decision), decision.base) == (leaf(A), "new")


def test_a_page_that_aborted_its_reading_removes_nothing() -> None:
    decision = decide(leaf(C), leaf(A), page(held(leaf(A))), "fibers")
    assert (decision.edits, decision.parking, decision.base) == ([Edit("add", C["id"], C)], None, None)
    stored = Page((), [Candidate(None, NOW, "stored", leaf(A))], now=NOW)
    assert decide(leaf(C), leaf(A), stored, "fibers").edits == [Edit("add", C["id"], C)]


def test_a_page_that_saved_the_leaf_last_can_replace_its_last_annotation() -> None:
    decision = decide(leaf(C), leaf(A), Page([held(leaf(A), source="saved")], now=NOW), "fibers")
    assert [edit.operation for edit in decision.edits] == ["delete", "add"]


def test_a_page_that_has_read_the_leaf_since_may_have_aborted_that() -> None:
    candidates = [held(leaf(A), source="answered"), held(leaf(B), source="saved")]
    decision = decide(leaf(C), leaf(A), Page(candidates, has_saved=True, now=NOW), "fibers")
    assert [edit.operation for edit in decision.edits] == ["add"]


def test_without_a_shadow_the_stored_versions_explain_the_body() -> None:
    versions = [Candidate(None, NOW - ago, "stored", items) for ago, items in enumerate([leaf(A, B, C), leaf(A, B)])]
    decision = decide(leaf(A, moved(B, 7)), leaf(A, B, C), Page((), versions, now=NOW), "fibers")
    assert (decision.base, [edit.id for edit in decision.edits]) == (None, [B["id"]])


def test_of_an_unknown_page_and_leaf_everything_is_an_addition() -> None:
    assert [edit.operation for edit in decide(leaf(A, B), leaf(C), Page(), "fibers").edits] == ["add", "add"]
    assert decide({}, leaf(C), Page(), "fibers") == Decision([])


def test_what_was_replaced_counts_only_for_a_save_that_had_arrived_before() -> None:
    new = held(leaf(A, B), "new", 5, "saved", arrived=50 * SECOND)
    for replaced_at, base in ((99, "new"), (101, "old")):
        old = held(leaf(A), "old", 60, replaced_at=replaced_at * SECOND)
        assert decide(leaf(A, C), leaf(A, B), page(new, old), "fibers").base == base


def test_an_earlier_save_that_is_committed_later_undoes_nothing() -> None:
    later = frozenset({(A["id"], "point"), (B["id"], "*"), (D["id"], "*")})
    candidates = (held(leaf(A, D), "new", 0, "saved", arrived=101 * SECOND), held(leaf(A, B)))
    stored = leaf(moved(A, 9), D)
    decision = decide(leaf({**moved(A, 5), "reviewed": True}, moved(B, 5)), stored, page(*candidates, later=later), "f")
    assert after(stored, decision) == leaf({**moved(A, 9), "reviewed": True}, D)
    assert decision.base == "1"


def test_a_page_keeps_what_another_one_of_its_key_replaced() -> None:
    both = [held(leaf(A), "read", 10, holders=2)]
    first = succeeded(both, held(leaf(A, B), "first", 5, "saved", arrived=1), "read")
    assert [(each.number, each.holders, each.replaced_at) for each in first] == [("first", 1, None), ("read", 1, None)]
    assert decide(leaf(A, C), leaf(A, B), page(*first), "fibers").edits == [Edit("add", C["id"], C)]
    second = succeeded(first, held(leaf(A, C), "second", 4, "saved", arrived=2), "read")
    assert [(each.number, each.replaced_at) for each in second] == [("second", None), ("first", None), ("read", 2)]


def test_what_a_save_left_that_arrived_earlier_is_older() -> None:
    read = [held(leaf(A), "read", 10)]
    second = succeeded(read, held(leaf(A, B, C), "second", 5, "saved", arrived=2), "read")
    first = succeeded(second, held(leaf(A, B), "first", 4, "saved", arrived=1), "read")
    assert [(each.number, each.replaced_at) for each in first] == [("second", None), ("first", 2), ("read", 1)]


def test_the_page_that_removed_what_is_gone_already_removes_nothing_else() -> None:
    # Two pages of a key held A and B, B has been deleted: the other page's A is not what this one removed.
    one, other = held(leaf(A), "one", 5), held(leaf(B), "other", 10)
    assert decide({}, leaf(A), page(one, other), "fibers") == Decision(
        [], Parking("doubt", (A["id"],)), "other", {B["id"]: frozenset("*")}
    )


def test_which_of_two_pages_removed_its_own_annotation_cannot_be_known() -> None:
    one, other = held(leaf(A), "one", 5), held(leaf(B), "other", 500)
    assert decide({}, leaf(A, B), page(one, other), "fibers") == Decision([], Parking("doubt", (A["id"],)))


def test_a_save_was_not_made_from_what_a_later_one_left() -> None:
    later = held(leaf(A, B, C), "later", 0, "saved", arrived=101 * SECOND)
    read = held(leaf(A), "read", 10, replaced_at=101 * SECOND)
    decision = decide(leaf(moved(A, 5), B), leaf(A, B, C), page(later, read), "fibers")
    assert (decision.base, [edit.id for edit in decision.edits]) == ("read", [A["id"]])


def test_a_length_goes_with_the_points_that_it_is_of() -> None:
    line = {"id": "l", "type": "line", "pointA": [0, 0, 0], "pointB": [3, 4, 0], "length": 50}
    longer = {**line, "pointB": [6, 8, 0], "length": 100}
    known = page(held(leaf(line)), later=frozenset({("l", "pointB")}))
    assert decide(leaf(longer), leaf({**line, "pointB": [0, 1, 0]}), known, "fibers").edits == []


def test_a_type_that_somebody_set_later_stays_with_its_coordinates() -> None:
    line = {**A, "type": "line", "pointA": [1, 2, 3], "pointB": [4, 5, 6]}
    del line["point"]
    known = page(held(leaf(A)), later=frozenset({(A["id"], "type"), (A["id"], "point")}))
    assert decide(leaf(line), leaf(moved(A, 9)), known, "fibers").edits == []


def test_a_change_that_does_not_go_with_what_is_stored_is_taken_whole() -> None:
    stored = leaf({"id": A["id"], "type": "point", "point": [1, 2], "colour": "red"})
    decision = decide(leaf({**A, "visited": True}), stored, page(held(leaf(A))), "fibers")
    assert after(stored, decision) == leaf({**A, "visited": True, "colour": "red"})


@pytest.mark.parametrize("gone", [B, moved(B, 5)])
def test_what_this_page_removed_is_not_brought_back_by_an_earlier_save_that_comes_later(gone: Item) -> None:
    first = decide(leaf(A), leaf(A), page(held(leaf(A, B))), "fibers")
    later = frozenset((id, name) for id, names in first.touched.items() for name in names)
    assert decide(leaf(A, gone), leaf(A), page(held(leaf(A)), later=later), "fibers").edits == []


# Removals that may be an accident.


def test_several_removals_are_parked_and_the_rest_is_applied() -> None:
    stored = leaf(A, B, VESSEL)
    decision = decide(leaf(moved(A, 7), C), stored, page(held(stored)), "fibers")
    assert decision.parking == Parking("several removed", (B["id"], VESSEL["id"]))
    assert after(stored, decision) == leaf(moved(A, 7), B, VESSEL, C)
    assert decision.touched.keys() == {A["id"], C["id"]}


@pytest.mark.parametrize(("name", "last_slice", "reason"), [
    ("z-0020", "z-0021", "another slice"), ("z-0020", "z-0020", None), ("z-0020", None, None),
    ("fibers", "z-0021", None),
])  # fmt: skip
def test_a_removal_from_a_slice_that_the_page_has_left_is_parked(
    name: str, last_slice: str | None, reason: str | None
) -> None:
    decision = decide({}, leaf(A), page(held(leaf(A)), last_slice=last_slice), name)
    assert (decision.parking and decision.parking.reason) == reason
    assert len(decision.edits) == (reason is None)


@pytest.mark.parametrize(("opened", "has_saved", "others", "sent", "parked"), [
    (4.9, False, leaf(), leaf(), True), (5.1, False, leaf(), leaf(), False), (4.9, True, leaf(), leaf(), False),
    (4.9, False, leaf(B), leaf(), False), (None, False, leaf(), leaf(), False), (4.9, False, leaf(), leaf(C), False),
])  # fmt: skip
def test_a_leaf_that_was_just_opened_is_not_emptied(
    *, opened: float | None, has_saved: bool, others: Items, sent: Items, parked: bool
) -> None:
    first_read = None if opened is None else NOW - opened
    known = page(held(leaf(A), source="saved"), first_read=first_read, has_saved=has_saved)
    decision = decide(sent, leaf(A) | others, known, "fibers")
    assert decision.parking == (Parking("just opened", (A["id"],)) if parked else None)


def test_the_first_reason_names_what_is_parked() -> None:
    stored = leaf(A, moved(B, 7))
    known = page(held(leaf(A, B)), last_slice="z-0021", first_read=NOW)
    assert decide({}, stored, known, "z-0020").parking == Parking("several removed", (A["id"], B["id"]))
    assert decide(leaf(A), stored, known, "z-0020").parking == Parking("another slice", (B["id"],))


def test_what_somebody_else_has_deleted_already_does_not_make_it_several() -> None:
    decision = decide({}, leaf(A), page(held(leaf(A, B))), "fibers")
    assert (decision.edits, decision.parking) == ([Edit("delete", A["id"])], None)


# The algebra.


def sent_by_page(items: Items) -> Items:
    """Through the client and over the wire."""
    return dict(json.loads(json.dumps(saved(items))))


@QUICK
@given(leaves, leaves, st.booleans())
def test_a_save_without_an_edit_decides_nothing(held_items: Items, others: Items, known: bool) -> None:
    stored = {**others, **held_items}
    read = page(held(stored)) if known else Page((), [Candidate(None, NOW, "stored", stored)], now=NOW)
    assert decide(sent_by_page(stored), stored, read, "fibers").edits == []
    assert decide(sent_by_page(held_items), stored, page(held(held_items)), "fibers").edits == []


@QUICK
@given(leaves, leaves, leaves)
def test_deciding_twice_decides_nothing_more(base: Items, stored: Items, wanted: Items) -> None:
    sent = sent_by_page(wanted)
    result = after(stored, decide(sent, stored, page(held(base)), "fibers"))
    shadow = Shadow("2", NOW, "saved", "v2", *holding(sent, result))
    again = decide(copy.deepcopy(sent), result, page(held(materialised(shadow, result), source="saved")), "fibers")
    assert again == Decision([], None, "1")


@QUICK
@given(leaves, leaves, leaves, st.booleans())
def test_what_the_page_never_saw_is_never_removed(base: Items, stored: Items, wanted: Items, has_saved: bool) -> None:
    decision = decide(sent_by_page(wanted), stored, page(held(base), has_saved=has_saved), "fibers")
    removed = {edit.id for edit in decision.edits if edit.after is None}
    assert removed <= base.keys() - wanted.keys()
    assert len(removed) <= 1


@QUICK
@given(leaves, leaves, unknown, st.data())
def test_a_stored_field_that_the_page_did_not_touch_is_never_changed(
    base: Items, stored: Items, more: Item, data: st.DataObject
) -> None:
    assume(base)
    sent = sent_by_page(base)
    id = data.draw(st.sampled_from(sorted(base)))
    # Somebody else has changed everything but the type of it; this page sets a flag.
    other = {**base[id], "anntype": "glia", "description": "theirs", **more}
    sent[id] = {**sent[id], "visited": not sent[id]["visited"]}
    result = after({**stored, id: other}, decide(sent, {**stored, id: other}, page(held(base)), "fibers"))
    assert json.dumps(result) == json.dumps({**stored, id: {**other, "visited": sent[id]["visited"]}})


@QUICK
@given(leaves, st.data())
def test_disjoint_edits_of_two_pages_commute(stored: Items, data: st.DataObject) -> None:
    first = [id for id in sorted(stored) if data.draw(st.sampled_from([True, False]))]
    bodies = [edited_body(data, stored, mine) for mine in (first, sorted(stored.keys() - set(first)))]
    results = []
    for one, other in ((0, 1), (1, 0)):
        result = stored
        for number in (one, other):
            result = after(result, decide(bodies[number], result, page(held(stored)), "fibers"))
        results.append({id: json.dumps(item) for id, item in result.items()})
    assert results[0] == results[1]


def edited_body(data: st.DataObject, stored: Items, mine: list[str]) -> Items:
    """What a page sends that added one annotation and changed one of its own."""
    sent = sent_by_page(stored)
    new = sent_by_page(leaf({**data.draw(items()), "id": f"new{len(mine)}{mine}"}))
    if mine and data.draw(st.sampled_from([True, False])):
        del sent[mine[0]]
    elif mine:
        sent[mine[0]] = {**sent[mine[0]], "reviewed": not sent[mine[0]]["reviewed"]}
        return sent | new
    return sent


class Leaf:
    """A leaf that pages read and save, with the shadows of each key as a server would keep them."""

    def __init__(self) -> None:
        self.stored: Items = {}
        self.shadows: dict[str, list[Candidate]] = {}
        self.seconds = 0.0
        self.count = 0

    def number(self) -> int:
        self.count += 1
        return self.count

    def read(self, key: str) -> Items:
        kept = self.shadows.setdefault(key, [])
        kept.insert(0, Candidate(str(self.number()), self.seconds, "answered", self.stored))
        return sent_by_page(self.stored)

    def save(self, key: str, body: Items) -> Decision:
        sent = dict(json.loads(json.dumps(body)))
        kept, arrived = self.shadows[key], self.number()
        decision = decide(sent, self.stored, Page(kept, now=self.seconds, arrived=arrived), "fibers")
        self.stored = apply(self.stored, decision.edits)
        shadow = Shadow(str(arrived), self.seconds, "saved", "now", *holding(sent, self.stored))
        new = Candidate(str(arrived), self.seconds, "saved", materialised(shadow, self.stored), arrived=arrived)
        self.shadows[key] = succeeded(kept, new, decision.base)
        return decision


actions = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["add", "add", "move", "flag", "delete", "read", "again"]),
        st.integers(0, 9),
        st.sampled_from([0.1, 1, 30, 100]),
    ),
    max_size=16,
)  # fmt: skip


class Tabs:
    """Three pages on one leaf and the edits of the people before them, of which each must come to what they meant."""

    def __init__(self, keys: tuple[str, str, str]) -> None:
        self.leaf = Leaf()
        self.keys = keys
        self.held = [self.leaf.read(key) for key in keys]
        self.deleted: set[str] = set()
        self.added: set[str] = set()
        self.last_moved: dict[str, list[float]] = {}

    def act(self, tab: int, action: str, which: int) -> Decision | None:
        held = self.held[tab]
        before = dict(held)
        id = sorted(held)[which % len(held)] if held else None
        if action == "read":
            self.held[tab] = self.leaf.read(self.keys[tab])
            return None
        if action == "add":
            new = point(self.leaf.number(), self.leaf.number() + 0.1, 1, 1)
            held[new["id"]] = through_the_client(new)
            self.added.add(new["id"])
        elif id is not None and action == "move":
            self.last_moved[id] = [float(self.leaf.number()), 0, 0]
            held[id] = {**held[id], "point": self.last_moved[id]}
        elif id is not None and action == "flag":
            held[id] = {**held[id], "reviewed": not held[id]["reviewed"]}
        elif id is not None and action == "delete":
            del held[id]
            self.deleted.add(id)
            self.last_moved.pop(id, None)  # whoever changes it now brings it back as he knows it
        if held == before and self.keys[0] == self.keys[1]:
            return None  # no client saves what it did not change, and of a shared key it could be anything
        return self.leaf.save(self.keys[tab], held)


@settings(max_examples=150, deadline=None)
@given(actions, st.booleans())
@example([(0, "add", 0, 0.1), (0, "read", 0, 0.1), (1, "add", 0, 0.1), (1, "read", 0, 0.1), *DRAWN_OVER], True)
def test_every_addition_is_there_unless_a_page_removed_it(steps: list[Any], shared: bool) -> None:
    tabs = Tabs(("one", "one", "one") if shared else ("one", "two", "three"))
    for tab, action, which, pause in steps:
        tabs.act(tab, action, which)
        # What a shared key repeats after a minute is taken for the removal that it looks like.
        tabs.leaf.seconds += 0.1 if shared else pause
        assert tabs.leaf.stored.keys() >= tabs.added - tabs.deleted
        for id, place in tabs.last_moved.items():
            assert tabs.leaf.stored.get(id, {"point": place})["point"] == place


@settings(max_examples=150, deadline=None)
@given(actions)
def test_pages_of_their_own_key_get_just_what_they_meant(steps: list[Any]) -> None:
    tabs = Tabs(("one", "two", "three"))
    for tab, action, which, pause in steps:
        before, held_before = tabs.leaf.stored, dict(tabs.held[tab])
        decision = tabs.act(tab, action, which)
        tabs.leaf.seconds += pause
        if decision is None:
            continue
        expected = dict(before)
        for id in {*held_before, *tabs.held[tab]}:
            mine, old = tabs.held[tab].get(id), held_before.get(id)
            if mine is None and old is not None and (id not in before or through_the_client(before[id]) == old):
                expected.pop(id, None)
            elif mine is not None and mine != old:
                fields = {name: value for name, value in mine.items() if old is None or value != old[name]}
                expected[id] = {**before[id], **fields} if id in before else mine
        doubted = decision.parking is not None and decision.parking.reason == "doubt"
        assert tabs.leaf.stored == (before if doubted else expected)


def test_the_properties_above_fail_where_what_a_page_holds_is_not_known() -> None:
    tabs = Tabs(("one", "one", "one"))
    tabs.act(0, "add", 0)
    tabs.leaf.shadows["one"] = tabs.leaf.shadows["one"][:1]  # what the second tab holds is forgotten
    tabs.act(1, "add", 0)
    assert not tabs.leaf.stored.keys() >= tabs.added


def test_a_large_leaf_with_many_shadows_is_decided_quickly() -> None:
    stored = by_id({**point(number, number + 0.1, 1, 2), "colour": "red"} for number in range(500))
    shadows = [held({**stored, str(number): {**A, "id": str(number)}}, str(number)) for number in range(20)]
    sent = sent_by_page(stored)
    start = time.perf_counter()
    decide(sent, stored, page(*shadows, held(stored)), "fibers")
    assert time.perf_counter() - start < 0.05, "it took ten times as long as it should"


def text(item: Item, value: str) -> Item:
    return {**item, "description": value}


def test_of_a_page_whose_base_is_not_known_only_what_is_new_is_an_edit() -> None:
    """It held A as "old" and B; what it is compared with is another page's save, of which nothing else is left."""
    stored = leaf(text(A, "new"), text(B, "b"), C)
    read_long_ago, other = held(leaf(text(A, "old")), "read", 50), held(stored, "other", 5, "saved")
    sent = leaf(text(A, "old"), text(B, "mine"), C)
    decision = decide(sent, stored, page(other, read_long_ago), "fibers")
    assert decision == Decision(
        [Edit("change", B["id"], text(B, "mine"))], None, None, {B["id"]: frozenset({"description"})}
    )
    # Where nobody else may have sent it, all of it is meant.
    alone = decide(sent, stored, page(other), "fibers")
    assert [edit.id for edit in alone.edits] == [A["id"], B["id"]]


def test_a_removal_from_one_candidate_and_old_texts_for_another_is_in_doubt() -> None:
    stored = leaf(text(A, "new"), B, C)
    mine, other = held(leaf(text(A, "old"), B, C), "mine", 50, "saved"), held(stored, "other", 5, "saved")
    decision = decide(leaf(text(A, "old"), B), stored, page(other, mine, held(leaf(text(A, "new"), B))), "fibers")
    assert decision == Decision([], Parking("doubt", (C["id"],)))


def test_a_page_that_draws_removes_nothing_with_it() -> None:
    """Its reading was aborted: it holds nothing and draws C, while another page of the key has saved A only."""
    known = page(held(leaf(A), "other", 5, "saved"), held(leaf(A, B), "read", 50))
    decision = decide(leaf(C), leaf(A, B), known, "fibers")
    assert decision.parking == Parking("doubt", (A["id"],))
    assert decision.edits == [Edit("add", C["id"], C)]


def test_a_leaf_that_holds_more_is_not_emptied_by_one_of_many_pages() -> None:
    """A page that could not read the leaf sends `[]` as well as the one that has removed its only annotation."""
    others = page(held(leaf(A), "one", 5, "saved"), held(leaf(A, B), "read", 50))
    assert decide({}, leaf(A, B), others, "fibers").parking == Parking("doubt", (A["id"],))
    one = page(held(leaf(A), "one", 5, "saved"))
    assert decide({}, leaf(A, B), one, "fibers").edits == [Edit("delete", A["id"])]
