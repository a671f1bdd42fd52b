"""`precomputed annotations export`, `import` and `link` as one types them, and what they need of memory."""

from __future__ import annotations

import csv
import io
import json
import threading
import tracemalloc
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from annotation_store import cli_import
from annotation_store.exchange.collect import Collection
from annotation_store.exchange.formats import FORMATS, WRITTEN
from annotation_store.exchange.importing import Importer
from annotation_store.exchange.plans import Plan
from annotation_store.exchange.rows import Export
from precomputed_server.cli import main
from precomputed_server.errors import DestinationExists, InvalidAnnotation, InvalidInput, NotFound
from precomputed_server.format.geometry import Box
from tests.annotation_store.support import Editor, Place, by_id, check_log, some
from tests.annotation_store.test_exchange_http import LEAVES
from tests.data import point, volume, write_dataset

Run = Callable[..., list[str]]


@pytest.fixture
def run(place: Place, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """`run("export", "-o", "x.csv")`: the lines that a command prints of the dataset."""

    def printed(command: str, *arguments: object, dataset: Path = place.root / "brain") -> list[str]:
        given = ["annotations", command, str(dataset), *map(str, arguments)]
        main.main(given, standalone_mode=False)
        return capfdbinary.readouterr().out.decode().splitlines()

    return printed


@pytest.fixture
def filled(editor: Editor) -> Editor:
    """A dataset that has LEAVES."""
    for leaf, items in LEAVES.items():
        editor.replace(items, leaf=leaf)
    return editor


@pytest.mark.parametrize("name", WRITTEN)
def test_an_export_comes_back_in_parts(
    name: str, run: Run, filled: Editor, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_import, "_PART", 2)
    file = tmp_path / f"file{FORMATS[name].suffix}"
    assert run("export", "--output", file) == []
    assert [path.name for path in tmp_path.glob("*file*")] == [file.name], "nothing is left beside it"
    assert run("export", "--format", name)[1:3] == file.read_text().splitlines()[1:3]
    count = 2 if name == "swc" else 6
    assert run("import", file, "--dry-run")[-1].endswith(f"0 conflicts, {count} unchanged.")
    other = Place(tmp_path / "other")
    write_dataset(other.root / "brain", volume((1, 6, 8, 10), "uint8"), chunk_size=(16, 16, 16))
    given = (file, "--author", "alice")
    said = run("import", *given, "--dry-run", dataset=other.root / "brain")
    assert said[-1] == f"This would be: {count} added, 0 changed, 0 removed, 0 conflicts, 0 unchanged."
    with pytest.raises(InvalidInput, match="--yes"):
        run("import", *given, dataset=other.root / "brain")
    assert not (other.root / "brain" / "annotations").exists()
    run("import", *given, "--yes", dataset=other.root / "brain")
    for leaf, items in LEAVES.items():
        assert other.stored(leaf) == by_id(item for item in items if count == 6 or leaf == "fibers")
    assert {line.split()[4] for line in run("history", dataset=other.root / "brain")} == {"alice"}
    check_log(other)


def test_what_was_deleted_since_is_a_conflict_of_an_export(run: Run, filled: Editor, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    run("export", "-o", file)
    file.write_text(file.read_text().replace("soma", "glia"))
    filled.delete("c", leaf="centroids")
    lines = run("import", file, "--yes")
    assert lines[0].startswith("! x0y0z0/centroids  c  description  (somebody else has removed it")
    report = json.loads(run("import", file, "--yes", "--json")[0])
    assert report["counts"] == {"added": 0, "changed": 0, "removed": 0, "conflicts": 1, "unchanged": 5}


def test_a_wrong_line_at_the_end_keeps_the_first_parts_from_being_written(
    run: Run, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_import, "_PART", 10)
    file = tmp_path / "x.csv"
    for last in ("1,2,nan", "1,2,600", "0,0,0.5"):
        file.write_text("x,y,z\n" + "".join(f"{n % 9},1,{n / 100}\n" for n in range(100)) + f"{last}\n")
        with pytest.raises((InvalidAnnotation, InvalidInput)) if last != "0,0,0.5" else pytest.raises(InvalidInput):
            run("import", file, *(["--yes"] if last != "0,0,0.5" else []))
        assert place.stored("centroids") == {}


@pytest.mark.parametrize("leaf", ["centroids", "z-0001"])
def test_what_was_done_between_plan_and_write_is_kept(
    leaf: str, run: Run, filled: Editor, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file that is there, and of one that both begin."""
    plan, calls = Importer.plan, iter(["dry", "wet", "over", "and", "over"])

    def overtaken(importer: Importer, *given: Any, **named: Any) -> Plan:
        planned = plan(importer, *given, **named)
        if next(calls) == "wet":
            filled.put(point(1, 2, 2, 2) | {"id": "c", "visited": True, "description": "soma"}, leaf=leaf)
            filled.put(point(1, 2, 2, 2) | {"id": "new", "visited": True}, leaf=leaf)
        return planned

    monkeypatch.setattr(Importer, "plan", overtaken)
    if leaf == "z-0001":
        filled.delete("c", leaf="centroids")
    file = tmp_path / "x.csv"
    rows = "".join(f"{id},1,1,1,cell,x0y0z0,{leaf}\n" for id in ("c", "new"))
    file.write_text(f"id,x,y,z,anntype,block,leaf\n{rows}")
    assert run("import", file, "--yes")[-1].startswith("Done: 0 added, 2 changed")
    stored = place.stored(leaf)
    assert [(stored[id]["point"], stored[id]["visited"]) for id in ("c", "new")] == [([1, 1, 1], True)] * 2
    check_log(place)


def test_removing_by_a_file_and_by_what_is_piped_in(
    run: Run, filled: Editor, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = run("export", "--format", "jsonl", "--leaf", "centroids")
    piped = io.BytesIO("\n".join(line for line in lines if '"id":"e"' not in line).encode())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(piped))
    assert run("import", "-", "--yes", "--remove")[0] == "- x0y0z0/centroids  e"
    assert set(place.stored("centroids")) == {"b", "c"}
    assert set(place.stored("fibers")) == {"f", "l"}


def test_choosing_what_to_export(run: Run, filled: Editor) -> None:
    filled.put(point(7, 1, 1, 1), leaf="centroids", author="alice")
    assert len(run("export", "--type", "point", "--type", "line")) == 4
    assert len(run("export", "--author", "alice")) == 2
    assert len(run("export", "--box", "8,10,0,8,0,6", "--leaf", "fibers")) == 2
    assert len(run("export", "--reviewed")) == 1
    assert len(run("export", "--at", "2020-01-01T00:00:00Z")) == 1
    assert "voxels" in run("export", "--format", "swc", "--unit", "voxel")[1]
    for wrong in (["--box", "1"], ["--format", "xls"], ["--type", "dot"], ["--author", "a", "--at", "2020-01-01"]):
        with pytest.raises(InvalidInput):
            run("export", *wrong)
    with pytest.raises(InvalidInput, match="among the annotations"):
        run("export", "-o", str(filled.place.file("fibers")))
    for wrong in ([], ["--type", "point", "-o", "out"], ["--at", "2020-01-01T00:00:00Z", "-o", "out"]):
        with pytest.raises(InvalidInput, match="-o DIRECTORY"):
            run("export", "--format", "precomputed", *wrong)


def test_a_format_is_named_in_any_case_or_by_the_ending_of_the_file(run: Run, filled: Editor, tmp_path: Path) -> None:
    assert run("export", "--format", "CSV") == run("export")
    run("export", "-o", tmp_path / "x.SWC")
    assert (tmp_path / "x.SWC").read_text().startswith("# ")
    for name in ("x.xlsx", "x", "x.csv.gz", "x.json"):
        with pytest.raises(InvalidInput, match=r"\.csv, \.swc, \.geojson, \.jsonl, or give --format"):
            run("export", "-o", tmp_path / name)
    run("export", "-o", tmp_path / "x.txt", "--format", "csv")
    with pytest.raises(FileNotFoundError) as caught:
        run("export", "-o", tmp_path / "nowhere" / "x.csv")
    assert caught.value.filename == str(tmp_path / "nowhere" / "x.csv")
    assert sorted(path.name for path in tmp_path.glob("*x*")) == ["x.SWC", "x.txt"]


def test_what_an_export_leaves_out_is_told_beside_it(
    filled: Editor, place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    brain = str(place.root / "brain")
    main.main(["annotations", "export", brain, "--format", "swc"], standalone_mode=False)
    assert capfd.readouterr().err == "4 of 6 annotations left out: SWC holds fibres (linestrings and lines) only.\n"
    main.main(["annotations", "export", brain, "--author", "nobody"], standalone_mode=False)
    said, told = capfd.readouterr()
    assert (len(said.splitlines()), told) == (1, "There is no such annotation: the export is empty.\n")
    main.main(["annotations", "export", brain, "--at", "2030-01-01T00:00:00"], standalone_mode=False)
    assert "taken as UTC" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("id;x;y;z\na;1;2;3\n", "semicolons between its columns; save it with commas"),
        ("x\ty\tz\n1\t2\t3\n", "tabs between its columns"),
        ("x,y\n1,2\n", "has x, y, but no column z"),
        ("id,x2,z\n", "but no column x and y"),
        ("id,anntype\nnobody,glia\n", "line 2: there is no annotation with the id 'nobody'"),
        ('{"a": 1}', "neither a Neuroglancer state"),
        ('{"position": 1, "title": "no state"}', "neither a Neuroglancer state"),
        ('{\n "a": 1\n}', "neither a Neuroglancer state"),
        ('[{"id": "a", "type": "point", "point": [1, 1, 1]}]', "JSON list, as annotation files are"),
    ],
)
def test_what_is_wrong_with_a_file_is_told(text: str, sentence: str, run: Run, filled: Editor, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(InvalidInput, match=sentence):
        run("import", tmp_path / "x", "--dry-run")


def test_a_header_of_any_length_is_one_of_json_lines(run: Run, filled: Editor, tmp_path: Path) -> None:
    lines = run("export", "--format", "jsonl")
    header = json.loads(lines[0])
    header["leaves"] |= {f"x0y0z0/z-{number:04d}": [1, "0" * 32] for number in range(2000)}
    (tmp_path / "x").write_text("\n".join([json.dumps(header, separators=(",", ":")), *lines[1:]]))
    assert run("import", tmp_path / "x", "--dry-run")[-1].endswith("6 unchanged.")


def test_who_confirmed_is_told_by_a_table_and_not_read_from_one(
    run: Run, filled: Editor, place: Place, tmp_path: Path
) -> None:
    run("review", "--reviewer", "alice", "--id", "b", "--id", "e")
    filled.put(place.stored("centroids")["e"] | {"center": [4, 4, 4]}, leaf="centroids")  # moved: no longer confirmed
    run("export", "-o", tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        rows = {row["id"]: (row["confirmed_by"], row["confirmed_at"]) for row in csv.DictReader(file)}
    confirmed = place.stored("centroids")["b"]["review"]
    assert rows.pop("b") == ("alice", confirmed["time"])
    assert set(rows.values()) == {("", "")}
    assert run("import", tmp_path / "x.csv", "--dry-run")[-1].endswith(
        "0 changed, 0 removed, 0 conflicts, 6 unchanged."
    )
    (tmp_path / "y.csv").write_text("id,reviewed,confirmed_by,confirmed_at\nf,true,bob,2026-01-01T00:00:00Z\n")
    run("import", tmp_path / "y.csv", "--yes")
    assert (place.stored()["f"]["reviewed"], "review" in place.stored()["f"]) == (True, False)
    assert not {"confirmed_by", "confirmed_at"} & place.stored()["f"].keys()


def test_a_link_names_the_address_that_it_guesses(
    filled: Editor, place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PRECOMPUTED_PORT", "9123")
    monkeypatch.setenv("PRECOMPUTED_PATH", str(place.root.parent))
    main.main(["annotations", "link", str(place.root / "brain")], standalone_mode=False)
    said, told = capfd.readouterr()
    address = f"http://127.0.0.1:9123/{place.root.name}/brain"
    assert said.endswith(f"#!{address}/annotations/state\n")
    assert told == f"The dataset is taken to be served at {address}; --url says where else.\n"
    (place.root / "none").mkdir()
    with pytest.raises(InvalidInput, match="is no dataset"):
        main.main(["annotations", "link", str(place.root / "none")], standalone_mode=False)


def test_neuroglancers_own_format_as_files(run: Run, filled: Editor, place: Place, tmp_path: Path) -> None:
    out = tmp_path / "collections"
    (printed,) = run("export", "--format", "precomputed", "-o", str(out))
    count = sum(len(json.loads(path.read_bytes())) for path in place.block.glob("*.json"))
    assert printed == f"{count} annotations written to {out}."
    kinds = {name.name.partition("-")[0] for name in out.iterdir() if (name / "info").is_file()}
    assert kinds == {"fibers", "centroids", "contours"}
    with pytest.raises(DestinationExists):
        run("export", "--format", "precomputed", "-o", str(out))


def test_a_link_and_its_saved_state(run: Run, filled: Editor, place: Place, tmp_path: Path) -> None:
    (printed,) = run("link", "--url", "http://host:9000/brain/", "--box", "0,1,2,3,4,5.5", "--type", "point")
    state = "http://host:9000/brain/annotations/state?box=0,1,2,3,4,5.5&type=point"
    assert printed == f"http://host:9000/neuroglancer/v/1/#!{state}"
    assert run("link")[0].endswith("#!http://127.0.0.1:9000/brain/annotations/state")
    drawn = {"type": "annotation", "name": "n", "source": "local://annotations", "annotations": [
        {"type": "point", "id": "drawn", "point": [1, 1, 1]}]}  # fmt: skip
    body = json.dumps({"dimensions": {axis: [1800, "nm"] for axis in "xyz"}, "layers": [drawn]}).encode()
    with serving(body) as address:
        (tmp_path / "link.txt").write_text(f"https://viewer/#!{quote(body.decode())}\n")
        assert run("import", tmp_path / "link.txt", "--dry-run")[0] == "+ x0y0z0/centroids  drawn"
        run("import", f"https://viewer/#!{address}/state.json", "--yes")
        assert place.stored("centroids")["drawn"]["point"] == [1, 1, 0.9]
        with pytest.raises(InvalidInput, match=r"could not be fetched \(it answered 404\)"):
            run("import", f"https://viewer/#!{address}/absent", "--yes")
    with pytest.raises(InvalidInput, match=r"could not be fetched \(Connection refused\)"):
        run("import", f"https://viewer/#!{address}/state.json", "--yes")
    for wrong, error in (
        ("https://viewer/#!file:///etc/passwd", InvalidInput),
        ("https://viewer/#!nothing", InvalidInput),
        (str(tmp_path / "absent"), NotFound),
    ):
        with pytest.raises(error):
            run("import", wrong, "--yes")


class serving:  # reads as a function where it is used
    """A server on this machine that answers /state.json with a body, and everything else with 404."""

    def __init__(self, body: bytes) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if self.path == "/state.json" else 404)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_an_export_holds_no_more_than_a_piece_of_a_file(name: str, editor: Editor, place: Place) -> None:
    """However large a leaf is that this program wrote; here 2 MB, of 20,000 annotations."""
    lines = [
        {"type": "line", "id": f"{each['id']}", "pointA": each["point"], "pointB": [1, 2, 3]} for each in some(20_000)
    ]
    editor.replace(lines)
    assert place.file().stat().st_size > 2_000_000
    collection = Collection(editor.store, "brain", editor.store.blocks("brain", Box((0, 0, 0), (10, 8, 6))))
    write = FORMATS[name].write
    assert write is not None
    tracemalloc.start()
    try:
        found = collection.found()
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        pieces = write(Export(collection.origin(found, "brain"), collection.annotations(found), (1.0, 1.0, 1.0)))
        total = sum(map(len, pieces))
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert total > 1_500_000
    assert peak < 5_000_000, "all of it, read at once, takes 18 MB"
