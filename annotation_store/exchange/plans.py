"""What an import does, as values: findings about annotations, and by block the edits that are committed as one step.

An edit names what the annotation was when it was planned, and not the version of its file: whoever edits other
annotations of the file meanwhile holds no import up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from annotation_store.edits import digest_of
from annotation_store.exchange.fields import PLACE
from annotation_store.model import Items
from annotation_store.orders import Part

Kind = Literal["added", "changed", "removed", "conflict"]
KINDS: tuple[Kind, ...] = ("added", "changed", "removed", "conflict")

LISTED = 1000
"""How many annotations of each kind a report names; all are counted."""


@dataclass(frozen=True)
class Finding:
    """What becomes of one annotation, or what does not and `why`."""

    kind: Kind
    id: str
    block: str
    leaf: str
    fields: tuple[str, ...] = ()
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """The row of a report."""
        fields = ["geometry" if name == PLACE else name for name in self.fields]
        row: dict[str, Any] = {"id": self.id, "block": self.block, "leaf": self.leaf}
        return row | ({"fields": fields} if self.kind != "added" else {}) | ({"why": self.why} if self.why else {})


@dataclass
class LeafEdits:
    """The edits of one leaf; `seen` has, by id, the digest of what each is an edit of."""

    leaf: str
    added: Items = field(default_factory=dict)
    changed: Items = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    seen: dict[str, str] = field(default_factory=dict)

    def part(self, *, passes_over: bool) -> Part:
        """The part of an order; with `passes_over` it leaves out what somebody has changed since it was planned."""
        body = {
            "add": list(self.added.values()),
            "change": list(self.changed.values()),
            "delete": self.deleted,
            "seen": self.seen,
            "passes_over": passes_over,
        }
        return Part(self.leaf, "several", body=orjson.dumps(body))


@dataclass(frozen=True)
class BlockStep:
    """What one order does in a block: its directory's name, about how large the largest file is, and the order's parts.

    Of each kind the first LISTED findings are there; `counts` has how many there are.
    """

    name: str
    size: int
    parts: tuple[Part, ...]
    counts: dict[Kind, int]
    findings: Sequence[Finding]


@dataclass
class BlockPlan:
    """What happens in one block: its directory's name, the edits of its leaves, and the findings."""

    name: str
    leaves: dict[str, LeafEdits] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    counts: dict[Kind, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    size: int = 0

    def edits(self, leaf: str) -> LeafEdits:
        """The edits of a leaf, to be added to."""
        return self.leaves.setdefault(leaf, LeafEdits(leaf))

    def note(self, finding: Finding) -> None:
        """Count a finding, and list it where there is room."""
        self.counts[finding.kind] += 1
        if self.counts[finding.kind] <= LISTED:
            self.findings.append(finding)

    def remember(self, leaf: str, id: str, stored: Any) -> None:  # noqa: ANN401  # any JSON value
        """Say that an edit of a leaf is one of `stored`."""
        self.edits(leaf).seen[id] = digest_of(stored)

    def step(self, *, is_dry: bool = False, passes_over: bool = False) -> BlockStep:
        """What is to be committed; nothing of what is only said."""
        parts = () if is_dry else tuple(edits.part(passes_over=passes_over) for edits in self.leaves.values())
        return BlockStep(self.name, self.size, parts, self.counts, self.findings)


@dataclass
class Plan:
    """What an import would do, by the blocks' directories beneath the root."""

    blocks: dict[str, BlockPlan] = field(default_factory=dict)
    unchanged: int = 0
    notes: list[str] = field(default_factory=list)
