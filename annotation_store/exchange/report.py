"""What an import did or would do, as people and programs are told it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from annotation_store.exchange.importing import KINDS, LISTED, BlockPlan, Finding
from annotation_store.orders import Outcome
from precomputed_server.errors import PrecomputedError

_LISTS = {"added": "added", "changed": "changed", "removed": "removed", "conflict": "conflicts"}


@dataclass(frozen=True)
class Ended:
    """What became of a block: the outcomes of its leaves (none: nothing was to be done, or only said), or an error."""

    plan: BlockPlan
    outcomes: Sequence[Outcome] = ()
    error: PrecomputedError | None = None


@dataclass(frozen=True)
class Report:
    """The whole of an import, or of a part of one."""

    ended: Sequence[Ended]
    unchanged: int
    notes: Sequence[str]
    is_dry: bool

    def findings(self) -> Iterable[Finding]:
        """What was found in the blocks that took their edits, or would."""
        return (finding for each in self.ended if each.error is None for finding in each.plan.findings)

    def to_json(self) -> dict[str, Any]:
        """Counts of all, and of each kind the first LISTED annotations."""
        listed: dict[str, list[dict[str, Any]]] = {_LISTS[kind]: [] for kind in KINDS}
        counts = dict.fromkeys(listed, 0)
        for finding in self.findings():
            name = _LISTS[finding.kind]
            counts[name] += 1
            if len(listed[name]) < LISTED:
                listed[name].append(finding.to_json())
        return {
            "dry_run": self.is_dry,
            "counts": counts | {"unchanged": self.unchanged},
            **listed,
            "notes": list(dict.fromkeys(self.notes)),
        }
