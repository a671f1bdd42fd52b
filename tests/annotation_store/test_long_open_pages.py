"""Pages that stay open for hours while others edit, and never read again: what is kept of them is small and right."""

from __future__ import annotations

import copy
import itertools
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_store.merging.saves import holding, materialised
from annotation_store.model import Item, Items
from annotation_store.pages.journal import Journal
from annotation_store.pages.origins import Holding, Origin, counted_from
from tests.annotation_store.drawn import by_id, items
from tests.annotation_store.support import Editor, Place, check_log, some

FIBERS = "brain/annotations/x0y0z0/fibers.json"
POINTS = 60
START = time.time()


def fibres(count: int) -> list[Item]:
    return [fibre(number) for number in range(count)]


def fibre(number: int) -> Item:
    points = [[number + 0.5, place + 0.25, 1.125] for place in range(POINTS)]
    return {"points": points, "type": "linestring", "id": f"f{number}"}


def moved(item: Item, to: float) -> Item:
    changed = copy.deepcopy(item)
    changed["points"][0] = [to, to, to]
    return changed


def size_of(directory: Path, names: str = "*") -> int:
    return sum(path.stat().st_size for path in directory.glob(names))


class LongOpen:
    """A page that read the fibres once; `others` change something else before each of its saves."""

    def __init__(self, editor: Editor, held: list[Item], page: str = "long") -> None:
        self.editor = editor
        self.held = by_id(held)
        self.page = page
        location = editor.store.locate("brain", "x0y0z0", "fibers")
        snapshot = editor.store.load(location)
        editor.store.journal.note_read(page, location.path, snapshot.etag if snapshot else None)

    def others(self, *changed: Item) -> None:
        for item in changed:
            self.editor.put(item, session="other", author="other")

    def save(self, **changed: Item) -> str:
        """What it is answered when it changes those annotations and saves all that it holds."""
        self.held |= changed
        return self.editor.save(copy.deepcopy(list(self.held.values())), session=self.page).said


@pytest.fixture
def opened(editor: Editor) -> LongOpen:
    editor.replace(fibres(40))
    page = LongOpen(editor, fibres(40))
    page.others(*(moved(item, 7) for item in fibres(40)[:30]))
    return page


def test_a_save_takes_as_much_as_the_annotation_that_it_changes(opened: LongOpen, editor: Editor, place: Place) -> None:
    assert opened.save(f39=moved(opened.held["f39"], 2)) == "merged"
    before = size_of(place.history, "log-*"), size_of(place.journal)
    for number in range(20):  # a drag
        assert opened.save(f38=moved(opened.held["f38"], number)) == "merged"
    log, journal = size_of(place.history, "log-*") - before[0], size_of(place.journal) - before[1]
    assert journal < 20 * 600 + 2 * len(str(opened.held["f38"])), "each save notes more than what it changed"
    assert log < 20 * 1200 + 2 * len(str(opened.held["f38"]))


def test_it_is_known_to_the_next_process_and_undoes_nothing(opened: LongOpen, editor: Editor, place: Place) -> None:
    for number in range(5):
        opened.save(**{f"f{39 - number}": moved(opened.held[f"f{39 - number}"], number)})
    known = editor.store.journal.page("long", FIBERS)
    editor.restart()
    assert editor.store.journal.page("long", FIBERS) == known
    others = {f"f{number}": moved(fibres(30)[number], 7) for number in range(30)}
    assert opened.save(f30=moved(opened.held["f30"], 99)) == "merged"
    assert place.stored() == others | {f"f{number}": opened.held[f"f{number}"] for number in range(30, 40)}
    check_log(place)


def test_a_chain_of_notes_begins_anew_from_time_to_time(opened: LongOpen, place: Place) -> None:
    lines = []
    for number in range(140):
        opened.save(f39=moved(opened.held["f39"], number))
        lines.append(max(place.journal.iterdir()).read_bytes().splitlines()[-1])
    absolute = [number for number, line in enumerate(lines) if b'"origin":' not in line]
    assert max(later - earlier for earlier, later in itertools.pairwise([*absolute, 140])) <= 64


def test_a_crash_before_the_journal_was_told_loses_nothing_of_it(
    opened: LongOpen, editor: Editor, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    opened.save(f39=moved(opened.held["f39"], 1))
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "note_save", crash)
        with pytest.raises(KeyboardInterrupt):
            opened.save(f39=moved(opened.held["f39"], 2))
    editor.restart()
    opened.others(moved(opened.held["f39"], 3))  # somebody else moves it on
    assert opened.save(f38=moved(opened.held["f38"], 4)) == "merged"
    assert place.stored()["f39"]["points"][0] == [3, 3, 3], "what it had saved before the crash was saved again"


def journal_of(tmp_path: Path, clock: list[float]) -> Journal:
    return Journal(tmp_path / "pages", lambda: clock[0])


def note(journal: Journal, number: str, held: Holding, replaces: str | None = None) -> None:
    journal.note_save("alice", FIBERS, outcome="saved", number=number, replaces=replaces, held=held, arrived=1)


def test_what_is_counted_from_a_line_that_is_gone_is_not_known(tmp_path: Path) -> None:
    """The state directory lost an hour: the page is compared with what was stored instead."""
    journal = journal_of(tmp_path, [START])
    journal.note_read("alice", FIBERS, "v1")
    note(journal, "first", Holding("v2", ("a",)), journal.page("alice", FIBERS).shadows[0].number)
    note(journal, "second", Holding(None, (), tuple(some(1)), "first"), "first")
    note(journal, "third", Holding(None, ("b",), (), "second"), "second")
    (third,) = (each for each in journal.page("alice", FIBERS).shadows if each.number == "third")
    assert (third.etag, third.missing, third.differing) == ("v2", ("a", "b"), tuple(some(1)))
    (file,) = (tmp_path / "pages").iterdir()
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(line for line in lines if b'"number":"second"' not in line))
    journal.close()
    journal = journal_of(tmp_path, [START])
    left = [(each.etag, each.replaced_at) for each in journal.page("alice", FIBERS).shadows]
    assert left == [("v2", None), ("v1", 1)], "what cannot be put together is left out"
    journal.close()


def test_a_shadow_is_counted_from_for_an_hour_and_many_lines_only(tmp_path: Path) -> None:
    clock = [START]
    journal = journal_of(tmp_path, clock)
    journal.note_read("alice", FIBERS, "v1")
    note(journal, "first", Holding("v2", ("a",)))
    assert "first" in journal.page("alice", FIBERS).origins
    clock[0] += 3500
    note(journal, "second", Holding(None, ("b",), (), "first"), "first")
    assert "second" in journal.page("alice", FIBERS).origins
    clock[0] += 200
    assert "second" not in journal.page("alice", FIBERS).origins, "its beginning is an hour old"
    note(journal, "third", Holding("v3", ("b",)), "second")
    for number in range(10_000):
        journal.note_save(f"bob{number % 9}", FIBERS, outcome="refused")
    assert journal.page("alice", FIBERS).origins == frozenset(), "another process would not read so far back"
    journal.close()


def test_what_could_not_be_written_is_not_counted_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    journal = journal_of(tmp_path, [START])
    journal.note_read("alice", FIBERS, "v1")
    assert len(journal.page("alice", FIBERS).origins) == 1
    with monkeypatch.context() as patch:
        patch.setattr("os.write", fail)
        note(journal, "first", Holding("v2", ("a",)))
    found = journal.page("alice", FIBERS)
    assert found.shadows[0].number == "first"
    assert found.origins == {found.shadows[1].number}
    journal.close()


ITEMS = st.lists(items(), max_size=4).map(by_id)


@given(stored=ITEMS, saves=st.lists(ITEMS, min_size=1, max_size=5))
def test_notes_that_follow_each_other_say_what_each_save_said(
    stored: Items, saves: list[Items], tmp_path_factory: pytest.TempPathFactory
) -> None:
    journal = Journal(tmp_path_factory.mktemp("chain") / "pages")
    journal.note_read("alice", FIBERS, "v1")
    known = journal.page("alice", FIBERS).shadows[0]
    for number, sent in enumerate(saves):
        origin = Origin(known.number, materialised(known, stored), known.differing)
        note(journal, f"s{number}", counted_from(origin, *holding(sent, origin.items)), known.number)
        known = next(each for each in journal.page("alice", FIBERS).shadows if each.number == f"s{number}")
        assert holding(sent, materialised(known, stored)) == ((), ()), "it does not say what was sent"
    journal.close()
