"""`input_data`: bodies of Azure's samples and of LangChain's formatters, and their replies."""

from typing import Any

import pytest

from serve.dialects import Json
from serve.request import GenerationRequest, Message
from tests.serve.dialects.talk import CONTEXT, USER, ask, choice, completion, only, refused

SCORE = "/score"
SAMPLE = {"temperature": 0.6, "top_p": 0.9, "do_sample": True, "max_new_tokens": 64}
TURN = (Message(role="user", content="hi"),)


def body(inputs: Any, **parameters: Any) -> Json:
    return {"input_data": {"input_string": inputs, "parameters": parameters}}


def test_messages_are_a_chat_and_the_reply_is_its_output() -> None:
    parsed = ask(SCORE, body([USER], **SAMPLE) | {"params": {}})
    assert only(parsed) == GenerationRequest(
        messages=TURN, max_new_tokens=64, do_sample=True, temperature=0.6, top_p=0.9
    )
    assert parsed.reply([completion(choice())]) == {"output": "Yes."}
    assert not parsed.stream


@pytest.mark.parametrize("inputs", ["Once", ["Once"]])
def test_texts_are_shown_as_they_stand_and_the_reply_is_a_list(inputs: Any) -> None:
    parsed = ask(SCORE, body(inputs))
    assert only(parsed) == GenerationRequest(text="Once", do_sample=True)
    assert parsed.reply([completion(choice())]) == {"output": ["Yes."]}


def test_a_list_of_conversations_is_as_many_chats() -> None:
    parsed = ask(SCORE, body([[USER], [USER, USER]]))
    answers = [completion(choice()), completion(choice(output="No."))]
    assert parsed.reply(answers) == {"output": ["Yes.", "No."]}


def test_a_table_is_answered_by_rows() -> None:
    table = {"columns": ["input_string"], "index": [0, 1], "data": [["a"], [[USER]]]}
    parsed = ask(SCORE, {"input_data": table, "params": {"max_new_tokens": 3}})
    first, second = parsed.requests
    assert isinstance(first, GenerationRequest)
    assert isinstance(second, GenerationRequest)
    assert (first.text, first.max_new_tokens, second.messages) == ("a", 3, TURN)
    assert parsed.reply([completion(choice())] * 2) == [{"0": "Yes."}, {"0": "Yes."}]


def test_texts_may_stand_beside_params() -> None:
    parsed = ask(SCORE, {"input_data": ["a"], "params": {"return_full_text": True}})
    assert parsed.reply([completion(choice())]) == {"output": ["aYes."]}


@pytest.mark.parametrize(
    ("parameters", "drawn"),
    [
        ({}, True),
        ({"temperature": 0.7}, True),
        ({"temperature": 0.0}, False),
        ({"temperature": 0.0, "do_sample": False, "return_full_text": False}, False),
        ({"do_sample": False}, False),
        ({"do_sample": True, "temperature": 0}, False),
    ],
)
def test_tokens_are_drawn_unless_the_request_says_not(parameters: Json, drawn: bool) -> None:
    assert only(ask(SCORE, body([USER], **parameters))).do_sample is drawn


@pytest.mark.parametrize("name", ["max_new_tokens", "max_gen_len", "max_tokens"])
def test_the_limit_goes_by_the_names_of_the_catalogue(name: str) -> None:
    assert only(ask(SCORE, body([USER], **{name: 5}))).max_new_tokens == 5


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"input_data": 3}, "input_data"),
        ({"input_data": []}, "input_data"),
        ({"input_data": {}}, "input_data.columns"),
        ({"input_data": {"columns": ["a"], "data": [["a"]]}}, "input_data.columns"),
        ({"input_data": {"columns": ["input_string"]}}, "input_data.data"),
        (
            {"input_data": {"columns": ["input_string"], "data": [["a", "b"]]}},
            "input_data.data[0]",
        ),
        (
            {"input_data": {"columns": ["input_string"], "data": [["a"]], "index": []}},
            "input_data.index",
        ),
        ({"input_data": ["a"], "parameters": {}}, "parameters"),
        ({"input_data": ["a"], "params": 3}, "params"),
        ({"input_data": {"input_string": "a", "x": 1}}, "input_data.x"),
        ({"input_data": {"input_string": "a", "parameters": 1}}, "input_data.parameters"),
        (body("a", top_p=0.5) | {"params": {"top_p": 0.5}}, "params"),
        (body(""), "input_data.input_string[0]"),
        (body([]), "input_data.input_string"),
        (body(["a"] * 65), "input_data.input_string"),
        (body(["a", 3]), "input_data.input_string[1]"),
        (body([{"role": "user"}]), "input_data.input_string[0].content"),
        (body("a", top_p=2), "input_data.parameters.top_p"),
        (body("a", max_length=20), "input_data.parameters.max_length"),
        (body("a", max_new_tokens=CONTEXT + 1), "input_data.parameters.max_new_tokens"),
        (body("a", num_beams=2), "input_data.parameters.num_beams"),
        (body("a", do_sample=False, temperature=0.5), "input_data.parameters.temperature"),
        (body("a", do_sample=False, top_p=0.5), "input_data.parameters.top_p"),
        (body([USER], return_full_text=True), "input_data.parameters.return_full_text"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(given: Json, field: str) -> None:
    assert refused(SCORE, given).field == field
