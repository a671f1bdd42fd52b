"""`precomputed doctor` against faults that are really there: each is named, in a sentence, with the remedy."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from precomputed_server.catalog.indexer import catalog_path
from precomputed_server.local_state import state_of
from tests.catalog.trees import INFO, make_dataset
from tests.conftest import Mount, free_port, missing
from tests.doctor.examined import NO_RIGHTS, Doctor, hiding, limited

pytestmark = [pytest.mark.component, pytest.mark.timeout(120)]


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    """Of a root with one sound dataset."""
    make_dataset(tmp_path / "data" / "mouse" / "brain")
    return Doctor(tmp_path / "data", tmp_path / "state")


@pytest.fixture
def plain(doctor: Doctor) -> Doctor:
    """Run by a user whom the modes of files bind."""
    return replace(doctor, prefix=NO_RIGHTS) if os.getuid() == 0 else doctor


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The compiled library that spoils syncs, locks and the clock."""
    compiler = shutil.which("cc")
    if compiler is None:
        missing("there is no C compiler (cc)")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run([str(compiler), "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return str(library)


def everything(directory: Path) -> dict[str, bytes | None]:
    """What lies beneath a directory: the content of files, None for directories."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None for path in directory.rglob("*")
    }


def test_a_healthy_root_gives_no_warning_and_is_left_as_it_was(doctor: Doctor, tmp_path: Path) -> None:
    before = everything(tmp_path)
    found = doctor.examine()
    assert found.amiss() == {}
    assert found.level("datasets", "1 dataset") == "ok"
    assert everything(tmp_path) == before


def test_a_catalog_is_looked_at_and_nothing_is_left_beside_it(doctor: Doctor, tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("precomputed"))
    subprocess.run([program, "index", str(doctor.root), "--state", str(doctor.state)], check=True)
    with closing(sqlite3.connect(catalog_path(doctor.state, doctor.root))) as database:
        database.execute("SELECT * FROM scans").fetchall()  # its last user tidies up
    before = everything(tmp_path)
    assert sum("catalog.sqlite" in name for name in before) == 1
    found = doctor.examine()
    assert found.level("catalog", "was brought up to date", "no server keeps it") == "ok"
    assert everything(tmp_path) == before


def test_lines_have_level_name_and_sentence(doctor: Doctor) -> None:
    done = doctor.run("--port", "0")
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert "ok    lock: A locked file keeps other processes out." in lines
    assert all(line[:6] in ("ok    ", "warn  ", "fail  ") and ": " in line for line in lines)


@pytest.mark.parametrize("arguments", [("--url", "ftp://x"), ("--port", "many"), ("--prot", "1")])
def test_a_wrong_command_is_2(doctor: Doctor, arguments: tuple[str, str]) -> None:
    assert doctor.run(*arguments).returncode == 2


def test_a_root_that_is_not_there(doctor: Doctor) -> None:
    gone = replace(doctor, root=doctor.root / "nothing")
    assert gone.examine().level("root", "There is no", "mount it") == "fail"


def test_a_root_that_is_a_file(doctor: Doctor) -> None:
    file = replace(doctor, root=doctor.root / "mouse" / "brain" / "info")
    assert file.examine().level("root", "is a file", "Name the directory") == "fail"


def test_a_root_that_is_a_link_to_nothing(doctor: Doctor, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/nowhere/data")
    assert replace(doctor, root=link).examine().level("root", "link to /nowhere/data", "Mount") == "fail"


def test_a_root_that_this_user_may_not_read(plain: Doctor) -> None:
    plain.root.chmod(0)
    try:
        assert plain.examine().level("root", "may not read", "0000", "setfacl") == "fail"
    finally:
        plain.root.chmod(0o755)


def test_a_root_above_which_this_user_may_not_look(plain: Doctor) -> None:
    above = plain.root / "mouse"
    above.chmod(0o600)
    try:
        assert replace(plain, root=above / "brain").examine().level("root", "may not look into", "chmod") == "fail"
    finally:
        above.chmod(0o755)


def test_a_root_that_this_user_may_not_write(plain: Doctor) -> None:
    plain.root.chmod(0o555)
    try:
        found = plain.examine()
        assert found.level("root", "not write", "setfacl") == "warn"
        assert found.code == 0
    finally:
        plain.root.chmod(0o755)


def test_annotations_that_this_user_may_not_write(plain: Doctor) -> None:
    blocks = plain.root / "mouse" / "brain" / "annotations" / "x0y0z0"
    blocks.mkdir(parents=True)
    blocks.chmod(0o555)
    assert plain.examine().level("annotations", "mouse/brain", "setfacl") == "warn"


def remounted(mount: Mount, options: str, more: str) -> Path:
    """A dataset on a tmpfs whose options are changed afterwards."""
    root = mount(options)
    make_dataset(root / "brain")
    subprocess.run(["mount", "-o", f"remount,{more}", str(root)], check=True)
    return root


@pytest.fixture
def dead(tmp_path: Path) -> Iterator[Path]:
    """A mount whose server has gone: FUSE without a process behind it, as a stale handle of NFS is."""
    place = tmp_path / "dead"
    place.mkdir()
    try:
        server = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        missing(f"there is no FUSE here: {error}")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    mounted = ctypes.CDLL(None).mount(b"dead", os.fsencode(place), b"fuse", 0, options)
    os.close(server)
    if mounted != 0:
        missing("only root can mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_mount_whose_server_has_gone(doctor: Doctor, dead: Path) -> None:
    found = replace(doctor, root=dead).examine()
    assert found.level("root", "does not answer", "Mount it anew") == "fail"
    assert found.level("state") == "ok"


def test_a_mount_that_is_read_only(doctor: Doctor, mount: Mount) -> None:
    found = replace(doctor, root=remounted(mount, "size=2m", "ro")).examine()
    assert found.level("mount", "read-only", "read-write", "--shared") == "warn"
    assert list(found.amiss()) == ["mount"]


def test_a_disk_without_space(doctor: Doctor, mount: Mount) -> None:
    root = mount("size=1m")
    make_dataset(root / "brain")
    with (root / "fill").open("wb", buffering=0) as file:
        while file.write(bytes(4096)) == 4096 and os.statvfs(root).f_bavail:
            pass
    found = replace(doctor, root=root).examine()
    assert found.level("space of the root", "is full", "Remove") == "fail"


def test_a_disk_without_inodes(doctor: Doctor, mount: Mount) -> None:
    root = mount("size=8m,nr_inodes=12")
    make_dataset(root / "brain")
    while os.statvfs(root).f_ffree:
        (root / f"file-{os.statvfs(root).f_ffree}").touch()
    found = replace(doctor, root=root).examine()
    assert found.level("space of the root", "inodes", "Remove") == "fail"
    assert found.level("write", "No space left", "Make room") == "fail"


def test_a_disk_that_is_nearly_full(doctor: Doctor, mount: Mount) -> None:
    root = mount("size=40m")
    (root / "fill").write_bytes(bytes(38 << 20))
    assert replace(doctor, root=root).examine().level("space of the root", "nearly full") == "warn"


def test_a_port_that_another_program_has(doctor: Doctor) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        found = doctor.examine("--port", str(listener.getsockname()[1]))
    assert found.level("port", "taken by another program", "--port") == "fail"


def test_an_address_of_another_machine(doctor: Doctor) -> None:
    assert doctor.examine("--host", "192.0.2.1").level("port", "192.0.2.1", "--host") == "fail"


@pytest.mark.parametrize(("limit", "level"), [(200, "fail"), (1024, "warn")])
def test_few_files_may_be_open(doctor: Doctor, limit: int, level: str) -> None:
    few = replace(doctor, prefix=("sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh"))
    assert few.examine().level("open files", f"{limit:,} files", "ulimit -n") == level


def test_few_directories_can_be_watched(doctor: Doctor) -> None:
    few = replace(doctor, prefix=limited("max_inotify_watches=2"))
    found = few.examine()
    assert found.level("watching", "max_inotify_watches lets 2", "sysctl user.max_inotify_watches=524288") == "warn"


def test_no_more_watchers_can_be_had(doctor: Doctor) -> None:
    none = replace(doctor, prefix=limited("max_inotify_instances=0"))
    assert none.examine().level("watching", "max_user_instances", "sysctl") == "warn"


def test_an_info_that_is_damaged(doctor: Doctor) -> None:
    (doctor.root / "mouse" / "brain" / "info").write_text('{"scales": [')
    found = doctor.examine()
    assert found.level("dataset", "mouse/brain cannot be read", "info", "restore") == "fail"
    assert list(found.amiss()) == ["dataset"]


def test_datasets_that_this_user_may_not_read(plain: Doctor) -> None:
    for path in ("lost+found", "secret", "fish/eye/info"):
        make_dataset(plain.root / path.removesuffix("/info"))
        (plain.root / path).chmod(0)
    found = plain.examine()
    assert found.level("dataset", "may not read secret,", "setfacl") == "warn"
    assert found.level("dataset", "may not read fish/eye,", "setfacl") == "warn"
    assert list(found.amiss()) == ["dataset"]
    assert len([1 for _, name, _ in found.findings if name == "dataset"]) == 2


def test_a_scale_that_is_missing(doctor: Doctor) -> None:
    info = json.loads(json.dumps(INFO))
    info["scales"].append({**info["scales"][0], "key": "2_2_2", "resolution": [2000, 2000, 4000]})
    (doctor.root / "mouse" / "brain" / "info").write_text(json.dumps(info))
    assert doctor.examine().level("dataset", "mouse/brain is not complete", "2_2_2", "Run") == "warn"


def test_links_that_are_not_served(doctor: Doctor, tmp_path: Path) -> None:
    (doctor.root / "old").symlink_to("/nowhere")
    make_dataset(tmp_path / "elsewhere" / "fish")
    (doctor.root / "fish").symlink_to(tmp_path / "elsewhere" / "fish")
    (doctor.root / "same").symlink_to("mouse/brain")
    (doctor.root / "mouse" / ".trash").mkdir()
    (doctor.root / "mouse" / ".trash" / "old").symlink_to("/nowhere")
    found = doctor.examine()
    assert found.level("links", "lead nowhere: old.") == "warn"
    assert found.level("links", "out of the root", ": fish.", "mount --bind") == "warn"


def test_a_state_directory_that_is_a_file(doctor: Doctor) -> None:
    doctor.state.write_text("")
    assert doctor.examine().level("state", "is not a directory", "--state") == "fail"


def test_a_state_directory_that_this_user_may_not_write(plain: Doctor) -> None:
    plain.state.mkdir(mode=0o555)
    assert plain.examine().level("state", "may not write", "--state") == "fail"


def test_a_state_directory_of_another_user(doctor: Doctor) -> None:
    if os.getuid() != 0:
        missing("only root can give a directory away")
    os.chown(state_of(doctor.state, doctor.root), 65534, 65534)
    assert doctor.examine().level("state", "another user", "--state") == "fail"


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system that is none of those which are known to be this host's."""
    place = tmp_path / "foreign"
    place.mkdir()
    if subprocess.run(["mount", "-t", "hugetlbfs", "none", str(place)], capture_output=True).returncode != 0:
        missing("no file system of an unusual type can be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_state_directory_that_is_not_on_a_local_disk(doctor: Doctor, foreign: Path) -> None:
    found = replace(doctor, state=foreign / "state").examine()
    assert found.level("state", "is on hugetlbfs", "no catalog", "--state") == "fail"
    assert list(foreign.iterdir()) == []


def test_a_catalog_that_is_damaged(doctor: Doctor) -> None:
    catalog_path(doctor.state, doctor.root).write_bytes(os.urandom(9000))
    found = doctor.examine()
    assert found.level("catalog", "cannot be read", "makes it anew") == "warn"
    assert found.level("datasets", "1 dataset") == "ok"


def test_no_viewer(doctor: Doctor, tmp_path: Path) -> None:
    found = doctor.examine(**hiding(tmp_path, "neuroglancer"))
    assert found.level("viewer", "pip install 'precomputed-server[viewer]'") == "warn"


def test_no_codecs(doctor: Doctor, tmp_path: Path) -> None:
    found = doctor.examine(**hiding(tmp_path, "imagecodecs"))
    assert found.level("codecs", "blosc", "imagecodecs", "pip install") == "fail"
    assert found.level("datasets", "not looked at", "Install") == "warn"


def test_no_deflate(doctor: Doctor, tmp_path: Path) -> None:
    assert doctor.examine(**hiding(tmp_path, "isal")).level("codecs", ": deflate (", "pip install") == "fail"


def test_a_library_that_is_missing(doctor: Doctor, tmp_path: Path) -> None:
    assert doctor.examine(**hiding(tmp_path, "aiohttp")).level("libraries", "aiohttp", "pip install") == "fail"


def test_a_disk_that_is_slow_to_sync(doctor: Doctor, faulty: str) -> None:
    found = doctor.examine(LD_PRELOAD=faulty, FSYNC_SECONDS="0.2")
    assert found.level("fsync", "0.4", "saved annotation waits", "disk") == "warn"


def test_locks_that_do_not_hold(doctor: Doctor, faulty: str) -> None:
    found = doctor.examine(LD_PRELOAD=faulty, FLOCK_VOID="1")
    assert found.level("lock", "can be locked by another", "move the datasets") == "fail"


def test_a_clock_that_is_wrong(doctor: Doctor, faulty: str) -> None:
    found = doctor.examine(LD_PRELOAD=faulty, CLOCK_AHEAD_SECONDS="3600")
    assert found.level("clock", "3600 s behind", "time server") == "warn"


def test_a_variable_that_is_misspelt(doctor: Doctor) -> None:
    found = doctor.examine(PRECOMPUTED_WORKER="4", PRECOMPUTED_NOISE="debug")
    assert found.level("settings", "PRECOMPUTED_WORKER sets nothing", "PRECOMPUTED_WORKERS?") == "warn"
    assert found.level("settings", "PRECOMPUTED_NOISE sets nothing", "Remove it") == "warn"


def test_a_variable_that_has_no_such_value(doctor: Doctor) -> None:
    assert doctor.examine(PRECOMPUTED_WORKERS="many").level("settings", "PRECOMPUTED_WORKERS is 'many'") == "fail"


def test_a_variable_of_a_service_link(doctor: Doctor) -> None:
    links = {"PRECOMPUTED_PORT": "tcp://10.0.0.5:9000", "PRECOMPUTED_PORT_9000_TCP_ADDR": "10.0.0.5"}
    found = doctor.examine(**links)
    assert found.level("settings", "PRECOMPUTED_PORT is an address", "enableServiceLinks: false") == "warn"
    assert len([1 for _, name, _ in found.findings if name == "settings"]) == 1


def test_no_server_at_the_url(doctor: Doctor) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert doctor.examine("--url", url).level("proxy", url, "Start it") == "fail"
