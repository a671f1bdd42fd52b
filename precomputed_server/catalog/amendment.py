"""One short change of the catalog's database by another process than its writer: what people say of a dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from precomputed_server.catalog.schema import opened_for_amending


def amend(database: Path, path: str, said: Mapping[str, Any]) -> None:
    """Put `id`, `title`, `description` and `tags` of the dataset at `path` into the catalog; raises sqlite3.Error.

    Its signature stays as it was, so that the next scan looks at the dataset again and has the last word.
    """
    with closing(opened_for_amending(database)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        row = connection.execute(
            "SELECT number FROM datasets WHERE path = ? AND vanished_at IS NULL", [path]
        ).fetchone()
        if row is not None:
            connection.execute(
                "UPDATE datasets SET id = ?, title = ?, description = ?, tags = ? WHERE number = ?",
                [said["id"], said["title"], said["description"], json.dumps(said["tags"]), row[0]],
            )
            connection.execute("DELETE FROM tags WHERE dataset = ?", row)
            tags = [(tag, row[0]) for tag in dict.fromkeys(said["tags"])]
            connection.executemany("INSERT INTO tags (tag, dataset) VALUES (?, ?)", tags)
        connection.execute("COMMIT")
