"""How many annotations a dataset has, for lists of many datasets: only files that have changed are read."""

from __future__ import annotations

import os

from annotation_store.reader import AnnotationReader
from precomputed_server.errors import PrecomputedError
from precomputed_server.files import Fingerprint, Tree, join
from precomputed_server.format.names import ANNOTATIONS


class AnnotationCounter:
    """Counts the annotations of the datasets of a tree; used in one thread."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._reader = AnnotationReader(tree)
        self._counted: dict[str, tuple[Fingerprint, int]] = {}

    def __call__(self, dataset: str) -> int | None:
        """The annotations in the blocks of a dataset; None where there are no blocks or a file cannot be read."""
        try:
            blocks = self._tree.listing(join(dataset, ANNOTATIONS))
            names = [entry.name for entry in blocks if entry.is_directory]
            places = {self._reader.locate(dataset, block, leaf).path: (block, leaf) for block in names
                      for leaf in self._reader.leaves(dataset, block)}  # fmt: skip
            return sum(self._count(dataset, path, *leaf) for path, leaf in places.items())
        except (PrecomputedError, OSError):
            return None

    def _count(self, dataset: str, path: str, block: str, leaf: str) -> int:
        descriptor = self._tree.open(path, os.O_PATH)
        try:
            state = Fingerprint.of(os.fstat(descriptor))
        finally:
            os.close(descriptor)
        known = self._counted.get(path)
        if known is None or known[0] != state:
            known = state, self._reader.count(self._reader.locate(dataset, block, leaf))
            self._counted[path] = known
        return known[1]
