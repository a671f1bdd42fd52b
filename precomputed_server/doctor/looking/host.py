"""Limits of the machine, the directories of the tree and its links, and who has the port."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import socket
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from precomputed_server.doctor.judgement.host import FileFacts, PortFacts, WatchFacts
from precomputed_server.doctor.judgement.storage import LinkFacts
from precomputed_server.mounts import is_local, read_mounts
from precomputed_server.settings import Settings

_LIMITS = ("fs.inotify.max_user_watches", "user.max_inotify_watches")
"""Of all of a user's processes, and of those in this user namespace: the smaller holds."""

_WALK_S = 5.0
_ANSWER_S = 3.0
_IN_DELETE_SELF = 0x400
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Walked:
    """The directories beneath a root and its links that are not served; `is_whole` unless it took too long."""

    directories: int
    is_whole: bool
    links: LinkFacts


def walk(root: Path, seconds: float = _WALK_S) -> Walked:
    """Go through the directories of `root` without following links, for so long."""
    until = time.monotonic() + seconds
    inside = os.path.realpath(root)
    waiting, count, in_time = [inside], 0, True
    dangling: list[str] = []
    outside: list[str] = []
    while waiting and in_time:
        place = waiting.pop()
        count += 1
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    in_time = time.monotonic() < until
                    if not in_time:
                        break
                    if entry.is_symlink():
                        _judge_link(entry.path, inside, dangling, outside)
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
        except OSError:  # gone since, or not this user's: who looks for datasets says so
            continue
    return Walked(count, in_time, LinkFacts(tuple(sorted(dangling)), tuple(sorted(outside))))


def _judge_link(path: str, inside: str, dangling: list[str], outside: list[str]) -> None:
    target = os.path.realpath(path)
    name = os.path.relpath(path, inside)
    if "/." in f"/{name}":
        return  # what is in a directory with a dot is not served anyway
    if not os.path.exists(target):
        dangling.append(name)
    elif not f"{target}/".startswith(f"{inside.rstrip('/')}/"):
        outside.append(name)


def look_at_watches(settings: Settings, walked: Walked, *, is_kept: bool) -> WatchFacts:
    """The limit of inotify watches and how many are in use, with one taken and given back to try it."""
    limits = [(int(text), name) for name in _LIMITS if (text := _content(_limit_file(name))).isdigit()]
    limit, name = min(limits, default=(None, _LIMITS[0]))
    return WatchFacts(
        limit,
        name,
        _watches_in_use(),
        walked.directories,
        walked.is_whole,
        _refused(settings.root),
        is_local(read_mounts(settings.root)),
        is_kept,
        settings.index_period,
    )


def _limit_file(name: str) -> Path:
    return Path("/proc/sys", *name.split("."))


def _refused(root: Path) -> str:
    """The limit at which the kernel refuses one watch more, or ""."""
    descriptor = _libc.inotify_init1(os.O_CLOEXEC)
    if descriptor < 0:
        return "max_user_instances" if ctypes.get_errno() == errno.EMFILE else ""
    try:
        watched = _libc.inotify_add_watch(descriptor, os.fsencode(root), _IN_DELETE_SELF)
        return "max_user_watches" if watched < 0 and ctypes.get_errno() == errno.ENOSPC else ""
    finally:
        os.close(descriptor)


def _watches_in_use() -> int:
    """Those of all processes of this user in the same user namespace, as far as they may be looked at."""
    own, space, count = os.geteuid(), _namespace("self"), 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == own and _namespace(process.name) == space:
                count += sum(_content(file).count("inotify wd:") for file in (process / "fdinfo").iterdir())
        except OSError:  # ended, or not to be looked at
            continue
    return count


def _namespace(process: str) -> str:
    return os.readlink(f"/proc/{process}/ns/user")


def _content(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def look_at_files(settings: Settings) -> FileFacts:
    """The hard limit, up to which a server raises its own."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return FileFacts(most if most >= 0 else 1 << 30, settings.open_files, settings.workers)


def look_at_port(host: str, port: int) -> PortFacts:
    """Take the address as a server would, give it back, and ask who has it."""
    return PortFacts(host, port, _state_of_port(host, port))


def _state_of_port(host: str, port: int) -> Literal["free", "ours", "taken", "forbidden", "foreign"]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "ours" if _is_ours(host, port) else "taken"
        return "forbidden" if error.errno == errno.EACCES else "foreign"
    return "free"


def _is_ours(host: str, port: int) -> bool:
    """Whether one of our servers listens there: it says where its description is."""
    place = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    asker = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with asker.open(f"http://{place}:{port}/api/openapi.json", timeout=_ANSWER_S) as answer:
            return b"/annotations/" in answer.read()
    except (OSError, ValueError):
        return False
