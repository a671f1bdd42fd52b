"""What a worker has its process for large files do of an import: read the body and plan it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from annotation_store.blocks import Blocks
from annotation_store.exchange.formats import format_named, format_of
from annotation_store.exchange.importing import Importer, Wishes
from annotation_store.exchange.plans import BlockStep
from annotation_store.orders import EdgesNm
from annotation_store.web.large import opened
from precomputed_server.errors import TooLarge
from precomputed_server.files import typed

MOST_ROWS = 100_000
"""How many annotations a request may bring: they are planned in memory, and written as one step of each block."""

MOST_LEAVES = 20_000
"""How many files of annotations what it brings may name: each is read, and perhaps its log."""

_IN_PARTS = "send it in parts, or import it on the server with precomputed annotations import."


@dataclass(frozen=True)
class Asked:
    """What a request wants to have imported; `format` is None where the body tells it."""

    dataset: str
    format: str | None
    wishes: Wishes
    edges_nm: EdgesNm
    is_dry: bool = False


@dataclass(frozen=True)
class Planned:
    """What is to be committed, by the blocks' directories beneath the root, in the bytes that the writer gets.

    The worker's loop has no time for the annotations themselves.
    """

    steps: dict[str, BlockStep]
    unchanged: int
    notes: list[str]


TOO_LONG = f"To plan the import takes longer than the setting --large-timeout allows; {_IN_PARTS}"


def plan_import(asked: Asked, blocks: Blocks, body: bytes, passes_over: bool) -> Planned:
    """What the body would do; raises InvalidInput and its kin, Unreadable."""
    format = format_named(asked.format or format_of(body))
    reading = format.read(iter([body]), asked.edges_nm)
    rows = list(itertools.islice(reading.rows, MOST_ROWS + 1))
    if len(rows) > MOST_ROWS:
        raise TooLarge(f"The file has more than {MOST_ROWS} annotations; {_IN_PARTS}")
    named = {(row.block, row.leaf) for row in rows}
    if len(named) + (len(reading.origin.leaves) if reading.origin is not None else 0) > MOST_LEAVES:
        raise TooLarge(f"The file names more than {MOST_LEAVES} files of annotations; {_IN_PARTS}")
    try:
        plan = Importer(opened(), asked.dataset, reading, asked.wishes, asked.edges_nm).plan(blocks, rows)
    except OSError as error:
        raise typed(error, "The annotation file") from error
    steps = {
        directory: block.step(is_dry=asked.is_dry, passes_over=passes_over) for directory, block in plan.blocks.items()
    }
    return Planned(steps, plan.unchanged, plan.notes + reading.notes)
