"""The state directory as it would be used; it is not made."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from precomputed_server.doctor.judgement.datasets import StateFacts
from precomputed_server.local_state import place_of
from precomputed_server.mounts import foreign_type
from precomputed_server.settings import Settings


def look_at_state(settings: Settings) -> StateFacts:
    """Whether the state directory could be used, and on which file system it would lie."""
    place = place_of(settings.state, settings.root)
    lying = existing(place)
    return StateFacts(str(settings.state), _refused(place, lying), foreign_type(lying) or "")


def existing(place: Path) -> Path:
    """The directory itself, else the nearest one above it that is there."""
    return next(each for each in (place, *place.absolute().parents) if os.path.lexists(each))


def _refused(place: Path, lying: Path) -> str:
    """Why this user cannot use `place`, or make it in `lying`; or ""."""
    try:
        status = os.stat(lying)
    except OSError as error:
        return f"{lying}: {error.strerror}"
    if not stat.S_ISDIR(status.st_mode):
        return f"{lying} is not a directory"
    if os.statvfs(lying).f_flag & os.ST_RDONLY:
        return f"{lying} is on a read-only file system"
    if not os.access(lying, os.W_OK | os.X_OK, effective_ids=True):
        return f"this user may not write in {lying}"
    if lying == place and status.st_uid != os.geteuid():
        return f"{place} belongs to another user"
    return ""
