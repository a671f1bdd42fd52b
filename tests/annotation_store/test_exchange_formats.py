"""Every format gives back what was written: ids, unknown fields, coordinates digit by digit, block and leaf."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation_store.exchange import viewer_reading
from annotation_store.exchange.formats import FORMATS, NEUROGLANCER, format_of
from annotation_store.exchange.merging import UNKNOWN, Merge, Verdict
from annotation_store.exchange.rows import Dialect, Export, Lines, Made, Origin, Placed, Reading
from annotation_store.exchange.selection import Selection, read_selection
from annotation_store.exchange.swc import FIBRES, VOXEL, _scale, _voxels
from annotation_store.exchange.swc_numbers import NodeLines
from annotation_store.exchange.viewer_items import ViewerDialect
from annotation_store.exchange.viewer_layers import annotation_layers
from annotation_store.exchange.viewer_reading import remote_state, state_text
from annotation_store.model import Item
from precomputed_server.errors import InvalidAnnotation, InvalidInput
from tests.annotation_store.drawn import items, values
from tests.data import point

patiently = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
EDGES_NM = (162.5, 1800.0, 2000.1)
ORIGIN = Origin("brain", "2026-01-31T17:05:00.000Z", {("x0y0z0", "fibers"): Made(3, "5bdb")}, Selection())
SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20"
RUN = (
    *(f"a;{sign}1" for sign in SIGNS),
    " =1",
    "\n=1",
    "a\n\t+1",
    'x;"=1',
    ";  -1",
    "\uff1d1",
    "\xa0=1",
    "a|=1",
    ";'=1",
)
STRANGE = (*RUN, "=1+1", "+x", "-x", "@x", "\t", "a\r\nb", "\r", '"', ",", ";", "", "#", "é\x85\u2028", "\0")
LEAVES = ("fibers", "centroids", "z-0007")


@st.composite
def strange_items(draw: st.DrawFn) -> Item:
    """Annotations whose ids and texts are what spreadsheets and parsers trip over."""
    text = st.sampled_from(STRANGE)
    item = draw(items())
    item["id"] = draw(text.filter(bool) | st.text(min_size=1, max_size=6))
    item |= draw(st.dictionaries(st.sampled_from(["description", "anntype"]), text | st.none(), max_size=2))
    if draw(st.booleans()):
        item["extra"] = draw(values)
    return item


placed = st.lists(
    st.builds(Placed, st.just("x0y0z0"), st.sampled_from(LEAVES), strange_items(), st.just(3)),
    max_size=6,
    unique_by=lambda each: each.item["id"],
)


def in_pieces(data: bytes, size: int) -> Iterator[bytes]:
    """The bytes as they may arrive."""
    return (data[start : start + size] for start in range(0, len(data), size))


def written(name: str, annotations: Iterable[Placed], unit: str = "um") -> bytes:
    """The file of that format."""
    write = FORMATS[name].write
    assert write is not None
    return b"".join(write(Export(ORIGIN, annotations, EDGES_NM, unit)))


def exact(value: object) -> str:
    """A value as text in which 5, 5.0 and true are three."""
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("name", ["csv", "geojson", "jsonl"])
@patiently
@given(annotations=placed, size=st.sampled_from([1, 3, 1000]))
def test_a_file_gives_back_what_was_written(name: str, annotations: list[Placed], size: int) -> None:
    data = written(name, annotations)
    reading = FORMATS[name].read(in_pieces(data, size), EDGES_NM)
    rows = list(reading.rows)
    assert [exact(reading.dialect.new(row)) for row in rows] == [exact(each.item) for each in annotations]
    assert [(row.block, row.leaf) for row in rows] == [(each.block, each.leaf) for each in annotations]
    if name == "csv":
        assert {row.version for row in rows} <= {3}
    else:
        assert reading.origin == ORIGIN
    assert reading.end.is_met
    assert format_of(data) == name


NESTED: list[Item] = [
    {"id": "a", "extra": {"points": [[1, 2, 3]]}, "type": "linestring", "points": [[1.5, 2, 1e-300], [4, 5, -6]]},
    {"id": "b", "type": "point", "point": [1, 2, 3], "points": [[1, 2, 3]]},
    {"id": "c", "type": "linestring", "points": [[1, 2, 3]], "text": '"points":[[4,5,6]],'},
    {"id": "d", "text": '"points":[[4,5,6]],', "type": "polygon", "points": [[1, 2, 3], [1, 2, 4], [1, 2, 5]]},
    {"id": "e", "type": "linestring", "points": [[1, 2]]},
    {"id": "f", "type": "linestring", "points": [[1, 2, 3], "x"]},
    {"id": "g", "type": "linestring", "points": [[1, 2, 3]], "description": 5},
]


@pytest.mark.parametrize("name", ["geojson", "jsonl"])
@patiently
@given(annotations=st.one_of(placed, st.just([Placed("x0y0z0", "fibers", item, 3) for item in NESTED])))
def test_stored_lines_become_the_same_file(name: str, annotations: list[Placed]) -> None:
    """Whether an annotation is read, or its line is taken as it is."""
    lines = [Lines(each.block, each.leaf, [orjson.dumps(each.item)]) for each in annotations]
    write = FORMATS[name].write
    assert write is not None
    assert b"".join(write(Export(ORIGIN, (), EDGES_NM, lines=lines))) == written(name, annotations)


@pytest.mark.parametrize("name", ["csv", "geojson", "jsonl", "swc"])
def test_an_export_of_many_files_is_known_by_its_beginning(name: str) -> None:
    leaves = {("x0y0z0", f"z-{number:04d}"): Made(3, "5bdb" * 8) for number in range(5000)}
    write = FORMATS[name].write
    assert write is not None
    data = b"".join(write(Export(Origin("brain", "2026", leaves), [], EDGES_NM)))
    assert format_of(data) == name
    assert format_of(data[: 1 << 17]) == name


@pytest.mark.parametrize("unit", ["um", VOXEL])
@patiently
@given(annotations=placed)
def test_swc_gives_back_fibres_digit_by_digit(unit: str, annotations: list[Placed]) -> None:
    """In micrometres too, although voxel times edge is no number of binary digits."""
    data = written("swc", annotations, unit)
    reading = FORMATS["swc"].read(in_pieces(data, 7), EDGES_NM)
    fibres = [each for each in annotations if each.item["type"] in FIBRES]
    rows = list(reading.rows)
    assert [reading.dialect.new(row) for row in rows] == [each.item for each in fibres]
    assert [(row.block, row.leaf) for row in rows] == [(each.block, each.leaf) for each in fibres]
    assert reading.origin == ORIGIN
    assert reading.end.is_met
    assert format_of(data) == "swc"


@pytest.mark.parametrize("name", ["csv", "jsonl", "swc"])
@patiently
@given(annotations=placed.filter(bool), data=st.data())
def test_a_part_of_a_file_is_refused_or_known_for_one(
    name: str, annotations: list[Placed], data: st.DataObject
) -> None:
    """Wherever it is cut; what is read of it is as it was written, and its annotations are whole ones."""
    file = written(name, annotations)
    whole = {row.id: exact(row.fields) for row in FORMATS[name].read(iter([file]), EDGES_NM).rows}
    part = file[: data.draw(st.integers(0, len(file.rstrip()) - 1))]
    try:
        reading = FORMATS[name].read(iter([part]), EDGES_NM)
        rows = list(reading.rows)
    except InvalidInput:
        return
    if rows or reading.origin is not None:  # else there is nothing to compare with what is stored
        assert not reading.end.is_met or len(rows) == len(whole)
    assert {row.id: exact(row.fields) for row in rows}.items() <= whole.items()


def test_a_fibre_that_was_cut_off_is_left_out() -> None:
    fibre: Item = {"id": "f", "type": "linestring", "points": [[number, 1, 1] for number in range(5)]}
    lines = written("swc", [Placed("x0y0z0", "fibers", fibre, 3)]).splitlines(keepends=True)
    for count in range(3, len(lines)):
        reading = FORMATS["swc"].read(iter([b"".join(lines[:count])]), EDGES_NM)
        assert list(reading.rows) == []
        assert bool(reading.notes) == (count > 3)


@pytest.mark.parametrize("separator", [",", ";", "|", "\t"])
@patiently
@given(annotations=placed)
def test_no_cell_of_a_table_is_a_formula(separator: str, annotations: list[Placed]) -> None:
    """Nor is one where a spreadsheet takes another separator, ends lines where it likes, and takes blanks away."""
    table = written("csv", annotations).decode()
    texts = ("id", "type", "anntype", "description", "segments", "extra", "block", "leaf")
    if separator == ",":
        rows = list(csv.DictReader(io.StringIO(table, newline="")))
        cells = [part for row in rows for name in texts for part in re.split("[\r\n]", row[name])]
    else:
        cells = [part for line in table.splitlines() for part in line.split(separator)]
    begun = [cell.lstrip(" \t\xa0\"'") for cell in cells]
    assert not [cell for cell in begun if cell.startswith(tuple(SIGNS))]


@pytest.mark.parametrize("name", ["-2-3", "-A1", "--", "a-1"])
def test_a_name_that_a_spreadsheet_would_run_comes_back(name: str) -> None:
    data = written("csv", [Placed(name, name, point(1, 1, 1, 1), 3)])
    (cells,) = csv.DictReader(io.StringIO(data.decode(), newline=""))
    assert not cells["leaf"].startswith("-")
    assert not cells["block"].startswith("-")
    (row,) = FORMATS["csv"].read(iter([data]), EDGES_NM).rows
    assert (row.block, row.leaf) == (name, name)


def _coordinates() -> st.SearchStrategy[float]:
    """What people and programs have: rounded, full, of single precision, and anything."""
    usual = st.floats(-(2**20), 2**20)
    single = st.floats(-(2**20), 2**20, width=32)
    return st.one_of(usual, single, usual.map(lambda x: round(x, 3)), st.floats(allow_nan=False, allow_infinity=False))


def in_single_precision(value: Any) -> Any:  # noqa: ANN401  # as deep as `value`
    """Coordinates as Neuroglancer gives them back."""
    if isinstance(value, list):
        return [in_single_precision(each) for each in value]
    return float(np.float32(value))


def through_the_viewer(layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What Neuroglancer 2.41 makes of layers that nobody touched, seen in test_neuroglancer_editing.py."""
    back: list[dict[str, Any]] = json.loads(json.dumps(layers))
    for layer in back:
        for annotation in layer["annotations"]:
            for name in ("point", "points", "pointA", "pointB", "center", "radii"):
                if name in annotation:
                    annotation[name] = in_single_precision(annotation[name])
    return back


@patiently
@given(annotations=placed)
def test_a_viewer_in_which_nothing_was_done_changes_nothing(annotations: list[Placed]) -> None:
    layers = through_the_viewer(annotation_layers(ORIGIN, annotations, EDGES_NM))
    state = {"dimensions": {"x": [1, "m"], "y": [1, "m"], "z": [1, "m"]}, "layers": layers}
    reading = FORMATS[NEUROGLANCER].read(iter([json.dumps(state).encode()]), EDGES_NM)
    stored = {each.item["id"]: each.item for each in annotations}
    merge = Merge(reading.dialect)
    rows = list(reading.rows)
    for row in rows:
        for base in (stored[row.id], UNKNOWN):
            assert merge.verdict(row, base, stored[row.id]) == Verdict()
    dialect = ViewerDialect()
    assert {row.id for row in rows} == {id for id, item in stored.items() if dialect.shown(item) is not None}
    assert {item["type"] for id, item in stored.items() if id not in {row.id for row in rows}} <= {"linestring"}


@patiently
@given(base=strange_items(), theirs=strange_items(), mine=strange_items(), prefers=st.booleans())
def test_a_merge_takes_what_the_file_changed_and_keeps_the_rest(
    base: Item, theirs: Item, mine: Item, prefers: bool
) -> None:
    """Every field that the file left as it was is as it is stored; every other one is the file's, or a conflict."""
    sent, stored = ({**each, "id": base["id"]} for each in (mine, theirs))
    reading = read_back(sent)
    row = next(reading.rows)
    dialect = Dialect()
    held, there, wanted = (dialect.shown(each) or {} for each in (base, stored, sent))
    verdict = Merge(dialect, prefers).verdict(row, base, stored)
    after = dialect.shown(verdict.after or stored) or {}
    for name in {*held, *there, *wanted} - {"length"}:
        if dialect.same(name, wanted, held):
            assert dialect.same(name, after, there)
        elif dialect.same(name, there, held) or prefers:
            assert dialect.same(name, after, wanted)
        elif not dialect.same(name, there, wanted):
            assert name in verdict.conflicts
            assert dialect.same(name, after, there)


def read_back(item: Item) -> Reading:
    """A file of that one annotation."""
    data = written("jsonl", [Placed("x0y0z0", "fibers", item, 3)])
    return FORMATS["jsonl"].read(iter([data]), EDGES_NM)


TABLE = "id,type,x,y,z\n"
WRONG_TABLES = {
    "": "first row",
    "id,typ,x\n": "'typ' is none",
    "id,id,x\n": "each once",
    "type,y\n": "each once",
    f"{TABLE}a,point,1,2\n": "line 2 has 4 cells",
    f"{TABLE}a,point,1,2,3,4\n": "line 2 has 6 cells",
    f"{TABLE}a,point,1,2,nan\n": "line 2: z is 'nan'",
    f"{TABLE}a,point,1,2,inf\n": "line 2: z is 'inf'",
    f"{TABLE}a,point,1,2,1e999\n": "line 2: z is '1e999'",
    f'{TABLE}a,point,1,2,"3,5"\n': "line 2: z is '3,5'",
    f"{TABLE}a,point,1,2,\n": "line 2: z is ''",
    f"{TABLE}a,point,1,2,0x10\n": "line 2: z is '0x10'",
    f"{TABLE}a,point,1,2,{'9' * 30}\n": None,
    f"{TABLE}a,dot,1,2,3\n": 'type is "dot"',
    f"{TABLE}a,,1,2,3\n": "type is missing",
    f"{TABLE}{'a' * 201},point,1,2,3\n": "needs an id",
    f"{TABLE}a,polygon,1,2,3\n": "a polygon has no x",
    f'{TABLE}"a,point,1,2,3\n': "is not CSV",
    f'{TABLE}"a"b,point,1,2,3\n': "is not CSV",
    "id,type,points\na,polygon,[[1;2]]\n": "line 2: points",
    "id,type,points\na,polygon,{}\n": "line 2: points is not a JSON list",
    'id,type,points\na,polygon,"[[1,2]]"\n': "points[0]",
    "id,type,points,reviewed\na,point,,yes\n": "reviewed is 'yes'",
    "id,extra\na,[1]\n": "line 2: extra",
    "id,x,y,z,extra\na,1,2,3,[1]\n": "line 2: extra",
    "id,x,y,z,version\na,1,2,3,1.5\n": "version 1.5",
    "id,x,y,z,version\na,1,2,3,0\n": "version 0",
}


@pytest.mark.parametrize("text", WRONG_TABLES)
def test_a_wrong_table_is_refused_with_line_and_column(text: str) -> None:
    said = WRONG_TABLES[text]
    if said is None:
        assert next(FORMATS["csv"].read(iter([text.encode()]), EDGES_NM).rows).fields["type"][1][2] == 1e30
        return
    with pytest.raises((InvalidInput, InvalidAnnotation)) as caught:
        list(FORMATS["csv"].read(iter([text.encode()]), EDGES_NM).rows)
    assert said in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_plain_table_of_positions_is_read_as_points() -> None:
    reading = FORMATS["csv"].read(iter(["\ufeffx,y,z,anntype\r\n1,2.5,3,cell\r\n\r\n4,5,6,\r\n".encode()]), EDGES_NM)
    rows = list(reading.rows)
    assert [row.fields for row in rows] == [
        {"type": ["point", [1, 2.5, 3]], "anntype": "cell"},
        {"type": ["point", [4, 5, 6]]},
    ]
    assert len({row.id for row in rows}) == 2
    again = FORMATS["csv"].read(iter([b"x,y,z\n4,5,6\n"]), EDGES_NM)
    assert next(again.rows).id == rows[1].id, "the same position has another id the next time"


def test_a_table_of_some_fields_says_nothing_of_the_others() -> None:
    stored = point(1, 1, 2, 3, colour="red", description="old")
    reading = FORMATS["csv"].read(iter([f"id,description\n{stored['id']},new\n".encode()]), EDGES_NM)
    verdict = Merge(reading.dialect).verdict(next(reading.rows), UNKNOWN, stored)
    assert verdict.after == {**stored, "description": "new"}


NOT_UTF8 = b"id,x,y,z\n\xff,1,2,3\n"


@pytest.mark.parametrize("name", ["csv", "geojson", "jsonl", "swc", NEUROGLANCER])
@pytest.mark.parametrize(
    "data",
    [
        NOT_UTF8,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{",
        b"[]",
        b"null",
        b'{"type":"FeatureCollection"}',
        b'{"type":"FeatureCollection","features":[{}]}',
        b'{"type":"FeatureCollection","features":[{"type":"Feature","geometry":{"type":"MultiPolygon"}}]}',
        b'{"type":"FeatureCollection","features":[\n{"type":"Feature"},\n',
        b'{"precomputed_annotations":2}',
        b'{"precomputed_annotations":1,"leaves":{"a":1}}',
        b'{"precomputed_annotations":1,"leaves":{"a/b":[0,null]}}',
        b'{"precomputed_annotations":1,"leaves":{},"selection":[]}',
        b'{"layers":[]}',
        b'{"layers":[{"type":"annotation","annotations":{}}],"dimensions":{"x":[1,"nm"],"y":[1,"nm"],"z":[1,"nm"]}}',
        b"1 0 1 2 3 0 7\n",
        b"1 0 1 2 x 0 -1\n",
        b"1 0 1 2 1e999999999 0 -1\n",
        b"1 0 1 2 3 0 -1\n1 0 1 2 3 0 -1\n",
        b"1 0 1 2 3 0 2\n2 0 1 2 3 0 1\n",
        b"-1 2 1 1 1 1 -1\n",
        b"1 2 1 1 1 1 1\n",
        b"-2 2 1 1 1 1 -1\n",
        b"1 99999999999999999999999 1 1 1 1 -1\n",
        b"1 0 1 2 nan 0 -1\n",
        b"# precomputed_annotations {}\n",
        b"http://127.0.0.1/#!http://127.0.0.1/state.json",
    ],
)  # fmt: skip
def test_what_is_no_file_of_the_format_is_refused_in_a_sentence(name: str, data: bytes) -> None:
    with pytest.raises(InvalidInput, match=r"\.$"):
        list(FORMATS[name].read(iter([data]), EDGES_NM).rows)


@pytest.mark.parametrize(
    ("fragment", "expected"),
    [
        ("{'a':'it\\'s \"so\"'_'b':[1_2]}", {"a": 'it\'s "so"', "b": [1, 2]}),
        ("{'a_b':\"c_'d\"&'e':'f&g'}", {"a_b": "c_'d", "e": "f&g"}),
        ("+%7B'a':'%C3%A9_\\\\'_'b':''}", {"a": "\u00e9_\\", "b": ""}),
    ],
)
def test_the_quotes_of_old_links_become_json(fragment: str, expected: dict[str, Any]) -> None:
    assert json.loads(state_text(f"https://viewer/#!{fragment}")) == expected
    assert remote_state(f"https://viewer/#!{fragment}") is None


@pytest.mark.parametrize("fragment", ["{'" + "\\'" * 30_000, "{'" + "'\\" * 30_000, '{\'":"' + '\\"' * 30_000])
def test_quotes_that_are_never_closed_are_read_once(fragment: str) -> None:
    """Trying each of them as a beginning takes the square of their number: half a minute here."""
    began = time.process_time()
    state_text(f"https://viewer/#!{fragment}")
    assert time.process_time() - began < 1


def test_what_a_link_names_is_told_from_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server asks that where it must not stay long: nothing of the state itself is looked at."""
    monkeypatch.setattr(viewer_reading, "_with_double_quotes", None)
    assert remote_state("https://viewer/#!{'a") is None
    assert remote_state("https://viewer/#!http%3A//127.0.0.1/a") == "http://127.0.0.1/a"


def test_a_tree_of_another_program_becomes_its_sections() -> None:
    tree = (
        "# made elsewhere\n1 1 0 0 0 5 -1\n2 2 1.625 18 20.001 0.5 1\n3 2 3.25 18 20.001 0.5 2\n4 3 4.875 0 0 0 2\n"
        "5 3 4.875 36 0 0 4\n"
    )
    reading = FORMATS["swc"].read(iter([tree.encode()]), EDGES_NM)
    items_read = [reading.dialect.new(row) for row in reading.rows]
    assert [item["points"] for item in items_read] == [
        [[0, 0, 0], [10, 10, 10]],
        [[10, 10, 10], [20, 10, 10]],
        [[10, 10, 10], [30, 0, 0], [30, 20, 0]],
    ]
    first, *others = items_read
    assert (first["radius_um"], first["swc_type"]) == ([5, 0.5], 2)
    assert {other["swc_parent"] for other in others} == {first["id"]}
    assert [other["swc_type"] for other in others] == [2, 3]


@pytest.mark.parametrize("box", ["1,2,3", "a,1,0,1,0,1", "1,0,0,1,0,1", "0,nan,0,1,0,1", "0,1,0,1,0,1,2", ""])
def test_a_wrong_box_is_refused(box: str) -> None:
    with pytest.raises(InvalidInput, match="x0,x1"):
        read_selection(box)


@patiently
@given(each=items(), low=st.integers(-10, 10), size=st.integers(1, 20))
def test_a_box_chooses_what_overlaps_it(each: Item, low: int, size: int) -> None:
    numbers = np.array(
        [each.get("points") or [each[name] for name in ("point", "pointA", "pointB", "center") if name in each]]
    )
    places = numbers.reshape(-1, 3).astype(float)
    if each["type"] == "ellipsoid":
        places = np.concatenate([places - each["radii"], places + each["radii"]])
    overlaps = bool((places.min(axis=0) < low + size).all() and (places.max(axis=0) >= low).all())
    chosen = read_selection(",".join(f"{low},{low + size}" for _ in "xyz"))
    assert chosen.has(each) == overlaps
    assert Selection.from_json(json.loads(json.dumps(chosen.to_json()))) == chosen


@patiently
@given(
    fibres=st.lists(
        st.lists(st.tuples(*[st.one_of(_coordinates(), st.integers(-9, 9))] * 3).map(list), min_size=1, max_size=4),
        min_size=1,
        max_size=6,
    ),
    edges=st.sampled_from([EDGES_NM, (1000 / 3, 0.1, 12345.678), (1e9, 1.0, 7e300)]),
    first=st.integers(1, 10**7),
)
def test_nodes_that_are_spelled_together_are_read_back(
    fibres: list[list[list[float]]], edges: tuple[float, float, float], first: int
) -> None:
    """Each line as the format has it, and every coordinate to the last bit; what cannot be is left to others."""
    scale = _scale(edges)
    number = first
    for points, text in zip(fibres, NodeLines(scale).texts(fibres, first), strict=True):
        lines = [] if text is None else text.translate(None, b"\0").decode().splitlines()
        for at, (place, line) in enumerate(zip(points, lines, strict=True) if lines else ()):
            index, kind, *position, radius, parent = line.split(" ")
            assert (index, kind, radius, parent) == (str(number + at), "0", "0", str(number + at - 1) if at else "-1")
            assert [exact(_voxels(cell, edge)) for cell, edge in zip(position, scale, strict=True)] == [
                exact(float(each)) for each in place
            ]
        if all(each == 0 or 1 <= abs(each) < 2**22 for place in points for each in place) and edges == EDGES_NM:
            assert text is not None
        number += len(points)
