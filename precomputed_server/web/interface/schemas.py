"""JSON schemas (2020-12) of Python types: dataclasses and TypedDicts become components, by their names."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, NotRequired, Union, get_args, get_origin

Schema = dict[str, Any]

_SCALARS: Mapping[Any, str] = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


class Schemas:
    """The schemas of the types that were asked for; `components` are those that have names."""

    def __init__(self) -> None:
        self.components: dict[str, Schema] = {}
        self._named: dict[str, Any] = {}

    def of(self, kind: Any) -> Schema:  # noqa: ANN401  # a type or what `Annotated` and the like make of one
        """The schema of a type, or of a schema in which types stand; raises TypeError for what has none."""
        if isinstance(kind, dict):
            return {name: self._within(value) for name, value in kind.items()}
        if kind is Any:
            return {}
        if kind in _SCALARS:
            return {"type": _SCALARS[kind]}
        if dataclasses.is_dataclass(kind) or typing.is_typeddict(kind):
            return self._component(kind)
        return self._generic(kind)

    def _within(self, value: Any) -> Any:  # noqa: ANN401  # any member of a schema
        if isinstance(value, (str, int, float, type(None))):
            return value
        return [self._within(each) for each in value] if isinstance(value, list) else self.of(value)

    def _generic(self, kind: Any) -> Schema:  # noqa: ANN401  # as above
        origin, arguments = get_origin(kind), get_args(kind)
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin is NotRequired:
            return self.of(arguments[0])
        if origin in (Union, types.UnionType):
            return _either([self.of(each) for each in arguments])
        if origin is list or (origin is tuple and arguments[1:] == (...,)):
            return {"type": "array", "items": self.of(arguments[0])}
        if origin is tuple and len(set(arguments)) == 1:
            length = len(arguments)
            return {"type": "array", "items": self.of(arguments[0]), "minItems": length, "maxItems": length}
        if origin is dict:
            values = self.of(arguments[1])
            return {"type": "object", **({"additionalProperties": values} if values else {})}
        raise TypeError(f"{kind} has no JSON schema here")

    def _component(self, kind: Any) -> Schema:  # noqa: ANN401  # as above
        name = kind.__name__
        if self._named.setdefault(name, kind) is not kind:
            raise TypeError(f"two types are named {name}")
        if name not in self.components:
            self.components[name] = {}  # it may hold itself
            hints = typing.get_type_hints(kind, include_extras=True)
            self.components[name] = {
                "type": "object",
                "description": _first_sentence(kind),
                "properties": {member: self.of(hint) for member, hint in hints.items()},
                "required": [member for member, hint in hints.items() if get_origin(hint) is not NotRequired],
            }
        return {"$ref": f"#/components/schemas/{name}"}


def _either(schemas: list[Schema]) -> Schema:
    """One of these; scalars as a list of types."""
    if all(set(schema) == {"type"} for schema in schemas):
        return {"type": [schema["type"] for schema in schemas]}
    return {"anyOf": schemas}


def _first_sentence(kind: Any) -> str:  # noqa: ANN401  # as above
    paragraph = (kind.__doc__ or "").partition("\n\n")[0]
    return " ".join(paragraph.split())
