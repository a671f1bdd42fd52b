"""The file of settings: TOML (https://toml.io/en/v1.0.0) whose keys are the settings' names."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path

from precomputed_server.errors import InvalidInput
from precomputed_server.settings.setting import Value
from precomputed_server.settings.table import BY_KEY, BY_NAME

SYSTEM_FILE = Path("/etc/precomputed.toml")
"""The file that counts where nobody names one; it need not be there."""

_NONE = "name another file by --config (/dev/null is one without settings)"


def read_file(path: Path) -> dict[str, Value]:
    """The settings of a file by their names; raises InvalidInput, naming file and key, for what is wrong in it."""
    try:
        with path.open("rb") as file:
            members = tomllib.load(file)
    except OSError as error:
        raise InvalidInput(f"The settings in {path} cannot be read ({error.strerror}); {_NONE}.") from error
    except ValueError as error:  # of TOML, or of UTF-8
        raise InvalidInput(f"{path} is not TOML: {error}; mend it, or {_NONE}.") from error
    values = {}
    for key, value in members.items():
        if key not in BY_KEY:
            raise InvalidInput(f"{path} sets {key!r}, which is no setting; the nearest is {nearest(key, BY_KEY)!r}.")
        values[BY_KEY[key].name] = BY_KEY[key].from_toml(value, f"{key} in {path}")
    return values


def nearest(name: str, known: Iterable[str]) -> str:
    """The one of the `known` names that is most like `name`."""
    return difflib.get_close_matches(name, list(known), 1, cutoff=0)[0]


def check_names(names: Iterable[str]) -> None:
    """Raises InvalidInput where one of the names is no setting's."""
    for name in sorted(set(names) - set(BY_NAME)):
        raise InvalidInput(f"There is no setting named {name}; the nearest is {nearest(name, BY_NAME)}.")
