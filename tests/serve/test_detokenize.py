"""Text of token ids as they come, by tokenizers of the three kinds that matter."""

import json
import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import pytest

from serve.detokenize import Detokenizer, TokenText, is_byte_level, token_texts

JAPANESE = "日本の首都は東京です。𠮷野家で😀 the quick fox\n\n"


@cache
def sentencepiece() -> Any:
    """Words with ▁, and bytes for all else; the first word's space is dropped, as Llama 2 does."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    words = ["<unk>", "▁", "▁the", "▁fox", "fox", "本"]
    pieces = [*words, *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1),
        ]
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


def decoder(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    return lambda ids: str(tokenizer.decode(ids, skip_special_tokens=True))


def grouped(ids: Sequence[int], chance: random.Random, largest: int) -> list[Sequence[int]]:
    out = []
    while ids:
        size = chance.randint(1, largest)
        out.append(ids[:size])
        ids = ids[size:]
    return out


def text(decode: Callable[[Sequence[int]], str], pieces: Sequence[Sequence[int]]) -> str:
    detokenizer = Detokenizer(decode)
    return "".join(map(detokenizer.feed, pieces)) + detokenizer.finish()


@pytest.mark.parametrize("largest", [1, 2, 7, 1000])
def test_byte_level_ids_in_any_grouping_give_the_text_of_all_even_if_they_are_nonsense(
    tokenizer: Any, largest: int
) -> None:
    decode, chance = decoder(tokenizer), random.Random(5)
    whole = tokenizer(JAPANESE, add_special_tokens=False)["input_ids"]
    bad = [i for i in range(len(tokenizer)) if "\ufffd" in decode([i])]
    for _ in range(200):
        pool = chance.choice([whole, bad, range(len(tokenizer))])
        ids = chance.choice([whole, chance.choices(pool, k=chance.randrange(60))])
        assert text(decode, grouped(ids, chance, largest)) == decode(ids)


@pytest.mark.parametrize("largest", [1, 2, 7, 1000])
def test_sentencepiece_ids_in_any_grouping_give_the_text_of_all(largest: int) -> None:
    tokenizer = sentencepiece()
    decode, chance = decoder(tokenizer), random.Random(6)
    pieces = ["▁", "▁the", "▁fox", "fox", "本"]
    for _ in range(200):
        words = chance.choices([*pieces, "京", "😀", "é", "<unk>"], k=chance.randrange(20))
        ids: list[int] = []
        for word in words:
            known = tokenizer.convert_tokens_to_ids(word)
            spelled = [f"<0x{byte:02X}>" for byte in word.encode()]
            is_one = known != 0 or word == "<unk>"
            ids += [known] if is_one else tokenizer.convert_tokens_to_ids(spelled)
        assert text(decode, grouped(ids, chance, largest)) == decode(ids)


def test_broken_bytes_read_the_same_in_any_grouping_with_byte_fallback() -> None:
    tokenizer, chance = sentencepiece(), random.Random(7)
    decode = decoder(tokenizer)
    for _ in range(300):
        ids: list[int] = []
        for _ in range(chance.randrange(40)):
            broken = [chance.randrange(256)]
            spelled = chance.choice([list(b"a"), list("砃".encode()), broken])
            ids += tokenizer.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in spelled])
            ids += chance.choices(range(1, 6), k=chance.random() < 0.1)
        alone = text(decode, [[i] for i in ids])
        assert {text(decode, grouped(ids, chance, n)) for n in (2, 9, 100)} == {alone}


def test_a_character_comes_out_with_its_last_token_and_not_before(tokenizer: Any) -> None:
    detokenizer = Detokenizer(decoder(tokenizer))
    ids = tokenizer("a京", add_special_tokens=False)["input_ids"]
    assert [detokenizer.feed([i]) for i in ids] == ["a", "", "", "京"]


@pytest.mark.parametrize(("complete", "rest"), [(True, "\ufffd"), (False, "")])
def test_half_a_character_at_the_end_is_dropped_where_it_was_cut(
    tokenizer: Any, complete: bool, rest: str
) -> None:
    detokenizer = Detokenizer(decoder(tokenizer))
    ids = tokenizer("a京", add_special_tokens=False)["input_ids"]
    assert detokenizer.feed(ids[:-1]) + detokenizer.finish(complete=complete) == "a" + rest


def test_text_that_continues_a_prompt_keeps_its_first_space() -> None:
    tokenizer = sentencepiece()
    prompt, answer = tokenizer.convert_tokens_to_ids(["▁the", "▁fox"])
    assert Detokenizer(decoder(tokenizer), [prompt, 0]).feed([answer]) == " fox"
    assert Detokenizer(decoder(tokenizer)).feed([answer]) == "fox"


@pytest.mark.parametrize(
    ("end", "largest", "calls", "most"),
    [("fox", 64, 2, 64), ("京", 64, 6, 64), ("fox", 1, 64, 5), ("京", 1, 64, 5)],
)
def test_decoding_costs_few_calls_of_few_ids(
    tokenizer: Any, end: str, largest: int, calls: int, most: int
) -> None:
    decode = decoder(tokenizer)
    seen: list[int] = []

    def counted(ids: Sequence[int]) -> str:
        seen.append(len(ids))
        return decode(ids)

    ids = [i for text in ("a" * 20, JAPANESE) for i in tokenizer(text)["input_ids"]][:40]
    ids += tokenizer("the quick fox " * 9)["input_ids"][: 64 - 42]
    ids += tokenizer(end)["input_ids"][:2]
    assert len(ids) == 64
    detokenizer = Detokenizer(counted)
    for at in range(0, len(ids), largest):
        detokenizer.feed(ids[at : at + largest])
    assert len(seen) <= calls
    assert max(seen) <= most


def test_nonsense_without_end_is_not_decoded_again_and_again(tokenizer: Any) -> None:
    decode = decoder(tokenizer)
    longest = 0

    def watched(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode(ids)

    lead = tokenizer("京", add_special_tokens=False)["input_ids"][0]
    assert text(watched, [[lead]] * 500) == decode([lead] * 500)
    assert longest < 25


def test_single_tokens_show_their_bytes_and_control_tokens_their_names(tokenizer: Any) -> None:
    ids = tokenizer("京 fox<|end|>", add_special_tokens=False)["input_ids"]
    shown = token_texts(ids, tokenizer.convert_ids_to_tokens, byte_level=is_byte_level(tokenizer))
    assert b"".join(token.bytes for token in shown) == "京 fox<|end|>".encode()
    assert shown[0] == TokenText(text="\ufffd", bytes="京".encode()[:1])
    assert shown[-1].text == "<|end|>"


def test_single_sentencepiece_tokens_keep_their_space() -> None:
    tokenizer = sentencepiece()
    ids = tokenizer.convert_tokens_to_ids(["▁the", "<0xE3>", "本"])
    shown = token_texts(ids, tokenizer.convert_ids_to_tokens, byte_level=is_byte_level(tokenizer))
    assert [token.bytes for token in shown] == [b" the", b"\xe3", "本".encode()]


def test_the_byte_letters_are_those_of_the_tokenizer(tokenizer: Any) -> None:
    pieces = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"]
    letters = [piece for piece in pieces if len(piece) == 1]
    ids = tokenizer.convert_tokens_to_ids(letters)
    shown = token_texts(ids, tokenizer.convert_ids_to_tokens, byte_level=True)
    assert sorted(token.bytes for token in shown) == [bytes([byte]) for byte in range(256)]
    assert all(t.text == tokenizer.decode([i]) for i, t in zip(ids, shown, strict=True))
