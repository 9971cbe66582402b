import datetime
from importlib import resources
from typing import Any

import pytest
from jinja2 import TemplateError

from tests.train import tokenizer_kinds as kinds
from train.chat_template import SPACING, for_model
from train.data.tokens import IGNORED, row

CONVERSATION = [
    {"role": "system", "content": "reasoning language: Japanese"},
    {"role": "user", "content": "首都は？"},
    {"role": "assistant", "content": "キャンベラです。", "thinking": "国の都市だ。"},
]
HARMONY_ANSWER = (
    "<|start|>assistant<|channel|>analysis<|message|>国の都市だ。<|end|>"
    "<|start|>assistant<|channel|>final<|message|>キャンベラです。<|return|>"
)
TURNS = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "Three?"},
    {"role": "assistant", "content": "Four."},
]
ALL_KINDS = ["gpt_oss", *kinds.KINDS]


@pytest.fixture
def of_kind(request: pytest.FixtureRequest, tokenizer: Any) -> Any:
    """The tokenizer of the kind that the test is given."""
    return tokenizer if request.param == "gpt_oss" else kinds.tokenizer(request.param)


def render(tokenizer: Any, messages: list[dict[str, Any]], **options: Any) -> str:
    return str(
        tokenizer.apply_chat_template(
            messages, tokenize=False, current_date="2026-01-01", **options
        )
    )


def learned(tokenizer: Any, messages: list[dict[str, Any]]) -> str:
    """The text whose tokens are learned."""
    _, labels = row(tokenizer, messages, {"current_date": "2026-01-01"})
    return str(tokenizer.decode([label for label in labels if label != IGNORED]))


def test_a_conversation_renders_as_harmony(tokenizer: Any) -> None:
    assert render(tokenizer, CONVERSATION) == (
        "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
        "Knowledge cutoff: 2024-06\nCurrent date: 2026-01-01\n\nReasoning: medium\n\n"
        "# Valid channels: analysis, commentary, final. "
        "Channel must be included for every message.<|end|>"
        "<|start|>developer<|message|># Instructions\n\nreasoning language: Japanese\n\n<|end|>"
        f"<|start|>user<|message|>首都は？<|end|>{HARMONY_ANSWER}"
    )


def test_harmonys_marks_cover_the_answer_with_its_end_and_nothing_else(tokenizer: Any) -> None:
    encoded = tokenizer.apply_chat_template(
        CONVERSATION, return_dict=True, return_assistant_tokens_mask=True
    )
    marked = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    assert tokenizer.decode([token for token, mask in marked if mask]) == HARMONY_ANSWER
    assert "<|start|>assistant" + learned(tokenizer, CONVERSATION) == HARMONY_ANSWER


def test_without_a_pinned_date_the_template_writes_today(tokenizer: Any) -> None:
    text = tokenizer.apply_chat_template(CONVERSATION, tokenize=False)
    assert f"Current date: {datetime.date.today():%Y-%m-%d}" in text


def test_harmony_is_the_original_but_for_date_and_empty_thinking(tokenizer: Any) -> None:
    original = (resources.files("trl") / "chat_templates/gptoss.jinja").read_text()
    for prompt in (True, False):
        theirs = tokenizer.apply_chat_template(
            CONVERSATION, tokenize=False, chat_template=original, add_generation_prompt=prompt
        )
        ours = tokenizer.apply_chat_template(
            CONVERSATION, tokenize=False, add_generation_prompt=prompt
        )
        assert ours == theirs


@pytest.mark.parametrize("of_kind", ALL_KINDS, indirect=True)
@pytest.mark.parametrize("thinking", [None, ""])
def test_no_thinking_is_no_empty_block_and_null_keys_change_nothing(
    of_kind: Any, thinking: str | None
) -> None:
    turns = [{**turn, "thinking": thinking} for turn in TURNS]
    assert render(of_kind, turns) == render(of_kind, TURNS)
    assert "<think>" not in render(of_kind, turns)
    assert "analysis<|message|>" not in render(of_kind, turns)


@pytest.mark.parametrize("of_kind", ALL_KINDS, indirect=True)
def test_only_the_last_turn_is_learned_and_its_stop_token_with_it(of_kind: Any) -> None:
    text = learned(of_kind, TURNS)
    assert "Four." in text
    assert "Two." not in text
    assert "Three?" not in text
    assert text.endswith(of_kind.eos_token)


@pytest.mark.parametrize("of_kind", ALL_KINDS, indirect=True)
def test_of_the_turns_only_the_last_shows_its_thinking(of_kind: Any) -> None:
    early = [TURNS[0], {**TURNS[1], "thinking": "early"}, TURNS[2]]
    assert "early" not in render(of_kind, early, add_generation_prompt=True)
    assert "early" not in render(of_kind, [*early, TURNS[3]])
    assert "late" in learned(of_kind, [*early, {**TURNS[3], "thinking": "late"}])


@pytest.mark.parametrize("of_kind", [k for k in ALL_KINDS if k != "gpt_oss"], indirect=True)
def test_thinking_stands_before_the_answer_and_can_be_told_apart(of_kind: Any) -> None:
    text = learned(of_kind, CONVERSATION)
    opened, closed, answer = text.lstrip().partition("</think>\n\n")
    assert opened == "<think>\n国の都市だ。\n"
    assert closed
    assert answer.startswith("キャンベラです。")


@pytest.mark.parametrize("of_kind", ALL_KINDS, indirect=True)
def test_the_prompt_is_the_beginning_of_the_whole(of_kind: Any) -> None:
    prompt = render(of_kind, TURNS[:-1], add_generation_prompt=True)
    assert render(of_kind, TURNS).startswith(prompt)


def test_phi_renders_the_documented_form() -> None:
    phi = kinds.tokenizer("phi3")
    assert render(phi, CONVERSATION) == (
        "<|system|>\nreasoning language: Japanese<|end|>\n<|user|>\n首都は？<|end|>\n"
        "<|assistant|>\n<think>\n国の都市だ。\n</think>\n\nキャンベラです。<|end|>\n<|endoftext|>"
    )
    assert "<|end|>" in learned(phi, CONVERSATION)


@pytest.mark.parametrize("turns", [TURNS[:1], TURNS[:2], TURNS, CONVERSATION[:2], TURNS[:3]])
@pytest.mark.parametrize("prompt", [True, False])
def test_phi_renders_as_its_original(turns: list[dict[str, Any]], prompt: bool) -> None:
    phi = kinds.tokenizer("phi3")
    original = (resources.files("trl") / "chat_templates/phi3.jinja").read_text()
    assert render(phi, turns, add_generation_prompt=prompt) == render(
        phi, turns, add_generation_prompt=prompt, chat_template=original
    )


def test_mistral_joins_the_system_message_to_the_first_question() -> None:
    system = {"role": "system", "content": "Be brief."}
    assert render(kinds.tokenizer("mistral v0.1"), [system, *TURNS]) == (
        "<s>[INST] Be brief.\n\nOne? [/INST] Two.</s>[INST] Three? [/INST] Four.</s>"
    )
    assert render(kinds.tokenizer("mistral v0.3"), [system, *TURNS]) == (
        "<s>[INST] Be brief.\n\nOne?[/INST] Two.</s>[INST] Three?[/INST] Four.</s>"
    )


@pytest.mark.parametrize("release", SPACING)
def test_mistral_takes_the_spacing_of_the_models_own_template(release: str) -> None:
    opening, closing, lead, after = map(repr, SPACING[release])
    mistral = kinds.KINDS["mistral v0.1"][1]()
    mistral.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}"
        f"{{{{ {opening} + m.content + {closing} }}}}{{% else %}}"
        f"{{{{ {lead} + m.content + eos_token + {after} }}}}{{% endif %}}{{% endfor %}}"
    )
    ours = for_model("mistral", mistral)
    for turns in (TURNS[:1], TURNS[:3], TURNS):
        assert render(mistral, turns, chat_template=ours) == render(mistral, turns)


def test_mistral_refuses_what_its_form_cannot_say() -> None:
    mistral = kinds.tokenizer("mistral v0.1")
    system = {"role": "system", "content": "Be brief."}
    with pytest.raises(TemplateError, match="one system message, at its start"):
        render(mistral, [*TURNS, system])
    with pytest.raises(TemplateError, match="a user message before the first answer"):
        render(mistral, [system, TURNS[1]])
    with pytest.raises(TemplateError, match="not tool"):
        render(kinds.tokenizer("phi3"), [{"role": "tool", "content": "4"}])


@pytest.mark.parametrize("model_type", ["phi3", "mistral"])
def test_a_model_that_speaks_otherwise_keeps_its_own_template(model_type: str) -> None:
    """Phi-4 is a phi3 and Zephyr a mistral by type, but not by what they learned to read."""
    other = kinds.byte_level((), kinds.BYTES)
    other.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    )
    assert for_model(model_type, other) is None


def test_another_model_keeps_its_own_template(tokenizer: Any) -> None:
    assert for_model("llama", tokenizer) is None
    assert for_model("gpt_oss", tokenizer) == tokenizer.chat_template
