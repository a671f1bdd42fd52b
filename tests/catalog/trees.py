"""Trees of small datasets for tests of the catalog."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from converter.served.stacks import Keeping, PublishedStacks
from precomputed_server.catalog.database import Catalog, Query
from precomputed_server.catalog.indexer import Indexer
from precomputed_server.files import Tree
from precomputed_server.format.names import PRIVATE, RECORD
from precomputed_server.readers.volumes import Volumes

INFO = {
    "data_type": "uint8",
    "num_channels": 1,
    "type": "image",
    "scales": [
        {
            "key": "1_1_1",
            "size": [64, 64, 64],
            "resolution": [1000, 1000, 2000],
            "chunk_sizes": [[64, 64, 64]],
            "encoding": "raw",
            "voxel_offset": [0, 0, 0],
        }
    ],
}


def make_dataset(directory: Path, **record: Any) -> Path:
    """A volume of one raw chunk with that record, its `info` last."""
    (directory / "1_1_1").mkdir(parents=True)
    (directory / "1_1_1" / "0-64_0-64_0-64").write_bytes(bytes(64**3))
    if record:
        write_record(directory, **record)
    (directory / "info").write_text(json.dumps(INFO))
    return directory


def write_record(directory: Path, **record: Any) -> None:
    """Write `dataset.json`."""
    (directory / PRIVATE).mkdir(exist_ok=True)
    (directory / RECORD).write_text(json.dumps({"format": 1, **record}))


class Indexed:
    """A tree and its catalog."""

    def __init__(self, root: Path, database: Path) -> None:
        self.tree = Tree(root)
        self.path = database
        self.stacks = PublishedStacks(self.tree, root, Keeping(None, 0, 0))
        self.indexer = Indexer(self.tree, Volumes(self.tree, self.stacks), database)

    def close(self) -> None:
        """Give both back."""
        self.indexer.close()
        self.tree.close()

    def found(self, text: str = "", **query: Any) -> list[dict[str, Any]]:
        """What a reader finds in the catalog."""
        catalog = Catalog(self.path)
        try:
            return catalog.search(Query(text, **query)).datasets
        finally:
            catalog.close()

    def states(self, **query: Any) -> dict[str, str]:
        """The state of each dataset by its path."""
        return {dataset["path"]: dataset["state"] for dataset in self.found(**query)}
