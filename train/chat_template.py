"""The chat templates that models are trained and served with here.

    for_model("phi3", tokenizer)  -> template text, or None: the model's own stays

gpt-oss, Phi-3 and Mistral get templates with generation marks, which say what part of a rendered
conversation the model wrote. They render text as the models' own do. For gpt-oss that is TRL's
training variant, read from the installed package, with a date that can be pinned by the template
argument `current_date`: labels would otherwise change from day to day.
"""

import logging
from importlib import resources
from typing import Any

from train.errors import TrainError

log = logging.getLogger(__name__)

CLOCK = 'strftime_now("%Y-%m-%d")'
PINNABLE = f"(current_date if current_date is defined else {CLOCK})"
PRESENT = '{%- if "thinking" in message %}\n                {{- "<|start|>assistant'
FILLED = PRESENT.replace('"thinking" in message', "message.thinking")

SPACING = {
    "v0.1, v0.2": ("[INST] ", " [/INST]", " ", ""),
    "v0.3": ("[INST] ", "[/INST]", " ", ""),
    "v0.1, v0.2 as of 2024": (" [INST] ", " [/INST]", " ", ""),
    "v0.2 as of 2023": ("[INST] ", " [/INST]", "", ""),
    "v0.1 as of 2023": ("[INST] ", " [/INST]", "", " "),
    "Nemo": ("[INST]", "[/INST]", "", ""),
}
"""Of Mistral's releases: text before and after a question, before an answer, after its end."""


def for_model(model_type: str, tokenizer: Any) -> str | None:
    """The template of a gpt_oss, phi3 or mistral model; None where the model's own must stay.

    It stays for any other model, and where it renders another text than ours: Zephyr is a mistral
    and Phi-4 a phi3 by type, and they speak otherwise.
    """
    if model_type == "gpt_oss":
        log.info("chat template: gpt-oss with generation marks and a date that can be pinned")
        return harmony()
    candidates: dict[str, str] = {}
    if model_type == "phi3":
        candidates = {"Phi-3": _read("phi3.jinja")}
    elif model_type == "mistral":
        candidates = _mistral(tokenizer)
    for name, template in candidates.items():
        if _renders_as_its_own(tokenizer, template):
            log.info("chat template: %s with generation marks", name)
            return template
    if candidates:
        log.info("chat template: the model's own (it speaks unlike %s)", ", ".join(candidates))
    return None


def harmony() -> str:
    """The template of gpt-oss; TrainError where the installed TRL's is not the known one.

    An empty `thinking` counts as none: the original would render, and so teach, an empty one.
    """
    template = resources.files("trl").joinpath("chat_templates/gptoss_training.jinja").read_text()
    if template.count(CLOCK) != 1 or template.count(PRESENT) != 1:
        raise TrainError("trl's gpt-oss template is no longer the one that is changed here.")
    return template.replace(CLOCK, PINNABLE).replace(PRESENT, FILLED)


def _mistral(tokenizer: Any) -> dict[str, str]:
    template, first = _read("mistral.jinja"), SPACING["v0.1, v0.2"]
    candidates = {
        f"Mistral {release}": template.replace(_set(first), _set(spacing))
        for release, spacing in SPACING.items()
    }
    if "[INST]" in tokenizer.get_added_vocab():  # no text but a control token since v0.3
        del candidates["Mistral v0.1, v0.2"]
    return candidates


def _set(spacing: tuple[str, ...]) -> str:
    return f"opening, closing, lead, after = {', '.join(map(repr, spacing))} %}}"


def _read(name: str) -> str:
    return resources.files("train").joinpath("templates", name).read_text(encoding="utf-8")


def _renders_as_its_own(tokenizer: Any, template: str) -> bool:
    """Whether `template` gives the text of the tokenizer's own one; so if it has none."""
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        return True
    turns = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Two."},
        {"role": "user", "content": "Three?"},
    ]
    try:
        return all(
            tokenizer.apply_chat_template(
                turns[:count], tokenize=False, add_generation_prompt=count != 2
            )
            == tokenizer.apply_chat_template(
                turns[:count],
                tokenize=False,
                add_generation_prompt=count != 2,
                chat_template=template,
            )
            for count in (1, 2, 3)
        )
    except TemplateError:
        return False
