"""What OpenAI's two forms share: fields, errors, usage, logprobs, and the list of models."""

from collections.abc import Mapping, Sequence
from typing import Any

from serve.answer import Choice, Completion, TokenLogprob
from serve.dialects.fields import Field, Flag, Integer, Labels, Neutral, Number, Special, Text
from serve.dialects.parsed import Json
from serve.dialects.shared import DRAWING, MAX_TOP_K, REPETITION, STOP
from serve.dialects.strict_json import quoted, refuse
from serve.errors import RequestError
from serve.request import MAX_CHOICES, MIN_TEMPERATURE

LOWEST_LOGPROB = -9999.0
"""JSON has no minus infinity; OpenAI says it so."""
NOT_HERE = "is not possible on this server; leave it out."


def read_stream_options(value: Any, where: str) -> bool:
    """Whether a last event with the token counts is wanted."""
    if not isinstance(value, dict):
        refuse(where, f'{where} must be an object such as {{"include_usage": true}}.')
    for name, entry in value.items():
        if name == "include_usage":
            if entry is not None:
                Flag().read(entry, f"{where}.{name}")
        elif entry not in (None, False):
            refuse(f"{where}.{quoted(name)}", f"{where} may have include_usage only.")
    return bool(value.get("include_usage"))


COMMON = {
    "model": Field(Text(), "The served model's name, or an adapter's.", "the served model"),
    "temperature": Field(
        Number(0, 2), "How evenly tokens are drawn; 0 takes the likeliest.", "the model's"
    ),
    **DRAWING,
    "top_k": Field(
        Integer(-1, MAX_TOP_K),
        "Draw from this many likeliest tokens; 0 and -1 are off.",
        "the model's",
    ),
    **REPETITION,
    "presence_penalty": Field(Number(-2, 2), "Above 0, tokens that were there come less.", "0"),
    "frequency_penalty": Field(Number(-2, 2), "The same, by how often they were there.", "0"),
    **STOP,
    "n": Field(Integer(1, MAX_CHOICES), "How many answers.", "1"),
    "stream": Field(Flag(), "Answer by events, while the text is generated.", "false"),
    "stream_options": Field(
        Special(
            read_stream_options,
            {
                "type": "object",
                "properties": {
                    "include_usage": {"type": "boolean", "nullable": True},
                    "include_obfuscation": {"enum": [False, None], "nullable": True},
                },
            },
        ),
        "With include_usage, a last event has the token counts.",
    ),
    "user": Field(Text(empty=True), "Whoever asks; has no effect."),
    "logit_bias": Field(Neutral(({},), NOT_HERE), "Not possible; only empty."),
}
"""Fields of both forms. `best_of`, `echo` and the chat's own are where they are used."""
UNREAD = {
    "metadata": Field(Labels(), "Labels for whoever asks; have no effect."),
    "store": Field(Neutral((False,), "must be false: nothing is stored."), "Only false."),
    "service_tier": Field(
        Neutral(("auto", "default"), "must be auto: there is one tier."), "Only auto."
    ),
}


def sampling(fields: Mapping[str, Any]) -> Json:
    """GenerationRequest's part that both forms name alike.

    As with OpenAI, tokens are drawn unless temperature is 0, whose limit the likeliest token is
    whatever top_p, top_k and min_p say; absent numbers are the model's own.
    """
    if "stream_options" in fields and not fields.get("stream"):
        refuse("stream_options", "stream_options has no effect without stream: true.")
    drawn = fields.get("temperature", 1.0) >= MIN_TEMPERATURE
    names = [*REPETITION, "presence_penalty", "frequency_penalty", "stop", "n", "model", "stream"]
    names += ["temperature", *DRAWING] if drawn else []
    found = {name: fields[name] for name in names if name in fields}
    if "top_k" in found:
        found["top_k"] = max(found["top_k"], 0)
    return {**found, "do_sample": drawn, "stream_usage": fields.get("stream_options", False)}


def error_body(error: RequestError) -> Json:
    """OpenAI's error, with status and Retry-After in it: Azure's front end replaces both."""
    kinds = {404: "not_found_error", 408: "timeout_error", 429: "rate_limit_error"}
    kind = kinds.get(error.status, "server_error" if error.status >= 500 else None)
    unknown_model = error.status == 404 and error.field == "model"
    codes = {429: "rate_limit_exceeded", 404: "model_not_found" if unknown_model else None}
    body: Json = {
        "message": error.sentence,
        "type": kind or "invalid_request_error",
        "param": error.field,
        "code": codes.get(error.status),
        "status": error.status,
    }
    if error.retry_after is not None:
        body["retry_after"] = error.retry_after
    return {"error": body}


def finish(choice: Choice) -> Json:
    """finish_reason in OpenAI's words, and ours beside where they have none for it."""
    reason = choice.finish_reason
    if reason == "stop" and choice.tool_calls:
        return {"finish_reason": "tool_calls"}
    if reason in ("stop", "length"):
        return {"finish_reason": reason}
    return {"finish_reason": "length", "homeport": {"finish_reason": reason}}


def tool_calls(choice: Choice) -> list[Json]:
    """Whole tool calls, as they also come back in a later conversation."""
    return [
        {
            "id": call.id,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for call in choice.tool_calls
    ]


def usage(prompt_tokens: int, choices: Sequence[Choice]) -> Json:
    """Token counts; reasoning is part of the completion."""
    completion = sum(choice.completion_tokens for choice in choices)
    reasoning = sum(choice.reasoning_tokens for choice in choices)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": prompt_tokens + completion,
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def completions(answers: Sequence[Completion | RequestError]) -> list[Completion]:
    """All answers; neither form has a place for an error beside answers."""
    for answer in answers:
        if isinstance(answer, RequestError):
            raise answer
    return [answer for answer in answers if isinstance(answer, Completion)]


def chat_logprobs(tokens: Sequence[TokenLogprob] | None) -> Json | None:
    """As choices of chat completions show them."""
    if tokens is None:
        return None
    content = [
        {
            **_token(token.token, token.value.logprob),
            "top_logprobs": [_token(text, number) for text, number in token.top],
        }
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def text_logprobs(tokens: Sequence[TokenLogprob] | None) -> Json | None:
    """As choices of completions show them."""
    if tokens is None:
        return None
    offsets, here = [], 0
    for token in tokens:
        offsets.append(here)
        here += len(token.token)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [_finite(token.value.logprob) for token in tokens],
        "top_logprobs": [{t: _finite(number) for t, number in token.top} for token in tokens],
        "text_offset": offsets,
    }


def _token(text: str, number: float) -> Json:
    whole = "\ufffd" not in text  # else a part of a character, whose bytes are not known here
    return {
        "token": text,
        "logprob": _finite(number),
        "bytes": list(text.encode()) if whole else None,
    }


def _finite(number: float) -> float:
    return max(number, LOWEST_LOGPROB)


def models_body(names: Sequence[str], *, created: int, context: int) -> Json:
    """GET /v1/models."""
    data = [model_body(name, created=created, context=context) for name in names]
    return {"object": "list", "data": data}


def model_body(name: str, *, created: int, context: int) -> Json:
    """GET /v1/models/{name}, for a name that is served."""
    return {
        "id": name,
        "object": "model",
        "created": created,
        "owned_by": "homeport",
        "max_model_len": context,
    }
