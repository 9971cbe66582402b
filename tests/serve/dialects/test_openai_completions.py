"""Completions: prompts as they stand, several at once, and what comes back."""

from typing import Any

import pytest

from serve.dialects import Json
from serve.request import GenerationRequest
from tests.serve.dialects.talk import CONTEXT, HEAD, ask, choice, completion, only, refused, stream

ROUTE = "/v1/completions"


def test_a_prompt_is_shown_as_it_stands_and_16_tokens_are_the_default() -> None:
    asked = only(ask(ROUTE, {"prompt": "Once"}))
    assert asked == GenerationRequest(text="Once", max_new_tokens=16, do_sample=True)


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        (["a", "b"], [("a", None), ("b", None)]),
        ([1, 2], [(None, (1, 2))]),
        ([[1], [2, 3]], [(None, (1,)), (None, (2, 3))]),
    ],
)
def test_several_prompts_are_several_requests(prompt: Any, shown: list[Any]) -> None:
    parsed = ask(ROUTE, {"prompt": prompt, "max_tokens": 3})
    requests = [r for r in parsed.requests if isinstance(r, GenerationRequest)]
    assert [(r.text, r.ids) for r in requests] == shown
    assert {r.max_new_tokens for r in requests} == {3}


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a"] * 65}, "prompt"),
        ({"prompt": ["a", 3]}, "prompt[1]"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [1, -1]}, "prompt"),
        ({"prompt": [[1], [True]]}, "prompt[1]"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [1, 2**31]}, "prompt"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": CONTEXT + 1}, "max_tokens"),
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 2}, "best_of"),
        ({"n": 2, "best_of": 3}, "best_of"),
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"echo": True, "logprobs": 0}, "echo"),
        ({"echo": True, "prompt": [1]}, "echo"),
        ({"logit_bias": {"1": 1}}, "logit_bias"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(more: Json, field: str) -> None:
    assert refused(ROUTE, {"prompt": "Once", **more}).field == field


def test_neutral_values_change_nothing() -> None:
    neutral = {"suffix": "", "best_of": 1, "echo": False, "user": "me", "logit_bias": None}
    assert only(ask(ROUTE, {"prompt": "a", **neutral})) == only(ask(ROUTE, {"prompt": "a"}))


def test_a_whole_reply_numbers_choices_over_all_prompts() -> None:
    body = {"prompt": ["a", "b"], "n": 2, "best_of": 2, "echo": True}
    answers = [completion(choice(reasoning=None), choice(1, "No.", None, "length"))] * 2
    said = ask(ROUTE, body).reply(answers)
    assert isinstance(said, dict)
    assert said["object"] == "text_completion"
    assert [(c["index"], c["text"], c["finish_reason"]) for c in said["choices"]] == [
        (0, "aYes.", "stop"),
        (1, "aNo.", "length"),
        (2, "bYes.", "stop"),
        (3, "bNo.", "length"),
    ]
    assert (said["usage"]["prompt_tokens"], said["usage"]["completion_tokens"]) == (6, 20)


def test_log_probabilities_have_four_lists() -> None:
    said = ask(ROUTE, {"prompt": "a", "logprobs": 2}).reply([completion(choice(logprobs=True))])
    assert isinstance(said, dict)
    assert said["choices"][0]["logprobs"] == {
        "tokens": ["Yes"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"Yes": -0.5, "No": -9999.0}],
        "text_offset": [0],
    }


@pytest.mark.parametrize("echo", [False, True])
def test_chunks_assembled_are_the_whole_reply(echo: bool) -> None:
    body = {"prompt": ["a", "b"], "n": 2, "echo": echo, "stream": True}
    parsed = ask(ROUTE, {**body, "stream_options": {"include_usage": True}})
    answers = [completion(choice(logprobs=True), choice(1, "No.", None, "deadline"))] * 2
    whole = parsed.reply(answers)
    assert isinstance(whole, dict)
    *chunks, last = stream(parsed, answers)
    built: list[Json] = [{"text": "", "reasoning": ""} for _ in range(4)]
    for chunk in chunks:
        (one,) = chunk["choices"]
        so_far = built[one["index"]]
        text, reasoning = so_far["text"] + one["text"], one.get("reasoning", "")
        built[one["index"]] = one | {"text": text, "reasoning": so_far["reasoning"] + reasoning}
    assert built == [{"reasoning": "", **one} for one in whole["choices"]]
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert parsed.events(HEAD).done == "[DONE]"
