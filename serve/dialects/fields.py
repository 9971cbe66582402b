"""Fields of a request: one table per dialect says names, types, ranges, defaults and meaning.

    FIELDS = {"top_p": Field(Number(MIN_TOP_P, 1), "Likeliest tokens …"), …}
    given = read_fields({"top_p": 0.9}, FIELDS)

The parsers read by these tables and serve/openapi.py writes the documentation from them, so the two
cannot differ. `null` is the same as not given. A name that is in no table is refused.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from serve.dialects.strict_json import quoted, refuse
from serve.errors import did_you_mean

CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
SURROGATE = re.compile(r"[\ud800-\udfff]")
_PLAIN = r"[^\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]*"

Schema = dict[str, Any]


class Reader(Protocol):
    """One type of value."""

    def read(self, value: Any, where: str) -> Any:
        """The value for the program, or RequestError that names `where`."""

    def schema(self) -> Schema:
        """The same as an OpenAPI 3.0 schema."""


@dataclass(frozen=True, slots=True)
class Field:
    """One row of a table."""

    reader: Reader
    doc: str
    default: str = ""
    """In words, for the documentation; "" has none worth a word."""
    required: bool = False


Table = Mapping[str, Field]


def read_fields(given: Mapping[str, Any], table: Table, prefix: str = "") -> dict[str, Any]:
    """Every field that is given and not null, read; `prefix` says where the object stands."""
    for name in given:
        if name not in table:
            name = quoted(name)
            refuse(prefix + name, f'"{name}" is not a known field{did_you_mean(name, table)}')
    return {
        name: table[name].reader.read(value, prefix + name)
        for name, value in given.items()
        if value is not None
    }


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    def read(self, value: Any, where: str) -> bool:
        if not isinstance(value, bool):
            refuse(where, f"{where} must be true or false.")
        return value

    def schema(self) -> Schema:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number."""

    low: int
    high: int | None = None

    def read(self, value: Any, where: str) -> int:
        right = type(value) is int and self.low <= value
        if not right or (self.high is not None and value > self.high):
            end = "" if self.high is None else f" to {self.high}"
            rule = f"from {self.low}{end}" if end else f"of at least {self.low}"
            refuse(where, f"{where} must be a whole number {rule}.")
        return int(value)

    def schema(self) -> Schema:
        high = {} if self.high is None else {"maximum": self.high}
        return {"type": "integer", "minimum": self.low, **high}


@dataclass(frozen=True, slots=True)
class Number:
    """A finite number."""

    low: float
    high: float = math.inf

    def read(self, value: Any, where: str) -> float:
        try:
            right = type(value) in (int, float) and self.low <= float(value) <= self.high
            right = right and value != math.inf
        except OverflowError:
            right = False
        if not right:
            rule = f"from {self.low:g} to {self.high:g}"
            if self.high == math.inf:
                rule = f"at least {self.low:g}"
            elif 0 < self.low < 1e-6:
                rule = f"above 0 and up to {self.high:g}"
            refuse(where, f"{where} must be a finite number {rule}.")
        return float(value)

    def schema(self) -> Schema:
        high = {} if self.high == math.inf else {"maximum": self.high}
        return {"type": "number", "minimum": self.low, **high}


@dataclass(frozen=True, slots=True)
class Text:
    """A string that the model can be shown."""

    empty: bool = False
    """May be "", or nothing but blanks."""

    def read(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not (self.empty or value.strip()):
            rule = "a string" if self.empty else "a string that is not empty"
            refuse(where, f"{where} must be {rule}.")
        if SURROGATE.search(value):
            refuse(where, f"{where} holds half of a surrogate pair; send whole characters.")
        if found := CONTROL.search(value):
            refuse(where, f"{where} holds the control character U+{ord(found[0]):04X}; remove it.")
        return value

    def schema(self) -> Schema:
        pattern = _PLAIN if self.empty else rf"{_PLAIN}\S{_PLAIN}"
        return {"type": "string", "pattern": f"^{pattern}$"}


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words."""

    words: tuple[str, ...]

    def read(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or value not in self.words:
            refuse(where, f"{where} must be one of {', '.join(self.words)}.")
        return value

    def schema(self) -> Schema:
        return {"type": "string", "enum": list(self.words)}


@dataclass(frozen=True, slots=True)
class Neutral:
    """What we cannot do: only the values that ask for nothing pass."""

    values: tuple[Any, ...]
    why: str
    """The sentence after the field's name."""

    def read(self, value: Any, where: str) -> Any:
        if not any(type(value) is type(one) and value == one for one in self.values):
            refuse(where, f"{where} {self.why}")
        return value

    def schema(self) -> Schema:
        return {"enum": [*self.values, None], "nullable": True}


@dataclass(frozen=True, slots=True)
class Strings:
    """One string, or a list of them; none may be empty, blanks are text."""

    most: int

    def read(self, value: Any, where: str) -> tuple[str, ...]:
        entries = [value] if isinstance(value, str) else value
        if not isinstance(entries, list) or len(entries) > self.most:
            refuse(where, f"{where} must be a string, or a list of up to {self.most}.")
        for index, entry in enumerate(entries):
            at = where if isinstance(value, str) else f"{where}[{index}]"
            if Text(empty=True).read(entry, at) == "":
                refuse(at, f"{at} must be a string that is not empty.")
        return tuple(entries)

    def schema(self) -> Schema:
        one = {**Text(empty=True).schema(), "minLength": 1}
        return {"anyOf": [one, {"type": "array", "items": one, "maxItems": self.most}]}


@dataclass(frozen=True, slots=True)
class Labels:
    """Strings by name, for logs only."""

    def read(self, value: Any, where: str) -> Mapping[str, str]:
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            refuse(where, f"{where} must be an object whose values are strings.")
        return value

    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": {"type": "string"}}


@dataclass(frozen=True, slots=True)
class Special:
    """A value with a shape of its own: how it is read, and its schema."""

    how: Callable[[Any, str], Any]
    shape: Schema

    def read(self, value: Any, where: str) -> Any:
        return self.how(value, where)

    def schema(self) -> Schema:
        return self.shape


def object_schema(table: Table) -> Schema:
    """A whole table as the schema of an object."""
    properties = {}
    for name, field in table.items():
        words = f"{field.doc} Default: {field.default}." if field.default else field.doc
        properties[name] = {"description": words, **field.reader.schema()}
        if not field.required:
            properties[name]["nullable"] = True
    required = [name for name, field in table.items() if field.required]
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema
