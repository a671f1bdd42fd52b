"""`precomputed annotations …` as one types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from annotation_store.pages.refused import RefusedSaves
from precomputed_server.cli import main
from precomputed_server.errors import InvalidInput, NotFound, Unreadable
from precomputed_server.local_state import state_of
from tests.annotation_store.support import Editor, Place, by_id, some

A, B, C = some(3)
Run = Callable[..., list[str]]


@pytest.fixture
def run(place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`run("blame")`: the lines that a command prints of the dataset."""
    monkeypatch.setenv("XDG_STATE_HOME", str(place.root.parent / "home"))

    def printed(command: str, *arguments: str) -> list[str]:
        main.main(["annotations", command, str(place.root / "brain"), *arguments], standalone_mode=False)
        return capsys.readouterr().out.splitlines()

    return printed


def test_history_blame_and_diff(run: Run, editor: Editor) -> None:
    editor.replace([A, B], author="alice")
    editor.replace([A | {"reviewed": True}, C], author="bob")
    lines = run("history")
    assert {tuple(line.split()[4:]) for line in lines} == {
        ("bob", "delete", B["id"]),
        ("bob", "change", A["id"], "reviewed"),
        ("bob", "add", C["id"]),
        ("alice", "add", A["id"]),
        ("alice", "add", B["id"]),
    }
    assert [line.split()[3] for line in lines] == sorted((line.split()[3] for line in lines), reverse=True)
    assert len(run("history", "--author", "alice")) == 2
    assert [json.loads(line)["after"] for line in run("history", "--id", B["id"], "--json")] == [None, B]
    assert [line.split()[-2:] for line in run("blame")] == [["bob", A["id"]], ["bob", C["id"]]]
    differences = run("diff", "1", "--leaf", "fibers")
    assert [line.split() for line in differences] == [
        ["~", "x0y0z0/fibers", A["id"], "reviewed"],
        ["-", "x0y0z0/fibers", B["id"]],
        ["+", "x0y0z0/fibers", C["id"]],
    ]
    assert run("diff", "2", "2", "--leaf", "fibers") == []


def test_restoring_a_file_an_annotation_and_a_dataset(run: Run, editor: Editor, place: Place) -> None:
    editor.replace([A, B])
    moment = run("history")[0].split()[0]
    for leaf in ("fibers", "z-0007"):
        editor.replace([C], leaf=leaf)
    assert run("restore", "--version", "1", "--leaf", "fibers", "--dry-run") != []
    assert place.stored() == by_id([C])
    assert run("restore", "--version", "1", "--leaf", "fibers", "--id", A["id"]) == [
        "x0y0z0/fibers: 1 annotation restored, version 3."
    ]
    assert place.stored() == by_id([C, A])
    assert run("restore", "--at", moment) == [
        "x0y0z0/fibers: 2 annotations restored, version 4.",
        "x0y0z0/z-0007: 1 annotation restored, version 2.",
    ]
    assert (place.stored(), place.stored("z-0007")) == (by_id([A, B]), {})
    assert run("restore", "--at", moment)[0] == "x0y0z0/fibers: already as it was."


def test_a_dry_run_says_what_the_restoration_of_nothing_would_remove(run: Run, editor: Editor, place: Place) -> None:
    editor.replace([A])
    with pytest.raises(click.BadParameter):
        run("restore", "--version", "0", "--leaf", "fibers")
    before = ("restore", "--at", "2001-01-01T00:00:00Z", "--leaf", "fibers")
    assert [line.split() for line in run(*before, "--dry-run")] == [["-", "x0y0z0/fibers", A["id"]]]
    assert place.stored() == by_id([A])
    run(*before)
    assert place.stored() == {}
    assert run(*before, "--dry-run") == ["Nothing would change: all of it is as it was."]


def test_before_the_first_edit_a_file_was_what_another_tool_had_left(run: Run, editor: Editor, place: Place) -> None:
    place.file().write_text(json.dumps([A]))
    editor.put(B)
    run("restore", "--at", "2001-01-01T00:00:00Z")
    assert place.stored() == by_id([A])


def test_verify_finds_a_changed_line(run: Run, editor: Editor, place: Place) -> None:
    editor.replace([A, B])
    assert run("verify") == ["x0y0z0: the log is whole and says what the files hold."]
    place.log.write_bytes(place.log.read_bytes().replace(b'"somebody"', b'"somebodY"', 1))
    with pytest.raises(Unreadable, match="not what its log says"):
        run("verify")


def test_compact_says_what_it_did(run: Run, editor: Editor) -> None:
    editor.replace([A])
    (line,) = run("compact")
    assert line.startswith("x0y0z0: ")


def test_parked_removals_are_listed_shown_and_decided(run: Run, editor: Editor, place: Place) -> None:
    assert run("parked") == ["Nothing waits to be applied or discarded."]
    editor.save([A, B, C])
    editor.save([])
    (line,) = run("parked")
    id = line.split()[0]
    assert "several removed" in line
    assert run("parked", "--show", id) == ["[]"]
    assert run("parked", "--apply", id) == ["x0y0z0/fibers: 3 deleted, version 2."]
    assert place.stored() == {}
    with pytest.raises(NotFound):
        run("parked", "--discard", id)
    with pytest.raises(InvalidInput, match="one save"):
        run("parked", "--discard", id, "--apply", id)


def test_refused_saves_of_this_host_are_decided_too(run: Run, place: Place, tmp_path: Path) -> None:
    meta = {"dataset": "brain", "block": "x0y0z0", "leaf": "fibers", "time": "2026-01-01T00:00:00.000Z"}
    meta |= {"author": "alice", "session": "alice", "reason": "The disk is full."}
    saves = RefusedSaves(state_of(place.root.parent / "home" / "precomputed", place.root) / "refused", 1 << 20)
    ids = [saves.keep(meta | {"status": 507}, json.dumps([item]).encode()) for item in (A, B)]
    assert {line.split()[0] for line in run("parked")} == set(ids)
    assert run("parked", "--show", str(ids[0])) == [json.dumps([A])]
    assert run("parked", "--apply", str(ids[0])) == ["x0y0z0/fibers: applied, version 1."]
    assert place.stored() == by_id([A])
    assert run("parked", "--discard", str(ids[1])) == ["x0y0z0/fibers: discarded; the annotations stay as they are."]
    assert run("parked") == ["Nothing waits to be applied or discarded."]


def test_a_refused_save_that_is_parked_anew_is_told(run: Run, editor: Editor, place: Place) -> None:
    editor.replace([A, B, C])
    meta = {"dataset": "brain", "block": "x0y0z0", "leaf": "fibers", "time": "2026-01-01T00:00:00.000Z"}
    meta |= {"author": "alice", "session": "alice", "reason": "The disk is full."}
    saves = RefusedSaves(state_of(place.root.parent / "home" / "precomputed", place.root) / "refused", 1 << 20)
    id = saves.keep(meta | {"status": 507}, json.dumps([A | {"anntype": "glia"}]).encode())
    (said,) = run("parked", "--apply", str(id), "--author", "carol")
    (waiting,) = run("parked")
    anew = waiting.split()[0]
    assert said.startswith(
        "x0y0z0/fibers: 1 added or changed, version 2. What it removes is parked anew, as a save of "
    )
    assert f"carol: --apply {anew} " in said
    assert waiting.split()[3] == "carol"
    assert run("parked", "--discard", anew) == ["x0y0z0/fibers: discarded; the annotations stay as they are."]
    assert set(place.stored()) == {A["id"], B["id"], C["id"]}
    assert [line.split()[4] for line in run("history", "--id", A["id"])] == ["carol", "somebody"]


def test_where_refused_saves_are_looked_for_is_told(
    run: Run, editor: Editor, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    editor.replace([A])
    listing = ["annotations", "parked", str(place.root / "brain")]
    main.main(listing, standalone_mode=False)
    assert f"in {place.root.parent / 'home' / 'precomputed'};" in capsys.readouterr().err
    state_of(place.root.parent / "elsewhere", place.root)
    main.main([*listing, "--state", str(place.root.parent / "elsewhere")], standalone_mode=False)
    assert capsys.readouterr().err == ""


def test_what_was_never_edited_has_no_history(run: Run) -> None:
    with pytest.raises(NotFound, match="ever been edited"):
        run("history")
    assert run("verify") == run("compact") == ["Nothing of this dataset has ever been edited: there is no log."]


@pytest.mark.parametrize("wrong", [["--block", "x9y9z9"], ["--leaf", "fibres"]])
def test_what_does_not_exist_is_neither_whole_nor_reviewed(run: Run, editor: Editor, wrong: list[str]) -> None:
    editor.replace([A])
    with pytest.raises(NotFound, match="ever been edited"):
        run("verify", *wrong)
    with pytest.raises(NotFound, match="is like that"):
        run("review", "--reviewer", "alice", *wrong)
    assert run("verify", "--leaf", "fibers") == ["x0y0z0/fibers: the log is whole and says what the file holds."]


def test_history_of_several_files_is_newest_first_and_counts_edits(run: Run, editor: Editor) -> None:
    editor.replace([A, B], author="alice")
    editor.put(C, leaf="z-0007", author="bob")
    editor.replace([A | {"reviewed": True, "anntype": "glia"}], author="carol")
    lines = run("history")
    assert [line.split()[4] for line in lines] == ["carol", "carol", "bob", "alice", "alice"]
    assert lines == sorted(lines, key=lambda line: line.split()[0], reverse=True)
    assert [line.split()[-2:] for line in lines if " change " in line] == [["anntype,", "reviewed"]]
    assert run("history", "--limit", "1") == lines[:1]
    assert run("history", "--limit", "3") == lines[:3]


def test_empty_results_are_told_beside_the_results(
    run: Run, editor: Editor, capsys: pytest.CaptureFixture[str]
) -> None:
    editor.replace([A])
    main.main(["annotations", "history", str(editor.place.root / "brain"), "--author", "bob"], standalone_mode=False)
    assert capsys.readouterr() == ("", "The log has no such edit.\n")
    main.main(["annotations", "blame", str(editor.place.root / "brain"), "--id", "x"], standalone_mode=False)
    assert capsys.readouterr().err.startswith("There is no such annotation")
    main.main(["annotations", "diff", str(editor.place.root / "brain"), "2030-01-01"], standalone_mode=False)
    assert capsys.readouterr() == ("", "2030-01-01 names no time zone and is taken as UTC; another one is written like"
        " 2026-01-31T17:05:00+01:00.\nNothing differs.\n")  # fmt: skip


def test_which_file_and_which_moment_a_restoration_means(
    run: Run, editor: Editor, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(8):
        editor.replace([A], leaf=f"z-{number:04d}")
    editor.put(C, leaf="z-0007")
    with pytest.raises(InvalidInput, match="--version N or --at"):
        run("restore")
    with pytest.raises(InvalidInput, match="not both"):
        run("restore", "--version", "1", "--at", "2030-01-01")
    with pytest.raises(InvalidInput, match=r"x0y0z0/z-0005, … \(8 in all\)"):
        run("restore", "--version", "1")
    editor.delete(C["id"], leaf="z-0007")
    moment = json.loads(run("history", "--id", C["id"], "--json")[-1])["time"]
    main.main(["annotations", "restore", str(place.root / "brain"), "--at", moment.rstrip("Z"), "--id", C["id"]],
        standalone_mode=False)  # fmt: skip
    said, warned = capsys.readouterr()
    assert said == "x0y0z0/z-0007: 1 annotation restored, version 4.\n"
    assert "taken as UTC" in warned
    with pytest.raises(NotFound, match="neither now nor"):
        run("restore", "--at", moment, "--id", "nobody's")


def test_a_group_without_a_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    main.main(["annotations"], standalone_mode=False)
    said, wrong = capsys.readouterr()
    assert "See and bring back earlier versions" in said
    assert wrong == ""
