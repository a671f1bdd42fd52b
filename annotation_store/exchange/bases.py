"""What the annotations of a file were made from, and which annotations it has, where several may have one id."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from annotation_store.exchange.merging import LOST, UNKNOWN, Base
from annotation_store.exchange.rows import Dialect, Leaf, Made, Origin, Row
from annotation_store.exchange.stored import Stored
from annotation_store.model import Item, Items
from precomputed_server.errors import InvalidAnnotation


class Seen:
    """The annotations of a file: where each is told to lie, and where it was found to."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._rows: dict[tuple[str, str], str] = {}
        self._ids: dict[str, str] = {}
        self._anywhere: set[str] = set()
        self._taken: set[tuple[str, str]] = set()

    def put(self, row: Row, stored: Stored) -> Leaf | None:
        """Take a row, again or for the first time; returns its leaf where it names one that there may be.

        Raises InvalidAnnotation for the second one of an id, unless both say in which leaf they lie.
        """
        named = None if row.block is None or row.leaf is None else (row.block, row.leaf)
        place = (row.leaf or "") if named is None else stored.file(named)
        before = self._rows.setdefault((place, row.id), row.where)
        if not place or row.id in self._anywhere:
            self._anywhere.add(row.id)
            before = self._ids.get(row.id, before)
        self._ids.setdefault(row.id, row.where)
        if before != row.where:
            raise InvalidAnnotation(f"{row.where} has the id {row.id!r} of {before}.")
        return named if named is not None and stored.exists(named) else None

    def is_of_another(self, row: Row, leaf: Leaf, stored: Stored) -> bool:
        """Whether another row of the same id names that leaf."""
        names = stored.file(leaf), self._dialect.apart(leaf[1])
        return any(self._rows.get((name, row.id), row.where) != row.where for name in names)

    def is_in(self, row: Row, leaf: Leaf) -> bool:
        """Whether a row that names no block means such a leaf."""
        return self._dialect.apart(leaf[1]) == row.leaf

    def take(self, id: str, *files: str) -> None:
        """Remember in which files a row's annotation lies, or lay when the file was made."""
        self._taken.update((file, id) for file in files)

    def covers(self, leaf: Leaf, file: str, id: str) -> bool:
        """Whether the file has the annotation of a leaf, or one that may be meant for it."""
        return id in self._anywhere or (file, id) in self._taken or (self._dialect.apart(leaf[1]), id) in self._rows


class Bases:
    """What the annotations of a file were made from; a block that was not among `blocks` can have lost nothing.

    `is_shown` tells which of a leaf's annotations the file can have had.
    """

    def __init__(
        self, stored: Stored, origin: Origin | None, blocks: frozenset[str], is_shown: Callable[[Item], bool]
    ) -> None:
        self._stored = stored
        self._blocks = blocks
        self._origin = origin
        self._is_shown = is_shown
        self.notes: list[str] = []
        self._places: dict[str, tuple[Leaf, ...]] = {}
        self._leaves: dict[Leaf, Items] = {}
        self._lost: list[Leaf] = []
        files = set[str]()
        stored.prepare(origin.leaves.items() if origin is not None else ())
        for leaf, made in origin.leaves.items() if origin is not None else ():
            items = stored.base(leaf, made)
            if items is None:
                self._lost += [leaf] if stored.exists(leaf) else []
                name = "/".join(leaf)[:100]
                self.notes.append(f"What {name} was when the file was made is not known any longer.")
                continue
            if stored.file(leaf) not in files:  # older exports name a file by each of its links
                files.add(stored.file(leaf))
                self._put(leaf, items)

    def _put(self, leaf: Leaf, items: Items) -> None:
        self._leaves[leaf] = items
        alone = (leaf,)
        for id in items:
            found = self._places.setdefault(id, alone)
            if found is not alone:
                self._places[id] = (*found, leaf)

    def of(self, row: Row, likely: Leaf | None, seen: Seen) -> tuple[Base, Leaf | None]:
        """What a row was made from, and of which leaf that is."""
        leaf = self._place_of(row, likely, seen)
        if leaf is not None:
            return self._leaves[leaf][row.id], leaf
        if self._origin is not None:
            # Whatever is stored under an id that the file was not made from came afterwards.
            whole = all(leaf in self._leaves or leaf[0] not in self._blocks for leaf in self._origin.leaves)
            return (None if whole else LOST), None
        if likely is not None and row.version is not None:
            items = self._stored.base(likely, Made(row.version, None))
            if items is None:
                return (LOST if likely[0] in self._blocks else None), None
            return items.get(row.id), None
        return UNKNOWN, None

    def was_there(self, row: Row, likely: Leaf | None) -> bool:
        """Whether what a row was made from is lost, and was stored: then somebody has removed it."""
        leaves = self._lost if self._origin is not None else [likely] if likely is not None else []
        return any(self._stored.was_there(leaf, row.id) for leaf in leaves)

    def has(self, leaf: Leaf, id: str) -> bool:
        """Whether the file was made from an annotation of that leaf."""
        return any(self._stored.file(each) == self._stored.file(leaf) for each in self._places.get(id, ()))

    def is_hidden(self, leaf: Leaf, id: str, dialect: Dialect) -> bool:
        """Whether the file cannot have had an annotation because it had another one of the same id in its place."""
        if not dialect.shows_one:
            return False
        name = dialect.apart(leaf[1])
        others = (each for each in self._places.get(id, ()) if dialect.apart(each[1]) == name)
        return next((each for each in others if self._is_shown(self._leaves[each][id])), leaf) != leaf

    def _place_of(self, row: Row, likely: Leaf | None, seen: Seen) -> Leaf | None:
        places = self._places.get(row.id, ())
        if len(places) > 1 or (places and likely is not None):
            file = None if likely is None else self._stored.file(likely)
            own = [leaf for leaf in places if self._stored.file(leaf) == file]
            places = tuple(own) or tuple(leaf for leaf in places if not seen.is_of_another(row, leaf, self._stored))
        shown = [leaf for leaf in places if self._is_shown(self._leaves[leaf][row.id])]
        found = shown or list(places)
        return next((leaf for leaf in found if seen.is_in(row, leaf)), next(iter(found), None))

    def all(self, touched: set[Leaf]) -> Iterator[tuple[Leaf, Items, bool]]:
        """The leaves that may have lost something, what they held, and whether the file was made from that."""
        if self._origin is not None:
            yield from ((leaf, items, True) for leaf, items in self._leaves.items())
        else:
            yield from ((leaf, self._stored.leaf(leaf).items, False) for leaf in sorted(touched))
