"""/score: the server's own form, batches of it, and which bodies are of another form."""

from typing import Any

import pytest

from serve.answer import Choice
from serve.errors import RequestError
from serve.request import GenerationRequest, Message
from tests.serve.dialects.talk import (
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

SCORE = "/score"
WHOLE = {
    "output": "Yes.",
    "reasoning": "Hm.",
    "finish_reason": "stop",
    "usage": {"prompt_tokens": 3, "completion_tokens": 5},
}


def test_a_prompt_is_one_user_message_with_the_defaults() -> None:
    asked = only(ask(SCORE, {"prompt": "hi"}))
    assert asked == GenerationRequest(messages=(Message(role="user", content="hi"),))


def test_every_field_arrives() -> None:
    asked = only(
        ask(
            SCORE,
            {
                "messages": [
                    {"role": "system", "content": "Be brief."},
                    USER,
                    {"role": "assistant", "content": "yes", "thinking": "greeting"},
                    USER,
                ],
                "reasoning_language": " Japanese ",
                "reasoning_effort": "low",
                "tools": [TOOL],
                "max_new_tokens": 7,
                "do_sample": True,
                "temperature": 0.5,
                "top_p": 1,
                "top_k": 40,
                "min_p": 0.1,
                "repetition_penalty": 1.1,
                "seed": 3,
                "stop": ["\n\n", "END"],
                "stream": True,
            },
        )
    )
    turns = (
        Message(role="user", content="hi"),
        Message(role="assistant", content="yes", thinking="greeting"),
        Message(role="user", content="hi"),
    )
    assert asked == GenerationRequest(
        messages=turns,
        system="Be brief.",
        reasoning_language="Japanese",
        reasoning_effort="low",
        tools=(TOOL,),
        max_new_tokens=7,
        do_sample=True,
        temperature=0.5,
        top_p=1.0,
        top_k=40,
        min_p=0.1,
        repetition_penalty=1.1,
        seed=3,
        stop=("\n\n", "END"),
        stream=True,
    )


def test_an_empty_system_prompt_asks_for_no_system_text_and_null_is_not_given() -> None:
    assert only(ask(SCORE, {"prompt": "hi", "system_prompt": ""})).system == ""
    body = {"prompt": "hi", "system_prompt": None, "temperature": None, "stop": None}
    assert only(ask(SCORE, body)) == only(ask(SCORE, {"prompt": "hi"}))


def test_one_stop_is_a_string_or_a_list() -> None:
    assert only(ask(SCORE, {"prompt": "hi", "stop": "\n"})).stop == ("\n",)
    assert only(ask(SCORE, {"prompt": "hi", "stop": []})).stop == ()


@pytest.mark.parametrize(
    ("name", "near"),
    [("max_tokens", "max_new_tokens"), ("temprature", "temperature"), ("message", "messages")],
)
def test_an_unknown_field_is_refused_with_the_nearest_name(name: str, near: str) -> None:
    error = refused(SCORE, {"prompt": "hi", name: 1})
    assert error.field == name
    assert f'did you mean "{near}"?' in error.sentence


def test_an_unknown_field_far_from_all_lists_the_known_ones() -> None:
    assert "known are do_sample" in refused(SCORE, {"prompt": "hi", "zzzz": 1}).sentence


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 101}, "max_new_tokens"),
        ({"max_new_tokens": True}, "max_new_tokens"),
        ({"max_new_tokens": 2.5}, "max_new_tokens"),
        ({"max_new_tokens": "5"}, "max_new_tokens"),
        ({"do_sample": "false"}, "do_sample"),
        ({"do_sample": 1}, "do_sample"),
        ({"do_sample": True, "temperature": 0}, "temperature"),
        ({"do_sample": True, "temperature": -1}, "temperature"),
        ({"do_sample": True, "temperature": 1e-30}, "temperature"),
        ({"do_sample": True, "temperature": 10**400}, "temperature"),
        ({"do_sample": True, "temperature": True}, "temperature"),
        ({"do_sample": True, "top_p": 0}, "top_p"),
        ({"do_sample": True, "top_p": 1.01}, "top_p"),
        ({"do_sample": True, "top_k": -1}, "top_k"),
        ({"do_sample": True, "min_p": 1.5}, "min_p"),
        ({"do_sample": True, "seed": -1}, "seed"),
        ({"do_sample": True, "seed": 2**53}, "seed"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"reasoning_language": ""}, "reasoning_language"),
        ({"reasoning_language": "a\nb"}, "reasoning_language"),
        ({"reasoning_language": "a" * 65}, "reasoning_language"),
        ({"reasoning_language": 3}, "reasoning_language"),
        ({"reasoning_effort": "extreme"}, "reasoning_effort"),
        ({"system_prompt": 3}, "system_prompt"),
        ({"system_prompt": "a\x00"}, "system_prompt"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", ""]}, "stop[1]"),
        ({"stop": ["a", 3]}, "stop[1]"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": 3}, "stop"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_a_value_out_of_range_names_its_field(more: dict[str, Any], field: str) -> None:
    error = refused(SCORE, {"prompt": "hi", **more})
    assert (error.status, error.field) == (400, field)
    assert field in error.sentence


@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k", "min_p", "seed"])
def test_a_sampling_number_without_sampling_is_refused_not_ignored(name: str) -> None:
    error = refused(SCORE, {"prompt": "hi", name: 1})
    assert error.field == name
    assert "set do_sample to true" in error.sentence


def test_prompt_and_messages_at_once_and_neither_are_refused() -> None:
    assert "either" in refused(SCORE, {"prompt": "hi", "messages": [USER]}).sentence
    assert "either" in refused(SCORE, {}).sentence


def test_system_text_by_two_ways_is_refused() -> None:
    messages = [{"role": "system", "content": "x"}, USER]
    assert refused(SCORE, {"messages": messages, "system_prompt": "y"}).field == "system_prompt"


def test_a_second_system_message_is_refused() -> None:
    first = {"role": "system", "content": "x"}
    messages = [first, {"role": "developer", "content": "y"}, USER]
    assert refused(SCORE, {"messages": messages}).field == "messages[1].role"


def test_a_reasoning_language_beside_such_a_line_is_refused() -> None:
    line = "Be kind.\nReasoning Language: German"
    messages = [{"role": "system", "content": line}, USER]
    language = {"reasoning_language": "Japanese"}
    for body in ({"messages": messages}, {"prompt": "x", "system_prompt": line}):
        assert refused(SCORE, {**body, **language}).field == "reasoning_language"
        assert only(ask(SCORE, body)).system == line


@pytest.mark.parametrize(
    "more",
    [
        {"model": "tiny"},
        {"max_tokens": 5},
        {"max_completion_tokens": 5},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"n": 2},
        {"response_format": {"type": "text"}},
    ],
)
def test_messages_with_a_field_of_chat_completions_are_answered_as_those(more: Any) -> None:
    parsed = ask(SCORE, {"messages": [USER], **more})
    body = parsed.reply([completion(choice())])
    assert isinstance(body, dict)
    assert body["object"] == "chat.completion"


def test_messages_with_fields_of_both_forms_are_refused() -> None:
    error = refused(SCORE, {"messages": [USER], "model": "tiny", "max_new_tokens": 5})
    assert error.field == "max_new_tokens"
    assert "did you mean" in error.sentence


def test_the_answer_is_as_it_always_was() -> None:
    assert ask(SCORE, {"prompt": "hi"}).reply([completion(choice())]) == WHOLE


def test_tool_calls_are_there_only_when_tools_were_given() -> None:
    body = {"prompt": "hi", "tools": [TOOL]}
    said = ask(SCORE, body).reply([completion(choice(calls=1))])
    assert isinstance(said, dict)
    function = {"name": "add", "arguments": '{"a": 1}'}
    assert said["tool_calls"] == [{"id": "call_r1_0_0", "type": "function", "function": function}]
    assert ask(SCORE, body).reply([completion(choice())]) == {**WHOLE, "tool_calls": []}


@pytest.mark.parametrize(
    "one",
    [
        choice(),
        choice(reasoning=None),
        choice(output="", finish_reason="deadline"),
        choice(calls=2),
    ],
)
def test_events_assembled_are_the_whole_answer(one: Choice) -> None:
    parsed = ask(SCORE, {"prompt": "hi", "tools": [TOOL], "stream": True})
    assert parsed.stream
    *pieces, last = stream(parsed, [completion(one)])
    texts: dict[str, Any] = {"output": "", "reasoning": None}
    for piece in pieces:
        ((name, text),) = piece.items()
        texts[name] = (texts[name] or "") + text
    assert {**texts, **last} == parsed.reply([completion(one)])
    assert parsed.events(HEAD).done is None


def test_an_error_within_a_stream_is_an_event() -> None:
    events = ask(SCORE, {"prompt": "hi", "stream": True}).events(HEAD)
    assert events.error(RequestError(503, "it stopped.")) == [
        {"error": {"code": 503, "message": "it stopped."}}
    ]


def test_a_batch_is_answered_in_order_and_an_item_that_is_refused_stops_no_other() -> None:
    parsed = ask(SCORE, [{"prompt": "a"}, {"prompt": 3}, 4, {"prompt": "b", "stream": True}])
    assert (parsed.batch, parsed.stream) == (True, False)
    fields = [r.field if isinstance(r, RequestError) else r for r in parsed.requests]
    assert fields[1:] == ["prompt", None, "stream"]
    late = RequestError(503, "it stopped.", retry_after=2)
    refusals = [r for r in parsed.requests if isinstance(r, RequestError)]
    said = parsed.reply([completion(choice()), *refusals[:-1], late])
    assert isinstance(said, list)
    assert said[0] == WHOLE
    assert [answer.get("error", {}).get("code") for answer in said] == [None, 400, 400, 503]


@pytest.mark.parametrize("items", [[], [{"prompt": "a"}] * 65])
def test_a_batch_of_none_or_too_many_is_refused(items: list[Any]) -> None:
    assert "1 to 64" in refused(SCORE, items).sentence
