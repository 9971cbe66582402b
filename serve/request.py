"""Every request dialect → one GenerationRequest, or a RequestError that says why not.

    {"messages": [{"role": "user", "content": "…"}], "max_new_tokens": 64}
    {"prompt": "…", "reasoning_language": "Japanese"}

This is the one place that knows field names, ranges and defaults. A field that would be ignored is
refused: unknown names, doubled names, sampling parameters without sampling. It knows neither the
tokenizer nor the model's own defaults; prompt.py does. Content-Type plays no part.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, cast

from serve.errors import RequestError, did_you_mean

MAX_BODY_BYTES = 1024 * 1024
DEFAULT_MAX_NEW_TOKENS = 512
MIN_TEMPERATURE = 0.001
"""Below it, logits divided by the temperature overflow; for no randomness, do not sample."""
MIN_TOP_P = 1e-9
FIELDS = (
    "messages",
    "prompt",
    "system_prompt",
    "reasoning_language",
    "max_new_tokens",
    "do_sample",
    "temperature",
    "top_p",
)
ROLES = ("system", "developer", "user", "assistant")
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
SURROGATE = re.compile(r"[\ud800-\udfff]")
LANGUAGE_LINE = re.compile(r"(?im)^[ \t]*reasoning language:")

Role = Literal["user", "assistant"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of the conversation; system text is not among them."""

    role: Role
    content: str
    thinking: str | None = None
    """Reasoning of an assistant turn; the chat template decides whether later turns see it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What is asked for, whichever dialect asked."""

    messages: tuple[Message, ...]
    system: str | None
    """System text that the request names; "" asks for none at all, None leaves it to the model."""
    reasoning_language: str | None
    max_new_tokens: int | None
    """None is DEFAULT_MAX_NEW_TOKENS, or what the context has left where that is less."""
    do_sample: bool
    temperature: float | None
    top_p: float | None


def parse(body: bytes, *, max_new_tokens_limit: int) -> GenerationRequest:
    """Read a request body; RequestError carries 400 or 413, one sentence and the field at fault."""
    if len(body) > MAX_BODY_BYTES:
        raise too_large()
    fields = _object(body)
    for name in fields:
        if name not in FIELDS:
            name = _quoted(name)
            _refuse(name, f'"{name}" is not a known field{did_you_mean(name, FIELDS)}')
    fields = {name: value for name, value in fields.items() if value is not None}

    language = _language(fields.get("reasoning_language"))
    messages, system = _conversation(fields)
    if language is not None and system is not None and LANGUAGE_LINE.search(system):
        _refuse(
            "reasoning_language",
            "the system text already has a `reasoning language:` line; send one or the other.",
        )
    do_sample = fields.get("do_sample", False)
    if not isinstance(do_sample, bool):
        _refuse("do_sample", "do_sample must be true or false.")
    for name in ("temperature", "top_p"):
        if name in fields and not do_sample:
            _refuse(name, f"{name} has no effect without sampling: set do_sample to true.")
    return GenerationRequest(
        messages=messages,
        system=system,
        reasoning_language=language,
        max_new_tokens=_tokens(fields.get("max_new_tokens"), max_new_tokens_limit),
        do_sample=do_sample,
        temperature=_number(fields, "temperature", MIN_TEMPERATURE, math.inf),
        top_p=_number(fields, "top_p", MIN_TOP_P, 1.0),
    )


def too_large() -> RequestError:
    """The answer to a body over the limit, also where it was not read to its end."""
    return RequestError(413, f"the request body is over {MAX_BODY_BYTES} bytes; send less text.")


def _object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object, strictly: no doubled names, no NaN, nothing around it."""
    if not body.strip():
        _refuse(None, 'the request body is empty; send a JSON object such as {"prompt": "…"}.')
    try:
        text = body.decode("utf-8-sig")  # PowerShell writes the mark
    except UnicodeDecodeError as error:
        _refuse(None, f"the request body is not UTF-8 (byte {error.start}); encode it as UTF-8.")
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        _refuse(None, f"the request body is not JSON: {error.msg} at {where}.")
    except RecursionError:
        _refuse(None, "the request body is nested too deeply.")
    except ValueError:  # an integer of thousands of digits
        _refuse(None, "the request body holds a number with too many digits.")
    if isinstance(value, str):
        _refuse(None, "the request body is a JSON string; send the object itself, encoded once.")
    if not isinstance(value, dict):
        _refuse(None, "the request body must be a JSON object, in braces.")
    return cast(dict[str, Any], value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            _refuse(_quoted(name), f'"{_quoted(name)}" is given twice; give it once.')
        found[name] = value
    return found


def _no_constant(name: str) -> NoReturn:
    _refuse(None, f"{name} is not a number in JSON; send a finite number.")


def _conversation(fields: Mapping[str, Any]) -> tuple[tuple[Message, ...], str | None]:
    """The turns, and the system text that the request names by either way."""
    if ("prompt" in fields) == ("messages" in fields):
        _refuse("prompt", 'send either "prompt" or "messages", and not both.')
    if "prompt" in fields:
        turns: tuple[Message, ...] = (
            Message(role="user", content=_text(fields["prompt"], "prompt")),
        )
        system = None
    else:
        turns, system = _messages(fields["messages"])
    if "system_prompt" in fields:
        if system is not None:
            _refuse(
                "system_prompt",
                "system_prompt and a system message both name the system text; send one of them.",
            )
        system = _text(fields["system_prompt"], "system_prompt", empty=True)
    return turns, system


def _messages(value: Any) -> tuple[tuple[Message, ...], str | None]:
    if not isinstance(value, list) or not value:
        _refuse("messages", "messages must be a list of at least one message.")
    turns: list[Message] = []
    system: str | None = None
    for index, entry in enumerate(value):
        where = f"messages[{index}]"
        if not isinstance(entry, dict):
            _refuse(where, f"{where} must be an object with role and content.")
        role = entry.get("role")
        if role not in ROLES:
            _refuse(f"{where}.role", f"{where}.role must be one of {', '.join(ROLES)}.")
        allowed = ("role", "content", "thinking") if role == "assistant" else ("role", "content")
        for name in entry:
            if name not in allowed:
                name = _quoted(name)
                near = did_you_mean(name, allowed)
                _refuse(f"{where}.{name}", f'"{name}" is not known in a {role} message{near}')
        content = _text(entry.get("content"), f"{where}.content")
        if role in ("system", "developer"):
            if index > 0:
                _refuse(
                    f"{where}.role",
                    f"a {role} message can only come first, and once; put all such text there.",
                )
            system = content
            continue
        thinking = entry.get("thinking")
        if thinking is not None:
            thinking = _text(thinking, f"{where}.thinking")
        turns.append(Message(role=role, content=content, thinking=thinking))
    if not turns or turns[-1].role != "user":
        _refuse("messages", "the last message must be from the user.")
    return tuple(turns), system


def _text(value: Any, field: str, *, empty: bool = False) -> str:
    """A string the model can be shown."""
    if not isinstance(value, str) or not (empty or value.strip()):
        _refuse(field, f"{field} must be a string that is not empty.")
    if SURROGATE.search(value):
        _refuse(field, f"{field} holds half of a surrogate pair; send whole characters.")
    if found := CONTROL.search(value):
        _refuse(field, f"{field} holds the control character U+{ord(found[0]):04X}; remove it.")
    return value


def _language(value: Any) -> str | None:
    if value is None:
        return None
    language = _text(value, "reasoning_language").strip()
    if len(language) > 64 or len(language.splitlines()) != 1:
        _refuse("reasoning_language", "reasoning_language must be one line of up to 64 characters.")
    return language


def _tokens(value: Any, limit: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
        rule = f"a whole number from 1 to {limit}"
        _refuse("max_new_tokens", f"max_new_tokens must be {rule}.")
    return value


def _number(fields: Mapping[str, Any], name: str, low: float, high: float) -> float | None:
    """A finite number within the bounds, or None where it is not given."""
    if name not in fields:
        return None
    value = fields[name]
    try:
        right = type(value) in (int, float) and low <= float(value) <= high and value != math.inf
    except OverflowError:
        right = False
    if not right:
        rule = f"at least {low:g}" if high == math.inf else f"above 0 and up to {high:g}"
        _refuse(name, f"{name} must be a finite number {rule}.")
    return float(value)


def _quoted(name: str) -> str:
    """A field name out of the request, fit for an answer: short, and without half surrogates."""
    return name[:64].encode("utf-8", "replace").decode()


def _refuse(field: str | None, sentence: str) -> NoReturn:
    raise RequestError(400, sentence, field)
