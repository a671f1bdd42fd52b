"""Fibres, and one side of the benchmark of edits: wrk that replaces them one by one, each edit held against the file.

Every edit really changes its fibre: a stamp that was never used before is the x of its first point.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers import CONNECTIONS, WRK_DONE, Measured, drive, get

DATASET = "brain"
LEAF = f"{DATASET}/annotations/x0y0z0/fibers.json"
POINTS = 10
SENDERS = 2
"""Threads of wrk. Each edits fibres of its own, so the number of fibres is a multiple of it."""

SETTLED_WITHIN_S = 30

SCRIPT = """
local senders, first, count = SENDERS, FIRST, COUNT
local threads, paths, before, after = {}, {}, {}, {}
stamp = -1

function setup(thread)
    thread:set("index", #threads)
    threads[#threads + 1] = thread
end

function init()
    local number = 0
    for line in io.lines("FIBRES") do
        if number % senders == index then
            paths[number], before[number], after[number] = line:match("^(.-)\\t(.-)\\t(.-)$")
        end
        number = number + 1
    end
    next_stamp = first + index
end

function request()
    stamp = next_stamp
    next_stamp = next_stamp + senders
    local number = stamp % count
    local body = before[number] .. string.format("%d.5", stamp) .. after[number]
    return wrk.format("PATCH", paths[number], nil, body)
end

local report = done
done = function(summary, latency, requests)
    local last = {}
    for number, thread in ipairs(threads) do last[number] = string.format("%d", thread:get("stamp")) end
    local file = io.open("LAST", "w")
    file:write("[" .. table.concat(last, ", ") .. "]")
    file:close()
    report(summary, latency, requests)
end
"""


@dataclass(frozen=True)
class Fibre:
    """The JSON of a fibre in two parts: its stamp lies between them."""

    id: str
    before: str
    after: str

    @classmethod
    def numbered(cls, number: int) -> Fibre:
        """A linestring of POINTS points, another one for each number."""
        x, y = 200.125 + number % 97, 300.375 + number % 89
        points = [[0.5, y, 20.5], *([x + 3 * at, y - 2 * at, 20.5 + at] for at in range(1, POINTS))]
        item = {"points": points, "type": "linestring", "id": f"{number:040x}", "anntype": "fiber"}
        text = json.dumps(item | {"reviewed": False, "visited": False}, separators=(",", ":"))
        before, mark, after = text.partition("[[0.5,")
        return cls(f"{number:040x}", before + "[[", "," + after)

    def stamped(self, stamp: int) -> str:
        """The JSON of the fibre with that stamp."""
        return f"{self.before}{stamp}.5{self.after}"


def stamp_of(item: dict[str, Any]) -> int:
    """The stamp of a fibre."""
    return int(item["points"][0][0])


class Editing:
    """Rounds of edits of a served leaf that holds `fibres`, each with its number as stamp; `url` serves `root`.

    A stamp belongs to the fibre whose number it is modulo their count, and to the sender of which it is modulo theirs.
    """

    def __init__(self, url: str, root: Path, fibres: list[Fibre], work: Path) -> None:
        self._url, self._file, self._work = url, root / LEAF, work
        self._ids = [fibre.id for fibre in fibres]
        self._stamps = list(range(len(fibres)))
        self._first = len(fibres)
        lines = [f"/{LEAF}?id={fibre.id}\t{fibre.before}\t{fibre.after}\n" for fibre in fibres]
        (work / "fibres").write_text("".join(lines))

    def round(self, seconds: int) -> Measured:
        """Edit for that long; SystemExit when an edit fails or the stored file does not hold what was sent."""
        version = self._settled_version()
        headers = {"Content-Type": "application/json"}
        measured = drive(self._script(), self._url, headers, seconds, f"-t{SENDERS}", "--timeout", "30s")
        grown = self._settled_version() - version
        if not measured.requests <= grown <= measured.requests + CONNECTIONS:  # some had no answer yet when wrk stopped
            sys.exit(f"{measured.requests} edits were acknowledged, but there are {grown} more versions.")
        self._check_file(json.loads((self._work / "last").read_text()))
        return measured

    def _script(self) -> Path:
        text = WRK_DONE + SCRIPT
        values = {"SENDERS": SENDERS, "FIRST": self._first, "COUNT": len(self._ids)}
        for name, value in (values | {"FIBRES": self._work / "fibres", "LAST": self._work / "last"}).items():
            text = text.replace(name, str(value))
        script = self._work / "edit.lua"
        script.write_text(text)
        return script

    def _settled_version(self) -> int:
        """The leaf's version once the edits have ended that were under way when wrk stopped."""
        deadline = time.monotonic() + SETTLED_WITHIN_S
        before, version = -1, self._version()
        while version != before:
            if time.monotonic() > deadline:
                sys.exit(f"Edits still go on {SETTLED_WITHIN_S} s after the last client has gone.")
            time.sleep(0.3)
            before, version = version, self._version()
        return version

    def _version(self) -> int:
        listed = json.loads(get(f"{self._url}/{DATASET}/annotations/blocks", {}))
        return next(int(row["version"]) for row in listed["blocks"][0]["leaves"] if row["leaf"] == "fibers")

    def _check_file(self, last: list[int]) -> None:
        """SystemExit unless every fibre is there with the last stamp that it was sent; `last` is each sender's.

        A few may have an earlier one: their edit had no answer yet when wrk stopped, or one of the same fibre that was
        under way with it came later.
        """
        found = {item["id"]: stamp_of(item) for item in json.loads(self._file.read_bytes())}
        if list(found) != self._ids:
            sys.exit("The stored file does not hold the fibres that were edited.")
        count, earlier = len(self._ids), 0
        for number, stamp in enumerate(found.values()):
            newest = self._newest(number, last[number % SENDERS])
            sent = self._first <= stamp <= newest or stamp == self._stamps[number]
            if stamp % count != number or not sent:
                sys.exit(f"The stored file has {stamp} as the stamp of fibre {number}, which nobody sent.")
            earlier += stamp != newest
        if earlier > 2 * CONNECTIONS:
            sys.exit(f"{earlier} of {count} fibres are not what was sent last.")
        self._stamps = list(found.values())
        self._first = (max(last) // SENDERS + 1) * SENDERS

    def _newest(self, number: int, last: int) -> int:
        """The last stamp that a fibre was sent up to its sender's `last`."""
        stamp = last - (last - number) % len(self._ids)
        return stamp if stamp >= self._first else self._stamps[number]
