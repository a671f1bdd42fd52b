"""Confirming annotations: what the client's own flags say, and what a move of the annotation undoes."""

from __future__ import annotations

from datetime import UTC, datetime

from annotation_store.merging.merge import merged
from annotation_store.review import confirmed, is_confirmed, is_visited, withdrawn
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
