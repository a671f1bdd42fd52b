"""Fixtures that every test may use, and the rule for outside programs.

`component("nginx")` skips a test where a program is absent and fails it when CI=true: on a build machine a skipped
test is a hole that nobody sees.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from aiohttp import web
from blockbuster import BlockBuster, BlockBusterFunction, blockbuster_ctx

REPOSITORY = Path(__file__).resolve().parents[1]
STARTS_WITHIN_S = 20
STOPS_WITHIN_S = 10

_LIBRARIES = tempfile.mkdtemp()
"""What cloud-volume keeps in the home directory otherwise; it looks for the place when it is imported."""
atexit.register(shutil.rmtree, _LIBRARIES, ignore_errors=True)
os.environ |= {"CLOUD_VOLUME_DIR": f"{_LIBRARIES}/volume", "CLOUD_FILES_DIR": f"{_LIBRARIES}/files"}

PROGRAMS = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "haproxy": ("haproxy",),
    "munge": ("munged",),
    "nginx": ("nginx",),
    "openssl": ("openssl",),
    "slurmctld": ("slurmctld",),
    "slurmd": ("slurmd",),
    "strace": ("strace",),
    "wrk": ("wrk",),
}
"""A component's name → the programs that are it, best first."""


def _unimported(package: str) -> ModuleType:
    """All that blockbuster wants of a package: its path. An import that fails would fail every test."""
    module = ModuleType(package)
    module.__path__ = [str(REPOSITORY / package)]
    return module


OUR_CODE = [_unimported(package) for package in ("precomputed_server", "annotation_store", "converter")]
UNWATCHED_CALLS = [
    (os, "open"),
    (os, "pread"),
    (os, "fsync"),
    (os, "fdatasync"),
    (os, "fchmod"),
    (fcntl, "flock"),
]
"""Calls that a slow disk stretches and that blockbuster does not watch by itself."""

ALLOWED = [
    # The root is opened once, before the first request is taken.
    ("os.open", "precomputed_server/files.py", "__init__"),
    # What a page is answered is noted on the state directory's local disk, in the page cache, before it is answered.
    ("os.open", "annotation_store/pages/hourly.py", "append"),
    ("os.write", "annotation_store/pages/hourly.py", "append"),
]
"""Call, file and function that may block after all, each with its reason."""


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """Fail every call from our code that could block the event loop.

    Only stacks that run through our code count: a test may read its own files, and pytest may do what it likes.
    The lookup with openat2 goes through ctypes and is not seen; it is allowed on the loop as it asks for cached
    entries only.
    """
    more = [BlockBusterFunction(module, name, scanned_modules=OUR_CODE) for module, name in UNWATCHED_CALLS]
    more.append(
        BlockBusterFunction(os, "preadv", scanned_modules=OUR_CODE, can_block_predicate=_reads_cached_pages_only)
    )
    with blockbuster_ctx(OUR_CODE) as blockbuster:
        blockbuster.functions.update({function.full_name: function for function in more})
        for call, file, function_name in ALLOWED:
            blockbuster.functions[call].can_block_in(file, function_name)
        blockbuster.activate()
        yield blockbuster


def _reads_cached_pages_only(_descriptor: int, _buffers: object, _offset: int, flags: int = 0) -> bool:
    return bool(flags & os.RWF_NOWAIT)


@pytest.fixture(autouse=True)
def no_undescribed_answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in which an application of this process answers what the interface's description does not say."""
    prepare = web.StreamResponse.prepare
    answers: list[tuple[web.BaseRequest, web.StreamResponse]] = []

    async def prepared(response: web.StreamResponse, request: web.BaseRequest) -> object:
        answers.append((request, response))
        return await prepare(response, request)

    monkeypatch.setattr(web.StreamResponse, "prepare", prepared)
    yield
    if answers:
        from tests.described import faults_of  # who serves nothing imports no application

        assert faults_of(answers) == []


NIGHTLY_TIMEOUT_S = 4 * 3600


@pytest.hookimpl(tryfirst=True)  # before the selection by -m
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever starts a server is a `component` test, marked or not; big numbers take their time."""
    for item in items:
        if "start_server" in getattr(item, "fixturenames", ()):
            item.add_marker("component")
        if item.get_closest_marker("nightly") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(NIGHTLY_TIMEOUT_S))


def component(name: str) -> str:
    """The path of an outside program; skips the test where there is none, fails it when CI=true."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    for program in PROGRAMS[name]:
        path = shutil.which(program, path=places)
        if path is not None:
            return path
    missing(f"{name} is not installed")
    raise AssertionError


def missing(reason: str) -> None:
    """Skip the running test for want of something outside the project; fail it when CI=true."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and CI=true", pytrace=False)
    pytest.skip(reason)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


Mount = Callable[[str], Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """`mount("size=1m")`: a file system of its own; unmounted whatever happens."""
    root = tmp_path / "mounted"
    root.mkdir()

    def mounted(options: str) -> Path:
        if os.getuid() != 0:
            missing("only root can mount a file system")
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(root)], capture_output=True)
        if done.returncode != 0:
            missing(f"a tmpfs cannot be mounted here: {done.stderr.decode().strip()}")
        return root

    yield mounted
    if os.path.ismount(root):
        subprocess.run(["umount", "--lazy", str(root)], check=True)


@pytest.fixture
def shared_data() -> Path:
    """The directory of real data beside the repository; skips where it is absent, on a build machine too."""
    directory = REPOSITORY.parent / "shared" / "data"
    if not directory.is_dir():
        pytest.skip("the real data in ../shared/data is not on this machine")
    return directory


@dataclass(frozen=True)
class RunningServer:
    """A `precomputed serve` process; `url` has no slash at its end, `log` is the file of what it prints."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process that was started: the master of the workers."""
        return self.process.pid

    def is_healthy(self) -> bool:
        """Whether `GET /healthz` answers 200."""
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        """Send SIGTERM; the server must end within STOPS_WITHIN_S and leave no process of its session behind."""
        late = ""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOPS_WITHIN_S)
            except subprocess.TimeoutExpired:
                late = f"the server did not end within {STOPS_WITHIN_S} s of SIGTERM. "
        left = _session_members(self.pid)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        orphans = [pid for pid in left if pid != self.pid]
        assert not late, late + self.log.read_text()
        assert not orphans, f"the server left processes behind: {orphans}\n{self.log.read_text()}"


StartServer = Callable[..., RunningServer]
"""`start_server(root, *arguments, workers=2)`."""


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """A function that serves a directory with the real command and waits until it is healthy.

    `start_server(root, "--max-body", "1000", workers=1)`; every server is stopped when the test ends.
    """
    servers: list[RunningServer] = []

    def start(root: Path, *arguments: str, workers: int = 2) -> RunningServer:
        log = tmp_path_factory.mktemp("server") / "log"
        server = launch(root, arguments, workers, log)
        servers.append(server)
        wait_until_healthy(server)
        return server

    yield start
    for server in servers:
        server.stop()


def launch(root: Path, arguments: tuple[str, ...], workers: int, log: Path) -> RunningServer:
    port = free_port()
    command = [str(Path(sys.executable).with_name("precomputed")), "serve", str(root)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
    command += ["--state", str(log.with_name("state")), *arguments]
    with log.open("wb") as output:
        # A session of its own: whatever the server leaves behind can be told by it, even when the parent is gone.
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    return RunningServer(process, port, log)


def wait_until_healthy(server: RunningServer) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and server.process.poll() is None:
        if server.is_healthy():
            return
        time.sleep(0.05)
    pytest.fail(f"the server was not healthy within {STARTS_WITHIN_S} s:\n{server.log.read_text()}", pytrace=False)


def _session_members(session: int) -> list[int]:
    """The living processes of a session, zombies aside, by /proc/PID/stat."""
    members = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _parent, _group, of_session = (entry / "stat").read_text().rpartition(") ")[2].split()[:4]
        except OSError:  # it ended meanwhile
            continue
        if int(of_session) == session and state != "Z":
            members.append(int(entry.name))
    return members
