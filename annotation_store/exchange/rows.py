"""What passes between the store and the formats: annotations with their place, and what they were made from. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from annotation_store.exchange.fields import PLACE, Fields, fields_of, item_of, patched, same
from annotation_store.exchange.selection import Selection
from annotation_store.model import Item
from precomputed_server.errors import InvalidInput

MARK = "precomputed_annotations"
"""The member by which a file of ours is known; its value is the format's version."""
FORMAT = 1

Leaf = tuple[str, str]
"""A block's directory and a leaf's name."""


@dataclass(frozen=True)
class Made:
    """The version of a leaf: its number where the log knows it, and the first digits of its entity tag."""

    version: int | None
    etag: str | None


@dataclass(frozen=True)
class Origin:
    """What a file was made from: of which dataset, when, the version of each leaf, and what was chosen of them.

    `unreadable` names, as block/leaf, what is not in the file because it is damaged.
    """

    dataset: str
    made: str
    leaves: Mapping[Leaf, Made]
    selection: Selection = field(default_factory=Selection)
    at: str | None = None
    unreadable: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The members of a header."""
        leaves = {f"{block}/{leaf}": [made.version, made.etag] for (block, leaf), made in self.leaves.items()}
        members = {MARK: FORMAT, "dataset": self.dataset, "made": self.made, "leaves": leaves}
        members |= {"selection": self.selection.to_json()} | ({} if self.at is None else {"at": self.at})
        return members | ({"unreadable": list(self.unreadable)} if self.unreadable else {})

    @classmethod
    def from_json(cls, members: Any) -> Origin:  # noqa: ANN401  # any JSON value
        """The origin of `to_json`; raises InvalidInput."""
        if not isinstance(members, dict) or members.get(MARK) != FORMAT:
            raise InvalidInput(f"The file's {MARK} is not {FORMAT}: a newer version of this program wrote it.")
        listed = members.get("leaves")
        if not isinstance(listed, dict) or not all(map(_is_made, listed.values())):
            raise InvalidInput("The header's leaves must be an object of [version, ETag]; export the file again.")
        leaves = {_leaf_of(name): Made(*made) for name, made in listed.items()}
        texts = (str(members.get("dataset", "")), str(members.get("made", "")))
        return cls(*texts, leaves, Selection.from_json(members.get("selection", {})), members.get("at"))


def _leaf_of(name: str) -> Leaf:
    block, _, leaf = name.rpartition("/")
    return block, leaf


def _is_made(made: object) -> bool:
    if not isinstance(made, list) or len(made) != 2:
        return False
    return (made[0] is None or (type(made[0]) is int and made[0] > 0)) and (made[1] is None or isinstance(made[1], str))


@dataclass(frozen=True)
class Placed:
    """An annotation of the store on its way out."""

    block: str
    leaf: str
    item: Item
    version: int | None


@dataclass(frozen=True)
class Lines:
    """Annotations of a leaf on their way out, each as the JSON that is stored."""

    block: str
    leaf: str
    lines: Sequence[bytes]


@dataclass(frozen=True)
class Export:
    """All that is written: `annotations` come leaf by leaf; `edges_nm` is x, y, z of a voxel, None: unknown.

    `lines` are the same annotations for a format that has them as they are stored.
    """

    origin: Origin
    annotations: Iterable[Placed]
    edges_nm: tuple[float, float, float] | None
    unit: str = "um"
    lines: Iterable[Lines] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What a file says of one annotation: `fields` as the file's dialect compares them; `where` is for sentences.

    Block and leaf are None where the file does not say; `version` is the leaf's version that the file says it is of.
    `knows` tells whether the file could have said anything of a field; None: of all.
    """

    where: str
    id: str
    fields: Fields
    block: str | None = None
    leaf: str | None = None
    version: int | None = None
    knows: Callable[[str], bool] | None = None


class Dialect:
    """How a format sees annotations. This one sees them as they are.

    `shows_one`: of annotations with one id in what is `apart` from others, it shows only the first.
    """

    shows_one = False

    def apart(self, leaf: str) -> str:
        """What a row that names no block says of a leaf: its name."""
        return leaf

    def shown(self, item: Item) -> Fields | None:
        """What the format says of a sound annotation; None: it cannot say anything of it."""
        return fields_of(item)

    def same(self, name: str, first: Fields, second: Fields) -> bool:
        """Whether a field says the same in both, or is in neither."""
        return same(name, first, second)

    def taken(self, stored: Item, row: Row, names: Iterable[str]) -> Item:
        """`stored` with those fields as the row has them."""
        return patched(stored, row.fields, list(names))

    def new(self, row: Row) -> Item:
        """The new annotation that a row describes."""
        return item_of(row.id, row.fields) if PLACE in row.fields else {"id": row.id, **row.fields}


@dataclass
class End:
    """Whether a file's end was met while its rows were read; formats and programs that mark none always end."""

    is_met: bool = True


CUT_SHORT = (
    "The file has not the end that an export has: it arrived only in part, or was edited by something that left the end"
    " out. Nothing that is missing in it is removed; export it anew."
)


@dataclass(frozen=True)
class Reading:
    """A file that is read: where it came from (None: nobody knows), its rows, and how they are compared."""

    origin: Origin | None
    rows: Iterator[Row]
    dialect: Dialect
    removes: bool = False
    """Whether an annotation that is missing in it was removed on purpose."""
    notes: list[str] = field(default_factory=list)
    """Sentences on what of the file is not taken."""
    end: End = field(default_factory=End)
    """To be looked at after the last row."""


Write = Callable[[Export], Iterator[bytes]]
Read = Callable[[Iterable[bytes]], Reading]
