from __future__ import annotations

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from annotation_store.committing.leaf import Content
from annotation_store.committing.memory import Memory

BOUND = 20_000
LEAVES = ["z-0001", "z-0002", "z-0003", "z-0004"]


def content_of(count: int) -> Content:
    return Content.of({str(number): {"id": str(number), "description": "x" * 100} for number in range(count)})


COMMITS = st.lists(st.tuples(st.sampled_from(LEAVES), st.integers(0, 60)), max_size=30)


@given(COMMITS)
def test_the_leaves_used_last_are_kept_within_the_bound(commits: list[tuple[str, int]]) -> None:
    memory = Memory(BOUND)
    expected: OrderedDict[str, int] = OrderedDict()
    for leaf, count in commits:
        known = memory.leaf(leaf)
        assert (known.content is not None) == (leaf in expected)
        known.remember(content_of(count))
        expected[leaf] = known.size
        expected.move_to_end(leaf)
        memory.shrink([leaf])
        while sum(expected.values()) > BOUND:
            expected.popitem(last=False)
    assert {leaf for leaf in LEAVES if memory.leaf(leaf).content is not None} == set(expected)


def test_old_versions_of_a_leaf_are_forgotten_once_they_take_too_much() -> None:
    leaf = Memory(1 << 30).leaf("fibers")
    for etag in ("first", "second", "third"):
        leaf.keep(etag, {}, 3 << 20)
    leaf.keep("third", {}, 3 << 20)
    assert list(leaf.versions) == ["second", "third"]
