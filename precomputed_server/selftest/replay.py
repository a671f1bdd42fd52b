"""The edit log of a block read as any tool could read it, replayed, and compared with the files beside it.

Reads both formats of the log: `log.jsonl` with whole annotations, and segments `log-000001.jsonl` … with differences.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from precomputed_server.selftest.client import ETAG_DIGITS
from precomputed_server.selftest.history import Item, Items, Operation, Violation

LOG = "log"
"""The log is damaged, contradicts itself, or does not give the file."""

UNLOGGED = "unlogged"
"""An acknowledged edit that the log does not have."""

UNWANTED = "unwanted"
"""The log has a deletion that nobody asked for, or a value that came back after another one had taken its place."""

DESCRIPTION = "description"
UNIQUE = (DESCRIPTION, "point", "points", "note")
"""Fields that no two edits of a run give the same value."""

_DIGEST_DIGITS = 32
_END = b',"digest":"'


@dataclass
class Replayed:
    """A leaf as its log gives it; `tags` has the newest version of each entity tag; `deleted` every deletion's id."""

    items: Items = field(default_factory=dict)
    version: int = 0
    hash: str | None = None
    known: bool = False
    text: str | None = None
    raw: bool = False
    """The last version is another tool's, of which the log has the annotations, but not the bytes."""
    tags: dict[str, int] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    returned: list[tuple[str, str, Any]] = field(default_factory=list)
    """Annotation, field and value where a value came back."""
    given: set[tuple[str, str]] = field(default_factory=set)
    """Annotation and description of every edit."""

    def __post_init__(self) -> None:
        self._past: dict[tuple[str, str], set[bytes]] = defaultdict(set)

    def gives(self, data: bytes | None) -> bool:
        """Whether these are the bytes that its file has to have; None stands for no file."""
        if data is None or self.hash is None:
            return data is None and self.hash is None
        if hashlib.sha256(data).hexdigest() != self.hash:
            return False
        return [*self.items.values()] == orjson.loads(data or b"[]") if self.raw else data == self.file()

    def file(self) -> bytes:
        """The bytes of the file that holds its annotations."""
        if self.text is not None:
            return self.text.encode()
        lines = [orjson.dumps(item) for item in self.items.values()]
        return b"[\n" + b",\n".join(lines) + b"\n]\n" if lines else b"[]\n"

    def edit(self, id: str, after: Item | None) -> None:
        """Give the annotation its new content; None when it is deleted."""
        self.text, self.raw = None, False
        before = self.items.get(id)
        if after is None:
            self.items.pop(id, None)
            self.deleted.add(id)
            for name in UNIQUE:
                self._past.pop((id, name), None)
            return
        self.given.add((id, str(after.get(DESCRIPTION))))
        if before is not None:
            self._note_returns(id, before, after)
        self.items[id] = after

    def _note_returns(self, id: str, before: Item, after: Item) -> None:
        for name in UNIQUE:
            old, new = before.get(name), after.get(name)
            if old != new:
                past = self._past[id, name]
                past.add(orjson.dumps(old))
                if orjson.dumps(new) in past:
                    self.returned.append((id, name, new))


@dataclass
class Replay:
    """All leaves of a block's log, and what is wrong with the log itself."""

    leaves: dict[str, Replayed] = field(default_factory=lambda: defaultdict(Replayed))
    violations: list[Violation] = field(default_factory=list)
    requests: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The groups that carried out each operation id and each Idempotency-Key."""

    def complain(self, sentence: str, leaf: str = "") -> None:
        """Note something wrong."""
        self.violations.append(Violation(LOG, leaf, "", sentence))


def replay(history: Path) -> Replay:
    """Read every segment in the directory of a block's log from the oldest on."""
    result = Replay()
    previous = ""
    for path in sorted(history.glob("log*.jsonl"), key=lambda path: (path.name != "log.jsonl", path.name)):
        group: list[Item] = []
        for number, line in enumerate(_whole_lines(path), 1):
            where = f"{path.name}, line {number}"
            try:
                record = orjson.loads(line)
                previous = _check_chain(result, record, line, previous, where)
                group.append(record)
                if _ends_group(record):
                    _carry_out(result, group, where)
                    group = []
            except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
                result.complain(f"{where} cannot be read: {error!r}")
    for request, groups in result.requests.items():
        if len(groups) > 1:
            result.complain(f"the request with the {request} was carried out {len(groups)} times")
    return result


def compare(result: Replay, directory: Path) -> list[Violation]:
    """What is wrong with the log, and where the files in the block's `directory` are not what it gives."""
    found = list(result.violations)
    for leaf, replayed in sorted(result.leaves.items()):
        path = directory / f"{leaf}.json"
        data = path.read_bytes() if path.exists() else None
        if not replayed.gives(data):
            found.append(Violation(LOG, leaf, "", f"the replay of version {replayed.version} does not give the file"))
    logged = set(result.leaves)
    for path in sorted(directory.glob("*.json")):
        if path.stem not in logged:
            found.append(Violation(LOG, path.stem, "", "there is a file, and the log does not know it"))
    return found


def unwanted(
    result: Replay, may_delete: Mapping[str, Collection[str]], may_return: Callable[[str, str, str, Any], bool]
) -> Iterator[Violation]:
    """Deletions in the log of annotations that nobody may have deleted, and values that came back by no right.

    `may_return` is asked with leaf, annotation, field and value.
    """
    for leaf, replayed in result.leaves.items():
        for id in sorted(replayed.deleted - set(may_delete.get(leaf, ()))):
            yield Violation(UNWANTED, leaf, id, "the log has a deletion that nobody asked for")
        for id, name, value in replayed.returned:
            if not may_return(leaf, id, name, value):
                sentence = f"{name} became {orjson.dumps(value).decode()} again after it had been changed"
                yield Violation(UNWANTED, leaf, id, sentence)


def unlogged(result: Replay, operations: Iterable[Operation]) -> Iterator[Violation]:
    """Acknowledged whole annotations that the log does not have, whether somebody replaced them later or not."""
    for operation in operations:
        if operation.result == "ok" and not operation.page:
            given = result.leaves[operation.leaf].given
            for write in operation.writes:
                if (write.id, str(write.sent.get(DESCRIPTION))) not in given:
                    sentence = f"{operation.who} was told that it is stored, and the log does not have it"
                    yield Violation(UNLOGGED, operation.leaf, write.id, sentence)


def _whole_lines(path: Path) -> list[bytes]:
    """The lines of a segment; what comes after the last end of a line was torn by a crash."""
    return path.read_bytes().split(b"\n")[:-1]


def _check_chain(result: Replay, record: Item, line: bytes, previous: str, where: str) -> str:
    """Compare a line with the one before it; returns what the next line has to say of it."""
    digest = record.get("digest")
    said = record["previous"]
    if digest is None:  # format 1: the hash of the whole line before, and none of its own
        own, agrees = hashlib.sha256(line).hexdigest(), said == previous
    else:
        own = hashlib.sha256(line[: line.rindex(_END)]).hexdigest()[:_DIGEST_DIGITS]
        agrees = said == previous[:_DIGEST_DIGITS] and own == digest
    if not agrees:
        result.complain(f"{where} breaks the chain of hashes")
    return own


def _ends_group(record: Item) -> bool:
    return "files" in record or "file" in record or record["operation"] == "segment"


def _carry_out(result: Replay, group: list[Item], where: str) -> None:
    last = group[-1]
    if last.get("operation") == "segment":
        for leaf, known in last["leaves"].items():
            if result.leaves[leaf].version != known["version"]:
                result.complain(f"{where}: a segment begins at version {known['version']} of another one", leaf)
        return
    for record in group:
        for name in ("op", "key"):
            if record.get(name):
                result.requests[f"{name} {record[name]}"].add(where)
        _carry_out_one(result, record, where)
    files = last["files"] if "files" in last else {last["leaf"]: last["file"]}
    versions = {record["leaf"]: record["version"] for record in group if _makes_version(record)}
    for leaf, change in files.items():
        _close_version(result, leaf, versions.get(leaf, 0), change, where)


def _makes_version(record: Item) -> bool:
    return record["operation"] in ("add", "change", "delete", "restore", "external")


def _close_version(result: Replay, leaf: str, version: int, change: Mapping[str, Any], where: str) -> None:
    replayed = result.leaves[leaf]
    if version <= replayed.version:
        result.complain(f"{where}: version {version} comes after version {replayed.version}", leaf)
    if replayed.known and change["before"] != replayed.hash:
        result.complain(f"{where}: version {version} begins with a file that version {replayed.version} is not", leaf)
    replayed.known, replayed.hash, replayed.version = True, change["after"], version
    if change["after"] is not None:
        replayed.tags[change["after"][:ETAG_DIGITS]] = version


def _carry_out_one(result: Replay, record: Item, where: str) -> None:
    replayed = result.leaves[record["leaf"]]
    operation = record["operation"]
    if operation == "content":
        items = {item["id"]: item for item in record["items"]}
        if replayed.known and (list(items.values()) != list(replayed.items.values())):
            result.complain(f"{where}: a leaf's content is another one than what led to it", record["leaf"])
        replayed.items = items
    elif operation == "external":
        _carry_out_external(replayed, record)
    elif operation == "order":
        replayed.items = {id: replayed.items[id] for id in record["ids"]}
    elif _makes_version(record):
        replayed.edit(record["id"], _after(replayed, record))


def _carry_out_external(replayed: Replayed, record: Item) -> None:
    if "items" in record:  # format 1 has the annotations instead of the text
        listed, replayed.text, replayed.raw = record["items"], None, True
    else:
        replayed.text, replayed.raw = record["text"], False
        listed = orjson.loads(replayed.text) if replayed.text else []
    replayed.items = {item["id"]: item for item in listed}


def _after(replayed: Replayed, record: Item) -> Item | None:
    if "after" in record:
        after: Item = record["after"]
        return after
    if "change" in record:
        return _patched(replayed.items[record["id"]], record["change"])
    return None


def _patched(before: Item, change: Mapping[str, Any]) -> Item:
    after = {name: value for name, value in before.items() if name not in change.get("unset", ())}
    after |= change.get("set", {})
    for name, (start, removed, inserted) in change.get("splice", {}).items():
        after[name] = [*before[name][:start], *inserted, *before[name][start + removed :]]
    return after
