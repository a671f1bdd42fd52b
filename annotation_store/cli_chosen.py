"""What the commands on annotations share: of which block, leaf or annotation they are."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from annotation_store.blocks import BlockOf
from annotation_store.cli_parked import become_owner
from annotation_store.store import AnnotationStore
from precomputed_server.errors import InvalidInput, NotFound
from precomputed_server.files import Tree
from precomputed_server.format.names import ANNOTATIONS

_LISTED = 6
EVERYTHING = ("block", "leaf", "id")
_OPTIONS = {
    "block": ("NAME", "Only this block, by its directory's name."),
    "leaf": ("NAME", "Only this file: fibers, centroids, z-0020."),
    "id": ("ID", "Only this annotation."),
}


@dataclass(frozen=True)
class Chosen:
    """What a command is about: a dataset on disk, and of it one block, leaf or annotation."""

    store: AnnotationStore
    block: str | None
    leaf: str | None
    id: str | None

    def blocks(self) -> Iterator[BlockOf]:
        """The chosen blocks in which something was edited; raises NotFound for a block that is not among them."""
        found = [block for block in self.store.logged_blocks("") if self.block in (None, block.name)]
        if not found and self.block is not None:
            raise NotFound(f"No block {self.block!r} of this dataset has ever been edited.")
        return iter(found)

    def places(self) -> Iterator[tuple[BlockOf, str]]:
        """The chosen leaves that have ever been edited; raises NotFound when there are none."""
        found = False
        for block in self.blocks():
            for leaf in self.store.logged_leaves(block.location("")):
                if self.leaf in (None, leaf):
                    found = True
                    yield block, leaf
        if not found:
            raise NotFound("No annotation file of that name has ever been edited in this dataset.")

    def only_place(self) -> tuple[BlockOf, str]:
        """The one leaf that is chosen; raises InvalidInput when there are several."""
        places = list(self.places())
        if len(places) > 1:
            names = listed(f"{block.name}/{leaf}" for block, leaf in places)
            raise InvalidInput(f"Say which file is meant by --leaf (and --block): there are {names}.")
        return places[0]


def listed(names: Iterable[str]) -> str:
    """The first of these names, and that there are more."""
    found = list(names)
    return ", ".join(found[:_LISTED]) + (f", … ({len(found)} in all)" if len(found) > _LISTED else "")


def choosing(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The argument DATASET, and those of the options block, leaf and id; together they are the command's `Chosen`."""

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def chosen(
            dataset: Path, block: str | None = None, leaf: str | None = None, id: str | None = None, **given: Any
        ) -> None:
            command(_opened(dataset, block, None if leaf is None else leaf.removesuffix(".json"), id), **given)

        wrapped: Callable[..., None] = chosen
        for name in reversed(names):
            metavar, explained = _OPTIONS[name]
            wrapped = click.option(f"--{name}", metavar=metavar, help=explained)(wrapped)
        return click.argument("dataset", type=click.Path(exists=True, file_okay=False, path_type=Path))(wrapped)

    return decorated


def _opened(dataset: Path, block: str | None, leaf: str | None, id: str | None) -> Chosen:
    if not (dataset / ANNOTATIONS).is_dir():
        raise InvalidInput(f"{dataset} has no annotations; name the directory of a dataset.")
    become_owner(dataset)
    return Chosen(AnnotationStore(Tree(dataset)), block, leaf, id)
