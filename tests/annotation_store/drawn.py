"""Annotations for Hypothesis to draw, and what the whole-file client makes of them, told apart from the code's own."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from annotation_store.model import GEOMETRY, Item, Items

CLIENT_KNOWS = {
    *("point", "pointA", "pointB", "center", "radii", "points", "type", "id", "anntype", "reviewed", "visited"),
    *("description", "segments", "length"),
}

coordinates = st.floats(-1e6, 1e6, allow_nan=False) | st.integers(-(2**31), 2**31)
vectors = st.lists(coordinates, min_size=3, max_size=3)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", ""]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
unknown = st.dictionaries(st.sampled_from(["colour", "who", "größe", "n", "nested"]), values, max_size=3)


@st.composite
def items(draw: st.DrawFn) -> Item:
    """An annotation of any type as a store may hold it, with fields that no client knows."""
    kind = draw(st.sampled_from(list(GEOMETRY)))
    item: Item = {"id": draw(st.text("0123456789abcdef", min_size=1, max_size=4)), "type": kind}
    for field in GEOMETRY[kind]:
        item[field] = draw(st.lists(vectors, min_size=1, max_size=4) if field == "points" else vectors)
    item |= draw(
        st.fixed_dictionaries(
            {"anntype": st.sampled_from(["neuron", "vessel"]), "reviewed": st.booleans(), "visited": st.booleans()},
            optional={
                "description": st.text(st.characters(codec="utf-8"), max_size=6),
                "segments": st.sampled_from([[], [[]], [["5"]], [["1", "2"], ["3"]]]),
                "length": st.floats(0, 1e9) | st.integers(0, 2**53),
            },
        )
    )
    return item | draw(unknown)


def by_id(listed: Iterable[Item]) -> Items:
    """The items by their id."""
    return {item["id"]: item for item in listed}


leaves = st.lists(items(), max_size=5).map(by_id)


def through_the_client(item: Item) -> Item:
    """What the NeuroTrALE client sends for an annotation that it did not touch."""
    sent: Item = {}
    for field, value in item.items():
        if field not in CLIENT_KNOWS or (field in ("description", "segments") and value in ("", [], [[]])):
            continue
        sent[field] = copy.deepcopy(value)
        if field in ("point", "pointA", "pointB", "center", "radii"):
            sent[field] = [whole(float(np.float32(length))) for length in value]
        elif field == "points":
            sent[field] = [[whole(float(length)) for length in point] for point in value]
        elif field == "length":
            sent[field] = int(value)
    return sent


def whole(number: float) -> float:
    """JavaScript writes 5.0 as 5."""
    return int(number) if number == int(number) else number


def saved(stored: Items, order: int = 1) -> Items:
    """The whole file as the client sends it, in another order."""
    return {id: through_the_client(stored[id]) for id in sorted(stored, key=lambda id: stored[id]["anntype"])[::order]}
