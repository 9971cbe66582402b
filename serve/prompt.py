"""One GenerationRequest → the token ids that the model is shown.

    writer = PromptWriter(load_tokenizer(root), defaults, context=4096)
    prompt = writer.write(request)

The model's own chat template renders the conversation, tools included, so every engine is shown the
same ids. Text from a conversation can never become a control token: text that the tokenizer would
read as one is refused. What the template would leave out is refused as well. A prompt without chat
template (`text`, `ids`) is shown as it stands. The tokenizer lives here, apart from the engine;
nothing here knows torch.
"""

import json
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve import detokenize
from serve.errors import RequestError, StartupError
from serve.model import ModelDefaults
from serve.request import DEFAULT_MAX_NEW_TOKENS, GenerationRequest, Message

MARKER = re.compile(r"^(<.+>|\[.+\])$")
"""How models write control tokens that their tokenizer does not call special: <think>, [INST]."""
FINAL_HEADER = "<|channel|>final<|message|>"
"""What a gpt-oss model writes before its answer; the prompt ends in `<|start|>assistant`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What goes to the engine."""

    ids: tuple[int, ...]
    max_new_tokens: int
    opens_thinking: bool
    """The template itself has opened a <think> block, so the answer starts inside it."""


def load_tokenizer(root: Path) -> Any:
    """The tokenizer beside the weights; never from elsewhere, never with code of its own."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(root, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        first = str(error).strip().splitlines()[0]
        raise StartupError(f"the tokenizer in {root} does not load: {first}") from error


def system_text(request: GenerationRequest, defaults: ModelDefaults) -> str:
    """System text by the house format: the language line, an empty line, the persona; "" for none.

    The request's text replaces the model's persona. The model's language applies only to a request
    that names neither text nor language.
    """
    persona = defaults.persona if request.system is None else request.system
    language = request.reasoning_language
    if language is None and request.system is None:
        language = defaults.reasoning_language
    language_line = f"reasoning language: {language}" if language else ""
    return "\n\n".join(part for part in (language_line, persona) if part)


class PromptWriter:
    """Renders requests; one per process, shared by its threads."""

    def __init__(self, tokenizer: Any, defaults: ModelDefaults, *, context: int) -> None:
        self.tokenizer = tokenizer
        self.context = context
        self._defaults = defaults
        self._lock = threading.Lock()  # a tokenizer's Rust half refuses two threads at once
        # Its BPE remembers up to 10,000 words in each thread that asks, kilobytes a word where a
        # sentence is one: 60 threads of a server grew by 12 MiB a minute.
        self._one_thread = ThreadPoolExecutor(1, "tokenizer")
        self._byte_level = detokenize.is_byte_level(tokenizer)
        added = tokenizer.added_tokens_decoder.items()
        self._control = {i for i, t in added if t.special or MARKER.match(t.content)}
        self._control.discard(tokenizer.unk_token_id)  # what any unknown letter becomes
        known = tokenizer.added_tokens_decoder
        plain = tokenizer.backend_tokenizer.normalizer is None
        self._marked = None
        """What every text with a control token has; None where letters may be changed first."""
        if plain:
            names = sorted(re.escape(known[token].content.strip()) for token in self._control)
            self._marked = re.compile("|".join(names) or r"(?!)")

    def write(self, request: GenerationRequest) -> Prompt:
        """Token ids and budget; RequestError where the model cannot be shown this."""
        opens = False
        if request.ids is not None:
            ids = self._known(request.ids)
        elif request.text is not None:
            with self._lock:
                ids = self._tokenised(request.text)
        else:
            system = system_text(request, self._defaults)
            with self._lock:
                for what, text in _texts(request, system):
                    self._refuse_control(what, text)
                rendered = self._render(request, system)
                ids = self._tokenised(rendered, add_special_tokens=False)
            opens = rendered.rstrip().endswith("<think>")
        if not ids:
            raise RequestError(400, "the prompt has no tokens; send some text.", "prompt")
        left = self.context - len(ids)
        wanted = request.max_new_tokens or min(DEFAULT_MAX_NEW_TOKENS, max(left, 1))
        if wanted > left:
            sizes = f"{len(ids)} prompt tokens and {wanted} new tokens"
            raise RequestError(
                400,
                f"{sizes} exceed the model's context of {self.context}; send or ask for less.",
                "max_new_tokens" if request.max_new_tokens and left > 0 else None,
            )
        return Prompt(ids=ids, max_new_tokens=wanted, opens_thinking=opens)

    def open_final(self, prompt: Prompt) -> Prompt:
        """A Harmony prompt that goes on within the final channel: no reasoning, only the answer."""
        with self._lock:
            header = self._tokenised(FINAL_HEADER, add_special_tokens=False)
        budget = min(prompt.max_new_tokens, self.context - len(prompt.ids) - len(header))
        if budget < 1:
            raise RequestError(400, f"the prompt fills the model's context of {self.context}.")
        return Prompt(ids=(*prompt.ids, *header), max_new_tokens=budget, opens_thinking=False)

    def read(self, ids: Sequence[int]) -> str:
        """Text of generated ids, control tokens left out."""
        with self._lock:
            text = self.tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        return str(text)

    def token_texts(self, ids: Sequence[int]) -> list[str]:
        """Each token by itself, for logprobs; control tokens by their names."""
        with self._lock:
            piece = self.tokenizer.convert_ids_to_tokens
            texts = detokenize.token_texts(ids, piece, byte_level=self._byte_level)
        return [text.text for text in texts]

    def _tokenised(self, text: str, **options: bool) -> tuple[int, ...]:
        ids = self._one_thread.submit(self.tokenizer, text, **options).result()["input_ids"]
        return tuple(ids)

    def _known(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        size = len(self.tokenizer)
        for place, token in enumerate(ids):
            if not 0 <= token < size:
                raise RequestError(
                    400, f"prompt[{place}] is {token}; token ids are 0 to {size - 1}.", "prompt"
                )
        return ids

    def _render(self, request: GenerationRequest, system: str) -> str:
        template = self.tokenizer.chat_template
        if not template:
            if system or len(request.messages) > 1 or request.tools:
                what = "this model has no chat template, so it takes a lone prompt"
                raise RequestError(400, f"{what} without system text and tools.")
            return request.messages[0].content
        if request.reasoning_effort and "reasoning_effort" not in template:
            raise RequestError(
                400,
                "this model's chat template knows no reasoning_effort; leave it out.",
                "reasoning_effort",
            )
        messages = [{"role": "system", "content": system}] if system else []
        messages += [_entry(message) for message in request.messages]
        kwargs = dict(self._defaults.chat_template_kwargs)
        if request.reasoning_effort:
            kwargs["reasoning_effort"] = request.reasoning_effort
        from jinja2 import TemplateError

        try:
            rendered = str(
                self.tokenizer.apply_chat_template(
                    messages,
                    tools=list(request.tools) or None,
                    add_generation_prompt=True,
                    tokenize=False,
                    **kwargs,
                )
            )
        except (
            TemplateError,
            TypeError,
        ) as error:  # a schema that the template misreads
            why = str(error).strip() or type(error).__name__
            raise RequestError(
                400, f"the model's chat template refuses this conversation: {why}"
            ) from error
        for entry in messages:
            if entry["role"] != "assistant" and not _shown(entry["content"], rendered):
                raise RequestError(
                    400, f"the model's chat template leaves out the {entry['role']} text."
                )
        for tool in request.tools:
            if tool["function"]["name"] not in rendered:
                raise RequestError(400, "this model's chat template knows no tools.", "tools")
        return rendered

    def _refuse_control(self, what: str, text: str) -> None:
        if self._marked is not None and not self._marked.search(text):
            return  # saves a tokenization
        ids = self._tokenised(text, add_special_tokens=False)
        for control in self._control.intersection(ids):
            name = self.tokenizer.convert_ids_to_tokens(control)
            raise RequestError(
                400, f"{what} holds {name}, a control token of this model; leave it out."
            )


def _entry(message: Message) -> dict[str, Any]:
    """A turn as chat templates take it."""
    entry: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thinking:
        entry["thinking"] = message.thinking
    if message.tool_calls:
        entry["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.loads(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        entry |= {"name": message.name, "tool_call_id": message.tool_call_id}
    return entry


def _shown(text: str, rendered: str) -> bool:
    """Whether a text is in the prompt, as it stands or as a JSON string."""
    text = text.strip()
    return text in rendered or any(
        json.dumps(text, ensure_ascii=ascii)[1:-1] in rendered for ascii in (True, False)
    )


def _texts(request: GenerationRequest, system: str) -> Iterator[tuple[str, str]]:
    """Every piece of text that reaches the template, with words for it."""
    yield "the system text", system
    for message in request.messages:
        yield f"the {message.role}'s text", message.content
        if message.thinking:
            yield "the assistant's thinking", message.thinking
        for call in message.tool_calls:
            yield "a tool call", f"{call.name} {call.arguments}"
    for tool in request.tools:
        yield "a tool", json.dumps(tool, ensure_ascii=False)
