"""Request dialects: what is understood, what is refused and in which words."""

import json
from typing import Any

import pytest

from serve.errors import RequestError
from serve.request import MAX_BODY_BYTES, GenerationRequest, Message, parse

USER = {"role": "user", "content": "hi"}


def read(body: Any) -> GenerationRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return parse(raw, max_new_tokens_limit=100)


def refused(body: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read(body)
    assert caught.value.sentence.count("\n") == 0
    json.dumps(caught.value.body()).encode()  # must always be sendable
    return caught.value


def test_a_prompt_is_one_user_message_with_the_defaults() -> None:
    assert read({"prompt": "hi"}) == GenerationRequest(
        messages=(Message(role="user", content="hi"),),
        system=None,
        reasoning_language=None,
        max_new_tokens=None,
        do_sample=False,
        temperature=None,
        top_p=None,
    )


def test_every_field_of_the_messages_dialect_arrives() -> None:
    asked = read(
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                USER,
                {"role": "assistant", "content": "yes", "thinking": "greeting"},
                USER,
            ],
            "reasoning_language": " Japanese ",
            "max_new_tokens": 7,
            "do_sample": True,
            "temperature": 0.5,
            "top_p": 1,
        }
    )
    assert asked.system == "Be brief."
    assert asked.reasoning_language == "Japanese"
    assert [m.role for m in asked.messages] == ["user", "assistant", "user"]
    assert asked.messages[1].thinking == "greeting"
    assert (asked.max_new_tokens, asked.do_sample) == (7, True)
    assert (asked.temperature, asked.top_p) == (0.5, 1.0)


def test_a_developer_message_is_the_system_text() -> None:
    assert read({"messages": [{"role": "developer", "content": "x"}, USER]}).system == "x"


def test_an_empty_system_prompt_asks_for_no_system_text_and_null_is_not_given() -> None:
    assert read({"prompt": "hi", "system_prompt": ""}).system == ""
    assert read({"prompt": "hi", "system_prompt": None, "temperature": None}).system is None


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert read(b'\xef\xbb\xbf{"prompt": "hi"}').messages[0].content == "hi"


@pytest.mark.parametrize(
    ("name", "near"),
    [("max_tokens", "max_new_tokens"), ("temprature", "temperature"), ("message", "messages")],
)
def test_an_unknown_field_is_refused_with_the_nearest_name(name: str, near: str) -> None:
    error = refused({"prompt": "hi", name: 1})
    assert error.field == name
    assert f'did you mean "{near}"?' in error.sentence


def test_an_unknown_field_far_from_all_lists_the_known_ones() -> None:
    assert "known are do_sample" in refused({"prompt": "hi", "zzzz": 1}).sentence


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"{\n  'prompt': 1}", "line 2 column 3"),
        (b"prompt=hi", "line 1 column 1"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[1]", "JSON object"),
        (b'"{\\"prompt\\": 1}"', "encoded once"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"prompt": "hi", "temperature": ' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"prompt": "hi", "temperature": NaN}', "NaN"),
        (b'{"prompt": "a", "prompt": "b"}', "given twice"),
    ],
)
def test_a_body_that_is_no_json_object_says_what_it_is(body: bytes, words: str) -> None:
    error = refused(body)
    assert error.status == 400
    assert words in error.sentence


def test_a_body_over_the_limit_is_413_and_one_at_the_limit_is_read() -> None:
    frame = len(b'{"prompt": ""}')
    assert read(b'{"prompt": "%s"}' % (b"a" * (MAX_BODY_BYTES - frame)))
    assert refused(b'{"prompt": "%s"}' % (b"a" * (MAX_BODY_BYTES - frame + 1))).status == 413


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
        ({"reasoning_language": ""}, "reasoning_language"),
        ({"reasoning_language": "a\nb"}, "reasoning_language"),
        ({"reasoning_language": 3}, "reasoning_language"),
        ({"system_prompt": 3}, "system_prompt"),
    ],
)
def test_a_value_out_of_range_names_its_field(more: dict[str, Any], field: str) -> None:
    error = refused({"prompt": "hi", **more})
    assert (error.status, error.field) == (400, field)
    assert field in error.sentence


def test_an_infinite_number_is_refused() -> None:
    body = b'{"prompt": "hi", "do_sample": true, "temperature": 1e999}'
    assert refused(body).field == "temperature"


@pytest.mark.parametrize("name", ["temperature", "top_p"])
def test_a_sampling_number_without_sampling_is_refused_not_ignored(name: str) -> None:
    error = refused({"prompt": "hi", name: 0.5})
    assert error.field == name
    assert "set do_sample to true" in error.sentence


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([], "messages"),
        ("hi", "messages"),
        (["hi"], "messages[0]"),
        ([{"role": "bot", "content": "x"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": "  "}], "messages[0].content"),
        ([{"role": "user", "content": [{"text": "x"}]}], "messages[0].content"),
        ([{"role": "user", "content": "x", "thinking": "y"}], "messages[0].thinking"),
        ([{"role": "user", "content": "x", "name": "y"}], "messages[0].name"),
        ([{"role": "system", "content": "x"}], "messages"),
        ([USER, {"role": "assistant", "content": "x"}], "messages"),
        ([USER, {"role": "system", "content": "x"}, USER], "messages[1].role"),
        (
            [{"role": "system", "content": "x"}, {"role": "developer", "content": "y"}, USER],
            "messages[1].role",
        ),
        ([{"role": "user", "content": "a\ud800b"}], "messages[0].content"),
        ([{"role": "user", "content": "a\x00b"}], "messages[0].content"),
    ],
)
def test_a_conversation_out_of_shape_names_the_message(messages: Any, field: str) -> None:
    assert refused({"messages": messages}).field == field


def test_tabs_and_line_ends_are_text() -> None:
    assert read({"prompt": "a\tb\r\nc"}).messages[0].content == "a\tb\r\nc"


def test_both_dialects_at_once_and_neither_are_refused() -> None:
    assert "either" in refused({"prompt": "hi", "messages": [USER]}).sentence
    assert "either" in refused({}).sentence


def test_system_text_by_two_ways_is_refused() -> None:
    messages = [{"role": "system", "content": "x"}, USER]
    assert refused({"messages": messages, "system_prompt": "y"}).field == "system_prompt"


def test_a_reasoning_language_beside_such_a_line_is_refused() -> None:
    line = "Be kind.\nReasoning Language: German"
    messages = [{"role": "system", "content": line}, USER]
    assert refused({"messages": messages, "reasoning_language": "Japanese"}).status == 400
    assert refused({"prompt": "x", "system_prompt": line, "reasoning_language": "J"}).status == 400
    assert read({"messages": messages}).system == line


def test_an_error_about_unsendable_text_can_still_be_sent() -> None:
    assert refused(b'{"prompt": "x", "\\ud800": 1}').field == "?"
    assert len(refused({"prompt": "x", "k" * 9000: 1}).sentence) < 400
