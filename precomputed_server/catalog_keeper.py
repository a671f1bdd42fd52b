"""Keeping a root's catalog up to date, for the command line and for the server: where tree and annotations meet."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from annotation_store.counting import AnnotationCounter
from precomputed_server.catalog.indexer import Hints, Indexer, catalog_path, keep, only_indexer
from precomputed_server.catalog.watch import watching
from precomputed_server.errors import Busy, PrecomputedError
from precomputed_server.files import Tree
from precomputed_server.readers.volumes import Volumes
from precomputed_server.settings import Settings
from precomputed_server.stack_keeper import open_stacks

_log = logging.getLogger("precomputed_server")

_AGAIN_S = 1.0


@contextmanager
def open_indexer(settings: Settings, path: Path) -> Iterator[Indexer]:
    """The indexer of a root for one look; the caller holds the catalog's lock."""
    with (
        _volumes(settings) as (tree, volumes),
        closing(Indexer(tree, volumes, path, AnnotationCounter(tree))) as indexer,
    ):
        yield indexer


def keep_catalog(settings: Settings, path: Path, hints: Hints) -> None:
    """Keep the catalog at `path` up to date until the hints are stopped; the caller holds its lock."""
    with _volumes(settings) as (tree, volumes):
        counter = AnnotationCounter(tree)
        keep(
            lambda: Indexer(tree, volumes, path, counter),
            lambda: watching(settings.root, hints),
            hints,
            settings.index_period,
        )


@contextmanager
def _volumes(settings: Settings) -> Iterator[tuple[Tree, Volumes]]:
    """The tree and its volumes; that they are listed is no use that anybody makes of a stack."""
    tree = Tree(settings.root)
    try:
        with closing(open_stacks(settings, tree, counts_use=False)) as stacks:
            yield tree, Volumes(tree, stacks)
    finally:
        tree.close()


def keep_when_possible(settings: Settings, hints: Hints) -> None:
    """Keep the catalog until the hints are stopped, as soon as no other process does; logs why there cannot be one.

    Without a catalog everything is served nevertheless.
    """
    said = ""
    while not hints.is_stopped:
        try:
            path = catalog_path(settings.state, settings.root)
            with only_indexer(path):
                keep_catalog(settings, path, hints)
        except Busy:
            pass
        except (PrecomputedError, OSError) as error:
            if str(error) != said:
                said = str(error)
                _log.warning("there is no catalog of datasets: %s", said)
        hints.wait(_AGAIN_S)  # nobody gives any: for the end
