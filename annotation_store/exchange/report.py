"""What an import did or would do, as people and programs are told it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from annotation_store.exchange.plans import KINDS, LISTED, BlockStep, Finding, Kind
from annotation_store.orders import Outcome
from precomputed_server.errors import PrecomputedError

_LISTS = {"added": "added", "changed": "changed", "removed": "removed", "conflict": "conflicts"}


_OVERTAKEN = "somebody else is editing it at this moment; import the file again"


@dataclass(frozen=True)
class Ended:
    """What became of a block: the outcomes of its leaves (none: nothing was to be done, or only said), or an error."""

    step: BlockStep
    outcomes: Sequence[Outcome] = ()
    error: PrecomputedError | None = None

    def counts(self) -> dict[Kind, int]:
        """How many annotations of each kind there are; none where the block did not take its edits."""
        if self.error is not None:
            return dict.fromkeys(KINDS, 0)
        counts = dict(self.step.counts)
        for kind in self._passed_over().values():
            counts[kind] -= 1
            counts["conflict"] += 1
        return counts

    def findings(self) -> Iterable[Finding]:
        """What was found in the block if it took its edits; what was passed over is a conflict."""
        if self.error is not None:
            return
        passed_over = self._passed_over()
        for finding in self.step.findings:
            if finding.kind == passed_over.get(finding.id):
                fields = ("removal",) if finding.kind == "removed" else finding.fields
                yield replace(finding, kind="conflict", fields=fields, why=_OVERTAKEN)
            else:
                yield finding

    def _passed_over(self) -> dict[str, Kind]:
        refused = {id: why for outcome in self.outcomes for id, why in (outcome.refused or {}).items()}
        return {id: why for id, why in refused.items() if why in ("added", "changed", "removed")}


@dataclass(frozen=True)
class Report:
    """The whole of an import, or of a part of one."""

    ended: Sequence[Ended]
    unchanged: int
    notes: Sequence[str]
    is_dry: bool

    def findings(self) -> Iterable[Finding]:
        """What was found in the blocks that took their edits, or would: of each kind and block the first LISTED."""
        return (finding for each in self.ended for finding in each.findings())

    def to_json(self) -> dict[str, Any]:
        """Counts of all, and of each kind the first LISTED annotations."""
        listed: dict[str, list[dict[str, Any]]] = {_LISTS[kind]: [] for kind in KINDS}
        for finding in self.findings():
            if len(listed[_LISTS[finding.kind]]) < LISTED:
                listed[_LISTS[finding.kind]].append(finding.to_json())
        counts = [each.counts() for each in self.ended]
        return {
            "dry_run": self.is_dry,
            "counts": {_LISTS[kind]: sum(each[kind] for each in counts) for kind in KINDS}
            | {"unchanged": self.unchanged},
            **listed,
            "notes": list(dict.fromkeys(self.notes)),
        }


def unchanged(count: int, before: Iterable[Ended]) -> int:
    """How many annotations stay as they are of the `count` of a plan, some of which were edited by it `before`."""
    made = sum(each.counts()[kind] for each in before for kind in ("added", "changed"))
    return max(0, count - made)
