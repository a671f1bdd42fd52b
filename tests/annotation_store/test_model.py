"""What is an annotation and what is none: each refusal is one sentence that names the item and the field."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from annotation_store.model import GEOMETRY, MAXIMUM_DEPTH, parse_item, parse_items, parse_stored, serialize
from precomputed_server.errors import InvalidAnnotation, InvalidJson, Unreadable

VALID: list[dict[str, Any]] = [
    {"id": "a", "type": "point", "point": [1, 2.5, -3]},
    {"id": "b", "type": "polygon", "points": [[0, 0, 0], [1.5, 0, 0], [0, 1, 0]]},
    {"id": "c", "type": "linestring", "points": [[0, 0, 0]]},
    {"id": "d", "type": "line", "pointA": [0, 0, 0], "pointB": [1, 1, 1]},
    {"id": "e", "type": "axis_aligned_bounding_box", "pointA": [0, 0, 0], "pointB": [1, 1, 1]},
    {"id": "f", "type": "ellipsoid", "center": [0, 0, 0], "radii": [1, 2, 3]},
]
OPTIONAL = {
    "anntype": "neuron",
    "description": "a text",
    "length": 12.75,
    "reviewed": True,
    "segments": [["7"], []],
    "visited": False,
}


WRONG: tuple[Any, ...] = ("text", 5, True, None, [], {}, [5])


def test_every_type_is_in_the_table() -> None:
    assert [item["type"] for item in VALID] == list(GEOMETRY)


@pytest.mark.parametrize("item", VALID, ids=lambda item: item["type"])
def test_every_type_is_read_and_written_as_it_is(item: dict[str, Any]) -> None:
    full: dict[str, Any] = {
        **item,
        **OPTIONAL,
        "seen_by": {"who": [1, {"when": None}]},
        "größe": 18_446_744_073_709_551_615,
    }
    assert parse_items(json.dumps([full]).encode()) == {full["id"]: full}
    assert json.loads(serialize({full["id"]: full})) == [full]
    assert parse_item(json.dumps(full).encode(), full["id"]) == full


@pytest.mark.parametrize("item", VALID, ids=lambda item: item["type"])
def test_every_coordinate_is_checked(item: dict[str, Any]) -> None:
    for field in GEOMETRY[item["type"]]:
        wrongs: tuple[Any, ...] = (
            None,
            "text",
            5,
            {},
            [],
            [1, 2],
            [1, 2, 3, 4],
            [1, 2, "3"],
            [1, 2, None],
            [True, 2, 3],
            [[1, 2, 3]],
        )
        for wrong in wrongs:
            if field == "points" and wrong == [[1, 2, 3]]:
                continue
            with pytest.raises(InvalidAnnotation, match=rf"^item 1 \({item['id']}\): {field}"):
                parse_items(json.dumps([VALID[0] | {"id": "other"}, item | {field: wrong}]).encode())
        absent = {name: value for name, value in item.items() if name != field}
        with pytest.raises(InvalidAnnotation, match=f"{field}.* (missing|must be)"):
            parse_items(json.dumps([absent]).encode())
    with pytest.raises(InvalidAnnotation, match=r"points\[1\] is \[1, 2\], not \[x, y, z\] in voxels\."):
        parse_items(b'[{"id":"a","type":"polygon","points":[[1,2,3],[1,2]]}]')


@pytest.mark.parametrize(
    ("field", "wrong"),
    [(field, wrong) for field, right in OPTIONAL.items() for wrong in WRONG
     if type(wrong) is not type(right) and not (wrong is None and field in ("anntype", "description"))
     and not (field == "length" and wrong == 5 and wrong is not True)],
)  # fmt: skip
def test_every_optional_field_is_checked(field: str, wrong: object) -> None:
    with pytest.raises(InvalidAnnotation, match=rf"^item 0 \(a\): {field} is "):
        parse_items(json.dumps([VALID[0] | {field: wrong}]).encode())


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[{]", b"[NaN]", b"[1e999]", b"[Infinity]", b'["\\ud800"]', b"\xef\xbb\xbf[]", b"[\xff]", b"[01]",
     b"[1,]", b"{'a':1}", b"[" * 2000, b"[]x", "[]".encode("utf-16")],
)  # fmt: skip
def test_what_is_not_json(body: bytes) -> None:
    with pytest.raises(InvalidJson, match=r"^the body is not JSON: "):
        parse_items(body)
    if body:
        with pytest.raises(Unreadable):
            parse_stored(body)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{}", "the body must be a list of annotations, not an object"),
        (b"null", "not null"),
        (b'"x"', "not a text"),
        (b"5", "not a number"),
        (b"true", "not true or false"),
        (b"[5]", "item 0 must be an object, not a number"),
        (b"[[]]", "item 0 must be an object, not a list"),
        (b"[{}]", "item 0 needs an id"),
        (b'[{"id":5}]', "item 0 needs an id"),
        (b'[{"id":""}]', "item 0 needs an id"),
        (b'[{"id":"' + b"x" * 201 + b'"}]', "item 0 needs an id, a text of 1 to 200 characters"),
        (b'[{"id":"a"}]', r"item 0 \(a\): type is missing, not one of point, polygon"),
        (b'[{"id":"a","type":"circle"}]', r'item 0 \(a\): type is "circle"'),
        (b'[{"id":"a","type":["point"]}]', "type is"),
        (b'[{"id":"a","type":"point","point":[1,2,3]},{"id":"a","type":"point","point":[1,2,3]}]',
         "item 1 has the id 'a' of an earlier item"),
        (b'[{"id":"a","type":"point","point":[1,2,3],"n":18446744073709551616}]', "18446744073709551616 does"),
        (b'[{"id":"a","type":"point","point":[1,2,-9223372036854775809]}]', "does not fit 64 bits"),
        (b'[{"id":"a","type":"point","point":[1,2,' + b"9" * 300 + b"]}]", "does not fit 64 bits"),
        (b'[{"id":"a","type":"point","point":[1,2,3],"n":' + b"[" * 40 + b"]" * 40 + b"}]", "nested deeper than 32"),
        (b'[{"id":"a","type":' + b"[" * 1000 + b"]" * 1000 + b"}]", "nested deeper than 32"),
        # The standard library's parser, which looks at long numbers, gives up at this depth before Python 3.12.
        (b"[" * 1010 + b"1234567890123456789" + b"]" * 1010, "nested deeper than 32|item 0 must be an object"),
    ],
)  # fmt: skip
def test_what_is_json_but_no_annotation(body: bytes, sentence: str) -> None:
    with pytest.raises(InvalidAnnotation, match=sentence):
        parse_items(body)


def test_long_digits_that_are_no_integer_are_read() -> None:
    body = b'[{"id":"12345678901234567890123","type":"point","point":[0.1234567890123456789,1e3,18446744073709551615]}]'
    item = parse_items(body)["12345678901234567890123"]
    assert item["point"] == [0.12345678901234568, 1000.0, 2**64 - 1]


def test_the_deepest_annotation_can_be_written() -> None:
    depth = MAXIMUM_DEPTH - 1
    body = b'[{"id":"a","type":"point","point":[1,2,3],"n":' + b"[" * depth + b"]" * depth + b"}]"
    assert json.loads(serialize(parse_items(body))) == json.loads(body)


def test_one_annotation_has_the_id_of_its_request() -> None:
    body = b'{"type":"point","point":[1,2,3]}'
    assert parse_item(body, "a")["id"] == "a"
    with pytest.raises(InvalidAnnotation, match="the body's id 'b' is not the id 'a' of the request"):
        parse_item(b'{"id":"b","type":"point","point":[1,2,3]}', "a")
    for wrong in (b"[]", b"[" + body + b"]", b"5", b'{"id":' + b"[" * 900 + b"]" * 900 + b"}", b'{"id":5}'):
        with pytest.raises(InvalidAnnotation):
            parse_item(wrong, "a")


def test_a_stored_file_may_hold_what_a_save_may_not() -> None:
    stored = b'[{"id":"a","type":"star","points":"none"},{"id":"b"}]'
    assert list(parse_stored(stored)) == ["a", "b"]
    assert parse_stored(b"") == {}
    for damaged in (
        b"[",
        b"{}",
        b"[{}]",
        b'[{"id":"a"},{"id":"a"}]',
        b'[{"id":"a","n":' + b"[" * 300 + b"]" * 300 + b"}]",
    ):
        with pytest.raises(Unreadable, match="the stored annotation file cannot be used"):
            parse_stored(damaged)


def test_nothing_but_the_two_errors_whatever_the_bytes() -> None:
    """Mutations of a good file: each is read or refused, and what is read is written and read the same again."""
    good = json.dumps([item | OPTIONAL for item in VALID]).encode()
    dice = random.Random(7)
    for _ in range(3000):
        body = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(body))
            body[at : at + dice.randint(0, 3)] = bytes(
                dice.choices(b'[]{}",:0129-+eE.\\u\x00\xfftfn ', k=dice.randint(0, 3))
            )
        try:
            items = parse_items(bytes(body))
        except (InvalidJson, InvalidAnnotation):
            continue
        assert parse_items(serialize(items)) == items
