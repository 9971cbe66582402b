"""One conversation → token ids and labels by the chat template; one shape of them → a plan.

    row(tokenizer, messages, {"current_date": "2026-01-01"}) -> (ids, labels)
    Planner(tokenizer, {"current_date": "2026-01-01"}).plan(messages_with_placeholders) -> Plan

A shape is a conversation's roles, and which of its texts are there. Its plan says which of its
tokens are always the same and where its texts go. Tokenizers cut a text at special tokens before
anything else, so the rendering falls apart there into segments that can be encoded on their own.
train/data/segments.py fills plans with many rows at once.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from train.errors import InputError

Ints = npt.NDArray[np.int32]
Part = str | int
"""Literal text, or the number of one of the conversation's texts."""

IGNORED = -100
"""Label of a token that is not learned: what torch's cross entropy leaves out."""
MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
PLACEHOLDER = re.compile("\ue200(\\d+)\ue201")
"""Private-use characters around the number of a text; no template writes them."""


class NotSegmentableError(Exception):
    """The template or the tokenizer does not fall apart as assumed; says how."""


def row(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], template_kwargs: Mapping[str, Any]
) -> tuple[list[int], list[int]]:
    """Ids and labels of one conversation, by the chat template as it stands.

    Learned is what follows the generation prompt of `messages[:-1]` and lies within the template's
    generation marks; in a template without marks, all that follows. Raises InputError where the
    template refuses the conversation, or has no marks and renders the prompt alone to other ids.
    """
    from jinja2 import TemplateError

    if len(messages) < 2 or messages[-1]["role"] != "assistant":
        raise InputError("it must end with an assistant message, after at least one other.")
    marked = MARK.search(tokenizer.get_chat_template()) is not None
    try:
        prompt = tokenizer.apply_chat_template(
            messages[:-1], add_generation_prompt=True, return_dict=True, **template_kwargs
        )["input_ids"]
        full = tokenizer.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=marked, **template_kwargs
        )
    except TemplateError as error:
        raise InputError(f"the model's chat template refuses it: {error}") from None
    ids = list(full["input_ids"])
    start = _common(prompt, ids)
    if not marked and start < len(prompt):
        raise InputError(
            "the tokens of its prompt are not the beginning of its tokens, and the model's chat "
            "template has no {% generation %} marks to say where the answer begins: strip white "
            "space around the answer, or add the marks to the template."
        )
    mask = full["assistant_masks"] if marked else [1] * len(ids)
    learned = zip(ids[start:], mask[start:], strict=True)
    return ids, [IGNORED] * start + [token if bit else IGNORED for token, bit in learned]


@dataclass(frozen=True, slots=True)
class Constant:
    """Tokens that every row of a shape has."""

    begin: int
    """Where it begins in the rendered shape, in characters."""
    ids: Ints


@dataclass(frozen=True, slots=True)
class Variable:
    """What stands between two special tokens, or an end of the text, and has texts in it."""

    begin: int
    parts: tuple[Part, ...]
    left: str
    """The special token before it, if any: it is encoded with it, as some swallow white space."""
    right: str
    """The special token behind it, if any."""


@dataclass(frozen=True, slots=True)
class Border:
    """A place in a shape."""

    segment: int
    token: int = 0
    """Tokens of a constant segment before it."""
    parts: tuple[Part, ...] = ()
    """The part of a variable segment before it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How a shape's rows are put together."""

    segments: tuple[Constant | Variable, ...]
    start: Border
    """Before the first learned token."""
    end: Border | None
    """Behind the last learned token; None: the row ends with it."""
    trims: bool
    """The template does something about white space around texts."""


class Planner:
    """Renders shapes by the tokenizer's chat template.

    Raises NotSegmentableError where a tokenizer of another kind would be needed.
    """

    def __init__(self, tokenizer: Any, template_kwargs: Mapping[str, Any]) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise NotSegmentableError("the tokenizer is not one of the tokenizers library")
        self.backend = tokenizer.backend_tokenizer
        self.backend.no_truncation()
        self.backend.no_padding()
        self._template = tokenizer.get_chat_template()
        self._marked = MARK.search(self._template) is not None
        self._arguments = {**tokenizer.special_tokens_map, **template_kwargs}
        special = sorted(
            (
                token.content
                for token in tokenizer.added_tokens_decoder.values()
                if token.special and not token.normalized and not token.single_word
            ),
            key=len,
            reverse=True,  # the longest of those that begin alike, as tokenizers choose
        )
        self._special = re.compile("|".join(map(re.escape, special)) or "(?!)")

    def plan(self, messages: list[dict[str, str]]) -> Plan:
        """The plan for conversations of the shape of `messages`, whose texts are placeholders.

        Raises jinja2.TemplateError where the template refuses them, NotSegmentableError where their
        rows cannot be put together from segments.
        """
        text, marks = self._render(messages)
        prompt, _ = self._render(messages[:-1], add_generation_prompt=True)
        if not text.startswith(prompt):
            raise NotSegmentableError("the template renders the prompt alone to another text")
        padded, _ = self._render(
            [{k: PLACEHOLDER.sub(" \\g<0>\n", v) for k, v in m.items()} for m in messages]
        )
        segments = self._segments(text)
        start, end = len(prompt), None
        if self._marked:
            learned = [mark for mark in marks if mark[1] > len(prompt)]
            if not learned or any(a[1] != b[0] for a, b in pairwise(learned)):
                raise NotSegmentableError("the answer is not within one generation mark")
            start = max(start, learned[0][0])
            end = self._border(segments, text, learned[-1][1], after=True)
        return Plan(
            segments=segments,
            start=self._border(segments, text, start, prompt=prompt),
            end=end,
            trims=padded != PLACEHOLDER.sub(" \\g<0>\n", text),
        )

    def _render(
        self, messages: list[dict[str, str]], **options: bool
    ) -> tuple[str, list[tuple[int, int]]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        texts, marks = render_jinja_template(
            [messages],
            chat_template=self._template,
            return_assistant_tokens_mask=self._marked,
            **options,
            **self._arguments,
        )
        return texts[0], marks[0] if self._marked else []

    def _encode(self, text: str) -> Any:
        return self.backend.encode(text, add_special_tokens=False)

    def _segments(self, text: str) -> tuple[Constant | Variable, ...]:
        special = [found.span() for found in self._special.finditer(text)]
        ends = [(0, 0), *special, (len(text), len(text))]
        segments: list[Constant | Variable] = []
        begin = 0

        def constant(until: int) -> None:
            if until > begin:
                ids = np.array(self._encode(text[begin:until]).ids, np.int32)
                segments.append(Constant(begin, ids))

        for left, right in pairwise(ends):
            if PLACEHOLDER.search(text, left[1], right[0]):
                constant(left[1])
                begin = right[0]
                segments.append(
                    Variable(
                        begin=left[1],
                        parts=_parts(text[left[1] : right[0]]),
                        left=text[slice(*left)],
                        right=text[slice(*right)],
                    )
                )
        constant(len(text))
        return tuple(segments)

    def _border(
        self,
        segments: tuple[Constant | Variable, ...],
        text: str,
        place: int,
        *,
        prompt: str | None = None,
        after: bool = False,
    ) -> Border:
        """`place`, a number of characters, in `segments`; `after`: behind the character before it.

        Where the place is the prompt's end, tokens count as before it that the prompt alone has.
        """
        number = max(i for i, s in enumerate(segments) if s.begin < place + (not after))
        segment = segments[number]
        before = text[segment.begin : place]
        if isinstance(segment, Variable) or not before:
            return Border(number, parts=_parts(before))
        until = segments[number + 1].begin if number + 1 < len(segments) else len(text)
        encoding = self._encode(text[segment.begin : until])
        if prompt is not None and place == len(prompt):
            return Border(number, token=_common(self._encode(before).ids, encoding.ids))
        token = encoding.char_to_token(len(before) - after)
        if token is None:
            raise NotSegmentableError("a generation mark stands beside text that has no token")
        return Border(number, token=token + after)


def _parts(text: str) -> tuple[Part, ...]:
    """Literal text and numbers of placeholders in turn."""
    halves = PLACEHOLDER.split(text)  # every second one is a number
    return tuple(int(half) if i % 2 else half for i, half in enumerate(halves) if half or i % 2)


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    for count, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return count
    return min(len(left), len(right))
