"""Chat completions: what OpenAI's clients send by default passes, what we cannot do does not."""

from typing import Any

import pytest

from serve.answer import Choice
from serve.dialects import ROUTES, Json, model_body, models_body
from serve.errors import RequestError
from serve.request import GenerationRequest, Message
from tests.serve.dialects.talk import (
    CONTEXT,
    HEAD,
    TOOL,
    USER,
    ask,
    choice,
    completion,
    only,
    refused,
    stream,
)

CHAT = "/v1/chat/completions"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def read(**more: Any) -> GenerationRequest:
    return only(ask(CHAT, {"model": "tiny", "messages": [USER], **more}))


def test_without_numbers_tokens_are_drawn_as_the_model_says() -> None:
    turns = (Message(role="user", content="hi"),)
    assert read() == GenerationRequest(messages=turns, model="tiny", do_sample=True)


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-7])
def test_temperature_0_is_greedy_whatever_else_is_said(temperature: float) -> None:
    asked = read(temperature=temperature, top_p=0.9, top_k=5, seed=1)
    assert asked == GenerationRequest(messages=asked.messages, model="tiny")


def test_every_field_arrives() -> None:
    asked = read(
        temperature=0.7,
        top_p=0.9,
        top_k=-1,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=-1,
        frequency_penalty=1,
        seed=3,
        stop="END",
        n=2,
        max_completion_tokens=9,
        logprobs=True,
        top_logprobs=4,
        tools=[TOOL],
        reasoning_effort="high",
        reasoning_language="French",
        stream=True,
        stream_options={"include_usage": True},
    )
    assert asked == GenerationRequest(
        messages=asked.messages,
        model="tiny",
        do_sample=True,
        temperature=0.7,
        top_p=0.9,
        top_k=0,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=-1.0,
        frequency_penalty=1.0,
        seed=3,
        stop=("END",),
        n=2,
        max_new_tokens=9,
        logprobs=4,
        tools=(TOOL,),
        reasoning_effort="high",
        reasoning_language="French",
        stream=True,
        stream_usage=True,
    )


def test_several_leading_system_messages_are_one_text() -> None:
    messages = [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, USER]
    assert only(ask(CHAT, {"messages": messages})).system == "a\n\nb"


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}, SCHEMA),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}},
            SCHEMA,
        ),
    ],
)
def test_a_response_format_is_a_schema(form: Json, schema: Json | None) -> None:
    assert read(response_format=form).json_schema == schema


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("logit_bias", {}),
        ("parallel_tool_calls", True),
        ("store", False),
        ("user", "me"),
        ("metadata", {"a": "b"}),
        ("service_tier", "auto"),
        ("modalities", ["text"]),
        ("verbosity", "medium"),
        ("tool_choice", "auto"),
        ("tool_choice", "none"),
        ("functions", []),
        ("safety_identifier", "me"),
        ("top_logprobs", 0),
        ("stream_options", None),
        ("prediction", None),
        ("max_tokens", None),
    ],
)
def test_a_value_that_asks_for_nothing_changes_nothing(name: str, value: Any) -> None:
    assert read(**{name: value}) == read()


def test_tool_choice_none_hides_the_tools() -> None:
    assert read(tools=[TOOL], tool_choice="none").tools == ()


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"messages": None}, "messages"),
        ({"model": 3}, "model"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"frequency_penalty": "1"}, "frequency_penalty"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"max_tokens": CONTEXT + 1}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"store": True}, "store"),
        ({"store": 0}, "store"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"prediction": {"type": "content"}}, "prediction"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"functions": [{"name": "add"}]}, "functions"),
        ({"function_call": {"name": "add"}}, "function_call"),
        ({"verbosity": "low"}, "verbosity"),
        ({"tool_choice": "required", "tools": [TOOL]}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "add"}}}, "tool_choice"),
        ({"reasoning_effort": "xhigh"}, "reasoning_effort"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stream": True, "stream_options": {"x": True}}, "stream_options.x"),
        ({"stream": True, "stream_options": 1}, "stream_options"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": ["text"]}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "text", "x": 1}}, "response_format.x"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        ({"response_format": {"type": "json_object"}, "tools": [TOOL]}, "response_format"),
        ({"max_new_tokens": 5}, "max_new_tokens"),
        ({"chat_template_kwargs": {}}, "chat_template_kwargs"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(more: Json, field: str) -> None:
    error = refused(CHAT, {"messages": [USER], **more})
    assert (error.status, error.field) == (400, field)


def test_a_whole_reply_is_a_chat_completion() -> None:
    one, other = choice(logprobs=True), choice(1, reasoning=None, finish_reason="deadline")
    said = ask(CHAT, {"messages": [USER], "n": 2}).reply([completion(one, other)])
    yes = {"token": "Yes", "logprob": -0.5, "bytes": [89, 101, 115]}
    no = {"token": "No", "logprob": -9999.0, "bytes": [78, 111]}
    message = {"role": "assistant", "content": "Yes.", "refusal": None}
    assert said == {
        "id": "r1",
        "object": "chat.completion",
        "created": 7,
        "model": "tiny",
        "system_fingerprint": None,
        "choices": [
            {
                "index": 0,
                "message": message | {"reasoning": "Hm.", "reasoning_content": "Hm."},
                "logprobs": {"content": [{**yes, "top_logprobs": [yes, no]}], "refusal": None},
                "finish_reason": "stop",
            },
            {
                "index": 1,
                "message": message | {"reasoning": None, "reasoning_content": None},
                "logprobs": None,
                "finish_reason": "length",
                "homeport": {"finish_reason": "deadline"},
            },
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 10,
            "total_tokens": 13,
            "completion_tokens_details": {"reasoning_tokens": 4},
        },
    }


def test_a_tool_call_is_the_reason_to_finish() -> None:
    said = ask(CHAT, {"messages": [USER], "tools": [TOOL]}).reply(
        [completion(choice(output="", calls=1))]
    )
    assert isinstance(said, dict)
    (one,) = said["choices"]
    assert one["finish_reason"] == "tool_calls"
    assert one["message"]["content"] is None
    assert one["message"]["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"a": 1}'}


def assembled(chunks: list[Json], n: int) -> list[Json]:
    """Choices as a client builds them from chunks."""
    messages: list[Json] = [{"content": "", "reasoning": None, "tool_calls": []} for _ in range(n)]
    ends: list[Json] = [{} for _ in range(n)]
    for chunk in chunks:
        for one in chunk["choices"]:
            message, delta = messages[one["index"]], one["delta"]
            message["content"] += delta.get("content", "")
            if "reasoning" in delta:
                assert delta["reasoning"] == delta["reasoning_content"]
                message["reasoning"] = (message["reasoning"] or "") + delta["reasoning"]
            for call in delta.get("tool_calls", []):
                if "id" in call:
                    message["tool_calls"].append({"id": call["id"], "arguments": ""})
                    message["tool_calls"][-1]["name"] = call["function"]["name"]
                message["tool_calls"][call["index"]]["arguments"] += call["function"]["arguments"]
            if one["finish_reason"]:
                ends[one["index"]] = {k: v for k, v in one.items() if k != "delta"}
    return [{**end, **message} for end, message in zip(ends, messages, strict=True)]


def flat(one: Json) -> Json:
    """A whole choice in the same shape."""
    message = one["message"]
    calls = [{"id": call["id"], **call["function"]} for call in message.get("tool_calls", [])]
    said = {"content": message["content"] or "", "reasoning": message["reasoning"]}
    return {k: v for k, v in one.items() if k != "message"} | said | {"tool_calls": calls}


@pytest.mark.parametrize(
    "choices",
    [
        [choice()],
        [choice(logprobs=True), choice(1, "No.", None, "deadline")],
        [choice(output="", calls=2)],
        [choice(output="", reasoning=None, finish_reason="length")],
    ],
)
@pytest.mark.parametrize("usage", [False, True])
def test_chunks_assembled_are_the_whole_reply(choices: list[Choice], usage: bool) -> None:
    body = {"messages": [USER], "n": len(choices), "stream": True}
    parsed = ask(CHAT, {**body, "stream_options": {"include_usage": usage}})
    whole = parsed.reply([completion(*choices)])
    assert isinstance(whole, dict)
    chunks = stream(parsed, [completion(*choices)])
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert assembled(chunks, len(choices)) == [flat(one) for one in whole["choices"]]
    if usage:
        last = chunks.pop()
        assert (last["choices"], last["usage"]) == ([], whole["usage"])
        assert all(chunk["usage"] is None for chunk in chunks)
    else:
        assert not any("usage" in chunk for chunk in chunks)
    assert parsed.events(HEAD).done == "[DONE]"


@pytest.mark.parametrize(
    ("error", "body"),
    [
        (
            RequestError(400, "no.", "n"),
            {"type": "invalid_request_error", "param": "n", "code": None, "status": 400},
        ),
        (
            RequestError(404, "no.", "model"),
            {"type": "not_found_error", "param": "model", "code": "model_not_found", "status": 404},
        ),
        (
            RequestError(429, "no.", retry_after=3),
            {"type": "rate_limit_error", "code": "rate_limit_exceeded", "status": 429}
            | {"param": None, "retry_after": 3},
        ),
        (
            RequestError(503, "no."),
            {"type": "server_error", "param": None, "code": None, "status": 503},
        ),
    ],
)
def test_errors_are_as_openai_says_them_with_status_and_retry(
    error: RequestError, body: Json
) -> None:
    said = {"error": {"message": "no.", **body}}
    assert ROUTES[CHAT].error_body(error) == said
    events = ask(CHAT, {"messages": [USER], "stream": True}).events(HEAD)
    assert events.error(error) == [said]


def test_models_are_listed_with_their_context() -> None:
    listed = models_body(["tiny", "pirate"], created=7, context=4096)
    assert [entry["id"] for entry in listed["data"]] == ["tiny", "pirate"]
    assert listed["data"][1] == model_body("pirate", created=7, context=4096)
    assert listed["data"][0]["max_model_len"] == 4096
