"""YAML that overrides the defaults of frozen dataclasses, and refuses what they do not know.

    build(Recipe, values, where="recipes/mine.yaml", retired=RETIRED) -> Recipe

The dataclasses are the schema. Every error is one sentence that names the file, the key and what it
must be; an unknown key is answered with the nearest known one, a retired one with its new name.
"""

import dataclasses
import datetime
import difflib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import yaml

from train.errors import InputError


def override(values: dict[str, Any], keys: Sequence[str], text: str, where: str) -> None:
    """Set the value at the path `keys` to `text`, read as YAML."""
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: of the 99th of a month
        value = text
    inner = values
    for key in keys[:-1]:
        if inner.get(key) is None:
            inner[key] = {}
        inner = inner[key]
        if not isinstance(inner, dict):
            raise InputError(f"{where}: {key} is a value, not a section.")
    inner[keys[-1]] = value


def build(
    cls: type[Any], values: Any, *, where: str, retired: Mapping[str, str], prefix: str = ""
) -> Any:
    """An instance of the dataclass `cls` from the mapping `values`; InputError for any misfit."""
    if not isinstance(values, dict):
        raise InputError(f"{where}: {prefix.rstrip('.')} must be a section of keys and values.")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            hint = _hint(str(key), list(fields), retired)
            raise InputError(f"{where}: unknown key {prefix}{key}{hint}.")
    hints = typing.get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for name, f in fields.items():
        key = f"{prefix}{name}"
        if name in values and dataclasses.is_dataclass(hints[name]):
            arguments[name] = build(
                hints[name], values[name], where=where, retired=retired, prefix=f"{key}."
            )
        elif name in values:
            arguments[name] = _convert(hints[name], values[name], key, where)
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise InputError(f"{where}: {key} is missing; it has no default.")
    try:
        return cls(**arguments)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _hint(key: str, known: list[str], retired: Mapping[str, str]) -> str:
    if key in retired:
        return f"; here it is {retired[key]}"
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def _convert(hint: Any, value: Any, key: str, where: str) -> Any:
    """`value` as `hint`; YAML 1.1 reads 2e-4 as text, so numbers are also taken from strings."""
    options = (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
    )
    for option in options:
        origin = typing.get_origin(option)
        if origin is Literal:
            if value in typing.get_args(option):
                return value
        elif origin is list:
            (kind,) = typing.get_args(option)
            if isinstance(value, list) and all(type(v) is kind for v in value):
                return value
        elif origin is dict:
            # values of the service's own parameters: text, numbers, true and false
            if isinstance(value, dict) and all(
                type(k) is str and isinstance(v, str | int | float) for k, v in value.items()
            ):
                return value
        elif option is float and not isinstance(value, bool):
            try:
                number = float(value)
            except (TypeError, ValueError, OverflowError):
                continue
            if not math.isnan(number):  # it would pass every comparison
                return number
        elif option is str and isinstance(value, datetime.date):
            return value.isoformat()  # YAML reads an unquoted 2026-01-01 as a date
        elif isinstance(option, type) and type(value) is option:
            return value
    wanted = " or ".join(
        ", ".join(map(repr, typing.get_args(o)))
        if typing.get_origin(o) is Literal
        else str(o if typing.get_args(o) else getattr(o, "__name__", o)).replace("NoneType", "null")
        for o in options
    )
    raise InputError(f"{where}: {key} is {value!r}; it must be {wanted}.")
