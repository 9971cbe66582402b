"""`messages` and `tools` of a request → turns, system text and functions.

Content is a string or a list of text parts; pictures and sound are refused. Reasoning of earlier
assistant turns goes by the names that clients know. A tool turn must answer a call before it.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from serve.dialects.fields import Flag, Schema, Text
from serve.dialects.strict_json import quoted, refuse
from serve.errors import did_you_mean
from serve.request import Called, Message

SYSTEM = ("system", "developer")
ROLES = (*SYSTEM, "user", "assistant", "tool")
THINKING = ("thinking", "reasoning", "reasoning_content")
NOTHING = ("refusal", "audio", "function_call", "annotations", "name")
"""Keys that clients send back with an assistant turn; only empty, for we cannot show them."""
ALLOWED = {
    "system": ("role", "content", "name"),
    "developer": ("role", "content", "name"),
    "user": ("role", "content", "name"),
    "assistant": ("role", "content", "tool_calls", *THINKING, *NOTHING),
    "tool": ("role", "content", "tool_call_id", "name"),
}
FUNCTION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
MAX_TOOLS = 128
MAX_DEPTH = 32

_TEXT = Text(empty=True).schema()
_PART: Schema = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"type": "string", "enum": ["text"]}, "text": _TEXT},
    "additionalProperties": False,
}
_CALL: Schema = {
    "type": "object",
    "required": ["id", "function"],
    "properties": {
        "id": {"type": "string"},
        "type": {"type": "string", "enum": ["function"]},
        "function": {
            "type": "object",
            "required": ["name", "arguments"],
            "properties": {"name": {"type": "string"}, "arguments": {"type": "string"}},
            "additionalProperties": False,
        },
    },
}
MESSAGES: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {"type": "string", "enum": list(ROLES)},
            "content": {
                "anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": _PART}],
                "nullable": True,
            },
            **{name: {**_TEXT, "nullable": True} for name in THINKING},
            "tool_calls": {"type": "array", "items": _CALL, "nullable": True},
            "tool_call_id": {"type": "string"},
            "name": {"type": "string", "nullable": True},
            **{name: {"nullable": True} for name in NOTHING if name != "name"},
        },
        "additionalProperties": False,
    },
}
TOOLS: Schema = {
    "type": "array",
    "maxItems": MAX_TOOLS,
    "items": {
        "type": "object",
        "required": ["type", "function"],
        "properties": {
            "type": {"type": "string", "enum": ["function"]},
            "function": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": {"type": "string", "pattern": f"^{FUNCTION_NAME.pattern}$"},
                    "description": {**_TEXT, "nullable": True},
                    "parameters": {"type": "object", "nullable": True},
                    "strict": {"enum": [False, None], "nullable": True},
                },
                "additionalProperties": False,
            },
        },
        "additionalProperties": False,
    },
}


def read_messages(
    value: Any, where: str = "messages", *, join_system: bool = False
) -> tuple[tuple[Message, ...], str | None]:
    """The turns and the system text; with join_system, several system messages may lead."""
    if not isinstance(value, list) or not value:
        refuse(where, f"{where} must be a list of at least one message.")
    turns: list[Message] = []
    system: list[str] = []
    functions: dict[str, str] = {}
    for index, entry in enumerate(value):
        at = f"{where}[{index}]"
        if not isinstance(entry, dict):
            refuse(at, f"{at} must be an object with role and content.")
        role = _role(entry, at)
        if role in SYSTEM:
            if turns or (system and not join_system):
                refuse(
                    f"{at}.role",
                    f"a {role} message can only come first, and once; put all such text there.",
                )
            system.append(_content(entry, at))
            continue
        turn = _turn(role, entry, at, functions)
        functions |= {call.id: call.name for call in turn.tool_calls}
        turns.append(turn)
    if not turns or turns[-1].role == "assistant":
        refuse(where, "the last message must be from the user, or a tool's result.")
    return tuple(turns), "\n\n".join(system) if system else None


def _role(entry: Mapping[str, Any], at: str) -> str:
    role = entry.get("role")
    if role not in ROLES:
        refuse(f"{at}.role", f"{at}.role must be one of {', '.join(ROLES)}.")
    for name, value in entry.items():
        if name not in ALLOWED[role]:
            name = quoted(name)
            near = did_you_mean(name, ALLOWED[role])
            refuse(f"{at}.{name}", f'"{name}" is not known in a {role} message{near}')
        if name in NOTHING and role != "tool" and value not in (None, []):
            refuse(
                f"{at}.{name}",
                f"{at}.{name} would not be shown to the model; put it into the content.",
            )
    return str(role)


def _turn(role: str, entry: Mapping[str, Any], at: str, functions: Mapping[str, str]) -> Message:
    if role == "user":
        return Message(role="user", content=_content(entry, at))
    if role == "assistant":
        calls = _calls(entry.get("tool_calls"), f"{at}.tool_calls")
        content = _content(entry, at, empty=bool(calls))
        return Message(
            role="assistant", content=content, thinking=_thinking(entry, at), tool_calls=calls
        )
    number = entry.get("tool_call_id")
    if not isinstance(number, str) or number not in functions:
        refuse(
            f"{at}.tool_call_id",
            f"{at}.tool_call_id must be the id of a tool call in an assistant message before it.",
        )
    if entry.get("name") not in (None, functions[number]):
        refuse(f"{at}.name", f"{at}.name is not the function that this call named.")
    content = _content(entry, at, empty=True)
    return Message(role="tool", content=content, name=functions[number], tool_call_id=number)


def _content(entry: Mapping[str, Any], at: str, *, empty: bool = False) -> str:
    """A string, or the text parts of a list joined by line ends."""
    value, at = entry.get("content"), f"{at}.content"
    if not isinstance(value, list):
        if value is None and empty:
            return ""
        return Text(empty).read(value, at)
    texts: list[str] = []
    for index, part in enumerate(value):
        here = f"{at}[{index}]"
        if not isinstance(part, dict):
            refuse(here, f'{here} must be an object such as {{"type": "text", "text": "…"}}.')
        if part.get("type") != "text":
            refuse(f"{here}.type", f"{here}.type must be text: this server reads nothing else.")
        for name in part:
            if name not in ("type", "text"):
                name = quoted(name)
                refuse(f"{here}.{name}", f'"{name}" is not known in a text part; leave it out.')
        texts.append(Text(empty=True).read(part.get("text"), f"{here}.text"))
    return Text(empty).read("\n".join(texts), at)


def _thinking(entry: Mapping[str, Any], at: str) -> str | None:
    """Its names are the seed's, vLLM's and llama.cpp's; replies carry two of them."""
    found = {name: entry[name] for name in THINKING if entry.get(name) not in (None, "")}
    for name, value in found.items():
        Text().read(value, f"{at}.{name}")
    if len(set(found.values())) > 1:
        refuse(f"{at}.{list(found)[-1]}", f"{at} has {' and '.join(found)}; send one of them.")
    return next(iter(found.values()), None)


def _calls(value: Any, at: str) -> tuple[Called, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        refuse(at, f"{at} must be a list of tool calls.")
    calls = []
    for index, entry in enumerate(value):
        here = f"{at}[{index}]"
        function = entry.get("function") if isinstance(entry, dict) else None
        if not isinstance(function, dict) or entry.get("type", "function") != "function":
            refuse(here, f"{here} must be an object with id, type function, and function.")
        for name in (*(set(entry) - {"id", "type", "function", "index"}),):
            refuse(f"{here}.{quoted(name)}", f"{here}.{quoted(name)} is not known; leave it out.")
        for name in (*(set(function) - {"name", "arguments"}),):
            refuse(f"{here}.function.{quoted(name)}", f"{here}.function has name and arguments.")
        calls.append(
            Called(
                id=Text().read(entry.get("id"), f"{here}.id"),
                name=_function_name(function.get("name"), f"{here}.function.name"),
                arguments=_arguments(function.get("arguments"), f"{here}.function.arguments"),
            )
        )
    return tuple(calls)


def _arguments(value: Any, at: str) -> str:
    text = Text(empty=True).read(value, at)
    try:
        right = isinstance(json.loads(text or "{}"), dict)
    except (ValueError, RecursionError):
        right = False
    if not right:
        refuse(at, f"{at} must be the JSON text of an object.")
    return text or "{}"


def _function_name(value: Any, at: str) -> str:
    if not isinstance(value, str) or not FUNCTION_NAME.fullmatch(value):
        refuse(at, f"{at} must be 1 to 64 letters, digits, underscores or dashes.")
    return value


def read_tools(value: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    """Functions in OpenAI's form."""
    if not isinstance(value, list) or len(value) > MAX_TOOLS:
        refuse(where, f"{where} must be a list of up to {MAX_TOOLS} functions.")
    names: set[str] = set()
    tools = []
    for index, entry in enumerate(value):
        at = f"{where}[{index}]"
        function = entry.get("function") if isinstance(entry, dict) else None
        if not isinstance(function, dict) or entry.get("type") != "function" or len(entry) != 2:
            refuse(at, f"{at} must be an object with type, which is function, and function.")
        tool = _function(function, f"{at}.function")
        if tool["name"] in names:
            refuse(f"{at}.function.name", f'two tools have the name "{tool["name"]}"; rename one.')
        names.add(tool["name"])
        tools.append({"type": "function", "function": tool})
    return tuple(tools)


def _function(given: Mapping[str, Any], at: str) -> dict[str, Any]:
    known = ("name", "description", "parameters", "strict")
    for name in given:
        if name not in known:
            name = quoted(name)
            refuse(
                f"{at}.{name}", f'"{name}" is not known in a function{did_you_mean(name, known)}'
            )
    if given.get("strict") is not None and Flag().read(given["strict"], f"{at}.strict"):
        refuse(f"{at}.strict", f"{at}.strict is not possible: arguments are not constrained.")
    tool: dict[str, Any] = {"name": _function_name(given.get("name"), f"{at}.name")}
    if given.get("description") is not None:
        tool["description"] = Text(empty=True).read(given["description"], f"{at}.description")
    if given.get("parameters") is not None:
        tool["parameters"] = read_schema(given["parameters"], f"{at}.parameters")
    return tool


def read_schema(value: Any, where: str) -> Mapping[str, Any]:
    """A JSON schema: an object whose text can be shown; what it means is the engine's to judge."""
    if not isinstance(value, dict):
        refuse(where, f"{where} must be a JSON schema, which is an object.")
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for entry in level:
            if isinstance(entry, str):
                Text(empty=True).read(entry, where)
            elif isinstance(entry, dict):
                below += [*entry.keys(), *entry.values()]
            elif isinstance(entry, list):
                below += entry
        level = below
    if level:
        refuse(where, f"{where} is nested deeper than {MAX_DEPTH}; make it flatter.")
    return value
