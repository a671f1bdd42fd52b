"""`precomputed annotations progress` and `review` as one types them."""

from __future__ import annotations

import json
from collections.abc import Callable

import click
import pytest

from annotation_store.review import is_confirmed
from precomputed_server.cli import main
from precomputed_server.errors import InvalidInput, NotFound
from tests.annotation_store.support import Editor, Place, check_log, some
from tests.data import point

A, B, C, D = some(4)
Run = Callable[..., list[str]]


@pytest.fixture
def run(place: Place, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("progress")`: the lines that a command prints of the dataset."""

    def printed(command: str, *arguments: str) -> list[str]:
        main.main(["annotations", command, str(place.root / "brain"), *arguments], standalone_mode=False)
        return capsys.readouterr().out.splitlines()

    return printed


def confirmed(place: Place, leaf: str = "fibers") -> list[str]:
    """Which annotations of a leaf are confirmed."""
    return [id for id, item in place.stored(leaf).items() if is_confirmed(item)]


def test_progress(run: Run, editor: Editor, place: Place) -> None:
    editor.save([A, B | {"reviewed": True}], author="alice")
    editor.save([point(9, 1, 1, 20.9, anntype="glia")], author="bob", leaf="z-1000")
    place.file("odd").write_text("[{")
    run("review", "--reviewer", "bob", "--id", A["id"])
    lines = run("progress")
    assert lines[0] == "1 of 3 annotations confirmed (33.3 %), 2 looked at"
    assert lines[1].startswith("x0y0z0/odd is not counted: ")
    assert run("progress", "--by", "authors")[3:] == [
        "author  drawn  confirmed  looked at  confirmed by them  of own",
        "alice       2          1          2                  0       0",
        "bob         1          0          0                  1       0",
    ]
    assert [line.split()[:2] for line in run("progress", "--by", "slices")[4:]] == [["3", "2"], ["20", "1"]]
    whole = json.loads("".join(run("progress", "--json")))
    (block,) = whole["blocks"]
    expected = {"block": "x0y0z0", "directory": "x0y0z0", "index": [0, 0, 0], "start": [0, 0, 0], "stop": [10, 8, 6]}
    assert block.items() >= expected.items()
    assert (whole["total"], whole["reviewed"], [row["anntype"] for row in whole["types"]]) == (3, 1, ["glia", "neuron"])


def test_confirming_and_withdrawing(run: Run, editor: Editor, place: Place) -> None:
    editor.save([A, B], author="alice")
    editor.save([C, D | {"anntype": "glia"}], author="bob", leaf="z-0003")
    assert run("review", "--reviewer", "carol", "--author", "bob", "--dry-run") == [
        f"x0y0z0/z-0003  {C['id']}  untouched",
        f"x0y0z0/z-0003  {D['id']}  untouched",
    ]
    assert confirmed(place, "z-0003") == []
    said = run("review", "--reviewer", "carol", "--author", "bob", "--anntype", "glia")
    assert said == ["x0y0z0/z-0003: 1 annotation confirmed, version 2."]
    assert confirmed(place, "z-0003") == [D["id"]]
    assert place.stored("z-0003")[D["id"]]["review"]["author"] == "carol"
    assert run("review", "--reviewer", "carol", "--slice", "3", "--type", "point") == [
        "x0y0z0/fibers: 2 annotations confirmed, version 2.",
        "x0y0z0/z-0003: 1 annotation confirmed, version 3.",
    ]
    assert run("review", "--reviewer", "carol", "--all") == ["Nothing is left to confirm."]
    assert run("review", "--reviewer", "bob", "--leaf", "fibers", "--block", "x0y0z0", "--withdraw") == [
        "x0y0z0/fibers: 2 annotations withdrawn, version 3."
    ]
    assert confirmed(place) == []
    assert run("review", "--reviewer", "bob", "--leaf", "fibers", "--withdraw") == ["Nothing to withdraw."]
    check_log(place)


def test_confirming_is_no_editing(run: Run, editor: Editor) -> None:
    editor.save([A, B], author="alice")
    editor.put(B | {"anntype": "glia"}, author="bob")
    run("review", "--reviewer", "carol", "--all")
    assert [line.split()[-2] for line in run("blame")] == ["alice", "bob"]
    run("review", "--reviewer", "dave", "--all", "--withdraw")
    assert [line.split()[-2] for line in run("blame")] == ["alice", "bob"]
    assert [line.split()[4] for line in run("history", "--limit", "9")].count("carol") == 2


def test_what_cannot_be_meant(run: Run, editor: Editor, place: Place) -> None:
    editor.save([A])
    with pytest.raises(InvalidInput, match="Say which"):
        run("review", "--reviewer", "alice")
    with pytest.raises(NotFound, match="nothing was confirmed"):
        run("review", "--reviewer", "alice", "--id", A["id"], "--id", "unknown")
    with pytest.raises(NotFound, match="nothing was withdrawn"):
        run("review", "--reviewer", "alice", "--id", "unknown", "--withdraw")
    for wrong in (["--leaf", "z-0009"], ["--block", "x1y1z1"], ["--slice", "77"], ["--author", "x"], ["--type", "dot"]):
        for also in ([], ["--withdraw"], ["--dry-run"]):
            with pytest.raises(NotFound, match="is like that"):
                run("review", "--reviewer", "alice", *wrong, *also)
    for name in ("", "a b", "pi"):
        with pytest.raises(click.BadParameter, match="is no name"):
            run("review", "--reviewer", name, "--all")
    with pytest.raises(click.MissingParameter):
        run("review", "--all")
    assert confirmed(place) == []
    (place.root / "brain" / "annotations").rename(place.root / "elsewhere")
    with pytest.raises(InvalidInput, match="no annotations"):
        run("progress")
