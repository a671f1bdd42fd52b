"""What a worker process raises arrives in the process that asked as it was."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from precomputed_server import errors
from precomputed_server.errors import PrecomputedError

BUILT_OTHERWISE = {
    errors.MethodNotAllowed: errors.MethodNotAllowed("BREW", ("GET", "PUT")),
    errors.PreconditionFailed: errors.PreconditionFailed("Another one.", etag='"abc"'),
    errors.RangeNotSatisfiable: errors.RangeNotSatisfiable(17),
    errors.Busy: errors.Busy("Too much.", retry_after=9),
}


def every(kind: type[PrecomputedError]) -> Iterator[type[PrecomputedError]]:
    """The class and all below it."""
    yield kind
    for below in kind.__subclasses__():
        yield from every(below)


@pytest.mark.parametrize("kind", list(dict.fromkeys(every(PrecomputedError))))
def test_an_error_is_the_same_in_another_process(kind: type[PrecomputedError]) -> None:
    error = BUILT_OTHERWISE[kind] if kind in BUILT_OTHERWISE else kind("A sentence.")
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is kind
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)
