"""The state directory: what one host may lose, and what must not lie on a disk that hosts share.

Each root and each host has a directory of its own in it: home directories are often shared between hosts, and locks
and sockets are not.
"""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

from precomputed_server.errors import InvalidInput


def state_of(state: Path, root: Path) -> Path:
    """The directory in `state` for the root on this host; created, for this user alone, where there is none.

    Raises InvalidInput when that cannot be done.
    """
    place = os.path.realpath(root)
    host = socket.gethostname()
    name = f"{os.path.basename(place) or 'root'}-{hashlib.sha256(f'{host}:{place}'.encode()).hexdigest()[:12]}"
    directory = state / name
    try:
        directory.mkdir(0o700, parents=True, exist_ok=True)
        os.close(os.open(directory, os.O_RDONLY | os.O_DIRECTORY))
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise InvalidInput(
            f"The state directory {state} cannot be used ({error.strerror}); name another one by --state."
        ) from error
    return directory
