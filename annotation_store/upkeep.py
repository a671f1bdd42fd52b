"""Looking after the edit logs of a dataset: verifying that they say what the files hold, and compacting them."""

from __future__ import annotations

import contextlib
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from annotation_store.blocks import BlockOf
from annotation_store.committing.block import LOCK
from annotation_store.history.compaction import Report, compact
from annotation_store.history.verification import Finding, verify
from annotation_store.store import AnnotationStore
from precomputed_server.errors import PrecomputedError
from precomputed_server.files import Tree
from precomputed_server.writing import exclusive_lock

_NICE = 10


def verify_block(store: AnnotationStore, block: BlockOf) -> list[Finding]:
    """What is wrong with the log of a block or with the files that it speaks of; raises OSError, Busy."""
    history = store.tree.open_directory(block.location("").history)

    def file(leaf: str) -> bytes | None:
        try:
            return store.tree.read(block.location(leaf).path)
        except FileNotFoundError:
            return None

    try:
        return verify(history, file, lambda: exclusive_lock(history, LOCK, store.lock_timeout))
    finally:
        os.close(history)


def compact_block(store: AnnotationStore, block: BlockOf, keep_days: int, now: datetime | None = None) -> Report:
    """Fold what was dragged and drop what is older than `keep_days`; raises OSError, Busy."""
    history = store.tree.open_directory(block.location("").history)
    try:
        return compact(
            history,
            lambda: exclusive_lock(history, LOCK, store.lock_timeout),
            keep_days=keep_days,
            now=now or datetime.now(UTC),
        )
    finally:
        os.close(history)


def main(arguments: list[str]) -> None:
    """Compact the blocks at directories beneath a root: ROOT DAYS DIRECTORY…; what cannot be compacted is left."""
    root, days, *directories = arguments
    os.nice(_NICE)
    with contextlib.closing(Tree(Path(root))) as tree:
        store = AnnotationStore(tree)
        for directory in directories:
            with contextlib.suppress(OSError, PrecomputedError):
                compact_block(store, BlockOf(directory, directory), int(days))


if __name__ == "__main__":
    main(sys.argv[1:])
