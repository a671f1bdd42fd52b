"""Confirming annotations: what the client's own flags say, and what a move of the annotation undoes."""

from __future__ import annotations

from datetime import UTC, datetime

from annotation_store.history.delta import difference
from annotation_store.merging.merge import merged
from annotation_store.model import Item
from annotation_store.review import (
    confirmed,
    is_confirmed,
    is_only_review,
    is_visited,
    line_is_only_review,
    state_of,
    withdrawn,
)
from tests.data import point
from tests.end_to_end.neurotrale import sent_by_client

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
DRAWN = point(1, 102.1, 2, 3.5, reviewed=False, visited=False)


def test_the_clients_own_flag_says_that_somebody_looked() -> None:
    assert not is_visited(DRAWN)
    clicked = DRAWN | {"reviewed": True}
    assert is_visited(clicked)
    assert not is_confirmed(clicked)


def test_what_a_person_confirmed_stays_confirmed_through_a_whole_file_save() -> None:
    reviewed = confirmed(DRAWN, "alice", NOON)
    assert reviewed["review"] | {"geometry": ""} == {
        "author": "alice",
        "time": "2026-11-21T12:00:00.000Z",
        "geometry": "",
    }
    (sent,) = sent_by_client([reviewed])
    assert is_confirmed(merged(reviewed, sent))
    assert is_visited(reviewed)


def test_a_move_undoes_it_and_a_text_does_not() -> None:
    reviewed = confirmed(DRAWN, "alice", NOON)
    assert not is_confirmed(reviewed | {"point": [102.2, 2, 3.5]})
    assert not is_confirmed(reviewed | {"type": "linestring", "points": [[102.1, 2, 3.5]]})
    assert is_confirmed(reviewed | {"description": "seen"})
    assert is_confirmed(reviewed | {"point": [102.1, 2.0, 3.5]})


def test_confirming_twice_keeps_the_first_and_withdrawing_gives_it_back() -> None:
    reviewed = confirmed(DRAWN, "alice", NOON)
    assert confirmed(reviewed, "bob", NOON) is reviewed
    assert withdrawn(reviewed) == DRAWN
    assert withdrawn(DRAWN) is DRAWN


def test_the_states_of_an_annotation() -> None:
    reviewed = confirmed(DRAWN, "alice", NOON)
    states = [DRAWN, DRAWN | {"visited": True}, DRAWN | {"reviewed": True}, reviewed, reviewed | {"point": [1, 2, 3]}]
    assert [state_of(item) for item in states] == ["untouched", "visited", "visited", "reviewed", "moved"]
    assert is_visited(states[-1])
    assert state_of(DRAWN | {"review": {"stars": 5}}) == "untouched"  # another tool's field of that name


def line(before: Item, after: Item, **members: object) -> Item:
    """A line of the log with the difference."""
    return {"operation": "change", "change": difference(before, after), **members}


def test_a_mere_confirmation_is_told_from_an_edit() -> None:
    reviewed = confirmed(DRAWN, "alice", NOON)
    moved = reviewed | {"point": [1, 2, 3]}
    again = confirmed(moved, "bob", NOON)
    only = [(DRAWN, reviewed), (reviewed, DRAWN), (moved, again)]
    edits = [(DRAWN, moved), (reviewed, moved), (DRAWN, DRAWN | {"visited": True}), (DRAWN, DRAWN)]
    assert all(is_only_review(*pair) for pair in only)
    assert not any(is_only_review(*pair) for pair in [*edits, (None, reviewed), (reviewed, None)])
    assert all(line_is_only_review(line(*pair)) for pair in only)
    assert not any(line_is_only_review(line(*pair)) for pair in edits)


def test_a_line_with_the_whole_annotation_tells_it_by_its_moment() -> None:
    reviewed = confirmed(DRAWN, "alice", NOON)
    whole = {"operation": "change", "after": reviewed, "time": "2026-11-21T12:00:00.000Z"}
    assert line_is_only_review(whole)
    assert not line_is_only_review(whole | {"time": "2026-11-21T12:00:01.000Z"})
    assert not line_is_only_review(whole | {"operation": "add"})
    assert not line_is_only_review(whole | {"after": DRAWN})
