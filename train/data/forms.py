"""The forms of rows that a user may bring, and how one row of each becomes messages.

    training_rows({"question": "…", "answer": "…"}, "question_answer", config, notices)

One training row comes out per assistant turn to be learned, its messages ending with that turn:

    {"messages": [{"role": "system", "content": "reasoning language: Japanese"},
                  {"role": "user", "content": "…"},
                  {"role": "assistant", "content": "…", "thinking": "…"}]}

The split matters for Harmony: its template renders `thinking` in the last turn alone, so learning
from earlier turns of a longer conversation would teach the model to skip its reasoning.

This file alone says what each form means. train/data/columns.py does the same for many rows at
once where they are plainly well formed, and is tested against this.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from train.errors import InputError
from train.recipe import DataConfig

Message = dict[str, Any]
Notices = Counter[str]

ROLES = ("system", "user", "assistant")
CONTROL_TOKEN = re.compile(r"<\|[a-z_]+\|>")
THINKING_KEYS = ("thinking", "reasoning_content", "reasoning")
"""Names that published rows give to the reasoning of an assistant message."""

NO_THINK = "answer without <think>: learned without reasoning"
EMPTY_THINK = "<think></think> is empty: learned without reasoning"
REJECTED_UNUSED = "preference pair: the chosen answer is learned, the rejected one is not used"


class BadRow(Exception):
    """Why one row cannot be used; `kind` is what the report counts it under."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Form:
    """The columns that a form uses, and how a row becomes messages (raises BadRow)."""

    columns: frozenset[str]
    messages: Callable[[Mapping[str, Any], Notices], list[Message]]


def training_rows(
    row: Mapping[str, Any], form: str, config: DataConfig, notices: Notices, *, pairs: bool = False
) -> list[dict[str, Any]]:
    """What is learned from one row; with `pairs` one row that has the `rejected` message too."""
    if pairs:
        messages, rejected = _pair(row, notices)
        return [{"messages": with_system(messages, config), "rejected": rejected}]
    messages = with_system(FORMS[form].messages(row, notices), config)
    return [{"messages": turns} for turns in split_turns(messages, notices)]


def recognise(row: Mapping[str, Any], where: str, *, pairs: bool = False) -> str:
    """The form whose keys `row` has; InputError names the row and the known forms."""
    keys = row.keys()
    known = {
        "question_answer": {"question", "answer"},
        "dialogue_summary": {"text", "ground_truth"},
        "preference": {"prompt", "chosen", "rejected"},
    }
    has = ", ".join(sorted(map(str, keys))) or "(none)"
    if pairs:
        if known["preference"] <= keys:
            return "preference"
        raise InputError(
            f"{where}: method is dpo, which learns from preference pairs with the keys prompt, "
            f"chosen and rejected, but the row has {has}: give such rows, or set method to sft."
        )
    if "messages" in keys:
        turns = row["messages"] if isinstance(row["messages"], list) else []
        weighted = any(isinstance(t, dict) and t.get("weight") is not None for t in turns)
        return "azure_openai" if weighted else "chat"
    for form, needed in known.items():
        if needed <= keys:
            return form
    raise InputError(
        f"{where}: no known form has the keys {has}; "
        "known forms are question+answer, messages, text+ground_truth and prompt+chosen+rejected."
    )


def system_text(reasoning_language: str | None, persona: str) -> str:
    """The system message of a training row: `reasoning language: …`, a blank line, the persona."""
    language = f"reasoning language: {reasoning_language}" if reasoning_language else ""
    return "\n\n".join(part for part in (language, persona) if part)


def with_system(messages: list[Message], config: DataConfig) -> list[Message]:
    """`messages` led by the recipe's system text; a row's own system text is its persona."""
    own = messages[0]["content"] if messages[0]["role"] == "system" else ""
    turns = messages[1:] if own else messages
    language = None if own.startswith("reasoning language:") else config.reasoning_language
    text = system_text(language, own or config.persona)
    return [{"role": "system", "content": text}, *turns] if text else turns


def split_turns(messages: list[Message], notices: Notices) -> Iterator[list[Message]]:
    """One list per assistant turn to be learned, ending with it; weight 0 turns are context."""
    learned = [
        i for i, m in enumerate(messages) if m["role"] == "assistant" and m.pop("weight", 1) != 0
    ]
    if not learned:
        raise BadRow("no answer to learn from", "no assistant message to learn from")
    if messages[-1]["role"] != "assistant":
        notices["conversation ends without an answer; its last message is not used"] += 1
    for i in learned:
        earlier = [{k: v for k, v in m.items() if k != "thinking"} for m in messages[:i]]
        yield [*earlier, messages[i]]


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        raise BadRow(f"missing {key}", f"{key} is missing")
    if not isinstance(value, str):
        raise BadRow(f"{key} is not text", f"{key} is {type(value).__name__}, not text")
    if not value.strip():
        raise BadRow(f"empty {key}", f"{key} is empty")
    if marker := CONTROL_TOKEN.search(value):  # the template would let it through as the real one
        raise BadRow(
            "control token",
            f"{key} holds {marker.group()}, a control token of chat models; take it out",
        )
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = value[error.start]
        raise BadRow("half a character", f"{key} holds {half!r}, half of a character") from None
    return value


def _answer(row: Mapping[str, Any], key: str, notices: Notices) -> Message:
    """The assistant message of an answer, its `<think>…</think>` taken out."""
    answer = _text(row, key)
    before, opened, rest = answer.partition("<think>")
    thinking, closed, content = rest.partition("</think>")
    if opened:
        if not closed:
            raise BadRow("unclosed <think>", f"{key} has <think> without </think>")
        if before.strip():
            raise BadRow("text before <think>", f"{key} has text before <think>")
        if "<think>" in rest or "</think>" in content:
            raise BadRow("several <think>", f"{key} has more than one <think>…</think>")
    else:
        if "</think>" in answer:
            raise BadRow("unopened </think>", f"{key} has </think> without <think>")
        content = answer
    if not content.strip():
        raise BadRow(f"empty {key}", f"{key} is empty after </think>")
    message: Message = {"role": "assistant", "content": content.strip()}
    if thinking.strip():
        message["thinking"] = thinking.strip()
    elif opened:
        notices[EMPTY_THINK] += 1
    return message


def _question_answer(row: Mapping[str, Any], notices: Notices) -> list[Message]:
    message = _answer(row, "answer", notices)
    if "<think>" not in row["answer"]:
        notices[NO_THINK] += 1
    return [{"role": "user", "content": _text(row, "question")}, message]


def _dialogue_summary(row: Mapping[str, Any], notices: Notices) -> list[Message]:
    return [
        {"role": "user", "content": _text(row, "text")},
        {"role": "assistant", "content": _text(row, "ground_truth")},
    ]


def _preference(row: Mapping[str, Any], notices: Notices) -> list[Message]:
    _text(row, "rejected")
    notices[REJECTED_UNUSED] += 1
    chosen = _answer(row, "chosen", notices)
    return [{"role": "user", "content": _text(row, "prompt")}, chosen]


def _pair(row: Mapping[str, Any], notices: Notices) -> tuple[list[Message], Message]:
    """Prompt and chosen answer, and the rejected answer: what method dpo learns from."""
    rejected = _answer(row, "rejected", notices)
    chosen = _answer(row, "chosen", notices)
    prompt: Message = {"role": "user", "content": _text(row, "prompt")}
    if chosen == rejected:
        raise BadRow("equal pair", "chosen and rejected are the same")
    return [prompt, chosen], rejected


def _chat(row: Mapping[str, Any], notices: Notices) -> list[Message]:
    turns = row.get("messages")
    if not isinstance(turns, list) or not turns:
        raise BadRow("no messages", "messages is not a list of messages")
    messages: list[Message] = []
    for i, turn in enumerate(turns):
        at = f"messages[{i}]"
        if not isinstance(turn, dict):
            raise BadRow("message is no object", f"{at} is not an object")
        # a message that comes from Parquet has every key that any message has, filled with None
        given = _joined({k: v for k, v in turn.items() if v is not None}, at)
        role = given.pop("role", None)
        if role not in ROLES or (role == "system" and i):
            allowed = "system (first only), user or assistant"
            raise BadRow("wrong role", f"{at}.role is {role!r}; it must be {allowed}")
        weight = given.pop("weight", None)
        if weight is not None and (role != "assistant" or weight not in (0, 1)):
            raise BadRow(
                "wrong weight", f"{at}.weight is {weight!r}; only assistants have one, 0 or 1"
            )
        try:
            message = (
                _assistant(given, notices)
                if role == "assistant"
                else {"role": role, "content": _text(given, "content")}
            )
        except BadRow as error:
            raise BadRow(error.kind, f"{at}.{error}") from None
        if weight is not None:
            message["weight"] = weight
        used = {"content", *THINKING_KEYS} if role == "assistant" else {"content"}
        for key in given.keys() - used:
            notices[f"message key {key!r} is not used"] += 1
        messages.append(message)
    if messages[0]["role"] == "assistant" or all(m["role"] != "user" for m in messages):
        raise BadRow("no question", "messages has no user message before the first answer")
    return messages


def _joined(turn: dict[str, Any], at: str) -> dict[str, Any]:
    """The message with its text in one piece, where its content is a list of parts.

    A part is {"type": "text" or "reasoning", "text" or "value": …}; others cannot be learned.
    """
    parts = turn.get("content")
    if not isinstance(parts, list):
        return turn
    texts: dict[str, list[str]] = {"text": [], "reasoning": []}
    for part in parts:
        given = part if isinstance(part, dict) else {}
        kind, text = given.get("type"), given.get("text") or given.get("value")
        if kind not in texts or not isinstance(text, str):
            raise BadRow(
                f"part of type {kind}",
                f"{at}.content has a part of type {kind!r}; only text and reasoning are learned",
            )
        texts[kind].append(text)
    joined = {**turn, "content": "\n".join(texts["text"])}
    return joined | ({"thinking": "\n".join(texts["reasoning"])} if texts["reasoning"] else {})


def _assistant(turn: Mapping[str, Any], notices: Notices) -> Message:
    """Content and thinking of an assistant message, whose content may hold `<think>` itself."""
    own = next((key for key in THINKING_KEYS if turn.get(key)), None)
    content = _text(turn, "content")
    message: Message = {"role": "assistant", "content": content}
    if "<think>" in content or "</think>" in content:
        message = _answer(turn, "content", Counter() if own else notices)
        if own and "thinking" in message:
            raise BadRow("thinking twice", f"content has <think>…</think> and {own} is given too")
    if own:
        message["thinking"] = _text(turn, own)
    return message


FORMS = {
    "question_answer": Form(frozenset({"question", "answer"}), _question_answer),
    "chat": Form(frozenset({"messages", "prompt", "prompt_id"}), _chat),
    "azure_openai": Form(frozenset({"messages"}), _chat),
    "dialogue_summary": Form(frozenset({"text", "ground_truth"}), _dialogue_summary),
    "preference": Form(frozenset({"prompt", "chosen", "rejected"}), _preference),
}
"""Every form, by the name that `data.form` gives it."""
