"""What a client asks of the annotations of one block, as a value that can travel to another process, and its answer.

An order has one part for each edit; all of them happen or none does. Its body is read where it is carried out, so that
no serving process spends time on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import orjson

from annotation_store.blocks import Location
from annotation_store.edits import AddOne, Change, ChangeFields, DeleteOne, EditSeveral, Overtaken, PutOne, ReplaceAll
from annotation_store.extent import Extent
from annotation_store.model import Items, check_depth, check_item, parse_item, parse_items, parse_object
from annotation_store.review import Refusal, Review
from precomputed_server import errors
from precomputed_server.errors import Busy, InvalidInput, PrecomputedError, PreconditionFailed

Kind = Literal["put", "patch", "merge", "add", "delete", "restore", "apply", "discard", "several", "review"]

EdgesNm = tuple[float, float, float]


@dataclass(frozen=True)
class Save:
    """A page saved its whole copy of a leaf; what it means is decided against what the page held."""

    items: Items


@dataclass(frozen=True)
class Restore:
    """What the leaf, or the annotation `id` of it, was in a version or at an instant is to be there again."""

    version: int | None
    at: str | None
    id: str | None


@dataclass(frozen=True)
class Resolve:
    """The removals that were parked under an id are to be applied after all, or discarded."""

    parked: str
    how: Literal["applied", "discarded"]


Wish = Change | Save | Restore | Resolve | Review


@dataclass(frozen=True)
class Part:
    """One edit of an order; `if_match` are the entity tags of which one must be the stored one.

    The annotation `id` must be what it was in the version `seen` of the leaf.
    """

    leaf: str
    kind: Kind
    id: str | None = None
    if_match: tuple[str, ...] | None = None
    version: int | None = None
    at: str | None = None
    seen: int | None = None
    body: bytes = b""
    change: Wish | None = None
    """What a caller in the same process wants instead of what the kind and the body say."""

    def wish(self) -> Wish:
        """What the part wants; reads its body; raises InvalidInput and its kin."""
        return self.change or _WISHES[self.kind](self)

    def of(self, leaf: str) -> Part:
        """The same edit of that leaf."""
        return replace(self, leaf=leaf)


@dataclass(frozen=True)
class Order:
    """Edits of one block that belong together.

    `op` tells this order from every other one; `key` and `request` are what the client gave as Idempotency-Key and a
    digest of what it asked with it. `arrived` is the monotonic clock, in nanoseconds, when its head came in; `edges_nm`
    are x, y, z of a voxel; outside `extent` no annotation is added or moved by an edit of its own. `repeated`: nobody
    knows whether it was carried out before. The file has about `stored` bytes.
    """

    directory: str
    parts: tuple[Part, ...]
    author: str
    session: str
    op: str
    key: str | None = None
    request: str | None = None
    arrived: int = 0
    edges_nm: EdgesNm | None = None
    extent: Extent | None = None
    repeated: bool = False
    stored: int = 0

    def location(self, part: Part) -> Location:
        """The leaf that a part edits."""
        return Location(self.directory, part.leaf)

    @property
    def size(self) -> int:
        """The bytes of its bodies."""
        return sum(len(part.body) for part in self.parts)


Said = Literal["applied", "merged", "unchanged", "parked"]


@dataclass(frozen=True)
class Outcome:
    """How a part ended.

    `etag` is None where a later edit was committed with it or where the file says something else than the body;
    `parked` is the id under which removals were kept instead of being applied; `refused` are annotations that were not
    confirmed, or were passed over.
    """

    leaf: str
    edits: int
    version: int
    etag: str | None
    said: Said = "applied"
    parked: str | None = None
    id: str | None = None
    refused: Mapping[str, Refusal | Overtaken] | None = None


Answer = list[Outcome] | PrecomputedError


def _save(part: Part) -> Wish:
    items = parse_items(part.body)
    return Save(items) if part.if_match is None else ReplaceAll(items)


def _patch(part: Part) -> Wish:
    return PutOne(parse_item(part.body, _id_of(part)))


def _merge(part: Part) -> Wish:
    patch = parse_object(part.body)
    check_depth(patch, "the merge patch")
    return ChangeFields(_id_of(part), patch)


def _add(part: Part) -> Wish:
    item = parse_object(part.body)
    item.setdefault("id", part.id)
    check_item(item, "the annotation")
    return AddOne(item)


def _several(part: Part) -> Wish:
    members = parse_object(part.body)
    added, changed = ({item["id"]: item for item in members[name]} for name in ("add", "change"))
    for item in (*added.values(), *changed.values()):
        check_item(item, "the annotation")
    return EditSeveral(added, changed, tuple(members["delete"]), members["seen"], members["passes_over"])


def _review(part: Part) -> Wish:
    return Review(**parse_object(part.body))


def _id_of(part: Part) -> str:
    if part.id is None:
        raise InvalidInput("Name the annotation: ?id=….")
    return part.id


_WISHES: Mapping[Kind, Callable[[Part], Wish]] = {
    "put": _save,
    "patch": _patch,
    "merge": _merge,
    "add": _add,
    "several": _several,
    "delete": lambda part: DeleteOne(_id_of(part)),
    "restore": lambda part: Restore(part.version, part.at, part.id),
    "apply": lambda part: Resolve(_id_of(part), "applied"),
    "discard": lambda part: Resolve(_id_of(part), "discarded"),
    "review": _review,
}


def left_out(part: Part, stored: Items, made: Iterable[str]) -> Mapping[str, Refusal | Overtaken] | None:
    """What a part that edited `made` has left out, as far as what is stored now tells it: the log does not."""
    if part.kind not in ("review", "several"):
        return None
    wish = part.wish()
    if isinstance(wish, EditSeveral):
        return wish.left_out(stored, made)
    return wish.refused(stored) if isinstance(wish, Review) else None


def reviewing(leaf: str, review: Review, if_match: tuple[str, ...] | None = None) -> Part:
    """The part that confirms annotations of a leaf, or withdraws that."""
    return Part(leaf, "review", None, if_match, body=orjson.dumps({"seen": review.seen, "reviewed": review.reviewed}))


def order_to_json(order: Order) -> tuple[dict[str, Any], list[bytes]]:
    """The members of an order, and the bodies of its parts."""
    parts = [
        {"leaf": part.leaf, "kind": part.kind}
        | {name: value for name in _PART_MEMBERS if (value := getattr(part, name)) is not None}
        | ({"size": len(part.body)} if part.body else {})
        for part in order.parts
    ]
    members = {name: value for name in _ORDER_MEMBERS if (value := getattr(order, name))}
    return {"parts": parts, **members}, [part.body for part in order.parts if part.body]


def order_from_json(members: Mapping[str, Any], bodies: bytes) -> Order:
    """The order of `order_to_json`; `bodies` are joined."""
    parts, start = [], 0
    for part in members["parts"]:
        size = part.get("size", 0)
        given = {name: part.get(name) for name in _PART_MEMBERS}
        tags = given.pop("if_match")
        body = bodies[start : start + size]
        if_match = None if tags is None else tuple(tags)
        parts.append(Part(part["leaf"], part["kind"], if_match=if_match, body=body, **given))
        start += size
    given = {name: members[name] for name in _ORDER_MEMBERS if name in members}
    if "edges_nm" in given:
        given["edges_nm"] = tuple(given["edges_nm"])
    if "extent" in given:
        given["extent"] = tuple(map(tuple, given["extent"]))
    return Order(parts=tuple(parts), **({"author": "", "session": "", "op": ""} | given))


_PART_MEMBERS = ("id", "if_match", "version", "at", "seen")
_ORDER_MEMBERS = (
    "directory",
    "author",
    "session",
    "op",
    "key",
    "request",
    "arrived",
    "edges_nm",
    "extent",
    "repeated",
    "stored",
)


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """The members of an answer."""
    if not isinstance(answer, PrecomputedError):
        return {"outcomes": [[*vars(outcome).values()] for outcome in answer]}
    members: dict[str, Any] = {"error": type(answer).__name__, "sentence": str(answer)}
    if isinstance(answer, PreconditionFailed):
        members["etag"] = answer.etag
    if isinstance(answer, Busy):
        members["retry_after"] = answer.retry_after
    return members


def answer_from_json(members: Mapping[str, Any]) -> Answer:
    """The answer of `answer_to_json`."""
    if "outcomes" in members:
        return [Outcome(*values) for values in members["outcomes"]]
    kind: type[PrecomputedError] = getattr(errors, members["error"])
    given = {name: members[name] for name in ("etag", "retry_after") if name in members}
    return kind(members["sentence"], **given)
