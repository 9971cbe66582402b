"""Small tokenizers of the kinds that the models have: where they cut text differs.

Each is trained on a few lines; none holds more than some hundred tokens.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

TEXT = [
    "the quick brown fox jumps over the lazy dog",
    "What is the capital of Australia? The capital is Canberra.",
    "日本の首都は東京です。オーストラリアの首都はキャンベラです。",
    "[INST] One? [/INST] Two. <think>\nso it goes\n</think>\n\n",
]
PHI = ("<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
INST = ("[INST]", "[/INST]")


def byte_level(special: tuple[str, ...], tokens: dict[str, str]) -> Any:
    """Byte-level BPE, as GPT-2 cuts words: gpt-oss, Phi-4, Mistral Nemo."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    _train(raw, pre_tokenizers.ByteLevel.alphabet())
    return _finish(raw, special, tokens)


def sentencepiece(
    special: tuple[str, ...], tokens: dict[str, str], *, legacy: bool, swallow: str = ""
) -> Any:
    """SentencePiece's BPE with bytes for unknown characters: Llama 2, Mistral 7B, Phi-3.

    `legacy`: a space is put before the text behind every special token, as the first releases of
    these tokenizers do; else only at the start. `swallow`: special tokens take the white space
    `behind` them, as Phi-3's do, or `around` them.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    raw = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    words = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    raw.pre_tokenizer = words
    _train(raw, [], ("<unk>", *(f"<0x{byte:02X}>" for byte in range(256))))
    if legacy:
        raw.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        raw.pre_tokenizer = None  # as in Llama 2's tokenizer.json
    else:
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return _finish(raw, special, tokens, swallow=swallow)


def _train(raw: Any, alphabet: list[str], special: tuple[str, ...] = ()) -> None:
    from tokenizers import trainers

    trainer = trainers.BpeTrainer(
        vocab_size=700,
        initial_alphabet=alphabet,
        special_tokens=list(special),
        show_progress=False,
    )
    raw.train_from_iterator(TEXT * 20, trainer)


def _finish(
    raw: Any, special: tuple[str, ...], tokens: dict[str, str], *, swallow: str = ""
) -> Any:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast

    raw.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in tokens.values()]
        + [
            AddedToken(
                text,
                special=True,
                normalized=False,
                rstrip=bool(swallow),
                lstrip=swallow == "around",
            )
            for text in special
            if text not in tokens.values()
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, clean_up_tokenization_spaces=False, **tokens
    )


LLAMA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
BYTES = {"bos_token": "<s>", "eos_token": "</s>"}
PHI_ENDS = {"eos_token": "<|endoftext|>", "unk_token": "<unk>", "bos_token": "<s>"}

KINDS: dict[str, tuple[str, Callable[[], Any]]] = {
    "phi3": ("phi3", lambda: sentencepiece(PHI, PHI_ENDS, legacy=True, swallow="behind")),
    "phi3, all swallowed": (
        "phi3",
        lambda: sentencepiece(PHI, PHI_ENDS, legacy=True, swallow="around"),
    ),
    "phi3, nothing swallowed": ("phi3", lambda: sentencepiece(PHI, PHI_ENDS, legacy=True)),
    "phi3, byte-level": ("phi3", lambda: byte_level(PHI, {"eos_token": "<|endoftext|>"})),
    "mistral v0.1": ("mistral", lambda: sentencepiece((), LLAMA, legacy=True)),
    "mistral v0.3": ("mistral", lambda: sentencepiece(INST, LLAMA, legacy=False)),
    "mistral v0.3, legacy": ("mistral", lambda: sentencepiece(INST, LLAMA, legacy=True)),
    "mistral, byte-level": ("mistral", lambda: byte_level((), BYTES)),
}
"""By name: the model type and how the tokenizer is made."""


@cache
def tokenizer(kind: str) -> Any:
    """The tokenizer of that kind, with the template that its model is trained with."""
    from train.chat_template import for_model

    model_type, make = KINDS[kind]
    made = make()
    made.chat_template = for_model(model_type, made)
    return made
