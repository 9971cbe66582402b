"""POST /v1/completions and /completions: prompts that the model is shown as they stand.

Several prompts are several requests; choice i of request r is number r * n + i of the reply. The
prompt that `echo` gives back is put before the text here, not by whoever generates. Reasoning,
where the model marks it, stands in `reasoning` beside `text`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serve.answer import Choice, Completion, Delta
from serve.dialects import openai_common as common
from serve.dialects.fields import Field, Flag, Integer, Neutral, Special, Text, read_fields
from serve.dialects.parsed import Head, Json
from serve.dialects.shared import read_tokens
from serve.dialects.strict_json import read_object, refuse
from serve.errors import RequestError
from serve.request import MAX_CHOICES, MAX_LOGPROBS, GenerationRequest

DEFAULT_MAX_TOKENS = 16
"""OpenAI's."""
MAX_PROMPTS = 64
MAX_ID = 2**31 - 1

Prompt = str | tuple[int, ...]
_TEXT = Text().schema()
_IDS = {
    "type": "array",
    "minItems": 1,
    "items": {"type": "integer", "minimum": 0, "maximum": MAX_ID},
}


def _prompts(value: Any, where: str) -> tuple[Prompt, ...]:
    """A text, a list of texts, a list of token ids, or a list of such lists."""
    if isinstance(value, str):
        return (Text().read(value, where),)
    if not isinstance(value, list) or not value:
        refuse(where, f"{where} must be a string, a list of them, or lists of token ids.")
    if type(value[0]) is int:
        return (_ids(value, where),)
    if len(value) > MAX_PROMPTS:
        refuse(where, f"{where} may hold up to {MAX_PROMPTS} prompts; send several requests.")
    return tuple(
        _ids(entry, f"{where}[{index}]")
        if isinstance(entry, list)
        else Text().read(entry, f"{where}[{index}]")
        for index, entry in enumerate(value)
    )


def _ids(value: list[Any], where: str) -> tuple[int, ...]:
    if not value or not all(type(entry) is int and 0 <= entry <= MAX_ID for entry in value):
        refuse(where, f"{where} must be a list of token ids, which are whole numbers from 0.")
    return tuple(value)


FIELDS = {
    "prompt": Field(
        Special(
            _prompts,
            {
                "anyOf": [
                    _TEXT,
                    {"type": "array", "minItems": 1, "maxItems": MAX_PROMPTS, "items": _TEXT},
                    _IDS,
                    {"type": "array", "minItems": 1, "maxItems": MAX_PROMPTS, "items": _IDS},
                ]
            },
        ),
        f"A text, up to {MAX_PROMPTS} texts, token ids, or lists of token ids; no chat template.",
        required=True,
    ),
    **common.COMMON,
    "max_tokens": Field(
        Integer(1), "Longest answer in tokens; up to the model's context.", str(DEFAULT_MAX_TOKENS)
    ),
    "best_of": Field(Integer(1, MAX_CHOICES), "Only the same as n."),
    "echo": Field(Flag(), "Give the prompt, which must be text, back before the answer.", "false"),
    "logprobs": Field(
        Integer(0, MAX_LOGPROBS), "Log probabilities, and of this many likeliest tokens besides."
    ),
    **common.UNREAD,
    "suffix": Field(Neutral(("",), common.NOT_HERE), "Not possible; only empty."),
}


class Completions:
    """The dialect of both routes."""

    def parse(self, body: bytes, *, context: int) -> "CompletionsParsed":
        return read(read_object(body), context=context)

    def error_body(self, error: RequestError) -> Json:
        return common.error_body(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionsParsed:
    """One request per prompt, all alike otherwise."""

    requests: tuple[GenerationRequest, ...]
    batch: bool = False

    @property
    def stream(self) -> bool:
        return self.requests[0].stream

    def reply(self, answers: Sequence[Completion | RequestError]) -> Json:
        whole = common.completions(answers)
        pairs = [
            (request, choice)
            for request, answer in zip(self.requests, whole, strict=True)
            for choice in answer.choices
        ]
        return {
            "id": whole[0].id,
            "object": "text_completion",
            "created": whole[0].created,
            "model": whole[0].model,
            "system_fingerprint": None,
            "choices": [
                _choice(index, _echo(request) + choice.output, choice.reasoning) | _end(choice)
                for index, (request, choice) in enumerate(pairs)
            ],
            "usage": common.usage(
                sum(answer.prompt_tokens for answer in whole), [choice for _, choice in pairs]
            ),
        }

    def events(self, head: Head) -> "CompletionsEvents":
        return CompletionsEvents(head=head, requests=self.requests)


@dataclass(slots=True, kw_only=True)
class CompletionsEvents:
    """Chunks of text, then finish_reason, then the usage if asked for."""

    head: Head
    requests: tuple[GenerationRequest, ...]
    done: str | None = "[DONE]"
    ended: list[Choice] = field(default_factory=list)

    def begin(self) -> list[Json]:
        chunks = []
        for index, request in enumerate(self.requests):
            first = index * request.n
            for number in range(first, first + request.n) if request.echo else ():
                chunks.append(self._chunk(_choice(number, _echo(request), None)))
        return chunks

    def delta(self, index: int, delta: Delta) -> list[Json]:
        if delta.kind == "reasoning":
            return [self._chunk(_choice(index, "", delta.text))]
        return [self._chunk(_choice(index, delta.text, None))]

    def end(self, index: int, choice: Choice) -> list[Json]:
        self.ended.append(choice)
        return [self._chunk(_choice(index, "", None) | _end(choice))]

    def finish(self, prompt_tokens: int) -> list[Json]:
        if not self.requests[0].stream_usage:
            return []
        usage = common.usage(prompt_tokens, self.ended)
        return [self._chunk({}) | {"choices": [], "usage": usage}]

    def error(self, error: RequestError) -> list[Json]:
        return [common.error_body(error)]

    def _chunk(self, choice: Json) -> Json:
        chunk: Json = {
            "id": self.head.id,
            "object": "text_completion",
            "created": self.head.created,
            "model": self.head.model,
            "system_fingerprint": None,
            "choices": [choice],
        }
        return chunk | {"usage": None} if self.requests[0].stream_usage else chunk


def read(given: Mapping[str, Any], *, context: int) -> CompletionsParsed:
    """One body, whichever route it came by."""
    fields = read_fields(given, FIELDS)
    if "prompt" not in fields:
        refuse("prompt", "prompt must be a string, a list of them, or lists of token ids.")
    if fields.get("best_of", fields.get("n", 1)) != fields.get("n", 1):
        refuse("best_of", "best_of must be the same as n: all answers are given.")
    echo = fields.get("echo", False)
    if echo and "logprobs" in fields:
        refuse("echo", "echo and logprobs exclude each other: a prompt has none here.")
    same = common.sampling(fields)
    same["max_new_tokens"] = read_tokens(fields, ("max_tokens",), context) or DEFAULT_MAX_TOKENS
    same |= {"logprobs": fields.get("logprobs"), "echo": echo}
    requests = []
    for prompt in fields["prompt"]:
        if isinstance(prompt, str):
            requests.append(GenerationRequest(text=prompt, **same))
        elif echo:
            refuse("echo", "echo is possible only for a prompt that is text.")
        else:
            requests.append(GenerationRequest(ids=prompt, **same))
    return CompletionsParsed(requests=tuple(requests))


def _echo(request: GenerationRequest) -> str:
    return request.text or "" if request.echo else ""


def _choice(index: int, text: str, reasoning: str | None) -> Json:
    choice: Json = {"index": index, "text": text, "logprobs": None, "finish_reason": None}
    return choice if reasoning is None else choice | {"reasoning": reasoning}


def _end(choice: Choice) -> Json:
    return {**common.finish(choice), "logprobs": common.text_logprobs(choice.logprobs)}
