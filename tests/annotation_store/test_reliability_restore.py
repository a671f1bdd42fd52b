"""A restore drill, and bit rot: what was there can be had back byte for byte, and damage is found wherever it is."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from annotation_store.model import Item
from precomputed_server.cli import main
from precomputed_server.errors import Unreadable
from precomputed_server.format.geometry import Vector
from tests.annotation_store.conftest import ROOMY
from tests.annotation_store.support import BLOCK, Editor, Place, check_log, some
from tests.annotation_store.test_concurrency import Annotator
from tests.conftest import StartServer
from tests.data import point

LEAVES = ("fibers", "centroids", "z-0003")
VERSIONS = 300
BLOCKS = "/brain/annotations"


@pytest.fixture
def extent() -> Vector:
    """These tests draw anywhere."""
    return ROOMY


def url_of(leaf: str, author: str = "") -> str:
    """The leaf's URL without its ending."""
    return f"{author}{BLOCKS}/{BLOCK}/{leaf}"


def command(place: Place, *words: str) -> Result:
    """`precomputed annotations …` on the dataset."""
    return CliRunner().invoke(main, ["annotations", words[0], str(place.root / "brain"), *words[1:]])


@dataclass
class Drill:
    """Edits of three leaves, what readers saw after each of them, and when it began."""

    client: Annotator
    place: Place
    dice: random.Random = field(default_factory=lambda: random.Random(25))
    seen: dict[tuple[str, int], bytes] = field(default_factory=dict)
    items: dict[str, dict[str, Item]] = field(default_factory=lambda: {leaf: {} for leaf in LEAVES})
    times: dict[str, list[tuple[str, int]]] = field(default_factory=dict)

    def body(self, leaf: str) -> bytes:
        """What a reader is answered."""
        status, _, body = self.client.ask("GET", f"{url_of(leaf)}.json")
        assert status == 200
        return body

    def edit(self, number: int) -> None:
        """Make one version of one leaf."""
        leaf, author = self.dice.choice(LEAVES), self.dice.choice(["/~alice", "/~bob", ""])
        items, url = self.items[leaf], f"{url_of(leaf, author)}.json"
        kind = self.dice.random()
        if kind < 0.3 and items:
            id = self.dice.choice(sorted(items))
            answer = self.client.ask("DELETE", f"{url}?id={id}")
            del items[id]
        elif kind < 0.6 and items:
            id = self.dice.choice(sorted(items))
            items[id] = items[id] | {"description": f"version {number} — ±½", "point": [number, 0.1 * number, 1]}
            answer = self.client.ask("PATCH", f"{url}?id={id}", items[id])
        else:
            added = [point(1000 * number + each, number, each, 1) for each in range(self.dice.randrange(1, 4))]
            before = list(items.values())
            items |= {item["id"]: item for item in added}
            tag = {"If-Match": "*"} if before else {}
            answer = self.client.ask("PUT", url, [*before, *added], **tag)
        status, headers, read = answer
        assert (status, headers["Precomputed-Edit"]) == (200, "applied"), read
        self.seen[leaf, int(headers["Precomputed-Version"])] = self.body(leaf)

    def learn_times(self) -> None:
        """When each version began, from the histories."""
        for leaf in LEAVES:
            told = json.loads(self.client.ask("GET", f"{url_of(leaf)}/history?limit=100000")[2])
            self.times[leaf] = sorted({(entry["time"], entry["version"]) for entry in told["entries"]})

    def in_force(self, leaf: str, instant: str) -> int:
        """The version of a leaf at an instant, 0 before the first."""
        return max((version for time, version in self.times[leaf] if time <= instant), default=0)

    def restore(self, leaf: str, version: int, how: str) -> bytes:
        """Bring a version of a leaf back; returns what a reader is answered afterwards."""
        instant = dict((version, time) for time, version in self.times[leaf])[version]
        if how.startswith("http"):
            asked = {"version": version} if how.endswith("version") else {"at": instant}
            status, _, read = self.client.ask("POST", f"{url_of(leaf)}/restore", asked)
            assert status == 200, read
        else:
            words = ["--version", str(version)] if how.endswith("version") else ["--at", instant]
            result = command(self.place, "restore", "--leaf", leaf, *words)
            assert result.exit_code == 0, (result.output, result.exception)
        return self.body(leaf)

    def expected(self, leaf: str, version: int, how: str) -> bytes:
        """What was there then; two versions may have begun in one millisecond."""
        if how.endswith("instant"):
            instant = dict((version, time) for time, version in self.times[leaf])[version]
            version = self.in_force(leaf, instant)
        return self.seen[leaf, version]


@pytest.mark.parametrize("restorations", [100, pytest.param(1000, marks=pytest.mark.nightly)])
def test_restored_versions_are_what_they_were_to_the_byte(
    start_server: StartServer, place: Place, restorations: int
) -> None:
    server = start_server(place.root, workers=2)
    with Annotator(server.port) as client:
        drill = Drill(client, place)
        for number in range(VERSIONS):
            drill.edit(number)
        drill.learn_times()
        places = sorted(drill.seen)
        for leaf, version in places:
            status, headers, body = client.ask("GET", f"{url_of(leaf)}.json?version={version}")
            assert (status, body) == (200, drill.seen[leaf, version])
        hows = ("http version", "http instant", "command version", "command instant")
        for number in range(restorations):
            (leaf, version), how = drill.dice.choice(places), hows[number % 4]
            restored, expected = drill.restore(leaf, version, how), drill.expected(leaf, version, how)
            assert restored == expected, (leaf, version, how)
        restore_all(drill)
    check_log(place)


def restore_all(drill: Drill) -> None:
    """Bring all leaves of the dataset back as they were at some instants."""
    for _ in range(5):
        instant = drill.dice.choice(drill.times[LEAVES[0]][50:])[0]
        assert command(drill.place, "restore", "--at", instant).exit_code == 0
        for leaf in LEAVES:
            expected = drill.seen[leaf, drill.in_force(leaf, instant)]
            assert drill.body(leaf) == expected, (leaf, instant)


def test_the_command_itself_restores(place: Place) -> None:
    editor = Editor(place)
    editor.replace(some(3))
    before = editor.seen()
    editor.replace(some(5, first=2))
    editor.close()
    program = str(Path(sys.executable).with_name("precomputed"))
    words = [program, "annotations", "restore", str(place.root / "brain"), "--leaf", "fibers", "--version", "1"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert place.file().read_bytes() == before
    check_log(place)


FLIPS = 240
OTHER_BLOCK = "b1,0,0"


@pytest.fixture
def edited(place: Place) -> Place:
    """Two blocks with a log of several hundred lines each."""
    editor, dice = Editor(place), random.Random(26)
    for number in range(150):
        leaf = dice.choice(LEAVES)
        editor.put(point(dice.randrange(40), number, 1, 1), leaf=leaf)
        if number % 10 == 9:
            editor.save(some(5, first=number), leaf="drawn")
    editor.close()
    annotations = place.block.parent
    shutil.copytree(place.block, annotations / OTHER_BLOCK)
    shutil.copytree(place.history, place.history.parent / OTHER_BLOCK)
    return place


def files_of(place: Place, block: str) -> list[Path]:
    """The log segments and annotation files of a block."""
    annotations = place.block.parent
    return sorted([*(annotations / ".history" / block).glob("log-*.jsonl"), *(annotations / block).glob("*.json")])


def flip(path: Path, dice: random.Random) -> None:
    """Change one bit of a file in its place, as a disk does."""
    with path.open("r+b") as file:
        place = dice.randrange(path.stat().st_size)
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << dice.randrange(8)]))


def assert_sound(place: Place) -> None:
    """`precomputed annotations verify` finds nothing."""
    result = command(place, "verify")
    assert (result.exit_code, result.exception) == (0, None), result.output
    assert result.output.count("the log is whole") == 2


@pytest.mark.parametrize("flips", [FLIPS, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_every_flipped_bit_is_found_and_its_block_named(edited: Place, flips: int) -> None:
    assert_sound(edited)
    dice, found = random.Random(27), 0
    for number in range(flips):
        block, other = dice.sample([BLOCK, OTHER_BLOCK], 2)
        files = files_of(edited, block)
        path = files[number % len(files)]
        sound = path.read_bytes()
        flip(path, dice)
        result = command(edited, "verify")
        assert isinstance(result.exception, Unreadable), f"{path.name}: {result.output}"
        lines = result.output.splitlines()
        assert {line.partition(":")[0] for line in lines} == {BLOCK, OTHER_BLOCK}
        assert f"{other}: the log is whole and says what the files hold." in lines
        assert not any(line.startswith(f"{block}: the log is whole") for line in lines)
        found += 1
        path.write_bytes(sound)
    print(f"{found} of {flips} flipped bits found")  # noqa: T201
    assert_sound(edited)


def test_the_command_itself_finds_damage(edited: Place) -> None:
    program = [str(Path(sys.executable).with_name("precomputed")), "annotations", "verify", str(edited.root / "brain")]
    assert subprocess.run(program, capture_output=True, timeout=60).returncode == 0
    for path in (edited.log, edited.file()):
        sound = path.read_bytes()
        flip(path, random.Random(1))
        done = subprocess.run(program, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert f"\n{BLOCK}: " in f"\n{done.stdout}"
        assert "Traceback" not in done.stdout + done.stderr
        path.write_bytes(sound)
