"""One row of the table of settings: how its value is written, read and shown."""

from __future__ import annotations

import json
from dataclasses import dataclass

from precomputed_server.errors import InvalidInput
from precomputed_server.sizes import parse_size, shown_size

Value = int | str | bool

_LONGEST_SHOWN = 60


@dataclass(frozen=True)
class Setting:
    """One row of the table: the default's type is the setting's type; numbers lie in `minimum` … `maximum`.

    `size` says that a number is one of bytes, `computed` how the default comes about where it is not the same
    everywhere, `old_variable` what the data manager called its variable.
    """

    name: str
    default: Value
    help: str
    minimum: int = 1
    maximum: int | None = None
    octal: bool = False
    size: bool = False
    computed: str = ""
    old_variable: str = ""

    @property
    def key(self) -> str:
        """`max-body`, as the file of settings has it."""
        return self.name.replace("_", "-")

    @property
    def flag(self) -> str:
        """`--max-body`."""
        return f"--{self.key}"

    @property
    def variable(self) -> str:
        """`PRECOMPUTED_MAX_BODY`."""
        return "PRECOMPUTED_" + self.name.upper()

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables that set it; the first that there is counts."""
        return (self.variable, self.old_variable) if self.old_variable else (self.variable,)

    @property
    def kind(self) -> str:
        """What a person has to write."""
        if isinstance(self.default, str):
            return "TEXT"
        return "SIZE" if self.size else "NUMBER"

    @property
    def shown_default(self) -> str:
        """The default as a person reads it."""
        return self.computed or self.shown(self.default)

    def shown(self, value: Value) -> str:
        """A value as a person reads it, and as `parsed` takes it."""
        if isinstance(value, bool):
            return "on" if value else "off"
        if isinstance(value, str):
            return value
        if self.octal:
            return f"0o{value:03o}"
        return shown_size(value) if self.size else str(value)

    def parsed(self, text: str, given_as: str) -> Value:
        """Read a flag's or variable's text; raises InvalidInput naming what it was `given_as`."""
        if isinstance(self.default, bool):
            if text.lower() in ("1", "true", "yes", "on"):
                return True
            if text.lower() in ("0", "false", "no", "off"):
                return False
            raise InvalidInput(f"{given_as} is {text!r}; use 1 or 0.")
        if isinstance(self.default, int):
            return self._within_bounds(self._number(text, given_as), text, given_as)
        return text

    def from_toml(self, value: object, given_as: str) -> Value:
        """Take a value as TOML has it; raises InvalidInput, naming what it was `given_as`, for another type.

        Octal numbers are texts: TOML's own do not tell whether 22 was meant as 0o22.
        """
        if isinstance(self.default, bool) or isinstance(value, bool):
            if isinstance(self.default, bool) and isinstance(value, bool):
                return value
        elif isinstance(value, str) and (self.octal or self.size or isinstance(self.default, str)):
            return self.parsed(value, given_as)
        elif isinstance(value, int) and isinstance(self.default, int) and not self.octal:
            return self._within_bounds(value, str(value), given_as)
        shown = repr(value)
        shown = shown if len(shown) <= _LONGEST_SHOWN else shown[:_LONGEST_SHOWN] + "…"
        raise InvalidInput(f"{given_as} is {shown}; use {self._toml_kind()}.")

    def to_toml(self, value: Value) -> str:
        """A value as the file of settings has it."""
        if isinstance(value, bool):
            return "true" if value else "false"
        shown = self.shown(value)
        if isinstance(value, int) and shown == str(value):
            return shown
        # A string of JSON is one of TOML, but for a character that only TOML wants to be escaped.
        return json.dumps(shown, ensure_ascii=False).replace("\x7f", "\\u007f")

    def _toml_kind(self) -> str:
        if isinstance(self.default, bool):
            return "true or false"
        if self.octal:
            return f'an octal number in quotes, such as "{self.shown(self.default)}"'
        if self.size:
            return 'a size in quotes, such as "512MiB", or a whole number of bytes'
        return "text in quotes" if isinstance(self.default, str) else "a whole number without quotes"

    def _number(self, text: str, given_as: str) -> int:
        try:
            return int(text, 8 if self.octal else 0)
        except ValueError as error:
            size = parse_size(text) if self.size else None
            if size is not None:
                return size
            kind = "a size such as 512MiB or 2GiB" if self.size else "a whole number"
            kind = "an octal number such as 0o022" if self.octal else kind
            raise InvalidInput(f"{given_as} is {text!r}; use {kind}.") from error

    def _within_bounds(self, number: int, text: str, given_as: str) -> int:
        if number < self.minimum or (self.maximum is not None and number > self.maximum):
            bounds = f"from {self.shown(self.minimum)}"
            bounds += "" if self.maximum is None else f" to {self.shown(self.maximum)}"
            raise InvalidInput(f"{given_as} is {text}; use a {'size' if self.size else 'number'} {bounds}.")
        return number
