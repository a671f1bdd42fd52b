"""The state directory: what one host may lose, and what must not lie on a disk that hosts share.

Each root and each host has a directory of its own in it: home directories are often shared between hosts, and locks
and sockets are not.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from precomputed_server.errors import InvalidInput

_log = logging.getLogger(__name__)

STACKS, WANTED = "stacks", "wanted"
"""Below the directory of a root: what is kept of stacks that are served as they are, and in the directory of each the
file that asks for its coarser levels."""

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._]")


def state_of(state: Path, root: Path) -> Path:
    """The directory in `state` for the root on this host; created, for this user alone, where there is none.

    Raises InvalidInput when that cannot be done.
    """
    directory = place_of(state, root)
    try:
        directory.mkdir(0o700, parents=True, exist_ok=True)
        status = os.lstat(directory)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(13, "what is there is not a directory of this user")
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise InvalidInput(
            f"The state directory {state} cannot be used ({error.strerror}); name another one by --state."
        ) from error
    return directory


def place_of(state: Path, root: Path) -> Path:
    """Where `state_of` is, there or not."""
    return state / _name(root)


def usable_state(state: Path, root: Path) -> Path | None:
    """`state_of`, or None, which is logged, where it cannot be used: reading goes on without it."""
    try:
        return state_of(state, root)
    except InvalidInput as error:
        _log.warning("%s Until then annotations cannot be edited here.", error)
        return None


def states_of_dataset(state: Path, dataset: Path) -> Iterator[tuple[Path, str]]:
    """The directories there are for roots on this host that have `dataset` beneath them, and its path beneath each."""
    place = Path(os.path.realpath(dataset))
    for root in (place, *place.parents):
        directory = state / _name(root)
        if directory.is_dir():
            yield directory, "" if root == place else str(place.relative_to(root))


def this_host() -> str:
    """The name of this host in letters, digits, dots and underscores, at most 64 of them."""
    return _NOT_IN_A_NAME.sub("_", socket.gethostname())[:64] or "localhost"


def _name(root: Path) -> str:
    place = os.path.realpath(root)
    digest = hashlib.sha256(f"{socket.gethostname()}:{place}".encode(errors="surrogateescape")).hexdigest()
    return f"{os.path.basename(place) or 'root'}-{digest[:12]}"
