"""The model that every side of bench-serve answers with, and prompts of exact lengths for it.

    python -m bench.serve_inputs FOLDER     makes FOLDER/model and FOLDER/words.json, once

A Llama shape of 110 million random parameters in bfloat16, from a fixed seed, which is as fast as
trained ones. The rows of the special tokens are zero in the tied output layer, so a greedy answer
never ends early. The tokenizer is a byte-level BPE trained on made-up words.

A prompt is made of words that are one token each (`Prompts`), so its length is known without a
tokenizer; the sides' own token counts are held against it. Importing this imports nothing heavy.
"""

import json
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTEXT = 512
"""Most tokens of prompt and answer together; the longest mixed request has 448."""
VOCABULARY = 32_000
SPECIAL = ("<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SHAPE = {
    "num_hidden_layers": 12,
    "hidden_size": 768,
    "intermediate_size": 2432,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One request: as text for those that apply the chat template, as ids for those that do not."""

    text: str
    ids: tuple[int, ...]
    new_tokens: int


class Prompts:
    """Makes prompts, the same ones in the same order each time, and no two alike.

    Each begins with other words, so that no server's prefix cache knows more than the template.
    """

    def __init__(self, words: Path, seed: int = 1) -> None:
        given = json.loads(words.read_text(encoding="utf-8"))
        self._first: list[tuple[str, int]] = [(text, id) for text, id in given["first"]]
        self._next: list[tuple[str, int]] = [(text, id) for text, id in given["next"]]
        self._before: list[int] = given["before"]
        self._after: list[int] = given["after"]
        self._random = random.Random(seed)

    def make(self, length: int, new_tokens: int) -> Prompt:
        """A prompt of `length` tokens, the template's own among them."""
        count = length - len(self._before) - len(self._after)
        words = [self._random.choice(self._first), *self._random.choices(self._next, k=count - 1)]
        return Prompt(
            text="".join(text for text, _ in words),
            ids=(*self._before, *(id for _, id in words), *self._after),
            new_tokens=new_tokens,
        )

    def equal(self, count: int, length: int = 64, new_tokens: int = 64) -> list[Prompt]:
        return [self.make(length, new_tokens) for _ in range(count)]

    def mixed(self, count: int) -> list[Prompt]:
        """16 to 256 tokens in, 16 to 192 out, each length as likely as any other."""
        draw = self._random.randint
        return [self.make(draw(16, 256), draw(16, 192)) for _ in range(count)]


def made_up_words(count: int, seed: int = 1) -> list[str]:
    """Distinct words of two to four syllables."""
    draw = random.Random(seed)
    words: dict[str, None] = {}
    while len(words) < count:
        syllables = draw.randint(2, 4)
        words[
            "".join(draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(syllables))
        ] = None
    return list(words)


def make_tokenizer(words: Sequence[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer with the template; exactly `vocabulary` tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL),
        show_progress=False,
    )
    # the first word of a line is a token of its own, without the space
    tokenizer.train_from_iterator((f"{word} {word}" for word in words), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=SPECIAL[0],
        pad_token=SPECIAL[0],
        additional_special_tokens=list(SPECIAL),
    )
    fast.chat_template = TEMPLATE
    if len(fast) != vocabulary:
        raise RuntimeError(f"the tokenizer has {len(fast)} tokens, not {vocabulary}")
    return fast


def make_model(folder: Path, vocabulary: int, shape: dict[str, Any]) -> None:
    """Save random weights whose greedy answers never hold a special token."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=vocabulary,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
        **shape,
    )
    torch.manual_seed(7)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight[: len(SPECIAL)] = 0
    model.to(torch.bfloat16).save_pretrained(folder)


def make(
    folder: Path, *, vocabulary: int = VOCABULARY, shape: dict[str, Any] | None = None
) -> None:
    """Make the folder whole, or leave it as it is."""
    if (folder / "words.json").is_file():
        return
    shutil.rmtree(folder, ignore_errors=True)
    model = folder / "model"
    model.mkdir(parents=True)
    words = made_up_words(vocabulary // 2)
    tokenizer = make_tokenizer(words, vocabulary)
    tokenizer.save_pretrained(model)
    make_model(model, vocabulary, SHAPE if shape is None else shape)
    (folder / "words.json").write_text(json.dumps(single_tokens(tokenizer, words)), "utf-8")


def single_tokens(tokenizer: Any, words: Sequence[str]) -> dict[str, Any]:
    """Words that are one token each, at the start and after another, and the template's ids."""

    def encoded(texts: Sequence[str]) -> list[tuple[str, int]]:
        rows = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [(text, ids[0]) for text, ids in zip(texts, rows, strict=True) if len(ids) == 1]

    first, following = encoded(words), encoded([f" {word}" for word in words])
    message = [{"role": "user", "content": first[0][0]}]
    shown = tokenizer.apply_chat_template(message, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(shown, add_special_tokens=False)["input_ids"]
    at = ids.index(first[0][1])
    return {"first": first, "next": following, "before": ids[:at], "after": ids[at + 1 :]}


def main() -> None:
    folder = Path(sys.argv[1])
    make(folder)
    weights = (folder / "model" / "model.safetensors").stat().st_size
    print(json.dumps({"weight_bytes": weights}))


if __name__ == "__main__":
    main()
