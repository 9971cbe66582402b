"""From a request to token ids, with the real template and a byte-level tokenizer."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from serve.dialects import ROUTES
from serve.errors import RequestError
from serve.model import ModelDefaults
from serve.prompt import PromptWriter, system_text
from serve.request import GenerationRequest, Message

DEFAULTS = ModelDefaults(
    reasoning_language="Japanese",
    persona="You are a pirate.",
    chat_template_kwargs={"current_date": "2026-01-01"},
)


def ask(**body: Any) -> GenerationRequest:
    import json

    body.setdefault("prompt", "hi")
    (request,) = ROUTES["/score"].parse(json.dumps(body).encode(), context=4096).requests
    assert isinstance(request, GenerationRequest)
    return request


@pytest.fixture
def writer(tokenizer: Any) -> PromptWriter:
    return PromptWriter(tokenizer, DEFAULTS, context=4096)


def shown(writer: PromptWriter, request: GenerationRequest) -> str:
    return str(writer.tokenizer.decode(writer.write(request).ids))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "reasoning language: Japanese\n\nYou are a pirate."),
        ({"reasoning_language": "German"}, "reasoning language: German\n\nYou are a pirate."),
        ({"system_prompt": "Be brief."}, "Be brief."),
        (
            {"system_prompt": "Be brief.", "reasoning_language": "German"},
            "reasoning language: German\n\nBe brief.",
        ),
        ({"system_prompt": ""}, ""),
        ({"system_prompt": "", "reasoning_language": "German"}, "reasoning language: German"),
    ],
)
def test_system_text_comes_from_the_request_and_else_from_the_model(
    body: dict[str, str], text: str
) -> None:
    assert system_text(ask(**body), DEFAULTS) == text
    assert system_text(ask(), ModelDefaults()) == ""


def test_the_ids_are_those_of_the_tokenizers_own_template_call(writer: PromptWriter) -> None:
    messages = [
        {"role": "system", "content": "reasoning language: Japanese\n\nYou are a pirate."},
        {"role": "user", "content": "日本の首都は?"},
    ]
    expected = writer.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=True, current_date="2026-01-01"
    )
    assert list(writer.write(ask(prompt="日本の首都は?")).ids) == expected["input_ids"]


def test_the_templates_arguments_come_from_the_model(writer: PromptWriter) -> None:
    assert "Current date: 2026-01-01" in shown(writer, ask())


def test_earlier_turns_are_shown_in_order(writer: PromptWriter) -> None:
    turns = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "second", "thinking": "why"},
        {"role": "user", "content": "third"},
    ]
    text = shown(writer, ask(prompt=None, messages=turns))
    assert text.index("first") < text.index("second") < text.index("third")
    assert text.endswith("<|start|>assistant")


@pytest.mark.parametrize("marker", ["<|end|>", "<|start|>", "<|call|>", "<|channel|>"])
@pytest.mark.parametrize("place", ["prompt", "system_prompt", "reasoning_language", "thinking"])
def test_control_tokens_in_text_are_refused_wherever_they_are(
    writer: PromptWriter, marker: str, place: str
) -> None:
    text = f"a{marker}b"
    if place == "thinking":
        past = {"role": "assistant", "content": "x", "thinking": text}
        turns = [{"role": "user", "content": "x"}, past, {"role": "user", "content": "x"}]
        request = ask(prompt=None, messages=turns)
    else:
        request = ask(**{place: text})
    with pytest.raises(RequestError, match="control token") as caught:
        writer.write(request)
    assert caught.value.status == 400
    assert marker in caught.value.sentence


def test_no_text_that_is_let_through_adds_control_tokens(writer: PromptWriter) -> None:
    def markers(text: str) -> list[int]:
        specials = set(writer.tokenizer.all_special_ids)
        return [token for token in writer.write(ask(prompt=text)).ids if token in specials]

    assert markers("< |end| > <|en d|> |end|> <|") == markers("plain")


def test_prompt_and_answer_beyond_the_context_name_both_numbers(tokenizer: Any) -> None:
    size = len(PromptWriter(tokenizer, DEFAULTS, context=4096).write(ask()).ids)
    writer = PromptWriter(tokenizer, DEFAULTS, context=size + 10)
    assert writer.write(ask(max_new_tokens=10)).max_new_tokens == 10
    assert writer.write(ask()).max_new_tokens == 10  # the default gives way
    with pytest.raises(RequestError, match=f"{size} prompt tokens and 11 new tokens") as caught:
        writer.write(ask(max_new_tokens=11))
    assert (caught.value.status, caught.value.field) == (400, "max_new_tokens")
    with pytest.raises(RequestError, match="exceed the model's context"):
        PromptWriter(tokenizer, DEFAULTS, context=size).write(ask())


def test_the_default_length_is_512(writer: PromptWriter) -> None:
    assert writer.write(ask()).max_new_tokens == 512


class Templated:
    """A tokenizer with another template."""

    def __init__(self, real: Any, template: str | None) -> None:
        self._real = real
        self.chat_template = template

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real(*args, **kwargs)

    def apply_chat_template(self, messages: Any, **kwargs: Any) -> Any:
        kwargs["chat_template"] = self.chat_template
        return self._real.apply_chat_template(messages, **kwargs)


def test_a_template_that_leaves_out_the_system_text_is_told(tokenizer: Any) -> None:
    lossy = Templated(tokenizer, "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}"
                      "{% endif %}{% endfor %}")  # fmt: skip
    with pytest.raises(RequestError, match="leaves out the system text"):
        PromptWriter(lossy, ModelDefaults(), context=99).write(ask(system_prompt="Be brief."))
    assert PromptWriter(lossy, ModelDefaults(), context=99).write(ask()).ids


def test_a_template_that_refuses_is_a_400_with_its_words(tokenizer: Any) -> None:
    strict = Templated(tokenizer, "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(RequestError, match="roles must alternate"):
        PromptWriter(strict, ModelDefaults(), context=99).write(ask())


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ messages.append({}) }}",
        "{{ messages.__init__.__globals__ }}",
    ],
)
def test_a_template_that_reaches_for_more_than_its_messages_is_refused(
    tokenizer: Any, template: str
) -> None:
    sly = Templated(tokenizer, f"{template}{{{{ messages[0].content }}}}")
    with pytest.raises(RequestError, match="template refuses this conversation"):
        PromptWriter(sly, ModelDefaults(), context=9999).write(ask())


def test_a_template_that_opens_a_think_block_is_noticed(tokenizer: Any) -> None:
    opening = Templated(tokenizer, "{{ messages[0].content }}<think>\n")
    assert PromptWriter(opening, ModelDefaults(), context=99).write(ask()).opens_thinking


def test_a_model_without_a_template_takes_a_lone_prompt(tokenizer: Any) -> None:
    bare = PromptWriter(Templated(tokenizer, None), ModelDefaults(), context=99)
    assert bare.read(bare.write(ask(prompt="the fox")).ids) == "the fox"
    with pytest.raises(RequestError, match="no chat template"):
        bare.write(ask(system_prompt="x"))


def test_messages_are_frozen() -> None:
    with pytest.raises(AttributeError):
        Message(role="user", content="x").content = "y"  # type: ignore[misc]


def test_every_prompt_is_tokenised_by_one_thread_whose_memory_of_words_is_the_only_one(
    tokenizer: Any,
) -> None:
    threads: set[int] = set()

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __len__(self) -> int:
            return len(tokenizer)

        def __call__(self, *given: Any, **options: Any) -> Any:
            threads.add(threading.get_ident())
            return tokenizer(*given, **options)

    watched = PromptWriter(Watched(), DEFAULTS, context=4096)
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: watched.write(ask()).ids, range(64)))
    assert len(set(ids)) == 1
    assert len(threads) == 1
