"""POST /v1/chat/completions and /chat/completions, as OpenAI's clients ask and read.

What a client may send and this server cannot do passes only at the value that asks for nothing.
Beyond OpenAI's: top_k, min_p, repetition_penalty, reasoning_language; reasoning of a reply stands
in `reasoning` (vLLM's name) and in `reasoning_content` (llama.cpp's). An answer that ended by the
server's deadline says `length`, and `"homeport": {"finish_reason": "deadline"}` beside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from serve.answer import Choice, Completion, Delta
from serve.dialects import openai_common as common
from serve.dialects.conversation import MESSAGES, TOOLS, read_messages, read_schema, read_tools
from serve.dialects.fields import (
    Field,
    Flag,
    Integer,
    Neutral,
    Special,
    Text,
    read_fields,
)
from serve.dialects.parsed import Head, Json
from serve.dialects.shared import REASONING, read_tokens, refuse_two_languages
from serve.dialects.strict_json import quoted, read_object, refuse
from serve.errors import RequestError
from serve.request import DEFAULT_MAX_NEW_TOKENS, MAX_LOGPROBS, GenerationRequest

BUDGETS = ("max_completion_tokens", "max_tokens")


def _messages(value: Any, where: str) -> Any:
    return read_messages(value, where, join_system=True)


def _tool_choice(value: Any, where: str) -> str:
    if value not in ("none", "auto"):
        refuse(where, f"{where} must be auto or none: this server cannot force a call.")
    return str(value)


def _response_format(value: Any, where: str) -> Mapping[str, Any] | None:
    """The JSON schema that the answer must keep to; None for text."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind not in ("text", "json_object", "json_schema"):
        refuse(where, f"{where}.type must be one of text, json_object, json_schema.")
    for name in value:
        if name != "type" and not (kind == "json_schema" and name == "json_schema"):
            refuse(
                f"{where}.{quoted(name)}", f"{where} of type {kind} has no such key; leave it out."
            )
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    shape = value.get("json_schema")
    if not isinstance(shape, dict) or not set(shape) <= {"name", "description", "schema", "strict"}:
        refuse(
            f"{where}.json_schema",
            f"{where}.json_schema must be an object with schema, and may have name, description "
            "and strict.",
        )
    return read_schema(shape.get("schema"), f"{where}.json_schema.schema")


FIELDS = {
    "messages": Field(
        Special(_messages, MESSAGES),
        "The conversation; its last message is the user's or a tool's. System text comes first.",
        required=True,
    ),
    **common.COMMON,
    "max_completion_tokens": Field(
        Integer(1),
        "Longest answer in tokens, reasoning included; up to the model's context.",
        str(DEFAULT_MAX_NEW_TOKENS),
    ),
    "max_tokens": Field(Integer(1), "The same under its older name."),
    **REASONING,
    "tools": Field(Special(read_tools, TOOLS), "Functions that the model may ask to be called."),
    "tool_choice": Field(
        Special(_tool_choice, {"type": "string", "enum": ["none", "auto"]}),
        "none hides the tools from the model.",
        "auto",
    ),
    "parallel_tool_calls": Field(
        Neutral((True,), "must be true: the model decides how many calls it makes."), "Only true."
    ),
    "response_format": Field(
        Special(
            _response_format,
            {
                "type": "object",
                "required": ["type"],
                "properties": {
                    "type": {"type": "string", "enum": ["text", "json_object", "json_schema"]},
                    "json_schema": {"type": "object"},
                },
                "additionalProperties": False,
            },
        ),
        "text, json_object, or json_schema with a schema that the answer keeps to.",
        "text",
    ),
    "logprobs": Field(Flag(), "Log probabilities of the answer's tokens.", "false"),
    "top_logprobs": Field(
        Integer(0, MAX_LOGPROBS), "And of this many likeliest tokens at each place.", "0"
    ),
    **common.UNREAD,
    "modalities": Field(Neutral((["text"],), 'must be ["text"].'), "Only text."),
    "verbosity": Field(Neutral(("medium",), "must be medium."), "Only medium."),
    "prompt_cache_key": Field(Text(empty=True), "Has no effect."),
    "safety_identifier": Field(Text(empty=True), "Has no effect."),
    **{
        name: Field(Neutral((), common.NOT_HERE), "Not possible; only null.")
        for name in (
            "audio",
            "moderation",
            "prediction",
            "prompt_cache_options",
            "prompt_cache_retention",
            "web_search_options",
        )
    },
    "functions": Field(Neutral(([],), "is deprecated; send tools."), "Send tools."),
    "function_call": Field(
        Neutral(("none", "auto"), "is deprecated; send tool_choice."), "Send tool_choice."
    ),
}


class Chat:
    """The dialect of both routes."""

    def parse(self, body: bytes, *, context: int) -> "ChatParsed":
        return read(read_object(body), context=context)

    def error_body(self, error: RequestError) -> Json:
        return common.error_body(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatParsed:
    """One request."""

    requests: tuple[GenerationRequest]
    batch: bool = False

    @property
    def stream(self) -> bool:
        return self.requests[0].stream

    def reply(self, answers: Sequence[Completion | RequestError]) -> Json:
        (answer,) = common.completions(answers)
        return {
            "id": answer.id,
            "object": "chat.completion",
            "created": answer.created,
            "model": answer.model,
            "system_fingerprint": None,
            "choices": [_whole(choice) for choice in answer.choices],
            "usage": common.usage(answer.prompt_tokens, answer.choices),
        }

    def events(self, head: Head) -> "ChatEvents":
        return ChatEvents(head=head, request=self.requests[0])


@dataclass(slots=True, kw_only=True)
class ChatEvents:
    """Chunks: the role first, then text, then finish_reason, then the usage if asked for."""

    head: Head
    request: GenerationRequest
    done: str | None = "[DONE]"
    ended: list[Choice] = field(default_factory=list)

    def begin(self) -> list[Json]:
        return [
            self._chunk(index, {"role": "assistant", "content": ""})
            for index in range(self.request.n)
        ]

    def delta(self, index: int, delta: Delta) -> list[Json]:
        if delta.kind == "output":
            return [self._chunk(index, {"content": delta.text})]
        if delta.kind == "reasoning":
            return [self._chunk(index, {"reasoning": delta.text, "reasoning_content": delta.text})]
        call: Json = {"index": delta.tool, "function": {"arguments": delta.text}}
        if delta.name is not None:
            call["id"] = f"call_{self.head.id}_{index}_{delta.tool}"
            call["type"] = "function"
            call["function"]["name"] = delta.name
        return [self._chunk(index, {"tool_calls": [call]})]

    def end(self, index: int, choice: Choice) -> list[Json]:
        """Log probabilities of all tokens come here: deltas are not cut by tokens."""
        self.ended.append(choice)
        chunk = self._chunk(index, {})
        chunk["choices"][0] |= common.finish(choice)
        chunk["choices"][0]["logprobs"] = common.chat_logprobs(choice.logprobs)
        return [chunk]

    def finish(self, prompt_tokens: int) -> list[Json]:
        if not self.request.stream_usage:
            return []
        last = self._chunk(0, {})
        return [last | {"choices": [], "usage": common.usage(prompt_tokens, self.ended)}]

    def error(self, error: RequestError) -> list[Json]:
        return [common.error_body(error)]

    def _chunk(self, index: int, delta: Json) -> Json:
        chunk: Json = {
            "id": self.head.id,
            "object": "chat.completion.chunk",
            "created": self.head.created,
            "model": self.head.model,
            "system_fingerprint": None,
            "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}],
        }
        return chunk | {"usage": None} if self.request.stream_usage else chunk


def read(given: Mapping[str, Any], *, context: int) -> ChatParsed:
    """One body, whichever route it came by."""
    fields = read_fields(given, FIELDS)
    if "messages" not in fields:
        refuse("messages", "messages must be a list of at least one message.")
    turns, system = fields["messages"]
    language = fields.get("reasoning_language")
    refuse_two_languages(language, system, "reasoning_language")
    tools = fields.get("tools", ()) if fields.get("tool_choice") != "none" else ()
    schema = fields.get("response_format")
    if tools and schema is not None:
        refuse("response_format", "response_format and tools exclude each other; send one of them.")
    request = GenerationRequest(
        messages=turns,
        system=system,
        reasoning_language=language,
        reasoning_effort=fields.get("reasoning_effort"),
        tools=tools,
        max_new_tokens=read_tokens(fields, BUDGETS, context),
        logprobs=_logprobs(fields),
        json_schema=schema,
        **common.sampling(fields),
    )
    return ChatParsed(requests=(request,))


def _logprobs(fields: Mapping[str, Any]) -> int | None:
    top: int = fields.get("top_logprobs", 0)
    if fields.get("logprobs"):
        return top
    if top:
        refuse("top_logprobs", "top_logprobs has no effect without logprobs: true.")
    return None


def _whole(choice: Choice) -> Json:
    message: Json = {
        "role": "assistant",
        "content": None if choice.tool_calls and not choice.output else choice.output,
        "reasoning": choice.reasoning,
        "reasoning_content": choice.reasoning,
        "refusal": None,
    }
    if choice.tool_calls:
        message["tool_calls"] = common.tool_calls(choice)
    return {
        "index": choice.index,
        "message": message,
        "logprobs": common.chat_logprobs(choice.logprobs),
        **common.finish(choice),
    }
