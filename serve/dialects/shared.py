"""Fields that more than one dialect has, and what follows from several of them together."""

import re
from collections.abc import Mapping
from typing import Any

from serve.dialects.fields import Field, Integer, Number, OneOf, Special, Strings, Text
from serve.dialects.strict_json import refuse
from serve.request import MAX_STOPS, MIN_TEMPERATURE, MIN_TOP_P

LANGUAGE_LINE = re.compile(r"(?im)^[ \t]*reasoning language:")
MAX_SEED = 2**53 - 1
"""Beyond it, clients in JavaScript round; and engines count on from it, one per answer."""
MAX_TOP_K = 1_000_000


def read_language(value: Any, where: str) -> str:
    """One short line."""
    language = Text().read(value, where).strip()
    if len(language) > 64 or len(language.splitlines()) != 1:
        refuse(where, f"{where} must be one line of up to 64 characters.")
    return language


TEMPERATURE = Field(
    Number(MIN_TEMPERATURE), "How evenly tokens are drawn; below 1 is less random.", "the model's"
)
DRAWING = {
    "top_p": Field(
        Number(MIN_TOP_P, 1),
        "Draw from the likeliest tokens that have this probability together.",
        "the model's",
    ),
    "top_k": Field(
        Integer(0, MAX_TOP_K), "Draw from this many likeliest tokens; 0 is off.", "the model's"
    ),
    "min_p": Field(
        Number(0, 1), "Draw from tokens at least this likely, relative to the likeliest.", "0"
    ),
    "seed": Field(Integer(0, MAX_SEED), "The same seed draws the same answer on one server."),
}
"""Without effect where the likeliest token is always taken."""
REPETITION = {
    "repetition_penalty": Field(
        Number(0.01, 10), "Above 1, tokens of the prompt and the answer come again less.", "1"
    ),
}
STOP = {
    "stop": Field(Strings(MAX_STOPS), "Texts that end the answer, and are not part of it."),
}
REASONING = {
    "reasoning_language": Field(
        Special(
            read_language,
            {"type": "string", "maxLength": 64, "pattern": r"^[^\u0000-\u001f\u007f-\u00a0]*$"}
            | {"minLength": 1},
        ),
        "Language that the model is told to reason in.",
        "the model's",
    ),
    "reasoning_effort": Field(
        OneOf(("low", "medium", "high")), "How long the model is told to reason."
    ),
}


def read_tokens(
    given: Mapping[str, Any], names: tuple[str, ...], context: int, prefix: str = ""
) -> int | None:
    """The answer's limit, which goes by several names; they must agree."""
    found = {name: given[name] for name in names if name in given}
    for name, value in found.items():
        if value > context:
            refuse(prefix + name, f"{prefix}{name} must be a whole number from 1 to {context}.")
    if len(set(found.values())) > 1:
        last = list(found)[-1]
        refuse(prefix + last, f"{' and '.join(found)} differ; send one of them.")
    return next(iter(found.values()), None)


def refuse_drawing(
    given: Mapping[str, Any], names: tuple[str, ...], remedy: str, prefix: str = ""
) -> None:
    """Sampling parameters where nothing is drawn."""
    for name in names:
        if name in given:
            refuse(prefix + name, f"{prefix}{name} has no effect without sampling: {remedy}.")


def refuse_two_languages(language: str | None, system: str | None, where: str) -> None:
    """The system text may have its own `reasoning language:` line."""
    if language is not None and system is not None and LANGUAGE_LINE.search(system):
        refuse(
            where,
            "the system text already has a `reasoning language:` line; send one or the other.",
        )
